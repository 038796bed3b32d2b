//! A root test's own corner of the machine.

use crate::bpf::Objects;
use crate::namespace::make_usable;
use crate::process::{Input, Output, Process};
use crate::snapshot::Snapshot;
use crate::{skip, step};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor, stat};
use nix::unistd::{Pid, geteuid};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Network and mount namespaces of its own, with an empty /run and an empty /sys/fs/bpf.
pub struct Sandbox {
    /// The mount of /run, as mountinfo names it: whoever has it lives in this sandbox.
    run_device: String,
    /// What the processes of the test held in the kernel whenever somebody looked.
    held: Mutex<Objects>,
}

/// Runs a root test in a sandbox, and panics when it leaves anything behind that was not there
/// before. Without root it is skipped, loudly.
///
/// The test body has a thread of its own, in the namespaces; so have its children, the threads it
/// starts and everything they make. Tests may run beside each other. /sys and /proc are the
/// machine's: /sys/class/net shows the machine's interfaces, /proc/net is the main thread's.
pub fn run(name: &str, test: impl FnOnce(&Sandbox) + Send) {
    if skipped_without_root(name) {
        return;
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into());
        let thread = thread.spawn_scoped(scope, || inside(test));
        step("start a thread", thread)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// None if the process has ended. Between its exec and its first step a process has no words yet:
/// they are waited for, a moment, because a zombie has none for ever.
fn command_line(pid: u32) -> Option<String> {
    let deadline = Instant::now() + Duration::from_millis(100);
    loop {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let text = String::from_utf8_lossy(&words).replace('\0', " ");
        if !text.is_empty() || Instant::now() > deadline {
            return Some(text.trim_end().to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn skipped_without_root(name: &str) -> bool {
    let skipped = !geteuid().is_root();
    if skipped {
        skip(name, "needs root");
    }
    skipped
}

fn inside(test: impl FnOnce(&Sandbox)) {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&sandbox)));
    // What a failed test leaves is no finding, but it must not stay on the machine either.
    let after = outcome.is_ok().then(|| sandbox.snapshot());
    sandbox.kill_all();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    if let Some(after) = after {
        before.assert_same(&after, "at the end of the test");
    }
    sandbox
        .held
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .assert_gone();
}

impl Sandbox {
    fn new() -> Sandbox {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        step("unshare the network and the mounts", unshare(flags));
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        step(
            "make the mounts private",
            mount(none(), "/", none(), private, none()),
        );
        let fresh = |path, kind| {
            let result = mount(Some(kind), path, Some(kind), MsFlags::empty(), none());
            step(format!("mount {kind} on {path}"), result);
        };
        fresh("/run", "tmpfs");
        fresh("/sys/fs/bpf", "bpf");
        // `ip netns` makes /run/netns a mount when it first needs it, and leaves it there.
        step("make /run/netns", std::fs::create_dir("/run/netns"));
        fresh("/run/netns", "tmpfs");
        let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
        step(
            "share /run/netns",
            mount(none(), "/run/netns", none(), shared, none()),
        );
        make_usable();
        let device = step("stat /run", stat("/run")).st_dev;
        Sandbox {
            run_device: format!(" {}:{} / /run ", major(device), minor(device)),
            held: Mutex::default(),
        }
    }

    /// Starts a program in here: its standard input open, its outputs read.
    pub fn start(&self, command: Command) -> Process<'_> {
        self.start_with(command, Input::Open, Output::Read)
    }

    /// Starts a program in here. It is killed when the returned value is dropped, and when the
    /// thread that called this ends.
    pub fn start_with(&self, command: Command, input: Input, output: Output) -> Process<'_> {
        Process::start(self, command, input, output)
    }

    /// The state of everything that could be left behind, as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.processes().into_iter().map(|(_, command)| command))
    }

    /// Id and command line of every process that lives in here (or in a namespace below), whoever
    /// started it and wherever it has gone since. Zombies do not count.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let entries = step("read /proc", std::fs::read_dir("/proc"));
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // A process may end while it is looked at; then it is not there.
        let mut processes: Vec<(u32, String)> = pids
            .filter(|pid: &u32| {
                std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                    .is_ok_and(|info| info.contains(&self.run_device))
            })
            .filter_map(|pid| Some((pid, command_line(pid)?)))
            .collect();
        processes.sort();
        processes
    }

    /// Remembers what a process holds in the kernel; it has to be gone at the end of the test.
    pub(crate) fn watch(&self, pid: u32) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .merge(Objects::of_process(pid));
    }

    /// Kills whatever lives in here, until nothing does.
    fn kill_all(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "cannot kill {processes:?}");
            for (pid, _) in processes {
                // One that has ended meanwhile is what this wants.
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn none() -> Option<&'static str> {
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::namespace::{Namespace, Place, Veth};
    use crate::others::{GOES_ON, Program};

    /// A root test that has to fail, in a sandbox or by what it leaves there.
    #[track_caller]
    pub(crate) fn run_and_fail(name: &str, complaint: &str, test: impl FnOnce(&Sandbox) + Send) {
        if !skipped_without_root(name) {
            fails(complaint, test);
        }
    }

    #[track_caller]
    fn fails(complaint: &str, test: impl FnOnce(&Sandbox) + Send) {
        let outcome = std::thread::scope(|scope| scope.spawn(|| inside(test)).join());
        let panic = outcome
            .err()
            .unwrap_or_else(|| panic!("no complaint: {complaint:?}"));
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(complaint), "{complaint:?} is not in: {text}");
    }

    #[test]
    fn what_a_test_leaves_is_found() {
        if skipped_without_root("what_a_test_leaves_is_found") {
            return;
        }
        let here = Place::here();
        fails("+ [sandbox] link ", |_| {
            drop(here.ip("link add br7 type bridge"))
        });
        fails("+ [sandbox] address 1: lo inet 192.0.2.1/32", |_| {
            here.ip("address add 192.0.2.1/32 dev lo");
        });
        fails("+ [sandbox] ipv4 route blackhole 192.0.2.0/24", |_| {
            here.ip("route add blackhole 192.0.2.0/24");
        });
        fails("+ [sandbox] ipv4 rule 7:", |_| {
            drop(here.ip("rule add to 192.0.2.9 lookup main pref 7"))
        });
        fails("+ [sandbox] qdisc clsact", |_| {
            drop(here.tc("qdisc add dev lo clsact"))
        });
        fails("+ file /run/netns/stray", |_| {
            drop(here.ip("netns add stray"))
        });
        fails("+ file /run/netns/half-made", |_| {
            std::fs::write("/run/netns/half-made", "").unwrap();
        });
        fails("+ mount / /mnt ", |_| {
            mount(
                Some("tmpfs"),
                "/mnt",
                Some("tmpfs"),
                MsFlags::empty(),
                none(),
            )
            .unwrap();
        });
        fails("+ file /run/netbpf/x.json", |_| {
            std::fs::create_dir("/run/netbpf").unwrap();
            std::fs::write("/run/netbpf/x.json", "{}").unwrap();
        });
        fails("+ [sandbox] sysctl /proc/sys/net/ipv4/ip_forward 1", |_| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        fails("+ process sleep 60", |_| {
            // Dropping a Child neither kills nor waits.
            let mut command = Command::new("sleep");
            drop(command.arg("60").spawn().unwrap());
        });
    }

    #[test]
    fn bpf_that_a_test_leaves_is_found() {
        if skipped_without_root("bpf_that_a_test_leaves_is_found") {
            return;
        }
        let goes_on = |name| Program::answering(name, GOES_ON);
        let pin = |_: &Sandbox| goes_on("left_pinned").pin("/sys/fs/bpf/left");
        fails("+ file /sys/fs/bpf/left", pin);
        fails(
            "+ [sandbox] filter lo ingress filter protocol all pref 49152 bpf",
            |_| {
                goes_on("left_filter").pin("/sys/fs/bpf/left");
                let here = Place::here();
                here.tc("qdisc add dev lo clsact");
                here.tc("filter add dev lo ingress bpf direct-action pinned /sys/fs/bpf/left");
            },
        );
        // Held open across the second snapshot, as by a process that does not end.
        let mut held = None;
        fails("+ [sandbox] tcx lo ingress: program ", |_| {
            held = Some(goes_on("left_attached").attach("lo"));
        });
        drop(held);
    }

    #[test]
    fn what_was_there_may_stay_and_what_changed_is_named() {
        run(
            "what_was_there_may_stay_and_what_changed_is_named",
            |sandbox| {
                let user = Namespace::new("user");
                let _cable = Veth::new((&Place::here(), "wan0"), (&user, "eth0"));
                user.ip("address add 192.0.2.1/24 dev eth0");
                let before = sandbox.snapshot();
                before.assert_same(&sandbox.snapshot(), "after nothing");
                user.ip("link set eth0 mtu 1400");
                let changes = before.changes(&sandbox.snapshot());
                assert!(
                    changes
                        .lines()
                        .any(|l| l.starts_with("- [user] link") && l.contains("mtu 1500"))
                );
                assert!(
                    changes
                        .lines()
                        .any(|l| l.starts_with("+ [user] link") && l.contains("mtu 1400"))
                );
            },
        );
    }

    #[test]
    fn an_interface_made_again_is_not_the_same() {
        run("an_interface_made_again_is_not_the_same", |sandbox| {
            let here = Place::here();
            here.ip("link add wan0 type bridge");
            let before = sandbox.snapshot();
            here.ip("link delete wan0");
            here.ip("link add wan0 type bridge");
            assert_ne!(before.changes(&sandbox.snapshot()), "");
            here.ip("link delete wan0");
        });
    }

    #[test]
    fn sandboxes_do_not_see_each_other() {
        run("sandboxes_do_not_see_each_other", |sandbox| {
            let _mine = Namespace::new("mine");
            let before = sandbox.snapshot();
            std::thread::scope(|scope| {
                scope.spawn(|| run("another", |_| drop(Namespace::new("theirs"))));
            });
            let mut command = Command::new("sleep");
            command.arg("60");
            let sleeper = sandbox.start(command);
            std::thread::scope(|scope| {
                scope.spawn(|| run("another", |other| assert!(other.processes().is_empty())));
            });
            let pid = sleeper.pid();
            assert_eq!(sandbox.processes(), [(pid, "sleep 60".to_owned())]);
            drop(sleeper);
            before.assert_same(&sandbox.snapshot(), "after another sandbox");
        });
    }

    #[test]
    fn a_process_is_found_wherever_it_has_gone() {
        run("a_process_is_found_wherever_it_has_gone", |sandbox| {
            let far = Namespace::new("far");
            let mut command = Command::new("ip");
            command.args(["netns", "exec", "far", "unshare", "-n", "-m", "sleep", "60"]);
            let sleeper = sandbox.start(command);
            let deadline = Instant::now() + Duration::from_secs(2);
            while sandbox.processes() != [(sleeper.pid(), "sleep 60".to_owned())] {
                assert!(
                    Instant::now() < deadline,
                    "not seen: {:?}",
                    sandbox.processes()
                );
                std::thread::sleep(Duration::from_millis(2));
            }
            drop((sleeper, far));
        });
    }
}
