//! A tool at work, and every way in which that can end. Whatever happens, nothing of it stays.

use crate::long;
use crate::process::{Input, Output, Process};
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;
use crate::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a tool says when it is at work.
#[derive(Clone, Copy, Debug)]
pub enum Ready {
    /// On standard output.
    Says(&'static str),
    /// On standard error.
    SaysAside(&'static str),
}

/// One way to use a tool.
pub struct Job<'a> {
    sandbox: &'a Sandbox,
    tool: Tool,
    arguments: String,
    ready: Ready,
}

impl<'a> Job<'a> {
    /// With these arguments it is at work once it says so.
    pub fn new(sandbox: &'a Sandbox, tool: Tool, arguments: &str, ready: Ready) -> Job<'a> {
        Job {
            sandbox,
            tool,
            arguments: arguments.into(),
            ready,
        }
    }

    /// Just started, with more arguments.
    pub fn start(&self, more: &str) -> Process<'a> {
        self.start_with(more, Input::Open, Output::Read)
    }

    fn start_with(&self, more: &str, input: Input, output: Output) -> Process<'a> {
        let arguments = format!("{} {more}", self.arguments);
        let command = self.tool.command(&arguments);
        self.sandbox.start_with(command, input, output)
    }

    /// At work, with more arguments.
    #[track_caller]
    pub fn at_work(&self, more: &str) -> Process<'a> {
        self.at_work_with(more, Input::Open)
    }

    #[track_caller]
    fn at_work_with(&self, more: &str, input: Input) -> Process<'a> {
        let process = self.start_with(more, input, Output::Read);
        match self.ready {
            Ready::Says(words) => process.wait_for(words, READY_WITHIN),
            Ready::SaysAside(words) => process.wait_for_error(words, READY_WITHIN),
        };
        process
    }

    /// A whole run, to its quiet end. How long it took until it was at work.
    #[track_caller]
    pub fn run(&self) -> Duration {
        let mut process = self.at_work("");
        let ready = process.started().elapsed();
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
        ready
    }

    /// Every way to ask for the end is obeyed at once, without a word, and leaves nothing.
    #[track_caller]
    pub fn assert_every_end_leaves_nothing(&self) {
        let before = self.sandbox.snapshot();
        let ends = |how: &str, process: Process<'_>| {
            // The last line may not be whole yet.
            let said = process.stderr().lines().count();
            let ended = process.ends_at_once(how);
            ended.assert_code(0);
            assert_eq!(
                ended.stderr.lines().count(),
                said,
                "{how}: {}",
                ended.stderr
            );
            before.assert_same(&self.sandbox.snapshot(), how);
        };
        let mut process = self.at_work("");
        process.write("\n");
        ends("Enter", process);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let process = self.at_work("");
            process.signal(signal);
            ends(signal.as_str(), process);
        }
        let process = self.at_work("--duration 1.5");
        let ready = Instant::now();
        ends("--duration", process);
        assert!(ready.elapsed() > Duration::from_secs(1), "ended too early");
    }

    /// Without standard input it runs on, and hardly wakes.
    #[track_caller]
    pub fn assert_sleeps_without_input(&self) {
        for input in [Input::Closed, Input::AtEnd] {
            let process = self.at_work_with("", input);
            let spent = process.cpu_time();
            sleep(Duration::from_secs(3));
            let spent = process.cpu_time() - spent;
            // It looks after its table once a second.
            assert!(spent <= Duration::from_millis(150), "{input:?}: {spent:?}");
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    }

    /// An output that nobody reads any more ends it quietly.
    #[track_caller]
    pub fn assert_ends_with_its_reader(&self) {
        let before = self.sandbox.snapshot();
        let ended = self.start_with("", Input::Open, Output::Broken);
        let ended = ended.finish(READY_WITHIN);
        ended.assert_code(0);
        let error = self.tool.errors(&ended);
        assert!(error.is_empty(), "{error:?}");
        before.assert_same(&self.sandbox.snapshot(), "after a closed output");
    }

    /// A disk without room fails it, with a line that says so.
    #[track_caller]
    pub fn assert_fails_on_a_full_disk(&self, more: &str) {
        let before = self.sandbox.snapshot();
        let ended = self.start_with(more, Input::Open, Output::Full);
        let ended = ended.finish(READY_WITHIN);
        ended.assert_code(1);
        let [error] = self.tool.errors(&ended)[..] else {
            panic!("one line: {}", ended.stderr);
        };
        assert!(error.contains("No space left"), "{error}");
        before.assert_same(&self.sandbox.snapshot(), "after a full disk");
    }

    /// A signal ends it at any stage of its start, which takes `at_most` that long.
    #[track_caller]
    pub fn assert_signals_end_its_start(&self, name: &str, at_most: Duration) {
        let moments = if long(name, "7 moments, not 25") {
            25
        } else {
            7
        };
        let before = self.sandbox.snapshot();
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        for (number, signal) in (0..moments).zip(signals.into_iter().cycle()) {
            let after = at_most * number / (moments - 1);
            let process = self.start("");
            sleep(after);
            process.signal(signal);
            let ended = process.finish(ENDS_WITHIN);
            let when = format!("{signal} after {after:?}");
            // In its very first moments it has not even taken over the signals, nor made anything.
            let too_early =
                after < Duration::from_millis(50) && ended.status.signal() == Some(signal as i32);
            let ended_well = ended.status.code() == Some(0) || too_early;
            assert!(ended_well, "{when}: {ended:?}");
            let errors = self.tool.errors(&ended);
            assert!(errors.is_empty(), "{when}: {errors:?}");
            before.assert_same(&self.sandbox.snapshot(), &when);
        }
    }

    /// After kill -9 at any moment the next run works, and cleans up.
    #[track_caller]
    pub fn assert_cleans_up_after_kill_9(&self, name: &str) {
        let before = self.sandbox.snapshot();
        let ready = self.run();
        before.assert_same(&self.sandbox.snapshot(), "after a quiet end");
        for after in moments(name, ready) {
            self.start("").kill_after(after);
            self.run();
            let when = format!("killed after {after:?}");
            before.assert_same(&self.sandbox.snapshot(), &when);
        }
    }

    /// What is not confirmed is undone; what is, goes on.
    #[track_caller]
    pub fn assert_undone_unless_confirmed(&self) {
        let before = self.sandbox.snapshot();
        let ended = self.at_work("--confirm 1").finish(ENDS_WITHIN);
        ended.assert_code(1);
        assert!(ended.stderr.contains("not confirmed"), "{}", ended.stderr);
        before.assert_same(&self.sandbox.snapshot(), "not confirmed");
        for by_signal in [true, false] {
            let mut process = self.at_work("--confirm 2");
            process.wait_for_error("unless", ENDS_WITHIN);
            if by_signal {
                process.signal(Signal::SIGUSR1);
            } else {
                process.write("\n");
            }
            process.wait_for_error("confirmed", ENDS_WITHIN);
            sleep(Duration::from_millis(2500));
            let changes = before.changes(&self.sandbox.snapshot());
            assert_ne!(changes, "", "it is still attached");
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&self.sandbox.snapshot(), "confirmed, and ended");
        }
    }

    /// At work it is one process, of so much memory at most. What its start takes, `make bench` measures.
    #[track_caller]
    pub fn assert_small_and_alone(&self, most_kib: u64) {
        let process = self.at_work("");
        let memory = process.peak_memory_kib();
        println!("{memory} KiB at the peak");
        assert!(memory <= most_kib, "{memory} KiB");
        let processes = self.sandbox.processes();
        let pids: Vec<u32> = processes.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(pids, [process.pid()], "{processes:?}");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
    }

    /// It runs again and again.
    #[track_caller]
    pub fn assert_starts_and_ends(&self, times: u32) {
        let before = self.sandbox.snapshot();
        for time in 0..times {
            self.run();
            let when = format!("after start {time}");
            before.assert_same(&self.sandbox.snapshot(), &when);
        }
    }
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
