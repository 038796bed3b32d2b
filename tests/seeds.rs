//! Every command line of the documents that the originals came with, from `compat/`, unchanged but
//! for what is not part of the command: the path that the document leaves open, and `sudo`, which a
//! root test does not need.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::bpf::remove_folders_of_tc;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::process::{Input, Output};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, READY_WITHIN};
use testbed::traffic::ping;
use testbed::{is_installed, step};

/// The compatible folder of an original.
fn compat(original: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("compat")
        .join(original)
}

/// A command that finds the binaries of this very build.
fn on_this_build(program: impl AsRef<Path>) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
    let mut command = Command::new(program.as_ref());
    command.env("NETBPF_BIN_DIR", binary.parent().unwrap_or(binary));
    command
}

/// `sudo ip netns exec wan0 netperf -H ADDRESS -l 2` where netperf is, else the same measurement
/// with iperf3; Mbit/s.
fn measure(address: &str) -> f64 {
    if is_installed("netperf") {
        let text = output(&[
            "ip", "netns", "exec", "wan0", "netperf", "-H", address, "-l", "2",
        ]);
        let last = text
            .split_whitespace()
            .last()
            .unwrap_or_else(|| panic!("netperf printed nothing"));
        return last
            .parse()
            .unwrap_or_else(|_| panic!("no throughput at the end of:\n{text}"));
    }
    testbed::skip(
        "netperf_of_the_neighbor_sharing_document",
        "netperf is not in Debian's main; iperf3 takes its place",
    );
    let arguments = [
        "ip", "netns", "exec", "wan0", "iperf3", "-c", address, "-t", "2", "-C",
    ];
    let text = output(&[arguments.as_slice(), &["cubic", "-f", "m"]].concat());
    receivers_rate(&text)
}

/// What iperf3 (`-f m`) says that the receiver got; Mbit/s.
fn receivers_rate(text: &str) -> f64 {
    let receiver = text.lines().find(|line| line.ends_with("receiver"));
    let receiver = receiver.unwrap_or_else(|| panic!("no receiver's line in:\n{text}"));
    let rate = receiver
        .split("Mbits/sec")
        .next()
        .and_then(|text| text.split_whitespace().last());
    rate.and_then(|rate| rate.parse().ok())
        .unwrap_or_else(|| panic!("no rate in {receiver}"))
}

fn output(words: &[&str]) -> String {
    let mut command = Place::here().command(words[0]);
    let output = command
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("start {words:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{words:?}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// What a command line of an exercise prints.
fn typed(line: &str) -> String {
    let words = line.strip_prefix("sudo ").unwrap_or(line);
    let output = Command::new("sh").args(["-c", words]).output();
    String::from_utf8_lossy(&step(line, output).stdout).into_owned()
}

/// `sudo /path/to/neighbor_sharing/neighbor_sharing.py`, then the two measurements "in another
/// shell", then Enter.
fn neighbor_sharing_document(sandbox: &Sandbox, command: Command) {
    let mut tool = sandbox.start_with(command, Input::Open, Output::Read);
    tool.wait_for("Press enter when finished: ", READY_WITHIN);
    let text = tool.stdout();
    for line in [
        "Network ready. Create a shell in the wan0 namespace and test with ",
        "   (Neighbors are 172.16.1.100-102, and LAN clients are 172.16.1.150-151)",
        " e.g.: ip netns exec wan0 ",
    ] {
        assert!(text.contains(line), "'{line}' is not in:\n{text}");
    }
    let to_neighbor = measure("172.16.1.100");
    assert!(
        (0.10..=0.30).contains(&to_neighbor),
        "{to_neighbor} Mbit/s to a neighbor"
    );
    // Two seconds are short where iperf3 has to wait for a CPU; that takes away, and adds nothing.
    let to_client = measure("172.16.1.150");
    assert!(
        (0.5..=1.3).contains(&to_client),
        "{to_client} Mbit/s to a LAN client"
    );
    tool.write("\n");
    tool.finish(ENDS_WITHIN).assert_code(0);
}

#[test]
fn neighbor_sharing_by_its_own_name() {
    sandbox::run("neighbor_sharing_by_its_own_name", |sandbox| {
        let script = compat("neighbor_sharing").join("neighbor_sharing.py");
        neighbor_sharing_document(sandbox, on_this_build(script));
    });
}

#[test]
fn neighbor_sharing_through_python() {
    if !is_installed("python3") {
        return testbed::skip(
            "neighbor_sharing_through_python",
            "python3 is not installed",
        );
    }
    sandbox::run("neighbor_sharing_through_python", |sandbox| {
        let mut command = on_this_build("python3");
        command.arg(compat("neighbor_sharing").join("tc_neighbor_sharing.py"));
        command.arg("--duration").arg("0.2");
        let tool = sandbox.start(command);
        tool.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// The exercise of docs/neighbor_sharing.md: a neighbor borrows the address of a LAN client, and the client
/// gets what it got before.
#[test]
fn neighbor_sharing_exercise_takes_nothing_from_the_client() {
    let name = "neighbor_sharing_exercise_takes_nothing_from_the_client";
    if !is_installed("iperf3") {
        return testbed::skip(name, "iperf3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let command = on_this_build(env!("CARGO_BIN_EXE_neighbor_sharing"));
        let mut tool = sandbox.start_with(command, Input::Open, Output::Read);
        tool.wait_for("Press enter when finished: ", READY_WITHIN);
        let commands = testbed::document::blocks("docs/neighbor_sharing.md", "Exercise").concat();
        let lines: Vec<&str> = commands.lines().collect();
        let [speak, find, take, borrow, measure] = lines[..] else {
            panic!("five commands: {commands}");
        };
        assert!(typed(speak).contains(" 1 received"));
        assert!(typed(find).contains(" 1 received"));
        typed(take);
        let said = typed(borrow);
        assert!(said.contains("3 packets transmitted, 0 received"), "{said}");
        let before = received("local0");
        let rate = receivers_rate(&typed(&format!("{measure} -f m")));
        assert!((0.5..=1.3).contains(&rate), "{rate} Mbit/s to local0");
        // 0.5 Mbit/s for 5 s.
        let bytes = received("local0") - before;
        assert!(bytes > 312_500, "{bytes} bytes of them came to local0");
        tool.write("\n");
        let report = tool.finish(ENDS_WITHIN).assert_code(0).stdout.clone();
        let words = "3 packets of neighbors with an address of the LAN\n";
        assert!(report.contains(words), "{report}");
    });
}

/// Bytes that a host of a simulation has received.
fn received(host: &str) -> u64 {
    let said = Place::named(host).ip("-s -o link show dev eth0");
    let (_, counts) = step(&said, said.split_once(" RX:").ok_or("no counters"));
    let (_, figures) = step(&said, counts.split_once('\\').ok_or("no line of figures"));
    let bytes = figures.split_whitespace().next().unwrap_or_default();
    step(&said, bytes.parse())
}

/// A log line of python's `http.server`, as far as it is always the same:
/// `172.16.1.100 - - [04/Nov/2015 10:54:47] "GET / HTTP/1.1" 200 -`
fn is_served(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("172.16.1.100 - - [") else {
        return false;
    };
    let Some((date, rest)) = rest.split_once("] ") else {
        return false;
    };
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let date: String = date.chars().map(shape).collect();
    let (day, month_and_rest) = date.split_at_checked(3).unwrap_or_default();
    let time = month_and_rest.get(3..);
    day == "00/" && time == Some("/0000 00:00:00") && rest == "\"GET / HTTP/1.1\" 200 -"
}

/// `sudo /path/to/vlan_learning/vlan_learning.py`: its servers, their log, the clients' pages, then Enter
/// and the last lines.
fn vlan_learning_document(sandbox: &Sandbox, command: Command) {
    let mut tool = sandbox.start_with(command, Input::Open, Output::Read);
    tool.wait_for("Press enter to exit: ", READY_WITHIN);
    let served = "Serving HTTP on 0.0.0.0 port 80 ...\n".repeat(3);
    let said = tool.stdout();
    assert_eq!(said, format!("{served}Press enter to exit: "));
    tool.write("\n");
    let ended = tool.finish(ENDS_WITHIN);
    ended.assert_code(0);
    // Eight pages for each of three clients, each with its line.
    let requests = ended.stderr.lines().filter(|line| is_served(line));
    assert_eq!(requests.count(), 24, "{}", ended.stderr);
    for client in 0..3 {
        let line = format!("client{client}: worker{client}, ");
        assert_eq!(ended.stderr.matches(&line).count(), 8, "{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 48, "{}", ended.stderr);
    // Here Enter has ended the prompt's line.
    let last = ended.stdout.strip_prefix(&format!("{said}\n"));
    let lines: Vec<&str> = last.unwrap_or_default().lines().collect();
    assert_eq!(lines.len(), 6, "{}", ended.stdout);
    for (client, pair) in lines.chunks(2).enumerate() {
        let ways = [
            format!("mac 02000000000{client} rx"),
            format!("{:16} tx", ""),
        ];
        for (line, start) in pair.iter().zip(ways) {
            let (_, way) = start.split_at(start.len() - 2);
            let figures = line.strip_prefix(&format!("{start} pkts = "));
            let figures = figures.and_then(|it| it.split_once(&format!(", {way} bytes = ")));
            let (packets, bytes) = figures.unwrap_or_else(|| panic!("{line}"));
            let packets: u64 = step(line, packets.parse());
            let bytes: u64 = step(line, bytes.parse());
            // A page takes five packets each way, or four, none shorter than 60 bytes but ARP.
            assert!(packets >= 32 && bytes >= packets * 60, "{line}");
        }
    }
}

#[test]
fn vlan_learning_by_its_own_name() {
    sandbox::run("vlan_learning_by_its_own_name", |sandbox| {
        let script = compat("vlan_learning").join("vlan_learning.py");
        vlan_learning_document(sandbox, on_this_build(script));
    });
}

#[test]
fn vlan_learning_through_python() {
    let name = "vlan_learning_through_python";
    if !is_installed("python3") {
        return testbed::skip(name, "python3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let mut command = on_this_build("python3");
        command.arg(compat("vlan_learning").join("vlan_learning.py"));
        command.arg("--duration").arg("0.2");
        let tool = sandbox.start(command);
        tool.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// What the exercise of docs/vlan_learning.md tells to type, once the simulation's clients are done: how
/// many of each ping are answered, and what the report says.
fn vlan_learning_exercise(sandbox: &Sandbox, option: &[&str], answered: [u32; 2]) -> String {
    let mut command = on_this_build(env!("CARGO_BIN_EXE_vlan_learning"));
    command.args(option);
    let mut tool = sandbox.start(command);
    tool.wait_for("Press enter to exit: ", READY_WITHIN);
    let commands = testbed::document::blocks("docs/vlan_learning.md", "Exercise").concat();
    let lines: Vec<&str> = commands.lines().collect();
    let [take, first, second] = lines[..] else {
        panic!("three commands: {commands}");
    };
    typed(take);
    for (client, (line, answered)) in [first, second].into_iter().zip(answered).enumerate() {
        assert!(line.contains(&format!("exec client{client} ")), "{line}");
        let said = typed(line);
        let words = format!("3 packets transmitted, {answered} received");
        assert!(said.contains(&words), "{option:?}, {line}: {said}");
    }
    if answered[0] > 0 {
        // Both have reached worker1.
        let mac = Place::named("worker1").ip("-o link show dev eth0");
        let mac = mac
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1);
        for client in ["client0", "client1"] {
            let known = Place::named(client).ip("neighbor show 172.16.1.5 dev eth0");
            assert!(
                known.contains(mac.unwrap_or("no address")),
                "{client}: {known}"
            );
        }
    }
    tool.write("\n");
    let ended = tool.finish(ENDS_WITHIN);
    ended.assert_code(0);
    ended.stdout
}

#[test]
fn vlan_learning_exercise_moves_a_client() {
    sandbox::run("vlan_learning_exercise_moves_a_client", |sandbox| {
        let report = vlan_learning_exercise(sandbox, &[], [3, 3]);
        assert!(report.contains("02:00:00:00:00:01 moved "), "{report}");
        assert!(
            report.contains(" moves of clients to other VLANs\n"),
            "{report}"
        );
    });
}

#[test]
fn vlan_learning_exercise_with_no_move_keeps_it() {
    sandbox::run("vlan_learning_exercise_with_no_move_keeps_it", |sandbox| {
        let report = vlan_learning_exercise(sandbox, &["--no-move"], [0, 3]);
        assert!(
            report.contains("02:00:00:00:00:01 stays in VLAN "),
            "{report}"
        );
        let words = " frames of clients from other VLANs refused\n";
        assert!(report.contains(words), "{report}");
        assert!(!report.contains(" moved "), "{report}");
    });
}

/// `./setup.sh`, which has nothing to do any more.
#[test]
fn tunnel_monitor_needs_no_setup() {
    let script = compat("tunnel_monitor").join("setup.sh");
    let output = step("run setup.sh", Command::new(script).output());
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("There is nothing to install"), "{said}");
}

/// What the document shows of `python main.py`: so many hosts, so many tunnels, then the address and the
/// prompt.
fn tunnel_monitor_document(sandbox: &Sandbox, command: Command) {
    let mut tool = sandbox.start_with(command, Input::Open, Output::Read);
    tool.wait_for("Press enter to quit:", READY_WITHIN);
    let said = tool.stdout();
    let launching = (1..=9).map(|host| format!("Launching host {host} of 9"));
    let starting = (1..=9).map(|tunnel| format!("Starting tunnel {tunnel} of 9"));
    let last = [
        "HTTPServer listening on 0.0.0.0:8080",
        "Press enter to quit:",
    ];
    let expected: Vec<String> = launching
        .chain(starting)
        .chain(last.map(str::to_owned))
        .collect();
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(lines, expected);

    // "To simulate traffic, use the traffic.sh script", in another shell.
    let mut script = on_this_build(compat("tunnel_monitor").join("traffic.sh"));
    script.args(["--duration", "1.5", "--json"]);
    let sent = sandbox.start(script).finish(ENDS_WITHIN);
    sent.assert_code(0);
    let report = sent.stdout.lines().next_back().unwrap_or_default();
    let report: serde_json::Value = step(report, serde_json::from_str(report));
    let entries = report["entries"].as_array();
    let entries = entries.unwrap_or_else(|| panic!("no entries: {report}"));
    assert_eq!(entries.len(), 13, "{report}");
    for entry in entries {
        assert!(entry["sent"]["packets"].as_u64() > Some(0), "{entry}");
        assert_eq!(entry["sent"], entry["received"], "{entry}");
    }
    tool.write("\n");
    tool.finish(ENDS_WITHIN).assert_code(0);
}

#[test]
fn tunnel_monitor_by_its_own_name() {
    sandbox::run("tunnel_monitor_by_its_own_name", |sandbox| {
        let script = compat("tunnel_monitor").join("main.py");
        tunnel_monitor_document(sandbox, on_this_build(script));
    });
}

#[test]
fn tunnel_monitor_through_python() {
    let name = "tunnel_monitor_through_python";
    if !is_installed("python3") {
        return testbed::skip(name, "python3 is not installed");
    }
    sandbox::run(name, |sandbox| {
        let mut command = on_this_build("python3");
        command.arg(compat("tunnel_monitor").join("main.py"));
        command.arg("--duration").arg("0.2");
        let tool = sandbox.start(command);
        tool.finish(ENDS_WITHIN).assert_code(0);
    });
}

/// "Run": the server on the host, the client in ns0; COUNT makes both end sooner. Then the notes' loop of
/// epochs, where the kernel has a plug.
#[test]
fn tcp_hold_by_its_own_name() {
    sandbox::run("tcp_hold_by_its_own_name", |sandbox| {
        let folder = compat("tcp-hold");
        let line = |words: &str| {
            let mut shell = on_this_build("sh");
            shell.args(["-c", &format!("exec {words}")]);
            shell.current_dir(&folder).env("COUNT", "2");
            sandbox.start_with(shell, Input::AtEnd, Output::Read)
        };
        line("make").finish(ENDS_WITHIN).assert_code(0);
        let server = line("./demo server 32 ping 16 0.0.0.0:23324");
        server.wait_for("Ready to accept connections", READY_WITHIN);
        line("./net-up.sh").finish(ENDS_WITHIN).assert_code(0);
        let client = "./demo client 32 echo 16 192.168.100.100:23324";
        let client = line(&format!("env HOOK=1 ip netns exec ns0 {client}"));
        for (end, name) in [
            (client, "client-echo-t32-sz16"),
            (server, "server-ping-t32-sz16"),
        ] {
            let ended = end.finish(ENDS_WITHIN);
            ended.assert_code(0);
            let result = format!("\n./demo\t{name} ");
            assert!(ended.stdout.contains(&result), "{}", ended.stdout);
            let is_held = ended.stdout.contains("\nheld at inner0: ");
            assert_eq!(is_held, name.starts_with("client"), "{}", ended.stdout);
        }
        let unheld = "ip netns exec ns0 ./demo-nobpf client 1 push 16 192.168.100.100:23324";
        let server = line("./demo-nobpf server 1 pull 16 0.0.0.0:23324");
        server.wait_for("Ready to accept connections", READY_WITHIN);
        let client = line(&format!("env HOOK=1 {unheld}")).finish(ENDS_WITHIN);
        client.assert_code(0);
        assert!(!client.stdout.contains("held at"), "{}", client.stdout);
        server.finish(ENDS_WITHIN).assert_code(0);

        let up = line("ip netns exec ns0 ./plug-up.sh").finish(ENDS_WITHIN);
        match up.status.code() {
            Some(0) => {
                for step in [
                    "./plug-next.sh",
                    "./plug-down.sh",
                    "./lockstep 10 --duration 1",
                ] {
                    let step = line(&format!("ip netns exec ns0 {step}"));
                    step.finish(ENDS_WITHIN).assert_code(0);
                }
            }
            _ => {
                up.assert_code(4);
                assert!(up.stderr.contains("CONFIG_NET_SCH_PLUG"), "{}", up.stderr);
            }
        }
        line("./net-down.sh").finish(ENDS_WITHIN).assert_code(0);
    });
}

/// The exercise of docs/tcp_hold.md: the peer of an echo that holds each message for 300 ms sends it again.
#[test]
fn tcp_hold_exercise_shows_the_peers_patience() {
    sandbox::run("tcp_hold_exercise_shows_the_peers_patience", |_| {
        let commands = testbed::document::blocks("docs/tcp_hold.md", "Exercise").concat();
        let tool = env!("CARGO_BIN_EXE_tcp_hold");
        let commands = commands
            .replace("sudo ", "")
            .replace("./target/release/tcp_hold", tool);
        assert_eq!(commands.lines().count(), 5, "{commands}");
        let said = typed(&commands);
        let of_server = said
            .lines()
            .find(|line| line.contains("\tserver-ping-t1-sz16 "));
        assert!(of_server.is_some(), "{said}");
        let timeouts = said.lines().filter_map(|line| {
            let (_, rest) = line.strip_prefix("TCP: ")?.split_once("sent again, ")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        });
        // The client has nothing to send again.
        let timeouts: Vec<u64> = timeouts.collect();
        assert_eq!(timeouts.len(), 2, "{said}");
        assert!(timeouts.contains(&0), "{said}");
        assert!(timeouts.iter().any(|count| *count > 0), "{said}");
    });
}

/// A copy of what `make` needs, so that what is made there is not in the checkout.
fn copy_of_tree(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["compat/tbpoc-bpf", "src/bpf"] {
        let to = folder.join(part);
        step("make a folder", std::fs::create_dir_all(&to));
        for entry in step(part, std::fs::read_dir(root.join(part))) {
            let from = step(part, entry).path();
            let name = from.file_name().unwrap_or_default();
            step(from.display(), std::fs::copy(&from, to.join(name)));
        }
    }
}

/// "Compilation" and "Usage", word by word; eth0 is that of this sandbox.
#[test]
fn tbpoc_bpf_by_tc_alone() {
    sandbox::run("tbpoc_bpf_by_tc_alone", |_| {
        let host = Namespace::new("host");
        let _cable = Veth::new((&Place::here(), "eth0"), (&host, "eth0"));
        let (own, far) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        Place::here().ip(&format!("address add {own}/24 dev eth0"));
        host.ip(&format!("address add {far}/24 dev eth0"));
        let tree = Path::new("/run/tree");
        copy_of_tree(tree);
        let run = |line: &str| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", line])
                .current_dir(tree.join("compat/tbpoc-bpf"));
            let output = step(line, shell.output());
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{line}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run("make");
        let sections = run("readelf -S -W tokenbucket.o");
        assert!(sections.contains(" classifier "), "{sections}");
        run("tc qdisc add dev eth0 clsact");
        let limit_holds = || ping(&host, far.into(), own.into(), 20.0, 20);
        assert_eq!(limit_holds().1, 20, "there is no limit yet");
        run("tc filter add dev eth0 ingress bpf da obj tokenbucket.o");
        // It limits at once; what the document asks for next does no harm.
        let (_, answered) = limit_holds();
        assert!((6..=7).contains(&answered), "{answered} of 20 pings");
        run("gcc -o init_maps init_maps.c");
        let said = run("./init_maps");
        assert!(said.contains("nothing to do"), "{said}");
        let (_, answered) = limit_holds();
        assert!((1..=3).contains(&answered), "{answered} of 20 more pings");
        run("make clean");
        remove_folders_of_tc();
        step("remove the copy", std::fs::remove_dir_all(tree));
    });
}
