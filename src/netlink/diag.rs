//! Sockets, as inet_diag lists them.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::DUMP;
use super::socket::{Refusal, Socket};
use super::wire::{Attributes, Request};
use crate::Failure;

/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct inet_diag_req_v2` and `struct inet_diag_msg` (linux/inet_diag.h).
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
/// In a request: the maps that are asked for, and one of them by its descriptor.
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
/// In an answer, where the socket has a value in one of them.
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;

/// How many TCP sockets of this network namespace have a value in a map of socket storage, whoever has the
/// sockets. It takes CAP_BPF, and CAP_NET_ADMIN.
pub fn sockets_in(map: BorrowedFd<'_>) -> Result<usize> {
    let mut socket = Socket::speaking(SockProtocol::NetlinkSockDiag, 0)?;
    let mut sockets = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut fixed = [0; REQUEST];
        fixed[0] = family as u8;
        fixed[1] = libc::IPPROTO_TCP as u8;
        fixed[4..8].fill(0xff); // in any state
        let map = map.as_raw_fd().to_ne_bytes();
        let request = Request::new(SOCK_DIAG_BY_FAMILY, DUMP, &fixed)
            .nested(INET_DIAG_REQ_SK_BPF_STORAGES, |request| {
                request.attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &map)
            })?;
        let found = socket.dump(&request, |message| {
            Attributes::after(message.payload, MESSAGE)
                .any(|(kind, _)| kind == INET_DIAG_SK_BPF_STORAGES)
                .then_some(())
        });
        sockets += found.map_err(explained)?.len();
    }
    Ok(sockets)
}

fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Refusal>() {
        Some(refusal) if refusal.errno == Errno::ENOENT => Failure::Kernel(
            "this kernel does not list TCP sockets (CONFIG_INET_TCP_DIAG)".to_owned(),
        )
        .into(),
        _ => error.context("list the held sockets"),
    }
}
