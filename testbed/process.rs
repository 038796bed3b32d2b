//! The binary under test, run within limits.

use crate::sandbox::Sandbox;
use crate::step;
use crate::tool::{AT_ONCE, ENDS_WITHIN};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a reader may see no end of output after the process has ended: longer means that
/// somebody else still holds it.
const OUTPUT_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A pipe that stays open: nobody presses Enter, until [`Process::write`] does.
    Open,
    /// /dev/null: at its end from the start.
    AtEnd,
    /// No descriptor 0 at all.
    Closed,
}

/// Where its standard output goes. Standard error is always read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A pipe that the test reads.
    Read,
    /// A terminal that the test reads, of 24 lines with 80 columns.
    Terminal,
    /// A pipe whose reader has gone.
    Broken,
    /// A disk without room (/dev/full).
    Full,
}

/// A running program; killed when dropped.
pub struct Process<'a> {
    sandbox: &'a Sandbox,
    name: String,
    child: Child,
    started: Instant,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// All it said.
    pub stdout: String,
    /// All it said there.
    pub stderr: String,
    /// From start to end.
    pub ran: Duration,
}

impl Ended {
    /// Panics unless the program ended by itself with that code.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Ended {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\nstdout:\n{}stderr:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// One output, filled by a thread of its own.
#[derive(Default)]
struct Stream {
    state: Mutex<StreamState>,
    grown: Condvar,
}

#[derive(Default)]
struct StreamState {
    bytes: Vec<u8>,
    /// Up to where [`Process::wait_for`] has looked and found.
    looked: usize,
    ended: bool,
}

impl Stream {
    fn fill_from(mut source: impl Read + Send + 'static) -> Arc<Stream> {
        let stream = Arc::new(Stream::default());
        let filled = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // A terminal ends with an error (EIO), a pipe with nothing.
                let read = source.read(&mut buffer).unwrap_or(0);
                let mut state = filled.lock();
                state.bytes.extend(buffer.iter().take(read));
                state.ended = read == 0;
                filled.grown.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// The line with `wanted` in it, after what was found before; `None` at the deadline, or when
    /// the output has ended.
    fn find(&self, wanted: &str, deadline: Instant) -> Option<String> {
        let mut state = self.lock();
        loop {
            let unseen = state.bytes.get(state.looked..).unwrap_or_default();
            let place = unseen
                .windows(wanted.len())
                .position(|window| window == wanted.as_bytes());
            if let Some(place) = place {
                let place = state.looked + place;
                state.looked = place + wanted.len();
                return Some(line_around(&state.bytes, place));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// Whether the output ended before the deadline.
    fn ends(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        true
    }
}

/// A field of /proc/PID/status.
fn field(status: &str, name: &str) -> String {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let value = fields.find(|(field, _)| *field == name);
    let (_, value) = value.unwrap_or_else(|| panic!("there is no {name}: {status}"));
    value.trim().to_owned()
}

/// The line that `place` is in, as far as it has come.
fn line_around(bytes: &[u8], place: usize) -> String {
    let (before, after) = bytes.split_at(place);
    let before = before
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let after = after
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(&[before, after].concat())
        .trim_end()
        .to_owned()
}

impl<'a> Process<'a> {
    pub(crate) fn start(
        sandbox: &'a Sandbox,
        mut command: Command,
        input: Input,
        output: Output,
    ) -> Process<'a> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut terminal = None;
        command.stdin(if input == Input::Open {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stderr(Stdio::piped());
        command.stdout(match output {
            Output::Read => Stdio::piped(),
            Output::Terminal => {
                let size = nix::pty::Winsize {
                    ws_row: 24,
                    ws_col: 80,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let pair = step("open a terminal", nix::pty::openpty(Some(&size), None));
                terminal = Some(File::from(pair.master));
                pair.slave.into()
            }
            Output::Broken => {
                let (reader, writer) = step("make a pipe", nix::unistd::pipe());
                drop(reader);
                writer.into()
            }
            Output::Full => step(
                "open /dev/full",
                File::options().write(true).open("/dev/full"),
            )
            .into(),
        });
        // SAFETY: prctl, signal and close are system calls that take no lock and no memory;
        // descriptor 0 is the child's own by now, and no handler is installed.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // The tests themselves may run under nohup(1), or behind the `&` of a script, where
                // SIGINT is ignored; the tool in them does not.
                for ignored in [Signal::SIGHUP, Signal::SIGINT] {
                    signal(ignored, SigHandler::SigDfl)?;
                }
                if input == Input::Closed {
                    nix::unistd::close(0)?;
                }
                Ok(())
            });
        }
        let started = Instant::now();
        let mut child = step(format!("start {name}"), command.spawn());
        // The command holds the terminal's other end; the program must be the only one.
        drop(command);
        let silent: Box<dyn Read + Send> = Box::new(std::io::empty());
        let stdout: Box<dyn Read + Send> = match (child.stdout.take(), terminal) {
            (Some(pipe), _) => Box::new(pipe),
            (None, Some(terminal)) => Box::new(terminal),
            (None, None) => silent,
        };
        let stderr: Box<dyn Read + Send> = match child.stderr.take() {
            Some(pipe) => Box::new(pipe),
            None => Box::new(std::io::empty()),
        };
        Process {
            sandbox,
            name,
            started,
            stdin: child.stdin.take(),
            stdout: Stream::fill_from(stdout),
            stderr: Stream::fill_from(stderr),
            child,
        }
    }

    /// Its process id; not another's before [`Process::finish`].
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Since when it runs.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has said so far on standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has said so far on standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard output says `text`, after where the last such call found its own.
    /// Returns the line as far as it has come.
    #[track_caller]
    pub fn wait_for(&self, text: &str, within: Duration) -> String {
        self.found(
            self.stdout.find(text, Instant::now() + within),
            text,
            within,
        )
    }

    /// The same on standard error.
    #[track_caller]
    pub fn wait_for_error(&self, text: &str, within: Duration) -> String {
        self.found(
            self.stderr.find(text, Instant::now() + within),
            text,
            within,
        )
    }

    #[track_caller]
    fn found(&self, line: Option<String>, text: &str, within: Duration) -> String {
        self.watch();
        line.unwrap_or_else(|| self.fail(&format!("did not say {text:?} within {within:?}")))
    }

    /// Types `text`; a line needs its `\n`.
    pub fn write(&mut self, text: &str) {
        self.watch();
        let Some(stdin) = &mut self.stdin else {
            panic!("{} has no open standard input", self.name);
        };
        step(
            "write to its standard input",
            stdin.write_all(text.as_bytes()),
        );
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.watch();
        self.stdin = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.watch();
        let result = kill(Pid::from_raw(self.pid() as i32), signal);
        step(format!("send {signal} to {}", self.name), result);
    }

    /// Whether it has taken this signal over (SigCgt).
    pub fn handles(&self, signal: Signal) -> bool {
        let caught = self.status("SigCgt");
        let caught = step(&caught, u64::from_str_radix(&caught, 16));
        // The first signal is 1, the first bit 0.
        caught >> (signal as i32 - 1) & 1 == 1
    }

    /// The most memory it has had resident, in KiB (VmHWM).
    pub fn peak_memory_kib(&self) -> u64 {
        let peak = self.status("VmHWM");
        let kib = peak.split_whitespace().next();
        step(&peak, kib.unwrap_or_default().parse())
    }

    /// None of its threads has a capability, nor can get one any more.
    #[track_caller]
    pub fn assert_powerless(&self) {
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            for (thread, caps) in self.capabilities_in(set) {
                assert_eq!(caps, 0, "{set} of {thread}");
            }
        }
        for status in self.statuses() {
            assert_eq!(field(&status, "NoNewPrivs"), "1", "{status}");
        }
    }

    /// What each of its threads may do (CapEff), with the thread's name.
    pub fn capabilities(&self) -> Vec<(String, u64)> {
        self.capabilities_in("CapEff")
    }

    fn capabilities_in(&self, set: &str) -> Vec<(String, u64)> {
        let of = |status: &String| {
            let digits = field(status, set);
            let caps = step(&digits, u64::from_str_radix(&digits, 16));
            (field(status, "Name"), caps)
        };
        self.statuses().iter().map(of).collect()
    }

    /// What /proc says of each of its threads; one may end while it is looked at.
    fn statuses(&self) -> Vec<String> {
        let path = format!("/proc/{}/task", self.pid());
        let tasks = step(&path, std::fs::read_dir(&path));
        let statuses: Vec<_> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .collect();
        assert!(!statuses.is_empty(), "{} has ended", self.name);
        statuses
    }

    /// What /proc/PID/status says of it.
    fn status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.pid());
        field(&step(&path, std::fs::read_to_string(&path)), name)
    }

    /// User and system time that it has spent.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = step(&path, std::fs::read_to_string(&path));
        // The name in the second field may have anything in it.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|field| step(field, field.parse::<u64>()));
        // A tick is 10 ms (USER_HZ).
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// A whole line of standard output that was begun after this call.
    #[track_caller]
    pub fn next_line(&self, within: Duration) -> String {
        self.watch();
        let deadline = Instant::now() + within;
        // The next line may have been begun already.
        let wanted = self.stdout().matches('\n').count() + 1;
        loop {
            if let Some(line) = self.stdout().split_inclusive('\n').nth(wanted)
                && line.ends_with('\n')
            {
                return line.trim_end().to_owned();
            }
            if Instant::now() >= deadline {
                self.fail(&format!("said no more lines within {within:?}"));
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// Kills it (SIGKILL) that long after its start.
    #[track_caller]
    pub fn kill_after(self, after: Duration) {
        sleep(after.saturating_sub(self.started.elapsed()));
        self.signal(Signal::SIGKILL);
        let ended = self.finish(AT_ONCE);
        assert_eq!(
            ended.status.signal(),
            Some(Signal::SIGKILL as i32),
            "{ended:?}"
        );
    }

    /// Its end was asked for `how`: it does not take its time.
    #[track_caller]
    pub fn ends_at_once(self, how: &str) -> Ended {
        let asked = Instant::now();
        let ended = self.finish(ENDS_WITHIN);
        let took = asked.elapsed();
        assert!(took < AT_ONCE, "{how} took {took:?}");
        ended
    }

    /// Waits until it has ended; panics (and kills it) when it has not `within` that time.
    #[track_caller]
    pub fn finish(mut self, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = step("wait for it", self.child.try_wait()) {
                break status;
            }
            if Instant::now() >= deadline {
                self.fail(&format!("did not end within {within:?}"));
            }
            // Fine enough beside a limit of a second, and no load.
            sleep(Duration::from_millis(2));
        };
        let ran = self.started.elapsed();
        let deadline = Instant::now() + OUTPUT_ENDS_WITHIN;
        if !self.stdout.ends(deadline) || !self.stderr.ends(deadline) {
            let others = self.sandbox.processes();
            self.fail(&format!(
                "has ended ({status}), but its output is still held: {others:?}"
            ));
        }
        Ended {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
            ran,
        }
    }

    /// Notes what it holds in the kernel now, for the end of the sandbox.
    fn watch(&self) {
        self.sandbox.watch(self.pid());
    }

    #[track_caller]
    fn fail(&self, what: &str) -> ! {
        panic!(
            "{} {what}\nstdout:\n{}\nstderr:\n{}",
            self.name,
            self.stdout(),
            self.stderr()
        );
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox;
    use crate::sandbox::tests::run_and_fail;

    const SOON: Duration = Duration::from_secs(5);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_prompt_is_answered() {
        sandbox::run("a_prompt_is_answered", |sandbox| {
            let mut process = sandbox.start(shell(
                "echo first; echo oops >&2; printf 'Press enter: '; read line; echo got $line; exit 7",
            ));
            assert_eq!(process.wait_for("first", SOON), "first");
            // No line end yet: a prompt.
            assert_eq!(process.wait_for("enter", SOON), "Press enter:");
            assert_eq!(process.wait_for_error("oops", SOON), "oops");
            process.write("hello\n");
            assert_eq!(process.wait_for("got", SOON), "Press enter: got hello");
            let ended = process.finish(SOON);
            ended.assert_code(7);
            assert_eq!(ended.stdout, "first\nPress enter: got hello\n");
            assert_eq!(ended.stderr, "oops\n");
        });
    }

    #[test]
    fn inputs_and_outputs_are_as_asked() {
        sandbox::run("inputs_and_outputs_are_as_asked", |sandbox| {
            let end = |script, input, output| {
                sandbox
                    .start_with(shell(script), input, output)
                    .finish(SOON)
            };
            end("test -e /proc/self/fd/0", Input::Closed, Output::Read).assert_code(1);
            end("read line", Input::AtEnd, Output::Read).assert_code(1);
            end(
                "trap '' PIPE; echo x 2>/dev/null",
                Input::AtEnd,
                Output::Broken,
            )
            .assert_code(1);
            let full = end("cat /proc/version", Input::AtEnd, Output::Full);
            full.assert_code(1);
            assert!(full.stderr.contains("No space left"), "{}", full.stderr);
            let size = end("test -t 1 && stty size <&1", Input::AtEnd, Output::Terminal);
            assert_eq!(size.assert_code(0).stdout, "24 80\r\n");
            let mut open = sandbox.start(shell("read line"));
            open.close_stdin();
            open.finish(SOON).assert_code(1);
        });
    }

    #[test]
    fn a_signal_ends_it_and_memory_is_read() {
        sandbox::run("a_signal_ends_it_and_memory_is_read", |sandbox| {
            let process = sandbox.start(shell(
                "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done",
            ));
            process.wait_for("ready", SOON);
            assert!((100..100_000).contains(&process.peak_memory_kib()));
            process.signal(Signal::SIGTERM);
            let ended = process.finish(SOON);
            ended.assert_code(3);
            assert!(ended.ran < SOON);
        });
    }

    #[test]
    fn the_next_line_is_one_that_was_not_begun_before() {
        let name = "the_next_line_is_one_that_was_not_begun_before";
        sandbox::run(name, |sandbox| {
            // A second, in which whoever waits for the next line begins to wait.
            let script =
                "printf 'one\ntw'; read line; sleep 1; printf 'o\nthr'; sleep 0.1; echo ee";
            let mut process = sandbox.start(shell(script));
            process.wait_for("tw", SOON);
            process.write("\n");
            assert_eq!(process.next_line(SOON), "three");
        });
    }

    #[test]
    fn a_kill_comes_when_it_is_to_come() {
        sandbox::run("a_kill_comes_when_it_is_to_come", |sandbox| {
            let process = sandbox.start(shell("while :; do :; done"));
            let started = process.started();
            // It is at work until then, however small its share of a busy machine is.
            while process.cpu_time() < Duration::from_millis(50) {
                assert!(started.elapsed() < ENDS_WITHIN, "{:?}", process.cpu_time());
                sleep(Duration::from_millis(10));
            }
            let after = started.elapsed() + Duration::from_millis(100);
            process.kill_after(after);
            assert!(started.elapsed() >= after);
        });
    }

    #[test]
    fn what_does_not_end_is_a_failure() {
        run_and_fail(
            "what_does_not_end_is_a_failure",
            "did not end within",
            |sandbox| {
                sandbox
                    .start(shell("sleep 60"))
                    .finish(Duration::from_millis(50));
            },
        );
    }

    #[test]
    fn what_is_not_said_is_a_failure() {
        run_and_fail(
            "what_is_not_said_is_a_failure",
            "did not say \"ready\"",
            |sandbox| {
                sandbox.start(shell("echo red")).wait_for("ready", SOON);
            },
        );
    }

    #[test]
    fn a_child_that_holds_the_output_is_a_failure() {
        let name = "a_child_that_holds_the_output_is_a_failure";
        run_and_fail(name, "its output is still held", |sandbox| {
            sandbox.start(shell("sleep 60 & exit 0")).finish(SOON);
        });
    }
}
