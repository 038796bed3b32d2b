//! kill -9 at every call by which a network is built or removed: the next command has to find its
//! way, and in the end nothing is left.

use std::collections::BTreeSet;
use std::iter;
use std::process::{Command, Output, Stdio};

use testbed::interrupted::{self, Fault};
use testbed::sandbox::{self, Sandbox};
use testbed::{long, step};

/// A bridge and its ports; a bridge with an address of the host; tunnels in namespaces; a trunk, and devices
/// that are made in namespaces.
const TOPOLOGIES: [&str; 4] = [
    "neighbor_sharing",
    "tcp_hold",
    "tunnel_monitor",
    "vlan_learning",
];

/// Kill points of one command, at most.
const MOST: usize = 500;

fn netsetup(command: &str, topology: &str) -> Command {
    let mut netsetup = Command::new(env!("CARGO_BIN_EXE_netsetup"));
    netsetup.args([command, topology]);
    netsetup.stdin(Stdio::null());
    netsetup
}

#[track_caller]
fn succeeds(command: &str, topology: &str, when: &str) {
    let output: Output = step("run netsetup", netsetup(command, topology).output());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let what = format!("{command} {topology} {when}");
    assert!(output.status.success(), "{what}: {stderr}");
    // That is no complaint about what was found.
    let complaints = stderr
        .lines()
        .filter(|line| !line.starts_with("vlan_learning: this kernel has no VLAN devices"));
    assert_eq!(complaints.count(), 0, "{what}: {stderr}");
}

/// Kills `command` at each of its calls, and calls `repair`, after which all has to be as before.
fn killed_everywhere(
    name: &str,
    sandbox: &Sandbox,
    (command, topology): (&str, &str),
    prepare: impl Fn(),
    repair: impl Fn(&str),
) {
    let before = sandbox.snapshot();
    prepare();
    let whole = interrupted::run(&mut netsetup(command, topology), None);
    assert_eq!(
        whole.code,
        Some(0),
        "{command} {topology}, traced but not killed"
    );
    repair("after a whole run");
    before.assert_same(&sandbox.snapshot(), "after a whole run");

    let count = whole.calls.len();
    let telling = telling(&whole.calls);
    let leaves_out = format!(
        "all but {} of {count} kill points of {topology}",
        telling.len()
    );
    let points = if long(name, &leaves_out) {
        // A step of so many that repeat is stopped in one namespace or another.
        (0..count).step_by(count.div_ceil(MOST)).collect()
    } else {
        telling
    };
    for at in points {
        prepare();
        let run = interrupted::run(&mut netsetup(command, topology), Some((at, Fault::Kill)));
        // Threads and children run beside each other: the order of calls may differ a little.
        let when = format!(
            "after a kill of {command} {topology} at call {at} of {count}, {:?}",
            run.calls.last()
        );
        assert_eq!(run.code, None, "{when}");
        assert_eq!(run.late, [""; 0], "{when}");
        repair(&when);
        before.assert_same(&sandbox.snapshot(), &when);
    }
}

/// One kill point for each pair of calls that follow each other: steps that repeat for each
/// namespace are stopped in each of their gaps, but not in each namespace.
fn telling(calls: &[&'static str]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let pairs = iter::once("start").chain(calls.iter().copied()).zip(calls);
    pairs
        .enumerate()
        .filter_map(|(at, pair)| seen.insert(pair).then_some(at))
        .collect()
}

#[test]
fn a_build_that_is_killed_leaves_nothing_that_the_next_one_cannot_remove() {
    let name = "a_build_that_is_killed_leaves_nothing_that_the_next_one_cannot_remove";
    sandbox::run(name, |sandbox| {
        for topology in TOPOLOGIES {
            let repair = |when: &str| {
                // A run that was killed at its very end has kept the network.
                let output = step("run netsetup", netsetup("up", topology).output());
                if !output.status.success() {
                    succeeds("down", topology, when);
                    succeeds("up", topology, when);
                }
                succeeds("down", topology, when);
            };
            killed_everywhere(name, sandbox, ("up", topology), || (), repair);
        }
    });
}

#[test]
fn a_removal_that_is_killed_is_completed_by_the_next_one() {
    let name = "a_removal_that_is_killed_is_completed_by_the_next_one";
    sandbox::run(name, |sandbox| {
        for topology in TOPOLOGIES {
            let prepare = || succeeds("up", topology, "to be removed");
            let repair = |when: &str| {
                let output = step("run netsetup", netsetup("down", topology).output());
                assert!(output.status.success(), "{when}: {output:?}");
            };
            killed_everywhere(name, sandbox, ("down", topology), prepare, repair);
        }
    });
}
