//! What tunnel_monitor takes for a million flows: the whole export, a scrape, memory. The real binary on an
//! interface that carries a frame of each flow: `make bench`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::Process;
use testbed::sandbox::{self, Sandbox};
use testbed::step;
use testbed::tool::Tool;
use testbed::traffic::inject;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor"));
const FLOWS: u32 = 1_000_000;
const EXPORTS: usize = 5;
const SCRAPES: usize = 21;
/// Beyond this it hangs: there is nothing to measure.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    sandbox::run("tunnel_flows", measure);
}

fn measure(sandbox: &Sandbox) {
    let here = Place::here();
    let _interface = Veth::new((&here, "up0"), (&here, "up0-far"));
    let arguments = "--iface up0 --max-entries 1048576 --forget-after 1h";
    let ready = Ready::SaysAside("HTTP on ");
    let monitor = Job::new(sandbox, TOOL, arguments, ready).at_work("");
    let begin = Instant::now();
    for first in (0..FLOWS).step_by(1000) {
        let frames: Vec<Vec<u8>> = (first..first + 1000).map(frame).collect();
        inject(
            &here,
            "up0-far",
            frames.iter().map(Vec::as_slice),
            Duration::ZERO,
        );
    }
    // A sample is a second old at most.
    while flows() < FLOWS {
        assert!(begin.elapsed() < PATIENCE, "{} flows are known", flows());
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_secs(2));
    println!(
        "{:<46} {:>7} {:>7} {:>7}",
        "1,000,000 flows", "min", "median", "max"
    );
    let mut size = 0;
    row("/data/tunnel.json, ms", EXPORTS, || {
        size = get("/data/tunnel.json").len()
    });
    row("/metrics, ms", SCRAPES, || drop(get("/metrics")));
    let said = monitor.stderr();
    let kernel = said.lines().find(|line| line.contains("kernel memory"));
    println!(
        "{}",
        kernel.unwrap_or("it does not say how much memory of the kernel it takes")
    );
    // Pages of the kernel's maps that it reads are of the file kind; there are no other large ones.
    let mapped = memory(&monitor, "RssFile:");
    figure("/data/tunnel.json, MB", size as f64 / 1e6);
    figure("of the kernel's memory, mapped, MB", mapped);
    figure(
        "resident memory besides, at the peak, MB",
        memory(&monitor, "VmHWM:") - mapped,
    );
    monitor.signal(nix::sys::signal::Signal::SIGTERM);
    monitor.finish(PATIENCE).assert_code(0);
}

/// A VXLAN frame of a flow of its own, from one of 250 hosts.
fn frame(flow: u32) -> Vec<u8> {
    let mac = |last| [2, 0, 0, 0, 0, last];
    let inner = Packet::ethernet(mac(4), mac(3))
        .ipv4(
            Ipv4Addr::from_bits((10 << 24) + flow),
            Ipv4Addr::new(11, 0, 0, 1),
        )
        .udp(7, 7)
        .payload_of(50)
        .build();
    let network = (flow % 300).to_be_bytes();
    // RFC 7348: the flag of a valid number, three reserved bytes, the number, another one.
    let mut vxlan = vec![8, 0, 0, 0, network[1], network[2], network[3], 0];
    vxlan.extend(inner);
    let host = (flow % 250) as u8 + 2;
    Packet::ethernet(mac(2), mac(1))
        .ipv4(
            Ipv4Addr::new(172, 16, 0, host),
            Ipv4Addr::new(172, 16, 0, 1),
        )
        .udp(50_000, 4789)
        .payload(&vxlan)
        .build()
}

/// How many the monitor has seen, as its metrics say.
fn flows() -> u32 {
    let text = get("/metrics");
    let text = String::from_utf8_lossy(&text);
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("netbpf_tunnel_monitor_table_flows "));
    step(
        "read the number of flows",
        value.unwrap_or_default().parse::<f64>(),
    ) as u32
}

/// The whole answer.
fn get(path: &str) -> Vec<u8> {
    let mut stream = step("connect", TcpStream::connect("127.0.0.1:8080"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    step("ask", stream.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    step("read the answer", stream.read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path} is refused");
    answer
}

/// A line of /proc/PID/status, in MB.
fn memory(process: &Process<'_>, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = step("read the status", status);
    let value = status.lines().find_map(|it| it.strip_prefix(line));
    let kib = value.and_then(|it| it.split_whitespace().next());
    step(line, kib.unwrap_or_default().parse::<f64>()) * 1024.0 / 1e6
}

fn figure(what: &str, value: f64) {
    println!("{what:<46} {value:>15.1}");
}

fn row(what: &str, times: usize, mut action: impl FnMut()) {
    let mut took: Vec<f64> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            action();
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let (min, median, max) = (took[0], took[times / 2], took[times - 1]);
    println!("{what:<46} {min:>7.1} {median:>7.1} {max:>7.1}");
}
