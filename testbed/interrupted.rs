//! A program that is interrupted at one of the system calls by which it changes the machine, itself or
//! through its children: it is killed there, or the call fails.

use std::mem::offset_of;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libbpf_sys::{
    BPF_BTF_LOAD, BPF_LINK_CREATE, BPF_LINK_DETACH, BPF_MAP_CREATE, BPF_OBJ_PIN, BPF_PROG_ATTACH,
    BPF_PROG_DETACH, BPF_PROG_LOAD, bpf_cmd,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::step;

/// A program that runs longer than that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program is killed by SIGKILL before the call is made.
    Kill,
    /// The call is not made, and answers this.
    Error(Errno),
}

/// How a traced program ended.
pub struct Run {
    /// The changing calls of it and its children, in their order.
    pub calls: Vec<&'static str>,
    /// Changing calls that were still made after the kill, by children that did not die with it.
    pub late: Vec<&'static str>,
    /// Its exit code; `None` if it was killed.
    pub code: Option<i32>,
}

/// Runs the program, with the fault at the changing call of that number, counted from 0, which it, a thread
/// or a child of it is about to make. Returns when the program and all its children are gone.
pub fn run(command: &mut Command, fault: Option<(usize, Fault)>) -> Run {
    let program = start(command);
    let (is_over, over) = channel::<()>();
    let watch = thread::spawn(move || {
        let hangs = over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if hangs {
            // Nobody has its number before it is waited for; if it has just ended it need not be killed.
            let _ = kill(program, Signal::SIGKILL);
        }
        hangs
    });
    let mut trace = Trace {
        program,
        fault,
        is_dead: false,
        held: None,
        run: Run {
            calls: Vec::new(),
            late: Vec::new(),
            code: None,
        },
    };
    trace.follow();
    drop(is_over);
    let hangs = watch.join().unwrap_or(true);
    let run = trace.run;
    assert!(
        !hangs,
        "{command:?} hangs after {fault:?} of {:?}",
        run.calls
    );
    run
}

/// The program, at its exec, and from then on stopped before every call that may change the machine.
#[expect(
    clippy::zombie_processes,
    reason = "it is waited for later, together with its own children"
)]
fn start(command: &mut Command) -> Pid {
    let filter = filter();
    let traced = move || {
        ptrace::traceme()?;
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
        // SAFETY: the kernel copies the filter, which lives as long as the closure.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
        Errno::result(result)?;
        Ok(())
    };
    // SAFETY: the closure only makes system calls.
    unsafe { command.pre_exec(traced) };
    let child = step("start the traced program", command.spawn());
    let program = Pid::from_raw(step("its pid", i32::try_from(child.id())));
    step("wait for its exec", waitpid(program, None));
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    step("trace it", ptrace::setoptions(program, options));
    resume(program, None);
    program
}

/// Stops before the calls of `CHANGING`, and lets all others pass: a stop takes longer than most of them.
fn filter() -> Vec<libc::sock_filter> {
    let statement = |code: u32, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut filter = vec![statement(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        number,
    )];
    for (call, _) in CHANGING {
        let is_it = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32);
        // Over the next one if it is another.
        filter.push(libc::sock_filter { jf: 1, ..is_it });
        filter.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_TRACE,
        ));
    }
    filter.push(statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW,
    ));
    filter
}

struct Trace {
    program: Pid,
    fault: Option<(usize, Fault)>,
    is_dead: bool,
    /// Who was about to make the call, until the program is dead: by then the kernel has sent its children
    /// their signal.
    held: Option<Pid>,
    run: Run,
}

impl Trace {
    fn follow(&mut self) {
        // Tests run in threads: only what this one started is waited for.
        let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(ours)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    // SIGSTOP is how a new thread or child begins.
                    let begins = matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP);
                    resume(pid, (!begins).then_some(signal));
                }
                Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_SECCOMP)) => {
                    self.before_a_call(pid);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, _)) => resume(pid, None),
                Ok(WaitStatus::Exited(pid, code)) if pid == self.program => {
                    self.run.code = Some(code);
                    self.let_go();
                }
                Ok(WaitStatus::Signaled(pid, _, _)) if pid == self.program => self.let_go(),
                Ok(_) => {}
                Err(errno) => panic!("wait for the traced program: {errno}"),
            }
        }
    }

    /// The program is dead: who was held dies as well, or goes on.
    fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            resume(held, None);
        }
    }

    fn before_a_call(&mut self, pid: Pid) {
        if let Some(call) = call_of(pid) {
            let number = self.run.calls.len();
            if self.is_dead {
                self.run.late.push(call);
            } else {
                self.run.calls.push(call);
                match self.fault {
                    Some((at, Fault::Kill)) if at == number => {
                        self.is_dead = true;
                        step("kill it", kill(self.program, Signal::SIGKILL));
                        self.held = Some(pid);
                        return;
                    }
                    Some((at, Fault::Error(errno))) if at == number => fail(pid, errno),
                    _ => {}
                }
            }
        }
        resume(pid, None);
    }
}

/// The call that `pid` is about to make is not made, and answers this.
#[cfg(target_arch = "x86_64")]
fn fail(pid: Pid, errno: Errno) {
    let mut registers = step("read its registers", ptrace::getregs(pid));
    registers.orig_rax = u64::MAX;
    registers.rax = i64::from(-(errno as i32)).cast_unsigned();
    step("let its call fail", ptrace::setregs(pid, registers));
}

#[cfg(not(target_arch = "x86_64"))]
fn fail(_pid: Pid, _errno: Errno) {
    panic!("calls are made to fail in the registers of x86_64 only");
}

/// One that was killed meanwhile cannot be resumed, and need not.
fn resume(pid: Pid, signal: Option<Signal>) {
    match ptrace::cont(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("resume {pid}: {errno}"),
    }
}

/// The call that `pid` is about to make, if it is a changing one.
fn call_of(pid: Pid) -> Option<&'static str> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_SECCOMP {
        return None;
    }
    // SAFETY: `op` says that this member of the union was filled in.
    let entry = unsafe { info.u.seccomp };
    let number = i64::try_from(entry.nr).ok()?;
    let (_, name) = CHANGING.iter().find(|(changing, _)| *changing == number)?;
    let changes = match *name {
        "openat" => CREATES.iter().any(|flags| entry.args[2] & flags == *flags),
        "bpf" => BPF_CHANGING
            .iter()
            .any(|command| u64::from(*command) == entry.args[0]),
        "setsockopt" => entry.args[1] == libc::SOL_PACKET as u64,
        _ => true,
    };
    changes.then_some(*name)
}

/// Flags of an open that makes a file.
const CREATES: [u64; 2] = [libc::O_CREAT as u64, libc::O_TMPFILE as u64];

/// Commands of bpf(2) that make something, or connect it.
const BPF_CHANGING: [bpf_cmd; 8] = [
    BPF_MAP_CREATE,
    BPF_PROG_LOAD,
    BPF_OBJ_PIN,
    BPF_PROG_ATTACH,
    BPF_PROG_DETACH,
    BPF_BTF_LOAD,
    BPF_LINK_CREATE,
    BPF_LINK_DETACH,
];

/// Calls that can change what other processes see. That a program starts another one is in it by the clone:
/// an exec in it would fail for the traced program itself, which has the filter before it has a tracer.
const CHANGING: &[(i64, &str)] = &[
    (libc::SYS_bind, "bind"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_capset, "capset"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_setsockopt, "setsockopt"),
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
