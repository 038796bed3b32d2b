//! Life and death of the real tokenbucket: its lines, every way to end it at any time, and what it
//! refuses. Whatever happens, nothing of it stays.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::attaching;
use testbed::job::{Job, Ready, left};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, Tool};
use testbed::tun::{self, Tun};
use testbed::{side_by_side, skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));

/// The simulation.
fn simulation(sandbox: &Sandbox) -> Job<'_> {
    let ready = Ready::Says("Press enter when finished: ");
    Job::new(sandbox, TOOL, "", ready)
}

/// The interface of a user, up and with carrier. What happens to it is the test's: it goes by its far
/// end.
fn interface() -> Veth {
    let here = Place::here();
    Veth::new((&here, "wan0-far"), (&here, "wan0"))
}

/// At that interface.
fn limiting<'a>(sandbox: &'a Sandbox, arguments: &str) -> Job<'a> {
    let arguments = format!("--iface wan0 {arguments}");
    Job::new(
        sandbox,
        TOOL,
        &arguments,
        Ready::SaysAside("Limiting wan0 "),
    )
}

/// A run on an interface, by each way to attach, in a sandbox of its own.
#[track_caller]
fn by_each_way(name: &str, body: impl Fn(Job<'_>) + Sync) {
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let _interface = interface();
            body(limiting(sandbox, &format!("--attach {attach}")));
        });
    };
    attaching::by_each_way(by);
}

#[test]
fn it_says_what_there_is_to_see() {
    sandbox::run("it_says_what_there_is_to_see", |sandbox| {
        let process = simulation(sandbox).at_work("");
        let expected = "Network ready. The senders send to 172.16.2.5; a shell in one can send more\n \
                        e.g.: ip netns exec sender0 ping -i 0.2 172.16.2.5\n\
                        Press enter when finished: ";
        assert_eq!(process.stdout(), expected);
        process.signal(Signal::SIGTERM);
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(ended.stdout.starts_with(expected), "{}", ended.stdout);
        for words in [
            "each source: 5 tokens, 1 a second",
            "sender2   172.16.2.102",
        ] {
            assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
        }
        assert_eq!(ended.stderr, "");
    });
}

#[test]
fn every_end_of_the_simulation_leaves_nothing() {
    let name = "every_end_of_the_simulation_leaves_nothing";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_every_end_leaves_nothing();
    });
}

#[test]
fn every_end_on_an_interface_leaves_nothing() {
    let name = "every_end_on_an_interface_leaves_nothing";
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
        let _interface = interface();
        for job in [
            simulation(sandbox),
            limiting(sandbox, ""),
            limiting(sandbox, "--json --interval 100ms"),
        ] {
            job.assert_ends_with_its_reader();
        }
        simulation(sandbox).assert_fails_on_a_full_disk("");
        limiting(sandbox, "").assert_fails_on_a_full_disk("--duration 0.5");
        for once in ["--show-xfsm", "--show-xfsm --xfsm port_knocking"] {
            let start = |output| sandbox.start_with(TOOL.command(once), Input::Open, output);
            start(Output::Broken).finish(ENDS_WITHIN).assert_code(0);
            let full = start(Output::Full).finish(ENDS_WITHIN);
            full.assert_code(1);
            assert!(full.stderr.contains("No space left"), "{}", full.stderr);
        }
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
    let on_an_interface = || {
        sandbox::run(name, |sandbox| {
            let _interface = interface();
            let start = Duration::from_millis(300);
            limiting(sandbox, "").assert_signals_end_its_start(name, start);
        });
    };
    side_by_side([&simulated, &on_an_interface]);
}

#[test]
fn it_is_small_and_alone() {
    sandbox::run("it_is_small_and_alone", |sandbox| {
        let _interface = interface();
        for job in [simulation(sandbox), limiting(sandbox, "")] {
            job.assert_small_and_alone(15 * 1024);
        }
    });
}

#[test]
fn after_kill_9_at_any_time_the_next_start_works_and_cleans_up() {
    let name = "after_kill_9_at_any_time_the_next_start_works_and_cleans_up";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_cleans_up_after_kill_9(name)
    });
}

#[test]
fn what_kill_9_left_on_an_interface_goes_at_once_or_with_the_next_run() {
    let name = "what_kill_9_left_on_an_interface_goes_at_once_or_with_the_next_run";
    by_each_way(name, |job| job.assert_cleans_up_after_kill_9(name));
}

#[test]
fn any_call_of_its_start_and_its_end_may_fail() {
    let name = "any_call_of_its_start_and_its_end_may_fail";
    sandbox::run(name, |sandbox| {
        let _interface = interface();
        limiting(sandbox, "").assert_bears_faults(name);
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

#[test]
fn after_attaching_it_needs_no_capability() {
    // Filters are taken off by the process itself, so with them it keeps one.
    if !attaching::has_tcx() {
        return;
    }
    sandbox::run("after_attaching_it_needs_no_capability", |sandbox| {
        let _interface = interface();
        let job = limiting(sandbox, "--attach tcx");
        let before = sandbox.snapshot();
        let mut process = job.at_work("--json --interval 200ms");
        process.assert_powerless();
        // Counters are still read, and the table tended.
        for _ in 0..8 {
            process.wait_for("\"final\":false", ENDS_WITHIN);
        }
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
        before.assert_same(&sandbox.snapshot(), "after the end without capabilities");
    });
}

#[test]
fn a_second_instance_is_refused_with_the_pid_of_the_first() {
    let name = "a_second_instance_is_refused_with_the_pid_of_the_first";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _interface = interface();
        let _other = Veth::new((&here, "wan1"), (&here, "wan1-far"));
        let first = simulation(sandbox).at_work("");
        let pid = format!("pid {}", first.pid());
        TOOL.assert_refused(sandbox, "", 5, &pid);
        TOOL.assert_refused(sandbox, "--demo", 5, &pid);
        let shared = limiting(sandbox, "").at_work("");
        let pid = format!("pid {}", shared.pid());
        for arguments in [
            "wan0",
            "wan0 --egress",
            "wan1 wan0",
            "wan* --dry-run",
            "wan0 --pin",
        ] {
            TOOL.assert_refused(sandbox, &format!("--iface {arguments}"), 5, &pid);
        }
        // On another interface it is nobody's business.
        let other = "--iface wan1 --duration 0.1";
        let other = sandbox.start(TOOL.command(other));
        other.finish(ENDS_WITHIN).assert_code(0);
        for process in [first, shared] {
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
        let namespace = Namespace::new("sender1");
        TOOL.assert_refused(sandbox, "", 5, "namespace sender1");
        drop(namespace);
        for (made, theirs) in [
            ("br200 type bridge", "br200"),
            ("sender0a type veth peer name mine", "sender0a"),
        ] {
            here.ip(&format!("link add {made}"));
            TOOL.assert_refused(sandbox, "", 5, theirs);
            here.ip(&format!("link delete {theirs}"));
        }
        // A program of ours by its name only.
        let _interface = interface();
        here.tc("qdisc add dev wan0 clsact");
        let stranger = testbed::others::Program::answering("tokenbucket", testbed::others::DROPS);
        stranger.filter("wan0", 7);
        for command in ["status", "set --tokens 9", "detach"] {
            let command = format!("{command} --iface wan0");
            TOOL.assert_refused(sandbox, &command, 2, "no tokenbucket is attached");
        }
        here.tc("qdisc delete dev wan0 clsact");
    });
}

#[test]
fn an_interface_of_the_simulation_that_goes_ends_it() {
    let name = "an_interface_of_the_simulation_that_goes_ends_it";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let before = sandbox.snapshot();
        for (interface, words) in [
            ("sender1a", "link delete sender1a"),
            ("sender0a", "link set sender0a name other0"),
            ("sender2a", "link set sender2a netns receiver"),
        ] {
            let process = simulation(sandbox).at_work("");
            TOOL.assert_ends_after(process, interface, || drop(here.ip(words)));
            before.assert_same(&sandbox.snapshot(), words);
        }
        // A namespace lives on without its name while a sender sends from it.
        let process = simulation(sandbox).at_work("");
        here.ip("netns delete sender2");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
        before.assert_same(&sandbox.snapshot(), "after a namespace had lost its name");
    });
}

#[test]
fn an_interface_of_the_user_that_goes_ends_it() {
    let name = "an_interface_of_the_user_that_goes_ends_it";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _elsewhere = Namespace::new("elsewhere");
        for attach in attaching::ways() {
            for words in [
                "link delete wan0",
                "link set wan0 name wan9",
                "link set wan0 netns elsewhere",
            ] {
                let _interface = interface();
                let before = sandbox.snapshot();
                let process = limiting(sandbox, &format!("--attach {attach}")).at_work("");
                TOOL.assert_ends_after(process, "wan0", || drop(here.ip(words)));
                let left = left(&before, &sandbox.snapshot());
                assert_eq!(left, None, "{attach}, {words}");
            }
        }
    });
}

#[test]
fn bad_input_changes_nothing() {
    sandbox::run("bad_input_changes_nothing", |sandbox| {
        let here = Place::here();
        let _interface = interface();
        let _other = Veth::new((&here, "wan1"), (&here, "wan1-far"));
        let file = |name: &str, text: &str| step(name, fs::write(format!("/run/{name}"), text));
        file("no.toml", "name = \"x\"\nthis is no TOML\n");
        file("unknown.toml", "name = \"x\"\nabout = \"x\"\nguess = 1\n");
        let machine = "src/tokenbucket/machines/tokenbucket.toml";
        let machine = step(machine, fs::read_to_string(machine));
        let wrong = machine.replacen("action = \"drop\"", "action = \"delay\"", 1);
        let line = wrong.lines().position(|line| line.contains("\"delay\""));
        let line = format!("/run/action.toml:{}", line.unwrap_or_default() + 1);
        file("action.toml", &wrong);
        let alone = [
            ("--iface wan7", "wan7"),
            ("--iface x*", "x*"),
            ("--iface", "--iface"),
            ("--tokens 0", "at least 1 token"),
            ("--tokens -1", "'-1'"),
            ("--tokens many", "many"),
            ("--rate 0/s", "0/s"),
            ("--rate 5/", "5/"),
            ("--rate fast", "fast"),
            ("--rate 0bit", "0bit"),
            ("--burst 32kb", "--burst is for rates in bytes"),
            ("--tokens 5 --burst 32kb", "--burst is for rates in bytes"),
            ("--rate 1mbit --tokens 5", "--tokens"),
            ("--rate 1mbit --burst 0", "--burst"),
            ("--rate 1mbit --xfsm port_knocking", "--xfsm"),
            ("--tokens 5 --xfsm port_knocking", "has no tokens"),
            ("--count segments --xfsm port_knocking", "segment"),
            ("--key nonsense", "nonsense"),
            ("--key src/33", "src/33"),
            ("--key src/24,/129", "src/24,/129"),
            ("--count bytes", "bytes"),
            ("--xfsm /run/nowhere.toml", "/run/nowhere.toml"),
            ("--xfsm /run", "/run"),
            ("--xfsm /run/no.toml", "/run/no.toml:2"),
            ("--xfsm /run/unknown.toml", "/run/unknown.toml:3"),
            ("--xfsm /run/action.toml", &line),
            ("--max-entries 0", "--max-entries"),
            ("--max-entries 16777217", "--max-entries"),
            ("--exempt 172.16.1.0/33", "172.16.1.0/33"),
            ("--duration 0", "--duration"),
            ("--interval 0", "--interval"),
            ("--confirm 0", "--confirm"),
            ("--attach magic", "magic"),
            ("--no-such-option", "--no-such-option"),
            ("word", "word"),
            ("status", "--iface"),
            ("set --iface wan0 --rate never", "never"),
        ];
        let alone = alone.map(|(arguments, words)| (arguments, 2, words));
        TOOL.assert_each_refused(sandbox, alone);
        let on_an_interface = alone.into_iter().filter(|(arguments, ..)| {
            let is_option = arguments.starts_with("--");
            is_option && !arguments.contains("--iface")
        });
        let on_an_interface = on_an_interface
            .map(|(arguments, code, words)| (format!("--iface wan0 {arguments}"), code, words));
        TOOL.assert_each_refused(sandbox, on_an_interface);
        let together = [
            ("--egress", "--iface"),
            ("--pin", "--iface"),
            ("--pin-legacy", "--iface"),
            ("--demo --iface wan0", "--demo"),
            ("--demo --duration 1", "--demo"),
            ("--iface wan0 wan1 --pin", "--pin takes one interface"),
            ("--iface wan* --pin-legacy", "--pin takes one interface"),
            ("--iface wan0 --pin --confirm 5", "--confirm"),
            ("--iface wan0 status --iface wan0", "status"),
            ("status --iface wan7", "wan7"),
            ("set --iface wan7 --tokens 9", "wan7"),
            ("detach --iface wan7", "wan7"),
        ];
        let together = together.map(|(arguments, words)| (arguments, 2, words));
        TOOL.assert_each_refused(sandbox, together);
        for name in ["no.toml", "unknown.toml", "action.toml"] {
            step(name, fs::remove_file(format!("/run/{name}")));
        }
    });
}

/// What comes in by a bridge's port comes in by the bridge; what comes in by a device on top of another
/// comes in by that one.
#[test]
fn no_packet_is_charged_twice() {
    sandbox::run("no_packet_is_charged_twice", |sandbox| {
        let here = Place::here();
        let _interface = interface();
        here.ip("link add br7 type bridge");
        here.ip("link set wan0 master br7");
        here.ip("link set br7 up");
        for patterns in ["br7 wan0", "wan0 br7"] {
            let arguments = format!("--iface {patterns} --duration 0.1");
            let ended = sandbox.start(TOOL.command(&arguments)).finish(ENDS_WITHIN);
            ended.assert_code(0);
            let words = "wan0 is left out: it is a port of br7, which sees its packets\n";
            assert!(ended.stderr.contains(words), "{}", ended.stderr);
            assert!(ended.stderr.contains("Limiting br7 "), "{}", ended.stderr);
        }
        here.ip("link set wan0 nomaster");
        here.ip("link delete br7");
        here.ip("link add over7 link wan0 type macvlan");
        for patterns in ["over7 wan0", "wan0 over7"] {
            let words = "stands on wan0";
            TOOL.assert_refused(sandbox, &format!("--iface {patterns}"), 2, words);
        }
        // Twice the same is once.
        let twice = sandbox.start(TOOL.command("--iface wan0 wan0 --duration 0.1"));
        twice.finish(ENDS_WITHIN).assert_code(0);
        here.ip("link delete over7");
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let name = "without_privileges_it_says_what_is_missing";
    sandbox::run(name, |sandbox| {
        let _interface = interface();
        let calls = [
            "",
            "--demo",
            "--iface wan0",
            "--iface wan0 --pin",
            "status --iface wan0",
            "set --iface wan0 --tokens 9",
            "detach --iface wan0",
        ];
        TOOL.assert_needs_root(sandbox, calls);
    });
}

#[test]
fn a_link_that_is_not_parsed_is_refused_by_its_type() {
    let name = "a_link_that_is_not_parsed_is_refused_by_its_type";
    if !tun::is_there() {
        return skip(name, "no /dev/net/tun");
    }
    sandbox::run(name, |sandbox| {
        const INFINIBAND: u16 = 32;
        let _odd = Tun::of_type("ib0", INFINIBAND);
        TOOL.assert_refused(sandbox, "--iface ib0", 4, "InfiniBand (32)");
    });
}
