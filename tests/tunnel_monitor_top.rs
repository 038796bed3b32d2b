//! `tunnel_monitor top` as a user has it: the real binary in tmux at 80x24, shown by a real monitor whose
//! interface carries frames of ours. What it shows, every end of it, and the terminal afterwards.
//!
//! ```text
//! frames -> up0-far --- up0 [tunnel_monitor --iface up0] -> HTTP -> [tunnel_monitor top] in tmux
//! ```

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::{Input, Output, Process};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::Tool;
use testbed::traffic::inject;
use testbed::{is_installed, skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
/// More than any step takes on a busy machine; nothing waits for it to pass.
const WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Where the monitor of a test answers, each in a network of its own.
const CONNECT: &str = "http://127.0.0.1:8080";

/// Runs the body in a sandbox with an interface to monitor, if there is a tmux.
fn run(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    if !is_installed("tmux") {
        skip(name, "tmux is not installed");
        return;
    }
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _interface = Veth::new((&here, "up0"), (&here, "up0-far"));
        body(sandbox);
    });
}

/// A monitor at work.
fn monitor(sandbox: &Sandbox) -> Process<'_> {
    let ready = Ready::SaysAside("HTTP on ");
    Job::new(sandbox, TOOL, "--iface up0", ready).at_work("")
}

/// Frames of 142 bytes that come in by up0: from this host to 172.16.0.1, between clients of this network.
fn send(host: u8, network: u8, frames: usize) {
    let mac = |last| [2, 0, 0, 0, 0, last];
    let inner = Packet::ethernet(mac(4), mac(3))
        .ipv4(
            Ipv4Addr::new(10, 0, network, host),
            Ipv4Addr::new(10, 0, network, 1),
        )
        .udp(7, 7)
        .payload_of(50)
        .build();
    // RFC 7348: the flag of a valid number, the number, a reserved byte.
    let mut vxlan = vec![8, 0, 0, 0, 0, 0, network, 0];
    vxlan.extend(inner);
    let frame = Packet::ethernet(mac(2), mac(1))
        .ipv4(
            Ipv4Addr::new(172, 16, 0, host),
            Ipv4Addr::new(172, 16, 0, 1),
        )
        .udp(50_000, 4789)
        .payload(&vxlan)
        .build();
    let frames = std::iter::repeat_n(&frame[..], frames);
    inject(&Place::here(), "up0-far", frames, Duration::ZERO);
}

/// A terminal with a shell in it, as a user sees it.
struct Tmux<'a> {
    _server: Process<'a>,
    sandbox: &'a Sandbox,
    folder: PathBuf,
}

impl<'a> Tmux<'a> {
    fn start(sandbox: &'a Sandbox) -> Tmux<'a> {
        let name = format!(
            "netbpf-top-{}-{:?}",
            std::process::id(),
            thread::current().id()
        );
        let folder = std::env::temp_dir().join(name);
        step("make a folder", fs::create_dir(&folder));
        let mut command = Command::new("tmux");
        command
            .arg("-D")
            .args(["-f", "/dev/null", "-S"])
            .arg(folder.join("socket"));
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        let tmux = Tmux {
            _server: sandbox.start(command),
            sandbox,
            folder,
        };
        wait_until("tmux listens", || tmux.folder.join("socket").exists());
        let tool = format!("TOOL={}", env!("CARGO_BIN_EXE_tunnel_monitor"));
        tmux.tell(&[
            "new-session",
            "-d",
            "-s",
            "it",
            "-x",
            "80",
            "-y",
            "24",
            "-e",
            &tool,
            "-e",
            "NO_COLOR=1",
            // Who tests keeps no history of what the test has typed.
            "env PS1=ready: HISTFILE= bash --norc --noprofile",
        ]);
        tmux.wait_for("ready:");
        tmux
    }

    fn tell(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(self.folder.join("socket"))
            .args(words);
        let output = step("run tmux", command.env("LC_ALL", "C.UTF-8").output());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Keys by tmux's names, or as they are.
    fn press(&self, keys: &[&str]) {
        self.tell(&[&["send-keys", "-t", "it"], keys].concat());
    }

    /// A line for the shell, once it asks for one: what is typed earlier gets among what it writes.
    #[track_caller]
    fn shell(&self, line: &str) {
        self.wait_until("the shell's question", |screen| {
            screen.trim_end().ends_with("\nready:") || screen.trim_end() == "ready:"
        });
        self.press(&["-l", line]);
        self.press(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tell(&["capture-pane", "-p", "-t", "it"])
    }

    /// The screen once it says this.
    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + WITHIN;
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{screen}");
            sleep(PAUSE);
        }
    }

    /// Starts the view, and waits until it shows this.
    #[track_caller]
    fn top(&self, arguments: &str, text: &str) -> String {
        self.shell("clear; stty -g | cksum");
        self.wait_until("the terminal's settings", |screen| {
            settings(screen).len() == 1
        });
        self.shell(&format!(
            "$TOOL top {arguments}; echo ended $?; stty -g | cksum"
        ));
        self.wait_for(text)
    }

    /// The view has ended with this code: the shell's screen is back, and the terminal as it was.
    #[track_caller]
    fn assert_ended(&self, code: i32) -> String {
        let screen = self.wait_until("the end", |screen| settings(screen).len() == 2);
        assert!(screen.contains(&format!("\nended {code}\n")), "{screen}");
        let settings = settings(&screen);
        assert_eq!(
            settings[0], settings[1],
            "the terminal is another one now\n{screen}"
        );
        let modes = "#{cursor_flag} #{alternate_on} #{mouse_any_flag}";
        let modes = self.tell(&["display-message", "-p", "-t", "it", modes]);
        assert_eq!(modes.trim(), "1 0 0", "cursor, alternate screen, mouse");
        screen
    }

    /// The process of the view.
    #[track_caller]
    fn pid(&self) -> Pid {
        let views = |(_, command): &(u32, String)| command.contains("tunnel_monitor top");
        let process = self.sandbox.processes().into_iter().find(views);
        let (pid, _) = process.unwrap_or_else(|| panic!("there is no view"));
        Pid::from_raw(step("pid", i32::try_from(pid)))
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        // The shell in it ends with it; where tmux has ended already, there is nothing to end.
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(self.folder.join("socket"))
            .arg("kill-server");
        let _ = command.output();
        let _ = fs::remove_dir_all(&self.folder);
        // A moment later. What stays is said at the end of the test.
        let deadline = Instant::now() + WITHIN;
        let is_shell = |(_, command): &(u32, String)| command.starts_with("bash --norc");
        while self.sandbox.processes().iter().any(is_shell) && Instant::now() < deadline {
            sleep(PAUSE);
        }
    }
}

/// Sums that `cksum` printed: a number and a length, alone on a line.
fn settings(screen: &str) -> Vec<&str> {
    let is_sum = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        words.len() == 2 && words.iter().all(|word| word.parse::<u64>().is_ok())
    };
    screen.lines().filter(is_sum).collect()
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(PAUSE);
    }
}

/// What the line with this name says behind it.
#[track_caller]
fn row<'s>(screen: &'s str, name: &str) -> Vec<&'s str> {
    let line = screen.lines().find(|line| line[1..].starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no line of {name}\n{screen}"));
    line[1 + name.len()..].split_whitespace().collect()
}

/// script(1) gives it a terminal that answers no question, such as where its cursor is.
#[test]
fn a_terminal_that_answers_nothing_is_drawn_on() {
    run("a_terminal_that_answers_nothing_is_drawn_on", |sandbox| {
        let _monitor = monitor(sandbox);
        send(2, 7, 30);
        let mut script = Command::new("script");
        let top = format!(
            "stty rows 24 cols 80; exec {} top --connect {CONNECT}",
            env!("CARGO_BIN_EXE_tunnel_monitor")
        );
        script.env("TERM", "xterm").env("NO_COLOR", "1");
        script.args(["--quiet", "--return", "--command", &top, "/dev/null"]);
        let mut top = sandbox.start_with(script, Input::Open, Output::Read);
        top.wait_for("172.16.0.2", WITHIN);
        top.write("q");
        top.finish(WITHIN).assert_code(0);
    });
}

#[test]
fn known_traffic_is_shown_with_its_figures_and_can_be_looked_into() {
    let name = "known_traffic_is_shown_with_its_figures_and_can_be_looked_into";
    run(name, |sandbox| {
        let _monitor = monitor(sandbox);
        send(2, 7, 30);
        send(3, 7, 5);
        send(3, 8, 5);
        let tmux = Tmux::start(sandbox);
        tmux.top(
            &format!("--connect {CONNECT}"),
            "[1 host pairs 2]  2 VNIs 2   3 inner pairs 3",
        );
        // In packets, by all that came.
        tmux.press(&["u", "u", "s", "s", "s", "s"]);
        tmux.wait_for("packets/s, total packets");
        let screen = tmux.wait_for("TOTAL▼");
        let total = |name: &str| *row(&screen, name).last().unwrap_or(&"");
        assert_eq!(row(&screen, "172.16.0.1 ↔ 172.16.0.2").len(), 7, "{screen}");
        let place = |name: &str| screen.find(name);
        assert!(
            place("0.1 ↔ 172.16.0.2") < place("0.1 ↔ 172.16.0.3"),
            "{screen}"
        );
        assert_eq!(total("all of these"), "3", "flows\n{screen}");
        let amounts = |screen: &str, name: &str| row(screen, name)[5].to_owned();
        assert_eq!(amounts(&screen, "172.16.0.1 ↔ 172.16.0.2"), "30");
        assert_eq!(amounts(&screen, "172.16.0.1 ↔ 172.16.0.3"), "10");
        assert_eq!(amounts(&screen, "all of these"), "40");
        assert!(
            screen.contains(" up0 · 3 of 65536 flows · other 0 · forgotten 0"),
            "{screen}"
        );
        assert!(screen.contains(" live · up "), "{screen}");

        // The second pair, its networks, and who talks in one of them.
        tmux.press(&["Down", "Enter"]);
        let screen = tmux.wait_for(" in 172.16.0.1 ↔ 172.16.0.3");
        assert!(screen.contains("[2 VNIs 2]"), "{screen}");
        assert_eq!(amounts(&screen, "vxlan 7"), "5");
        tmux.press(&["Down", "Enter"]);
        let screen = tmux.wait_for(" › vxlan 8");
        assert_eq!(amounts(&screen, "10.0.8.1 ↔ 10.0.8.3"), "5");
        tmux.press(&["Escape"]);
        tmux.wait_until("one step back", |screen| !screen.contains("› vxlan 8"));
        tmux.press(&["BSpace"]);
        let screen = tmux.wait_for("[1 host pairs 2]");
        assert!(
            screen.contains("\n>172.16.0.1 ↔ 172.16.0.3"),
            "back at it\n{screen}"
        );

        // A filter, typed wrong first.
        tmux.press(&["/", "l", "a", "n", "Enter"]);
        tmux.wait_for("'lan' is no IP");
        tmux.press(&["C-u"]);
        tmux.press(&["-l", "10.0.8.0/24"]);
        tmux.press(&["Enter"]);
        let screen = tmux.wait_for("[1 host pairs 1]");
        assert!(screen.contains("filter: 10.0.8.0/24"), "{screen}");
        assert_eq!(amounts(&screen, "all of these"), "5");
        tmux.press(&["Escape"]);
        tmux.wait_for("[1 host pairs 2]");

        // A picture that stands still while more comes.
        tmux.press(&["p"]);
        tmux.wait_for("PAUSED");
        send(2, 7, 12);
        send(4, 7, 1);
        sleep(Duration::from_millis(2500));
        let screen = tmux.screen();
        assert_eq!(amounts(&screen, "172.16.0.1 ↔ 172.16.0.2"), "30");
        tmux.press(&["p"]);
        let screen = tmux.wait_for("[1 host pairs 3]");
        assert_eq!(amounts(&screen, "172.16.0.1 ↔ 172.16.0.2"), "42");
        tmux.press(&["q"]);
        tmux.assert_ended(0);
    });
}

#[test]
fn when_the_monitor_is_gone_the_picture_stays_and_when_it_is_back_so_is_the_view() {
    let name = "when_the_monitor_is_gone_the_picture_stays_and_when_it_is_back_so_is_the_view";
    run(name, |sandbox| {
        let tmux = Tmux::start(sandbox);
        // Before there is any.
        tmux.top("", &format!("Waiting for {CONNECT}."));
        tmux.wait_for(" ! no answer, asking again: ");
        let first = monitor(sandbox);
        tmux.wait_for("No tunnel packets yet on up0.");
        send(2, 7, 3);
        tmux.wait_for(">172.16.0.1 ↔ 172.16.0.2");
        first.signal(Signal::SIGKILL);
        drop(first);
        let screen = tmux.wait_for(" ! no answer for ");
        assert!(screen.contains(">172.16.0.1 ↔ 172.16.0.2"), "{screen}");
        let screen = tmux.wait_for(" s old ");
        assert!(!screen.contains("live"), "{screen}");
        let _second = monitor(sandbox);
        send(3, 7, 3);
        let screen = tmux.wait_for(">172.16.0.1 ↔ 172.16.0.3");
        assert!(
            !screen.contains("172.16.0.2 ") && !screen.contains(" ! "),
            "{screen}"
        );
        assert!(screen.contains(" live "), "{screen}");
        tmux.press(&["q"]);
        tmux.assert_ended(0);
    });
}

/// Stopped, the server keeps its connections: only silence says that it is gone.
#[test]
fn a_monitor_that_falls_silent_is_noticed() {
    let name = "a_monitor_that_falls_silent_is_noticed";
    run(name, |sandbox| {
        let monitor = monitor(sandbox);
        send(2, 7, 3);
        let tmux = Tmux::start(sandbox);
        tmux.top("", ">172.16.0.1 ↔ 172.16.0.2");
        monitor.signal(Signal::SIGSTOP);
        let screen = tmux.wait_for(" ! no");
        assert!(screen.contains(">172.16.0.1 ↔ 172.16.0.2"), "{screen}");
        monitor.signal(Signal::SIGCONT);
        let screen = tmux.wait_for(" live ");
        assert!(!screen.contains(" ! "), "{screen}");
        tmux.press(&["q"]);
        tmux.assert_ended(0);
    });
}

#[test]
fn the_terminal_is_given_back_at_every_end() {
    let name = "the_terminal_is_given_back_at_every_end";
    run(name, |sandbox| {
        let _monitor = monitor(sandbox);
        let tmux = Tmux::start(sandbox);
        let shown = "No tunnel packets yet on up0.";
        for key in ["q", "C-c"] {
            tmux.top("", shown);
            tmux.press(&[key]);
            tmux.assert_ended(0);
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            tmux.top("", shown);
            step("signal", kill(tmux.pid(), signal));
            tmux.assert_ended(0);
        }
        tmux.top("--duration 2s", shown);
        let screen = tmux.assert_ended(0);
        assert!(!screen.contains("tunnel packets yet"), "{screen}");
    });
}

#[test]
fn it_can_be_stopped_and_go_on_and_follows_the_size() {
    let name = "it_can_be_stopped_and_go_on_and_follows_the_size";
    run(name, |sandbox| {
        let _monitor = monitor(sandbox);
        send(2, 7, 3);
        let tmux = Tmux::start(sandbox);
        tmux.top("", ">172.16.0.1 ↔ 172.16.0.2");
        tmux.press(&["C-z"]);
        let screen = tmux.wait_for("Stopped");
        assert!(!screen.contains("172.16.0.2"), "{screen}");
        tmux.shell("stty -g | cksum; fg");
        tmux.wait_for(">172.16.0.1 ↔ 172.16.0.2");
        for (width, height) in [("40", "10"), ("120", "40"), ("10", "3"), ("80", "24")] {
            tmux.tell(&["resize-window", "-t", "it", "-x", width, "-y", height]);
            let last = if height == "3" { "…" } else { "172.16.0.2 " };
            tmux.wait_until("the new size", |screen| {
                let has_footer = screen.contains("3 of 6") || screen.contains("1 of 65536 flows");
                screen.contains(last) && (has_footer || height == "3")
            });
        }
        tmux.press(&["q"]);
        // The shell went on with its line when the view stopped.
        tmux.shell("echo back $?; stty -g | cksum");
        let screen = tmux.wait_until("the end", |screen| {
            screen.contains("back 0\n") && settings(screen).len() == 4
        });
        let settings = settings(&screen);
        assert!(settings.iter().all(|it| *it == settings[0]), "{screen}");
    });
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let name = "a_terminal_that_is_closed_ends_it";
    run(name, |sandbox| {
        let _monitor = monitor(sandbox);
        let tmux = Tmux::start(sandbox);
        tmux.top("", "No tunnel packets yet");
        let pid = tmux.pid();
        tmux.tell(&["kill-server"]);
        wait_until("the view has ended", || kill(pid, None).is_err());
    });
}

#[test]
fn it_has_no_capability_and_sleeps() {
    let name = "it_has_no_capability_and_sleeps";
    run(name, |sandbox| {
        let _monitor = monitor(sandbox);
        let tmux = Tmux::start(sandbox);
        tmux.top("", "No tunnel packets yet");
        let pid = tmux.pid();
        let tasks = step("threads", fs::read_dir(format!("/proc/{pid}/task")));
        let mut threads = 0;
        for task in tasks {
            let path = step("thread", task).path().join("status");
            let status = step("status", fs::read_to_string(path));
            assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
            assert!(status.contains("CapPrm:\t0000000000000000"), "{status}");
            threads += 1;
        }
        assert_eq!(threads, 2, "the main thread and that of events");
        // Once a second there is something to do, and nothing between.
        let before = cpu_time(pid);
        sleep(Duration::from_secs(3));
        let spent = cpu_time(pid) - before;
        assert!(spent < Duration::from_secs(1), "{spent:?} of 3 s");
        tmux.press(&["q"]);
        tmux.assert_ended(0);
    });
}

/// The time a process has run on a CPU.
fn cpu_time(pid: Pid) -> Duration {
    let stat = step("stat", fs::read_to_string(format!("/proc/{pid}/stat")));
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let fields = behind.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|it| step("ticks", it.parse::<u64>())).sum();
    // A tick is 10 ms (USER_HZ).
    Duration::from_millis(ticks * 10)
}

/// Answers each request with the next of these, and goes.
fn strange_server(answers: Vec<Vec<u8>>) -> thread::JoinHandle<()> {
    let listener = step("listen", TcpListener::bind("127.0.0.1:8080"));
    thread::spawn(move || {
        for answer in answers {
            let (stream, _) = step("accept", listener.accept());
            // A reader who has seen enough closes: no failure.
            let _ = answer_to(stream, &answer);
        }
    })
}

fn answer_to(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(WITHIN))?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.extend(byte);
    }
    assert!(request.starts_with(b"GET /events HTTP/1.1\r\n"));
    stream.write_all(answer)?;
    thread::sleep(Duration::from_millis(1500));
    Ok(())
}

#[test]
fn whoever_answers_instead_of_a_monitor_is_named_and_does_no_harm() {
    let name = "whoever_answers_instead_of_a_monitor_is_named_and_does_no_harm";
    run(name, |sandbox| {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let events = |body: &[u8]| [stream, body].concat();
        let answers = [
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "it answered 404",
            ),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
                "it answered 302",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
                    .to_vec(),
                "there are no events",
            ),
            (events(b"data: {}\n\n"), "an event is not as it should be"),
            (
                events(b"data: \x1b[2J\x1b]0;x\x07\n\n"),
                "an event is not as it should be",
            ),
            (events(&vec![b'x'; 2 << 20]), "too long"),
        ];
        let (answers, words): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let server = strange_server(answers);
        let tmux = Tmux::start(sandbox);
        tmux.top("", &format!("Waiting for {CONNECT}."));
        for word in words {
            tmux.wait_for(word);
        }
        step("server", server.join().map_err(|_| "it panicked"));
        let _monitor = monitor(sandbox);
        let screen = tmux.wait_for("No tunnel packets yet on up0.");
        assert!(!screen.contains(" ! "), "{screen}");
        tmux.press(&["q"]);
        tmux.assert_ended(0);
    });
}

#[test]
fn interfaces_can_be_watched_without_another_process() {
    let name = "interfaces_can_be_watched_without_another_process";
    run(name, |sandbox| {
        let before = sandbox.snapshot();
        let tmux = Tmux::start(sandbox);
        tmux.top("--iface up0 new*", "No tunnel packets yet on up0.");
        send(2, 7, 9);
        tmux.press(&["u", "u"]);
        let screen = tmux.wait_for(">172.16.0.1 ↔ 172.16.0.2");
        assert_eq!(row(&screen, "172.16.0.1 ↔ 172.16.0.2")[5], "9", "{screen}");
        // What is said meanwhile is not drawn into, and stands on the terminal afterwards.
        let here = Place::here();
        let new = Veth::new((&here, "new0"), (&here, "far"));
        let screen = tmux.wait_for(" +1 · 1 of ");
        assert!(!screen.contains("is monitored now"), "{screen}");
        tmux.press(&["q"]);
        let screen = tmux.assert_ended(0);
        assert!(screen.contains("new0 is monitored now"), "{screen}");
        drop(new);
        drop(tmux);
        before.assert_same(&sandbox.snapshot(), "after the view");
    });
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let name = "what_cannot_be_shown_is_refused";
    sandbox::run(name, |sandbox| {
        TOOL.assert_each_refused(
            sandbox,
            [
                ("top", 2, "needs a terminal"),
                ("top --connect https://127.0.0.1", 2, "plain http"),
                (
                    "top --connect 127.0.0.1:8080",
                    2,
                    "write it like http://127.0.0.1:8080",
                ),
                (
                    "top --connect http://127.0.0.1:8080 --iface up0",
                    2,
                    "cannot be used with",
                ),
                (
                    "top --iface up0 --port 1,2,3,4,5,6,7,8,9",
                    2,
                    "8 ports at most",
                ),
            ],
        );
    });
}
