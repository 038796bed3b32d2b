//! `tcp_hold client` and `server`: the original's lines, what the figures are of, and that whoever holds gets
//! along with whoever does not.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::sys::signal::Signal;
use serde::Deserialize;
use testbed::attaching;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Ended, Input, Output, Process};
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));
const SERVER: [&str; 2] = ["192.0.2.1:23324", "[2001:db8::1]:23324"];
const NOBODY: u32 = 65534;

#[derive(Clone, Debug, Deserialize)]
struct Figures {
    r#final: bool,
    hold: Option<Hold>,
    seconds: f64,
    left_out: f64,
    messages: u64,
    messages_per_second: f64,
    latency: Option<Latency>,
    uncorrected: Option<Latency>,
    received: Flow,
    sent: Flow,
    calls: Calls,
    tcp: Option<Tcp>,
    cpu: Option<Cpu>,
}

#[derive(Clone, Debug, Deserialize)]
struct Hold {
    interfaces: Vec<String>,
    exposed: u64,
    lowered: Option<u64>,
    announced: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Latency {
    p50: f64,
    max: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Flow {
    bytes: u64,
    per_second: f64,
    deviation: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Calls {
    send: Count,
    receive: Count,
    announce: Count,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Count {
    calls: u64,
    seconds: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Tcp {
    timeouts: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Cpu {
    user: f64,
    system: f64,
}

/// All lines, which fit the schema.
#[track_caller]
fn reports(stdout: &str) -> Vec<Figures> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let schema = Schema::read(format!("{folder}/docs/tcp_hold.schema.json"));
    let lines = schema.fitting(stdout).into_iter();
    lines
        .map(|line| step("read a report", serde_json::from_value(line)))
        .collect()
}

#[track_caller]
fn last(ended: &Ended) -> Figures {
    let reports = reports(&ended.stdout);
    let (last, earlier) = reports.split_last().unwrap_or_else(|| panic!("no report"));
    assert!(last.r#final && earlier.iter().all(|report| !report.r#final));
    last.clone()
}

/// The server's end is here, at up0; the client's is eth0 of a namespace.
struct Network {
    // Before the namespace.
    _cable: Veth,
    client: Namespace,
}

impl Network {
    fn new() -> Network {
        let client = Namespace::new("client");
        let here = Place::here();
        let cable = Veth::new((&here, "up0"), (&client, "eth0"));
        for (place, interface, end) in [(&here, "up0", 1), (&client, "eth0", 2)] {
            place.ip(&format!("address add 192.0.2.{end}/24 dev {interface}"));
            place.ip(&format!(
                "address add 2001:db8::{end}/64 dev {interface} nodad"
            ));
        }
        Network {
            _cable: cable,
            client,
        }
    }

    /// What arrives at either end is limited as the reference's line was.
    fn limit(&self) {
        for (place, interface) in [(&Place::here(), "up0"), (&*self.client, "eth0")] {
            let limit = "root tbf rate 5500kbit burst 40kb latency 300ms";
            place.tc(&format!("qdisc add dev {interface} {limit}"));
        }
    }

    fn client_command(&self, arguments: &str) -> Command {
        let mut command = self.client.command(env!("CARGO_BIN_EXE_tcp_hold"));
        command.arg("client").args(arguments.split_whitespace());
        command
    }
}

fn serve<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let command = TOOL.command(&format!("server {arguments}"));
    listening(sandbox.start_with(command, Input::AtEnd, Output::Read))
}

fn listening(server: Process<'_>) -> Process<'_> {
    // On stdout, or with --json on stderr.
    let ready = "Ready to accept connections";
    let start = std::time::Instant::now();
    while !(server.stdout() + &server.stderr()).contains(ready) {
        assert!(start.elapsed() < READY_WITHIN, "{}", server.stderr());
        std::thread::sleep(Duration::from_millis(2));
    }
    server
}

/// Both ends, with JSON: server and client.
#[track_caller]
fn measure(
    sandbox: &Sandbox,
    network: &Network,
    address: &str,
    [server, client]: [&str; 2],
) -> [Figures; 2] {
    let with_address = |words: &str| words.replace("AT", address);
    let server = serve(sandbox, &format!("{} --json", with_address(server)));
    let client = network.client_command(&format!("{} --json", with_address(client)));
    let client = sandbox.start_with(client, Input::AtEnd, Output::Read);
    [server, client].map(|end| last(end.finish(ENDS_WITHIN).assert_code(0)))
}

/// A line of a second, without its figures.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            c => shape.push(c),
        }
    }
    shape
}

const INTERVAL: &str = "[0.0s]\t0.0 pkts/s\tavg 0.0 ms\tin 0.0 KiB/s\tout 0.0 KiB/s";

#[track_caller]
fn assert_lines(ended: &Ended, connections: &[&str], name: &str) {
    ended.assert_code(0);
    let mut lines = ended.stdout.lines();
    for expected in connections {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(expected), "{line}, not {expected}");
    }
    assert_eq!(lines.next(), Some("Benchmark started"));
    let lines: Vec<&str> = lines.collect();
    for line in &lines[..4] {
        assert_eq!(shape(line), INTERVAL, "{line}");
    }
    let [.., result, stopped] = lines[4..] else {
        panic!("no result: {}", ended.stdout);
    };
    assert_eq!(stopped, "Benchmark stopped");
    let path = env!("CARGO_BIN_EXE_tcp_hold");
    let figures = result.strip_prefix(&format!("{path}\t{name} "));
    let figures = figures.unwrap_or_else(|| panic!("{result}"));
    assert_eq!(shape(figures), "0.0 0.0 0.0 0.0 0.0");
}

#[test]
fn the_lines_of_the_seed_give_the_lines_of_the_original() {
    let name = "the_lines_of_the_seed_give_the_lines_of_the_original";
    attaching::by_each_way(|way| {
        sandbox::run(name, |sandbox| {
            let network = Network::new();
            let mut server = TOOL.command("server 3 ping 16 0.0.0.0:23324");
            server.env("COUNT", "1");
            let server = listening(sandbox.start_with(server, Input::AtEnd, Output::Read));
            let client = format!("3 echo 16 192.0.2.1:23324 --attach {way}");
            let mut client = network.client_command(&client);
            client.env("COUNT", "1").env("HOOK", "1");
            let client = sandbox.start_with(client, Input::AtEnd, Output::Read);
            let connected = ["Connected #1", "Connected #2", "Connected #3"];
            let client = client.finish(ENDS_WITHIN);
            assert_lines(&client, &connected, "client-echo-t3-sz16");
            let held = "held at eth0: ";
            assert!(client.stdout.contains(held), "{}", client.stdout);
            let accepted = [
                "Ready to accept connections",
                "Connection #1 from 192.0.2.2:",
                "Connection #2 from 192.0.2.2:",
                "Connection #3 from 192.0.2.2:",
            ];
            let server = server.finish(ENDS_WITHIN);
            assert_lines(&server, &accepted, "server-ping-t3-sz16");
            assert!(!server.stdout.contains("held at"), "{}", server.stdout);
        });
    });
}

#[test]
fn the_port_of_a_connection_is_the_clients() {
    sandbox::run("the_port_of_a_connection_is_the_clients", |sandbox| {
        let server = serve(sandbox, "1 echo 16 127.0.0.1:23324 --duration 30");
        let client = step("connect", std::net::TcpStream::connect("127.0.0.1:23324"));
        let address = step("own address", client.local_addr());
        server.wait_for(&format!("Connection #1 from {address}\n"), READY_WITHIN);
        drop(client);
        server.finish(ENDS_WITHIN).assert_code(1);
    });
}

/// Whatever is held, what one end has sent the other one has received, and the answers are as many as the
/// questions.
#[test]
fn all_handlers_agree_with_each_other_over_both_versions_of_ip() {
    let name = "all_handlers_agree_with_each_other_over_both_versions_of_ip";
    for address in SERVER {
        sandbox::run(name, |sandbox| {
            let network = Network::new();
            for hold in [
                ["", "--hold"],
                ["--hold", ""],
                ["--hold --iface up0", "--hold"],
            ] {
                for (here, there) in [("ping", "echo"), ("push", "echo"), ("pull", "push")] {
                    // Ends that begin at times which are half of it apart complain, rightly.
                    let end = |handler, hold| {
                        format!("4 {handler} 1000 AT {hold} --duration 1s --interval 100ms")
                    };
                    let ends = [end(here, hold[0]), end(there, hold[1])];
                    let ends = ends.each_ref().map(String::as_str);
                    let [server, client] = measure(sandbox, &network, address, ends);
                    let what = format!("{here} {there} {hold:?} {server:?} {client:?}");
                    let answers = server.received.bytes / 1000;
                    assert!(server.messages > 0 && answers > 0, "{what}");
                    assert!(answers.abs_diff(server.messages) <= 4, "{what}");
                    for (figures, hold, interface) in
                        [(&server, hold[0], "up0"), (&client, hold[1], "eth0")]
                    {
                        let at = figures.hold.as_ref().map(|hold| hold.interfaces.clone());
                        let expected = (!hold.is_empty()).then(|| vec![interface.to_owned()]);
                        assert_eq!(at, expected, "{what}");
                        let exposed = figures.hold.as_ref().map_or(0, |hold| hold.exposed);
                        assert!(
                            hold.is_empty() || exposed == 0 || interface == "up0",
                            "{what}"
                        );
                    }
                    if here == "pull" {
                        assert_eq!(server.latency.map(|it| it.max), Some(0.0), "{what}");
                        assert!(client.latency.is_none() && client.messages == 0, "{what}");
                    } else {
                        assert!(server.latency.is_some_and(|it| it.p50 > 0.0), "{what}");
                    }
                }
            }
        });
    }
}

/// What hung the original: messages of more than a few segments on a line that is the bottleneck.
#[test]
fn no_size_hangs_on_a_limited_line() {
    sandbox::run("no_size_hangs_on_a_limited_line", |sandbox| {
        let network = Network::new();
        network.limit();
        for (size, connections) in [(16, 1), (4096, 8), (65_536, 1), (65_536, 4)] {
            let end = |handler, hold| {
                let time = "--duration 3s --interval 750ms";
                format!("{connections} {handler} {size} AT {hold} {time}")
            };
            for (here, there) in [("ping", "echo"), ("push", "pull")] {
                let ends = [end(here, ""), end(there, "--hold")];
                let ends = ends.each_ref().map(String::as_str);
                let [server, client] = measure(sandbox, &network, SERVER[0], ends);
                let what = format!("{here} {there} {size} x {connections}: {server:?} {client:?}");
                // The line carries 680 KB a second; a hang would leave the first ten segments.
                assert!(client.messages >= 2, "{what}");
                if size > 4096 && there == "pull" {
                    assert!(client.received.bytes > 300_000, "{what}");
                }
            }
        }
    });
}

/// While an echo sleeps it is not done with the message, and the peer is told nothing.
#[test]
fn what_is_dealt_with_late_is_acknowledged_late() {
    sandbox::run("what_is_dealt_with_late_is_acknowledged_late", |sandbox| {
        let network = Network::new();
        let run = |hold: &str| {
            let client = format!("2 echo 16 AT 100 {hold} --duration 2s");
            let ends = ["2 ping 16 AT --duration 2s", &client];
            measure(sandbox, &network, SERVER[0], ends)
        };
        let [_, client] = run("--hold");
        let hold = client.hold.unwrap_or_else(|| panic!("not held"));
        // The kernel would have acknowledged each within 40 ms.
        let lowered = hold.lowered.unwrap_or_default();
        assert!(lowered > 10, "{lowered} of {} messages", client.messages);
        // The answer carries it.
        assert_eq!(hold.announced, Some(0));
        let [server, client] = run("");
        assert!(client.hold.is_none());
        assert_eq!(server.tcp.map(|tcp| tcp.timeouts), Some(0));
    });
}

/// Where nothing goes the other way, acknowledgements are sent for nothing else.
#[test]
fn who_only_reads_announces_what_he_has_read() {
    sandbox::run("who_only_reads_announces_what_he_has_read", |sandbox| {
        let network = Network::new();
        let ends = [
            "1 push 1000 AT 20 --duration 1s",
            "1 pull 1000 AT --hold --duration 1s",
        ];
        let [_, client] = measure(sandbox, &network, SERVER[0], ends);
        let announced = client.hold.and_then(|hold| hold.announced);
        assert!(announced >= Some(20), "{announced:?}");
        let calls = client.calls;
        assert!(
            calls.announce.calls > 0 && calls.receive.calls > 0,
            "{calls:?}"
        );
        assert!(calls.receive.seconds > calls.announce.seconds, "{calls:?}");
        assert_eq!(calls.send.calls, 0);
    });
}

/// An answer takes 40 ms and a question is due each 20: what waits for its turn has waited, too.
#[test]
fn latencies_by_the_clock_count_from_when_a_message_was_due() {
    let name = "latencies_by_the_clock_count_from_when_a_message_was_due";
    sandbox::run(name, |sandbox| {
        let network = Network::new();
        let ends = [
            "1 ping 16 AT --rate 50/s --duration 2s",
            "1 echo 16 AT 40 --duration 2s",
        ];
        let [server, _] = measure(sandbox, &network, SERVER[0], ends);
        let (Some(latency), Some(uncorrected)) = (server.latency, server.uncorrected) else {
            panic!("{server:?}");
        };
        assert!(uncorrected.p50 >= 40.0, "{server:?}");
        // A second and a half before the end of the window, each of 37 answers at most has added 20 ms.
        assert!(latency.max > uncorrected.p50 * 4.0, "{server:?}");
        assert!(latency.p50 > uncorrected.p50 * 2.0, "{server:?}");
    });
}

#[test]
fn a_rate_is_kept_where_answers_come_in_time() {
    sandbox::run("a_rate_is_kept_where_answers_come_in_time", |sandbox| {
        let network = Network::new();
        let ends = [
            "5 ping 16 AT --rate 100 --duration 2s",
            "5 echo 16 AT --duration 2s",
        ];
        let [server, _] = measure(sandbox, &network, SERVER[0], ends);
        // A busy machine makes it late, never early.
        let most = 100.0 * server.seconds + 10.0;
        assert!(
            (1.0..=most).contains(&(server.messages as f64)),
            "{server:?}"
        );
    });
}

#[test]
fn the_sum_is_that_of_the_intervals_in_the_middle() {
    let name = "the_sum_is_that_of_the_intervals_in_the_middle";
    sandbox::run(name, |sandbox| {
        let network = Network::new();
        let server = "2 ping 100 192.0.2.1:23324 --duration 1s --interval 100ms --json \
                      --hdr-log /run/log";
        let server = serve(sandbox, server);
        let client = network.client_command("2 echo 100 192.0.2.1:23324 --duration 1s --json");
        let client = sandbox.start_with(client, Input::AtEnd, Output::Read);
        client.finish(ENDS_WITHIN).assert_code(0);
        let cpu_time = server.cpu_time();
        let server = server.finish(ENDS_WITHIN);
        server.assert_code(0);
        let reports = reports(&server.stdout);
        let (last, intervals) = reports.split_last().unwrap_or_else(|| panic!("no report"));
        // Of ten intervals, two at either end. One that a busy machine has missed is in the next one.
        assert!((0.19..=0.21).contains(&last.left_out), "{last:?}");
        let of_all: u64 = intervals.iter().map(|it| it.messages).sum();
        assert!(last.messages > 0 && last.messages < of_all, "{last:?}");
        let sums = (1..intervals.len())
            .flat_map(|from| (from..=intervals.len()).map(move |until| from..until));
        let is_sum = |range: std::ops::Range<usize>| {
            let some = &intervals[range];
            let messages: u64 = some.iter().map(|it| it.messages).sum();
            let received: u64 = some.iter().map(|it| it.received.bytes).sum();
            (messages, received) == (last.messages, last.received.bytes)
        };
        assert!(sums.into_iter().any(is_sum), "{reports:?}");
        let rate = last.messages as f64 / last.seconds;
        assert!(
            (rate - last.messages_per_second).abs() < 0.01 * rate,
            "{last:?}"
        );
        let bytes = last.sent.bytes as f64 / last.seconds;
        assert!(
            (bytes - last.sent.per_second).abs() < 0.01 * bytes,
            "{last:?}"
        );
        assert!(last.received.deviation.is_some(), "{last:?}");

        // Threads have used no more than the process.
        let cpu = last.cpu.unwrap_or_else(|| panic!("no CPU time"));
        let used = Duration::from_secs_f64(cpu.user + cpu.system);
        assert!(used > Duration::ZERO, "{cpu:?}");
        let slack = Duration::from_millis(50);
        assert!(
            cpu_time.is_zero() || used <= cpu_time + slack,
            "{used:?} of {cpu_time:?}"
        );

        let log = step("read the log", fs::read("/run/log"));
        assert_eq!(messages_of_log(&log), of_all);
        step("remove the log", fs::remove_file("/run/log"));
    });
}

/// As its own tools would read it.
fn messages_of_log(log: &[u8]) -> u64 {
    let mut messages = 0;
    for entry in IntervalLogIterator::new(log) {
        match entry {
            Ok(LogEntry::Interval(interval)) => {
                let bytes = decode_base64(interval.encoded_histogram());
                let histogram = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice());
                match histogram {
                    Ok(histogram) => messages += histogram.len(),
                    Err(error) => panic!("a histogram: {error:?}"),
                }
            }
            Ok(_) => {}
            Err(error) => panic!("a line of the log: {error:?}"),
        }
    }
    messages
}

fn decode_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text
        .bytes()
        .filter_map(|byte| alphabet.iter().position(|it| *it == byte));
    let digits: Vec<u32> = digits.map(|digit| digit as u32).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn without_the_hook_it_needs_no_privilege() {
    sandbox::run("without_the_hook_it_needs_no_privilege", |sandbox| {
        let copy = "/run/tcp_hold";
        step(
            "copy the tool",
            fs::copy(env!("CARGO_BIN_EXE_tcp_hold"), copy),
        );
        let as_nobody = |arguments: &str| {
            let mut command = Command::new(copy);
            command.args(arguments.split_whitespace());
            command.uid(NOBODY).gid(NOBODY);
            sandbox.start_with(command, Input::AtEnd, Output::Read)
        };
        let server = listening(as_nobody(
            "server 1 ping 16 127.0.0.1:23324 --duration 500ms",
        ));
        let client = as_nobody("client 1 echo 16 127.0.0.1:23324 --duration 500ms");
        for end in [client, server] {
            end.finish(ENDS_WITHIN).assert_code(0);
        }
        step("remove the copy", fs::remove_file(copy));
        let held = [
            "client 1 echo 16 127.0.0.1:23324 --hold",
            "server 1 echo 16 127.0.0.1:1 --hold",
        ];
        TOOL.assert_needs_root(sandbox, held);
    });
}

/// A connection's thread forces acknowledgements; without holds nothing is left to anybody.
#[test]
fn only_what_is_needed_is_kept() {
    sandbox::run("only_what_is_needed_is_kept", |sandbox| {
        let server = serve(sandbox, "1 ping 16 127.0.0.1:23324");
        server.assert_powerless();
        let held = serve(sandbox, "1 ping 16 127.0.0.1:23325 --hold");
        // CAP_NET_ADMIN, and CAP_BPF for the guard.
        let threads = held.capabilities();
        assert_eq!(threads, [("tcp_hold".to_owned(), 0x80_0000_1000)]);
        for process in [server, held] {
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn a_signal_ends_it_anywhere() {
    sandbox::run("a_signal_ends_it_anywhere", |sandbox| {
        let network = Network::new();
        let waiting = serve(sandbox, "2 ping 16 192.0.2.1:23324 --hold");
        waiting.signal(Signal::SIGINT);
        let ended = waiting.ends_at_once("SIGINT while it waits");
        ended.assert_code(0);
        assert!(
            ended.stdout.ends_with("Received signal=2\n"),
            "{}",
            ended.stdout
        );

        let server = serve(sandbox, "2 ping 16 192.0.2.1:23324");
        let client = network.client_command("2 echo 16 192.0.2.1:23324 --hold");
        let client = sandbox.start_with(client, Input::AtEnd, Output::Read);
        client.wait_for("pkts/s", READY_WITHIN);
        client.signal(Signal::SIGTERM);
        let ended = client.ends_at_once("SIGTERM at work");
        ended.assert_code(0);
        assert!(
            ended.stdout.ends_with("Received signal=15\n"),
            "{}",
            ended.stdout
        );
        // The other end is left alone, and says so.
        let ended = server.finish(ENDS_WITHIN);
        ended.assert_code(1);
        let words = "the peer closed all connections before the time was over";
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(
            ended.stdout.ends_with("Benchmark stopped\n"),
            "{}",
            ended.stdout
        );
    });
}

#[test]
fn who_speaks_something_else_is_named() {
    sandbox::run("who_speaks_something_else_is_named", |sandbox| {
        let listener = step("listen", TcpListener::bind("127.0.0.1:0"));
        let address = step("own address", listener.local_addr());
        let client = TOOL.command(&format!("client 1 ping 16 {address} --duration 30"));
        let client = sandbox.start(client);
        let (mut peer, _) = step("accept", listener.accept());
        let mut question = [0; 16];
        step("read a message", peer.read_exact(&mut question));
        assert_eq!(question[..8], 16_u64.to_ne_bytes());
        step("answer", peer.write_all(b"HTTP/1.1 400 Bad Request\r\n"));
        let ended = client.finish(ENDS_WITHIN);
        ended.assert_code(1);
        let words = "the peer sends something else than messages";
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    });
}

#[test]
fn what_cannot_be_is_refused() {
    sandbox::run("what_cannot_be_is_refused", |sandbox| {
        let _taken = step("listen", TcpListener::bind("127.0.0.1:23324"));
        TOOL.assert_each_refused(
            sandbox,
            [
                ("client 1 ping 15 127.0.0.1:1", 2, "16"),
                ("client 0 ping 16 127.0.0.1:1", 2, "0"),
                ("client 1 pong 16 127.0.0.1:1", 2, "pong"),
                ("client 1 ping 16 localhost:1", 2, "localhost"),
                ("client 1 ping 16 127.0.0.1:0", 2, "port"),
                ("client 1 echo 16 127.0.0.1:1 --rate 5", 2, "--rate"),
                ("client 1 echo 16 127.0.0.1:1 --iface lo", 2, "--iface"),
                (
                    "client 1 ping 16 127.0.0.1:1 --hold --iface nix0",
                    2,
                    "nix0",
                ),
                ("client 1 ping 16 198.51.100.1:1 --hold", 2, "no route"),
                ("server 1 ping 16 198.51.100.1:1", 2, "198.51.100.1"),
                ("server 1 ping 16 127.0.0.1:23324", 5, "in use"),
                ("client 1 ping 16 127.0.0.1:1", 1, "127.0.0.1:1"),
                (
                    "client 1 ping 16 127.0.0.1:1 --hdr-log /nowhere/x",
                    1,
                    "/nowhere/x",
                ),
            ],
        );
        TOOL.assert_help_fits(sandbox, &["client", "server"]);
    });
}
