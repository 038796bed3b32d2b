//! Interfaces that take every frame of their cable, whoever it is for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Keeps interfaces promiscuous as long as it lives, and no longer than the process; others who want the
/// same of them are not disturbed. What it takes is CAP_NET_RAW when it is made.
#[derive(Debug)]
pub struct Promiscuous {
    /// Of no protocol, so that no frame ever comes to it.
    socket: OwnedFd,
}

impl Promiscuous {
    /// No interface yet.
    pub fn new() -> Result<Promiscuous> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        Ok(Promiscuous {
            socket: socket.context("open a packet socket")?,
        })
    }

    /// This one too.
    pub fn add(&self, ifindex: u32) -> io::Result<()> {
        self.set(libc::PACKET_ADD_MEMBERSHIP, ifindex)
    }

    /// This one no more. One that is gone is so anyway.
    pub fn remove(&self, ifindex: u32) {
        let _ = self.set(libc::PACKET_DROP_MEMBERSHIP, ifindex);
    }

    fn set(&self, option: libc::c_int, ifindex: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: ifindex.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the kernel reads the request, which outlives the call, up to the length that is given.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
