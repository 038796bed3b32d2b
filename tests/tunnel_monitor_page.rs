//! tunnel_monitor's page in a real browser: the real binary, or its web server with samples that the test
//! makes up where a point takes thousands of flows. Each point is a script of `web/browser`, which fails on
//! whatever the browser complains of: exceptions, violations of the policy, requests to somebody else.
//!
//! ```text
//! frames -> far0 --- up0 [tunnel_monitor --iface up0] -> 127.0.0.1:8080 -> chromium <- node SCRIPT
//! ```

#[path = "tunnel_monitor_page/browser.rs"]
mod browser;
#[path = "tunnel_monitor_page/made_up.rs"]
mod made_up;
#[path = "tunnel_monitor_http/table.rs"]
#[expect(dead_code, reason = "it has more than the page's tests need")]
mod table;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{PoisonError, RwLock};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::step;
use testbed::tool::{ENDS_WITHIN, Tool};
use testbed::traffic::inject;

use browser::Browser;
use made_up::Traffic;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const URL: &str = "http://127.0.0.1:8080";
/// The hosts of the frames: here and there.
const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 9];

/// Points that say how long something takes have the machine for themselves, as far as these tests go.
static TIMED: RwLock<()> = RwLock::new(());

/// Runs the body in a sandbox, if there is a browser.
fn run(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    let _beside = TIMED.read().unwrap_or_else(PoisonError::into_inner);
    run_now(name, body);
}

fn run_alone(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    let _alone = TIMED.write().unwrap_or_else(PoisonError::into_inner);
    run_now(name, body);
}

fn run_now(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    if browser::is_there(name) {
        sandbox::run(name, body);
    }
}

/// The same with an interface to monitor.
fn run_on_an_interface(name: &str, interface: &str, body: impl FnOnce(&Sandbox) + Send) {
    run(name, |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, interface), (&here, "far0"));
        body(sandbox);
    });
}

/// A monitor at work on that interface.
fn monitor<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let ready = Ready::SaysAside("HTTP on ");
    Job::new(sandbox, TOOL, arguments, ready).at_work("")
}

/// The network that the tool builds, with this many hosts.
fn simulation(sandbox: &Sandbox, hosts: u32) -> Process<'_> {
    let ready = Ready::Says("Press enter to quit:");
    Job::new(sandbox, TOOL, &format!("--hosts {hosts}"), ready).at_work("")
}

fn ends_well(process: Process<'_>) {
    process.signal(Signal::SIGTERM);
    process.finish(ENDS_WITHIN).assert_code(0);
}

/// A frame of VXLAN between two hosts, of 148 bytes; `inner` is what is inside: UDP of this client to 10.0.0.1.
fn frame(outer: [[u8; 4]; 2], vni: u32, client: Ipv4Addr) -> Vec<u8> {
    let inner = Packet::ethernet([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8])
        .ipv4(client, [10, 0, 0, 1])
        .udp(1, 2)
        .payload_of(56)
        .build();
    in_tunnel(outer, vni, inner)
}

fn in_tunnel([from, to]: [[u8; 4]; 2], vni: u32, inner: Vec<u8>) -> Vec<u8> {
    Packet::ethernet([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4(from, to)
        .udp(50_000, 4789)
        .vxlan(vni, &inner)
        .build()
}

/// The frame comes in by the interface, so often.
fn comes_in(frame: &[u8], times: usize) {
    let frames = std::iter::repeat_n(frame, times);
    inject(&Place::here(), "far0", frames, Duration::ZERO);
}

/// Of this client of the network.
fn of_client(vni: u32, last: u8) -> Vec<u8> {
    frame([THERE, HERE], vni, Ipv4Addr::new(10, 77, 0, last))
}

fn connect() -> TcpStream {
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    step("connect", TcpStream::connect(address))
}

/// Point 1.
#[test]
fn the_originals_files_are_valid_however_many_read_them() {
    let name = "the_originals_files_are_valid_however_many_read_them";
    run(name, |sandbox| {
        let process = simulation(sandbox, 4);
        let traffic = sandbox.start(TOOL.command("traffic"));
        Browser::start(sandbox, "files", &[URL]).passes();
        ends_well(traffic);
        ends_well(process);
    });
}

/// Point 2.
#[test]
fn the_page_does_what_the_originals_does() {
    run("the_page_does_what_the_originals_does", |sandbox| {
        let process = simulation(sandbox, 9);
        let traffic = sandbox.start(TOOL.command("traffic"));
        Browser::start(sandbox, "exploring", &[URL]).passes();
        ends_well(traffic);
        ends_well(process);
    });
}

/// Point 3.
#[test]
fn who_receives_is_named_whichever_address_is_lower() {
    let name = "who_receives_is_named_whichever_address_is_lower";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0");
        let client = Ipv4Addr::new(10, 77, 0, 1);
        comes_in(&frame([[192, 0, 2, 9], [192, 0, 2, 1]], 7, client), 10);
        comes_in(&frame([[192, 0, 2, 5], [192, 0, 2, 20]], 7, client), 10);
        Browser::start(sandbox, "receiver", &[URL]).passes();
        ends_well(process);
    });
}

/// Point 4.
#[test]
fn the_same_address_in_two_networks_is_two() {
    run_on_an_interface(
        "the_same_address_in_two_networks_is_two",
        "up0",
        |sandbox| {
            let process = monitor(sandbox, "--iface up0");
            comes_in(&of_client(7, 1), 10);
            comes_in(&of_client(8, 1), 10);
            // An ARP request: its EtherType is all that is looked at.
            let mut arp = vec![0xff; 6];
            arp.extend([2, 0, 0, 0, 0, 8, 0x08, 0x06]);
            arp.extend([0; 28]);
            comes_in(&in_tunnel([THERE, HERE], 7, arp), 10);
            Browser::start(sandbox, "twins", &[URL]).passes();
            ends_well(process);
        },
    );
}

/// Point 5.
#[test]
fn what_is_chosen_stays_chosen_when_it_goes_quiet() {
    let name = "what_is_chosen_stays_chosen_when_it_goes_quiet";
    run_on_an_interface(name, "up0", |sandbox| {
        // Soon quiet, and soon forgotten.
        let process = monitor(sandbox, "--iface up0 --interval 1s --forget-after 2s");
        let mut browser = Browser::start(sandbox, "quiet", &[URL]);
        browser.when("both networks", || {
            comes_in(&of_client(7, 1), 10);
            comes_in(&of_client(8, 2), 10);
        });
        // For more than a moment, which a busy browser could miss.
        browser.wait_for("once more");
        for _ in 0..10 {
            comes_in(&of_client(7, 1), 1);
            sleep(Duration::from_millis(300));
        }
        browser.passes();
        ends_well(process);
    });
}

/// Point 6.
#[test]
fn figures_are_of_the_time_and_in_the_unit_that_is_said() {
    let name = "figures_are_of_the_time_and_in_the_unit_that_is_said";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0 --interval 10s");
        let mut browser = Browser::start(sandbox, "periods", &[URL]);
        browser.when("now", || comes_in(&of_client(7, 1), 1000));
        browser.passes();
        ends_well(process);
    });
}

/// Point 7.
#[test]
fn a_packet_is_on_the_page_soon() {
    run_alone("a_packet_is_on_the_page_soon", |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, "up0"), (&here, "far0"));
        let process = monitor(sandbox, "--iface up0");
        let mut browser = Browser::start(sandbox, "soon", &[URL]);
        for client in 1..=5 {
            browser.wait_for(&format!("client {client}"));
            let now = step("the time", SystemTime::now().duration_since(UNIX_EPOCH));
            comes_in(&of_client(7, client), 1);
            browser.tell(&now.as_millis().to_string());
        }
        browser.passes();
        ends_well(process);
    });
}

/// Point 8.
#[test]
fn without_answers_the_picture_stays_and_its_age_is_said() {
    let name = "without_answers_the_picture_stays_and_its_age_is_said";
    run_on_an_interface(name, "up0", |sandbox| {
        let mut process = monitor(sandbox, "--iface up0");
        comes_in(&of_client(7, 1), 10);
        let mut browser = Browser::start(sandbox, "outage", &[URL]);
        browser.when("hang", || process.signal(Signal::SIGSTOP));
        browser.when("go on", || process.signal(Signal::SIGCONT));
        browser.wait_for("end");
        ends_well(process);
        browser.tell("done");
        browser.wait_for("start again");
        process = monitor(sandbox, "--iface up0");
        comes_in(&of_client(7, 2), 10);
        browser.tell("done");
        browser.passes();
        ends_well(process);
    });
}

/// Point 9, in the network that is built to try it.
#[test]
fn a_page_without_traffic_says_how_to_make_some() {
    run("a_page_without_traffic_says_how_to_make_some", |sandbox| {
        let process = simulation(sandbox, 3);
        let mut browser = Browser::start(sandbox, "empty", &[URL, "eth0", "host0"]);
        let line = browser.wait_for("type: ");
        // Whatever it says, as the user would type it.
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {}", line.trim_start_matches("type: "))]);
        let traffic = sandbox.start(shell);
        browser.tell("done");
        browser.wait_for("stop it");
        ends_well(traffic);
        browser.tell("done");
        browser.passes();
        ends_well(process);
    });
}

/// Point 9, on an interface of the user's.
#[test]
fn a_page_without_traffic_says_where_it_looks() {
    run_on_an_interface(
        "a_page_without_traffic_says_where_it_looks",
        "up0",
        |sandbox| {
            let process = monitor(sandbox, "--iface up0 --port 4789,8472");
            Browser::start(sandbox, "nowhere", &[URL, "up0", "4789, 8472"]).passes();
            ends_well(process);
        },
    );
}

/// Point 10.
#[test]
fn packets_without_a_flow_are_warned_of_with_their_number() {
    let name = "packets_without_a_flow_are_warned_of_with_their_number";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0 --max-entries 4");
        for client in 1..=10 {
            comes_in(&of_client(7, client), 250);
        }
        Browser::start(sandbox, "full", &[URL, "1,500", "4"]).passes();
        ends_well(process);
    });
}

/// Point 11.
#[test]
fn what_is_not_drawn_is_summed_up_and_listed() {
    run("what_is_not_drawn_is_summed_up_and_listed", |sandbox| {
        Traffic::of_hosts(200).serve(|| Browser::start(sandbox, "other", &[URL]).passes());
    });
}

/// Point 12.
#[test]
fn thousands_of_addresses_are_drawn_smoothly_and_in_place() {
    let name = "thousands_of_addresses_are_drawn_smoothly_and_in_place";
    run_alone(name, |sandbox| {
        Traffic::of_addresses(2000)
            .serve(|| Browser::start(sandbox, "many", &[URL, "2000"]).passes());
        Traffic::of_addresses(5000)
            .serve(|| Browser::start(sandbox, "many", &[URL, "5000"]).passes());
    });
}

/// Point 13.
#[test]
fn addresses_are_found_also_where_they_are_not_drawn() {
    let name = "addresses_are_found_also_where_they_are_not_drawn";
    run(name, |sandbox| {
        Traffic::of_hosts(200).serve(|| Browser::start(sandbox, "searching", &[URL]).passes());
    });
}

/// Point 14.
#[test]
fn a_copied_link_shows_the_same() {
    run("a_copied_link_shows_the_same", |sandbox| {
        Traffic::of_hosts(40).serve(|| Browser::start(sandbox, "link", &[URL]).passes());
    });
}

/// Point 15.
#[test]
fn what_is_shown_can_be_saved() {
    run("what_is_shown_can_be_saved", |sandbox| {
        Traffic::of_hosts(40).serve(|| Browser::start(sandbox, "saving", &[URL]).passes());
    });
}

/// Point 16.
#[test]
fn all_of_it_can_be_done_with_keys() {
    run("all_of_it_can_be_done_with_keys", |sandbox| {
        Traffic::of_hosts(40).serve(|| Browser::start(sandbox, "keys", &[URL]).passes());
    });
}

/// Point 17.
#[test]
fn colours_can_be_told_apart_in_light_and_in_dark() {
    run(
        "colours_can_be_told_apart_in_light_and_in_dark",
        |sandbox| {
            Traffic::of_hosts(40).serve(|| Browser::start(sandbox, "colours", &[URL]).passes());
        },
    );
}

/// Point 18.
#[test]
fn the_page_fits_a_telephone_and_nothing_jumps() {
    run_alone("the_page_fits_a_telephone_and_nothing_jumps", |sandbox| {
        Traffic::of_hosts(200).serve(|| Browser::start(sandbox, "narrow", &[URL]).passes());
    });
}

/// Point 19.
#[test]
fn ten_tabs_and_clients_that_misbehave_disturb_nobody() {
    let name = "ten_tabs_and_clients_that_misbehave_disturb_nobody";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0");
        let mut browser = Browser::start(sandbox, "crowd", &[URL]);
        let mut others = Vec::new();
        browser.when("ten tabs are open", || {
            others.extend((0..200).map(|_| connect()));
            // Reads nothing of what it has asked for.
            let mut stalled = connect();
            let asked = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
            step("ask", stalled.write_all(asked));
            others.push(stalled);
        });
        for round in 1..=5 {
            // A client more each time, for all tabs to show; none of its packets is lost.
            browser.when(&format!("round {round}"), || {
                (1..=round).for_each(|client| comes_in(&of_client(7, client), 10));
            });
        }
        browser.passes();
        drop(others);
        ends_well(process);
    });
}

/// Point 20.
#[test]
fn the_page_is_small_asks_nobody_else_and_is_built_the_same_each_time() {
    let name = "the_page_is_small_asks_nobody_else_and_is_built_the_same_each_time";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0");
        comes_in(&of_client(7, 1), 10);
        Browser::start(sandbox, "bundle", &[URL]).passes();
        ends_well(process);
    });
}

/// Point 21.
#[test]
fn nobody_else_gets_at_the_page_and_names_stay_text() {
    let name = "nobody_else_gets_at_the_page_and_names_stay_text";
    // Fifteen bytes at most, without a slash or a space, is what the kernel takes.
    let hostile = "<svg>&lt;\"'`";
    run_on_an_interface(name, hostile, |sandbox| {
        let here = Place::here();
        here.ip("address add 192.0.2.1/24 dev far0");
        let process = monitor(sandbox, &format!("--iface {hostile}"));
        let elsewhere = TcpStream::connect(SocketAddr::from(([192, 0, 2, 1], 8080)));
        let refused = elsewhere.err().map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
        Browser::start(sandbox, "strangers", &[URL, hostile]).passes();
        ends_well(process);
    });
}

/// The exercise of the README: who is it that sends so much?
#[test]
fn who_is_loud_is_on_top_within_ten_seconds() {
    run("who_is_loud_is_on_top_within_ten_seconds", |sandbox| {
        let process = simulation(sandbox, 9);
        let usual = sandbox.start(TOOL.command("traffic"));
        let mut browser = Browser::start(sandbox, "culprit", &[URL, "172.16.1.103"]);
        browser.wait_for("the usual traffic");
        ends_well(usual);
        let heavy = sandbox.start(TOOL.command("traffic --heavy host3"));
        browser.tell("done");
        browser.passes();
        ends_well(heavy);
        ends_well(process);
    });
}

/// `make screenshots`: the page in its states, for people to look at.
#[test]
#[ignore = "make screenshots"]
fn screenshots() {
    let folder = step("SCREENSHOTS names a folder", std::env::var("SCREENSHOTS"));
    step(&folder, fs::create_dir_all(&folder));
    let folder = step(&folder, Path::new(&folder).canonicalize());
    let folder = folder.to_string_lossy().into_owned();
    let taken = |sandbox: &Sandbox, what: &str| {
        Browser::start(sandbox, "screenshots", &[URL, what, &folder]).passes();
    };
    run("screenshots", |sandbox| {
        let process = simulation(sandbox, 9);
        taken(sandbox, "empty");
        let traffic = sandbox.start(TOOL.command("traffic --heavy host3"));
        taken(sandbox, "hosts");
        ends_well(traffic);
        ends_well(process);
        Traffic::of_hosts(200).serve(|| taken(sandbox, "crowded"));
        Traffic::of_addresses(2000).serve(|| taken(sandbox, "addresses"));
    });
}
