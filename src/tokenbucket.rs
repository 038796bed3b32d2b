//! tokenbucket: a token bucket for every source that sends through an interface, as a state machine of
//! the Open Packet Processor.

pub mod machine;
pub mod traffic;

#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/tokenbucket.skel.rs"));
}
