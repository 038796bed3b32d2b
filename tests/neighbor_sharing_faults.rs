//! Life and death of the real neighbor_sharing: its lines, every way to end it at any time, and what
//! it refuses. Whatever happens, nothing of it stays.

#[path = "../netsetup/tests/kill_point/mod.rs"]
mod kill_point;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Ended, Input, Output, Process};
use testbed::sandbox::{self, Sandbox};
use testbed::traffic::reaches;
use testbed::{long, schema, step};

/// Generous, because a timing is no test: `make bench` has the figures.
const READY_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// What the user is promised a second for, on a machine that has other things to do as well.
const AT_ONCE: Duration = Duration::from_secs(3);

const READY: &str = "Press enter when finished: ";
/// Nobody but root.
const NOBODY: u32 = 65534;

const TOOL: &str = env!("CARGO_BIN_EXE_neighbor_sharing");

fn tool(arguments: &str) -> Command {
    let mut command = Command::new(TOOL);
    command.args(arguments.split_whitespace());
    command
}

/// The simulation, ready.
fn simulation<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let process = sandbox.start(tool(arguments));
    process.wait_for(READY, READY_WITHIN);
    process
}

const OVER: &str = "--wan wan0 --neighbor nb0 --lan lan0";

/// The interfaces of a user, up and with carrier. What happens to them is the test's: they go by
/// their far ends.
fn interfaces() -> [Veth; 3] {
    let here = Place::here();
    ["wan0", "nb0", "lan0"].map(|name| Veth::new((&here, &format!("{name}-far")), (&here, name)))
}

/// On these interfaces, attached.
fn sharing<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let process = sandbox.start(tool(&format!("{OVER} {arguments}")));
    process.wait_for_error("Sharing ", READY_WITHIN);
    process
}

/// Exactly one line, by the program.
#[track_caller]
fn assert_one_line(ended: &Ended) {
    let Ended { stdout, stderr, .. } = ended;
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("neighbor_sharing: "), "{stderr}");
    assert_eq!(stdout, "");
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[test]
fn the_lines_are_those_of_the_original() {
    sandbox::run("the_lines_are_those_of_the_original", |sandbox| {
        let process = simulation(sandbox, "");
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
        let before = sandbox.snapshot();
        let check = |how: &str, process: Process<'_>| {
            let asked = Instant::now();
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(0);
            assert!(
                asked.elapsed() < AT_ONCE,
                "{how} took {:?}",
                asked.elapsed()
            );
            assert_eq!(ended.stderr, "", "{how}");
            before.assert_same(&sandbox.snapshot(), how);
        };
        let mut process = simulation(sandbox, "");
        process.write("\n");
        check("Enter", process);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let process = simulation(sandbox, "");
            process.signal(signal);
            check(signal.as_str(), process);
        }
        let process = simulation(sandbox, "--duration 1.5");
        let ready = Instant::now();
        let ended = process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        assert!(ready.elapsed() > Duration::from_secs(1), "ended too early");
        before.assert_same(&sandbox.snapshot(), "after --duration");
    });
}

/// User and system time of a process.
fn cpu_time(pid: u32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let stat = step(&path, fs::read_to_string(&path));
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| step(field, field.parse::<u64>()));
    // A tick is 10 ms (USER_HZ).
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[test]
fn without_standard_input_it_runs_on_and_sleeps() {
    sandbox::run("without_standard_input_it_runs_on_and_sleeps", |sandbox| {
        for input in [Input::Closed, Input::AtEnd] {
            let process = sandbox.start_with(tool(""), input, Output::Read);
            process.wait_for(READY, READY_WITHIN);
            let spent = cpu_time(process.pid());
            sleep(Duration::from_secs(3));
            let spent = cpu_time(process.pid()) - spent;
            // It looks after its table once a second.
            assert!(spent <= Duration::from_millis(150), "{input:?}: {spent:?}");
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn an_output_that_nobody_takes_ends_it() {
    sandbox::run("an_output_that_nobody_takes_ends_it", |sandbox| {
        let _interfaces = interfaces();
        for arguments in ["", OVER, "--json --interval 100ms"] {
            let before = sandbox.snapshot();
            let broken = sandbox.start_with(tool(arguments), Input::Open, Output::Broken);
            let ended = broken.finish(READY_WITHIN);
            ended.assert_code(0);
            // On interfaces it says on stderr what it does.
            assert!(!ended.stderr.contains("neighbor_sharing: "), "{ended:?}");
            before.assert_same(&sandbox.snapshot(), "after a closed output");
        }
        let before = sandbox.snapshot();
        let full = sandbox.start_with(tool(""), Input::Open, Output::Full);
        let ended = full.finish(READY_WITHIN);
        ended.assert_code(1);
        assert_one_line(&ended);
        assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
        before.assert_same(&sandbox.snapshot(), "after a full disk");
    });
}

#[test]
fn a_signal_at_any_stage_of_the_start_ends_it() {
    let name = "a_signal_at_any_stage_of_the_start_ends_it";
    sandbox::run(name, |sandbox| {
        let step = if long(name, "every 100 ms, not every 25") {
            25
        } else {
            100
        };
        let before = sandbox.snapshot();
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        for (number, after) in (0..=600).step_by(step).enumerate() {
            let signal = signals[number % signals.len()];
            let process = sandbox.start(tool(""));
            sleep(Duration::from_millis(after));
            process.signal(signal);
            let ended = process.finish(ENDS_WITHIN);
            let when = format!("{signal} after {after} ms");
            // In its very first moments it has not even taken over the signals, nor made anything.
            let too_early = after < 50 && ended.status.signal() == Some(signal as i32);
            assert!(
                ended.status.code() == Some(0) || too_early,
                "{when}: {ended:?}"
            );
            assert_eq!(ended.stderr, "", "{when}");
            before.assert_same(&sandbox.snapshot(), &when);
        }
    });
}

#[test]
fn it_is_small_and_alone() {
    sandbox::run("it_is_small_and_alone", |sandbox| {
        let process = simulation(sandbox, "");
        let ready = process.started().elapsed();
        let memory = process.peak_memory_kib();
        println!("ready after {ready:?}, {memory} KiB at the peak");
        assert!(ready < AT_ONCE, "ready only after {ready:?}");
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

/// Moments to kill at, from the start to a bit after `ready`.
fn moments(name: &str, ready: Duration) -> impl Iterator<Item = Duration> {
    let count = if long(name, "20 moments, not 100") {
        100
    } else {
        20
    };
    (0..count).map(move |number| ready * number * 11 / (count * 10))
}

fn kill_after(process: Process<'_>, after: Duration) {
    sleep(after.saturating_sub(process.started().elapsed()));
    process.signal(Signal::SIGKILL);
    let ended = process.finish(ENDS_WITHIN);
    assert_eq!(
        ended.status.signal(),
        Some(Signal::SIGKILL as i32),
        "{ended:?}"
    );
}

#[test]
fn after_kill_9_at_any_time_the_next_start_works_and_cleans_up() {
    let name = "after_kill_9_at_any_time_the_next_start_works_and_cleans_up";
    sandbox::run(name, |sandbox| {
        let before = sandbox.snapshot();
        let mut process = simulation(sandbox, "");
        let ready = process.started().elapsed();
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
        for after in moments(name, ready) {
            kill_after(sandbox.start(tool("")), after);
            let mut process = simulation(sandbox, "");
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), &format!("killed after {after:?}"));
        }
    });
}

#[track_caller]
fn assert_killed_on_interfaces(name: &str, attach: &str) {
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        let arguments = format!("--attach {attach}");
        let mut process = sharing(sandbox, &arguments);
        let ready = process.started().elapsed();
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
        before.assert_same(&sandbox.snapshot(), "after a quiet end");
        for after in moments(name, ready) {
            kill_after(sandbox.start(tool(&format!("{OVER} {arguments}"))), after);
            let mut process = sharing(sandbox, &arguments);
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), &format!("killed after {after:?}"));
        }
    });
}

#[test]
fn tcx_links_go_with_kill_9() {
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
        let killed = |at| {
            let mut command = tool(&format!("{arguments} --duration 0.1"));
            command.stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            kill_point::run(&mut command, at)
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
            let mut process = sharing(sandbox, "--attach clsact");
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), &when);
        }
    });
}

#[test]
fn it_starts_and_ends_again_and_again() {
    let name = "it_starts_and_ends_again_and_again";
    sandbox::run(name, |sandbox| {
        let times = if long(name, "5 starts, not 100") {
            100
        } else {
            5
        };
        let before = sandbox.snapshot();
        for time in 0..times {
            let mut process = simulation(sandbox, "");
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), &format!("after start {time}"));
        }
    });
}

/// Refused with this exit code, in one line with this in it, and nothing is changed.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, command: Command, code: i32, words: &str) {
    let before = sandbox.snapshot();
    let what = format!("{command:?}");
    let ended = sandbox.start(command).finish(ENDS_WITHIN);
    assert_eq!(ended.status.code(), Some(code), "{what}: {ended:?}");
    assert_one_line(&ended);
    assert!(ended.stderr.contains(words), "{what}: {}", ended.stderr);
    before.assert_same(&sandbox.snapshot(), &what);
}

#[test]
fn a_second_instance_is_refused_with_the_pid_of_the_first() {
    let name = "a_second_instance_is_refused_with_the_pid_of_the_first";
    sandbox::run(name, |sandbox| {
        let _interfaces = interfaces();
        let first = simulation(sandbox, "");
        let pid = format!("pid {}", first.pid());
        assert_refused(sandbox, tool(""), 5, &pid);
        assert_refused(sandbox, tool("--demo"), 5, &pid);
        let shared = sharing(sandbox, "");
        let pid = format!("pid {}", shared.pid());
        assert_refused(sandbox, tool(OVER), 5, &pid);
        assert_refused(sandbox, tool("--wan wan0 --neighbor lan0"), 5, &pid);
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
            assert_refused(sandbox, tool(""), 5, "namespace neighbor1");
            drop(namespace);
            here.ip("link add br100 type bridge");
            assert_refused(sandbox, tool(""), 5, "br100");
            here.ip("link delete br100");
            here.ip("link add wan0a type veth peer name mine");
            assert_refused(sandbox, tool(""), 5, "wan0a");
            here.ip("link delete wan0a");
        },
    );
}

/// Something happens to an interface: a message that names it, exit 1, and the rest is cleaned.
#[track_caller]
fn assert_ends_after(process: Process<'_>, interface: &str, what: impl FnOnce()) {
    what();
    let happened = Instant::now();
    process.wait_for_error(interface, AT_ONCE);
    let said = happened.elapsed();
    let ended = process.finish(ENDS_WITHIN);
    ended.assert_code(1);
    assert!(said < AT_ONCE, "said only after {said:?}");
    let lines: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("neighbor_sharing: "))
        .collect();
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    assert!(lines[0].contains(interface), "{}", ended.stderr);
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
                let process = simulation(sandbox, "");
                assert_ends_after(process, interface, || drop(here.ip(words)));
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
        for attach in ["tcx", "clsact"] {
            for (interface, words) in [
                ("wan0", "link delete wan0"),
                ("nb0", "link delete nb0"),
                ("lan0", "link set lan0 name lan9"),
                ("nb0", "link set nb0 netns elsewhere"),
            ] {
                let _interfaces = interfaces();
                let before = sandbox.snapshot();
                let process = sharing(sandbox, &format!("--attach {attach}"));
                assert_ends_after(process, interface, || drop(here.ip(words)));
                // The interfaces are as the user has made them; nothing of ours is on them.
                let changes = before.changes(&sandbox.snapshot());
                let ours = ["] tcx ", "] filter ", "] qdisc clsact", "file ", "process "];
                let left = changes
                    .lines()
                    .filter(|line| line.starts_with('+'))
                    .find(|line| ours.iter().any(|kind| line.contains(kind)));
                assert_eq!(left, None, "{attach}, {words}");
            }
        }
    });
}

#[test]
fn bad_input_changes_nothing() {
    sandbox::run("bad_input_changes_nothing", |sandbox| {
        let _interfaces = interfaces();
        for (arguments, code, words) in [
            ("--wan wan7 --neighbor nb0", 2, "wan7"),
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
        ] {
            let command = tool(arguments);
            assert_refused(sandbox, command, code, words);
            if !arguments.contains("--wan") && !arguments.contains("--neighbor n") {
                let command = tool(&format!("{OVER} {arguments}"));
                // A share of four addresses is enough for two ports.
                if arguments != "--max-entries 4" {
                    assert_refused(sandbox, command, code, words);
                }
            }
        }
    });
}

#[test]
fn without_privileges_it_says_what_is_missing() {
    sandbox::run("without_privileges_it_says_what_is_missing", |sandbox| {
        let _interfaces = interfaces();
        // Where nobody can reach it: a checkout may be under /root.
        let copy = "/run/neighbor_sharing";
        step("copy the tool", std::fs::copy(TOOL, copy));
        for arguments in ["", "--demo", OVER] {
            let mut command = Command::new(copy);
            command.args(arguments.split_whitespace());
            command.uid(NOBODY).gid(NOBODY);
            assert_refused(sandbox, command, 3, "CAP_BPF");
        }
        step("remove the copy", std::fs::remove_file(copy));
    });
}

#[test]
fn a_link_that_is_not_parsed_is_refused_by_its_type() {
    sandbox::run(
        "a_link_that_is_not_parsed_is_refused_by_its_type",
        |sandbox| {
            let _interfaces = interfaces();
            if !Path::new("/dev/net/tun").exists() {
                let name = "a_link_that_is_not_parsed_is_refused_by_its_type";
                testbed::skip(name, "no /dev/net/tun");
                return;
            }
            make_infiniband("ib0");
            let words = "InfiniBand (32)";
            assert_refused(sandbox, tool("--wan ib0 --neighbor nb0"), 4, words);
            assert_refused(sandbox, tool("--wan wan0 --neighbor ib0"), 4, words);
            Place::here().ip("link delete ib0");
        },
    );
}

/// A tun device that says to be of another type.
fn make_infiniband(name: &str) {
    const INFINIBAND: libc::c_ulong = 32;
    Place::here().ip(&format!("tuntap add dev {name} mode tun"));
    let path = "/dev/net/tun";
    let device = step(path, File::options().read(true).write(true).open(path));
    // SAFETY: all zeros is a value of this struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: an open descriptor, and a whole ifreq that outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    step(format!("open {name}"), nix::Error::result(result));
    // SAFETY: an open descriptor; the type is a number.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETLINK, INFINIBAND) };
    step("set its type", nix::Error::result(result));
}

#[test]
fn what_is_not_confirmed_is_undone() {
    sandbox::run("what_is_not_confirmed_is_undone", |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        for attach in ["tcx", "clsact"] {
            let process = sharing(sandbox, &format!("--attach {attach} --confirm 1"));
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(1);
            assert!(ended.stderr.contains("not confirmed"), "{}", ended.stderr);
            before.assert_same(&sandbox.snapshot(), "not confirmed");
        }
        for by_signal in [true, false] {
            let mut process = sharing(sandbox, "--confirm 2");
            process.wait_for_error("unless", ENDS_WITHIN);
            if by_signal {
                process.signal(Signal::SIGUSR1);
            } else {
                process.write("\n");
            }
            process.wait_for_error("confirmed", ENDS_WITHIN);
            sleep(Duration::from_millis(2500));
            assert_ne!(
                before.changes(&sandbox.snapshot()),
                "",
                "it is still attached"
            );
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
            before.assert_same(&sandbox.snapshot(), "confirmed, and ended");
        }
    });
}

#[test]
fn after_attaching_it_needs_no_capability() {
    sandbox::run("after_attaching_it_needs_no_capability", |sandbox| {
        let _interfaces = interfaces();
        let before = sandbox.snapshot();
        let mut process = sharing(sandbox, "--attach tcx --json --interval 200ms");
        let path = format!("/proc/{}/status", process.pid());
        let status = step(&path, fs::read_to_string(&path));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{path} has no {name}"))
                .trim()
        };
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
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

#[test]
fn every_line_of_json_is_as_the_schema_says() {
    sandbox::run("every_line_of_json_is_as_the_schema_says", |sandbox| {
        let path = "docs/neighbor_sharing.schema.json";
        let schema: Value = step(
            path,
            serde_json::from_str(&step(path, fs::read_to_string(path))),
        );
        for arguments in ["", "--direction upload --dry-run --police-at lan"] {
            let command = format!("--json --interval 200ms --duration 2 {arguments}");
            let process = sandbox.start_with(tool(&command), Input::AtEnd, Output::Read);
            process.wait_for_error(READY, READY_WITHIN);
            let wan = Place::named("wan0");
            assert!(reaches(&wan, [172, 16, 1, 100].into()));
            let ended = process.finish(ENDS_WITHIN);
            ended.assert_code(0);
            let lines: Vec<Value> = ended
                .stdout
                .lines()
                .map(|line| step(line, serde_json::from_str(line)))
                .collect();
            assert!(lines.len() > 5, "{}", ended.stdout);
            for (number, line) in (1..).zip(&lines) {
                let misfits = schema::misfits(&schema, line);
                assert!(misfits.is_empty(), "{misfits:#?} in {line}");
                assert_eq!(line["final"], number == lines.len());
                assert_eq!(line["dry_run"], arguments.contains("--dry-run"));
            }
            let last = lines.last().map_or(&Value::Null, |line| &line["addresses"]);
            assert!(last.to_string().contains("\"172.16.1.100\""), "{last}");
        }
    });
}
