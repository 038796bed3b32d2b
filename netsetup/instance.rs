//! One instance at a time: a lock that says who holds it and that no kind of death leaves behind.
//!
//! The lock is the abstract unix socket `netbpf/NAME`, which is per network namespace by itself.
//! Its owner keeps it listening; connecting to it names the owner's user and process
//! (`SO_PEERCRED`). Anybody may take an abstract name: only a process of our own user counts as a
//! holder, another user's is named and refused.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};

use crate::failure::Failure;

mod holder;

pub use holder::Holder;
use holder::{Answer, ask, keeper};

/// How long the last `ip` command of a killed owner may take to end.
const ORPHANS_END: Duration = Duration::from_secs(5);
/// After this long somebody else is thought of, who has the name and does not listen.
const COPIES_END: Duration = Duration::from_millis(20);

/// The right to be the only one of that name in this network namespace.
#[derive(Debug)]
pub struct Instance {
    socket: UnixListener,
    /// Another process has it as well, which keeps it.
    is_left: bool,
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
        let start = Instant::now();
        let mut looked = false;
        loop {
            match UnixListener::bind_addr(&listen) {
                Ok(socket) => {
                    return Ok(Instance {
                        socket,
                        is_left: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("bind the socket @{address}"));
                }
            }
            let mut answer = ask(&address).with_context(|| asking(&address))?;
            if matches!(answer, Answer::Ending) && !looked && start.elapsed() > COPIES_END {
                looked = true;
                let kept = keeper(&address).with_context(|| asking(&address))?;
                // A child of ours is waited for.
                if let Some(Answer::Foreign { uid, pid }) = kept {
                    answer = Answer::Foreign { uid, pid };
                }
            }
            match answer {
                Answer::Holder(Holder { pid, .. }) => {
                    return Err(Failure::Conflict(format!(
                        "{name} is already running as pid {pid}; stop it first"
                    ))
                    .into());
                }
                Answer::Foreign { uid, pid } => {
                    return Err(Failure::Conflict(format!(
                        "user {uid} holds the name @{address} as pid {pid}; that is not an instance of \
                         your own: end it first"
                    ))
                    .into());
                }
                Answer::Unnamed => {
                    return Err(Failure::Conflict(format!(
                        "{name} is already running, as a process that cannot be named from here \
                         (ss -xlp may show it); stop it first"
                    ))
                    .into());
                }
                Answer::Ending if start.elapsed() < ORPHANS_END => sleep(Duration::from_millis(1)),
                Answer::Ending => {
                    return Err(Failure::Conflict(format!(
                        "a killed {name} still has a child that holds the socket @{address}; \
                         end it (ss -xlp shows it)"
                    ))
                    .into());
                }
            }
        }
    }

    /// Who has that lock, if a process of our own user has.
    pub fn holder(name: &str) -> Result<Option<Holder>> {
        let address = format!("netbpf/{name}");
        match ask(&address).with_context(|| asking(&address))? {
            Answer::Holder(holder) => Ok(Some(holder)),
            Answer::Foreign { .. } | Answer::Ending => Ok(None),
            Answer::Unnamed => Err(Failure::Conflict(format!(
                "{name} is running as a process that cannot be named from here (ss -xlp may show \
                 it)"
            ))
            .into()),
        }
    }
}

impl Instance {
    /// Leaves the lock to another process that has it as well: a fork of this one.
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// That other process, from here on: whoever asks is told of it.
    pub fn take_over(&self) -> Result<()> {
        // The kernel notes who listens.
        listen(&self.socket, Backlog::MAXCONN).context("take over a lock")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
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

fn asking(address: &str) -> String {
    format!("ask the socket @{address}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;
    use std::env;
    use std::fs;
    use std::os::unix::net::UnixStream;
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
    fn a_holder_is_known_however_often_it_was_asked() {
        let name = format!("test of questions in {}", std::process::id());
        let first = Instance::claim(&name).unwrap();
        let address = SocketAddr::from_abstract_name(format!("netbpf/{name}")).unwrap();
        // A full queue would block.
        let backlog = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        for _ in 0..=backlog.trim().parse().unwrap() {
            drop(UnixStream::connect_addr(&address).unwrap());
        }
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Instance::holder(&name).unwrap().unwrap().pid, own);
        let refused = Instance::claim(&name).unwrap_err().to_string();
        assert!(refused.contains(&format!("as pid {own};")), "{refused}");
        drop(first);
        assert!(Instance::holder(&name).unwrap().is_none());
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

    #[test]
    fn who_takes_a_lock_over_is_named_and_keeps_it() {
        let name = format!("test of heirs in {}", std::process::id());
        let ours = Instance::claim(&name).unwrap();
        // SAFETY: the child makes two system calls, waits and ends.
        let heir = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                if ours.take_over().is_ok() {
                    nix::unistd::pause();
                }
                // SAFETY: a number, and no way back.
                unsafe { nix::libc::_exit(1) }
            }
            nix::unistd::ForkResult::Parent { child } => child,
        };
        let pid = || Instance::holder(&name).unwrap().map(|holder| holder.pid);
        let deadline = Instant::now() + Duration::from_secs(10);
        while pid() != Some(heir.as_raw()) {
            assert!(Instant::now() < deadline, "the heir is not named");
        }
        ours.leave();
        assert_eq!(pid(), Some(heir.as_raw()));
        nix::sys::signal::kill(heir, nix::sys::signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(heir, None).unwrap();
        Instance::claim(&name).unwrap();
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
