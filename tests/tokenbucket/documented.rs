//! What the documents show: the table, the command lines, the machine of the exercise.

use std::fs;
use std::net::Ipv4Addr;

use clap::Parser;
use netbpf::tokenbucket::Arguments;
use netbpf::tokenbucket::machine::Machine;
use testbed::{sandbox, step};

use crate::document;
use crate::frames::from;
use crate::rig::{self, NOW, Rig, SECOND, Setup};

#[test]
fn the_table_is_the_machines() {
    let machine = step("read the machine", Machine::tokenbucket());
    let shown = format!("{machine}\n");
    let table = &document::blocks("The machine")[0];
    assert!(shown.ends_with(&format!("\n\n{table}")), "{table}{shown}");
}

/// What the reader is told to type is what the tool takes.
#[test]
fn the_command_lines_are_taken() {
    for (path, at_least) in [("docs/tokenbucket.md", 10), ("README.md", 4)] {
        let text = step(path, fs::read_to_string(path));
        let lines = text.lines().map(|line| line.trim_start_matches("$ "));
        let lines: Vec<_> = lines
            .filter(|line| line.starts_with("sudo ./target/release/tokenbucket"))
            .collect();
        assert!(lines.len() >= at_least, "{path}: {lines:?}");
        for line in lines {
            let command = line.split('#').next().unwrap_or_default();
            let words = command.split_whitespace().skip(1);
            let arguments = step(line, Arguments::try_parse_from(words));
            let is_file = |name: &String| name.ends_with(".toml");
            if !arguments.xfsm.as_ref().is_some_and(is_file) {
                step(line, arguments.machine());
            }
        }
    }
}

/// So many packets of a host pass at once, at that time.
#[track_caller]
fn assert_at_once(rig: &mut Rig<'_>, host: u8, now: u64, expected: usize) {
    rig.set_now(now);
    let frame = from(Ipv4Addr::new(10, 0, 0, host));
    let passed = (0..20).filter(|_| rig.passes(&frame)).count();
    assert_eq!(passed, expected, "10.0.0.{host} after {} ns", now - NOW);
}

#[test]
fn the_exercise_shuts_out_for_ten_seconds() {
    const NAME: &str = "the_exercise_shuts_out_for_ten_seconds";
    sandbox::run(NAME, |_| {
        let file = "/run/shut_out.toml";
        step(file, fs::write(file, document::exercise()));
        let machine = step("read the machine", Machine::find(file));
        step(file, fs::remove_file(file));
        let setup = Setup {
            machine: Some(step("compile the machine", machine.compile(false))),
            ..Setup::default()
        };
        rig::with(setup, |rig| {
            assert_at_once(rig, 1, NOW, 6);
            // What he sends meanwhile makes it no longer, and is nothing to others.
            for second in 1..10 {
                assert_at_once(rig, 1, NOW + second * SECOND, 0);
            }
            assert_at_once(rig, 1, NOW + 10 * SECOND - 1, 0);
            assert_at_once(rig, 2, NOW + 10 * SECOND - 1, 6);
            // Then he begins with a full bucket, now or later, and may be shut out again.
            assert_at_once(rig, 1, NOW + 10 * SECOND, 6);
            assert_at_once(rig, 1, NOW + 20 * SECOND - 1, 0);
            assert_at_once(rig, 1, NOW + 3600 * SECOND, 6);
            // Who keeps to the rule is never shut out.
            for second in 3600..3700 {
                rig.set_now(NOW + second * SECOND);
                assert!(rig.passes(&from(Ipv4Addr::new(10, 0, 0, 3))), "{second} s");
            }
        });
    });
}
