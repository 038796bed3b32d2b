//! What is looked at before anything is attached: the kernel, the interfaces, and who would
//! notice.

mod interfaces;
mod kernel;
mod tcp;

pub use interfaces::{
    Expanded, LeftOut, LinkLayer, expand_interfaces, find_interface, is_pattern, link_layer,
    present_interfaces,
};
pub use kernel::kernel_floor;
pub use tcp::{TcpSession, TcpSessions, standing_on, warning};
