//! `tcp_hold net-up` and `net-down`: the original's scripts.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::Ended;
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, Tool};
use testbed::traffic::reaches;
use testbed::{skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// An interface up9, and somebody outside who knows only the host.
fn outside() -> (Veth, Namespace) {
    let outside = Namespace::new("outside");
    let cable = Veth::new((&Place::here(), "up9"), (&outside, "eth0"));
    Place::here().ip("address add 203.0.113.1/24 dev up9");
    outside.ip(&format!("address add {OUTSIDE}/24 dev eth0"));
    (cable, outside)
}

fn run(sandbox: &Sandbox, arguments: &str) -> Ended {
    sandbox.start(TOOL.command(arguments)).finish(ENDS_WITHIN)
}

fn forwarding() -> String {
    step(FORWARDING, fs::read_to_string(FORWARDING))
}

#[test]
fn up_stays_up_until_down() {
    sandbox::run("up_stays_up_until_down", |sandbox| {
        let before = sandbox.snapshot();
        let up = run(sandbox, "net-up");
        up.assert_code(0);
        // On a slow machine steps are told on stderr.
        assert_eq!(up.stdout, "");
        let host = Ipv4Addr::new(192, 168, 100, 100);
        assert!(reaches(&Place::named("ns0"), host.into()));
        TOOL.assert_refused(sandbox, "net-up", 5, "tcp_hold net-down");
        run(sandbox, "net-down").assert_code(0);
        before.assert_same(&sandbox.snapshot(), "after net-down");
        let again = run(sandbox, "net-down");
        again.assert_code(0);
        assert_eq!(again.stderr, "tcp_hold: the network is not up\n");
    });
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    sandbox::run("what_is_somebody_elses_is_left_alone", |sandbox| {
        Place::here().ip("link add br0 type bridge");
        TOOL.assert_refused(sandbox, "net-up", 5, "interface br0");
        Place::here().ip("link delete br0");
        TOOL.assert_refused(sandbox, "net-up --uplink up9", 2, "up9");
        TOOL.assert_needs(sandbox, "CAP_NET_ADMIN", ["net-up", "net-down"]);
        TOOL.assert_help_fits(sandbox, &["net-up", "net-down"]);
    });
}

fn found(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&folders).map(|folder| folder.join(program));
    files.find(|file| file.exists())
}

/// In a PATH with one of the two programs only.
fn way_out(name: &str, by: &str, list: &[&[&str]], mark: &str) {
    let (Some(ip), Some(program)) = (found("ip"), found(by)) else {
        return skip(name, &format!("{by} is not installed"));
    };
    sandbox::run(name, |sandbox| {
        let (_cable, outside) = outside();
        let folder = Path::new("/run/bin");
        step("make a folder", fs::create_dir(folder));
        for (name, file) in [("ip", &ip), (by, &program)] {
            step(name, symlink(file, folder.join(name)));
        }
        let rules = || {
            let listed = list.iter().map(|words| {
                let output = step(by, Command::new(&program).args(*words).output());
                String::from_utf8_lossy(&output.stdout).into_owned()
            });
            listed.collect::<String>()
        };
        let tool = |arguments: &str| {
            let mut command = TOOL.command(arguments);
            command.env("PATH", folder);
            sandbox.start(command).finish(ENDS_WITHIN)
        };
        let before = (rules(), forwarding());
        tool("net-up --uplink up9").assert_code(0);
        assert!(reaches(&Place::named("ns0"), OUTSIDE.into()));
        // Out there nobody knows a way to the network: the host's address was in front.
        let hidden = Ipv4Addr::new(192, 168, 100, 101);
        assert!(!reaches(&outside, hidden.into()));
        assert_eq!(forwarding(), "1\n");
        let during = rules();
        assert!(during.contains(mark), "{during}");
        tool("net-down").assert_code(0);
        assert_eq!((rules(), forwarding()), before, "{during}");
        step("remove the folder", fs::remove_dir_all(folder));
    });
}

#[test]
fn the_way_out_is_undone_exactly_by_nft() {
    let name = "the_way_out_is_undone_exactly_by_nft";
    way_out(name, "nft", &[&["list", "ruleset"]], "masquerade");
}

#[test]
fn the_way_out_is_undone_exactly_by_iptables() {
    let name = "the_way_out_is_undone_exactly_by_iptables";
    let list: [&[&str]; 2] = [&["-t", "nat", "-S"], &["-S"]];
    way_out(name, "iptables", &list, "netbpf-");
}
