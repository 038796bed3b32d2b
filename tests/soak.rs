//! All five tools side by side, with traffic that is new all the time: what each takes of the machine is at the
//! end what it was when its tables had filled. A short run here; `make soak HOURS=1` makes a long one.

mod agent_control;
#[expect(
    dead_code,
    reason = "tests of single connections take their time, and want each network"
)]
mod held_peer;
#[expect(dead_code, reason = "the text of a scrape is another test's")]
mod scrape;
#[path = "soak/usage.rs"]
mod usage;

use std::env;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use testbed::line::{Line, datagram};
use testbed::namespace::{Place, Veth};
use testbed::packet::Packet;
use testbed::process::Process;
use testbed::sandbox::Sandbox;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::Injector;
use testbed::{Over, joined, step};

use agent_control::{Control, accepted};
use held_peer::{Network, in_network, write};
use usage::{Usage, settled};

/// Each with the port at which it shows its metrics, and where these say how much of its table is taken.
const TOOLS: [(&str, &str, u16, &str); 5] = [
    (
        env!("CARGO_BIN_EXE_neighbor_sharing"),
        "--wan wan0 --neighbor lan0 --max-entries 2048 --forget-after 5s",
        9101,
        "netbpf_neighbor_sharing_table_addresses",
    ),
    (
        env!("CARGO_BIN_EXE_tokenbucket"),
        "--iface wan0 --max-entries 2048",
        9102,
        "netbpf_tokenbucket_table_flows",
    ),
    (
        env!("CARGO_BIN_EXE_vlan_learning"),
        "--trunk trunk0 --map 02:00:00:00:00:01=w0 --map 02:00:00:00:00:02=w0",
        9103,
        "netbpf_vlan_learning_table_clients",
    ),
    (
        env!("CARGO_BIN_EXE_tunnel_monitor"),
        "--iface wan0 --listen off --max-entries 2048 --interval 1s --forget-after 5s",
        9104,
        "netbpf_tunnel_monitor_table_flows",
    ),
    (
        env!("CARGO_BIN_EXE_tcp_hold"),
        "agent /run/agent --iface up0",
        9105,
        "netbpf_tcp_hold_held_connections",
    ),
];

/// How often each sender sends.
const PAUSE: Duration = Duration::from_millis(1);
/// From one connection to the next.
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(20);
/// Samples of a run.
const SAMPLES: u32 = 200;
/// Runs of `make check`, in which tables of 2,048 are full after three seconds, and of `make check-long`.
const SHORT: Duration = Duration::from_secs(24);
const LONG: Duration = Duration::from_secs(600);

/// So long as NETBPF_SOAK_HOURS says, where it says something.
fn duration(name: &str) -> Duration {
    match env::var("NETBPF_SOAK_HOURS") {
        Ok(hours) => {
            Duration::from_secs_f64(step("NETBPF_SOAK_HOURS", hours.parse::<f64>()) * 3600.0)
        }
        Err(_) if testbed::long(name, "24 s, not ten minutes") => LONG,
        Err(_) => SHORT,
    }
}

/// Addresses that look made up, and come again after 2^24 of them.
fn address(number: u64) -> Ipv4Addr {
    // Odd, so that each number has an address of its own.
    let [_, b, c, d] = (number as u32).wrapping_mul(0x9e_3779b1).to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}

/// Sends the frame of each number, until it is over; how many.
fn send(at: &Place, interface: &str, is_over: &AtomicBool, frame: impl Fn(u64) -> Vec<u8>) -> u64 {
    let injector = Injector::new(at, interface);
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        injector.inject([frame(sent).as_slice()], Duration::ZERO);
        sent += 1;
        sleep(PAUSE);
    }
    sent
}

/// From this host, in one of four networks, between two addresses.
fn in_vxlan(line: &Line, number: u64) -> Vec<u8> {
    let inner = Packet::ethernet([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8])
        .ipv4(address(number + 1), address(number))
        .udp(1, 2)
        .payload_of(40)
        .build();
    line.frame()
        .ipv4(address(number), Ipv4Addr::new(192, 0, 2, 99))
        .udp(50_000, 4789)
        .vxlan(number as u32 % 4, &inner)
        .build()
}

/// A connection after the other is accepted, held, confirmed, ended and counted.
fn connections(network: &Network, is_over: &AtomicBool, ended: &AtomicU64) {
    let control = Control::open("/run/agent");
    while !is_over.load(Ordering::Relaxed) {
        let (mut stream, peer) = accepted(network, &control);
        write(&peer, 2000);
        let (error, handle, ..) = control.ask(1, 0, 0, &[stream.as_raw_fd()]);
        assert_eq!(error, 0, "it is held");
        step("read", stream.read_exact(&mut [0; 2000]));
        assert_eq!(control.ask(2, handle, 2000, &[]).0, 0, "confirmed");
        assert_eq!(control.ask(4, handle, 0, &[]).0, 0, "closed");
        ended.fetch_add(1, Ordering::Relaxed);
        drop((stream, peer));
        sleep(BETWEEN_CONNECTIONS);
    }
}

struct Running<'a> {
    name: &'static str,
    process: Process<'a>,
    scraped_at: String,
    fill: &'static str,
    samples: Vec<Usage>,
    fills: Vec<f64>,
}

impl Running<'_> {
    fn look(&mut self) {
        self.samples.push(Usage::of(self.process.pid()));
        let (_, text) = scrape::get(&self.scraped_at, "application/openmetrics-text");
        let fill = scrape::value(&text, self.fill);
        self.fills.push(step(self.fill, fill.ok_or("is not there")));
    }

    fn fullest(&self) -> f64 {
        self.fills.iter().copied().fold(0.0, f64::max)
    }
}

fn start(sandbox: &Sandbox) -> Vec<Running<'_>> {
    let tools = TOOLS.into_iter().map(|(path, arguments, port, fill)| {
        let tool = Tool::new(path);
        let process = sandbox.start(tool.command(&format!("{arguments} --metrics :{port}")));
        process.wait_for_error("metrics at http://", READY_WITHIN);
        Running {
            name: path.rsplit('/').next().unwrap_or(path),
            process,
            scraped_at: format!("127.0.0.1:{port}"),
            fill,
            samples: Vec::new(),
            fills: Vec::new(),
        }
    });
    tools.collect()
}

/// The most in the second quarter, and in the last.
fn both(then: u64, now: u64) -> String {
    format!("{then} → {now}")
}

#[test]
fn five_tools_side_by_side_take_no_more() {
    let name = "five_tools_side_by_side_take_no_more";
    let lasts = duration(name);
    in_network(name, 0, |sandbox, network| {
        let line = Line::new();
        let here = Place::here();
        let _cables = ["trunk0", "w0"].map(|near| {
            let far = format!("{near}-far");
            Veth::new((&here, &far), (&here, near))
        });
        let mut tools = start(sandbox);
        let (is_over, ended) = (&AtomicBool::new(false), &AtomicU64::new(0));
        let sent: [u64; 4] = scope(|scope| {
            let senders = [
                scope.spawn(|| {
                    let frame =
                        |number| datagram(line.frame(), IpAddr::V4(address(number))).build();
                    send(&line.sender, "eth0", is_over, frame)
                }),
                scope.spawn(|| {
                    let frame =
                        |number| datagram(line.frame_back(), IpAddr::V4(address(number))).build();
                    send(&line.receiver, "eth0", is_over, frame)
                }),
                scope.spawn(|| {
                    send(&line.sender, "eth0", is_over, |number| {
                        in_vxlan(&line, number)
                    })
                }),
                scope.spawn(|| {
                    let tagged = |number: u64| {
                        let client = [2, 0, 0, 0, 0, 1 + (number % 4) as u8];
                        let worker = [2, 0, 0, 0, 9, 9];
                        let vlan = 1 + (number / 1000 % 4000) as u16;
                        Packet::ethernet(client, worker)
                            .vlan(vlan)
                            .payload_of(60)
                            .build()
                    };
                    send(&here, "trunk0-far", is_over, tagged)
                }),
            ];
            scope.spawn(|| connections(network, is_over, ended));
            let over = Over(is_over);
            let began = Instant::now();
            for sample in 1..=SAMPLES {
                let due = lasts * sample / SAMPLES;
                sleep(due.saturating_sub(began.elapsed()));
                tools.iter_mut().for_each(Running::look);
            }
            drop(over);
            senders.map(joined)
        });
        let ended = ended.load(Ordering::Relaxed);
        println!("{lasts:?}: frames {sent:?}, {ended} connections");
        println!(
            "| tool | fullest table | memory, KiB | open files | threads | BPF objects, KiB |"
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        let mut grown = Vec::new();
        for tool in &tools {
            match settled(&tool.samples) {
                Ok([then, now]) => println!(
                    "| {} | {} | {} | {} | {} | {} |",
                    tool.name,
                    tool.fullest(),
                    both(then.memory_kib, now.memory_kib),
                    both(then.files, now.files),
                    both(then.threads, now.threads),
                    both(then.bpf_kib, now.bpf_kib)
                ),
                Err(what) => grown.push(format!("{}: {what}", tool.name)),
            }
        }
        assert_eq!(grown, Vec::<String>::new());
        // Flat is what does not work, too.
        let fullest: Vec<f64> = tools.iter().map(Running::fullest).collect();
        assert!(
            fullest[0] > 500.0,
            "neighbor_sharing has learned: {fullest:?}"
        );
        assert!(
            fullest[1] > 1500.0,
            "tokenbucket's table is full: {fullest:?}"
        );
        assert_eq!(fullest[2], 2.0, "vlan_learning has its clients");
        assert!(
            fullest[3] > 1500.0,
            "tunnel_monitor's table is full: {fullest:?}"
        );
        let least = lasts.as_secs() * 5;
        assert!(ended > least, "tcp_hold: {ended} connections, not {least}");
        for Running { mut process, .. } in tools {
            process.write("\n");
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn what_grows_is_seen() {
    let flat = Usage {
        memory_kib: 8000,
        files: 20,
        threads: 2,
        bpf_kib: 4000,
    };
    let filling = |at: u64| Usage {
        memory_kib: 5000 + 60 * at.min(50),
        bpf_kib: 4000 * at.min(40) / 40,
        ..flat
    };
    let filled: Vec<Usage> = (0..200).map(filling).collect();
    assert_eq!(settled(&filled), Ok([flat; 2]));
    type Grows = (fn(Usage, u64) -> Usage, &'static str);
    let leaks: [Grows; 4] = [
        (
            |usage, at| Usage {
                memory_kib: usage.memory_kib + 8 * at,
                ..usage
            },
            "KiB of memory",
        ),
        (
            |usage, at| Usage {
                files: usage.files + at / 20,
                ..usage
            },
            "files",
        ),
        (
            |usage, at| Usage {
                threads: usage.threads + at / 100,
                ..usage
            },
            "threads",
        ),
        (
            |usage, at| Usage {
                bpf_kib: usage.bpf_kib + at / 10,
                ..usage
            },
            "KiB of BPF objects",
        ),
    ];
    for (leak, what) in leaks {
        let leaking: Vec<Usage> = (0..200).map(|at| leak(filling(at), at)).collect();
        let error = settled(&leaking).err().unwrap_or_default();
        assert!(error.starts_with(what), "{what}: {error:?}");
    }
}
