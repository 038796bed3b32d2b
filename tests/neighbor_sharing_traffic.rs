//! Real traffic through the real neighbor_sharing: rates at the receivers, and what its JSON report
//! says beside what the receivers saw.
//!
//! Rates are those of Ethernet frames (TCP: payload), in kbit/s. Frames of UDP are small, so that a
//! window of a few seconds is not decided by one of them more or less.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::{RangeInclusive, Sub};
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde::Deserialize;
use serde_json::Value;
use testbed::attaching;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::others::{DROPS, GOES_ON, Program};
use testbed::packet::{Mac, Packet};
use testbed::reports::Reporting;
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};
use testbed::traffic::{
    Capture, Count, Delivery, Flood, Seen, UdpFlow, Window, inject, reaches, tcp, udp, udp_together,
};
use testbed::tun::Tun;
use testbed::{is_installed, joined, side_by_side, skip, step};

/// 128 and 1024 kbit/s with what a frame more or less at the edges of a window makes.
const NEIGHBORS: RangeInclusive<f64> = 125.0..=131.0;
const REST: RangeInclusive<f64> = 1000.0..=1048.0;
/// The payload ceilings are 122.4 and 979.3: a policer makes TCP lose now and then.
const NEIGHBOR_GOODPUT: RangeInclusive<f64> = 112.0..=126.0;
const REST_GOODPUT: RangeInclusive<f64> = 900.0..=1000.0;

const STEADY: Window = Window {
    settle: Duration::from_secs(2),
    measure: Duration::from_secs(12),
};
/// TCP needs longer: the burst is worth two seconds, and what of it TCP's first losses have left over
/// would come on top of the rate.
const TCP: Window = Window {
    settle: Duration::from_secs(4),
    measure: Duration::from_secs(12),
};
/// Three times the rate uses up the burst (32 KiB at 128 kbit/s) within the settling.
const SHORT: Window = Window {
    settle: Duration::from_secs(2),
    measure: Duration::from_secs(5),
};
/// Far above every limit, and below what a busy machine can do.
const UNLIMITED: u32 = 4000;

/// One report of neighbor_sharing, as far as it is looked at here.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    elapsed: f64,
    meters: Vec<Meter>,
    addresses: Vec<Address>,
    unattributed: Ways,
    ports: Vec<Port>,
    unknown_counts_as: String,
    events: HashMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Meter {
    class: String,
    way: String,
    limit: Option<u64>,
    #[serde(flatten)]
    total: Counter,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    address: IpAddr,
    class: String,
    port: String,
    #[serde(flatten)]
    counts: Ways,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Ways {
    download: Counter,
    upload: Counter,
}

#[derive(Clone, Debug, Deserialize)]
struct Port {
    port: String,
    addresses: u64,
    quota: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
struct Counter {
    packets: u64,
    bytes: u64,
    dropped_packets: u64,
    dropped_bytes: u64,
}

impl Counter {
    fn passed(self) -> Count {
        Count {
            packets: self.packets,
            bytes: self.bytes,
        }
    }

    /// Passed and dropped.
    fn all(self) -> Count {
        Count {
            packets: self.packets + self.dropped_packets,
            bytes: self.bytes + self.dropped_bytes,
        }
    }
}

impl Sub for Counter {
    type Output = Counter;

    fn sub(self, before: Counter) -> Counter {
        Counter {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            dropped_packets: self.dropped_packets - before.dropped_packets,
            dropped_bytes: self.dropped_bytes - before.dropped_bytes,
        }
    }
}

impl Report {
    #[track_caller]
    fn meter(&self, class: &str, way: &str) -> &Meter {
        let meter = |meter: &&Meter| meter.class == class && meter.way == way;
        let found = self.meters.iter().find(meter);
        found.unwrap_or_else(|| panic!("no meter of {class} {way}: {self:?}"))
    }

    fn address(&self, address: IpAddr) -> Option<&Address> {
        self.addresses.iter().find(|row| row.address == address)
    }

    /// What was counted for an address; nothing while it is not known.
    fn counts(&self, address: IpAddr) -> Ways {
        self.address(address)
            .map_or_else(Ways::default, |row| row.counts)
    }

    #[track_caller]
    fn event(&self, name: &str) -> u64 {
        let count = self.events.get(name).copied();
        count.unwrap_or_else(|| panic!("no event {name}: {self:?}"))
    }

    #[track_caller]
    fn port(&self, name: &str) -> &Port {
        let found = self.ports.iter().find(|port| port.port == name);
        found.unwrap_or_else(|| panic!("no port {name}: {self:?}"))
    }
}

/// neighbor_sharing at work.
type Sharing<'a> = Reporting<'a, Report>;

/// The simulation, up.
fn simulated<'a>(sandbox: &'a Sandbox, arguments: &str) -> Sharing<'a> {
    start(sandbox, arguments, "Press enter")
}

/// On interfaces, attached.
fn on_interfaces<'a>(sandbox: &'a Sandbox, arguments: &str) -> Sharing<'a> {
    start(sandbox, arguments, "Sharing ")
}

fn start<'a>(sandbox: &'a Sandbox, arguments: &str, ready: &str) -> Sharing<'a> {
    let tool = Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing"));
    let command = tool.command(&format!("--json --interval 500ms {arguments}"));
    let process = sandbox.start(command);
    process.wait_for_error(ready, READY_WITHIN);
    Reporting::of(process)
}

/// A host of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host {
    name: &'static str,
    digits: u8,
}

const fn host(name: &'static str, digits: u8) -> Host {
    Host { name, digits }
}

const WAN: Host = host("wan0", 5);
const NEIGHBOR: [Host; 3] = [
    host("neighbor0", 100),
    host("neighbor1", 101),
    host("neighbor2", 102),
];
const LOCAL: [Host; 2] = [host("local0", 150), host("local1", 151)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Host {
    fn place(self) -> Place {
        Place::named(self.name)
    }

    fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(172, 16, 1, self.digits).into(),
            // The same digits, now hexadecimal.
            Family::V6 => step(
                "an address",
                format!("fd00:ac10:1::{}", self.digits).parse::<Ipv6Addr>(),
            )
            .into(),
        }
    }

    fn v4(self) -> IpAddr {
        self.address(Family::V4)
    }
}

/// UDP of 500-byte frames.
fn flood(to: IpAddr, kbit_per_second: u32) -> Flood {
    let payload = if to.is_ipv4() { 458 } else { 438 };
    Flood {
        payload,
        kbit_per_second,
    }
}

/// A UDP flow between two hosts of the simulation.
#[derive(Clone, Copy, Debug)]
struct Flow {
    from: Host,
    to: Host,
    kbit_per_second: u32,
}

/// Runs them beside each other.
fn run_flows(flows: &[Flow], family: Family, window: Window) -> Vec<Delivery> {
    let places: Vec<_> = flows
        .iter()
        .map(|flow| (flow.from.place(), flow.to.place()))
        .collect();
    let flow = |(flow, (from, to)): (&Flow, _)| {
        let address = flow.to.address(family);
        UdpFlow {
            from,
            to,
            address,
            flood: flood(address, flow.kbit_per_second),
        }
    };
    let flows: Vec<_> = flows
        .iter()
        .zip(places.iter().map(|(from, to)| (from, to)))
        .map(flow)
        .collect();
    udp_together(&flows, window)
}

fn download(hosts: &[Host], kbit_per_second: u32) -> Vec<Flow> {
    let flow = |&to| Flow {
        from: WAN,
        to,
        kbit_per_second,
    };
    hosts.iter().map(flow).collect()
}

fn upload(hosts: &[Host], kbit_per_second: u32) -> Vec<Flow> {
    let flow = |&from| Flow {
        from,
        to: WAN,
        kbit_per_second,
    };
    hosts.iter().map(flow).collect()
}

/// All of them together, at the receivers.
fn received(deliveries: &[Delivery], window: Window) -> f64 {
    let rate = |delivery: &Delivery| delivery.received.kbit_per_second(window.measure);
    deliveries.iter().map(rate).sum()
}

#[track_caller]
fn assert_rate(what: &str, rate: f64, range: RangeInclusive<f64>) {
    assert!(
        range.contains(&rate),
        "{what}: {rate:.1} kbit/s, not {range:?}"
    );
}

/// What was sent came through, but for what was on its way at the edges of the window.
#[track_caller]
fn assert_unlimited(what: &str, deliveries: &[Delivery]) {
    for Delivery { sent, received } in deliveries {
        let share = received.bytes as f64 / sent.bytes as f64;
        assert!(
            sent.bytes > 0 && (0.97..1.03).contains(&share),
            "{what}: {share:.3} of {sent:?} came through"
        );
    }
}

/// Every host speaks once, so that its address is known.
fn introduce(family: Family) {
    for host in NEIGHBOR.iter().chain(&LOCAL) {
        let answered = reaches(&host.place(), WAN.address(family));
        assert!(answered, "{} does not reach the WAN host", host.name);
    }
}

/// The addresses of an IP packet in an Ethernet frame, unless it is of those that are not metered.
fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    const ICMPV6: u8 = 58;
    let ip = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let address = |at: usize| Some(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?.into());
            Some((address(12)?, address(16)?))
        }
        [0x86, 0xdd] => {
            let kind = match (*ip.get(6)?, *ip.get(40)?) {
                (ICMPV6, kind) => Some(kind),
                // Behind a hop-by-hop header of eight bytes, as MLD has it.
                (0, ICMPV6) => ip.get(48).copied(),
                _ => None,
            };
            if matches!(kind, Some(130..=137 | 143)) {
                return None;
            }
            let address = |at: usize| Some(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?.into());
            Some((address(8)?, address(24)?))
        }
        _ => None,
    }
}

/// Counts what reaches a host, and what reaches the WAN host from it.
struct Witness {
    address: IpAddr,
    download: Capture,
    upload: Capture,
}

impl Witness {
    const AT_MOST: Duration = Duration::from_secs(60);

    fn of(host: Host, family: Family) -> Witness {
        Witness::between(
            (&host.place(), host.address(family)),
            &WAN.place(),
            host.address(family),
        )
    }

    /// `seen_as` is the source that the far host sees.
    fn between((place, address): (&Place, IpAddr), far: &Place, seen_as: IpAddr) -> Witness {
        let to_host =
            move |frame: &[u8]| ends(frame).is_some_and(|(_, destination)| destination == address);
        let from_host =
            move |frame: &[u8]| ends(frame).is_some_and(|(source, _)| source == seen_as);
        Witness {
            address,
            download: Capture::start(place, "eth0", Witness::AT_MOST, to_host),
            upload: Capture::start(far, "eth0", Witness::AT_MOST, from_host),
        }
    }

    fn finish(self) -> (IpAddr, Seen, Seen) {
        (self.address, self.download.finish(), self.upload.finish())
    }
}

/// What the report counts for each address is what was seen there.
#[track_caller]
fn assert_counted(before: &Report, after: &Report, witnesses: Vec<Witness>) {
    for (address, download, upload) in witnesses.into_iter().map(Witness::finish) {
        let (then, now) = (before.counts(address), after.counts(address));
        let counted = (now.download - then.download, now.upload - then.upload);
        assert_eq!(
            (counted.0.passed(), counted.1.passed()),
            (download.count, upload.count),
            "{address}: counted and seen, down and up"
        );
    }
}

/// The rule itself: the burst, and the rate since the start.
#[track_caller]
fn assert_never_more(report: &Report) {
    for meter in &report.meters {
        let Some(limit) = meter.limit else { continue };
        // The report is taken a moment after its time.
        let most = 32_768.0 + limit as f64 / 8.0 * (report.elapsed + 0.5);
        assert!((meter.total.bytes as f64) < most, "{meter:?} in {report:?}");
    }
}

/// A neighbor and a LAN client at once. Downloads and uploads in one network would take from each
/// other's bucket by their acknowledgements, so each has its own.
#[track_caller]
fn assert_tcp(name: &str, family: Family, ends: fn(Host) -> (Host, Host)) {
    sandbox::run(name, |sandbox| {
        let sharing = simulated(sandbox, "");
        introduce(family);
        let (neighbor, local) = scope(|scope| {
            let flow = |host: Host| {
                let (from, to) = ends(host);
                let address = to.address(family);
                scope.spawn(move || tcp(&from.place(), &to.place(), address, TCP))
            };
            let (neighbor, local) = (flow(NEIGHBOR[0]), flow(LOCAL[0]));
            (joined(neighbor), joined(local))
        });
        assert_rate("TCP, a neighbor", neighbor, NEIGHBOR_GOODPUT);
        assert_rate("TCP, a LAN client", local, REST_GOODPUT);
        let report = sharing.finish();
        assert_never_more(&report);
        for host in [NEIGHBOR[0], LOCAL[0]] {
            let Ways { download, upload } = report.counts(host.address(family));
            let both = [download, upload];
            assert!(both.iter().any(|way| way.dropped_packets > 0), "{report:?}");
            assert!(both.iter().all(|way| way.packets > 0), "{report:?}");
        }
    });
}

#[test]
fn tcp_has_the_rate_of_its_class() {
    let name = "tcp_has_the_rate_of_its_class";
    side_by_side([
        &|| assert_tcp(name, Family::V4, |host| (WAN, host)),
        &|| assert_tcp(name, Family::V4, |host| (host, WAN)),
        &|| assert_tcp(name, Family::V6, |host| (WAN, host)),
        &|| assert_tcp(name, Family::V6, |host| (host, WAN)),
    ]);
}

/// One cubic flow as users measure it, the first two seconds left out. The servers of the simulation
/// listen on 5201; the WAN host has none, and gets one. The goodput at the receiver, in kbit/s.
fn iperf3(sandbox: &Sandbox, (from, to): (Host, Host), family: Family, port: u16) -> f64 {
    let _server = (to == WAN).then(|| {
        let mut server = to.place().command("iperf3");
        server.args(["-s", "-1", "--forceflush", "-p", &port.to_string()]);
        let server = sandbox.start(server);
        server.wait_for("Server listening", READY_WITHIN);
        server
    });
    let mut client = from.place().command("iperf3");
    client.args(["-J", "-C", "cubic", "-O", "2", "-t", "12"]);
    client.args([
        "-p",
        &port.to_string(),
        "-c",
        &to.address(family).to_string(),
    ]);
    let output = step("run iperf3", client.output());
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Value = step(format!("parse {said}"), serde_json::from_str(&said));
    let rate = said.pointer("/end/sum_received/bits_per_second");
    let rate = rate.and_then(Value::as_f64);
    rate.unwrap_or_else(|| panic!("no rate of the receiver in {said}")) / 1000.0
}

/// To a neighbor and to a LAN client at once.
fn cubic(name: &str, family: Family, ends: fn(Host) -> (Host, Host)) -> [f64; 2] {
    let mut rates = [0.0; 2];
    sandbox::run(name, |sandbox| {
        let sharing = simulated(sandbox, "");
        introduce(family);
        rates = scope(|scope| {
            let flow = |(host, port)| {
                let ends = ends(host);
                let port = if ends.1 == WAN { port } else { 5201 };
                scope.spawn(move || iperf3(sandbox, ends, family, port))
            };
            [(NEIGHBOR[0], 5301), (LOCAL[0], 5302)]
                .map(flow)
                .map(joined)
        });
        sharing.finish();
    });
    rates
}

/// The median of three: where a timeout of TCP's falls into the end of the first two seconds, the bucket
/// has filled meanwhile, which is up to 5 kbit/s in twelve.
#[track_caller]
fn assert_cubic(name: &str, family: Family, ends: fn(Host) -> (Host, Host)) {
    let runs = scope(|scope| {
        [(); 3]
            .map(|()| scope.spawn(|| cubic(name, family, ends)))
            .map(joined)
    });
    for (number, (whose, range)) in [
        ("a neighbor", NEIGHBOR_GOODPUT),
        ("a LAN client", REST_GOODPUT),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rates = runs.map(|rates| rates[number]);
        rates.sort_by(f64::total_cmp);
        println!("iperf3, {whose}: {rates:.1?} kbit/s");
        assert_rate(&format!("iperf3, {whose}"), rates[1], range);
    }
}

#[test]
fn a_cubic_flow_has_the_rate_of_its_class_after_two_seconds() {
    let name = "a_cubic_flow_has_the_rate_of_its_class_after_two_seconds";
    if !is_installed("iperf3") || !geteuid().is_root() {
        return skip(name, "needs iperf3, and root");
    }
    side_by_side([
        &|| assert_cubic(name, Family::V4, |host| (WAN, host)),
        &|| assert_cubic(name, Family::V4, |host| (host, WAN)),
        &|| assert_cubic(name, Family::V6, |host| (WAN, host)),
        &|| assert_cubic(name, Family::V6, |host| (host, WAN)),
    ]);
}

/// Three times the limit for each of the four buckets at once, and every packet accounted for.
#[track_caller]
fn assert_udp(name: &str, arguments: &str, family: Family, window: Window) {
    sandbox::run(name, |sandbox| {
        let sharing = simulated(sandbox, arguments);
        introduce(family);
        let hosts = NEIGHBOR.iter().chain(&LOCAL);
        let witnesses = hosts.map(|host| Witness::of(*host, family)).collect();
        let before = sharing.report();
        let flows = [
            download(&NEIGHBOR, 128),
            upload(&NEIGHBOR, 128),
            download(&LOCAL, 1536),
            upload(&LOCAL, 1536),
        ];
        let deliveries = run_flows(&flows.concat(), family, window);
        let (neighbors, rest) = deliveries.split_at(2 * NEIGHBOR.len());
        let (down, up) = neighbors.split_at(NEIGHBOR.len());
        assert_rate("down, neighbors", received(down, window), NEIGHBORS);
        assert_rate("up, neighbors", received(up, window), NEIGHBORS);
        let (down, up) = rest.split_at(LOCAL.len());
        assert_rate("down, the rest", received(down, window), REST);
        assert_rate("up, the rest", received(up, window), REST);
        let after = sharing.report();
        assert_counted(&before, &after, witnesses);
        assert_never_more(&after);
        sharing.finish();
    });
}

#[test]
fn udp_of_each_class_and_way_has_its_rate_and_is_counted() {
    let name = "udp_of_each_class_and_way_has_its_rate_and_is_counted";
    side_by_side([&|| assert_udp(name, "", Family::V4, STEADY), &|| {
        assert_udp(name, "", Family::V6, STEADY)
    }]);
}

#[test]
fn policed_at_the_ports_the_rates_are_the_same() {
    let name = "policed_at_the_ports_the_rates_are_the_same";
    assert_udp(name, "--police-at lan", Family::V4, SHORT);
}

#[test]
fn policed_at_the_ports_only_what_crosses_the_wan_is_limited() {
    sandbox::run(
        "policed_at_the_ports_only_what_crosses_the_wan_is_limited",
        |sandbox| {
            let sharing = simulated(sandbox, "--police-at lan");
            introduce(Family::V4);
            let host: IpAddr = Ipv4Addr::new(172, 16, 1, 1).into();
            Place::here().ip("address add 172.16.1.1/24 dev br100");
            let before = sharing.report();
            let own = |to: Host| {
                let flood = flood(to.v4(), UNLIMITED);
                move || udp(&Place::here(), &to.place(), to.v4(), flood, SHORT)
            };
            let flow = |from, to| Flow {
                from,
                to,
                kbit_per_second: UNLIMITED,
            };
            let (own, between, down) = scope(|scope| {
                let own = [NEIGHBOR[0], LOCAL[0], WAN].map(|to| scope.spawn(own(to)));
                let flows = [
                    flow(NEIGHBOR[1], NEIGHBOR[2]),
                    flow(NEIGHBOR[2], LOCAL[0]),
                    flow(LOCAL[1], LOCAL[0]),
                    flow(LOCAL[1], NEIGHBOR[1]),
                ];
                let between = scope.spawn(move || run_flows(&flows, Family::V4, SHORT));
                let down = run_flows(&download(&NEIGHBOR, 128), Family::V4, SHORT);
                (own.map(joined), joined(between), down)
            });
            assert_unlimited("from the host itself", &own);
            assert_unlimited("between ports", &between);
            assert_rate("down, neighbors", received(&down, SHORT), NEIGHBORS);
            assert!(reaches(&WAN.place(), host));
            let after = sharing.finish();
            let counted = after.meter("rest", "download").total.all().bytes
                - before.meter("rest", "download").total.all().bytes;
            assert!(counted < 1000, "not from the WAN, but counted: {after:?}");
            assert!(after.event("not_from_a_port") > 0, "{after:?}");
        },
    );
}

#[test]
fn a_direction_that_is_not_asked_for_is_not_limited() {
    let name = "a_direction_that_is_not_asked_for_is_not_limited";
    let only = |limited: &str| {
        sandbox::run(name, |sandbox| {
            let sharing = simulated(sandbox, &format!("--direction {limited}"));
            introduce(Family::V4);
            let kbit = |way| if way == limited { 384 } else { UNLIMITED };
            let flows = [
                download(&NEIGHBOR[..1], kbit("download")),
                upload(&NEIGHBOR[..1], kbit("upload")),
            ];
            let deliveries = run_flows(&flows.concat(), Family::V4, SHORT);
            let (down, up) = deliveries.split_at(1);
            let (capped, free) = match limited {
                "download" => (down, up),
                _ => (up, down),
            };
            assert_rate(limited, received(capped, SHORT), NEIGHBORS);
            assert_unlimited("the other way", free);
            let report = sharing.finish();
            for meter in &report.meters {
                assert_eq!(meter.limit.is_some(), meter.way == limited, "{meter:?}");
                assert!(meter.total.packets > 0, "counted nevertheless: {meter:?}");
            }
        });
    };
    side_by_side([&|| only("download"), &|| only("upload")]);
}

#[test]
fn a_dry_run_drops_nothing_and_counts_what_it_would() {
    sandbox::run(
        "a_dry_run_drops_nothing_and_counts_what_it_would",
        |sandbox| {
            let sharing = simulated(sandbox, "--dry-run");
            introduce(Family::V4);
            let before = sharing.report();
            let witness = Witness::of(NEIGHBOR[0], Family::V4);
            let flows = [download(&NEIGHBOR[..1], 384), upload(&NEIGHBOR[..1], 384)];
            let deliveries = run_flows(&flows.concat(), Family::V4, SHORT);
            assert_unlimited("in a dry run", &deliveries);
            let after = sharing.report();
            let (address, down, up) = witness.finish();
            let (then, now) = (before.counts(address), after.counts(address));
            for (then, now, seen) in [
                (then.download, now.download, down),
                (then.upload, now.upload, up),
            ] {
                let counted = now - then;
                assert_eq!(counted.all(), seen.count);
                // What would have passed: the rate over the seven seconds, and the burst.
                let would_pass = counted.bytes as f64 * 8.0 / 1000.0 - 32.768 * 8.0;
                assert_rate("would pass", would_pass / 7.0, 120.0..=136.0);
            }
            sharing.finish();
        },
    );
}

#[test]
fn who_is_exempt_is_not_limited() {
    sandbox::run("who_is_exempt_is_not_limited", |sandbox| {
        let sharing = simulated(sandbox, "--exempt 172.16.1.101");
        introduce(Family::V4);
        let before = sharing.report();
        let witness = Witness::of(NEIGHBOR[1], Family::V4);
        let flows = [
            download(&NEIGHBOR[1..2], UNLIMITED),
            upload(&NEIGHBOR[1..2], UNLIMITED),
            download(&NEIGHBOR[..1], 384),
            upload(&NEIGHBOR[..1], 384),
        ];
        let deliveries = run_flows(&flows.concat(), Family::V4, SHORT);
        assert_unlimited("exempt", &deliveries[..2]);
        assert_rate(
            "another, down",
            received(&deliveries[2..3], SHORT),
            NEIGHBORS,
        );
        assert_rate("another, up", received(&deliveries[3..], SHORT), NEIGHBORS);
        let after = sharing.report();
        let (address, down, up) = witness.finish();
        let exempt = after.event("exempt") - before.event("exempt");
        assert_eq!(exempt, down.count.packets + up.count.packets);
        assert_eq!(
            after.counts(address).download,
            before.counts(address).download
        );
        sharing.finish();
    });
}

/// A GSO packet is one for the kernel, and dozens on the wire.
#[test]
fn segments_are_counted_and_not_packets_of_the_kernel() {
    sandbox::run(
        "segments_are_counted_and_not_packets_of_the_kernel",
        |sandbox| {
            const BYTES: usize = 3_000_000;
            let rates = "--neighbor-rate 1gbit --rest-rate 1gbit --burst 10mb";
            let sharing = simulated(sandbox, rates);
            for family in [Family::V4, Family::V6] {
                introduce(family);
                let before = sharing.report();
                let witnesses = vec![
                    Witness::of(NEIGHBOR[0], family),
                    Witness::of(LOCAL[0], family),
                ];
                for (from, to) in [(WAN, NEIGHBOR[0]), (LOCAL[0], WAN)] {
                    let address = to.address(family);
                    testbed::traffic::tcp_transfer(
                        &from.place(),
                        &to.place(),
                        address,
                        BYTES,
                        ENDS_WITHIN,
                    );
                }
                let after = sharing.report();
                let (then, now) = (
                    before.counts(NEIGHBOR[0].address(family)),
                    after.counts(NEIGHBOR[0].address(family)),
                );
                let counted = now.download - then.download;
                assert_eq!(counted.dropped_packets, 0, "{counted:?}");
                assert!(counted.packets as usize > BYTES / 1500, "{counted:?}");
                assert_counted(&before, &after, witnesses);
            }
            sharing.finish();
        },
    );
}

/// The sandbox as a router that masquerades towards the internet:
///
/// ```text
/// internet 198.51.100.2 --- wan0 | router | --- flat (a neighbor)   --- desk, shelf (LAN)
/// ```
struct Router {
    internet: Namespace,
    flat: Namespace,
    desk: Namespace,
    shelf: Namespace,
    bridged: bool,
    cables: Vec<Veth>,
}

const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

impl Router {
    const HOSTS: [&str; 3] = ["flat", "desk", "shelf"];

    /// `bridged`: flat0, desk0 and shelf0 are ports of br7, which is routed; else each is.
    fn new(bridged: bool) -> Router {
        let here = Place::here();
        let internet = Namespace::new("internet");
        let [flat, desk, shelf] = Router::HOSTS.map(Namespace::new);
        let mut cables = vec![Veth::new((&here, "wan0"), (&internet, "eth0"))];
        here.ip(&format!("address add {OUTSIDE}/24 dev wan0"));
        internet.ip(&format!("address add {INTERNET}/24 dev eth0"));
        if bridged {
            here.ip("link add br7 type bridge");
            here.ip("address add 10.0.0.1/24 dev br7");
            here.ip("link set br7 up");
        }
        for (number, host) in (1..).zip::<[&Place; 3]>([&flat, &desk, &shelf]) {
            let port = format!("{host}0");
            cables.push(Veth::new((&here, &port), (host, "eth0")));
            let gateway = if bridged {
                here.ip(&format!("link set {port} master br7"));
                "10.0.0.1".to_owned()
            } else {
                here.ip(&format!("address add 10.0.{number}.1/24 dev {port}"));
                format!("10.0.{number}.1")
            };
            let address = Router::address(bridged, number);
            host.ip(&format!("address add {address}/24 dev eth0"));
            host.ip(&format!("route add default via {gateway}"));
        }
        set_forwarding(true);
        let rules = "add table ip sharing; \
                     add chain ip sharing leaving { type nat hook postrouting priority 100; }; \
                     add rule ip sharing leaving oifname wan0 masquerade";
        nft(rules);
        let router = Router {
            internet,
            flat,
            desk,
            shelf,
            bridged,
            cables,
        };
        for host in router.hosts() {
            // A bridge's port forwards a moment after its carrier.
            let deadline = Instant::now() + Duration::from_secs(5);
            while !reaches(host.0, INTERNET.into()) {
                assert!(Instant::now() < deadline, "{} is cut off", host.0);
            }
        }
        router
    }

    fn address(bridged: bool, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, if bridged { 0 } else { number }, 1 + number)
    }

    fn hosts(&self) -> [(&Place, IpAddr); 3] {
        let address = |number| Router::address(self.bridged, number).into();
        [
            (&self.flat, address(1)),
            (&self.desk, address(2)),
            (&self.shelf, address(3)),
        ]
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.cables.clear();
        if self.bridged {
            Place::here().ip("link delete br7");
        }
        nft("delete table ip sharing");
        set_forwarding(false);
    }
}

fn set_forwarding(on: bool) {
    let path = "/proc/sys/net/ipv4/ip_forward";
    step(path, fs::write(path, if on { "1" } else { "0" }));
}

fn nft(rules: &str) {
    let status = Command::new("nft").arg(rules).status();
    assert!(step("run nft", status).success(), "nft {rules}");
}

/// A download as it comes through masquerading: `inside` asks, `outside` answers to where the
/// question seems to come from.
fn answer(inside: &Place, outside: &Place, kbit_per_second: u32, window: Window) -> f64 {
    let flood = flood(INTERNET.into(), kbit_per_second);
    let frame = 500_u32;
    let open = |address: SocketAddr| step(address, UdpSocket::bind(address));
    let server = outside.run(|| open((INTERNET, 0).into()));
    let client = inside.run(|| open((Ipv4Addr::UNSPECIFIED, 0).into()));
    let long = Some(Duration::from_secs(2));
    step("bound the question", server.set_read_timeout(long));
    step(
        "address the server",
        client.connect(step("where it is", server.local_addr())),
    );
    step("ask", client.send(b"?"));
    let (_, seen_as) = step("hear the question", server.recv_from(&mut [0; 8]));
    assert_eq!(seen_as.ip(), OUTSIDE, "masquerading is in place");
    let begin = Instant::now() + window.settle;
    let end = begin + window.measure;
    scope(|scope| {
        scope.spawn(move || {
            let start = Instant::now();
            let pause = f64::from(frame * 8) / f64::from(flood.kbit_per_second) / 1000.0;
            for number in 0.. {
                let due = start + Duration::from_secs_f64(f64::from(number) * pause);
                sleep(due.saturating_duration_since(Instant::now()));
                if Instant::now() >= end {
                    return;
                }
                step("answer", server.send_to(&vec![0; flood.payload], seen_as));
            }
        });
        let mut count = Count::default();
        let patience = Some(Duration::from_millis(20));
        step("bound the receiving", client.set_read_timeout(patience));
        while Instant::now() < end {
            // Nothing within the patience is no error.
            if client.recv(&mut [0; 2048]).is_ok() && Instant::now() >= begin {
                count.packets += 1;
                count.bytes += u64::from(frame);
            }
        }
        count.kbit_per_second(window.measure)
    })
}

#[track_caller]
fn assert_routed(name: &str, bridged: bool) {
    sandbox::run(name, |sandbox| {
        let router = &Router::new(bridged);
        let interfaces = "--wan wan0 --neighbor flat0 --lan desk0 shelf0";
        let sharing = on_interfaces(sandbox, interfaces);
        let [flat, desk, shelf] = router.hosts();
        for (place, _) in [flat, desk] {
            assert!(reaches(place, INTERNET.into()));
        }
        let before = sharing.report();
        let downloads: Vec<_> = [flat, desk]
            .into_iter()
            .map(|(place, address)| {
                let to_host = move |frame: &[u8]| ends(frame).is_some_and(|ends| ends.1 == address);
                (
                    address,
                    Capture::start(place, "eth0", Witness::AT_MOST, to_host),
                )
            })
            .collect();
        let up = |place: &Place, kbit_per_second| {
            let flood = flood(INTERNET.into(), kbit_per_second);
            udp(place, &router.internet, INTERNET.into(), flood, SHORT)
        };
        let (rates, between, own) = scope(|scope| {
            let down = [(flat.0, 384), (desk.0, 3072)].map(|(place, kbit)| {
                scope.spawn(move || answer(place, &router.internet, kbit, SHORT))
            });
            let up = [(flat.0, 384), (desk.0, 3072)]
                .map(|(place, kbit)| scope.spawn(move || up(place, kbit)));
            // From port to port, and the router's own.
            let lan_to_lan = flood(desk.1, UNLIMITED);
            let between = [(shelf.0, desk), (desk.0, flat), (flat.0, shelf)]
                .map(|(from, to)| scope.spawn(move || udp(from, to.0, to.1, lan_to_lan, SHORT)));
            let own = scope.spawn(|| {
                let flood = flood(INTERNET.into(), UNLIMITED);
                udp(
                    &Place::here(),
                    &router.internet,
                    INTERNET.into(),
                    flood,
                    SHORT,
                )
            });
            let own_to_port = udp(&Place::here(), shelf.0, shelf.1, lan_to_lan, SHORT);
            let down = down.map(joined);
            let up = up.map(|thread| received(&[joined(thread)], SHORT));
            ((down, up), between.map(joined), [joined(own), own_to_port])
        });
        let (down, up) = rates;
        assert_rate("down, neighbor", down[0], NEIGHBORS);
        assert_rate("down, the rest", down[1], REST);
        assert_rate("up, neighbor", up[0], NEIGHBORS);
        assert_rate("up, the rest", up[1], REST);
        assert_unlimited("between ports", &between);
        assert_unlimited("the router's own", &own);
        let after = sharing.finish();
        for (place, address) in [flat, desk] {
            let (then, now) = (before.counts(address), after.counts(address));
            let upload = (now.upload - then.upload).all();
            let class = if address == flat.1 { 384.0 } else { 3072.0 };
            let rate = upload.kbit_per_second(Duration::from_secs(7));
            // What it sent, passed and dropped, although the packets at the WAN bear the router's
            // address. The pings and the questions are in it, too.
            assert_rate(
                &format!("uploads of {place}"),
                rate,
                class * 0.97..=class * 1.03,
            );
        }
        let port = |address| after.address(address).map(|row| row.port.as_str());
        assert_eq!(port(flat.1), Some("flat0"), "{after:?}");
        assert_eq!(port(desk.1), Some("desk0"), "{after:?}");
        // From port to port everything is seen, little is the WAN's.
        for (address, capture) in downloads {
            let counted = after.counts(address).download - before.counts(address).download;
            let seen = capture.finish().count;
            assert!(
                (1..seen.packets).contains(&counted.packets),
                "{address}: {counted:?} counted, {seen:?} seen"
            );
        }
        assert_eq!(after.counts(shelf.1).download, Counter::default());
    });
}

/// Each port routed, and the ports on a bridge that is routed.
#[test]
fn behind_masquerading_each_class_has_its_rate() {
    let name = "behind_masquerading_each_class_has_its_rate";
    side_by_side([&|| assert_routed(name, false), &|| {
        assert_routed(name, true)
    }]);
}

/// With clsact the same, and `tc` shows filters on a qdisc that goes with them.
#[test]
fn filters_on_clsact_do_the_same() {
    sandbox::run("filters_on_clsact_do_the_same", |sandbox| {
        let sharing = simulated(sandbox, "--attach clsact");
        introduce(Family::V4);
        let here = Place::here();
        for (interface, side) in [
            ("wan0a", "ingress"),
            ("wan0a", "egress"),
            ("neighbor0a", "ingress"),
        ] {
            let filters = here.tc(&format!("filter show dev {interface} {side}"));
            assert!(filters.contains("direct-action"), "{interface}: {filters}");
        }
        let hosts = NEIGHBOR.iter().chain(&LOCAL);
        let witnesses = hosts.map(|host| Witness::of(*host, Family::V4)).collect();
        let before = sharing.report();
        let flows = [download(&NEIGHBOR, 128), upload(&NEIGHBOR, 128)];
        let deliveries = run_flows(&flows.concat(), Family::V4, SHORT);
        let (down, up) = deliveries.split_at(NEIGHBOR.len());
        assert_rate("down", received(down, SHORT), NEIGHBORS);
        assert_rate("up", received(up, SHORT), NEIGHBORS);
        assert_counted(&before, &sharing.report(), witnesses);
        sharing.finish();
    });
}

/// Ours see the packets, and so do theirs: what they drop stays dropped, what they pass is policed.
#[track_caller]
fn assert_beside_others(name: &str, attach: &str) {
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let router = Router::new(true);
        let (passes, drops) = (
            Program::answering("others", GOES_ON),
            Program::answering("others", DROPS),
        );
        for port in ["flat0", "desk0"] {
            here.tc(&format!("qdisc add dev {port} clsact"));
        }
        passes.filter("flat0", 1);
        passes.filter("flat0", 100);
        drops.filter("desk0", 100);
        let link = (attach == "tcx").then(|| drops.attach("shelf0"));
        let before = sandbox.snapshot();
        let arguments = format!("--wan wan0 --neighbor flat0 --lan desk0 shelf0 --attach {attach}");
        let sharing = on_interfaces(sandbox, &arguments);
        let [flat, desk, shelf] = router.hosts();
        assert!(reaches(flat.0, INTERNET.into()));
        assert!(!reaches(desk.0, INTERNET.into()), "their filter drops");
        assert_eq!(reaches(shelf.0, INTERNET.into()), link.is_none());
        let flood = flood(INTERNET.into(), 384);
        let up = udp(flat.0, &router.internet, INTERNET.into(), flood, SHORT);
        assert_rate("up", received(&[up], SHORT), NEIGHBORS);
        let report = sharing.report();
        for (place, address) in [flat, desk, shelf] {
            assert!(
                report.address(address).is_some(),
                "{place} was not seen: {report:?}"
            );
        }
        assert_eq!(report.counts(desk.1).upload, Counter::default());
        sharing.finish();
        before.assert_same(&sandbox.snapshot(), "after the end beside others' filters");
        assert!(
            !reaches(desk.0, INTERNET.into()),
            "their filter still drops"
        );
        drop(link);
    });
}

#[test]
fn programs_of_others_run_on_beside_ours() {
    let name = "programs_of_others_run_on_beside_ours";
    attaching::by_each_way(|attach| assert_beside_others(name, attach));
}

/// Ports without an Ethernet header: what is written to a tun device comes in there.
#[test]
fn interfaces_without_an_ethernet_header_take_part() {
    sandbox::run(
        "interfaces_without_an_ethernet_header_take_part",
        |sandbox| {
            let here = Place::here();
            let router = Router::new(false);
            let mut tun = Tun::new("tun7");
            here.ip("address add 10.7.0.1/24 dev tun7");
            let guest = Ipv4Addr::new(10, 7, 0, 2);
            let packet = |from: Ipv4Addr, to: IpAddr| {
                let IpAddr::V4(to) = to else {
                    unreachable!("IPv4 only here")
                };
                let packet = Packet::without_link().ipv4(from, to).udp(9, 9);
                packet.payload_of(172).build()
            };
            let [flat, desk, _] = router.hosts();
            let once = |packets: u64, bytes: u64| Counter {
                packets,
                bytes,
                ..Counter::default()
            };

            // As a neighbor's port, each side of policing.
            for side in ["lan", "wan"] {
                let interfaces =
                    format!("--wan wan0 --neighbor tun7 --lan desk0 --police-at {side}");
                let sharing = on_interfaces(sandbox, &interfaces);
                tun.write(&packet(guest, INTERNET.into()));
                // The answer of a host that has no such socket: ICMP, through masquerading.
                assert_eq!(tun.read()[9], 1);
                let report = sharing.finish();
                let row = report.address(guest.into());
                assert_eq!(
                    row.map(|row| row.class.as_str()),
                    Some("neighbor"),
                    "{report:?}"
                );
                // Uploads are counted at wan0, which has an Ethernet header; downloads at tun7, which
                // has none, or at wan0, where they bear the router's address.
                let counts = report.counts(guest.into());
                assert_eq!(counts.upload, once(1, 14 + 200), "{report:?}");
                let answer = report.unattributed.download;
                match side {
                    "lan" => assert_eq!(counts.download, once(1, 28 + 200), "{report:?}"),
                    _ => assert_eq!(answer, once(1, 14 + 28 + 200), "{report:?}"),
                }
            }

            // As the WAN, without masquerading: both ways are counted as IP packets at tun7.
            let outside = Ipv4Addr::new(10, 7, 0, 9);
            for side in ["lan", "wan"] {
                let interfaces =
                    format!("--wan tun7 --neighbor flat0 --lan desk0 --police-at {side}");
                let sharing = on_interfaces(sandbox, &interfaces);
                for host in [flat, desk] {
                    let socket = host.0.run(|| UdpSocket::bind((host.1, 9)));
                    let socket = step("bind", socket);
                    step("speak", socket.send_to(&[0; 172], (outside, 9)));
                    assert_eq!(tun.read().len(), 200);
                    tun.write(&packet(outside, host.1));
                    let long = Some(Duration::from_secs(2));
                    step("bound the receiving", socket.set_read_timeout(long));
                    step("hear", socket.recv(&mut [0; 2048]));
                }
                let report = sharing.finish();
                let header = if side == "lan" { 14 } else { 0 };
                for (address, class) in [(flat.1, "neighbor"), (desk.1, "rest")] {
                    let row = report.address(address);
                    assert_eq!(row.map(|row| row.class.as_str()), Some(class), "{report:?}");
                    let counts = report.counts(address);
                    assert_eq!(counts.upload, once(1, 200), "{report:?}");
                    assert_eq!(counts.download, once(1, header + 200), "{report:?}");
                    assert_eq!(report.meter(class, "upload").total, once(1, 200));
                }
            }
        },
    );
}

/// A host that sends frames of its own making to the WAN host's interface. Nobody answers: they are
/// for an address that the WAN host does not have.
struct Sender {
    own: Mac,
    wan: Mac,
}

const NOBODY: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 99);

impl Sender {
    fn at(host: Host) -> Sender {
        Sender {
            own: host.place().mac("eth0"),
            wan: WAN.place().mac("eth0"),
        }
    }

    fn frame(&self, source: Ipv4Addr, length: usize) -> Vec<u8> {
        Packet::ethernet(self.own, self.wan)
            .ipv4(source, NOBODY)
            .udp(9, 9)
            .payload_of(length - 42)
            .build()
    }
}

/// A neighbor that sends as a LAN client does not throttle him; a packet with a neighbor's address
/// at a LAN port does not free the neighbor.
#[test]
fn an_address_stays_with_its_owner_whoever_else_sends_with_it() {
    sandbox::run(
        "an_address_stays_with_its_owner_whoever_else_sends_with_it",
        |sandbox| {
            const PACKETS: usize = 200;
            let sharing = simulated(sandbox, "");
            introduce(Family::V4);
            let before = sharing.report();
            let (client, neighbors) = scope(|scope| {
                scope.spawn(|| {
                    let pause = Duration::from_millis(20);
                    let spoofed = Sender::at(NEIGHBOR[2]).frame(Ipv4Addr::new(172, 16, 1, 150), 60);
                    let re_entered = Sender::at(LOCAL[1]).frame(Ipv4Addr::new(172, 16, 1, 101), 60);
                    for _ in 0..PACKETS {
                        inject(&NEIGHBOR[2].place(), "eth0", [spoofed.as_slice()], pause);
                        inject(&LOCAL[1].place(), "eth0", [re_entered.as_slice()], pause);
                    }
                });
                let client =
                    scope.spawn(|| tcp(&WAN.place(), &LOCAL[0].place(), LOCAL[0].v4(), TCP));
                let flows = download(&NEIGHBOR[..2], 192);
                let neighbors = run_flows(&flows, Family::V4, STEADY);
                (joined(client), received(&neighbors, STEADY))
            });
            assert_rate("the client", client, REST_GOODPUT);
            assert_rate("the neighbors", neighbors, NEIGHBORS);
            let after = sharing.finish();
            let more = |name| after.event(name) - before.event(name);
            assert_eq!(more("claim_by_neighbor"), PACKETS as u64, "{after:?}");
            assert_eq!(more("claim_by_lan"), PACKETS as u64, "{after:?}");
            let owner = |host: Host| {
                let row = after.address(host.v4());
                row.map(|row| (row.class.as_str(), row.port.as_str()))
            };
            assert_eq!(owner(LOCAL[0]), Some(("rest", "local0a")));
            assert_eq!(owner(NEIGHBOR[1]), Some(("neighbor", "neighbor1a")));
        },
    );
}

/// Every source another one: the port's share of the table is used up, and nobody gets more for it.
#[test]
fn a_flood_of_sources_frees_nobody() {
    let name = "a_flood_of_sources_frees_nobody";
    sandbox::run(name, |sandbox| {
        let long = testbed::long(
            name,
            "20,000 sources and 10,000 entries, not 100,000 and 16,384",
        );
        let (sources, entries) = if long {
            (100_000, 16_384)
        } else {
            (20_000, 10_000)
        };
        // What was learned first has to be known still when the last packet is measured, on a busy machine too.
        let forget = 30;
        let arguments = format!("--max-entries {entries} --forget-after {forget}s");
        let sharing = simulated(sandbox, &arguments);
        introduce(Family::V4);
        let before = sharing.report();
        let sender = Sender::at(NEIGHBOR[2]);
        let frames: Vec<Vec<u8>> = (0_u32..sources)
            .map(|number| sender.frame(Ipv4Addr::from_bits((10 << 24) + number), 60))
            .collect();
        let frames = frames.iter().map(Vec::as_slice);
        let sent = inject(&NEIGHBOR[2].place(), "eth0", frames, Duration::ZERO);
        let full = sharing.report();
        let port = full.port("neighbor2a");
        assert_eq!(port.quota, entries / 5, "{:?}", full.ports);
        assert_eq!(port.addresses, port.quota, "{:?}", full.ports);
        assert_eq!(full.unknown_counts_as, "neighbor");
        let more = |name| full.event(name) - before.event(name);
        assert!(
            more("learned") + more("neighbors_full") >= sent,
            "{sent} sent, {:?}",
            full.events
        );
        // Every packet of the flood was charged to the neighbors.
        let counted =
            full.meter("neighbor", "upload").total - before.meter("neighbor", "upload").total;
        assert!(counted.all().packets >= sent, "{counted:?}");
        assert!(counted.packets < sent / 10, "{counted:?}");

        // A new neighbor that cannot be learned any more, beside one that is known.
        let newcomer: IpAddr = Ipv4Addr::new(172, 16, 1, 110).into();
        NEIGHBOR[2]
            .place()
            .ip("address add 172.16.1.110/24 dev eth0");
        // So late that TCP has used up its burst of 2 s before.
        let window = Window::seconds(4, 6);
        let (client, both) = scope(|scope| {
            let client =
                scope.spawn(|| tcp(&WAN.place(), &LOCAL[0].place(), LOCAL[0].v4(), window));
            let (wan, known, new) = (WAN.place(), NEIGHBOR[0].place(), NEIGHBOR[2].place());
            let flow = |to, address, kbit_per_second| UdpFlow {
                from: &wan,
                to,
                address,
                flood: flood(address, kbit_per_second),
            };
            // Not in step, or one would be first at the bucket each time.
            let flows = [
                flow(&known, NEIGHBOR[0].v4(), 192),
                flow(&new, newcomer, 176),
            ];
            let both = udp_together(&flows, window);
            (joined(client), both)
        });
        assert!(both[1].received.packets > 0, "{both:?}");
        assert_rate("known and new", received(&both, window), NEIGHBORS);
        assert_rate("the client", client, REST_GOODPUT);

        let recovers = Duration::from_secs(forget + 5);
        let after = sharing.wait_until("the table recovers", recovers, |report| {
            report.port("neighbor2a").addresses < port.quota / 10
                && report.unknown_counts_as == "rest"
        });
        assert!(after.event("unknown_while_full") > 0, "{:?}", after.events);
        // With room again it is learned.
        let answered = WAN
            .place()
            .command("ping")
            .args(["-c", "3", "-W", "1", "172.16.1.110"])
            .output();
        step("ping", answered);
        let learned = sharing.finish();
        let row = learned.address(newcomer).map(|row| row.class.as_str());
        assert_eq!(row, Some("neighbor"), "{learned:?}");
    });
}

/// A tag in a frame becomes metadata of the packet; a second one stays in it. Neither counts.
#[test]
fn tagged_frames_are_known_and_counted_without_their_tags() {
    sandbox::run(
        "tagged_frames_are_known_and_counted_without_their_tags",
        |sandbox| {
            let sharing = simulated(sandbox, "");
            introduce(Family::V4);
            let before = sharing.report();
            let ends = |from: Host, to: Host| {
                Packet::ethernet(from.place().mac("eth0"), to.place().mac("eth0"))
            };
            let tagged: [fn(Packet) -> Packet; 3] = [
                |packet| packet.vlan(7),
                |packet| packet.service_vlan(8).vlan(7),
                |packet| packet.vlan(8).vlan(7),
            ];
            let Host { digits, .. } = NEIGHBOR[0];
            let mut frames = 0;
            for tag in tagged {
                // Upload, from an address that is new: known from now on. Download to the same.
                let source = Ipv4Addr::new(10, 7, 0, digits);
                let up = tag(ends(NEIGHBOR[0], WAN)).ipv4(source, NOBODY).udp(9, 9);
                let down = tag(ends(WAN, NEIGHBOR[0])).ipv4(NOBODY, source).udp(9, 9);
                let up = up.payload_of(158).build();
                let down = down.payload_of(258).build();
                inject(
                    &NEIGHBOR[0].place(),
                    "eth0",
                    [up.as_slice()],
                    Duration::ZERO,
                );
                inject(&WAN.place(), "eth0", [down.as_slice()], Duration::ZERO);
                frames += 1;
            }
            let after = sharing.finish();
            let address: IpAddr = Ipv4Addr::new(10, 7, 0, digits).into();
            let row = after.address(address);
            assert_eq!(
                row.map(|row| row.class.as_str()),
                Some("neighbor"),
                "{after:?}"
            );
            let counts = after.counts(address);
            let of = |length: u64| Count {
                packets: frames,
                bytes: frames * length,
            };
            assert_eq!(counts.upload.all(), of(200), "{after:?}");
            assert_eq!(counts.download.all(), of(300), "{after:?}");
            assert_eq!(after.event("malformed"), before.event("malformed"));
        },
    );
}

/// While both buckets of the neighbors are empty, addresses are still resolved at the first try.
#[test]
fn neighbour_discovery_passes_while_the_bucket_is_empty() {
    sandbox::run(
        "neighbour_discovery_passes_while_the_bucket_is_empty",
        |sandbox| {
            let sharing = simulated(sandbox, "");
            introduce(Family::V4);
            introduce(Family::V6);
            let before = sharing.report();
            let tiny = |from: Host, to: Host| {
                // As small as what is to pass beside it: what is short of room is short for both.
                let flood = Flood {
                    payload: 18,
                    kbit_per_second: 1280,
                };
                let window = Window::seconds(1, 6);
                move || udp(&from.place(), &to.place(), to.v4(), flood, window)
            };
            scope(|scope| {
                scope.spawn(tiny(WAN, NEIGHBOR[1]));
                scope.spawn(tiny(NEIGHBOR[1], WAN));
                sleep(Duration::from_secs(4));
                for _ in 0..10 {
                    for family in [Family::V4, Family::V6] {
                        assert_resolves(WAN, NEIGHBOR[0].address(family));
                        assert_resolves(NEIGHBOR[0], WAN.address(family));
                    }
                }
            });
            let after = sharing.finish();
            // Each try is a question and an answer.
            assert!(
                after.event("control") - before.event("control") >= 80,
                "{after:?}"
            );
            for way in ["download", "upload"] {
                let meter = after.meter("neighbor", way).total;
                assert!(meter.dropped_packets > meter.packets, "{after:?}");
            }
        },
    );
}

/// Forgets the hardware address, sends something, and sees it learned before a second question
/// could be asked (after a second).
#[track_caller]
fn assert_resolves(from: Host, address: IpAddr) {
    let place = from.place();
    place.ip(&format!("neighbor flush to {address}"));
    let deadline = Instant::now() + Duration::from_millis(900);
    let socket = place.run(|| {
        let any: SocketAddr = match address {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        step("open a socket", UdpSocket::bind(any))
    });
    step("send", socket.send_to(b"?", (address, 9)));
    loop {
        let entry = place.ip(&format!("neighbor show to {address}"));
        if entry.contains("lladdr") {
            return;
        }
        assert!(Instant::now() < deadline, "not resolved: {entry:?}");
        sleep(Duration::from_millis(5));
    }
}
