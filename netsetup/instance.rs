//! One instance at a time: a lock that says who holds it and that no kind of death leaves behind.
//!
//! The lock is the abstract unix socket `netbpf/NAME`, which is per network namespace by itself.
//! Its owner keeps it listening; connecting to it names the owner's pid (`SO_PEERCRED`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};

use crate::failure::Failure;
use crate::process;

/// How long the last `ip` command of a killed owner may take to end.
const ORPHANS_END: Duration = Duration::from_secs(5);

/// The right to be the only one of that name in this network namespace.
#[derive(Debug)]
pub struct Instance {
    socket: UnixListener,
}

impl Instance {
    /// Takes the lock, or fails with [`Failure::Conflict`] that names the pid of its holder.
    ///
    /// `name` says what there may be only one of, as a reader would: `neighbor_sharing`, or
    /// `tokenbucket on eth0`.
    pub fn claim(name: &str) -> Result<Instance> {
        let address = format!("netbpf/{name}");
        let listen = SocketAddr::from_abstract_name(&address)
            .with_context(|| format!("the name {name} is too long for a lock"))?;
        let deadline = Instant::now() + ORPHANS_END;
        loop {
            match UnixListener::bind_addr(&listen) {
                Ok(socket) => return Ok(Instance { socket }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("bind the socket @{address}"));
                }
            }
            match holder(&address).with_context(|| format!("ask the socket @{address}"))? {
                Holder::Pid(pid) => {
                    return Err(Failure::Conflict(format!(
                        "{name} is already running as pid {pid}; stop it first"
                    ))
                    .into());
                }
                Holder::Unnamed => {
                    return Err(Failure::Conflict(format!(
                        "{name} is already running, in another pid namespace; stop it first"
                    ))
                    .into());
                }
                Holder::Ending if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                Holder::Ending => {
                    return Err(Failure::Conflict(format!(
                        "a killed {name} still has a child that holds the socket @{address}; \
                         end it (ss -xlp shows it)"
                    ))
                    .into());
                }
            }
        }
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Holder {
    Pid(i32),
    /// It lives in a pid namespace that we cannot see.
    Unnamed,
    /// It has just gone, or is dead and an `ip` command of its still has to die.
    Ending,
}

fn holder(address: &str) -> nix::Result<Holder> {
    // Not blocking: nobody accepts, so a full queue would block for ever.
    let client = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    match connect(
        client.as_raw_fd(),
        &UnixAddr::new_abstract(address.as_bytes())?,
    ) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED) => return Ok(Holder::Ending),
        Err(errno) => return Err(errno),
    }
    Ok(match getsockopt(&client, sockopt::PeerCredentials)?.pid() {
        0 => Holder::Unnamed,
        pid if process::pid_is_alive(pid) => Holder::Pid(pid),
        _ => Holder::Ending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_claim_names_the_first_and_the_lock_ends_with_it() {
        let name = format!("test of claims in {}", std::process::id());
        let first = Instance::claim(&name).unwrap();
        let error = Instance::claim(&name).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{name} is already running as pid {}; stop it first",
                std::process::id()
            )
        );
        assert!(matches!(
            error.downcast_ref::<Failure>(),
            Some(Failure::Conflict(_))
        ));
        drop(first);
        Instance::claim(&name).unwrap();
    }
}
