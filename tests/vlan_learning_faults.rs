//! Life and death of the real vlan_learning: every way to end it at any time, what it refuses, and what
//! it survives. Whatever happens, nothing of it stays.

use std::fs::{self, File};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use testbed::attaching;
use testbed::job::{Job, Ready, left};
use testbed::namespace::{Namespace, Place, Veth, has_vlan_devices};
use testbed::others::Program;
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{AT_ONCE, ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::tun::{self, Tun};
use testbed::{side_by_side, skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));

/// The simulation. With an interval its servers and clients are quiet, so that what is said is about
/// the run.
fn simulation(sandbox: &Sandbox) -> Job<'_> {
    let ready = Ready::Says("Serving HTTP on ");
    Job::new(sandbox, TOOL, "--interval 1000", ready)
}

const OVER: &str = "--trunk trunk0 --map 02:00:00:00:00:01=w0 02:00:00:00:00:02=w1";

/// The interfaces of a user, up and with carrier. What happens to them is the test's: they go by their
/// far ends.
fn interfaces() -> [Veth; 3] {
    let here = Place::here();
    ["trunk0", "w0", "w1"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)))
}

/// On these interfaces.
fn demuxing<'a>(sandbox: &'a Sandbox, arguments: &str) -> Job<'a> {
    let arguments = format!("{OVER} {arguments}");
    Job::new(sandbox, TOOL, &arguments, Ready::SaysAside("Bringing "))
}

/// The same by each way to attach, in a sandbox of its own.
#[track_caller]
fn by_each_way(name: &str, body: impl Fn(Job<'_>) + Sync) {
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let _interfaces = interfaces();
            body(demuxing(sandbox, &format!("--attach {attach}")));
        });
    };
    attaching::by_each_way(by);
}

/// A table of clients, in a file; gone when dropped.
struct Table(&'static str);

impl Table {
    fn new(name: &'static str, text: &str) -> Table {
        let file = Table(name);
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        step(self.0, fs::write(self.path(), text));
    }

    fn path(&self) -> String {
        format!("/run/{}", self.0)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // The comparison at the end of the sandbox finds what stays.
        let _ = fs::remove_file(self.path());
    }
}

/// A client at the first worker only, so that a reload has something to add.
const ONE_CLIENT: &str = "trunk = \"trunk0\"\n[clients]\n\"02:00:00:00:00:01\" = \"w0\"\n";
const TWO_CLIENTS: &str = "trunk = \"trunk0\"\n[clients]\n\"02:00:00:00:00:01\" = \"w0\"\n\
                           \"02:00:00:00:00:02\" = \"w1\"\n";

#[test]
fn every_end_of_the_simulation_leaves_nothing() {
    let name = "every_end_of_the_simulation_leaves_nothing";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_every_end_leaves_nothing();
    });
}

#[test]
fn every_end_on_interfaces_leaves_nothing() {
    let name = "every_end_on_interfaces_leaves_nothing";
    by_each_way(name, |job| job.assert_every_end_leaves_nothing());
}

#[test]
fn without_standard_input_it_runs_on_and_sleeps() {
    let name = "without_standard_input_it_runs_on_and_sleeps";
    by_each_way(name, |job| job.assert_sleeps_without_input());
}

#[test]
fn an_output_that_nobody_takes_ends_it() {
    sandbox::run("an_output_that_nobody_takes_ends_it", |sandbox| {
        let _interfaces = interfaces();
        for job in [
            simulation(sandbox),
            demuxing(sandbox, ""),
            demuxing(sandbox, "--json --interval 100ms"),
        ] {
            job.assert_ends_with_its_reader();
        }
        simulation(sandbox).assert_fails_on_a_full_disk("");
        demuxing(sandbox, "").assert_fails_on_a_full_disk("--duration 0.5");
    });
}

#[test]
fn a_signal_at_any_stage_of_the_start_ends_it() {
    let name = "a_signal_at_any_stage_of_the_start_ends_it";
    let simulated = || {
        sandbox::run(name, |sandbox| {
            let start = Duration::from_millis(900);
            simulation(sandbox).assert_signals_end_its_start(name, start);
        });
    };
    let on_interfaces = || {
        sandbox::run(name, |sandbox| {
            let _interfaces = interfaces();
            let start = Duration::from_millis(300);
            demuxing(sandbox, "").assert_signals_end_its_start(name, start);
        });
    };
    side_by_side([&simulated, &on_interfaces]);
}

#[test]
fn it_is_small_and_alone() {
    sandbox::run("it_is_small_and_alone", |sandbox| {
        let _interfaces = interfaces();
        for job in [simulation(sandbox), demuxing(sandbox, "")] {
            // 9 MiB of it are the tables of 65,536 clients, shared with the kernel.
            job.assert_small_and_alone(24 * 1024);
        }
    });
}

#[test]
fn after_kill_9_at_any_time_the_next_start_works_and_cleans_up() {
    let name = "after_kill_9_at_any_time_the_next_start_works_and_cleans_up";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_cleans_up_after_kill_9(name);
    });
}

#[test]
fn what_kill_9_left_on_interfaces_goes_at_once_or_with_the_next_run() {
    let name = "what_kill_9_left_on_interfaces_goes_at_once_or_with_the_next_run";
    by_each_way(name, |job| job.assert_cleans_up_after_kill_9(name));
}

#[test]
fn any_call_of_its_start_and_its_end_may_fail() {
    let name = "any_call_of_its_start_and_its_end_may_fail";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        demuxing(sandbox, "").assert_bears_faults(name);
    });
}

#[test]
fn it_starts_and_ends_again_and_again() {
    let name = "it_starts_and_ends_again_and_again";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_starts_and_ends(name);
    });
}

#[test]
fn what_is_not_confirmed_is_undone() {
    let name = "what_is_not_confirmed_is_undone";
    by_each_way(name, |job| job.assert_undone_unless_confirmed());
}

/// linux/capability.h
const CAP_NET_ADMIN: u64 = 1 << 12;

/// Counters are read and a reload attaches to a worker more, with what is left then.
#[test]
fn after_attaching_it_needs_no_capability() {
    let name = "after_attaching_it_needs_no_capability";
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let _interfaces = interfaces();
            let before = sandbox.snapshot();
            let file = Table::new("clients.toml", ONE_CLIENT);
            let arguments = format!("--config {} --json --interval 100ms", file.path());
            let command = TOOL.command(&format!("{arguments} --attach {attach}"));
            let mut process = sandbox.start(command);
            process.wait_for_error("Bringing 1 client ", ENDS_WITHIN);
            if attach == "tcx" {
                process.assert_powerless();
            } else {
                // Filters are taken off by the process itself.
                let only = vec![("vlan_learning".to_owned(), CAP_NET_ADMIN)];
                assert_eq!(process.capabilities(), only);
            }
            file.write(TWO_CLIENTS);
            process.signal(Signal::SIGHUP);
            let said = process.wait_for_error("eloaded", ENDS_WITHIN);
            assert_eq!(said, "reloaded: 1 client added, 0 removed, 1 kept");
            let report = process.next_line(ENDS_WITHIN);
            assert!(
                report.contains("\"worker\":\"w1\",\"clients\":1"),
                "{report}"
            );
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            drop(file);
            before.assert_same(&sandbox.snapshot(), attach);
        });
    };
    attaching::by_each_way(by);
}

#[test]
fn a_second_instance_is_refused_with_the_pid_of_the_first() {
    let name = "a_second_instance_is_refused_with_the_pid_of_the_first";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _interfaces = interfaces();
        let _others =
            ["trunk1", "w9"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)));
        let first = simulation(sandbox).at_work("");
        let pid = format!("pid {}", first.pid());
        TOOL.assert_refused(sandbox, "", 5, &pid);
        TOOL.assert_refused(sandbox, "--demo", 5, &pid);
        let demux = demuxing(sandbox, "").at_work("");
        let pid = format!("pid {}", demux.pid());
        for arguments in [
            OVER,
            "--trunk trunk0 --map 02:00:00:00:00:09=w9",
            "--trunk trunk1 --map 02:00:00:00:00:09=w1",
            "--trunk w0 --map 02:00:00:00:00:09=w9 --dry-run",
        ] {
            TOOL.assert_refused(sandbox, arguments, 5, &pid);
        }
        // On other interfaces it is nobody's business.
        let other = "--trunk trunk1 --map 02:00:00:00:00:01=w9 --duration 0.1";
        let other = sandbox.start(TOOL.command(other));
        other.finish(ENDS_WITHIN).assert_code(0);
        // A reload takes no interface of somebody else's either.
        let file = Table::new(
            "clients.toml",
            "[clients]\n\"02:00:00:00:00:09\" = \"w9\"\n",
        );
        let second = format!("--trunk trunk1 --config {}", file.path());
        let second = sandbox.start(TOOL.command(&second));
        second.wait_for_error("Bringing ", ENDS_WITHIN);
        file.write("[clients]\n\"02:00:00:00:00:09\" = \"w0\"\n");
        second.signal(Signal::SIGHUP);
        let said = second.wait_for_error("eloaded", ENDS_WITHIN);
        assert!(said.starts_with("not reloaded, "), "{said}");
        assert!(said.contains(&pid), "{said}");
        for process in [first, demux, second] {
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn what_the_user_has_under_our_names_is_left_alone() {
    let name = "what_the_user_has_under_our_names_is_left_alone";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        for name in ["worker1", "client2"] {
            let namespace = Namespace::new(name);
            TOOL.assert_refused(sandbox, "", 5, &format!("namespace {name}"));
            drop(namespace);
        }
        for (made, theirs) in [
            ("eth0a type veth peer name mine", "eth0a"),
            ("eth0b type bridge", "eth0b"),
            ("worker0a type veth peer name mine", "worker0a"),
        ] {
            here.ip(&format!("link add {made}"));
            TOOL.assert_refused(sandbox, "", 5, theirs);
            here.ip(&format!("link delete {theirs}"));
        }
    });
}

#[test]
fn an_interface_of_the_simulation_that_goes_ends_it() {
    let name = "an_interface_of_the_simulation_that_goes_ends_it";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let before = sandbox.snapshot();
        for (interface, words) in [
            ("eth0b", "link delete eth0b"),
            ("worker1a", "link delete worker1a"),
            ("worker0a", "link set worker0a name other0"),
            ("worker2a", "link set worker2a netns client0"),
        ] {
            let process = simulation(sandbox).at_work("");
            TOOL.assert_ends_after(process, interface, || drop(here.ip(words)));
            before.assert_same(&sandbox.snapshot(), words);
        }
        // Servers and clients keep their namespaces, whatever becomes of the names.
        let process = simulation(sandbox).at_work("");
        here.ip("netns delete worker2");
        here.ip("netns delete client2");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
        before.assert_same(&sandbox.snapshot(), "after namespaces had lost their names");
    });
}

/// Without a trunk there is nothing to do; without a worker, what the others have.
#[test]
fn an_interface_of_the_user_that_goes_ends_it_if_it_is_the_trunk() {
    let name = "an_interface_of_the_user_that_goes_ends_it_if_it_is_the_trunk";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _elsewhere = Namespace::new("elsewhere");
        for attach in attaching::ways() {
            let job = demuxing(sandbox, &format!("--attach {attach}"));
            for words in ["link delete trunk0", "link set trunk0 netns elsewhere"] {
                let _interfaces = interfaces();
                let before = sandbox.snapshot();
                let process = job.at_work("");
                TOOL.assert_ends_after(process, "trunk0", || drop(here.ip(words)));
                assert_eq!(
                    left(&before, &sandbox.snapshot()),
                    None,
                    "{attach}, {words}"
                );
            }
            for (words, said) in [
                (
                    "link set trunk0 name trunk9",
                    "trunk0 was renamed to trunk9",
                ),
                ("link delete w0", "w0 was deleted: 1 client out of reach"),
                ("link set w0 name w9", "w0 was renamed to w9"),
                (
                    "link set w0 netns elsewhere",
                    "w0 was moved to another network",
                ),
            ] {
                let _interfaces = interfaces();
                let before = sandbox.snapshot();
                let process = job.at_work("");
                here.ip(words);
                process.wait_for_error(said, AT_ONCE);
                process.signal(Signal::SIGTERM);
                process.finish(ENDS_WITHIN).assert_code(0);
                assert_eq!(
                    left(&before, &sandbox.snapshot()),
                    None,
                    "{attach}, {words}"
                );
            }
        }
    });
}

/// Pings of the trunk's far side, which are none of ours: they pass on, to whoever comes next.
fn passes(bytes: u32) -> bool {
    let mut ping: Command = Place::named("switch").command("ping");
    ping.args([
        "-n",
        "-c",
        "1",
        "-W",
        "0.3",
        "-s",
        &bytes.to_string(),
        "192.0.2.1",
    ]);
    step("run ping", ping.output()).status.success()
}

/// Somebody else's program drops what it says, whether it came before ours or after it, and as long as
/// it is there.
#[test]
fn programs_of_others_on_the_trunk_go_on() {
    sandbox::run("programs_of_others_on_the_trunk_go_on", |sandbox| {
        let here = Place::here();
        let switch = Namespace::new("switch");
        let _trunk = Veth::new((&here, "trunk0"), (&switch, "eth0"));
        here.ip("address add 192.0.2.1/24 dev trunk0");
        switch.ip("address add 192.0.2.2/24 dev eth0");
        let _workers =
            ["w0", "w1"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)));
        // Ethernet, IPv4 and ICMP headers are 42 bytes.
        let dropping = Program::dropping("others", 142);
        let assert_drops = |when: &str| {
            assert!(!passes(100), "{when}: theirs does not drop");
            assert!(passes(101), "{when}: what theirs lets through is lost");
        };
        for attach in attaching::ways() {
            let job = demuxing(sandbox, &format!("--attach {attach}"));
            let at_work = |when: &str| {
                let process = job.at_work("");
                assert_drops(when);
                process
            };
            let end = |process: Process<'_>| {
                process.signal(Signal::SIGTERM);
                process.finish(ENDS_WITHIN).assert_code(0);
            };
            // By a TCX link, theirs first, then ours first.
            if attaching::has_tcx() {
                let theirs = dropping.attach("trunk0");
                let process = at_work("their link is first");
                end(process);
                assert_drops("ours has gone");
                drop(theirs);
                let process = job.at_work("");
                assert!(passes(100));
                let theirs = dropping.attach("trunk0");
                assert_drops("our program is first");
                end(process);
                assert_drops("ours has gone again");
                drop(theirs);
            }
            // By filters, before and behind ours.
            for priority in [1, 60_000] {
                here.tc("qdisc add dev trunk0 clsact");
                dropping.filter("trunk0", priority);
                let before = sandbox.snapshot();
                let process = at_work("their filter is first");
                end(process);
                before.assert_same(&sandbox.snapshot(), "beside a filter of theirs");
                assert_drops("ours has gone from beside their filter");
                here.tc("filter delete dev trunk0 ingress");
                let process = job.at_work("");
                assert!(passes(100));
                dropping.filter("trunk0", priority);
                assert_drops("our filter is first");
                end(process);
                assert_drops("ours has gone from before their filter");
                here.tc("qdisc delete dev trunk0 clsact");
            }
        }
    });
}

#[test]
fn bad_input_changes_nothing() {
    sandbox::run("bad_input_changes_nothing", |sandbox| {
        let here = Place::here();
        let _interfaces = interfaces();
        let alone = [
            ("--clients 0", "clients"),
            ("--clients 151", "151"),
            ("--clients many", "many"),
            ("--workers 0", "workers"),
            ("--workers 65", "65"),
            ("--vlans 0-5", "1 to 4094"),
            ("--vlans 5-4095", "1 to 4094"),
            ("--vlans 9-5", "--vlans"),
            ("--vlans x", "--vlans"),
            ("--tagger magic", "magic"),
            ("--unknown wan7", "wan7"),
            ("--untagged keep", "keep"),
            ("--max-entries 0", "--max-entries"),
            ("--max-entries 65537", "--max-entries"),
            ("--exempt 172.16.1.0/24", "--exempt"),
            ("--duration 0", "--duration"),
            ("--interval 0", "--interval"),
            ("--confirm 0", "--confirm"),
            ("--attach magic", "magic"),
            ("--no-such-option", "--no-such-option"),
            ("word", "word"),
        ];
        let alone = alone.map(|(arguments, words)| (arguments, 2, words));
        TOOL.assert_each_refused(sandbox, alone);
        let of_simulation = ["--clients", "--workers", "--vlans", "--tagger"];
        let on_interfaces = alone.into_iter().filter(|(arguments, ..)| {
            let is_option = arguments.starts_with("--");
            is_option && !of_simulation.iter().any(|it| arguments.starts_with(it))
        });
        let on_interfaces = on_interfaces
            .map(|(arguments, code, words)| (format!("{OVER} {arguments}"), code, words));
        TOOL.assert_each_refused(sandbox, on_interfaces);
        let together = [
            ("--demo --trunk trunk0 --map 02:00:00:00:00:01=w0", "--demo"),
            ("--demo --duration 1", "--demo"),
            ("--demo --config /run/x.toml", "--demo"),
            ("--trunk trunk0", "--map MAC=IF or --config FILE"),
            ("--map 02:00:00:00:00:01=w0", "--trunk"),
            ("--trunk trunk0 --map", "--map"),
            ("--trunk trunk0 --map 02:00:00:00:00:01", "MAC=INTERFACE"),
            ("--trunk trunk0 --map 02:00:00:00:00:01=", "MAC=INTERFACE"),
            ("--trunk trunk0 --map 02:00=w0", "no MAC address"),
            ("--trunk trunk0 --map ff:ff:ff:ff:ff:ff=w0", "one host"),
            ("--trunk trunk0 --map 00:00:00:00:00:00=w0", "one host"),
            (
                "--trunk trunk0 --map 02:00:00:00:00:01=w0 02:00:00:00:00:01=w1",
                "there already",
            ),
            ("--trunk wan7 --map 02:00:00:00:00:01=w0", "wan7"),
            ("--trunk trunk0 --map 02:00:00:00:00:01=w7", "w7"),
            ("--trunk trunk0 --map 02:00:00:00:00:01=trunk0", "trunk0"),
            (
                "--trunk trunk0 --map 02:00:00:00:00:01=w0 --unknown trunk0",
                "trunk0",
            ),
            (
                "--trunk trunk0 --map 02:00:00:00:00:01=w0 02:00:00:00:00:02=w1 --max-entries 1",
                "--max-entries 1",
            ),
            (
                "--config /run/x.toml --trunk trunk0 --map 02:00:00:00:00:01=w0",
                "--config",
            ),
        ];
        let together = together.map(|(arguments, words)| (arguments, 2, words));
        TOOL.assert_each_refused(sandbox, together);
        // What is for the simulation says nothing on interfaces.
        let for_simulation = [
            ("--clients", "2"),
            ("--workers", "2"),
            ("--vlans", "7"),
            ("--tagger", "bpf"),
        ];
        let for_simulation =
            for_simulation.map(|(option, value)| (format!("{OVER} {option} {value}"), 2, option));
        TOOL.assert_each_refused(sandbox, for_simulation);
        // What stands on the trunk would send the trunk's frames back to it.
        here.ip("link add over0 link trunk0 type macvlan");
        let words = "over0, a worker's interface, stands on the trunk trunk0";
        let arguments = "--trunk trunk0 --map 02:00:00:00:00:01=over0";
        TOOL.assert_refused(sandbox, arguments, 2, words);
        here.ip("link delete over0");
    });
}

#[test]
fn a_bad_file_changes_nothing() {
    sandbox::run("a_bad_file_changes_nothing", |sandbox| {
        let _interfaces = interfaces();
        let mac = "\"02:00:00:00:00:01\"";
        let files = [
            (String::new(), "missing field `clients`"),
            ("this is no TOML\n[clients]\n".into(), ":1: "),
            ("guess = 1\n[clients]\n".into(), ":1: unknown field `guess`"),
            ("unknown = \"\"\n[clients]\n".into(), ":1: it is pass, drop"),
            ("unknown = \"w7\"\n[clients]\n".into(), "w7"),
            ("untagged = \"keep\"\n[clients]\n".into(), ":1: "),
            ("no_move = 1\n[clients]\n".into(), ":1: "),
            (
                "[clients]\n\"02:00\" = \"w0\"\n".into(),
                ":2: '02:00' is no",
            ),
            (format!("[clients]\n{mac} = 7\n"), ":2: a client is to have"),
            (format!("[clients]\n{mac} = \"w7\"\n"), "'w7'"),
            (format!("[clients]\n{mac} = \"trunk0\"\n"), "trunk0"),
            (
                format!("[clients]\n{mac} = \"w0\"\n\"0200.0000.0001\" = \"w1\"\n"),
                ":3: 02:00:00:00:00:01 is there already",
            ),
            (
                format!(
                    "[clients]\n{mac} = {{ worker = \"w0\", address = \"10.0.0.1\" }}\n\
                     \"02:00:00:00:00:02\" = {{ worker = \"w0\", address = \"10.0.0.1\" }}\n"
                ),
                ":3: 02:00:00:00:00:02 and 02:00:00:00:00:01 cannot both have 10.0.0.1",
            ),
            (
                format!("[clients]\n{mac} = {{ worker = \"w0\", address = \"10.0.0\" }}\n"),
                ":2: ",
            ),
        ];
        for (text, words) in &files {
            let file = Table::new("clients.toml", text);
            let arguments = format!("--trunk trunk0 --config {}", file.path());
            TOOL.assert_refused(sandbox, &arguments, 2, words);
        }
        let file = Table::new(
            "clients.toml",
            "[clients]\n\"02:00:00:00:00:01\" = \"w0\"\n",
        );
        let arguments = format!("--config {}", file.path());
        TOOL.assert_refused(sandbox, &arguments, 2, "the trunk is missing");
        TOOL.assert_refused(
            sandbox,
            "--config /run/nowhere.toml",
            2,
            "/run/nowhere.toml",
        );
        TOOL.assert_refused(sandbox, "--config /run", 2, "/run");
        step("write no text", fs::write(file.path(), [b'#', 0xff, b'\n']));
        TOOL.assert_refused(sandbox, &arguments, 2, "UTF-8");
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let name = "without_privileges_it_says_what_is_missing";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        TOOL.assert_needs_root(sandbox, ["", "--demo", OVER, "--config /run/clients.toml"]);
    });
}

#[test]
fn a_link_without_mac_addresses_is_refused() {
    let name = "a_link_without_mac_addresses_is_refused";
    if !tun::is_there() {
        return skip(name, "no /dev/net/tun");
    }
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        const INFINIBAND: u16 = 32;
        let _odd = Tun::of_type("ib0", INFINIBAND);
        let _raw = Tun::new("tun0");
        for (interface, words) in [("ib0", "InfiniBand (32)"), ("tun0", "no Ethernet header")] {
            let as_trunk = format!("--trunk {interface} --map 02:00:00:00:00:01=w0");
            TOOL.assert_refused(sandbox, &as_trunk, 4, words);
            let as_worker = format!("--trunk trunk0 --map 02:00:00:00:00:01={interface}");
            TOOL.assert_refused(sandbox, &as_worker, 4, words);
            let for_others = format!("{OVER} --unknown {interface}");
            TOOL.assert_refused(sandbox, &for_others, 4, words);
        }
    });
}

#[test]
fn vlan_devices_that_the_kernel_lacks_are_named() {
    let name = "vlan_devices_that_the_kernel_lacks_are_named";
    sandbox::run(name, |sandbox| {
        if has_vlan_devices() {
            skip(name, "this kernel has VLAN devices");
        } else {
            TOOL.assert_refused(sandbox, "--tagger device", 4, "CONFIG_VLAN_8021Q");
        }
    });
}

/// Reports that nobody reads are left out, not waited for.
#[test]
fn a_reader_that_has_stopped_is_not_waited_for() {
    let name = "a_reader_that_has_stopped_is_not_waited_for";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let pipe = "/run/reports";
        step(pipe, mkfifo(pipe, Mode::S_IRWXU));
        let tool = env!("CARGO_BIN_EXE_vlan_learning");
        let mut shell = Command::new("sh");
        let line = format!("exec {tool} {OVER} --json --interval 1ms >{pipe}");
        shell.args(["-c", &line]);
        let process = sandbox.start(shell);
        let reader = step(pipe, File::open(pipe));
        process.wait_for_error("Bringing ", READY_WITHIN);
        // A pipe holds 64 KiB, a report has 1 KiB or so.
        sleep(Duration::from_secs(1));
        process.signal(Signal::SIGTERM);
        let text = step("read", std::io::read_to_string(reader));
        process.finish(AT_ONCE).assert_code(0);
        let last = text.lines().next_back().unwrap_or_default();
        let last: Value = step(last, serde_json::from_str(last));
        assert_eq!(last["final"], true, "{last}");
        assert_ne!(last["skipped_reports"], 0, "{last}");
        step(pipe, fs::remove_file(pipe));
    });
}
