//! What the real tunnel_monitor says about traffic whose size is known: in the simulation, against what
//! was sent, what a capture saw and what the interface counted; on interfaces, frame by frame.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::Process;
use testbed::reports::Reporting;
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::{Capture, inject};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
/// Samples are taken each second; a busy machine may be late.
const SOON: Duration = Duration::from_secs(10);

/// Outer Ethernet, IPv4, UDP and VXLAN headers.
const TUNNEL: u64 = 14 + 20 + 8 + 8;
/// Inner Ethernet and IPv4 headers, and that of ICMP or UDP.
const HEADERS: u64 = 14 + 20 + 8;

#[track_caller]
fn get(path: &str) -> Value {
    let url = format!("http://127.0.0.1:8080{path}");
    let mut response = step(&url, ureq::get(&url).call());
    let text = step(&url, response.body_mut().read_to_string());
    step(&text, serde_json::from_str(&text))
}

/// The packets and bytes of a row: sent, received.
type Figures = [u64; 4];

fn figures(row: &Value) -> Figures {
    ["tx_pkts", "tx_bytes", "rx_pkts", "rx_bytes"].map(|name| number(&row[name]))
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

fn minus(after: Figures, before: Figures) -> Figures {
    std::array::from_fn(|place| after[place] - before[place])
}

fn plus(one: Figures, other: Figures) -> Figures {
    std::array::from_fn(|place| one[place] + other[place])
}

/// Rows by network and inner addresses, as /data/tunnel.json has them.
fn rows() -> BTreeMap<String, Figures> {
    let rows = get("/data/tunnel.json");
    let rows = rows.as_array().into_iter().flatten();
    rows.map(|row| {
        let key = format!("{} {} {}", row["vni"], row["inner_sip"], row["inner_dip"]);
        (key.replace('"', ""), figures(row))
    })
    .collect()
}

fn simulation(sandbox: &Sandbox) -> Process<'_> {
    let ready = Ready::SaysAside("Press enter to quit:");
    Job::new(sandbox, TOOL, "--hosts 4 --vnis 2 --json", ready).at_work("")
}

/// Sends what the list says, to its end. What was sent of each entry.
#[track_caller]
fn send(sandbox: &Sandbox, list: &str) -> Vec<u64> {
    let path = "/run/traffic.list";
    step(path, fs::write(path, list));
    let command = TOOL.command(&format!("traffic --file {path} --json"));
    let ended = sandbox.start(command).finish(Duration::from_secs(60));
    ended.assert_code(0);
    step(path, fs::remove_file(path));
    let last = ended.stdout.lines().next_back().unwrap_or_default();
    let last: Value = step(last, serde_json::from_str(last));
    let entries = last["entries"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            assert_eq!(entry["failed"], 0, "{entry}");
            assert_eq!(
                entry["sent"]["packets"], entry["received"]["packets"],
                "{entry}"
            );
            number(&entry["sent"]["packets"])
        })
        .collect()
}

/// Presses Enter. The last report.
#[track_caller]
fn finish(mut process: Process<'_>) -> Value {
    process.write("\n");
    let ended = process.finish(ENDS_WITHIN);
    ended.assert_code(0);
    let schema = Schema::read("docs/tunnel_monitor.schema.json");
    let mut reports = schema.fitting(&ended.stdout);
    let last = reports.pop();
    last.unwrap_or_else(|| panic!("no report: {}", ended.stderr))
}

/// Every packet is in a flow, without room for one, or of a flow that was forgotten.
#[track_caller]
fn assert_adds_up(report: &Value) {
    let top = report["top"].as_array().into_iter().flatten();
    let parts = top
        .map(figures)
        .chain(["rest", "other", "forgotten"].map(|part| figures(&report[part])));
    let sum = parts.fold([0; 4], plus);
    assert_eq!(sum, figures(&report["totals"]), "{report}");
}

/// Both ways of the counters that the interface itself has.
fn counted_by_interface(at: &Place, interface: &str) -> u64 {
    let text = at.ip(&format!("-j -s link show dev {interface}"));
    let links: Value = step(&text, serde_json::from_str(&text));
    let of = |way: &str| number(&links[0]["stats64"][way]["packets"]);
    of("rx") + of("tx")
}

/// All packets that the monitor saw at its interface, none of which is more than one here.
fn counted_by_us() -> u64 {
    let mut response = step(
        "GET /events",
        ureq::get("http://127.0.0.1:8080/events").call(),
    );
    let mut reader = std::io::BufReader::new(response.body_mut().as_reader());
    let mut text = String::new();
    loop {
        let mut line = String::new();
        step(
            "read /events",
            std::io::BufRead::read_line(&mut reader, &mut line),
        );
        match line.strip_prefix("data: ") {
            Some(data) => text += data,
            None if line.trim().is_empty() && !text.is_empty() => break,
            None => {}
        }
    }
    let snapshot: Value = step(&text, serde_json::from_str(&text));
    let totals = figures(&snapshot["totals"]);
    let uncounted = snapshot["uncounted"].as_object().into_iter().flatten();
    totals[0] + totals[2] + uncounted.map(|(_, count)| number(count)).sum::<u64>()
}

/// What the interface counted and what we did, once nothing passes any more.
#[track_caller]
fn at_rest(at: &Place, interface: &str) -> (u64, u64) {
    let both = || (counted_by_interface(at, interface), counted_by_us());
    let deadline = Instant::now() + 3 * SOON;
    let mut before = both();
    loop {
        // A sample later.
        sleep(Duration::from_millis(1500));
        let now = both();
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "no rest: {before:?}, {now:?}");
        before = now;
    }
}

#[test]
fn known_traffic_of_the_simulation_is_counted_to_the_byte() {
    let name = "known_traffic_of_the_simulation_is_counted_to_the_byte";
    sandbox::run(name, |sandbox| {
        let process = simulation(sandbox);
        // The first packets ask for MAC addresses and teach the tunnels where they are.
        send(
            sandbox,
            "host0 192.168.0.2 ping count=2 rate=20/s\n\
             host0 192.168.1.3 ping count=2 rate=20/s\n\
             host2 192.168.0.1 ping count=2 rate=20/s\n\
             host3 192.168.1.1 ping count=2 rate=20/s\n",
        );
        let monitored = Place::named("host0");
        let rest = at_rest(&monitored, "eth0");
        let before = rows();
        let datagrams = |frame: &[u8]| {
            // A UDP datagram of IPv4 in VXLAN, inside what is UDP as well.
            frame.len() > 77 && frame[23] == 17 && frame[36..38] == [0x12, 0xb5] && frame[73] == 17
        };
        let capture = Capture::start(&monitored, "eth0", ENDS_WITHIN, datagrams);
        let sent = send(
            sandbox,
            "host0 192.168.0.2 ping size=512 count=20 rate=50/s\n\
             host0 192.168.1.3 ping size=128 count=30 rate=50/s\n\
             host2 192.168.0.1 udp size=1000 count=200 rate=300/s\n\
             host3 192.168.1.1 udp size=64 count=100 rate=300/s\n",
        );
        assert_eq!(sent, [20, 30, 200, 100]);
        let ping = |count: u64, size: u64| {
            let bytes = count * (TUNNEL + HEADERS + size);
            [count, bytes, count, bytes]
        };
        let received = |count: u64, size: u64| [0, 0, count, count * (TUNNEL + HEADERS + size)];
        let expected = [
            ("10000 192.168.0.1 192.168.0.2", ping(20, 512)),
            ("10001 192.168.1.1 192.168.1.3", ping(30, 128)),
            ("10000 192.168.0.1 192.168.0.3", received(200, 1000)),
            ("10001 192.168.1.1 192.168.1.4", received(100, 64)),
        ];
        let deadline = Instant::now() + SOON;
        let differences = || {
            let after = rows();
            expected.map(|(key, _)| minus(after[key], before[key]))
        };
        while differences() != expected.map(|(_, figures)| figures) && Instant::now() < deadline {
            sleep(Duration::from_millis(100));
        }
        assert_eq!(differences(), expected.map(|(_, figures)| figures));
        let seen = capture.finish().count;
        assert_eq!(seen.packets, 300);
        assert_eq!(
            seen.bytes,
            received(200, 1000)[3] + received(100, 64)[3],
            "what a capture saw"
        );
        // Nothing is cut into segments here, so the interface counts what we do.
        let now = at_rest(&monitored, "eth0");
        let (by_interface, by_us) = (now.0 - rest.0, now.1 - rest.1);
        assert!(by_interface >= 400, "{by_interface}");
        assert_eq!(by_interface, by_us);
        assert_adds_up(&finish(process));
    });
}

/// The exercise of the original's document.
#[test]
fn a_client_that_sends_much_is_on_top_within_ten_seconds() {
    let name = "a_client_that_sends_much_is_on_top_within_ten_seconds";
    sandbox::run(name, |sandbox| {
        let ready = Ready::Says("Press enter to quit:");
        let process = Job::new(sandbox, TOOL, "--hosts 5", ready).at_work("");
        let command = TOOL.command("traffic --heavy host3");
        let traffic = sandbox.start(command);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let rows = get("/data/tunnel-delta.json");
            let rows = rows.as_array().into_iter().flatten();
            let bytes = |row: &&Value| figures(row)[1] + figures(row)[3];
            let loudest = rows.max_by_key(bytes);
            if let Some(row) = loudest.filter(|row| bytes(row) > 100_000) {
                assert_eq!(row["outer_dip"], "172.16.1.103", "{row}");
                assert!(figures(row)[3] > 10 * figures(row)[1], "{row}");
                break;
            }
            assert!(Instant::now() < deadline, "nobody is loud");
            sleep(Duration::from_millis(200));
        }
        for process in [traffic, process] {
            process.signal(nix::sys::signal::Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

/// The original's lines, in its order.
#[test]
fn the_simulation_says_what_the_original_says() {
    sandbox::run("the_simulation_says_what_the_original_says", |sandbox| {
        let ready = Ready::Says("Press enter to quit:");
        let process = Job::new(sandbox, TOOL, "", ready).at_work("");
        let said = process.stdout();
        let mut expected = String::new();
        for (what, count) in [("Launching host", 9), ("Starting tunnel", 9)] {
            for number in 1..=count {
                expected += &format!("{what} {number} of {count}\n");
            }
        }
        assert!(said.starts_with(&expected), "{said}");
        assert!(
            said.ends_with("HTTPServer listening on 0.0.0.0:8080\nPress enter to quit: "),
            "{said}"
        );
        // From the first second on.
        assert!(get("/data/tunnel-delta.json").is_array());
        process.signal(nix::sys::signal::Signal::SIGINT);
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// A frame of VXLAN from 192.0.2.9 to 192.0.2.1, who is here: 148 bytes.
fn frame(vni: u32, from: Ipv4Addr) -> Vec<u8> {
    let inner = Packet::ethernet([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8])
        .ipv4(from, [10, 0, 0, 1])
        .udp(1, 2)
        .payload_of(56)
        .build();
    Packet::ethernet([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4([192, 0, 2, 9], [192, 0, 2, 1])
        .udp(50_000, 4789)
        .vxlan(vni, &inner)
        .build()
}

const FRAME: u64 = 148;

fn comes_in(frames: &[Vec<u8>]) {
    let frames = frames.iter().map(Vec::as_slice);
    inject(&Place::here(), "far0", frames, Duration::ZERO);
}

fn monitoring<'a>(sandbox: &'a Sandbox, arguments: &str) -> Reporting<'a, Value> {
    let arguments = format!("--iface up0 --interval 1s --json {arguments}");
    let process = sandbox.start(TOOL.command(&arguments));
    process.wait_for_error("HTTP on 127.0.0.1:8080", READY_WITHIN);
    Reporting::of(process)
}

#[test]
fn idle_flows_are_forgotten_and_nothing_is_lost() {
    sandbox::run("idle_flows_are_forgotten_and_nothing_is_lost", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let monitor = monitoring(sandbox, "--forget-after 2s");
        let from = Ipv4Addr::new(10, 0, 0, 2);
        comes_in(&vec![frame(7, from); 3]);
        let report = monitor.wait_until("a flow", SOON, |report| report["flows"] == 1);
        assert_eq!(figures(&report["top"][0]), [0, 0, 3, 3 * FRAME]);
        assert_eq!(report["top"][0]["vni"], 7);
        assert_eq!(report["top"][0]["local"], "192.0.2.1");
        let report = monitor.wait_until("it is forgotten", SOON, |report| report["flows"] == 0);
        assert_eq!(report["forgotten"]["flows"], 1);
        assert_eq!(figures(&report["forgotten"]), [0, 0, 3, 3 * FRAME]);
        // It comes back as a new one.
        comes_in(&[frame(7, from)]);
        let report = monitor.wait_until("it is back", SOON, |report| report["flows"] == 1);
        assert_eq!(figures(&report["top"][0]), [0, 0, 1, FRAME]);
        let last = monitor.finish();
        assert_eq!(figures(&last["totals"]), [0, 0, 4, 4 * FRAME]);
        assert_adds_up(&last);
    });
}

#[test]
fn what_has_no_room_is_counted_apart_and_said() {
    sandbox::run("what_has_no_room_is_counted_apart_and_said", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let monitor = monitoring(sandbox, "--max-entries 2");
        let frames: Vec<_> = (1..=5)
            .map(|last| frame(9, Ipv4Addr::new(10, 0, 1, last)))
            .collect();
        comes_in(&frames);
        let all = [0, 0, 5, 5 * FRAME];
        let came = |report: &Value| figures(&report["totals"]) == all;
        let report = monitor.wait_until("all of them", SOON, came);
        assert_eq!((&report["flows"], &report["room"]), (&2.into(), &2.into()));
        assert_eq!(figures(&report["other"]), [0, 0, 3, 3 * FRAME]);
        assert_adds_up(&monitor.finish());

        // The same for readers.
        let command = TOOL.command("--iface up0 --max-entries 2 --interval 1s");
        let mut process = sandbox.start(command);
        process.wait_for_error("HTTP on 127.0.0.1:8080", READY_WITHIN);
        comes_in(&frames);
        process.wait_for("the table is full: 3 packets of new flows", SOON);
        process.write("\n");
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let words = "vxlan 9         10.0.0.1 10.0.1.";
        assert!(ended.stdout.contains(words), "{}", ended.stdout);
    });
}

#[test]
fn files_say_what_http_says() {
    sandbox::run("files_say_what_http_says", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let monitor = monitoring(sandbox, "--data-dir /run/data");
        let read = |file: &str| -> Value {
            let text = step(file, fs::read_to_string(format!("/run/data/{file}")));
            step(&text, serde_json::from_str(&text))
        };
        assert_eq!(read("tunnel.json"), Value::Array(Vec::new()));
        comes_in(&[frame(1, Ipv4Addr::new(10, 0, 0, 3))]);
        monitor.wait_until("a flow", SOON, |report| report["flows"] == 1);
        assert_eq!(read("tunnel.json"), get("/data/tunnel.json"));
        assert_eq!(figures(&read("tunnel.json")[0]), [0, 0, 1, FRAME]);
        // It is in the deltas of one interval, and in no other.
        monitor.wait_until("a quiet interval", SOON, |report| {
            report["top"][0]["last"]["rx_pkts"] == 0
        });
        assert_eq!(read("tunnel-delta.json"), Value::Array(Vec::new()));
        monitor.finish();
        assert_eq!(figures(&read("tunnel.json")[0]), [0, 0, 1, FRAME]);
        let left: Vec<_> = step("list /run/data", fs::read_dir("/run/data")).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        step("remove /run/data", fs::remove_dir_all("/run/data"));
    });
}

/// Where files cannot be written any more it says so, once, and goes on.
#[test]
fn a_folder_that_is_gone_is_said_and_survived() {
    sandbox::run("a_folder_that_is_gone_is_said_and_survived", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let monitor = monitoring(sandbox, "--data-dir /run/data");
        step("remove /run/data", fs::remove_dir_all("/run/data"));
        monitor
            .process
            .wait_for_error("/run/data/.tunnel.json.new", SOON);
        monitor.report();
        monitor.report();
        let said = monitor.process.stderr();
        assert_eq!(said.matches("/run/data").count(), 1, "{said}");
        monitor.finish();
    });
}

/// As on a disk with room for the smaller one only.
#[test]
fn one_file_of_two_that_cannot_be_written_is_said_once() {
    sandbox::run(
        "one_file_of_two_that_cannot_be_written_is_said_once",
        |sandbox| {
            let here = Place::here();
            let _cable = Veth::new((&here, "up0"), (&here, "far0"));
            let monitor = monitoring(sandbox, "--data-dir /run/data");
            let in_the_way = "/run/data/.tunnel.json.new";
            step(in_the_way, fs::create_dir(in_the_way));
            monitor.process.wait_for_error(in_the_way, SOON);
            for _ in 0..3 {
                monitor.report();
            }
            let said = monitor.process.stderr();
            assert_eq!(said.matches("/run/data").count(), 1, "{said}");
            monitor.finish();
            step("remove /run/data", fs::remove_dir_all("/run/data"));
        },
    );
}

/// Readers who stop, connections without end, what is no question: every packet is counted meanwhile.
#[test]
fn clients_that_misbehave_change_no_figure() {
    const FLOWS: u16 = 2000;
    const ROUNDS: u64 = 5;
    sandbox::run("clients_that_misbehave_change_no_figure", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let monitor = monitoring(sandbox, "");
        let frames: Vec<_> = (0..FLOWS)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                frame(9, Ipv4Addr::new(10, 1, high, low))
            })
            .collect();
        comes_in(&frames);
        let known = |report: &Value| report["flows"] == FLOWS;
        monitor.wait_until("all flows", SOON, known);
        let connect = || step("connect", TcpStream::connect("127.0.0.1:8080"));
        let ask = |mut stream: &TcpStream, text: &str| {
            // Those who are refused while they speak cannot end.
            let _ = stream.write_all(text.as_bytes());
        };
        let stalled: Vec<TcpStream> = (0..200)
            .map(|number| {
                let path = ["/data/tunnel.json", "/events", "/metrics", "/plain"][number % 4];
                let stream = connect();
                let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                ask(&stream, &asked);
                stream
            })
            .collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let huge = format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(1 << 18));
                for number in 0..1500 {
                    let stream = connect();
                    match number % 3 {
                        0 => ask(&stream, "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
                        1 if number % 50 == 1 => ask(&stream, &huge),
                        1 => ask(&stream, "\0\u{7f}\r\n\r\n"),
                        _ => {}
                    }
                }
            });
            (0..ROUNDS).for_each(|_| comes_in(&frames));
        });
        let packets = u64::from(FLOWS) * (1 + ROUNDS);
        let all = [0, 0, packets, packets * FRAME];
        let came = |report: &Value| figures(&report["totals"]) == all;
        monitor.wait_until("all packets", SOON, came);
        let rows = rows();
        assert_eq!(rows.len(), usize::from(FLOWS));
        let of_each = [0, 0, 1 + ROUNDS, (1 + ROUNDS) * FRAME];
        for (flow, figures) in rows {
            assert_eq!(figures, of_each, "{flow}");
        }
        drop(stalled);
        assert_adds_up(&monitor.finish());
    });
}
