//! The end of a run, and its events, in a process of its own: this test binary again, told by
//! its environment to be the program.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netbpf::rate::seconds;
use netbpf::session::{Event, Options, Session, settle};
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2};
use testbed::step;

/// The options of the program, in the child's environment.
const PROGRAM: &str = "NETBPF_TEST_SESSION";

/// More than any step takes on a busy machine; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(20);

/// What "at once" is for a user, with room for a busy machine.
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn program() {
    // As a test of this file it has nothing to do.
    let Ok(words) = env::var(PROGRAM) else {
        return;
    };
    let result = settle(run(&words));
    eprintln!(
        "result: {}",
        result.map_or_else(|error| format!("{error:#}"), |()| "ok".into())
    );
}

/// Runs a session with options such as `duration=2 interval=0.1 reload`, and prints its events.
fn run(words: &str) -> Result<()> {
    let option = |name: &str| -> Result<Option<Duration>> {
        let value = words
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Ok(value.map(seconds).transpose()?)
    };
    let has = |name: &str| words.split(' ').any(|word| word == name);
    let mut session = Session::start(Options {
        duration: option("duration")?,
        interval: option("interval")?,
        seconds: has("seconds"),
        confirm: option("confirm")?,
        reload: has("reload"),
        keys: has("keys"),
    })?;
    say(&format!("started {}", std::process::id()))?;
    if has("slow") {
        for _ in 0..500 {
            std::thread::sleep(Duration::from_millis(20));
            session.check()?;
        }
        bail!("nobody ended the slow start");
    }
    if has("child") {
        let mut child = Command::new("sleep").arg("100").spawn()?;
        say(&format!("child {}", child.id()))?;
        let status = child.wait()?;
        return Err(session.cause(anyhow::anyhow!("sleep: {status}")));
    }
    if has("deaf") {
        // Start-up steps that take their time: what comes meanwhile waits.
        std::thread::sleep(Duration::from_millis(500));
        session.check()?;
    }
    say("ready")?;
    let cpu = cpu_time()?;
    loop {
        let event = session.wait(None)?;
        match event {
            Event::End(reason) => {
                let spent = cpu_time()? - cpu;
                eprintln!("cpu: {} ms", spent.as_millis());
                return say(&format!("end: {reason}"));
            }
            Event::Tick if has("busy") => {
                say("tick")?;
                std::thread::sleep(Duration::from_millis(250));
            }
            Event::Question(text) => say(&format!("question: {text}"))?,
            Event::Keys => {
                let mut keys = [0; 64];
                let length = nix::unistd::read(io::stdin(), &mut keys)?;
                say(&format!("keys: {:?}", &keys[..length]))?;
                if length == 0 {
                    return Ok(());
                }
                if &keys[..length] == b"call\n" {
                    let waker = session.waker();
                    std::thread::spawn(move || waker.wake());
                }
            }
            event => say(&format!("{event:?}").to_lowercase())?,
        }
    }
}

/// Prints a line as the tools do: a closed stdout is an error, not a panic.
fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").context("print")?;
    out.flush().context("print")
}

/// The time this process has run on a CPU.
fn cpu_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, behind) = stat.rsplit_once(')').context("stat")?;
    let ticks: u64 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    // A tick is 10 ms (USER_HZ).
    Ok(Duration::from_millis(ticks * 10))
}

/// The running program.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Receiver<String>,
}

fn command(words: &str) -> Command {
    let mut command = Command::new(step("find this binary", env::current_exe()));
    command
        .args(["program", "--exact", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn lines_of(source: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Program {
    fn start(words: &str) -> Program {
        Program::from(command(words))
    }

    fn from(mut command: Command) -> Program {
        // In a program the session has the first thread, which the kernel prefers for a signal.
        // A test has the second. The first blocks them, and leaves them to the session.
        let signals: SigSet = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ]
        .into_iter()
        .collect();
        // SAFETY: signal and setting the mask are system calls that take no lock and no memory, and no
        // handler is installed.
        unsafe {
            command.pre_exec(move || {
                // The tests themselves may run under nohup(1), or behind the `&` of a script.
                for ignored in [Signal::SIGHUP, Signal::SIGINT] {
                    signal(ignored, SigHandler::SigDfl)?;
                }
                Ok(signals.thread_block()?)
            });
        }
        let mut child = step("start the program", command.spawn());
        let none: Box<dyn io::Read + Send> = Box::new(io::empty());
        let stdout = child.stdout.take().map_or(none, |pipe| Box::new(pipe));
        let none: Box<dyn io::Read + Send> = Box::new(io::empty());
        let stderr = child.stderr.take().map_or(none, |pipe| Box::new(pipe));
        Program {
            stdin: child.stdin.take(),
            lines: lines_of(stdout),
            errors: lines_of(stderr),
            seen: Vec::new(),
            child,
        }
    }

    /// Waits for a line with this in it.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no '{text}' ({error}) after {:#?}", self.seen),
            }
        }
    }

    fn says_nothing_for(&mut self, time: Duration) {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("expected silence, got {other:?}"),
        }
    }

    fn signal(&self, signal: Signal) {
        step(
            "send a signal",
            kill(Pid::from_raw(self.child.id() as i32), signal),
        );
    }

    fn write(&mut self, text: &str) {
        let Some(stdin) = &mut self.stdin else {
            panic!("stdin is closed");
        };
        step("write to the program", stdin.write_all(text.as_bytes()));
    }

    /// Waits for its end: how, the rest of stdout, all of stderr.
    fn finish(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let deadline = Instant::now() + LONG;
        let status = loop {
            if let Some(status) = step("wait", self.child.try_wait()) {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {:#?} {:#?}",
                self.seen,
                self.errors.try_iter().collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        let out = self.lines.iter().collect();
        let errors = self.errors.iter().collect();
        (status, out, errors)
    }

    /// Waits for its end, which must say this reason and be no failure.
    #[track_caller]
    fn ends_with(self, reason: &str) -> Vec<String> {
        let (status, out, errors) = self.finish();
        assert!(status.success(), "{status}: {errors:#?}");
        assert!(errors.contains(&"result: ok".into()), "{errors:#?}");
        let end = format!("end: {reason}");
        assert!(out.contains(&end), "no '{end}' in {out:#?}");
        errors
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already gone, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The milliseconds on a CPU that the program reported.
fn cpu_of(errors: &[String]) -> u64 {
    let found = errors.iter().find_map(|line| {
        let number = line.strip_prefix("cpu: ")?.strip_suffix(" ms")?;
        number.parse().ok()
    });
    found.unwrap_or_else(|| panic!("no cpu time in {errors:#?}"))
}

#[test]
fn each_signal_ends_a_run_at_once() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut program = Program::start("");
        program.wait_for("ready");
        let sent = Instant::now();
        program.signal(signal);
        program.ends_with(signal.as_str());
        assert!(sent.elapsed() < SECOND, "{signal}");
    }
}

#[test]
fn each_signal_ends_a_slow_start_without_failure() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut program = Program::start("slow");
        program.wait_for("started");
        let sent = Instant::now();
        program.signal(signal);
        let (status, _, errors) = program.finish();
        assert!(status.success());
        assert!(errors.contains(&"result: ok".into()), "{errors:#?}");
        assert!(sent.elapsed() < SECOND, "{signal}");
    }
}

#[test]
fn a_signal_that_also_kills_the_step_is_the_end_and_no_failure() {
    let mut command = command("child");
    command.process_group(0);
    let mut program = Program::from(command);
    let line = program.wait_for("child ");
    let child: i32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    // Nothing is handed on: sleep dies of it as under any shell.
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    for set in ["SigBlk", "SigCgt"] {
        assert!(
            status.contains(&format!("{set}:\t0000000000000000")),
            "{status}"
        );
    }
    let group = Pid::from_raw(-(program.child.id() as i32));
    kill(group, Signal::SIGINT).unwrap();
    let (status, _, errors) = program.finish();
    assert!(status.success());
    assert!(errors.contains(&"result: ok".into()), "{errors:#?}");
}

#[test]
fn a_step_that_fails_by_itself_is_a_failure() {
    let mut program = Program::start("child");
    let line = program.wait_for("child ");
    let child = line.rsplit(' ').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(child), Signal::SIGTERM).unwrap();
    let (_, _, errors) = program.finish();
    assert!(
        errors
            .iter()
            .any(|line| line.starts_with("result: sleep: signal: 15")),
        "{errors:#?}"
    );
}

#[test]
fn enter_ends_a_run_and_nothing_less_does() {
    let mut program = Program::start("");
    program.wait_for("ready");
    program.write("q");
    program.says_nothing_for(Duration::from_millis(300));
    let sent = Instant::now();
    program.write("uit\n");
    program.ends_with("Enter");
    assert!(sent.elapsed() < SECOND);
}

#[test]
fn enter_pressed_during_start_up_counts_afterwards() {
    let mut program = Program::start("deaf");
    program.wait_for("started");
    program.write("\n");
    program.wait_for("ready");
    program.ends_with("Enter");
}

#[test]
fn the_rest_of_stdin_is_left_to_others() {
    let mut program = Command::new("sh");
    let exe = env::current_exe().unwrap();
    program
        .args([
            "-c",
            "\"$0\" program --exact --nocapture --test-threads=1; cat",
        ])
        .arg(exe)
        .env(PROGRAM, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = Program::from(program);
    program.write("\nfor the next\n");
    program.stdin = None;
    let (_, out, _) = program.finish();
    assert!(out.contains(&"end: Enter".into()), "{out:#?}");
    assert_eq!(out.last().map(String::as_str), Some("for the next"));
}

#[test]
fn without_stdin_a_run_goes_on_and_does_not_spin() {
    for case in [
        "end of a pipe",
        "/dev/null",
        "closed",
        "endless without a line",
    ] {
        let mut command = command("");
        match case {
            "/dev/null" => {
                command.stdin(Stdio::null());
            }
            "endless without a line" => {
                command.stdin(fs::File::open("/dev/zero").unwrap());
            }
            "closed" => {
                // SAFETY: close is a system call that takes no lock and no memory.
                unsafe {
                    command.pre_exec(|| Ok(nix::unistd::close(0)?));
                }
            }
            _ => {}
        }
        let mut program = Program::from(command);
        program.wait_for("ready");
        program.stdin = None;
        program.says_nothing_for(Duration::from_millis(1500));
        program.signal(Signal::SIGTERM);
        let errors = program.ends_with("SIGTERM");
        // Reading 64 KiB byte by byte is in it.
        assert!(cpu_of(&errors) <= 300, "{case}: {errors:#?}");
    }
}

#[test]
fn an_idle_run_does_not_spin() {
    let mut program = Program::start("duration=2");
    program.wait_for("ready");
    let errors = program.ends_with("the duration is over");
    assert!(cpu_of(&errors) <= 50, "{errors:#?}");
}

#[test]
fn a_duration_ends_a_run_by_itself() {
    let mut program = Program::start("duration=0.5");
    program.wait_for("ready");
    let since = Instant::now();
    program.ends_with("the duration is over");
    let took = since.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_millis(1500),
        "{took:?}"
    );
}

#[test]
fn ticks_do_not_drift() {
    let program = Program::start("duration=2.05 interval=0.1");
    let (_, out, _) = program.finish();
    let ticks = out.iter().filter(|line| *line == "tick").count();
    // A busy machine may skip some, never add one.
    assert!((15..=20).contains(&ticks), "{ticks} ticks");
}

#[test]
fn missed_ticks_are_skipped() {
    let program = Program::start("duration=2 interval=0.1 busy");
    let (_, out, _) = program.finish();
    let ticks = out.iter().filter(|line| *line == "tick").count();
    // Each takes 250 ms, so every third is there to be seen.
    assert!((4..=8).contains(&ticks), "{ticks} ticks");
}

#[test]
fn seconds_pass_beside_the_interval() {
    let program = Program::start("duration=2.5 interval=1 seconds");
    let (_, out, _) = program.finish();
    let beats: Vec<_> = out
        .iter()
        .filter(|line| ["tick", "second"].contains(&line.as_str()))
        .collect();
    assert_eq!(beats, ["second", "tick", "second", "tick"]);
}

#[test]
fn sighup_reloads_where_that_was_asked_for() {
    let mut program = Program::start("reload");
    program.wait_for("ready");
    program.signal(Signal::SIGHUP);
    program.wait_for("reload");
    program.signal(Signal::SIGHUP);
    program.wait_for("reload");
    program.signal(Signal::SIGINT);
    program.ends_with("SIGINT");
}

#[test]
fn sighup_during_start_up_reloads_afterwards() {
    let mut program = Program::start("reload deaf");
    program.wait_for("started");
    program.signal(Signal::SIGHUP);
    program.wait_for("ready");
    program.wait_for("reload");
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn nohup_is_respected() {
    let mut nohup = Command::new("nohup");
    let inner = command("");
    nohup.arg(inner.get_program()).args(inner.get_args());
    nohup
        .env(PROGRAM, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = Program::from(nohup);
    program.wait_for("ready");
    program.signal(Signal::SIGHUP);
    program.says_nothing_for(Duration::from_millis(500));
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn sigusr1_alone_does_nothing() {
    let mut program = Program::start("");
    program.wait_for("ready");
    program.signal(Signal::SIGUSR1);
    program.says_nothing_for(Duration::from_millis(300));
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn a_closed_output_ends_an_idle_run_and_a_writing_one() {
    for words in ["", "interval=0.05"] {
        let (reader, writer) = step("make a pipe", pipe2(OFlag::O_CLOEXEC));
        let mut command = command(words);
        command.stdout(writer);
        let program = Program::from(command);
        let mut lines = BufReader::new(fs::File::from(reader)).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.ends_with("ready"))));
        let closed = Instant::now();
        drop(lines);
        let (status, _, errors) = program.finish();
        // The test runner prints its own summary to the closed output, and may not like it.
        assert!(
            errors.contains(&"result: ok".into()),
            "{status} {errors:#?}"
        );
        assert!(closed.elapsed() < SECOND);
    }
}

#[test]
fn enter_confirms_first_and_ends_later() {
    let mut program = Program::start("confirm=60");
    let question = program.wait_for("question: ");
    let pid = program.child.id();
    assert_eq!(
        question,
        format!(
            "question: everything is undone in 60 s unless Enter is pressed here \
             (or: kill -USR1 {pid})"
        )
    );
    program.write("\n");
    program.wait_for("confirmed");
    program.says_nothing_for(Duration::from_millis(300));
    program.write("\n");
    program.ends_with("Enter");
}

#[test]
fn both_lines_at_once_confirm_and_end() {
    let mut program = Program::start("confirm=60");
    program.write("\n\n");
    program.wait_for("confirmed");
    program.ends_with("Enter");
}

#[test]
fn sigusr1_confirms_and_only_after_the_question() {
    let mut program = Program::start("confirm=60 deaf");
    program.wait_for("started");
    program.signal(Signal::SIGUSR1);
    program.wait_for("question: ");
    program.says_nothing_for(Duration::from_millis(300));
    program.signal(Signal::SIGUSR1);
    program.wait_for("confirmed");
    program.signal(Signal::SIGINT);
    program.ends_with("SIGINT");
}

#[test]
fn an_unconfirmed_run_ends_in_time() {
    let mut program = Program::start("confirm=0.5");
    program.wait_for("question: ");
    let since = Instant::now();
    program.ends_with("not confirmed within 0.5 s");
    let took = since.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_millis(1500),
        "{took:?}"
    );
}

#[test]
fn a_confirmed_run_outlives_the_time() {
    let mut program = Program::start("confirm=0.5");
    program.wait_for("question: ");
    program.signal(Signal::SIGUSR1);
    program.wait_for("confirmed");
    program.says_nothing_for(Duration::from_millis(1000));
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn without_stdin_the_question_names_the_signal_only() {
    let mut command = command("confirm=60");
    command.stdin(Stdio::null());
    let mut program = Program::from(command);
    let question = program.wait_for("question: ");
    assert!(
        question.contains("unless confirmed by: kill -USR1"),
        "{question}"
    );
    assert!(question.contains("(stdin is closed)"), "{question}");
    program.signal(Signal::SIGUSR1);
    program.wait_for("confirmed");
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn when_stdin_ends_the_question_is_put_again() {
    let mut program = Program::start("confirm=60");
    assert!(
        program
            .wait_for("question: ")
            .contains("Enter is pressed here")
    );
    program.stdin = None;
    assert!(program.wait_for("question: ").contains("stdin is closed"));
    program.signal(Signal::SIGUSR1);
    program.wait_for("confirmed");
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn a_span_of_zero_is_a_usage_error() {
    for (options, name) in [
        (
            Options {
                interval: Some(Duration::ZERO),
                ..Options::default()
            },
            "--interval",
        ),
        (
            Options {
                duration: Some(Duration::ZERO),
                ..Options::default()
            },
            "--duration",
        ),
        (
            Options {
                confirm: Some(Duration::ZERO),
                ..Options::default()
            },
            "--confirm",
        ),
    ] {
        let error = Session::start(options).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        let failure = error.downcast_ref::<netbpf::Failure>();
        assert_eq!(failure.map(netbpf::Failure::code), Some(2));
    }
}

/// A program on a terminal of its own, as the leader of its session.
fn on_terminal(mut command: Command) -> (Program, fs::File) {
    // Close-on-exec from the start: the programs of other tests must not hold it open.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = step("open a terminal", posix_openpt(flags));
    step("grant the terminal", grantpt(&master));
    step("unlock the terminal", unlockpt(&master));
    let name = step("name the terminal", ptsname_r(&master));
    let slave = step(
        "open the terminal",
        open(name.as_str(), flags, Mode::empty()),
    );
    command.stdin(step("share the terminal", slave.try_clone()));
    let number = slave.as_raw_fd();
    // SAFETY: setsid and ioctl are system calls that take no lock and no memory; the descriptor
    // is open until the command has started.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            let result = libc::ioctl(number, libc::TIOCSCTTY, 0);
            nix::errno::Errno::result(result)?;
            Ok(())
        });
    }
    let program = Program::from(command);
    drop(slave);
    // A master end is a descriptor as any other.
    let master = step("keep the terminal", master.as_fd().try_clone_to_owned());
    (program, master.into())
}

#[test]
fn enter_on_a_terminal_ends_a_run() {
    let (mut program, mut terminal) = on_terminal(command(""));
    program.wait_for("ready");
    terminal.write_all(b"\n").unwrap();
    program.ends_with("Enter");
}

#[test]
fn control_c_on_a_terminal_ends_a_run() {
    let (mut program, mut terminal) = on_terminal(command(""));
    program.wait_for("ready");
    terminal.write_all(b"\x03").unwrap();
    program.ends_with("SIGINT");
}

/// The lines are in the terminal's own mode: only their ends make them keys here.
#[test]
fn keys_are_left_to_who_asked_for_them() {
    let (mut program, mut terminal) = on_terminal(command("keys"));
    program.wait_for("ready");
    terminal.write_all(b"\n").unwrap();
    program.wait_for("keys: [10]");
    terminal.write_all(b"q\n").unwrap();
    program.wait_for("keys: [113, 10]");
    program.signal(Signal::SIGWINCH);
    program.wait_for("resized");
    terminal.write_all(b"call\n").unwrap();
    program.wait_for("woken");
    // And it sleeps again.
    program.says_nothing_for(Duration::from_millis(300));
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn a_size_that_nobody_asked_for_is_no_event() {
    let (mut program, _terminal) = on_terminal(command(""));
    program.wait_for("ready");
    program.signal(Signal::SIGWINCH);
    program.says_nothing_for(Duration::from_millis(300));
    program.signal(Signal::SIGTERM);
    program.ends_with("SIGTERM");
}

#[test]
fn what_was_typed_before_the_question_is_no_answer() {
    let (mut program, mut terminal) = on_terminal(command("confirm=60 deaf"));
    program.wait_for("started");
    terminal.write_all(b"\n").unwrap();
    program.wait_for("question: ");
    program.says_nothing_for(Duration::from_millis(300));
    terminal.write_all(b"\n").unwrap();
    program.wait_for("confirmed");
    terminal.write_all(b"\n").unwrap();
    program.ends_with("Enter");
}

#[test]
fn a_hang_up_of_the_terminal_ends_a_run() {
    let (mut program, terminal) = on_terminal(command(""));
    program.wait_for("ready");
    drop(terminal);
    program.ends_with("SIGHUP");
}

#[test]
fn in_the_background_the_terminal_is_left_alone() {
    let told = env::temp_dir().join(format!("netbpf-foreground-{}", std::process::id()));
    // bash reads nothing; it brings the job to the foreground once the file is there. It does
    // that through its stderr, which therefore has to be the terminal.
    let script = "exec 4>&2 2>/dev/tty; set -m; \
                  \"$0\" program --exact --nocapture --test-threads=1 2>&4 4>&- & \
                  exec 4>&-; until [ -e \"$1\" ]; do sleep 0.1; done; fg >/dev/null";
    let mut bash = Command::new("bash");
    bash.args(["-c", script])
        .arg(env::current_exe().unwrap())
        .arg(&told);
    bash.env(PROGRAM, "")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut program, mut terminal) = on_terminal(bash);
    let started = program.wait_for("started ");
    let pid = started.rsplit(' ').next().unwrap();
    program.wait_for("ready");
    terminal.write_all(b"\n").unwrap();
    program.says_nothing_for(Duration::from_millis(1500));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("State:\tS"), "stopped by SIGTTIN? {status}");
    fs::File::create_new(&told).unwrap();
    let errors = program.ends_with("Enter");
    fs::remove_file(&told).unwrap();
    assert!(cpu_of(&errors) <= 100, "{errors:#?}");
}
