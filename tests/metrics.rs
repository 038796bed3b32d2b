//! `--metrics` of every tool: what it shows is what docs/metrics.md lists, nothing else and nothing less,
//! and who shows it can do nothing else.

mod scrape;

use std::fs;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use scrape::{described, documented, value};
use testbed::line::Line;
use testbed::namespace::{Place, Veth};
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::step;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};

const NEIGHBOR_SHARING: Tool = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
const TOKENBUCKET: Tool = Tool::new(env!("CARGO_BIN_EXE_tokenbucket"));
const VLAN_LEARNING: Tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));
const TUNNEL_MONITOR: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const TCP_HOLD: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Starts it, and waits until it serves.
fn serving<'a>(sandbox: &'a Sandbox, tool: Tool, arguments: &str) -> (Process<'a>, String) {
    let process = sandbox.start(tool.command(&format!("{arguments} --metrics :9101")));
    process.wait_for_error("metrics at http://127.0.0.1:9101/metrics", READY_WITHIN);
    (process, "127.0.0.1:9101".to_owned())
}

/// The effective capabilities of the thread that answers.
fn capabilities_of_server(process: &Process<'_>) -> String {
    let path = format!("/proc/{}/task", process.pid());
    let tasks = step(&path, fs::read_dir(&path)).flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let mut servers = statuses.filter(|status| status.starts_with("Name:\thttp\n"));
    let status = servers.next().unwrap_or_else(|| panic!("no thread serves"));
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    field.unwrap_or_default().trim().to_owned()
}

/// In its simulation, all of it.
#[track_caller]
fn assert_documented(name: &str, tool: Tool, stem: &str, arguments: &str) {
    sandbox::run(name, |sandbox| {
        let (mut process, address) = serving(sandbox, tool, arguments);
        let (kind, text) = scrape::get(&address, "*/*");
        assert_eq!(kind, OPEN_METRICS);
        let (shown, listed) = (described(&text), documented(stem));
        for (metric, description) in &shown {
            let row = listed.get(metric);
            assert_eq!(row, Some(description), "docs/metrics.md of {metric}");
        }
        for metric in listed.keys() {
            assert!(shown.contains_key(metric), "{metric} is not shown");
        }
        assert!(shown.len() > 15, "{text}");
        assert_eq!(capabilities_of_server(&process), "0000000000000000");
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn neighbor_sharing_shows_what_is_documented() {
    let name = "neighbor_sharing_shows_what_is_documented";
    assert_documented(name, NEIGHBOR_SHARING, "neighbor_sharing", "");
}

#[test]
fn tokenbucket_shows_what_is_documented() {
    let name = "tokenbucket_shows_what_is_documented";
    assert_documented(name, TOKENBUCKET, "tokenbucket", "");
}

#[test]
fn vlan_learning_shows_what_is_documented() {
    let name = "vlan_learning_shows_what_is_documented";
    assert_documented(name, VLAN_LEARNING, "vlan_learning", "");
}

#[test]
fn tunnel_monitor_shows_what_is_documented() {
    let name = "tunnel_monitor_shows_what_is_documented";
    let arguments = "--hosts 2 --vnis 1 --listen off";
    assert_documented(name, TUNNEL_MONITOR, "tunnel_monitor", arguments);
}

/// Only its agent runs on and on; who measures prints what there is to say.
#[test]
fn tcp_hold_shows_what_is_documented() {
    let name = "tcp_hold_shows_what_is_documented";
    let arguments = "agent /run/agent --iface lo";
    assert_documented(name, TCP_HOLD, "tcp_hold", arguments);
}

/// The page of tunnel_monitor's own server is the same, without `--metrics`.
#[test]
fn tunnel_monitor_shows_them_on_its_own_page_too() {
    let name = "tunnel_monitor_shows_them_on_its_own_page_too";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "far0"), (&here, "near0"));
        let command = TUNNEL_MONITOR.command("--iface near0 --listen 127.0.0.1:8081");
        let mut process = sandbox.start(command);
        process.wait_for_error("HTTP on", READY_WITHIN);
        let (_, text) = scrape::get("127.0.0.1:8081", OPEN_METRICS);
        assert_eq!(described(&text), documented("tunnel_monitor"));
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}

#[test]
fn a_port_that_is_taken_is_a_conflict_before_anything_is_changed() {
    let name = "a_port_that_is_taken_is_a_conflict_before_anything_is_changed";
    sandbox::run(name, |sandbox| {
        let _taken = step("listen", TcpListener::bind("127.0.0.1:9101"));
        for tool in [NEIGHBOR_SHARING, TOKENBUCKET, VLAN_LEARNING, TUNNEL_MONITOR] {
            tool.assert_refused(sandbox, "--metrics :9101", 5, "9101");
            tool.assert_refused(sandbox, "--metrics 9101", 2, "is not an address and a port");
        }
        let agent = "agent /run/agent --iface lo --metrics";
        TCP_HOLD.assert_refused(sandbox, &format!("{agent} :9101"), 5, "9101");
        let words = "is not an address and a port";
        TCP_HOLD.assert_refused(sandbox, &format!("{agent} 9101"), 2, words);
    });
}

/// On an interface, where no capability is left: figures are fresh, they grow by what passes, and never
/// get less.
#[test]
fn figures_grow_by_what_passes() {
    sandbox::run("figures_grow_by_what_passes", |sandbox| {
        let line = Line::new();
        let (mut process, address) = serving(sandbox, TOKENBUCKET, "--iface wan0 --rate 1gbit");
        if testbed::attaching::has_tcx() {
            process.assert_powerless();
        }
        let packets = "netbpf_tokenbucket_passed_packets_total";
        let bytes = "netbpf_tokenbucket_passed_bytes_total";
        let samples = "netbpf_tokenbucket_samples_total";
        let of = |series: &str| {
            let (_, text) = scrape::get(&address, OPEN_METRICS);
            value(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"))
        };
        let frame = testbed::line::datagram(line.frame(), [198, 51, 100, 7].into()).build();
        let mut before = (of(packets), of(bytes));
        for count in [1, 50, 200] {
            let frames = (0..count).map(|_| frame.as_slice());
            testbed::traffic::inject(&line.sender, "eth0", frames, Duration::ZERO);
            let wanted = before.0 + f64::from(count);
            let deadline = Instant::now() + READY_WITHIN;
            while of(packets) < wanted {
                assert!(Instant::now() < deadline, "{count} packets do not show");
                sleep(Duration::from_millis(50));
            }
            let after = (of(packets), of(bytes));
            // Hosts may have said something of their own (MLD, neighbour discovery), which is not metered.
            let grown = (after.0 - before.0, after.1 - before.1);
            assert_eq!(
                grown,
                (f64::from(count), (frame.len() as f64) * f64::from(count))
            );
            before = after;
        }
        let first = of(samples);
        let deadline = Instant::now() + READY_WITHIN;
        while of(samples) < first + 2.0 {
            assert!(Instant::now() < deadline, "nothing is published");
            sleep(Duration::from_millis(50));
        }
        assert!(of("netbpf_tokenbucket_scrapes_total") > 4.0);
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
    });
}
