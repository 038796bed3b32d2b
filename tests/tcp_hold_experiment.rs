//! tcp_hold without arguments: every run that is asked for, and nothing left of it, however it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::namespace::Place;
use testbed::sandbox;
use testbed::schema::Schema;
use testbed::step;
use testbed::tool::{READY_WITHIN, Tool};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));
/// Sixteen of two thirds of a second each, on a machine that has other things to do as well.
const ALL_RUNS: Duration = Duration::from_secs(180);

#[test]
fn every_run_is_made_and_said() {
    sandbox::run("every_run_is_made_and_said", |sandbox| {
        let before = sandbox.snapshot();
        let arguments = "--json --sizes 16,65536 --connections 1,4 --duration 500ms";
        let ended = sandbox.start(TOOL.command(arguments)).finish(ALL_RUNS);
        ended.assert_code(0);
        let folder = env!("CARGO_MANIFEST_DIR");
        let schema = Schema::read(format!("{folder}/docs/tcp_hold.experiment.schema.json"));
        let lines = schema.fitting(&ended.stdout);
        let (last, rows) = lines.split_last().unwrap_or_else(|| panic!("no lines"));
        let runs: BTreeSet<String> = rows.iter().map(run_of).collect();
        assert_eq!((rows.len(), runs.len()), (16, 16), "{runs:?}");
        for row in rows {
            // The slow line carries 680 KB a second.
            let rate = row["bytes_per_second"].as_f64();
            assert!(rate > Some(10_000.0), "{row}");
            assert_eq!(row["problem"], Value::Null, "{row}");
            if row["hold"] == false {
                assert_eq!(row["announce"]["calls"], 0, "{row}");
            }
        }
        // On the slow line large messages come in pieces, which are confirmed before there is more.
        let in_pieces =
            |row: &&Value| row["hold"] == true && row["size"] == 65536 && row["line"] == "limited";
        assert_eq!(rows.iter().filter(in_pieces).count(), 2, "{runs:?}");
        for row in rows.iter().filter(in_pieces) {
            assert!(row["announce"]["calls"].as_u64() > Some(0), "{row}");
        }
        // The slow line is slow.
        let limited = rows.iter().filter(|row| row["line"] == "limited");
        for row in limited {
            assert!(row["bytes_per_second"].as_f64() < Some(900_000.0), "{row}");
        }
        assert_eq!(last["failed"], 0, "{last}");
        assert_eq!(last["costs"].as_array().map(Vec::len), Some(2), "{last}");
        before.assert_same(&sandbox.snapshot(), "at its end");
    });
}

fn run_of(row: &Value) -> String {
    let each = ["line", "connections", "size", "hold"].map(|key| row[key].to_string());
    each.join(" ")
}

#[test]
fn it_ends_when_it_is_told_to() {
    sandbox::run("it_ends_when_it_is_told_to", |sandbox| {
        let before = sandbox.snapshot();
        for how in ["Enter", "SIGINT"] {
            for line in ["plain", "limited"] {
                let arguments = format!("--lines {line} --connections 8 --duration 30s");
                let mut tool = sandbox.start(TOOL.command(&arguments));
                tool.wait_for("line    conn  size hold", READY_WITHIN);
                match how {
                    "Enter" => tool.write("\n"),
                    _ => tool.signal(Signal::SIGINT),
                }
                tool.ends_at_once(how).assert_code(0);
                before.assert_same(&sandbox.snapshot(), how);
            }
        }
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    sandbox::run("what_is_in_the_way_is_named", |sandbox| {
        Place::here().ip("netns add ns0");
        TOOL.assert_refused(sandbox, "", 5, "namespace ns0");
        Place::here().ip("netns delete ns0");
        TOOL.assert_each_refused(
            sandbox,
            [
                ("--sizes 15", 2, "15"),
                ("--connections 0", 2, "0"),
                ("--lines slow", 2, "slow"),
                ("--duration 0", 2, "0"),
                ("--sizes 16 net-up", 2, "net-up"),
            ],
        );
        TOOL.assert_needs_root(sandbox, [""]);
        TOOL.assert_help_fits(sandbox, &["lockstep", "plug", "plug up"]);
    });
}

/// Steps and epochs are refused in a line where the kernel has no plug, or where there is none to step.
#[test]
fn a_plug_is_asked_for_by_its_name() {
    sandbox::run("a_plug_is_asked_for_by_its_name", |sandbox| {
        Place::here().ip("link add up0 type veth peer name far0");
        Place::here().ip("link set up0 up");
        let refused = [
            ("plug next --iface up0", 2, "no plug"),
            ("plug down --iface up0", 2, "no plug"),
            ("plug up --iface nix0", 2, "nix0"),
            ("lockstep 0 --iface up0", 2, "0"),
        ];
        TOOL.assert_each_refused(sandbox, refused);
        let mut tc = std::process::Command::new("tc");
        tc.args("qdisc add dev up0 root plug".split(' '));
        if !step("run tc", tc.output()).status.success() {
            let words = "CONFIG_NET_SCH_PLUG";
            let refused = [
                ("plug up --iface up0", 4, words),
                ("lockstep 10 --iface up0", 4, words),
            ];
            TOOL.assert_each_refused(sandbox, refused);
        }
        Place::here().ip("link delete up0");
    });
}
