//! Locks whose name a stranger has, or whose owner's pid is another process's by now.

use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netsetup::failure::Failure;
use netsetup::instance::Instance;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen,
    sendmsg, socket,
};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use testbed::sandbox::{self, Sandbox};
use testbed::step;

const NAME: &str = "tokenbucket on v0";
const NOBODY: u32 = 65534;

/// One test at a time: a child that another thread starts has a copy of every socket until its exec, and
/// would be found to keep the lock of this one.
fn alone(name: &str, test: impl FnOnce(&Sandbox) + Send) {
    static RUNNING: Mutex<()> = Mutex::new(());
    // What has failed in another test does not matter to this one.
    let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    sandbox::run(name, test);
}

/// Starts a process whose standard input is the lock's socket, and which listens there if asked to.
fn keep(mut command: Command, listens: bool) -> Child {
    let kind = (AddressFamily::Unix, SockType::Stream);
    let kept = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, None);
    let kept = step("open a socket", kept);
    let address = UnixAddr::new_abstract(format!("netbpf/{NAME}").as_bytes());
    let address = step("make the address", address);
    step("take the name", bind(kept.as_raw_fd(), &address));
    if listens {
        // SAFETY: listen is a system call that takes no lock and no memory.
        unsafe {
            command.pre_exec(|| Ok(Errno::result(libc::listen(0, 1)).map(drop)?));
        }
    }
    step("start the keeper", command.stdin(kept).spawn())
}

#[test]
fn what_another_user_holds_is_named_at_once_and_never_a_holder() {
    let name = "what_another_user_holds_is_named_at_once_and_never_a_holder";
    alone(name, |_| {
        for listens in [true, false] {
            let mut sleep = Command::new("sleep");
            sleep.arg("100").uid(NOBODY).gid(NOBODY);
            let mut squatter = keep(sleep, listens);
            let asked = Instant::now();
            let refused = Instance::claim(NAME).unwrap_err();
            let took = asked.elapsed();
            let held = Instance::holder(NAME);
            squatter.kill().unwrap();
            squatter.wait().unwrap();

            let kind = refused.downcast_ref::<Failure>();
            assert!(matches!(kind, Some(Failure::Conflict(_))), "{refused:#}");
            let who = format!(
                "user {NOBODY} holds the name @netbpf/{NAME} as pid {};",
                squatter.id()
            );
            assert!(refused.to_string().starts_with(&who), "{refused}");
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert!(held.unwrap().is_none());
            Instance::claim(NAME).unwrap();
        }
    });
}

#[test]
fn a_holder_of_our_own_is_found_and_ended() {
    alone("a_holder_of_our_own_is_found_and_ended", |_| {
        let mut sleep = Command::new("sleep");
        sleep.arg("100");
        let mut child = keep(sleep, true);
        let holder = Instance::holder(NAME).unwrap().unwrap();
        assert_eq!(holder.pid.cast_unsigned(), child.id());
        holder.terminate().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        assert!(Instance::holder(NAME).unwrap().is_none());
    });
}

#[test]
fn a_process_that_has_got_the_pid_of_a_dead_holder_is_none() {
    let name = "a_process_that_has_got_the_pid_of_a_dead_holder_is_none";
    alone(name, |_| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3<&0; sleep 100 & echo $!"]);
        shell.stdout(Stdio::piped());
        let mut owner = keep(shell, true);
        let mut line = String::new();
        let mut said = BufReader::new(owner.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let orphan = Pid::from_raw(line.trim().parse().unwrap());
        let dead = Pid::from_raw(owner.id().cast_signed());
        owner.wait().unwrap();

        let stranger = sleep_as(dead);
        let holder = Instance::holder(NAME);
        for pid in [stranger, orphan] {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        waitpid(stranger, None).unwrap();
        assert!(holder.unwrap().is_none());
        // As soon as the orphan has ended.
        Instance::claim(NAME).unwrap();
    });
}

/// Between the end of a process and that of its socket nobody has it open: as here, where it is on its way
/// from one process to another.
#[test]
fn a_full_queue_that_nobody_keeps_is_waited_for() {
    alone("a_full_queue_that_nobody_keeps_is_waited_for", |_| {
        let (near, far) = step("make a pair", UnixStream::pair());
        {
            let address = SocketAddr::from_abstract_name(format!("netbpf/{NAME}"));
            let address = step("make the address", address);
            let kept = step("listen", UnixListener::bind_addr(&address));
            // The shortest queue there is, and one who is in it.
            step(
                "shorten the queue",
                listen(&kept, step("0", Backlog::new(0))),
            );
            step("fill it", UnixStream::connect_addr(&address));
            let descriptors = [kept.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&descriptors)];
            let (blank, flags) = ([IoSlice::new(b"x")], MsgFlags::empty());
            let sent = sendmsg::<()>(near.as_raw_fd(), &blank, &message, flags, None);
            step("send the socket", sent);
        }
        let closing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(far);
        });
        let claimed = Instance::claim(NAME);
        closing.join().unwrap();
        claimed.unwrap();
    });
}

/// A process of this very pid, which sleeps.
fn sleep_as(pid: Pid) -> Pid {
    let tid = [pid.as_raw()];
    // SAFETY: all zeros ask for nothing.
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.exit_signal = libc::SIGCHLD as u64;
    clone.set_tid = tid.as_ptr() as u64;
    clone.set_tid_size = 1;
    // SAFETY: the arguments live through the call; without CLONE_VM this is a fork, whose child makes
    // system calls only.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of_val(&clone)) } {
        0 => {
            // SAFETY: no lock and no memory is taken.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
                libc::_exit(0)
            }
        }
        child => {
            assert_eq!(Errno::result(child), Ok(i64::from(pid.as_raw())));
            pid
        }
    }
}
