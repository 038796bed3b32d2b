//! A tool at work, and every way in which that can end. Whatever happens, nothing of it stays.

use crate::interrupted::{self, Fault, Run};
use crate::process::{Input, Output, Process};
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;
use crate::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use crate::{long, step};
use nix::errno::Errno;
use nix::libc::O_TMPFILE;
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
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
    is_outlived: bool,
}

impl<'a> Job<'a> {
    /// With these arguments it is at work once it says so.
    pub fn new(sandbox: &'a Sandbox, tool: Tool, arguments: &str, ready: Ready) -> Job<'a> {
        Job {
            sandbox,
            tool,
            arguments: arguments.into(),
            ready,
            is_outlived: false,
        }
    }

    /// A process of it goes on when it is killed, and cleans up.
    pub fn outlived(self) -> Job<'a> {
        Job {
            is_outlived: true,
            ..self
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
            // In its very first moments it has not even taken over the signals, nor made anything.
            let too_early = !process.handles(signal);
            process.signal(signal);
            let ended = process.finish(ENDS_WITHIN);
            let when = format!("{signal} after {after:?}");
            let by_it = ended.status.signal() == Some(signal as i32);
            let ended_well = ended.status.code() == Some(0) || too_early && by_it;
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

    /// At any of the calls by which its start and its end change the machine it is killed, and the next run
    /// works and cleans up; or that call fails, and it says so in a line, or does without, and
    /// nothing stays, but what the next run removes.
    #[track_caller]
    pub fn assert_bears_faults(&self, name: &str) {
        let before = self.sandbox.snapshot();
        let (whole, said) = self.interrupted(None);
        assert_eq!(whole.code, Some(0), "traced, and nothing else: {said}");
        let calls = whole.calls;
        let count = calls.len();
        let leaves_out = format!("every tenth of {count} calls is interrupted, not each");
        let every = if long(name, &leaves_out) { 1 } else { 10 };
        for at in (0..count).step_by(every) {
            let when = format!("killed at call {at} of {count}, {}", calls[at]);
            let (run, said) = self.interrupted(Some((at, Fault::Kill)));
            assert_eq!(run.code, None, "{when}: {said}");
            let late = &run.late;
            assert!(self.is_outlived || late.is_empty(), "{when}: {late:?}");
            self.run();
            before.assert_same(&self.sandbox.snapshot(), &when);

            let when = format!("call {at} of {count}, {}, without memory", calls[at]);
            let (run, said) = self.interrupted(Some((at, Fault::Error(Errno::ENOMEM))));
            let errors = self.tool.errors_in(&said).len();
            let is_well = match run.code {
                Some(0) => errors == 0,
                Some(1..=5) => errors == 1,
                _ => false,
            };
            assert!(is_well, "{when}: {:?}: {said}", run.code);
            // By itself it does not go away where it is the undoing that has failed.
            if errors > 0 && left(&before, &self.sandbox.snapshot()).is_some() {
                self.run();
            }
            before.assert_same(&self.sandbox.snapshot(), &when);
        }
    }

    /// A short run, interrupted there; and what it said on standard error.
    fn interrupted(&self, fault: Option<(usize, Fault)>) -> (Run, String) {
        let nameless = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_TMPFILE)
            .open("/tmp");
        let mut said = step("make a file in /tmp", nameless);
        let aside = step("hand it over", said.try_clone());
        let mut command = self
            .tool
            .command(&format!("{} --duration 0.1", self.arguments));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(aside);
        let run = interrupted::run(&mut command, fault);
        let mut text = String::new();
        step("go back to its beginning", said.rewind());
        step("read it", said.read_to_string(&mut text));
        (run, text)
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
    pub fn assert_starts_and_ends(&self, name: &str) {
        let times = if long(name, "5 starts, not 100") {
            100
        } else {
            5
        };
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
