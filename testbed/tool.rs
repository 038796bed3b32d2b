//! A tool of this repository, and what is promised of every one of them where it is refused or fails.

use crate::process::{Ended, Input, Output, Process};
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;
use crate::step;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Generous, because a timing is no test: `make bench` has the figures.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// The same at the end.
pub const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// What the user is promised a second for, on a machine that has other things to do as well.
pub const AT_ONCE: Duration = Duration::from_secs(10);

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
    pub fn name(&self) -> &str {
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
        self.assert_each_refused(sandbox, [(arguments, code, words)]);
    }

    /// The same of many calls.
    #[track_caller]
    pub fn assert_each_refused<'w>(
        &self,
        sandbox: &Sandbox,
        calls: impl IntoIterator<Item = (impl AsRef<str>, i32, &'w str)>,
    ) {
        let before = sandbox.snapshot();
        for (arguments, code, words) in calls {
            let command = self.command(arguments.as_ref());
            self.assert_command_refused(sandbox, &before, command, code, words);
        }
    }

    #[track_caller]
    fn assert_command_refused(
        &self,
        sandbox: &Sandbox,
        before: &Snapshot,
        command: Command,
        code: i32,
        words: &str,
    ) {
        let what = format!("{command:?}");
        let ended = sandbox.start(command).finish(ENDS_WITHIN);
        assert_eq!(ended.status.code(), Some(code), "{what}: {ended:?}");
        self.assert_one_line(&ended);
        assert!(ended.stderr.contains(words), "{what}: {}", ended.stderr);
        before.assert_same(&sandbox.snapshot(), &what);
    }

    /// `--help`, of itself and behind each of these words, fits a terminal and breaks no word there.
    #[track_caller]
    pub fn assert_help_fits(&self, sandbox: &Sandbox, subcommands: &[&str]) {
        for subcommand in [""].iter().chain(subcommands) {
            let help = |output| {
                let mut command = self.command(&format!("{subcommand} --help"));
                command.env("NO_COLOR", "1");
                let ended = sandbox.start_with(command, Input::AtEnd, output);
                let ended = ended.finish(ENDS_WITHIN);
                ended.assert_code(0);
                ended.stdout
            };
            let on_terminal = help(Output::Terminal);
            for line in on_terminal.lines() {
                let columns = line.chars().count();
                assert!(columns <= 80, "{columns} columns: {line}");
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let wide: Vec<String> = words(&help(Output::Read));
            let narrow: Vec<String> = words(&on_terminal);
            assert_eq!(narrow, wide, "{} {subcommand}", self.name());
        }
    }

    /// Whoever is not root is told so, whatever he asked for.
    #[track_caller]
    pub fn assert_needs_root<'w>(
        &self,
        sandbox: &Sandbox,
        calls: impl IntoIterator<Item = &'w str>,
    ) {
        self.assert_needs(sandbox, "CAP_BPF", calls);
    }

    /// The same of calls that need these capabilities.
    #[track_caller]
    pub fn assert_needs<'w>(
        &self,
        sandbox: &Sandbox,
        capabilities: &str,
        calls: impl IntoIterator<Item = &'w str>,
    ) {
        // Where everybody can reach it: a checkout may be under /root.
        let copy = format!("/run/{}", self.name());
        step("copy the tool", std::fs::copy(self.path, &copy));
        let before = sandbox.snapshot();
        for arguments in calls {
            let mut command = Command::new(&copy);
            command.args(arguments.split_whitespace());
            command.uid(NOBODY).gid(NOBODY);
            self.assert_command_refused(sandbox, &before, command, 3, capabilities);
        }
        step("remove the copy", std::fs::remove_file(copy));
    }

    /// All that it said is one line, an error.
    #[track_caller]
    fn assert_one_line(&self, ended: &Ended) {
        assert_eq!(self.errors(ended).len(), 1, "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
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
        let [error] = self.errors(&ended)[..] else {
            panic!("one line: {}", ended.stderr);
        };
        assert!(error.contains(interface), "{error}");
        ended
    }

    /// Its lines that are errors: those that begin with its name.
    pub fn errors<'e>(&self, ended: &'e Ended) -> Vec<&'e str> {
        self.errors_in(&ended.stderr)
    }

    /// The same of what it has said on standard error.
    pub fn errors_in<'e>(&self, stderr: &'e str) -> Vec<&'e str> {
        let says_who = format!("{}: ", self.name());
        let lines = stderr.lines();
        lines.filter(|line| line.starts_with(&says_who)).collect()
    }
}
