//! What is looked at before anything is attached: limits, the kernel, the interfaces, and who would
//! notice.

mod descriptors;
mod interfaces;
mod kernel;
mod tcp;

pub use descriptors::take_all_descriptors;
pub use interfaces::{
    Expanded, LeftOut, LinkLayer, expand_interfaces, find_interface, is_pattern, link_layer,
    present_interfaces,
};
pub use kernel::kernel_floor;
pub use tcp::{TcpSession, TcpSessions, standing_on, warning};
