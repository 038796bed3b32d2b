//! What an interface does for the kernel: `ethtool -K`, where ethtool need not be installed.

use crate::namespace::Place;
use crate::step;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

/// linux/ethtool.h
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether checksums of what leaves by this interface are left to it. Where they are not, the kernel makes
/// them, and cuts a packet into its segments before (there is one for each).
pub fn checksums(place: &Place, interface: &str, are_left: bool) {
    place.run(|| {
        ask(interface, ETHTOOL_STXCSUM, u32::from(are_left));
        let now = ask(interface, ETHTOOL_GTXCSUM, 0);
        assert_eq!(now != 0, are_left, "{interface} does as it likes");
    });
}

fn ask(interface: &str, command: u32, data: u32) -> u32 {
    let mut value = Value { command, data };
    // SAFETY: an interface's name and a pointer, for which 0 is "nothing".
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    assert!(
        interface.len() <= room,
        "{interface} is no interface's name"
    );
    for (to, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let flags = SockFlag::SOCK_CLOEXEC;
    let asking = socket(AddressFamily::Inet, SockType::Datagram, flags, None);
    let asking = step("open a socket to ask by", asking);
    // SAFETY: the request outlives the call, and so does the value, which is as large as these commands have it.
    let result = unsafe { libc::ioctl(asking.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    step(
        format!("ethtool command {command:#x} for {interface}"),
        Errno::result(result),
    );
    value.data
}
