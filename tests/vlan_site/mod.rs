//! vlan_learning at work on interfaces of a user: clients behind a switch, each in a VLAN of its own, and
//! workers behind veths. All clients have one address and all workers another, where each client has a
//! worker to itself.
//!
//! ```text
//!    client0..                   sandbox                          worker0..
//!  172.16.1.100     client0a --+                                172.16.1.5
//!  2001:db8::100      ..       +-- br7 -- switch0 === trunk0    2001:db8::5
//!      eth0 --------- tags                          worker0a ----- eth0
//! ```

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::Duration;

use libbpf_rs::skel::SkelBuilder;
use netbpf::load::load;
use netbpf::tc::{Attacher, Attachment, Direction, Method};
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use skeleton::{VlanClientSkel, VlanClientSkelBuilder};
use testbed::line::Bridge;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::packet::{Mac, Packet};
use testbed::reports::Reporting;
use testbed::sandbox::Sandbox;
use testbed::step;
use testbed::tool::{READY_WITHIN, Tool};
use testbed::traffic::inject;

mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/vlan_client.skel.rs"));
}

pub const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_vlan_learning"));

/// The workers' addresses.
pub const WORKER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(172, 16, 1, 5), ipv6(5));

const fn ipv6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

/// Where a client is: the tags of its frames on the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// One tag.
    Vlan(u16),
    /// A service tag (802.1ad) around another one.
    InService(u16, u16),
}

/// What tags a client's frames, at its port of the switch.
pub struct Tagger {
    // Goes before the programs.
    _attachments: [Attachment; 2],
    skeleton: VlanClientSkel<'static>,
}

impl Tagger {
    /// At that interface.
    pub fn attach(port: &str) -> Tagger {
        // The object lives as long as the test; what it holds in the kernel goes with the skeleton.
        let object = Box::leak(Box::new(MaybeUninit::uninit()));
        let open = step("open it", VlanClientSkelBuilder::default().open(object));
        let skeleton = step("load it", load(open));
        let programs = &skeleton.progs;
        let attacher = Attacher::new(Method::best(programs.tag.as_fd()));
        let index = step(port, if_nametoindex(port));
        let at = |program, label, direction| {
            let attachment = attacher.attach(program, label, index, direction);
            step(format!("attach {label} to {port}"), attachment)
        };
        let attachments = [
            at(programs.tag.as_fd(), "vlan_client/tag", Direction::Ingress),
            at(
                programs.untag.as_fd(),
                "vlan_client/untag",
                Direction::Egress,
            ),
        ];
        Tagger {
            _attachments: attachments,
            skeleton,
        }
    }

    /// From now on.
    pub fn set(&mut self, tags: Tags) {
        let data = self.skeleton.maps.data_data.as_mut();
        let place = &mut step("find .data", data.ok_or("there is none")).place;
        let (protocol, outer, inner) = match tags {
            Tags::Vlan(id) => (0x8100u16, id, 0),
            Tags::InService(outer, inner) => (0x88a8, outer, inner),
        };
        place.protocol = protocol.to_be();
        place.outer = outer;
        place.inner = inner;
    }
}

/// A client.
pub struct Client {
    pub tagger: Tagger,
    _cable: Veth,
    /// Where it is; its interface is eth0.
    pub host: Namespace,
    pub mac: Mac,
    pub ipv4: Ipv4Addr,
    /// Its worker's number.
    pub worker: usize,
}

impl Client {
    fn new(number: u8, clients: u8, workers: u8) -> Client {
        let host = Namespace::new(&format!("client{number}"));
        let port = format!("client{number}a");
        let here = Place::here();
        let cable = Veth::new((&here, &port), (&host, "eth0"));
        let mac = mac(number);
        // One worker cannot tell two clients with one address apart.
        let own = if clients > workers { number } else { 0 };
        let ipv4 = Ipv4Addr::new(172, 16, 1, 100 + own);
        let ipv6 = ipv6(0x100 + u16::from(own));
        host.ip(&format!(
            "link set eth0 address 02:00:00:00:00:{number:02x}"
        ));
        host.ip(&format!("address add {ipv4}/24 dev eth0"));
        host.ip(&format!("address add {ipv6}/64 dev eth0"));
        answer_broadcasts(&host);
        here.ip(&format!("link set {port} master br7"));
        let mut tagger = Tagger::attach(&port);
        tagger.set(Tags::Vlan(vlan(number)));
        Client {
            tagger,
            _cable: cable,
            host,
            mac,
            ipv4,
            worker: usize::from(number % workers),
        }
    }

    /// From now on it only answers, and asks nobody who its worker is.
    pub fn say_nothing_unasked(&self, worker: Mac) {
        self.host.run(|| silence("eth0"));
        let (address, worker) = (WORKER.0, digits(worker));
        let neighbor = format!("{address} lladdr {worker} nud permanent dev eth0");
        self.host.ip(&format!("neighbor replace {neighbor}"));
    }

    /// Sends a frame to that address that nobody answers.
    pub fn say(&self, to: Mac) {
        let frame = Packet::ethernet(self.mac, to).payload_of(60).build();
        inject(&self.host, "eth0", [frame.as_slice()], Duration::ZERO);
    }
}

/// A client's address.
pub fn mac(number: u8) -> Mac {
    [2, 0, 0, 0, 0, number]
}

/// As it is written.
pub fn digits(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The VLAN that a client is in at first.
pub fn vlan(number: u8) -> u16 {
    10 + u16::from(number)
}

fn answer_broadcasts(place: &Place) {
    let path = "/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts";
    place.run(|| step(path, std::fs::write(path, "0")));
}

/// A worker.
pub struct Worker {
    cable: Option<Veth>,
    /// Where it is; its interface is eth0.
    pub host: Namespace,
    /// Its interface here.
    pub port: String,
}

impl Worker {
    fn new(number: u8) -> Worker {
        let host = Namespace::new(&format!("worker{number}"));
        let port = format!("worker{number}a");
        let cable = Worker::cable(&port, &host);
        answer_broadcasts(&host);
        Worker {
            cable: Some(cable),
            host,
            port,
        }
    }

    fn cable(port: &str, host: &Namespace) -> Veth {
        let cable = Veth::new((&Place::here(), port), (host, "eth0"));
        silence(port);
        host.ip(&format!("address add {}/24 dev eth0", WORKER.0));
        host.ip(&format!("address add {}/64 dev eth0", WORKER.1));
        cable
    }

    /// Its interface is deleted, and what the test does then is done; then it is made again.
    pub fn replace(&mut self, meanwhile: impl FnOnce()) {
        self.cable = None;
        meanwhile();
        self.cable = Some(Worker::cable(&self.port, &self.host));
    }
}

/// The machine itself has nothing to say there: no IPv6, which speaks unasked.
pub fn silence(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // A kernel without IPv6 has no such file, and nothing to say.
    if std::path::Path::new(&path).exists() {
        step(&path, std::fs::write(&path, "1"));
    }
}

/// Clients, a switch, a trunk and workers; gone when dropped.
pub struct Site {
    pub clients: Vec<Client>,
    pub workers: Vec<Worker>,
    _trunk: Veth,
    _switch: Bridge,
}

impl Site {
    /// So many of them; a client belongs to the worker of its number, counted round.
    pub fn new(clients: u8, workers: u8) -> Site {
        let here = Place::here();
        let switch = Bridge::new("br7");
        silence("br7");
        let trunk = Veth::new((&here, "switch0"), (&here, "trunk0"));
        silence("switch0");
        silence("trunk0");
        here.ip("link set switch0 master br7");
        Site {
            clients: (0..clients)
                .map(|number| Client::new(number, clients, workers))
                .collect(),
            workers: (0..workers).map(Worker::new).collect(),
            _trunk: trunk,
            _switch: switch,
        }
    }

    /// The tool at work for all clients.
    pub fn demux<'a>(&self, sandbox: &'a Sandbox, arguments: &str) -> Demuxing<'a> {
        let pair = |client: &Client| {
            let worker = &self.workers[client.worker].port;
            format!("{}={worker}", digits(client.mac))
        };
        let map: Vec<String> = self.clients.iter().map(pair).collect();
        let map = map.join(" ");
        demux(sandbox, &format!("--trunk trunk0 --map {map} {arguments}"))
    }

    /// The worker that answers a client; none where nobody does.
    pub fn answers(&self, client: usize, address: impl Into<IpAddr>) -> Option<usize> {
        let host = &self.clients[client].host;
        let address = address.into();
        host.ip("neighbor flush dev eth0");
        if !testbed::traffic::reaches(host, address) {
            return None;
        }
        let neighbor = host.ip(&format!("neighbor show {address} dev eth0"));
        let is_it = |worker: &Worker| neighbor.contains(&digits(worker.host.mac("eth0")));
        self.workers.iter().position(is_it)
    }

    /// Every client is answered by its own worker, over IPv4 and IPv6.
    #[track_caller]
    pub fn assert_all_are_answered(&self) {
        for (number, client) in self.clients.iter().enumerate() {
            for address in [IpAddr::from(WORKER.0), WORKER.1.into()] {
                let worker = self.answers(number, address);
                assert_eq!(worker, Some(client.worker), "client{number}, {address}");
            }
        }
    }
}

/// vlan_learning at work. Its reports are those of docs/vlan_learning.schema.json.
pub type Demuxing<'a> = Reporting<'a, Value>;

/// With these arguments, which name interfaces.
pub fn demux<'a>(sandbox: &'a Sandbox, arguments: &str) -> Demuxing<'a> {
    let process = sandbox.start(TOOL.command(&format!("{arguments} --json --interval 100ms")));
    process.wait_for_error("Bringing ", READY_WITHIN);
    Reporting::of(process)
}

/// A figure in a report, by its path: `number(&report, "/clients/0/rx/packets")`.
#[track_caller]
pub fn number(report: &Value, path: &str) -> u64 {
    let number = report.pointer(path).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("no {path} in {report}"))
}
