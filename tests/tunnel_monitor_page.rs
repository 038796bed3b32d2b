//! tunnel_monitor's page in a real browser: the real binary, or its web server with samples that the test
//! makes up where a point takes thousands of flows. Each point is a script of `web/browser`, which fails on
//! whatever the browser complains of: exceptions, violations of the policy, requests to somebody else.
//!
//! ```text
//! frames -> far0 --- up0 [tunnel_monitor --iface up0] -> 127.0.0.1:8080 -> chromium <- node SCRIPT
//! ```

#[path = "tunnel_monitor_page/browser.rs"]
mod browser;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const URL: &str = "http://127.0.0.1:8080";

/// Two browsers at once are more than a small machine has processors for.
static TURN: Mutex<()> = Mutex::new(());

/// Runs the body in a sandbox, if there is a browser, and no other beside it.
fn run(name: &str, body: impl FnOnce(&Sandbox) + Send) {
    if !browser::is_there(name) {
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sandbox::run(name, body);
}

/// The same with an interface to monitor.
fn run_on_an_interface(name: &str, interface: &str, body: impl FnOnce(&Sandbox) + Send) {
    run(name, |sandbox| {
        let here = Place::here();
        let _cable = Veth::new((&here, interface), (&here, "far0"));
        body(sandbox);
    });
}

/// A monitor at work on an interface.
fn monitor<'a>(sandbox: &'a Sandbox, arguments: &str) -> Process<'a> {
    let ready = Ready::SaysAside("HTTP on ");
    Job::new(sandbox, TOOL, arguments, ready).at_work("")
}

/// The network that the tool builds.
fn simulation(sandbox: &Sandbox) -> Process<'_> {
    let ready = Ready::Says("Press enter to quit:");
    Job::new(sandbox, TOOL, "", ready).at_work("")
}

fn ends_well(process: Process<'_>) {
    process.signal(Signal::SIGTERM);
    process.finish(ENDS_WITHIN).assert_code(0);
}

/// Frames of VXLAN from 192.0.2.9 to 192.0.2.1, who is here; this client sends to 10.0.0.1.
fn comes_in(vni: u32, client: Ipv4Addr, frames: usize) {
    let inner = Packet::ethernet([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8])
        .ipv4(client, [10, 0, 0, 1])
        .udp(1, 2)
        .payload_of(56)
        .build();
    // RFC 7348: the flag of a valid number, the number, a reserved byte.
    let mut tunnel = vec![0x08, 0, 0, 0];
    tunnel.extend((vni << 8).to_be_bytes());
    tunnel.extend(inner);
    let frame = Packet::ethernet([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4([192, 0, 2, 9], [192, 0, 2, 1])
        .udp(50_000, 4789)
        .payload(&tunnel)
        .build();
    let frames = std::iter::repeat_n(&frame[..], frames);
    inject(&Place::here(), "far0", frames, Duration::ZERO);
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
        let process = simulation(sandbox);
        let traffic = sandbox.start(TOOL.command("traffic"));
        Browser::start(sandbox, "files", &[URL]).passes();
        ends_well(traffic);
        ends_well(process);
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
                for client in 1..=round {
                    comes_in(7, Ipv4Addr::new(10, 77, 0, client), 10);
                }
            });
        }
        browser.passes();
        // They were there all the time: none of them was cut to make room.
        others.truncate(1);
        ends_well(process);
    });
}

/// Point 20.
#[test]
fn the_page_is_small_asks_nobody_else_and_is_built_the_same_each_time() {
    let name = "the_page_is_small_asks_nobody_else_and_is_built_the_same_each_time";
    run_on_an_interface(name, "up0", |sandbox| {
        let process = monitor(sandbox, "--iface up0");
        comes_in(7, Ipv4Addr::new(10, 77, 0, 1), 10);
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
        here.ip("link set far0 up");
        let process = monitor(sandbox, &format!("--iface {hostile}"));
        let elsewhere = TcpStream::connect(SocketAddr::from(([192, 0, 2, 1], 8080)));
        let refused = elsewhere.err().map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));
        Browser::start(sandbox, "strangers", &[URL, hostile]).passes();
        ends_well(process);
    });
}
