//! Interfaces whose packets the test writes and reads itself.

use crate::namespace::Place;
use crate::step;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/net/tun";
const COMES_WITHIN: Duration = Duration::from_secs(2);

/// Whether the kernel has such interfaces.
pub fn is_there() -> bool {
    std::path::Path::new(DEVICE).exists()
}

/// An interface without a link-layer header, in the sandbox itself; goes when dropped.
#[derive(Debug)]
pub struct Tun {
    name: String,
    file: File,
}

impl Tun {
    /// A new one, up.
    pub fn new(name: &str) -> Tun {
        let tun = Tun::down(name);
        Place::here().ip(&format!("link set {name} up"));
        tun
    }

    /// A new one that says to be of another type (linux/if_arp.h), and is down.
    pub fn of_type(name: &str, arphrd: u16) -> Tun {
        let tun = Tun::down(name);
        let arphrd = libc::c_ulong::from(arphrd);
        // SAFETY: an open descriptor; the type is a number.
        let result = unsafe { libc::ioctl(tun.file.as_raw_fd(), libc::TUNSETLINK, arphrd) };
        step(
            format!("set the type of {name}"),
            nix::Error::result(result),
        );
        tun
    }

    fn down(name: &str) -> Tun {
        Place::here().ip(&format!("tuntap add dev {name} mode tun"));
        let file = step(DEVICE, File::options().read(true).write(true).open(DEVICE));
        // SAFETY: all zeros is a value of this struct.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: an open descriptor, and a whole ifreq that outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        step(format!("open {name}"), nix::Error::result(result));
        let name = name.into();
        Tun { name, file }
    }

    /// Lets an IP packet come in by it.
    pub fn write(&mut self, packet: &[u8]) {
        step("write to the tun device", self.file.write_all(packet));
    }

    /// The next IPv4 packet that goes out by it.
    pub fn read(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + COMES_WITHIN;
        let mut packet = vec![0; 2048];
        while Instant::now() < deadline {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if step("wait for a packet", poll(&mut fds, 100_u16)) > 0 {
                let length = step("read from the tun device", self.file.read(&mut packet));
                if packet[0] >> 4 == 4 {
                    packet.truncate(length);
                    return packet;
                }
            }
        }
        panic!("no packet came out of {}", self.name);
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        // What stays, the comparison at the end of the sandbox finds.
        let words = ["link", "delete", &self.name];
        let _ = Place::here().command("ip").args(words).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::sandbox;

    #[test]
    fn packets_come_in_and_go_out() {
        let name = "packets_come_in_and_go_out";
        if !is_there() {
            return crate::skip(name, "no /dev/net/tun");
        }
        sandbox::run(name, |_| {
            let mut tun = Tun::new("tun7");
            Place::here().ip("address add 192.0.2.1/24 dev tun7");
            let ping = Packet::without_link().ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
            tun.write(&ping.icmp(8, 0, [0; 4]).build());
            let pong = tun.read();
            assert_eq!((pong[9], pong[20]), (1, 0), "an echo reply");
            drop(tun);
            let odd = Tun::of_type("ib0", 32);
            let link = Place::here().ip("-o link show dev ib0");
            assert!(link.contains("link/infiniband"), "{link}");
            drop(odd);
        });
    }
}
