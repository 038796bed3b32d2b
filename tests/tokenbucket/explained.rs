//! `--explain`: captures through the real binary. What is said of each packet is compared with the rules in exact
//! arithmetic, and with the packets as the test has built them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use netbpf::policer::Limit;
use serde_json::Value;
use testbed::capture::{Captured, pcap, pcapng};
use testbed::packet::{Ipv4, Ipv6, Packet};
use testbed::process::{Input, Output};
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, Tool};

use crate::model::{Bytes, FiveSteps};
use crate::seed::Random;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));
const SECOND: u64 = 1_000_000_000;
/// Some day of 2023.
const START: u64 = 1_700_000_000 * SECOND;
const ETHERNET: u32 = 1;
const RAW: u32 = 101;
const FILE: &str = "/run/capture";

fn frame() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn of_source(host: u8, payload: usize) -> Vec<u8> {
    let packet = frame().ipv4([192, 0, 2, host], [198, 51, 100, 1]);
    packet.udp(40_000, 9).payload_of(payload).build()
}

/// Whole frames at these times after the start.
fn at<const N: usize>(packets: [(u64, Vec<u8>); N]) -> Vec<Captured> {
    let whole = |(since, frame)| Captured::whole(START + since, frame);
    packets.into_iter().map(whole).collect()
}

/// What is said of each packet of such a file, and of all of them.
#[track_caller]
fn explained(sandbox: &Sandbox, file: &[u8], arguments: &str) -> (Vec<Value>, Value) {
    step(FILE, fs::write(FILE, file));
    let command = TOOL.command(&format!("--explain {FILE} --json {arguments}"));
    let ended = sandbox.start(command).finish(ENDS_WITHIN);
    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    let mut lines = Schema::read("docs/explain.schema.json").fitting(&ended.stdout);
    let summary = step("a summary", lines.pop().ok_or("nothing was said"));
    step(FILE, fs::remove_file(FILE));
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["packet"], number, "{line}");
    }
    let verdicts = |verdict| {
        lines
            .iter()
            .filter(|line| line["verdict"] == verdict)
            .count()
    };
    let all = &summary["summary"];
    assert_eq!(all["packets"], lines.len(), "{summary}");
    assert_eq!(all["passed"], verdicts("pass"), "{summary}");
    assert_eq!(all["dropped"], verdicts("drop"), "{summary}");
    assert_eq!(all["would_drop"], verdicts("would drop"), "{summary}");
    assert_eq!(all["not_run"], verdicts("not run"), "{summary}");
    (lines, summary)
}

/// In seconds, give or take what a double has no room for.
#[track_caller]
fn assert_wait(line: &Value, nanoseconds: i128) {
    let said = step("a wait", line["wait"].as_f64().ok_or(line));
    let expected = nanoseconds as f64 / 1e9;
    assert!((said - expected).abs() < 1e-9, "{expected}: {line}");
}

#[test]
fn verdicts_and_waits_are_those_of_the_rule_at_the_captures_times() {
    let name = "verdicts_and_waits_are_those_of_the_rule_at_the_captures_times";
    sandbox::run(name, |sandbox| {
        let mut random = Random::new(name, false);
        for (tokens, rate, regeneration) in [
            (5, "1/s", SECOND),
            (1, "1000/s", SECOND / 1000),
            (12, "3/s", 333_333_333),
        ] {
            let mut models = [FiveSteps::new(tokens, regeneration); 3];
            let (mut packets, mut expected) = (Vec::new(), Vec::new());
            let mut now = 0;
            for _ in 0..400 {
                now += match random.below(64) {
                    0 => random.below(3 * tokens * regeneration),
                    1..8 => regeneration,
                    8..40 => 0,
                    _ => random.below(regeneration / 8),
                };
                let host = random.below(3) as usize;
                let passes = models[host].passes(now.into());
                let tmin = models[host].window().map(|[tmin, _]| tmin);
                let wait = step("a window", tmin.ok_or("none")) - i128::from(now);
                expected.push((passes, wait));
                packets.push(Captured::whole(START + now, of_source(host as u8 + 1, 30)));
            }
            assert!(expected.iter().any(|(passes, _)| !passes));
            for file in [pcap(ETHERNET, &packets), pcapng(&packets)] {
                let arguments = format!("--tokens {tokens} --rate {rate}");
                let (lines, summary) = explained(sandbox, &file, &arguments);
                assert_eq!(lines.len(), packets.len());
                for (line, (passes, wait)) in lines.iter().zip(&expected) {
                    assert_eq!(
                        line["verdict"],
                        if *passes { "pass" } else { "drop" },
                        "{line}"
                    );
                    let reason = if *passes { "token" } else { "no_token" };
                    assert_eq!(line["reason"], reason, "{line}");
                    if *passes {
                        assert_eq!(line["wait"], Value::Null, "{line}");
                    } else {
                        assert_wait(line, *wait);
                    }
                }
                let dropped = expected.iter().filter(|(passes, _)| !passes).count();
                assert_eq!(summary["summary"]["reasons"]["no_token"], dropped);
            }
        }
    });
}

/// Whatever the capture has of them, packets cost what they were.
#[test]
fn bytes_are_those_that_packets_had() {
    let name = "bytes_are_those_that_packets_had";
    sandbox::run(name, |sandbox| {
        let mut random = Random::new(name, false);
        let limit = step(
            "a limit",
            Limit::new(
                step("a rate", "1mbit".parse()),
                step("a burst", "32kb".parse()),
            ),
        );
        let mut model = Bytes::new(limit.cost, limit.burst);
        let (mut packets, mut expected) = (Vec::new(), Vec::new());
        let mut now = 0;
        for _ in 0..300 {
            now += random.below(40_000_000);
            let payload = [18, 1000, 3500, 20_000, 60_000][random.below(5) as usize];
            let whole = Captured::whole(START + now, of_source(1, payload));
            let debt = (model.paid() - 16 * i128::from(now)).max(0);
            let length = whole.length;
            let passes = model.passes(length.into(), now.into());
            let price = (u128::from(length) * u128::from(limit.cost)).div_ceil(1024) as i128;
            let burst = i128::from(limit.burst);
            let beyond = debt + price.min(burst) - burst;
            expected.push((passes, beyond));
            packets.push(whole.cut_to([64, 100, 1 << 20][random.below(3) as usize]));
        }
        assert!(expected.iter().any(|(passes, _)| !passes));
        let arguments = "--rate 1mbit --burst 32kb";
        let (lines, summary) = explained(sandbox, &pcap(ETHERNET, &packets), arguments);
        for ((line, (passes, beyond)), packet) in lines.iter().zip(&expected).zip(&packets) {
            assert_eq!(
                line["verdict"],
                if *passes { "pass" } else { "drop" },
                "{line}"
            );
            assert_eq!(line["length"], packet.length, "{line}");
            assert_eq!(line["captured"], packet.bytes.len(), "{line}");
            if *passes {
                let room = (-beyond * 1024) as u128 / u128::from(limit.cost);
                let text = step("a text", line["text"].as_str().ok_or(line));
                let digits = text.replace(',', "");
                assert!(
                    digits.contains(&format!("room for {room} bytes more")),
                    "{line}"
                );
            } else {
                assert_wait(line, (beyond + 15) / 16);
            }
        }
        let cut = packets
            .iter()
            .filter(|packet| packet.bytes.len() < packet.length as usize);
        assert_eq!(summary["summary"]["cut"], cut.count());
    });
}

fn reasons_of(lines: &[Value]) -> Vec<(&str, &str)> {
    let text = |line: &'_ Value, key: &str| line[key].as_str().is_some_and(|text| !text.is_empty());
    assert!(lines.iter().all(|line| text(line, "text")));
    let words = lines
        .iter()
        .map(|line| (line["verdict"].as_str(), line["reason"].as_str()));
    words
        .map(|(verdict, reason)| (verdict.unwrap_or_default(), reason.unwrap_or_default()))
        .collect()
}

#[test]
fn every_reason_has_its_name() {
    sandbox::run("every_reason_has_its_name", |sandbox| {
        let arp = frame().arp_request(
            ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(192, 0, 2, 1)),
            Ipv4Addr::new(192, 0, 2, 2),
        );
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let solicitation = frame().ipv6_with(Ipv6 {
            hop_limit: 255,
            ..Ipv6::between(link_local, link_local)
        });
        let solicitation = solicitation.icmpv6(135, 0, [0; 4]).payload_of(20);
        let mut wrong = of_source(1, 30);
        wrong[14] = 0x55;
        let ipv6 = frame()
            .ipv6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), link_local)
            .udp(1, 2)
            .payload(b"?");
        let mut packets = at([
            (0, arp.build()),
            (0, solicitation.build()),
            (0, wrong),
            (0, of_source(9, 30)),
            (0, ipv6.build()),
            (0, of_source(1, 30)),
            (0, of_source(1, 30)),
            (0, of_source(1, 30)),
            (0, of_source(2, 30)),
        ]);
        packets.push(Captured::whole(START, of_source(1, 30)).cut_to(30));
        packets.push(Captured::whole(START, of_source(1, 30)).cut_to(13));
        let file = pcap(ETHERNET, &packets);
        let arguments = "--tokens 1 --exempt 192.0.2.9/32 --max-entries 2";
        let expected = [
            ("pass", "not_ip"),
            ("pass", "control"),
            ("pass", "malformed"),
            ("pass", "exempt"),
            ("pass", "token"),
            ("pass", "token"),
            ("pass", "token"),
            ("drop", "no_token"),
            ("pass", "token"),
            ("pass", "malformed"),
            ("not run", "too_short"),
        ];
        let (lines, summary) = explained(sandbox, &file, arguments);
        assert_eq!(reasons_of(&lines), expected);
        let texts: Vec<_> = lines
            .iter()
            .map(|line| line["text"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(
            texts[4..9],
            [
                "new flow: 1 token left",
                "new flow: 1 token left",
                "the last token",
                "no token left, next in 1.000 s",
                "new flow: 1 token left (table full)",
            ]
        );
        assert_eq!(lines[4]["source"], "[2001:db8::1]:1");
        assert_eq!(summary["summary"]["cut"], 2);

        let (lines, _) = explained(sandbox, &file, &format!("{arguments} --dry-run"));
        assert_eq!(reasons_of(&lines)[7], ("would drop", "no_token"));

        // Without a header of their own, and without a time of their own.
        let raw: Vec<_> = packets[3..9]
            .iter()
            .map(|packet| Captured {
                length: packet.length - 14,
                bytes: packet.bytes[14..].to_vec(),
                ..packet.clone()
            })
            .collect();
        let (lines, _) = explained(sandbox, &pcap(RAW, &raw), arguments);
        assert_eq!(reasons_of(&lines), expected[3..9]);
        assert_eq!(lines[0]["length"], packets[3].length - 14);
    });
}

#[test]
fn other_machines_name_their_rows() {
    sandbox::run("other_machines_name_their_rows", |sandbox| {
        let to = |port| {
            frame()
                .ipv4([192, 0, 2, 1], [198, 51, 100, 1])
                .udp(40_000, port)
                .payload(b"?")
                .build()
        };
        let tcp = frame()
            .ipv4([192, 0, 2, 1], [198, 51, 100, 1])
            .tcp(40_000, 22)
            .build();
        // A protocol that cannot be known: an extension header that is not there.
        let headless = frame()
            .ipv6_with(Ipv6 {
                next: Some(0),
                ..Ipv6::between(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
            })
            .build();
        let packets = at([
            (0, tcp.clone()),
            (1, to(7000)),
            (2, to(8000)),
            (3, to(9000)),
            (4, tcp),
            (5, headless),
        ]);
        let (lines, _) = explained(sandbox, &pcap(ETHERNET, &packets), "--xfsm port_knocking");
        let verdicts: Vec<_> = lines
            .iter()
            .map(|line| line["verdict"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(verdicts[0], "drop");
        assert_eq!(verdicts[4], "pass");
        assert_eq!(reasons_of(&lines)[5], ("drop", "no_transport"));
        let text = lines[4]["text"].as_str().unwrap_or_default();
        assert!(
            text.starts_with("state OPEN, ") && text.ends_with(", then OPEN"),
            "{text}"
        );
    });
}

#[test]
fn time_does_not_go_back_and_lasts_no_longer_than_a_year() {
    let name = "time_does_not_go_back_and_lasts_no_longer_than_a_year";
    sandbox::run(name, |sandbox| {
        let source = || of_source(1, 30);
        let packets = at([
            (SECOND, source()),
            (0, source()),
            (0, source()),
            (2 * SECOND, source()),
        ]);
        let (lines, summary) = explained(sandbox, &pcap(ETHERNET, &packets), "--tokens 1");
        let verdicts: Vec<_> = lines
            .iter()
            .map(|line| line["verdict"].as_str().unwrap_or_default())
            .collect();
        assert_eq!(verdicts, ["pass", "pass", "drop", "pass"]);
        assert_wait(&lines[2], SECOND.into());
        assert_eq!(lines[1]["time"], -1.0);
        assert_eq!(summary["summary"]["earlier"], 2);

        let packets = at([(0, source()), (400 * 86_400 * SECOND, source())]);
        step(FILE, fs::write(FILE, pcap(ETHERNET, &packets)));
        let ended = sandbox
            .start(TOOL.command(&format!("--explain {FILE}")))
            .finish(ENDS_WITHIN);
        ended.assert_code(2);
        assert_eq!(
            ended.stderr,
            "tokenbucket: packet 2 is 400 days after the first one: a year is the longest that can be explained\n"
        );
        assert!(
            ended.stdout.contains("1 packet: 1 passed\n"),
            "{}",
            ended.stdout
        );
        step(FILE, fs::remove_file(FILE));
    });
}

#[test]
fn what_cannot_be_explained_is_told_in_a_line() {
    sandbox::run("what_cannot_be_explained_is_told_in_a_line", |sandbox| {
        step(FILE, fs::write(FILE, "no capture at all"));
        let pcap = format!("--explain {FILE}");
        TOOL.assert_each_refused(
            sandbox,
            [
                (
                    "--explain /run/nothing",
                    2,
                    "read /run/nothing: No such file",
                ),
                (&pcap, 2, "is no capture"),
                ("--explain /run", 2, "directory"),
                (&format!("{pcap} --iface lo"), 2, "cannot be used with"),
                (&format!("{pcap} --duration 1"), 2, "cannot be used with"),
                (
                    &format!("{pcap} --rate 1mbit --tokens 5"),
                    2,
                    "--tokens are for rates",
                ),
            ],
        );
        step(FILE, fs::remove_file(FILE));
    });
}

/// As far as it goes; and a reader who has seen enough.
#[test]
fn a_capture_that_ends_early_is_explained_up_to_there() {
    let name = "a_capture_that_ends_early_is_explained_up_to_there";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let packets: Vec<_> = (0..3)
            .map(|_| Captured::whole(START, of_source(1, 30)))
            .collect();
        let file = pcap(ETHERNET, &packets);
        step(FILE, fs::write(FILE, &file[..file.len() - 1]));
        let ended = sandbox
            .start(TOOL.command(&format!("--explain {FILE}")))
            .finish(ENDS_WITHIN);
        ended.assert_code(2);
        assert!(
            ended
                .stderr
                .starts_with("tokenbucket: /run/capture ends within packet 3"),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stdout.contains("2 packets: 2 passed"),
            "{}",
            ended.stdout
        );
        let reads = TOOL.command(&format!("--explain {FILE}"));
        let ended = sandbox
            .start_with(reads, Input::AtEnd, Output::Broken)
            .finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert_eq!(ended.stderr, "");

        step(FILE, fs::write(FILE, &file));
        let mut command = Command::new("sh");
        let tool = env!("CARGO_BIN_EXE_tokenbucket");
        command.args(["-c", &format!("cat {FILE} | {tool} --explain -")]);
        let ended = sandbox.start(command).finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(
            ended.stdout.contains("3 packets: 3 passed"),
            "{}",
            ended.stdout
        );
        step(FILE, fs::remove_file(FILE));
        before.assert_same(&sandbox.snapshot(), "after captures were explained");
    });
}

/// The capture and the lines of the document.
#[test]
fn the_document_shows_what_is_said() {
    sandbox::run("the_document_shows_what_is_said", |sandbox| {
        let ping = |host, icmp| {
            frame()
                .ipv4_with(Ipv4::between([192, 0, 2, host], [192, 0, 2, 1]))
                .icmp(icmp, 0, [0; 4])
                .payload_of(56)
                .build()
        };
        let arp = frame()
            .arp_request(
                ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(192, 0, 2, 7)),
                Ipv4Addr::new(192, 0, 2, 1),
            )
            .build();
        let mut packets = at([(0, arp)]);
        for number in 0..4 {
            packets.push(Captured::whole(
                START + 1_000_000 + number * 229_000_000,
                ping(7, 8),
            ));
        }
        packets.push(Captured::whole(START + SECOND, of_source(8, 900)).cut_to(96));
        packets.push(Captured::whole(START + 1_100_000_000, ping(7, 8)));
        step(FILE, fs::write(FILE, pcap(ETHERNET, &packets)));
        let ended = sandbox
            .start(TOOL.command(&format!("--explain {FILE} --tokens 2")))
            .finish(ENDS_WITHIN);
        ended.assert_code(0);
        step(FILE, fs::remove_file(FILE));
        let text = step("docs/explain.md", fs::read_to_string("docs/explain.md"));
        assert!(
            text.contains(&ended.stdout),
            "docs/explain.md does not have\n{}",
            ended.stdout
        );
    });
}
