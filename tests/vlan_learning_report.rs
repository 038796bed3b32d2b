//! What vlan_learning prints: its JSON against the schema in docs/, its picture within 80 columns, its
//! last lines as the original has them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::namespace::{Place, Veth};
use testbed::packet::{BROADCAST, Mac, Packet};
use testbed::process::{Input, Output};
use testbed::reports::Reporting;
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::inject;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));
const SOON: Duration = Duration::from_secs(5);

/// The trunk and workers' interfaces, of which nobody but the test says anything: frames go in by the
/// far ends.
fn interfaces<const N: usize>(names: [&'static str; N]) -> [Veth; N] {
    let here = Place::here();
    names.map(|name| {
        let far = far(name);
        let cable = Veth::new((&here, &far), (&here, name));
        for interface in [name, &far] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            // A kernel without IPv6 has no such file, and says nothing either.
            if Path::new(&path).exists() {
                step(&path, fs::write(&path, "1"));
            }
        }
        cable
    })
}

fn far(name: &str) -> String {
    // A name has 15 letters at most.
    format!("{}-far", &name[..name.len().min(11)])
}

/// Comes in by that interface.
fn comes_in(interface: &str, frames: &[Vec<u8>]) {
    let frames = frames.iter().map(Vec::as_slice);
    inject(&Place::here(), &far(interface), frames, Duration::ZERO);
}

/// A client's address.
const fn client(number: u8) -> Mac {
    [2, 0, 0, 0, 0, number]
}

/// Nobody's.
const NOBODY: Mac = [2, 0, 0, 0, 9, 9];

/// A frame of 100 bytes.
fn frame(from: Mac, to: Mac) -> Packet {
    Packet::ethernet(from, to).payload_of(86)
}

/// What a priority adds to a tag (802.1Q, 9.6).
const PRIORITY: u8 = 5 << 5;

/// A frame behind two tags, in both of which it has a priority.
fn in_service(from: Mac, to: Mac, outer: u16, inner: u16) -> Vec<u8> {
    let packet = Packet::ethernet(from, to).service_vlan(outer).vlan(inner);
    let mut frame = packet.payload_of(86).build();
    for tag in [14, 18] {
        frame[tag] |= PRIORITY;
    }
    frame
}

/// Every property of a schema: `clients/rx/packets`.
fn properties(schema: &Value, root: &Value, path: &str, found: &mut BTreeSet<String>) {
    let reference = schema["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    if let Some(target) = reference {
        let target = root.pointer(target);
        return properties(target.unwrap_or(&Value::Null), root, path, found);
    }
    if schema["items"].is_object() {
        return properties(&schema["items"], root, path, found);
    }
    let Some(members) = schema["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    for (name, member) in members {
        let path = format!("{path}/{name}");
        properties(member, root, path.trim_start_matches('/'), found);
    }
}

/// Those that say something in a report: not zero, false, null or empty.
fn filled(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                filled(member, path.trim_start_matches('/'), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| filled(item, path, found)),
        Value::Null | Value::Bool(false) => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        Value::String(text) if text.is_empty() => {}
        _ => drop(found.insert(path.to_owned())),
    }
}

fn reporting<'a>(sandbox: &'a Sandbox, arguments: &str) -> Reporting<'a, Value> {
    let arguments = format!("{arguments} --json --interval 100ms");
    let process = sandbox.start(TOOL.command(&arguments));
    process.wait_for_error("Bringing ", READY_WITHIN);
    Reporting::of(process)
}

/// All of it happens: moves, refusals, strangers, two tags, a worker that is gone, clients that are taken
/// out, frames for nobody.
#[test]
fn every_field_of_the_schema_is_filled_and_fits() {
    let name = "every_field_of_the_schema_is_filled_and_fits";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let cables = interfaces(["trunk0", "w0", "w1", "w2"]);
        let file = "/run/clients.toml";
        let write = |more: &str, removed: &str| {
            let mut text = format!("trunk = \"trunk0\"\n{more}\n[clients]\n{removed}");
            for number in 1..=70 {
                // Writing into a String cannot fail.
                let _ = writeln!(
                    text,
                    "\"02:00:00:00:00:{number:02x}\" = {{ worker = \"w0\", address = \
                     \"10.0.0.{number}\" }}"
                );
            }
            text.push_str("\"02:00:00:00:00:81\" = \"w1\"\n\"02:00:00:00:00:82\" = \"w2\"\n");
            step(file, fs::write(file, text));
        };
        let removed = "\"02:00:00:00:00:80\" = \"w1\"\n";
        write("", removed);
        let tool = reporting(sandbox, &format!("--config {file}"));
        let mac = here.mac("w0");
        // Nobody has been heard of yet.
        comes_in(
            "w0",
            &[BROADCAST, client(1), NOBODY, mac].map(|to| frame(NOBODY, to).build()),
        );
        // More VLANs than a worker has outlets, and both ways of two of them.
        let each = (1..=70).map(|number| in_service(client(number), NOBODY, 100, number.into()));
        comes_in("trunk0", &each.collect::<Vec<_>>());
        comes_in("trunk0", &[in_service(client(0x80), NOBODY, 7, 8)]);
        for (worker, to) in [("w0", client(1)), ("w1", client(0x80)), ("w0", BROADCAST)] {
            comes_in(worker, &[frame(NOBODY, to).build()]);
        }
        let moves = [(200, 201), (202, 203)].map(|(o, i)| in_service(client(1), NOBODY, o, i));
        comes_in("trunk0", &moves);
        let mut cut = Packet::ethernet(client(1), NOBODY).vlan(5).vlan(6).build();
        // The kernel itself takes the first tag off, and only where two bytes are behind it.
        cut.truncate(20);
        let others = [
            in_service(NOBODY, mac, 300, 301),
            frame(NOBODY, mac).build(),
            cut,
        ];
        comes_in("trunk0", &others);
        // The trunk cannot send now.
        here.ip("link set trunk0 down");
        comes_in("w0", &[frame(NOBODY, BROADCAST).build()]);
        here.ip("link set trunk0 up");
        let [.., w2] = cables;
        drop(w2);
        tool.process.wait_for_error("w2 was deleted", SOON);
        let w2 = interfaces(["w2"]);
        tool.process.wait_for_error("w2 appeared", SOON);
        // A client is taken out, the others must not move any more.
        write("no_move = true", "");
        tool.process.signal(Signal::SIGHUP);
        tool.process
            .wait_for_error("reloaded: 0 clients added, 1 removed", SOON);
        comes_in("trunk0", &[in_service(client(1), NOBODY, 204, 205)]);
        drop(w2);
        tool.process.wait_for_error("w2 was deleted", SOON);
        let process = tool.process;
        process.next_line(ENDS_WITHIN);
        process.signal(Signal::SIGTERM);
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        let dry = "--trunk trunk0 --map 02:00:00:00:00:01=w0 --dry-run --json --duration 0.1";
        let dry = sandbox.start(TOOL.command(dry)).finish(ENDS_WITHIN);
        dry.assert_code(0);

        let path = "docs/vlan_learning.schema.json";
        let lines = Schema::read(path).fitting(&(ended.stdout + &dry.stdout));
        let mut seen = BTreeSet::new();
        for line in &lines {
            filled(line, "", &mut seen);
        }
        let schema: Value = step(
            path,
            serde_json::from_str(&step(path, fs::read_to_string(path))),
        );
        let mut known = BTreeSet::new();
        properties(&schema, &schema, "", &mut known);
        let missing: Vec<&String> = known.difference(&seen).collect();
        // No memory for tags, tables that disagree, and a reader that stops: that one has a test of its
        // own.
        let elsewhere = [
            "events/not_tagged_back",
            "events/table_errors",
            "skipped_reports",
        ];
        assert_eq!(missing, elsewhere, "{}", lines[lines.len() - 2]);
        step(file, fs::remove_file(file));
    });
}

/// More clients than the picture has lines for, in VLANs as long as they can be, and everything there is
/// to say of them: `words` of it, which it says when all of that has happened.
#[track_caller]
fn assert_pictured(sandbox: &Sandbox, arguments: &str, gone: &[&'static str], words: &[&str]) {
    let [trunk, worker] = ["trunk0", "worker-15-chars"];
    let cables = interfaces([trunk, worker]);
    let absent: Vec<[Veth; 1]> = gone.iter().map(|name| interfaces([*name])).collect();
    let mut map: String = (1..=40)
        .map(|number| format!(" 02:00:00:00:00:{number:02x}={worker}"))
        .collect();
    for (number, name) in gone.iter().enumerate() {
        // Writing into a String cannot fail.
        let _ = write!(map, " 02:00:00:00:02:{number:02x}={name}");
    }
    let arguments = format!("--trunk {trunk} --map{map} --interval 100ms {arguments}");
    let process = sandbox.start(TOOL.command(&arguments));
    process.wait_for_error("Bringing 4", READY_WITHIN);
    for outer in [4094, 4093] {
        let clients = (1..=40).map(client);
        let strangers = (1..=9).map(|number| [2, 0, 0, 0, 1, number]);
        let frames: Vec<Vec<u8>> = clients
            .chain(strangers)
            .map(|from| in_service(from, NOBODY, outer, 4094))
            .collect();
        let often: Vec<Vec<u8>> = (0..30).flat_map(|_| frames.clone()).collect();
        comes_in(trunk, &often);
    }
    comes_in(trunk, &[frame(client(1), NOBODY).build()]);
    let to = [BROADCAST, client(1), client(77)];
    comes_in(worker, &to.map(|to| frame(NOBODY, to).build()));
    drop(absent);
    for name in gone {
        process.wait_for_error(name, SOON);
    }
    process.wait_for(" from workers to unknown addresses", SOON);
    process.next_line(SOON);
    process.signal(Signal::SIGTERM);
    let ended = process.finish(ENDS_WITHIN);
    ended.assert_code(0);
    drop(cables);
    for words in words {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    assert_fits(&ended.stdout);
}

#[test]
fn the_picture_fits_80_columns() {
    sandbox::run("the_picture_fits_80_columns", |sandbox| {
        let always = [
            "and 24 clients more\n",
            " in VLAN 4093s.4094: 60 frames\n",
            "and 5 unknown MAC addresses more\n",
            "540 frames from unknown MAC addresses\n",
            " without a tag\n",
        ];
        let moved = [
            "02:00:00:00:00:01 moved ",
            " 4094s.4094 to 4093s.4094\n",
            "40 moves of clients to other VLANs\n",
        ];
        assert_pictured(sandbox, "", &[], &[&always[..], &moved].concat());
        let refused = [
            "02:00:00:00:00:01 stays in VLAN 4094s.4094",
            "1,200 frames of clients from other VLANs refused\n",
            "not there: a-absent-15-abc ",
            "and 29 clients more\n",
        ];
        let names = ["a", "b", "c", "d", "e"].map(|letter| format!("{letter}-absent-15-abc"));
        let gone = names.map(|name| &*name.leak());
        let words = [&always[1..], &refused].concat();
        assert_pictured(sandbox, "--no-move", &gone, &words);
    });
}

#[track_caller]
fn assert_fits(text: &str) {
    for line in text.lines() {
        let columns = line.chars().count();
        assert!(columns <= 80, "{columns} columns: {line}");
    }
}

/// To the byte: a frame counts without its tags and its FCS.
#[test]
fn the_last_lines_are_the_originals() {
    sandbox::run("the_last_lines_are_the_originals", |sandbox| {
        let _cables = interfaces(["trunk0", "w0", "w1"]);
        let map = "--map 02:00:00:00:00:0a=w1 02:00:00:00:00:01=w0";
        let command = TOOL.command(&format!("--trunk trunk0 {map}"));
        let process = sandbox.start(command);
        process.wait_for_error("Bringing 2 clients", READY_WITHIN);
        let one = in_service(client(1), NOBODY, 5, 6);
        comes_in("trunk0", &vec![one; 5]);
        comes_in("w0", &vec![frame(NOBODY, client(1)).build(); 3]);
        process.signal(Signal::SIGTERM);
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        let expected = "\nmac 020000000001 rx pkts = 5, rx bytes = 500\n                 \
                        tx pkts = 3, tx bytes = 300\n\
                        mac 02000000000a rx pkts = 0, rx bytes = 0\n                 \
                        tx pkts = 0, tx bytes = 0\n";
        assert_eq!(ended.stdout, expected);
    });
}

/// The simulation's words, where results are JSON: not among them.
#[test]
fn words_are_never_among_the_json() {
    sandbox::run("words_are_never_among_the_json", |sandbox| {
        let command = TOOL.command("--json --interval 200ms --duration 1");
        let process = sandbox.start_with(command, Input::AtEnd, Output::Read);
        let ended = process.finish(READY_WITHIN);
        ended.assert_code(0);
        let lines = Schema::read("docs/vlan_learning.schema.json").fitting(&ended.stdout);
        assert!(lines.len() >= 3, "{}", ended.stdout);
        let finals = lines.iter().filter(|line| line["final"] == true).count();
        assert_eq!(
            (finals, &lines[lines.len() - 1]["final"]),
            (1, &true.into())
        );
        let serving = "Serving HTTP on 0.0.0.0 port 80 ...\n";
        assert_eq!(ended.stderr.matches(serving).count(), 3, "{}", ended.stderr);
    });
}

/// `make run EXAMPLE=vlan_learning` where nobody is there to press Enter.
#[test]
fn make_run_shows_who_answers_whom() {
    sandbox::run("make_run_shows_who_answers_whom", |sandbox| {
        let mut command = Command::new("packaging/run-example");
        command.arg(env!("CARGO_BIN_EXE_vlan_learning"));
        let process = sandbox.start_with(command, Input::AtEnd, Output::Read);
        let ended = process.finish(2 * READY_WITHIN);
        ended.assert_code(0);
        let mut lines = ended.stdout.lines();
        for _ in 0..3 {
            assert_eq!(lines.next(), Some("Serving HTTP on 0.0.0.0 port 80 ..."));
        }
        for number in 0..3 {
            let line = lines.next().unwrap_or_default();
            let (who, rest) = line.split_once(" in VLAN ").unwrap_or_default();
            let (_, pages) = rest.split_once(": ").unwrap_or_default();
            assert_eq!(who, format!("client{number}"), "{}", ended.stdout);
            assert_eq!(pages, format!("8 pages from worker{number}, 0 failed"));
        }
        assert_eq!(lines.next(), Some(""), "{}", ended.stdout);
        for number in 0..3 {
            let line = lines.next().unwrap_or_default();
            let start = format!("mac 02000000000{number} rx pkts = ");
            assert!(line.starts_with(&start), "{}", ended.stdout);
            let line = lines.next().unwrap_or_default();
            let start = "                 tx pkts = ";
            assert!(line.starts_with(start), "{}", ended.stdout);
            assert!(!line.contains("tx pkts = 0,"), "{}", ended.stdout);
        }
        assert_fits(&ended.stdout);
    });
}
