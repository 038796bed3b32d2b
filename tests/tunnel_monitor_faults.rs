//! Life and death of the real tunnel_monitor: every way to end it at any time, what it refuses, and what
//! it survives. Whatever happens, nothing of it stays.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{gettid, mkfifo};
use serde_json::Value;
use testbed::job::{Job, Ready};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{AT_ONCE, ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::tun::{self, Tun};
use testbed::{side_by_side, skip, step};

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));

/// Hosts enough for all that a life has.
fn simulation(sandbox: &Sandbox) -> Job<'_> {
    let ready = Ready::Says("Press enter to quit:");
    Job::new(sandbox, TOOL, "--hosts 3 --vnis 2", ready)
}

/// Interfaces of a user, up and with carrier.
fn interfaces() -> [Veth; 2] {
    let here = Place::here();
    ["up0", "up1"].map(|name| Veth::new((&here, name), (&here, &format!("{name}-far"))))
}

/// On these interfaces.
fn monitoring<'a>(sandbox: &'a Sandbox, arguments: &str) -> Job<'a> {
    let arguments = format!("--iface up0 up1 {arguments}");
    Job::new(sandbox, TOOL, &arguments, Ready::SaysAside("HTTP on "))
}

/// The same by each way to attach, in a sandbox of its own.
#[track_caller]
fn by_each_way(name: &str, body: impl Fn(Job<'_>) + Sync) {
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let _interfaces = interfaces();
            body(monitoring(sandbox, &format!("--attach {attach}")));
        });
    };
    side_by_side([&|| by("tcx"), &|| by("clsact")]);
}

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
            monitoring(sandbox, ""),
            monitoring(sandbox, "--json --interval 1s"),
        ] {
            job.assert_ends_with_its_reader();
        }
        simulation(sandbox).assert_fails_on_a_full_disk("");
        monitoring(sandbox, "").assert_fails_on_a_full_disk("--duration 0.5");
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
            monitoring(sandbox, "").assert_signals_end_its_start(name, start);
        });
    };
    side_by_side([&simulated, &on_interfaces]);
}

#[test]
fn it_is_small_and_alone() {
    sandbox::run("it_is_small_and_alone", |sandbox| {
        let _interfaces = interfaces();
        // A debug build; `make bench` has the figure of a release build.
        monitoring(sandbox, "").assert_small_and_alone(40 * 1024);
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
        monitoring(sandbox, "").assert_bears_faults(name);
    });
}

#[test]
fn it_starts_and_ends_again_and_again() {
    let name = "it_starts_and_ends_again_and_again";
    sandbox::run(name, |sandbox| {
        simulation(sandbox).assert_starts_and_ends(name);
    });
}

/// linux/capability.h
const CAP_NET_ADMIN: u64 = 1 << 12;

/// What each of its threads may do.
fn may(process: &Process<'_>) -> Vec<u64> {
    let threads = process.capabilities();
    threads.into_iter().map(|(_, caps)| caps).collect()
}

/// Interfaces that come later are attached to with what is left then.
#[test]
fn after_attaching_it_needs_no_capability() {
    let name = "after_attaching_it_needs_no_capability";
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let here = Place::here();
            let _interfaces = interfaces();
            let before = sandbox.snapshot();
            let job = monitoring(sandbox, &format!("new* --attach {attach}"));
            let mut process = job.at_work("");
            let expected = if attach == "tcx" { 0 } else { CAP_NET_ADMIN };
            let threads = may(&process);
            assert_eq!(threads.len(), 2, "the main thread and that of HTTP");
            assert_eq!(threads.iter().max(), Some(&expected));
            assert!(threads.contains(&0), "{threads:?}");
            let new = Veth::new((&here, "new0"), (&here, "far"));
            process.wait_for_error("new0 is monitored now", AT_ONCE);
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            drop(new);
            before.assert_same(&sandbox.snapshot(), attach);
        });
    };
    side_by_side([&|| by("tcx"), &|| by("clsact")]);
}

/// The thread that serves HTTP never has a capability, also where the main thread needs some for its end.
#[test]
fn in_the_simulation_only_the_main_thread_has_capabilities() {
    let name = "in_the_simulation_only_the_main_thread_has_capabilities";
    sandbox::run(name, |sandbox| {
        let process = simulation(sandbox).at_work("");
        let threads = may(&process);
        assert_eq!(threads.len(), 2, "the main thread and that of HTTP");
        assert!(threads.contains(&0), "{threads:?}");
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn a_second_instance_is_refused_with_the_pid_of_the_first() {
    let name = "a_second_instance_is_refused_with_the_pid_of_the_first";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _interfaces = interfaces();
        let _other = Veth::new((&here, "up2"), (&here, "up2-far"));
        let first = simulation(sandbox).at_work("");
        let pid = format!("pid {}", first.pid());
        TOOL.assert_refused(sandbox, "--listen 127.0.0.1:8081", 5, &pid);
        let monitor = monitoring(sandbox, "--listen 127.0.0.1:8082").at_work("");
        let pid = format!("pid {}", monitor.pid());
        TOOL.assert_refused(sandbox, "--iface up1 up2 --listen off", 5, &pid);
        // On other interfaces it is nobody's business.
        let other = "--iface up2 --listen off --duration 0.1";
        let other = sandbox.start(TOOL.command(other));
        other.finish(ENDS_WITHIN).assert_code(0);
        // An interface of somebody else's is not taken when it comes under a pattern, either.
        let later = sandbox.start(TOOL.command("--iface up2 later* --listen off"));
        later.wait_for_error("no interface matches 'later*' yet", READY_WITHIN);
        here.ip("link set up1 name later1");
        later.wait_for_error("later1 is monitored now", AT_ONCE);
        for process in [first, monitor, later] {
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
        here.ip("link set later1 name up1");
    });
}

#[test]
fn a_port_that_is_taken_is_a_conflict() {
    sandbox::run("a_port_that_is_taken_is_a_conflict", |sandbox| {
        let _interfaces = interfaces();
        let taken = step("listen", TcpListener::bind("127.0.0.1:8080"));
        TOOL.assert_refused(
            sandbox,
            "--iface up0",
            5,
            "port 8080 of 127.0.0.1 is taken by",
        );
        TOOL.assert_refused(sandbox, "", 5, "port 8080 of 0.0.0.0 is taken by");
        drop(taken);
    });
}

#[test]
fn what_the_user_has_under_our_names_is_left_alone() {
    let name = "what_the_user_has_under_our_names_is_left_alone";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let namespace = Namespace::new("host2");
        TOOL.assert_refused(sandbox, "", 5, "namespace host2");
        drop(namespace);
        for (made, theirs) in [
            ("br100 type bridge", "br100"),
            ("host0a type veth peer name mine", "host0a"),
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
        for (at, words) in [
            (Place::named("host0"), "link delete eth0"),
            (here.clone(), "link delete host0a"),
            (Place::named("host0"), "link set eth0 name other0"),
        ] {
            let process = simulation(sandbox).at_work("");
            TOOL.assert_ends_after(process, "eth0", || drop(at.ip(words)));
            before.assert_same(&sandbox.snapshot(), words);
        }
    });
}

/// A monitor waits: what goes may come back.
#[test]
fn interfaces_of_the_user_come_and_go() {
    let name = "interfaces_of_the_user_come_and_go";
    let by = |attach: &str| {
        sandbox::run(name, |sandbox| {
            let here = Place::here();
            let elsewhere = Namespace::new("elsewhere");
            let _interfaces = interfaces();
            let process = monitoring(sandbox, &format!("pod* --attach {attach}")).at_work("");
            let says = |words: &str| drop(process.wait_for_error(words, AT_ONCE));
            let said = process.stderr();
            assert!(said.contains("no interface matches 'pod*' yet"), "{said}");
            let pod = Veth::new((&here, "pod7"), (&here, "far7"));
            says("pod7 is monitored now");
            drop(pod);
            says("pod7 is gone; it is monitored again when it is back");
            here.ip("link set up1 netns elsewhere");
            says("up1 is gone; it is monitored again when it is back");
            // The sandbox is where this thread is.
            elsewhere.ip(&format!("link set up1 netns {}", gettid()));
            says("up1 is monitored now");
            here.ip("link set up0 name spare0");
            says("up0 is no longer monitored");
            here.ip("link set spare0 name pod0");
            says("pod0 is monitored now");
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
            here.ip("link set pod0 name up0");
        });
    };
    side_by_side([&|| by("tcx"), &|| by("clsact")]);
}

#[test]
fn without_any_interface_it_waits_and_says_so() {
    sandbox::run("without_any_interface_it_waits_and_says_so", |sandbox| {
        let command = TOOL.command("--iface pod* --listen off --duration 0.3");
        let ended = sandbox.start(command).finish(ENDS_WITHIN);
        ended.assert_code(0);
        let said = &ended.stdout;
        assert!(said.contains(" s on no interface; rates"), "{said}");
    });
}

/// A port of a bridge that is monitored itself would count everything twice.
#[test]
fn ports_of_a_monitored_bridge_are_left_out_also_when_they_become_so_later() {
    let name = "ports_of_a_monitored_bridge_are_left_out_also_when_they_become_so_later";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _interfaces = interfaces();
        here.ip("link add br7 type bridge");
        here.ip("link set up0 master br7");
        let command = TOOL.command("--iface up* br7 --listen off");
        let process = sandbox.start(command);
        process.wait_for_error("up0 is left out: it is a port of br7", READY_WITHIN);
        here.ip("link set up1 master br7");
        process.wait_for_error("up1 is no longer monitored", AT_ONCE);
        here.ip("link delete br7");
        process.wait_for_error("up1 is monitored now", AT_ONCE);
        process.signal(Signal::SIGTERM);
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn bad_input_changes_nothing() {
    sandbox::run("bad_input_changes_nothing", |sandbox| {
        let _interfaces = interfaces();
        let on_interfaces = [
            ("--port 0", "--port"),
            ("--port 65536", "--port"),
            ("--port 1,2,3,4,5,6,7,8,9", "8 ports at most"),
            ("--max-entries 0", "--max-entries"),
            ("--max-entries 1048577", "--max-entries"),
            ("--forget-after 9s", "--forget-after must be two intervals"),
            ("--interval 0", "--interval"),
            ("--interval 500ms", "whole seconds"),
            ("--duration 0", "--duration"),
            ("--listen nowhere", "--listen"),
            ("--dry-run", "nothing is dropped here"),
            ("--confirm 5", "nothing is dropped here"),
            ("--exempt 10.0.0.0/8", "nothing is dropped here"),
            ("--attach magic", "magic"),
            ("--no-such-option", "--no-such-option"),
        ];
        let both = on_interfaces.iter().flat_map(|(arguments, words)| {
            let with = format!("--iface up0 {arguments}");
            [((*arguments).to_owned(), 2, *words), (with, 2, *words)]
        });
        TOOL.assert_each_refused(sandbox, both);
        TOOL.assert_each_refused(
            sandbox,
            [
                ("--iface up7", 2, "there is no interface 'up7'"),
                ("--iface up0 up7", 2, "did you mean up0 or up1"),
                ("--iface up0 --hosts 3", 2, "--hosts"),
                ("--hosts 0", 2, "host"),
                ("--vnis 0", 2, "VNIs"),
                ("--hosts 100000", 2, "100000"),
                ("--data-dir /proc/nowhere", 1, "/proc/nowhere"),
                ("word", 2, "word"),
            ],
        );
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    let name = "without_privileges_it_says_what_is_missing";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        TOOL.assert_needs_root(sandbox, ["", "--iface up0"]);
    });
}

#[test]
fn a_link_of_a_type_that_is_not_parsed_is_refused() {
    let name = "a_link_of_a_type_that_is_not_parsed_is_refused";
    if !tun::is_there() {
        return skip(name, "no /dev/net/tun");
    }
    sandbox::run(name, |sandbox| {
        const INFINIBAND: u16 = 32;
        let _odd = Tun::of_type("ib0", INFINIBAND);
        TOOL.assert_refused(sandbox, "--iface ib0", 4, "InfiniBand (32)");
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
        let mut options = File::options();
        let flags = nix::libc::O_NONBLOCK;
        let both_ends = options.read(true).write(true).custom_flags(flags);
        let mut both_ends = step(pipe, both_ends.open(pipe));
        // Full of empty lines, before the first report.
        while both_ends.write(&[b'\n'; 4096]).is_ok() {}
        let tool = env!("CARGO_BIN_EXE_tunnel_monitor");
        let mut shell = Command::new("sh");
        let line = format!("exec {tool} --iface up0 --listen off --json --interval 1s >{pipe}");
        shell.args(["-c", &line]);
        let process = sandbox.start(shell);
        let reader = step(pipe, File::open(pipe));
        drop(both_ends);
        process.wait_for_error("Taking ", READY_WITHIN);
        sleep(Duration::from_secs(3));
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
