//! Real traffic through the real vlan_learning: who reaches whom and over what, in the simulation and on
//! interfaces, while clients move and tables change; and that its figures are those of the interfaces.

mod vlan_site;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::attaching;
use testbed::line::Bridge;
use testbed::namespace::{Namespace, Place, Veth, has_vlan_devices};
use testbed::packet::{BROADCAST, Packet};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{AT_ONCE, ENDS_WITHIN, READY_WITHIN};
use testbed::traffic::{Capture, inject, pace, ping, reaches, tcp_transfer};
use testbed::{joined, long, skip, step};
use vlan_site::{
    Client, Demuxing, Site, TOOL, Tagger, Tags, WORKER, demux, digits, number, silence, vlan,
};

/// The workers of the simulation.
const SIMULATED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 16, 1, 5)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xac10, 1, 0, 0, 0, 0, 5)),
];

/// Bytes.
const ETHERNET_HEADER: u64 = 14;

const SOON: Duration = Duration::from_secs(5);
/// Captures end by themselves if the test does not end them.
const AT_MOST: Duration = Duration::from_secs(60);

/// The simulation at work, by each way to tag that the kernel has.
#[track_caller]
fn by_each_tagger(name: &str, body: impl Fn(&Sandbox, &str) + Sync) {
    sandbox::run(name, |sandbox| body(sandbox, "--tagger bpf"));
    sandbox::run(name, |sandbox| {
        if has_vlan_devices() {
            body(sandbox, "--tagger device");
        } else {
            skip("clients_with_vlan_devices", "this kernel has none (8021q)");
        }
    });
}

/// Its servers are there, and its clients begin.
fn simulate<'a>(sandbox: &'a Sandbox, arguments: &str) -> Demuxing<'a> {
    let process = sandbox.start(TOOL.command(&format!("{arguments} --json --interval 100ms")));
    process.wait_for_error("Serving HTTP on ", READY_WITHIN);
    Demuxing::of(process)
}

fn client(number: usize) -> Place {
    Place::named(format!("client{number}"))
}

fn worker(number: usize) -> Place {
    Place::named(format!("worker{number}"))
}

/// The heading of the page that a client gets from there: the name of the worker.
fn page(client: &Place, address: IpAddr) -> String {
    let server = SocketAddr::new(address, 80);
    let mut stream = client.run(|| step(server, TcpStream::connect_timeout(&server, SOON)));
    step("bound the reading", stream.set_read_timeout(Some(SOON)));
    let request = "GET / HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n";
    step("ask", stream.write_all(request.as_bytes()));
    let mut answer = String::new();
    step("read the answer", stream.read_to_string(&mut answer));
    let heading = answer.split_once("<h1>").map(|(_, rest)| rest);
    let heading = heading.and_then(|rest| rest.split_once("</h1>"));
    let (name, _) = heading.unwrap_or_else(|| panic!("no heading in {answer}"));
    name.to_owned()
}

/// Whether `ping` with these words is answered.
fn answered(from: &Place, words: &str) -> bool {
    let mut ping = from.command("ping");
    ping.args(["-n", "-c", "1", "-W", "1"]);
    ping.args(words.split_whitespace());
    step("run ping", ping.output()).status.success()
}

#[test]
fn every_client_reaches_its_own_worker_and_no_other() {
    let name = "every_client_reaches_its_own_worker_and_no_other";
    let most = if long(name, "24 clients and workers, not 64") {
        64
    } else {
        24
    };
    by_each_tagger(name, |sandbox, tagger| {
        for (clients, workers) in [(3, 3), (8, 2), (most, most)] {
            let size = format!("--clients {clients} --workers {workers} {tagger}");
            let tool = simulate(sandbox, &size);
            for number in 0..clients {
                for address in SIMULATED {
                    let name = page(&client(number), address);
                    let own = format!("worker{}", number % workers);
                    assert_eq!(name, own, "client{number} at {address}, {size}");
                }
            }
            let addresses: BTreeSet<String> = (0..clients)
                .map(|number| client(number).ip("-4 -o address show dev eth0 scope global"))
                .map(|line| line.split_whitespace().nth(3).unwrap_or_default().into())
                .collect();
            let each_its_own = clients > workers;
            assert_eq!(addresses.len(), if each_its_own { clients } else { 1 });
            let report = tool.finish();
            let heard = report["clients"].as_array().into_iter().flatten();
            let vlans: BTreeSet<u64> = heard.map(|it| number(it, "/vlan/outer/id")).collect();
            assert_eq!(vlans.len(), clients, "{vlans:?}");
            // As many as are asked for, and more where those are too few.
            let last = 17.max(1 + clients as u64);
            assert!(vlans.iter().all(|id| (2..=last).contains(id)), "{vlans:?}");
        }
    });
}

#[test]
fn broadcasts_and_full_frames_pass_both_ways() {
    let name = "broadcasts_and_full_frames_pass_both_ways";
    by_each_tagger(name, |sandbox, tagger| {
        let tool = simulate(sandbox, tagger);
        for number in 0..3 {
            let (client, worker) = (client(number), worker(number));
            for place in [&client, &worker] {
                let path = "/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts";
                place.run(|| step(path, fs::write(path, "0")));
            }
            // The client first: where it is, its worker learns from it.
            for (place, far) in [(&client, 5), (&worker, 100)] {
                place.ip("neighbor flush dev eth0");
                for words in [
                    // Found by ARP and by neighbor discovery.
                    format!("172.16.1.{far}"),
                    format!("fd00:ac10:1::{far}"),
                    "-b 172.16.1.255".into(),
                    "ff02::1%eth0".into(),
                    // 1,500 bytes and a tag.
                    format!("-M do -s 1472 172.16.1.{far}"),
                    format!("-M do -s 1452 fd00:ac10:1::{far}"),
                ] {
                    assert!(answered(place, &words), "{place}: {words}");
                }
            }
        }
        tool.finish();
    });
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Volume {
    packets: u64,
    bytes: u64,
}

impl Volume {
    /// Of a report.
    fn of(report: &Value) -> Volume {
        Volume {
            packets: number(report, "/packets"),
            bytes: number(report, "/bytes"),
        }
    }

    fn sum(volumes: impl IntoIterator<Item = Volume>) -> Volume {
        let volumes = volumes.into_iter();
        volumes.fold(Volume::default(), |sum, it| Volume {
            packets: sum.packets + it.packets,
            bytes: sum.bytes + it.bytes,
        })
    }

    fn since(self, before: Volume) -> Volume {
        Volume {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// What eth0 of a place has sent and received, as the kernel counts it.
fn counted(place: &Place) -> [Volume; 2] {
    let text = place.ip("-d -s -j link show dev eth0");
    let links: Value = step(&text, serde_json::from_str(&text));
    let [sent, mut received] = ["tx", "rx"].map(|way| Volume::of(&links[0]["stats64"][way]));
    if links[0]["linkinfo"]["info_kind"] == "vlan" {
        // It gets its frames behind the Ethernet header.
        received.bytes += ETHERNET_HEADER * received.packets;
    }
    [sent, received]
}

/// What a run has counted, beside the counters of the interfaces.
#[derive(Clone, Debug, Default)]
struct Figures {
    /// Each client: from it, and to it.
    clients: Vec<[Volume; 2]>,
    /// Each worker's broadcasts.
    broadcasts: Vec<Volume>,
    /// What the clients' interfaces have sent and received.
    at_clients: Vec<[Volume; 2]>,
    /// The workers'.
    at_workers: Vec<[Volume; 2]>,
}

impl Figures {
    /// At a moment at which nothing is under way.
    #[track_caller]
    fn take(tool: &Demuxing<'_>) -> Figures {
        let deadline = Instant::now() + AT_MOST;
        let mut before = Figures::of(&tool.report());
        loop {
            let count = |place: fn(usize) -> Place, number| {
                let places = (0..number).map(place);
                places.map(|place| counted(&place)).collect()
            };
            let at_clients = count(client, before.clients.len());
            let at_workers = count(worker, before.broadcasts.len());
            let now = Figures::of(&tool.report());
            if now.clients == before.clients && now.broadcasts == before.broadcasts {
                return Figures {
                    at_clients,
                    at_workers,
                    ..now
                };
            }
            before = now;
            assert!(
                Instant::now() < deadline,
                "there is always something under way"
            );
        }
    }

    fn of(report: &Value) -> Figures {
        let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
        let clients = list("clients");
        let both = |client: &Value| ["rx", "tx"].map(|way| Volume::of(&client[way]));
        let broadcasts = list("workers");
        Figures {
            clients: clients.iter().map(both).collect(),
            broadcasts: broadcasts
                .iter()
                .map(|worker| Volume::of(&worker["broadcasts"]))
                .collect(),
            ..Figures::default()
        }
    }

    /// Since then every frame was counted once, where it was to be.
    #[track_caller]
    fn assert_exact(&self, before: &Figures) {
        let since = |now: &[[Volume; 2]], before: &[[Volume; 2]]| -> Vec<[Volume; 2]> {
            let pairs = now.iter().zip(before);
            pairs
                .map(|(now, before)| [0, 1].map(|way| now[way].since(before[way])))
                .collect()
        };
        let workers = self.broadcasts.len();
        let broadcasts = |worker: usize| self.broadcasts[worker].since(before.broadcasts[worker]);
        let told = since(&self.clients, &before.clients);
        let at_clients = since(&self.at_clients, &before.at_clients);
        for (number, ([rx, tx], [sent, received])) in told.iter().zip(&at_clients).enumerate() {
            assert!(rx.packets > 0 && tx.packets > 0, "client{number} was idle");
            assert_eq!(rx, sent, "from client{number}");
            let with_broadcasts = Volume::sum([*tx, broadcasts(number % workers)]);
            assert_eq!(with_broadcasts, *received, "to client{number}");
        }
        let at_workers = since(&self.at_workers, &before.at_workers);
        for (number, [sent, received]) in at_workers.into_iter().enumerate() {
            let own = || told.iter().skip(number).step_by(workers);
            let to_clients = Volume::sum(own().map(|[_, tx]| *tx));
            let with_broadcasts = Volume::sum([to_clients, broadcasts(number)]);
            assert_eq!(with_broadcasts, sent, "from worker{number}");
            if counts_what_skips_a_veth() {
                let from_clients = Volume::sum(own().map(|[rx, _]| *rx));
                assert_eq!(from_clients, received, "to worker{number}");
            } else {
                let name = "what_workers_receive_against_their_interfaces";
                skip(
                    name,
                    "this kernel does not count what bpf_redirect_peer brings (6.8)",
                );
            }
        }
    }
}

/// From 6.8 on an interface counts what it gets by bpf_redirect_peer.
fn counts_what_skips_a_veth() -> bool {
    let release = step("ask", fs::read_to_string("/proc/sys/kernel/osrelease"));
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    let mut next = || numbers.next().and_then(|it| it.parse::<u32>().ok());
    (next(), next()) >= (Some(6), Some(8))
}

/// Small packets, so that segments are packets: the simulation's pages, pings and broadcasts.
#[test]
fn figures_of_the_simulation_are_those_of_the_interfaces() {
    let name = "figures_of_the_simulation_are_those_of_the_interfaces";
    by_each_tagger(name, |sandbox, tagger| {
        let tool = simulate(sandbox, tagger);
        for number in 0..3 {
            assert!(reaches(&client(number), SIMULATED[0]));
        }
        let before = Figures::take(&tool);
        for number in 0..3 {
            let sizes = [("172.16.1.5", 56), ("fd00:ac10:1::5", 1000)];
            for (address, bytes) in sizes {
                assert!(answered(&client(number), &format!("-s {bytes} {address}")));
            }
            worker(number).ip("neighbor flush dev eth0");
            assert!(answered(&worker(number), "172.16.1.100"));
        }
        Figures::take(&tool).assert_exact(&before);
        tool.finish();
    });
}

#[test]
fn figures_on_interfaces_are_those_of_the_interfaces() {
    let name = "figures_on_interfaces_are_those_of_the_interfaces";
    for attach in attaching::ways() {
        sandbox::run(name, |sandbox| {
            let site = Site::new(4, 2);
            let tool = site.demux(sandbox, &format!("--attach {attach}"));
            site.assert_all_are_answered();
            let before = Figures::take(&tool);
            let report = tool.report();
            for (number, client) in site.clients.iter().enumerate() {
                let (host, bytes) = (&client.host, 100 + 100 * number);
                assert!(answered(host, &format!("-s {bytes} {}", WORKER.0)));
                assert!(answered(host, &format!("-s {bytes} {}", WORKER.1)));
                let worker = &site.workers[client.worker].host;
                assert!(answered(worker, &client.ipv4.to_string()));
            }
            // A worker's broadcasts come to each of its clients once, and to nobody else.
            assert!(answered(
                &site.workers[0].host,
                "-b -i 0.2 -c 3 172.16.1.255"
            ));
            let after = Figures::take(&tool);
            after.assert_exact(&before);
            let now = tool.finish();
            for worker in 0..2 {
                let path = |name: &str| format!("/workers/{worker}/{name}");
                let since = |name: &str| number(&now, &path(name)) - number(&report, &path(name));
                let broadcasts = since("broadcasts/packets");
                assert_eq!(since("copies"), 2 * broadcasts, "{now}");
                assert!(worker == 1 || broadcasts >= 3, "{now}");
            }
            assert_eq!(number(&now, "/events/table_errors"), 0);
            assert_eq!(number(&now, "/events/copies_lost"), 0);
        });
    }
}

/// Segments of TCP, counted as the frames that they are on the wire.
#[test]
fn tcp_is_counted_by_its_segments() {
    sandbox::run("tcp_is_counted_by_its_segments", |sandbox| {
        let site = Site::new(1, 1);
        let tool = site.demux(sandbox, "");
        site.assert_all_are_answered();
        let (client, worker) = (&site.clients[0], &site.workers[0]);
        const PAYLOAD: u64 = 4_000_000;
        let is_tcp =
            |packet: &[u8]| packet.get(12..14) == Some(&[8, 0]) && packet.get(23) == Some(&6);
        for (from, to, address, way) in [
            (&client.host, &worker.host, WORKER.0, "rx"),
            (&worker.host, &client.host, client.ipv4, "tx"),
        ] {
            let volume = || Volume::of(&tool.report()["clients"][0][way]);
            let capture = Capture::start(to, "eth0", AT_MOST, is_tcp);
            let before = volume();
            tcp_transfer(from, to, address.into(), PAYLOAD as usize, SOON);
            let deadline = Instant::now() + SOON;
            let (told, seen) = loop {
                let told = volume().since(before);
                let seen = capture.seen().count;
                // What is no TCP is small, and seldom.
                let others = told.packets.saturating_sub(seen.packets);
                if seen.packets > 0 && others <= 8 && told == volume().since(before) {
                    break (told, seen);
                }
                assert!(Instant::now() < deadline, "{told:?}, {seen:?}");
            };
            let others = told.packets - seen.packets;
            let bytes = told.bytes - seen.bytes;
            assert!(
                bytes <= others * 86,
                "{way}: {told:?}, but {seen:?} was TCP"
            );
            // IPv4 and TCP with time stamps; the SYN has 8 bytes more.
            let payload = seen.bytes - seen.packets * 66 - 8;
            let most = PAYLOAD + PAYLOAD / 20;
            assert!((PAYLOAD..most).contains(&payload), "{way}: {seen:?}");
            assert!(seen.packets >= PAYLOAD / 1448, "{way}: {seen:?}");
            let largest = capture.finish().packets.iter().map(Vec::len).max();
            assert!(largest > Some(1514), "{way}: no GSO packet");
        }
        tool.finish();
    });
}

#[test]
fn every_client_on_interfaces_reaches_its_own_worker() {
    let name = "every_client_on_interfaces_reaches_its_own_worker";
    sandbox::run(name, |sandbox| {
        for (clients, workers) in [(3, 3), (4, 2)] {
            let site = Site::new(clients, workers);
            for attach in attaching::ways() {
                let tool = site.demux(sandbox, &format!("--attach {attach}"));
                site.assert_all_are_answered();
                tool.finish();
                assert_eq!(site.answers(0, WORKER.0), None, "{attach}: it has ended");
            }
        }
    });
}

#[test]
fn jumbo_frames_pass_where_the_interfaces_let_them() {
    let name = "jumbo_frames_pass_where_the_interfaces_let_them";
    sandbox::run(name, |sandbox| {
        let mut site = Site::new(1, 1);
        let here = Place::here();
        for interface in ["client0a", "switch0", "trunk0", "worker0a", "br7"] {
            here.ip(&format!("link set {interface} mtu 9000"));
        }
        for host in [&site.clients[0].host, &site.workers[0].host] {
            host.ip("link set eth0 mtu 9000");
        }
        let tool = site.demux(sandbox, "");
        for tags in [Tags::Vlan(4094), Tags::InService(4094, 1)] {
            site.clients[0].tagger.set(tags);
            let address = site.clients[0].ipv4;
            for bytes in [1472, 8972] {
                let words = format!("-M do -s {bytes} {}", WORKER.0);
                assert!(answered(&site.clients[0].host, &words), "{tags:?}, {words}");
                let words = format!("-M do -s {bytes} {address}");
                assert!(answered(&site.workers[0].host, &words), "{tags:?}, {words}");
            }
        }
        tool.finish();
    });
}

#[test]
fn a_client_that_moves_is_reachable_with_its_next_packet() {
    let name = "a_client_that_moves_is_reachable_with_its_next_packet";
    sandbox::run(name, |sandbox| {
        let mut site = Site::new(2, 1);
        let tool = site.demux(sandbox, "");
        assert_eq!(site.answers(0, WORKER.0), Some(0));
        assert_eq!(site.answers(1, WORKER.0), Some(0));
        let mac = site.workers[0].host.mac("eth0");
        site.clients[0].say_nothing_unasked(mac);
        let places = [
            Tags::Vlan(1),
            Tags::Vlan(4094),
            Tags::InService(7, 9),
            Tags::InService(9, 7),
            Tags::Vlan(7),
            // Where the other one is.
            Tags::Vlan(vlan(1)),
        ];
        for (moves, tags) in (1..).zip(places) {
            site.clients[0].tagger.set(tags);
            let (client, worker) = (&site.clients[0], &site.workers[0].host);
            assert!(
                !reaches(worker, client.ipv4.into()),
                "{tags:?} is not known yet"
            );
            client.say(mac);
            assert!(reaches(worker, client.ipv4.into()), "{tags:?}");
            let report = tool.report();
            assert_eq!(number(&report, "/clients/0/moves"), moves, "{report}");
            assert_eq!(number(&report, "/events/moved"), moves, "{report}");
            assert_eq!(number(&report, "/clients/1/moves"), 0, "{report}");
            let inner = &report["clients"][0]["vlan"]["inner"]["id"];
            let outer = &report["clients"][0]["vlan"]["outer"];
            let (expected, protocol) = match tags {
                Tags::Vlan(id) => ((id, Value::Null), "802.1Q"),
                Tags::InService(outer, inner) => ((outer, inner.into()), "802.1ad"),
            };
            assert_eq!((&outer["id"], inner), (&expected.0.into(), &expected.1));
            assert_eq!(outer["protocol"], protocol);
        }
        assert_eq!(site.answers(1, WORKER.0), Some(0));
        tool.finish();
    });
}

/// What --no-move keeps out is dropped and counted; --dry-run lets it in.
#[test]
fn a_client_that_must_not_move_is_kept_where_it_is() {
    let name = "a_client_that_must_not_move_is_kept_where_it_is";
    sandbox::run(name, |sandbox| {
        let mut site = Site::new(1, 1);
        let tool = site.demux(sandbox, "--no-move");
        site.assert_all_are_answered();
        let begin = number(&tool.report(), "/events/refused");
        site.clients[0].tagger.set(Tags::Vlan(99));
        for _ in 0..3 {
            site.clients[0].say(BROADCAST);
        }
        assert_eq!(site.answers(0, WORKER.0), None);
        let report = tool.report();
        assert_eq!(
            number(&report, "/clients/0/vlan/outer/id"),
            u64::from(vlan(0))
        );
        assert_eq!(number(&report, "/clients/0/refused_from/outer/id"), 99);
        assert!(number(&report, "/events/refused") - begin >= 3, "{report}");
        site.clients[0].tagger.set(Tags::Vlan(vlan(0)));
        site.assert_all_are_answered();
        tool.finish();
        let tool = site.demux(sandbox, "--no-move --dry-run");
        site.assert_all_are_answered();
        site.clients[0].tagger.set(Tags::Vlan(99));
        assert_eq!(site.answers(0, WORKER.0), Some(0));
        assert!(number(&tool.finish(), "/events/refused") > 0);
    });
}

/// A file of clients and their workers; gone when dropped.
struct File;

const FILE: &str = "/run/clients.toml";

impl File {
    fn new(pairs: &[(&Client, usize)], more: &str) -> File {
        let file = File;
        file.write(pairs, more);
        file
    }

    /// The clients, each with the number of its worker.
    fn write(&self, pairs: &[(&Client, usize)], more: &str) {
        let mut text = format!("trunk = \"trunk0\"\n{more}\n[clients]\n");
        for (client, worker) in pairs {
            let mac = digits(client.mac);
            // Writing into a String cannot fail.
            let _ = writeln!(text, "\"{mac}\" = \"worker{worker}a\"");
        }
        self.write_text(&text);
    }

    fn write_text(&self, text: &str) {
        step(FILE, fs::write(FILE, text));
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // The comparison at the end of the sandbox finds what stays.
        let _ = fs::remove_file(FILE);
    }
}

/// What is said of the file as it is now.
#[track_caller]
fn reload(tool: &Demuxing<'_>) -> String {
    tool.process.signal(Signal::SIGHUP);
    tool.process.wait_for_error("eloaded", ENDS_WITHIN)
}

#[test]
fn a_reload_costs_those_who_stay_nothing() {
    let name = "a_reload_costs_those_who_stay_nothing";
    for attach in attaching::ways() {
        sandbox::run(name, |sandbox| {
            let site = Site::new(3, 3);
            let [stays, moves, comes] = &site.clients[..] else {
                panic!("three clients");
            };
            let file = File::new(&[(stays, 0), (moves, 1)], "");
            let tool = demux(sandbox, &format!("--config {FILE} --attach {attach}"));
            assert_eq!(site.answers(0, WORKER.0), Some(0));
            std::thread::scope(|scope| {
                let (host, address) = (&stays.host, stays.ipv4.into());
                let pings = move || ping(host, address, WORKER.0.into(), 200.0, 600);
                let pings = scope.spawn(pings);
                for _ in 0..2 {
                    file.write(&[(stays, 0), (moves, 2), (comes, 2)], "");
                    let said = reload(&tool);
                    assert_eq!(said, "reloaded: 2 clients added, 1 removed, 1 kept");
                    assert_eq!(site.answers(1, WORKER.0), Some(2));
                    assert_eq!(site.answers(2, WORKER.0), Some(2));
                    file.write(&[(stays, 0), (moves, 1)], "");
                    let said = reload(&tool);
                    assert_eq!(said, "reloaded: 1 client added, 2 removed, 1 kept");
                    assert_eq!(site.answers(1, WORKER.0), Some(1));
                    assert_eq!(
                        site.answers(2, WORKER.0),
                        None,
                        "it is configured no longer"
                    );
                }
                let (sent, answered) = joined(pings);
                assert_eq!((sent.packets, answered), (600, 600), "{attach}");
            });
            let report = tool.finish();
            assert!(number(&report, "/clients/0/rx/packets") >= 600, "{report}");
            assert_eq!(number(&report, "/removed/clients"), 6, "{report}");
            assert!(number(&report, "/removed/rx/packets") > 0, "{report}");
        });
    }
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let name = "a_file_that_cannot_be_used_changes_nothing";
    sandbox::run(name, |sandbox| {
        let site = Site::new(2, 2);
        let clients = [(&site.clients[0], 0), (&site.clients[1], 1)];
        let file = File::new(&clients, "");
        let tool = demux(sandbox, &format!("--config {FILE}"));
        site.assert_all_are_answered();
        let before = tool.report();
        let mac = "\"02:00:00:00:00:00\"";
        for (text, words) in [
            (String::new(), "missing field `clients`"),
            ("[clients".into(), "clients.toml:1: "),
            ("guess = 1\n[clients]\n".into(), "unknown field `guess`"),
            (format!("[clients]\n{mac} = \"worker0a\"\n"), "trunk"),
            (
                format!("trunk = \"br7\"\n[clients]\n{mac} = \"worker0a\"\n"),
                "the trunk is trunk0",
            ),
            (
                format!("trunk = \"trunk0\"\n[clients]\n{mac} = \"worker7a\"\n"),
                "worker7a",
            ),
            (
                format!("trunk = \"trunk0\"\n[clients]\n{mac} = \"trunk0\"\n"),
                "trunk0",
            ),
            (
                format!("trunk = \"trunk0\"\nunknown = \"x7\"\n[clients]\n{mac} = \"worker1a\"\n"),
                "x7",
            ),
        ] {
            file.write_text(&text);
            let said = reload(&tool);
            assert!(
                said.starts_with("not reloaded, the table stays as it was: "),
                "{said}"
            );
            assert!(said.contains(words), "{words}: {said}");
        }
        step(FILE, fs::remove_file(FILE));
        let said = reload(&tool);
        assert!(
            said.contains("there is no file /run/clients.toml"),
            "{said}"
        );
        site.assert_all_are_answered();
        let after = tool.finish();
        for number in 0..2 {
            let path = format!("/clients/{number}/worker");
            assert_eq!(before.pointer(&path), after.pointer(&path));
        }
        assert_eq!(number(&after, "/removed/clients"), 0);
    });
}

/// A reload changes the policies, too.
#[test]
fn what_is_unknown_or_untagged_goes_where_it_is_said_to() {
    let name = "what_is_unknown_or_untagged_goes_where_it_is_said_to";
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let mut site = Site::new(2, 1);
        let _catcher = Veth::new((&here, "catch0"), (&here, "catch0-far"));
        // What passes on goes out there.
        let _beyond = Veth::new((&here, "beyond0"), (&here, "beyond0-far"));
        let _bridge = Bridge::new("br8");
        for interface in ["catch0", "catch0-far", "beyond0", "beyond0-far", "br8"] {
            silence(interface);
        }
        for port in ["beyond0", "trunk0"] {
            here.ip(&format!("link set {port} master br8"));
        }
        // Lets only those through, and without it, that still have this tag.
        let mut tagged = Tagger::attach("catch0");
        let tags = Tags::InService(77, 78);
        tagged.set(tags);
        site.clients[1].tagger.set(tags);
        let [known, stranger] = &site.clients[..] else {
            panic!("two clients");
        };
        stranger.say_nothing_unasked(known.mac);
        let file = File::new(&[(known, 0)], "unknown = \"catch0\"");
        let tool = demux(sandbox, &format!("--config {FILE}"));
        assert_eq!(site.answers(0, WORKER.0), Some(0));
        let from = stranger.mac;
        let is_theirs = move |frame: &[u8]| frame.get(6..12) == Some(&from);
        let unknown = |report: &Value| number(report, "/events/unknown");
        let mut begin = unknown(&tool.report());
        // How many are seen by the catcher, and how many pass on.
        for (policy, caught, passed) in [
            ("unknown = \"catch0\"", 20, 0),
            ("unknown = \"drop\"", 0, 0),
            ("unknown = \"pass\"", 0, 20),
            ("", 0, 20),
            ("unknown = \"catch0\"", 20, 0),
        ] {
            file.write(&[(known, 0)], policy);
            let said = reload(&tool);
            assert!(said.starts_with("reloaded: "), "{said}");
            let catcher = Capture::start(&here, "catch0-far", AT_MOST, is_theirs);
            let beyond = Capture::start(&here, "beyond0-far", AT_MOST, is_theirs);
            for _ in 0..20 {
                stranger.say(BROADCAST);
            }
            let report = tool.wait_until("20 unknown frames", SOON, |it| unknown(it) >= begin + 20);
            begin = unknown(&report);
            catcher.wait_for(caught, SOON);
            beyond.wait_for(passed, SOON);
            let seen = [catcher, beyond].map(|it| it.finish().count.packets);
            assert_eq!(seen, [caught, passed], "{policy}");
            assert_eq!(site.answers(0, WORKER.0), Some(0), "{policy}");
        }
        let report = tool.finish();
        let strangers = report["strangers"].as_array().map_or(0, Vec::len);
        assert_eq!(strangers, 1, "{report}");
        assert_eq!(
            report["strangers"][0]["vlan"]["inner"]["id"], 78,
            "{report}"
        );
    });
}

#[test]
fn untagged_frames_pass_or_are_dropped() {
    sandbox::run("untagged_frames_pass_or_are_dropped", |sandbox| {
        let here = Place::here();
        let site = Site::new(1, 1);
        here.ip("address add 192.0.2.1/24 dev trunk0");
        // The machine has the switch in it, but is to answer only behind the trunk.
        let path = "/proc/sys/net/ipv4/conf/br7/arp_ignore";
        step(path, fs::write(path, "1"));
        let host = Namespace::new("host");
        let _cable = Veth::new((&here, "host0"), (&host, "eth0"));
        here.ip("link set host0 master br7");
        host.ip("address add 192.0.2.2/24 dev eth0");
        let machine = IpAddr::from([192, 0, 2, 1]);
        for (arguments, passes) in [
            ("", true),
            ("--untagged pass", true),
            ("--untagged drop", false),
            ("--untagged drop --dry-run", true),
        ] {
            let tool = site.demux(sandbox, arguments);
            host.ip("neighbor flush dev eth0");
            assert_eq!(reaches(&host, machine), passes, "{arguments}");
            assert_eq!(site.answers(0, WORKER.0), Some(0), "{arguments}");
            let report = tool.finish();
            assert!(number(&report, "/events/untagged") > 0, "{report}");
        }
    });
}

/// Its clients come back by themselves. Whoever has its number meanwhile gets none of their frames.
#[test]
fn a_worker_that_goes_and_comes_back_has_its_clients_again() {
    let name = "a_worker_that_goes_and_comes_back_has_its_clients_again";
    for attach in attaching::ways() {
        sandbox::run(name, |sandbox| {
            let here = Place::here();
            let mut site = Site::new(2, 2);
            let tool = site.demux(sandbox, &format!("--attach {attach}"));
            site.assert_all_are_answered();
            let index = step("worker0a", if_nametoindex("worker0a"));
            let mac = site.workers[0].host.mac("eth0");
            let Site {
                clients, workers, ..
            } = &mut site;
            let (host, from) = (&clients[0].host, clients[0].mac);
            let frames = [mac, BROADCAST].map(|to| {
                let frame = Packet::ethernet(from, to);
                frame.payload_of(60).build()
            });
            let ended = &AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let goes_on = |time| {
                        let ended = ended.load(Ordering::Acquire);
                        !ended && time < AT_MOST
                    };
                    pace(host, "eth0", &frames, 1000.0, goes_on)
                });
                workers[0].replace(|| {
                    sleep(Duration::from_millis(100));
                    here.ip(&format!(
                        "link add stranger index {index} type veth peer name stranger-far"
                    ));
                    silence("stranger");
                    silence("stranger-far");
                    here.ip("link set stranger up");
                    here.ip("link set stranger-far up");
                    sleep(Duration::from_millis(500));
                    for interface in ["stranger", "stranger-far"] {
                        let text = here.ip(&format!("-s -j link show dev {interface}"));
                        let links: Value = step(&text, serde_json::from_str(&text));
                        let [sent, received] =
                            ["tx", "rx"].map(|way| number(&links[0]["stats64"][way], "/packets"));
                        assert_eq!((sent, received), (0, 0), "{attach}, {interface}");
                    }
                    tool.process.wait_for_error(
                        "worker0a was deleted: 1 client out of reach until it is back",
                        AT_ONCE,
                    );
                    let report = tool.report();
                    assert_eq!(report["absent"], serde_json::json!(["worker0a"]));
                    here.ip("link delete stranger");
                });
                ended.store(true, Ordering::Release);
            });
            tool.process
                .wait_for_error("worker0a appeared: 2 clients now", AT_ONCE);
            site.assert_all_are_answered();
            let report = tool.finish();
            assert_eq!(report["absent"], serde_json::json!([]));
        });
    }
}

#[test]
fn ten_thousand_clients_are_loaded_at_once() {
    let name = "ten_thousand_clients_are_loaded_at_once";
    sandbox::run(name, |sandbox| {
        let site = Site::new(2, 2);
        let mut text = String::from("trunk = \"trunk0\"\n[clients]\n");
        for number in 0..10_000u16 {
            let [high, low] = number.to_be_bytes();
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "\"02:00:00:00:{high:02x}:{low:02x}\" = \"worker{}a\"",
                number % 2
            );
        }
        let file = File;
        file.write_text(&text);
        let started = Instant::now();
        let process = sandbox.start(TOOL.command(&format!("--config {FILE} --json")));
        process.wait_for_error("Bringing 10,000 clients ", READY_WITHIN);
        let took = started.elapsed();
        println!("10,000 clients after {took:?}");
        assert!(took < SOON, "10,000 clients after {took:?}");
        site.assert_all_are_answered();
        let report = Demuxing::of(process).finish();
        assert_eq!(report["clients"].as_array().map(Vec::len), Some(10_000));
        drop(file);
    });
}

/// Frames that somebody sends with a tag inline are as good as any.
#[test]
fn tags_are_read_wherever_they_are() {
    sandbox::run("tags_are_read_wherever_they_are", |sandbox| {
        let site = Site::new(1, 1);
        let (client, worker) = (&site.clients[0], &site.workers[0]);
        client.say_nothing_unasked(worker.host.mac("eth0"));
        let tool = site.demux(sandbox, "");
        let from = client.mac;
        let is_theirs = move |frame: &[u8]| frame.get(6..12) == Some(&from);
        let capture = Capture::start(&worker.host, "eth0", AT_MOST, is_theirs);
        let to = worker.host.mac("eth0");
        let frame = || Packet::ethernet(from, to);
        let frames = [
            frame().vlan(5),
            frame().service_vlan(6),
            frame().vlan(5).vlan(6),
            frame().service_vlan(5).vlan(6),
        ];
        let frames = frames.map(|frame| {
            frame
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
                .udp(9, 9)
                .payload_of(58)
                .build()
        });
        inject(
            &Place::here(),
            "switch0",
            frames.iter().map(Vec::as_slice),
            Duration::ZERO,
        );
        capture.wait_for(4, SOON);
        let seen = capture.finish();
        let bare = frame()
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
            .udp(9, 9)
            .payload_of(58)
            .build();
        for packet in &seen.packets {
            assert_eq!(packet, &bare);
        }
        let report = tool.wait_until("four frames", SOON, |it| {
            number(it, "/clients/0/rx/packets") >= 4
        });
        assert_eq!(
            number(&report, "/clients/0/rx/bytes"),
            4 * bare.len() as u64
        );
        tool.finish();
    });
}
