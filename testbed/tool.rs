//! A tool of this repository, and what is promised of every one of them at its start and its end.

use crate::process::{Ended, Process};
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;
use crate::{long, step};
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Generous, because a timing is no test: `make bench` has the figures.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// The same at the end.
pub const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// What the user is promised a second for, on a machine that has other things to do as well.
pub const AT_ONCE: Duration = Duration::from_secs(3);

/// Nobody but root.
const NOBODY: u32 = 65534;

/// A tool, by its binary.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    path: &'static str,
}

impl Tool {
    /// `Tool::new(env!("CARGO_BIN_EXE_tcp_hold"))`, which only a test of the tool's own package knows.
    pub const fn new(path: &'static str) -> Tool {
        Tool { path }
    }

    /// What its lines on stderr begin with.
    fn name(&self) -> &str {
        let name = Path::new(self.path).file_name();
        name.and_then(|name| name.to_str()).unwrap_or(self.path)
    }

    /// With these arguments, which spaces divide.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.path);
        command.args(arguments.split_whitespace());
        command
    }

    /// It is refused with this exit code, in one line with these words in it, and nothing is changed.
    #[track_caller]
    pub fn assert_refused(&self, sandbox: &Sandbox, arguments: &str, code: i32, words: &str) {
        self.assert_command_refused(sandbox, self.command(arguments), code, words);
    }

    #[track_caller]
    fn assert_command_refused(&self, sandbox: &Sandbox, command: Command, code: i32, words: &str) {
        let before = sandbox.snapshot();
        let what = format!("{command:?}");
        let ended = sandbox.start(command).finish(ENDS_WITHIN);
        assert_eq!(ended.status.code(), Some(code), "{what}: {ended:?}");
        self.assert_one_line(&ended);
        assert!(ended.stderr.contains(words), "{what}: {}", ended.stderr);
        before.assert_same(&sandbox.snapshot(), &what);
    }

    /// Whoever is not root is told so, whatever he asked for.
    #[track_caller]
    pub fn assert_needs_root<'w>(
        &self,
        sandbox: &Sandbox,
        calls: impl IntoIterator<Item = &'w str>,
    ) {
        // Where everybody can reach it: a checkout may be under /root.
        let copy = format!("/run/{}", self.name());
        step("copy the tool", std::fs::copy(self.path, &copy));
        for arguments in calls {
            let mut command = Command::new(&copy);
            command.args(arguments.split_whitespace());
            command.uid(NOBODY).gid(NOBODY);
            self.assert_command_refused(sandbox, command, 3, "CAP_BPF");
        }
        step("remove the copy", std::fs::remove_file(copy));
    }

    /// All that it said is one line, an error.
    #[track_caller]
    pub fn assert_one_line(&self, ended: &Ended) {
        let Ended { stdout, stderr, .. } = ended;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let says_who = format!("{}: ", self.name());
        assert!(stderr.starts_with(&says_who), "{stderr}");
        assert_eq!(stdout, "");
    }

    /// Something happens to an interface that it uses: it says so in a line that names the interface,
    /// and ends as failed.
    #[track_caller]
    pub fn assert_ends_after(
        &self,
        process: Process<'_>,
        interface: &str,
        happens: impl FnOnce(),
    ) -> Ended {
        happens();
        let happened = Instant::now();
        process.wait_for_error(interface, AT_ONCE);
        let said = happened.elapsed();
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(1);
        assert!(said < AT_ONCE, "said only after {said:?}");
        let says_who = format!("{}: ", self.name());
        let lines = ended.stderr.lines();
        let errors: Vec<&str> = lines.filter(|line| line.starts_with(&says_who)).collect();
        assert_eq!(errors.len(), 1, "{}", ended.stderr);
        assert!(errors[0].contains(interface), "{}", ended.stderr);
        ended
    }
}

/// Every way to ask for the end is obeyed at once and leaves nothing. `start` takes more arguments and
/// comes back when the tool is at work; `check` looks at what it has said.
#[track_caller]
pub fn assert_every_end_leaves_nothing<'a>(
    sandbox: &'a Sandbox,
    start: impl Fn(&str) -> Process<'a>,
    check: impl Fn(&Ended),
) {
    let before = sandbox.snapshot();
    let is_clean = |how: &str, ended: &Ended| {
        ended.assert_code(0);
        check(ended);
        before.assert_same(&sandbox.snapshot(), how);
    };
    let mut process = start("");
    process.write("\n");
    is_clean("Enter", &process.ends_at_once("Enter"));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let process = start("");
        process.signal(signal);
        is_clean(signal.as_str(), &process.ends_at_once(signal.as_str()));
    }
    let process = start("--duration 1.5");
    let ready = Instant::now();
    let ended = process.finish(ENDS_WITHIN);
    assert!(ready.elapsed() > Duration::from_secs(1), "ended too early");
    is_clean("--duration", &ended);
}

/// What a tool left on the user's interfaces or in the machine, if anything: the rest of the changes is
/// what the user did himself.
pub fn left(before: &Snapshot, after: &Snapshot) -> Option<String> {
    let ours = ["] tcx ", "] filter ", "] qdisc clsact", "file ", "process "];
    let changes = before.changes(after);
    let mut added = changes.lines().filter(|line| line.starts_with('+'));
    let left = added.find(|line| ours.iter().any(|kind| line.contains(kind)));
    left.map(str::to_owned)
}

/// Moments to kill a tool at, from its start to a bit after it was `ready`.
pub fn moments(name: &str, ready: Duration) -> impl Iterator<Item = Duration> {
    let count = if long(name, "20 moments, not 100") {
        100
    } else {
        20
    };
    (0..count).map(move |number| ready * number * 11 / (count * 10))
}
