//! The command `netsetup`: what it says, and how it ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use testbed::namespace::Place;
use testbed::tool::Tool;
use testbed::{sandbox, step};

/// Exit code, stdout, stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = step("run netsetup", command.output());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

fn netsetup(arguments: &[&str]) -> (i32, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_netsetup")).args(arguments))
}

/// Makes a program of `source`. A process of its own writes it: a thread of ours that is starting a
/// child would pass the open file on, and what is open for writing cannot be run.
fn install(source: &str, program: &str) {
    let mut command = Command::new("install");
    let status = command.args(["-m", "755", source, program]).status();
    assert!(step("run install", status).success());
}

fn says(code: i32, stderr: &str) -> (i32, String, String) {
    (code, String::new(), stderr.to_owned())
}

/// What is said where `up` has built what it could, but this kernel has no VLAN devices.
const UNTAGGED: &str = "vlan_learning: this kernel has no VLAN devices (CONFIG_VLAN_8021Q), so nothing \
                        tags what the clients send\n";

#[test]
fn help_fits_the_terminal() {
    sandbox::run("help_fits_the_terminal", |sandbox| {
        let tool = Tool::new(env!("CARGO_BIN_EXE_netsetup"));
        tool.assert_help_fits(sandbox, &["up", "down", "list"]);
    });
}

#[test]
fn up_list_down() {
    sandbox::run("up_list_down", |sandbox| {
        let before = sandbox.snapshot();
        let list = |arguments: &[&str], expected: &[String]| {
            let (code, stdout, stderr) = netsetup(arguments);
            assert_eq!((code, stderr.as_str()), (0, ""));
            assert_eq!(stdout.lines().count(), expected.len(), "{stdout}");
            for (line, begins) in stdout.lines().zip(expected) {
                assert!(line.starts_with(begins), "{stdout}");
            }
        };
        let names = [
            "neighbor_sharing",
            "tcp_hold",
            "tokenbucket",
            "tunnel_monitor",
            "vlan_learning",
        ];
        let listed = |states: [&str; 5]| {
            let lines = [0, 1, 2, 3, 4].map(|i| format!("{}  {}", names[i], states[i]));
            list(&["list"], &lines);
            for (name, line) in names.into_iter().zip(lines) {
                list(&["list", name], &[line]);
            }
        };
        let (down, up) = ("down  (", "up for 0:00:0");
        listed([down; 5]);
        for (topology, states, hosts) in [
            (names[0], [up, down, down, down, down], 6),
            (names[1], [down, up, down, down, down], 1),
            (names[2], [down, down, up, down, down], 4),
            (names[3], [down, down, down, up, down], 9),
            (names[4], [down, down, down, down, up], 6),
        ] {
            let (code, stdout, notice) = netsetup(&["up", topology]);
            assert_eq!((code, stdout.as_str()), (0, ""));
            let untagged = topology == "vlan_learning"
                && Place::named("client0")
                    .ip("-o link show type vlan")
                    .is_empty();
            assert_eq!(notice, if untagged { UNTAGGED } else { "" });
            listed(states);
            assert_eq!(Place::all().len(), 1 + hosts);
            assert_eq!(
                netsetup(&["up", topology]),
                says(
                    5,
                    &format!(
                        "netsetup: {topology} is kept up by `netsetup up`; take it down with \
                         `netsetup down {topology}` first\n"
                    )
                )
            );
            assert_eq!(netsetup(&["down", topology]), says(0, ""));
            before.assert_same(&sandbox.snapshot(), "after down");
            listed([down; 5]);
            assert_eq!(
                netsetup(&["down", topology]),
                says(0, &format!("netsetup: {topology} is not up\n"))
            );
        }
    });
}

#[test]
fn a_name_that_nobody_knows_is_a_usage_error() {
    for command in ["up", "down", "list"] {
        assert_eq!(
            netsetup(&[command, "nosuch"]),
            says(
                2,
                "netsetup: there is no topology nosuch; known: neighbor_sharing, tcp_hold, tokenbucket, \
                 tunnel_monitor, vlan_learning\n"
            )
        );
    }
    assert_eq!(netsetup(&["sideways"]).0, 2);
}

#[test]
fn without_ip_the_package_is_named() {
    sandbox::run("without_ip_the_package_is_named", |sandbox| {
        let before = sandbox.snapshot();
        let mut command = Command::new(env!("CARGO_BIN_EXE_netsetup"));
        command.args(["up", "neighbor_sharing"]).env("PATH", "/run");
        assert_eq!(
            run(&mut command),
            says(
                1,
                "netsetup: the command `ip` is not in PATH; install iproute2\n"
            )
        );
        before.assert_same(&sandbox.snapshot(), "after the refusal");
    });
}

#[test]
fn every_batch_holds_the_instance_lock() {
    sandbox::run("every_batch_holds_the_instance_lock", |_| {
        // An `ip` that notes the sockets that it was given, before it is what it seems.
        let script = "#!/bin/sh\n\
             case \"$*\" in *-batch*) ls -l /proc/$$/fd | grep -c socket: >>/run/sockets;; esac\n\
             PATH=${PATH#/run:} exec ip \"$@\"\n";
        fs::write("/run/script", script).unwrap();
        install("/run/script", "/run/ip");
        let path = format!("/run:{}", std::env::var("PATH").unwrap());
        for command in ["up", "down"] {
            let mut netsetup = Command::new(env!("CARGO_BIN_EXE_netsetup"));
            netsetup
                .args([command, "neighbor_sharing"])
                .env("PATH", &path);
            assert_eq!(run(&mut netsetup), says(0, ""));
        }
        // The links, six namespaces, the removal.
        let sockets = fs::read_to_string("/run/sockets").unwrap();
        assert_eq!(sockets, "1\n".repeat(8));
        for file in ["/run/ip", "/run/script", "/run/sockets"] {
            fs::remove_file(file).unwrap();
        }
    });
}

#[test]
fn without_privilege_nothing_is_tried() {
    sandbox::run("without_privilege_nothing_is_tried", |sandbox| {
        let before = sandbox.snapshot();
        // Where nobody may read it: the build folder may be private.
        let copy = "/run/netsetup";
        install(env!("CARGO_BIN_EXE_netsetup"), copy);
        for command in ["up", "down"] {
            let nobody = 65534;
            let mut command_line = Command::new(copy);
            command_line
                .args([command, "neighbor_sharing"])
                .current_dir("/")
                .uid(nobody)
                .gid(nobody);
            assert_eq!(
                run(&mut command_line),
                says(
                    3,
                    "netsetup: CAP_NET_ADMIN, CAP_SYS_ADMIN missing: run this as root (sudo)\n"
                )
            );
        }
        fs::remove_file(copy).unwrap();
        before.assert_same(&sandbox.snapshot(), "after the refusals");
    });
}
