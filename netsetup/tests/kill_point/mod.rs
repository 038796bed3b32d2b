//! Kills a program at one of the system calls by which it changes the machine, itself or through
//! its children.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use testbed::step;

/// How a traced program ended.
pub struct Run {
    /// The changing calls of it and its children, in their order.
    pub calls: Vec<&'static str>,
    /// Changing calls that were still made after the kill, by children that did not die with it.
    pub late: Vec<&'static str>,
    /// Its exit code; `None` if it was killed.
    pub code: Option<i32>,
}

/// Runs the program and kills it with SIGKILL when it, a thread or a child of it is about to make
/// the changing call number `at`, counted from 0; that call is not made any more. Returns when
/// the program and all its children are gone.
#[expect(
    clippy::zombie_processes,
    reason = "it is waited for below, together with its own children"
)]
pub fn run(command: &mut Command, at: Option<usize>) -> Run {
    let traced = || Ok(ptrace::traceme()?);
    // SAFETY: the closure only makes the system call ptrace.
    unsafe { command.pre_exec(traced) };
    let child = step("start the traced program", command.spawn());
    let program = Pid::from_raw(step("its pid", i32::try_from(child.id())));
    step("wait for its exec", waitpid(program, None));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    step("trace it", ptrace::setoptions(program, options));
    resume(program, None);
    let mut run = Run {
        calls: Vec::new(),
        late: Vec::new(),
        code: None,
    };
    let mut killed = false;
    // Who was about to make the call, held until the program is dead: by then the kernel has sent
    // its children their signal.
    let mut held = None;
    // Tests run in threads: only what this one started is waited for.
    let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitpid(None, Some(ours)) {
            Err(Errno::ECHILD) => return run,
            Ok(WaitStatus::PtraceSyscall(pid)) => {
                match entered(pid) {
                    Some(call) if killed => run.late.push(call),
                    Some(call) => {
                        killed = at == Some(run.calls.len());
                        run.calls.push(call);
                        if killed {
                            step("kill it", kill(program, Signal::SIGKILL));
                            held = Some(pid);
                            continue;
                        }
                    }
                    None => {}
                }
                resume(pid, None);
            }
            Ok(WaitStatus::Stopped(pid, signal)) => {
                // SIGSTOP is how a new thread or child begins.
                let begins = matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP);
                resume(pid, (!begins).then_some(signal));
            }
            Ok(WaitStatus::PtraceEvent(pid, _, _)) => resume(pid, None),
            Ok(WaitStatus::Exited(pid, code)) if pid == program => run.code = Some(code),
            Ok(WaitStatus::Signaled(pid, _, _)) if pid == program => {
                if let Some(held) = held.take() {
                    resume(held, None);
                }
            }
            Ok(_) => {}
            Err(errno) => panic!("wait for the traced program: {errno}"),
        }
    }
}

/// One that was killed meanwhile cannot be resumed, and need not.
fn resume(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("resume {pid}: {errno}"),
    }
}

/// The changing call that `pid` is about to make.
fn entered(pid: Pid) -> Option<&'static str> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that this member of the union was filled in.
    let entry = unsafe { info.u.entry };
    let number = i64::try_from(entry.nr).ok()?;
    let (_, name) = CHANGING.iter().find(|(changing, _)| *changing == number)?;
    let creates = CREATES.iter().any(|flags| entry.args[2] & flags == *flags);
    (creates || *name != "openat").then_some(*name)
}

/// Flags of an open that makes a file.
const CREATES: [u64; 2] = [libc::O_CREAT as u64, libc::O_TMPFILE as u64];

/// Calls that can change what other processes see.
const CHANGING: &[(i64, &str)] = &[
    (libc::SYS_bind, "bind"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_unshare, "unshare"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
];
