//! Life and death of the real neighbor_sharing: its lines, every way to end it at any time, and what
//! it refuses. Whatever happens, nothing of it stays.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::attaching;
use testbed::interrupted::{self, Fault};
use testbed::job::{Job, Ready, left};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox::{self, Sandbox};
use testbed::schema::Schema;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::reaches;
use testbed::tun::{self, Tun};
use testbed::{is_installed, long};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));

/// The simulation.
fn simulation(sandbox: &Sandbox) -> Job<'_> {
    let ready = Ready::Says("Press enter when finished: ");
    Job::new(sandbox, TOOL, "", ready)
}

const OVER: &str = "--wan wan0 --neighbor nb0 --lan lan0";

/// The interfaces of a user, up and with carrier. What happens to them is the test's: they go by
/// their far ends.
fn interfaces() -> [Veth; 3] {
    let here = Place::here();
    ["wan0", "nb0", "lan0"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)))
}

/// On these interfaces.
fn sharing<'a>(sandbox: &'a Sandbox, arguments: &str) -> Job<'a> {
    let arguments = format!("{OVER} {arguments}");
    Job::new(sandbox, TOOL, &arguments, Ready::SaysAside("Sharing "))
}

#[test]
fn the_lines_are_those_of_the_original() {
    sandbox::run("the_lines_are_those_of_the_original", |sandbox| {
        let process = simulation(sandbox).at_work("");
        let said = process.stdout();
        let server = "Starting netserver with host 'IN(6)ADDR_ANY' port '12865' \
                      and family AF_UNSPEC\n";
        let (servers, tool, example) = match (is_installed("netserver"), is_installed("iperf3")) {
            (true, _) => (server.repeat(5), "netperf", "netperf -H 172.16.1.100 -l 2"),
            (false, true) => (String::new(), "iperf3", "iperf3 -c 172.16.1.100 -t 10 -O 2"),
            (false, false) => (String::new(), "netperf", "ping 172.16.1.100"),
        };
        let expected = format!(
            "{servers}\
             Network ready. Create a shell in the wan0 namespace and test with {tool}\n   \
             (Neighbors are 172.16.1.100-102, and LAN clients are 172.16.1.150-151)\n \
             e.g.: ip netns exec wan0 {example}\n\
             Press enter when finished: "
        );
        assert_eq!(said, expected);
        assert_eq!(process.stderr(), "");
        process.signal(Signal::SIGTERM);
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(ended.stdout.starts_with(&expected), "{}", ended.stdout);
        assert_eq!(ended.stderr, "");
    });
}

#[test]
fn every_end_leaves_nothing() {
    sandbox::run("every_end_leaves_nothing", |sandbox| {
        simulation(sandbox).assert_every_end_leaves_nothing();
    });
}

#[test]
fn without_standard_input_it_runs_on_and_sleeps() {
    sandbox::run("without_standard_input_it_runs_on_and_sleeps", |sandbox| {
        simulation(sandbox).assert_sleeps_without_input();
    });
}

#[test]
fn an_output_that_nobody_takes_ends_it() {
    sandbox::run("an_output_that_nobody_takes_ends_it", |sandbox| {
        let _interfaces = interfaces();
        let reports = Ready::SaysAside("Press enter");
        let reports = Job::new(sandbox, TOOL, "--json --interval 100ms", reports);
        for job in [simulation(sandbox), sharing(sandbox, ""), reports] {
            job.assert_ends_with_its_reader();
        }
        simulation(sandbox).assert_fails_on_a_full_disk("");
    });
}

#[test]
fn a_signal_at_any_stage_of_the_start_ends_it() {
    let name = "a_signal_at_any_stage_of_the_start_ends_it";
    sandbox::run(name, |sandbox| {
        let start = Duration::from_millis(600);
        simulation(sandbox).assert_signals_end_its_start(name, start);
    });
}

#[test]
fn it_is_small_and_alone() {
    sandbox::run("it_is_small_and_alone", |sandbox| {
        let process = simulation(sandbox).at_work("");
        let memory = process.peak_memory_kib();
        println!("{memory} KiB at the peak");
        assert!(memory <= 15 * 1024, "{memory} KiB");
        let is_server = |command: &str| {
            let program = command.split(' ').next().unwrap_or_default();
            program.ends_with("iperf3") || program.ends_with("netserver")
        };
        let (servers, others): (Vec<_>, Vec<_>) = sandbox
            .processes()
            .into_iter()
            .partition(|(_, command)| is_server(command));
        let pids: Vec<u32> = others.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(pids, [process.pid()], "{others:?}");
        let some = is_installed("iperf3") || is_installed("netserver");
        assert_eq!(servers.len(), if some { 5 } else { 0 }, "{servers:?}");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn after_kill_9_at_any_time_the_next_start_works_and_cleans_up() {
    let name = "after_kill_9_at_any_time_the_next_start_works_and_cleans_up";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_cleans_up_after_kill_9(name);
    });
}

#[track_caller]
fn assert_killed_on_interfaces(name: &str, attach: &str) {
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let job = sharing(sandbox, &format!("--attach {attach}"));
        job.assert_cleans_up_after_kill_9(name);
    });
}

#[test]
fn tcx_links_go_with_kill_9() {
    if !attaching::has_tcx() {
        return;
    }
    assert_killed_on_interfaces("tcx_links_go_with_kill_9", "tcx");
}

#[test]
fn filters_that_kill_9_left_go_with_the_next_run() {
    assert_killed_on_interfaces("filters_that_kill_9_left_go_with_the_next_run", "clsact");
}

/// Moments differ from run to run. The messages by which filters are attached and taken off do not,
/// so that each state in between is met.
#[test]
fn filters_go_with_the_next_run_whichever_message_was_the_last() {
    let name = "filters_go_with_the_next_run_whichever_message_was_the_last";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        let arguments = format!("{OVER} --attach clsact");
        let killed = |at: Option<usize>| {
            let mut command = TOOL.command(&format!("{arguments} --duration 0.1"));
            command.stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            interrupted::run(&mut command, at.map(|at| (at, Fault::Kill)))
        };
        let whole = killed(None);
        assert_eq!(whole.code, Some(0), "traced but not killed");
        before.assert_same(&sandbox.snapshot(), "after a whole run");
        let is_message = |at: &usize| whole.calls[*at] == "sendto";
        let messages: Vec<usize> = (0..whole.calls.len()).filter(is_message).collect();
        let count = messages.len();
        let every = if long(name, "every fifth message, not each") {
            1
        } else {
            5
        };
        for (number, at) in messages.iter().enumerate().step_by(every) {
            let when = format!("killed before message {number} of {count}");
            assert_eq!(killed(Some(*at)).code, None, "{when}");
            sharing(sandbox, "--attach clsact").run();
            before.assert_same(&sandbox.snapshot(), &when);
        }
    });
}

#[test]
fn any_call_of_its_start_and_its_end_may_fail() {
    let name = "any_call_of_its_start_and_its_end_may_fail";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        sharing(sandbox, "").assert_bears_faults(name);
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
fn a_second_instance_is_refused_with_the_pid_of_the_first() {
    let name = "a_second_instance_is_refused_with_the_pid_of_the_first";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let first = simulation(sandbox).at_work("");
        let pid = format!("pid {}", first.pid());
        TOOL.assert_refused(sandbox, "", 5, &pid);
        TOOL.assert_refused(sandbox, "--demo", 5, &pid);
        let shared = sharing(sandbox, "").at_work("");
        let pid = format!("pid {}", shared.pid());
        TOOL.assert_refused(sandbox, OVER, 5, &pid);
        TOOL.assert_refused(sandbox, "--wan wan0 --neighbor lan0", 5, &pid);
        for process in [first, shared] {
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn what_the_user_has_under_our_names_is_left_alone() {
    sandbox::run(
        "what_the_user_has_under_our_names_is_left_alone",
        |sandbox| {
            let here = Place::here();
            let namespace = Namespace::new("neighbor1");
            TOOL.assert_refused(sandbox, "", 5, "namespace neighbor1");
            drop(namespace);
            here.ip("link add br100 type bridge");
            TOOL.assert_refused(sandbox, "", 5, "br100");
            here.ip("link delete br100");
            here.ip("link add wan0a type veth peer name mine");
            TOOL.assert_refused(sandbox, "", 5, "wan0a");
            here.ip("link delete wan0a");
        },
    );
}

#[test]
fn an_interface_of_the_simulation_that_goes_ends_it() {
    sandbox::run(
        "an_interface_of_the_simulation_that_goes_ends_it",
        |sandbox| {
            let here = Place::here();
            let before = sandbox.snapshot();
            for (interface, words) in [
                ("neighbor1a", "link delete neighbor1a"),
                ("local0a", "link set local0a name other0"),
                ("neighbor2a", "link set neighbor2a netns local0"),
                ("wan0a", "netns delete wan0"),
            ] {
                let process = simulation(sandbox).at_work("");
                TOOL.assert_ends_after(process, interface, || drop(here.ip(words)));
                before.assert_same(&sandbox.snapshot(), words);
            }
        },
    );
}

#[test]
fn an_interface_of_the_user_that_goes_ends_it() {
    sandbox::run("an_interface_of_the_user_that_goes_ends_it", |sandbox| {
        let here = Place::here();
        let _elsewhere = Namespace::new("elsewhere");
        for attach in attaching::ways() {
            for (interface, words) in [
                ("wan0", "link delete wan0"),
                ("nb0", "link delete nb0"),
                ("lan0", "link set lan0 name lan9"),
                ("nb0", "link set nb0 netns elsewhere"),
            ] {
                let _interfaces = interfaces();
                let before = sandbox.snapshot();
                let process = sharing(sandbox, &format!("--attach {attach}")).at_work("");
                TOOL.assert_ends_after(process, interface, || drop(here.ip(words)));
                assert_eq!(
                    left(&before, &sandbox.snapshot()),
                    None,
                    "{attach}, {words}"
                );
            }
        }
    });
}

/// A lock and two links for each: the usual 1,024 open files are used up by 340 interfaces.
#[test]
fn more_interfaces_than_open_files_are_usual_take_part() {
    let name = "more_interfaces_than_open_files_are_usual_take_part";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let here = Place::here();
        let more: Vec<Veth> = (0..30)
            .map(|number| {
                Veth::new(
                    (&here, &format!("far{number}")),
                    (&here, &format!("n{number}")),
                )
            })
            .collect();
        let mut limited = Command::new("sh");
        let tool = TOOL
            .command("")
            .get_program()
            .to_string_lossy()
            .into_owned();
        let arguments = "--wan wan0 --lan lan0 --neighbor nb0 n? n??";
        limited.args(["-c", &format!("ulimit -S -n 64; exec {tool} {arguments}")]);
        let process = sandbox.start(limited);
        process.wait_for_error("Sharing ", READY_WITHIN);
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
        drop(more);
    });
}

#[test]
fn bad_input_changes_nothing() {
    sandbox::run("bad_input_changes_nothing", |sandbox| {
        let _interfaces = interfaces();
        let alone = [
            ("--wan wan7 --neighbor nb0", 2, "wan7"),
            ("--wan wan* --neighbor nb0", 2, "'wan*' is a pattern"),
            ("--wan wan0 --neighbor nb7", 2, "nb7"),
            ("--wan wan0 --neighbor nb0 --lan x*", 2, "x*"),
            ("--wan wan0 --neighbor wan0", 2, "wan0"),
            ("--wan wan0 --neighbor nb0 --lan nb0", 2, "nb0"),
            ("--wan wan0 --neighbor nb0 --lan wan0", 2, "wan0"),
            ("--wan wan0", 2, "--neighbor"),
            ("--neighbor nb0", 2, "--wan"),
            ("--neighbor-rate 0", 2, "--neighbor-rate"),
            ("--rest-rate 0kbit", 2, "--rest-rate"),
            ("--rest-rate fast", 2, "fast"),
            ("--burst 1513b", 2, "1513b"),
            ("--burst 0", 2, "--burst"),
            ("--demo --wan wan0 --neighbor nb0", 2, "--demo"),
            ("--exempt 172.16.1.0/33", 2, "172.16.1.0/33"),
            ("--neighbor-net 172.16.1", 2, "172.16.1"),
            ("--duration 0", 2, "--duration"),
            ("--interval 0", 2, "--interval"),
            ("--confirm 0", 2, "--confirm"),
            ("--max-entries 0", 2, "--max-entries"),
            ("--max-entries 70000", 2, "--max-entries"),
            ("--max-entries 4", 2, "4"),
            ("--no-such-option", 2, "--no-such-option"),
            ("word", 2, "word"),
        ];
        TOOL.assert_each_refused(sandbox, alone);
        // A share of four addresses is enough for two ports.
        let on_interfaces = alone.into_iter().filter(|(arguments, ..)| {
            let named = arguments.contains("--wan") || arguments.contains("--neighbor n");
            !named && *arguments != "--max-entries 4"
        });
        let on_interfaces = on_interfaces
            .map(|(arguments, code, words)| (format!("{OVER} {arguments}"), code, words));
        TOOL.assert_each_refused(sandbox, on_interfaces);
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    sandbox::run("without_privileges_it_says_what_is_missing", |sandbox| {
        let _interfaces = interfaces();
        TOOL.assert_needs_root(sandbox, ["", "--demo", OVER]);
    });
}

#[test]
fn without_sysfs_it_says_what_is_missing() {
    sandbox::run("without_sysfs_it_says_what_is_missing", |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        let tool = TOOL
            .command("")
            .get_program()
            .to_string_lossy()
            .into_owned();
        for arguments in ["", OVER] {
            let mut elsewhere = Command::new("unshare");
            let script = format!("mount -n -t tmpfs none /sys && exec {tool} {arguments}");
            elsewhere.args(["-m", "sh", "-c", &script]);
            let ended = sandbox.start(elsewhere).finish(ENDS_WITHIN);
            ended.assert_code(1);
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
            assert!(
                ended.stderr.contains("is /sys mounted?"),
                "{}",
                ended.stderr
            );
            before.assert_same(&sandbox.snapshot(), arguments);
        }
    });
}

#[test]
fn a_link_that_is_not_parsed_is_refused_by_its_type() {
    sandbox::run(
        "a_link_that_is_not_parsed_is_refused_by_its_type",
        |sandbox| {
            let _interfaces = interfaces();
            if !tun::is_there() {
                let name = "a_link_that_is_not_parsed_is_refused_by_its_type";
                testbed::skip(name, "no /dev/net/tun");
                return;
            }
            const INFINIBAND: u16 = 32;
            let _odd = Tun::of_type("ib0", INFINIBAND);
            let words = "InfiniBand (32)";
            TOOL.assert_refused(sandbox, "--wan ib0 --neighbor nb0", 4, words);
            TOOL.assert_refused(sandbox, "--wan wan0 --neighbor ib0", 4, words);
        },
    );
}

#[test]
fn what_is_not_confirmed_is_undone() {
    sandbox::run("what_is_not_confirmed_is_undone", |sandbox| {
        let _interfaces = interfaces();
        for attach in attaching::ways() {
            let job = sharing(sandbox, &format!("--attach {attach}"));
            job.assert_undone_unless_confirmed();
        }
    });
}

#[test]
fn after_attaching_it_needs_no_capability() {
    // Filters are taken off by the process itself, so with them it keeps one.
    if !attaching::has_tcx() {
        return;
    }
    sandbox::run("after_attaching_it_needs_no_capability", |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        let mut process = sharing(sandbox, "--attach tcx").at_work("--json --interval 200ms");
        process.assert_powerless();
        // Counters are still read, and the table tended.
        sleep(Duration::from_millis(1500));
        process.wait_for("\"final\":false", ENDS_WITHIN);
        process.write("\n");
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(ended.stdout.lines().count() > 3, "{}", ended.stdout);
        before.assert_same(&sandbox.snapshot(), "after the end without capabilities");
    });
}

/// What sends and receives for the measurement has none; the main thread undoes the network.
#[test]
fn in_the_demo_only_the_main_thread_has_capabilities() {
    let name = "in_the_demo_only_the_main_thread_has_capabilities";
    sandbox::run(name, |sandbox| {
        let process = sandbox.start(TOOL.command("--demo"));
        process.wait_for_error("measuring: 4 of ", READY_WITHIN);
        let threads = process.capabilities();
        assert_eq!(threads.len(), 5, "{threads:?}");
        let able = threads.iter().filter(|(_, caps)| *caps != 0).count();
        assert_eq!(able, 1, "{threads:?}");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn every_line_of_json_is_as_the_schema_says() {
    sandbox::run("every_line_of_json_is_as_the_schema_says", |sandbox| {
        let schema = Schema::read("docs/neighbor_sharing.schema.json");
        for arguments in ["", "--direction upload --dry-run --police-at lan"] {
            let command = format!("--json --interval 200ms --duration 2 {arguments}");
            let process = sandbox.start_with(TOOL.command(&command), Input::AtEnd, Output::Read);
            process.wait_for_error("Press enter when finished: ", READY_WITHIN);
            let wan = Place::named("wan0");
            assert!(reaches(&wan, [172, 16, 1, 100].into()));
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(0);
            let lines = schema.fitting(&ended.stdout);
            assert!(lines.len() > 5, "{}", ended.stdout);
            for (number, line) in (1..).zip(&lines) {
                assert_eq!(line["final"], number == lines.len());
                assert_eq!(line["dry_run"], arguments.contains("--dry-run"));
            }
            let last = lines.last().map_or(&Value::Null, |line| &line["addresses"]);
            assert!(last.to_string().contains("\"172.16.1.100\""), "{last}");
        }
    });
}
