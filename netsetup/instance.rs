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
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getsockopt, shutdown, socket,
    sockopt,
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
                        "{name} is already running, as a process that cannot be named from here \
                         (ss -xlp may show it); stop it first"
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

    /// The pid of who has that lock, if anybody has.
    pub fn holder(name: &str) -> Result<Option<i32>> {
        let address = format!("netbpf/{name}");
        match holder(&address).with_context(|| format!("ask the socket @{address}"))? {
            Holder::Pid(pid) => Ok(Some(pid)),
            Holder::Ending => Ok(None),
            Holder::Unnamed => Err(Failure::Conflict(format!(
                "{name} is running as a process that cannot be named from here (ss -xlp may show \
                 it)"
            ))
            .into()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Another thread may just be starting a child, which has a copy of the socket until exec.
        // Shut down, it says no to whoever asks, who then waits for that moment to pass.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Holder {
    Pid(i32),
    /// It lives in a pid namespace that we cannot see, or was asked too often: nobody takes the
    /// connections out of its queue.
    Unnamed,
    /// It has just gone, or is dead and an `ip` command of its still has to die.
    Ending,
}

fn holder(address: &str) -> nix::Result<Holder> {
    // Not blocking: a full queue would block for ever.
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
        Err(Errno::EAGAIN) => return Ok(Holder::Unnamed),
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
    use crate::child;
    use std::env;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::channel;
    use std::thread;

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

    #[test]
    fn a_copy_that_somebody_still_has_of_a_freed_lock_is_waited_for() {
        let name = format!("test of copies in {}", std::process::id());
        let first = Instance::claim(&name).unwrap();
        let copy = first.socket.try_clone().unwrap();
        drop(first);
        let (done, claimed) = channel();
        thread::scope(|scope| {
            scope.spawn(|| done.send(Instance::claim(&name)).unwrap());
            let early = claimed.recv_timeout(Duration::from_millis(50));
            assert!(early.is_err(), "claimed beside the copy: {early:?}");
            drop(copy);
            claimed.recv().unwrap().unwrap();
        });
    }

    /// The name that the role below is to claim.
    const ROLE: &str = "NETSETUP_TEST_CLAIMS";

    #[test]
    fn the_lock_of_a_dead_owner_is_held_until_its_last_child_has_ended() {
        let name = format!("test of orphans in {}", std::process::id());
        let role = "instance::tests::role_of_an_owner_that_leaves_a_child";
        let mut owner = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", role])
            .env(ROLE, &name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let childs_input = owner.stdin.take().unwrap();
        assert!(owner.wait_with_output().unwrap().status.success());
        let (done, claimed) = channel();
        thread::scope(|scope| {
            scope.spawn(|| done.send(Instance::claim(&name)).unwrap());
            let early = claimed.recv_timeout(Duration::from_millis(100));
            assert!(early.is_err(), "claimed beside the child: {early:?}");
            drop(childs_input);
            claimed.recv().unwrap().unwrap();
        });
    }

    #[test]
    #[ignore = "the owner in the test above, nothing by itself"]
    fn role_of_an_owner_that_leaves_a_child() {
        let Ok(name) = env::var(ROLE) else { return };
        let instance = Instance::claim(&name).unwrap();
        let mut command = Command::new("cat");
        child::hand_over(&mut command, instance.as_fd());
        // Not waited for and not tied to us: that is what the test is about.
        drop(command.spawn().unwrap());
    }
}
