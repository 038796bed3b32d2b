//! `tunnel_monitor traffic`: what it says that it sent is what arrives, by number and by size.

use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsetup::topology::tunnel_monitor::{Network, Plan, build};
use nix::sys::signal::Signal;
use serde::Deserialize;
use testbed::namespace::Place;
use testbed::process::{Input, Output, Process};
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::Capture;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const SOON: Duration = Duration::from_secs(10);
const LIST: &str = "/run/my.list";
/// What a tunnel adds to a frame: outer Ethernet, IPv4, UDP, VXLAN.
const TUNNEL: usize = 14 + 20 + 8 + 8;

fn network(hosts: u16, vnis: u16) -> Network {
    let built = build(&Plan { hosts, vnis }, &mut |_| Ok(()));
    step("build the network", built)
}

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    from: String,
    to: IpAddr,
    size: Option<u64>,
    frame: Option<u64>,
    local: bool,
    sent: Sum,
    received: Sum,
    failed: u64,
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Sum {
    packets: Option<u64>,
    bytes: u64,
}

fn packets(packets: u64, size: u64) -> Sum {
    Sum {
        packets: Some(packets),
        bytes: packets * size,
    }
}

fn stream(bytes: u64) -> Sum {
    Sum {
        packets: None,
        bytes,
    }
}

fn start<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let command = TOOL.command(&format!("traffic --json {arguments}"));
    sandbox.start_with(command, Input::Open, Output::Read)
}

/// The entries of the last report; every line fits the schema.
#[track_caller]
fn entries(stdout: &str) -> Vec<Entry> {
    #[derive(Deserialize)]
    struct Report {
        entries: Vec<Entry>,
        r#final: bool,
    }
    let folder = env!("CARGO_MANIFEST_DIR");
    let schema = Schema::read(format!("{folder}/docs/tunnel_monitor.traffic.schema.json"));
    let mut lines = schema.fitting(stdout);
    let Some(last) = lines.pop() else {
        panic!("no report: {stdout}");
    };
    let last: Report = step("read the report", serde_json::from_value(last));
    assert!(last.r#final);
    let earlier = lines.iter().all(|line| line["final"] == false);
    assert!(earlier, "more than one last line: {stdout}");
    last.entries
}

/// A list in a file, while this lives.
struct List;

impl List {
    fn new(text: &str) -> List {
        step("write a list", fs::write(LIST, text));
        List
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // A test that failed may have taken it away.
        let _ = fs::remove_file(LIST);
    }
}

/// Sends that list to its end.
#[track_caller]
fn send(sandbox: &Sandbox, list: &str) -> Vec<Entry> {
    let _list = List::new(list);
    let ended = start(sandbox, &format!("--file {LIST}")).finish(ENDS_WITHIN);
    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    entries(&ended.stdout)
}

/// A function of a frame: that IPv4 or IPv6 protocol, to that address, and of that type where it is ICMP.
fn to(address: &str, protocol: u8, kind: Option<u8>) -> impl Fn(&[u8]) -> bool + Send + 'static {
    let address: IpAddr = step("an address", address.parse());
    move |frame| {
        let (ether_type, next, destination, header) = match address {
            IpAddr::V4(_) => ([8, 0], 23, 30..34, 20),
            IpAddr::V6(_) => ([0x86, 0xdd], 20, 38..54, 40),
        };
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        frame.get(12..14) == Some(&ether_type)
            && frame.get(next) == Some(&protocol)
            && frame.get(destination) == Some(&octets)
            && kind.is_none_or(|kind| frame.get(14 + header) == Some(&kind))
    }
}

/// The same of the frame in a tunnel.
fn inside(
    wanted: impl Fn(&[u8]) -> bool + Send + 'static,
) -> impl Fn(&[u8]) -> bool + Send + 'static {
    move |frame| {
        let to_port = frame.get(36..38) == Some(&4789_u16.to_be_bytes());
        to_port && frame.get(23) == Some(&17) && frame.get(TUNNEL..).is_some_and(&wanted)
    }
}

fn capture(host: &str, device: &str, wanted: impl Fn(&[u8]) -> bool + Send + 'static) -> Capture {
    Capture::start(&Place::named(host), device, 3 * SOON, wanted)
}

/// So many frames of that size, each.
#[track_caller]
fn assert_seen(capture: Capture, what: &str, count: u64, size: usize) {
    let seen = capture.finish();
    assert_eq!(seen.count.packets, count, "{what}");
    assert_eq!(seen.count.bytes, count * size as u64, "{what}");
}

#[test]
fn what_was_sent_is_what_a_capture_at_the_far_end_sees() {
    let name = "what_was_sent_is_what_a_capture_at_the_far_end_sees";
    sandbox::run(name, |sandbox| {
        let network = network(3, 2);
        let echo = || to("192.168.0.2", 1, Some(8));
        let echo_v6 = || to("fd00:c0a8:1::3", 58, Some(128));
        let datagrams = || to("192.168.1.1", 17, None);
        let captures = [
            (capture("host1", "c0a", echo()), "requests", 40, 142),
            (
                capture("host1", "eth0", inside(echo())),
                "requests in the tunnel",
                40,
                142 + TUNNEL,
            ),
            (
                capture("host2", "c1a", echo_v6()),
                "requests by IPv6",
                7,
                1464,
            ),
            (
                capture("host2", "eth0", inside(echo_v6())),
                "those in the tunnel",
                7,
                1464 + TUNNEL,
            ),
            (capture("host0", "c1a", datagrams()), "datagrams", 500, 1042),
            (
                capture("host0", "eth0", inside(datagrams())),
                "those in the tunnel",
                500,
                1042 + TUNNEL,
            ),
            (
                capture("host0", "c0a", to("192.168.0.1", 1, Some(0))),
                "answers",
                40,
                142,
            ),
            (
                capture("host1", "eth0", to("172.16.1.101", 17, None)),
                "beside the tunnels",
                3,
                50,
            ),
        ];
        let entries = send(
            sandbox,
            "host0 192.168.0.2 ping count=40 rate=200 size=100\n\
             host0 fd00:c0a8:1::3 ping count=7 rate=50/s size=1402\n\
             host1 192.168.1.1 udp count=500 rate=2000 size=1000\n\
             host2 fd00:c0a8::1 tcp total=300kb rate=20mbit\n\
             host0 172.16.1.101 udp count=3 rate=100 size=8\n\
             host1 192.168.1.2 ping count=2 rate=100 size=8\n",
        );
        let expected = [
            packets(40, 100),
            packets(7, 1402),
            packets(500, 1000),
            stream(300 << 10),
            packets(3, 8),
            packets(2, 8),
        ];
        assert_eq!(entries.len(), expected.len());
        for (entry, expected) in entries.iter().zip(expected) {
            assert_eq!(
                (entry.sent, entry.received),
                (expected, expected),
                "{entry:?}"
            );
            assert_eq!((entry.failed, &entry.problem), (0, &None));
        }
        let frames: Vec<Option<u64>> = entries.iter().map(|entry| entry.frame).collect();
        assert_eq!(
            frames,
            [Some(142), Some(1464), Some(1042), None, Some(50), Some(50)]
        );
        let local: Vec<bool> = entries.iter().map(|entry| entry.local).collect();
        assert_eq!(local, [false, false, false, false, false, true]);
        for (capture, what, count, size) in captures {
            // The outer network's datagrams are beside those of the tunnels, which have the same address.
            if what == "beside the tunnels" {
                let port = |frame: &[u8]| frame.get(36..38) != Some(&4789_u16.to_be_bytes());
                let seen = capture.finish();
                let beside: Vec<usize> = seen
                    .packets
                    .iter()
                    .filter(|frame| port(frame))
                    .map(Vec::len)
                    .collect();
                assert_eq!(beside, [size; 3], "{what}: {count}");
            } else {
                assert_seen(capture, what, count, size);
            }
        }
        network.close().unwrap();
    });
}

#[test]
fn the_default_list_is_answered_and_its_first_line_is_never_on_the_wire() {
    let name = "the_default_list_is_answered_and_its_first_line_is_never_on_the_wire";
    sandbox::run(name, |sandbox| {
        let network = network(9, 4);
        // At the host's end of host0's cable: what host0 sends.
        let out = Capture::start(
            &Place::here(),
            "host0a",
            3 * SOON,
            inside(|frame| frame.get(34) == Some(&8) && frame.get(23) == Some(&1)),
        );
        let process = start(sandbox, "--duration 2.5 --interval 0.5");
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(ended.stdout.lines().count() > 2, "{}", ended.stdout);
        let entries = entries(&ended.stdout);
        assert_eq!(entries.len(), 13);
        for entry in &entries {
            assert_eq!(entry.from, "host0");
            // One at the beginning, and one in each second; a busy machine may come late to the last.
            let sent = entry.sent.packets.unwrap();
            assert!((1..=3).contains(&sent), "{entry:?}");
            assert_eq!(entry.received, entry.sent, "{entry:?}");
            assert_eq!(entry.sent.bytes, sent * entry.size.unwrap());
        }
        let own: IpAddr = "192.168.0.1".parse().unwrap();
        let local: Vec<bool> = entries.iter().map(|entry| entry.local).collect();
        assert_eq!(entries.iter().position(|entry| entry.to == own), Some(0));
        assert_eq!(local, [[true].as_slice(), &[false; 12]].concat());
        let on_the_wire = entries.iter().filter(|entry| !entry.local);
        let (count, bytes) = on_the_wire.fold((0, 0), |(count, bytes), entry| {
            let sent = entry.sent.packets.unwrap();
            let frame = entry.frame.unwrap() + TUNNEL as u64;
            (count + sent, bytes + sent * frame)
        });
        let seen = out.finish();
        assert_eq!((seen.count.packets, seen.count.bytes), (count, bytes));
        network.close().unwrap();
    });
}

#[test]
fn the_heavy_client_sends_much_more_than_all_others_together() {
    let name = "the_heavy_client_sends_much_more_than_all_others_together";
    sandbox::run(name, |sandbox| {
        let network = network(9, 4);
        for (who, from, network) in [
            ("host3", "host3", "192.168.0."),
            ("192.168.2.5", "host4", "192.168.2."),
            ("fd00:c0a8:1::9", "host8", "fd00:c0a8:1::"),
        ] {
            let process = start(sandbox, &format!("--heavy {who} --duration 1.5"));
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(0);
            let entries = entries(&ended.stdout);
            let (list, heavy) = entries.split_at(13);
            assert_eq!(heavy.len(), 8);
            for entry in heavy {
                assert_eq!(entry.from, from);
                assert!(entry.to.to_string().starts_with(network), "{entry:?}");
                assert!(!entry.local && entry.sent == entry.received, "{entry:?}");
            }
            let bytes =
                |entries: &[Entry]| -> u64 { entries.iter().map(|entry| entry.sent.bytes).sum() };
            let (heavy, others) = (bytes(heavy), bytes(list));
            assert!(
                heavy > 10 * others && others > 0,
                "{who}: {heavy} and {others}"
            );
        }
        network.close().unwrap();
    });
}

#[test]
fn in_a_smaller_network_the_default_list_is_shorter() {
    sandbox::run(
        "in_a_smaller_network_the_default_list_is_shorter",
        |sandbox| {
            let network = network(3, 2);
            let ended = start(sandbox, "--duration 0.3").finish(ENDS_WITHIN);
            ended.assert_code(0);
            assert_eq!(
                ended.stderr,
                "9 lines of the default list left out: this network of 3 hosts and 2 VNIs \
             does not have these addresses\n"
            );
            let entries = entries(&ended.stdout);
            let to: Vec<String> = entries.iter().map(|entry| entry.to.to_string()).collect();
            assert_eq!(
                to,
                ["192.168.0.1", "192.168.0.2", "192.168.0.3", "192.168.1.2"]
            );
            network.close().unwrap();
        },
    );
}

#[test]
fn what_nobody_answers_or_the_kernel_refuses_is_counted_as_that() {
    let name = "what_nobody_answers_or_the_kernel_refuses_is_counted_as_that";
    sandbox::run(name, |sandbox| {
        let network = network(2, 1);
        let entries = send(
            sandbox,
            "host0 192.168.0.77 ping count=2 rate=100 size=16\n\
             host0 10.0.0.1 ping count=3 rate=100\n\
             host0 192.168.0.2 ping count=2 rate=100\n",
        );
        assert_eq!(entries[0].sent, packets(2, 16));
        assert_eq!(entries[0].received, packets(0, 0));
        assert_eq!((entries[1].sent, entries[1].failed), (packets(0, 0), 3));
        assert_eq!(
            entries[1].problem.as_deref(),
            Some("Network is unreachable")
        );
        assert_eq!(entries[2].received, packets(2, 56));
        network.close().unwrap();
    });
}

#[test]
fn no_more_is_sent_than_the_rate_allows() {
    sandbox::run("no_more_is_sent_than_the_rate_allows", |sandbox| {
        let network = network(2, 1);
        let list = "host0 192.168.0.2 udp rate=100\nhost0 192.168.0.2 tcp rate=800kbit\n";
        let _list = List::new(list);
        let process = start(sandbox, &format!("--file {LIST} --duration 1"));
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        let elapsed = ended.stdout.lines().next_back().map(|line| {
            let report: serde_json::Value = step("read the report", serde_json::from_str(line));
            report["elapsed"].as_f64().unwrap()
        });
        let elapsed = elapsed.unwrap();
        let entries = entries(&ended.stdout);
        let datagrams = entries[0].sent.packets.unwrap();
        assert!(
            datagrams as f64 <= 1.0 + 100.0 * elapsed,
            "{datagrams} in {elapsed} s"
        );
        let bytes = entries[1].sent.bytes;
        assert!(
            bytes as f64 <= 100_000.0 * elapsed,
            "{bytes} in {elapsed} s"
        );
        assert!(datagrams > 0 && bytes > 0);
        for entry in &entries {
            assert_eq!(entry.received, entry.sent, "{entry:?}");
        }
        network.close().unwrap();
    });
}

#[test]
fn what_cannot_be_sent_is_refused_in_one_line() {
    sandbox::run("what_cannot_be_sent_is_refused_in_one_line", |sandbox| {
        let none = "no network of tunnel_monitor is up: start `tunnel_monitor`";
        TOOL.assert_refused(sandbox, "traffic", 5, none);
        let with_list = format!("traffic --file {LIST}");
        let _list = List::new("host0 192.168.0.2 pong");
        let words = format!("{LIST}:1:19: pong is none of ping, udp, tcp");
        TOOL.assert_refused(sandbox, &with_list, 2, &words);
        let network = network(2, 1);
        step(
            "write a list",
            fs::write(LIST, "\n  host2 192.168.0.2 ping"),
        );
        let words = format!("{LIST}:2:3: there is no host2 in this network of 2 hosts and 1 VNI");
        TOOL.assert_refused(sandbox, &with_list, 2, &words);
        step("write a list", fs::write(LIST, "host0 192.168.0.3 udp"));
        let words =
            format!("{LIST}:1:1: nobody has 192.168.0.3 in this network of 2 hosts and 1 VNI");
        TOOL.assert_refused(sandbox, &with_list, 2, &words);
        TOOL.assert_each_refused(
            sandbox,
            [
                ("traffic --file /nowhere", 2, "there is no file /nowhere"),
                ("traffic --file /", 2, "read /: Is a directory"),
                (
                    "traffic --heavy host2",
                    2,
                    "neither a host nor a client's address",
                ),
                ("traffic --duration 0", 2, "0"),
                ("traffic --show --json", 2, "cannot be used with"),
            ],
        );
        network.close().unwrap();
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    sandbox::run("without_privileges_it_says_what_is_missing", |sandbox| {
        TOOL.assert_needs(sandbox, "CAP_NET_RAW, CAP_SYS_ADMIN", ["traffic"]);
    });
}

#[test]
fn the_default_list_can_be_shown_edited_and_sent() {
    sandbox::run("the_default_list_can_be_shown_edited_and_sent", |sandbox| {
        let network = network(9, 4);
        let ended = sandbox
            .start(TOOL.command("traffic --show"))
            .finish(ENDS_WITHIN);
        ended.assert_code(0);
        let edited = ended
            .stdout
            .replace("size=768", "size=768 rate=100 count=3");
        let edited = edited.replace("  ping  size=128\n", "  ping  size=128 count=1\n");
        let edited = edited
            .replace("=512\n", "=512 count=1\n")
            .replace("=1024\n", "=1024 count=1\n");
        let entries = send(sandbox, &edited);
        let sent: u64 = entries.iter().filter_map(|entry| entry.sent.packets).sum();
        assert_eq!((entries.len(), sent), (13, 10 + 3 * 3));
        network.close().unwrap();
    });
}

#[test]
fn it_ends_with_the_network_when_it_is_told_to_and_when_it_is_killed() {
    let name = "it_ends_with_the_network_when_it_is_told_to_and_when_it_is_killed";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let first = network(2, 1);
        // A bridge says so a moment after its first port forwards.
        for host in first.hosts() {
            let place = Place::named(&host.namespace);
            let deadline = Instant::now() + SOON;
            while !place.ip("-o link show dev br0").contains("state UP") {
                assert!(Instant::now() < deadline, "br0 is not up");
                sleep(Duration::from_millis(10));
            }
        }
        let up = sandbox.snapshot();
        let start = || {
            let process = start(sandbox, "--interval 0.1");
            process.wait_for("\"final\":false", READY_WITHIN);
            process.assert_powerless();
            process
        };
        let mut process = start();
        process.write("\n");
        process.ends_at_once("Enter").assert_code(0);
        let process = start();
        process.signal(Signal::SIGTERM);
        let ended = process.ends_at_once("SIGTERM");
        ended.assert_code(0);
        entries(&ended.stdout);
        let process = start();
        process.signal(Signal::SIGKILL);
        process.ends_at_once("SIGKILL");
        up.assert_same(&sandbox.snapshot(), "after three runs");

        let process = start();
        first.close().unwrap();
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(1);
        let line =
            "tunnel_monitor: the network of tunnel_monitor is gone; start again when there is one";
        assert!(
            ended.stderr.lines().any(|said| said == line),
            "{}",
            ended.stderr
        );
        before.assert_same(&sandbox.snapshot(), "after the network");
    });
}

#[test]
fn the_table_fits_a_terminal() {
    sandbox::run("the_table_fits_a_terminal", |sandbox| {
        let network = network(2, 1);
        let list = "host0 192.168.0.2 ping count=1\n\
                    host1 fd00:c0a8::1 udp count=1200 rate=10000 size=1402\n\
                    host1 192.168.0.1 tcp total=2mb rate=1gbit\n\
                    host0 10.0.0.1 ping count=1\n";
        let _list = List::new(list);
        let ended = sandbox
            .start(TOOL.command(&format!("traffic --file {LIST}")))
            .finish(ENDS_WITHIN);
        ended.assert_code(0);
        for line in ended.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let last = "\nfrom     to                     kind   size        sent    received    failed\n\
                    host0    192.168.0.2            ping     56           1           1         0\n\
                    host1    fd00:c0a8::1           udp    1402       1,200       1,200         0\n\
                    host1    192.168.0.1            tcp              2.10MB      2.10MB         0\n\
                    host0    10.0.0.1               ping     56           0           0         1\n\
                    all                                              3.78MB      3.78MB         1\n\
                    host0 to 10.0.0.1: Network is unreachable\n";
        assert!(ended.stdout.ends_with(last), "{}", ended.stdout);
        TOOL.assert_help_fits(sandbox, &["traffic"]);
        network.close().unwrap();
    });
}
