//! The real `Demux` on interfaces of a sandbox, and what comes out at the far ends of all of them.
//!
//! ```text
//!   far                 sandbox                 worker0, worker1 ...
//!  eth0a --------- eth0b      worker0a -------------- eth0
//!  (101)          (100)|      |(110, 112 ...)      (111, 113 ...)
//!                      other0 (102)
//!                        |
//!                     eth0 (103), other
//! ```
//!
//! Whatever comes in at a far end, or passes the programs of an interface, is kept and dropped. Nothing
//! there has an address, so nothing sends but the test.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject, ProgramMut};
use netbpf::load::load;
use netbpf::mac::Mac;
use netbpf::options::Attaching;
use netbpf::port::Port;
use netbpf::preflight::LinkLayer;
use netbpf::vlan_learning::skeleton::types;
use netbpf::vlan_learning::{
    Changes, Demux, Placed, Policy, Setup as DemuxSetup, Tags, Verdict, Worker,
};
use testbed::namespace::{Namespace, Place};
use testbed::packet::Packet;
use testbed::traffic::Injector;
use testbed::{cpus, sandbox, step};

use wire::types::{flow, kept, tag, tags};
use wire::{VlanWireSkel, VlanWireSkelBuilder};

mod wire {
    include!(concat!(env!("OUT_DIR"), "/vlan_wire.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::flow {}
}

pub use types::events;

/// ifindex of the trunk, and of its far end.
pub const TRUNK: u32 = 100;
pub const FAR: u32 = 101;
/// An interface that is nobody's, and its far end.
pub const OTHER: u32 = 102;
pub const OTHER_FAR: u32 = 103;

/// What the sandbox's end of every cable has.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0xbb, 0];
/// Where a client is joined with the trunk's far end.
const PORT: u32 = 104;

/// Bytes of a frame, a tag in the metadata apart.
pub const MOST_KEPT: usize = size_of::<kept>() - std::mem::offset_of!(kept, frame);

/// What every worker has: the tool is for those that cannot be told apart.
pub const WORKER_MAC: [u8; 6] = [2, 0, 0, 0, 0xaa, 0];
/// The destination of frames that only say that those before them have come.
const LAST: [u8; 6] = [2, 0, 0, 0, 0xee, 0];

const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// From the far end of one cable to that of another one.
const HOPS: usize = 3;

/// The interface of a worker, and its far end.
pub const fn port(worker: u32) -> u32 {
    110 + 2 * worker
}

pub const fn far_end(worker: u32) -> u32 {
    port(worker) + 1
}

/// 02:00:00:00:NN:NN, the client of that number.
pub fn mac(client: u16) -> [u8; 6] {
    let [high, low] = client.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

/// A tag as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    pub kind: u16,
    pub tci: u16,
}

/// 802.1Q.
pub const fn q(id: u16) -> Tag {
    Tag {
        kind: 0x8100,
        tci: id,
    }
}

/// 802.1ad.
pub const fn ad(id: u16) -> Tag {
    Tag {
        kind: 0x88a8,
        tci: id,
    }
}

impl Tag {
    /// Priority and drop eligibility: the upper four bits.
    pub const fn with(self, bits: u16) -> Tag {
        Tag {
            tci: self.tci | bits << 12,
            ..self
        }
    }
}

/// The frame behind these tags, the outer one first.
pub fn behind(tags: &[Tag], frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|tag| {
        let [a, b] = tag.kind.to_be_bytes();
        let [c, d] = tag.tci.to_be_bytes();
        [a, b, c, d]
    });
    [addresses.to_vec(), tags.collect(), rest.to_vec()].concat()
}

/// A frame of that many bytes, from one to the other.
pub fn frame(from: [u8; 6], to: [u8; 6], length: usize) -> Vec<u8> {
    Packet::ethernet(from, to).payload_of(length - 14).build()
}

/// The usual frame of a client to its worker, without tags.
pub fn to_worker(client: [u8; 6]) -> Vec<u8> {
    frame(client, WORKER_MAC, 100)
}

/// The usual answer.
pub fn to_client(client: [u8; 6]) -> Vec<u8> {
    frame(WORKER_MAC, client, 90)
}

/// A frame where it came out, as it would be on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    pub at: u32,
    pub bytes: Vec<u8>,
}

pub fn arrival(at: u32, bytes: Vec<u8>) -> Arrival {
    Arrival { at, bytes }
}

/// What differs between tests.
#[derive(Clone, Debug)]
pub struct Setup {
    pub workers: u32,
    pub room: u32,
    pub hosts_too: bool,
    pub dry_run: bool,
    pub policy: Policy,
    /// Frames for a worker go into its namespace at once.
    pub has_peer: bool,
    /// What comes is kept and dropped; else it arrives.
    pub watches: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            workers: 2,
            room: 1024,
            hosts_too: false,
            dry_run: false,
            policy: Policy {
                unknown: Verdict::Drop,
                untagged: Verdict::Drop,
                no_move: false,
            },
            has_peer: false,
            watches: true,
        }
    }
}

/// An interface of the sandbox.
pub fn named(name: &str, ifindex: u32) -> Port {
    Port {
        name: name.to_owned(),
        ifindex,
        link_layer: LinkLayer::Ethernet,
    }
}

/// A cable that nobody sends anything through by himself.
struct Cable {
    name: String,
}

impl Cable {
    fn new(name: &str, index: u32, far: &Place, far_name: &str, far_mac: [u8; 6]) -> Cable {
        let here = Place::here();
        let address = |mac: [u8; 6]| Mac::from(mac).to_string();
        let common = "mtu 9000";
        here.ip(&format!(
            "link add {name} index {index} address {} {common} type veth peer name {far_name} \
             index {} address {} {common} netns {far}",
            address(HOST_MAC),
            index + 1,
            address(far_mac),
        ));
        for (place, name) in [(&here, name), (far, far_name)] {
            // One after the other: within one request kernel 6.1 sets it up first, with an address.
            place.ip(&format!("link set {name} multicast off addrgenmode none"));
            place.ip(&format!("link set {name} up"));
        }
        let deadline = Instant::now() + ARRIVES_WITHIN;
        while !here
            .ip(&format!("-o link show dev {name}"))
            .contains("state UP")
        {
            assert!(Instant::now() < deadline, "{name} has no carrier");
            std::thread::sleep(Duration::from_millis(1));
        }
        Cable {
            name: name.to_owned(),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // What stays, the comparison at the end of the sandbox finds.
        let words = ["link", "delete", &self.name];
        let _ = Place::here().command("ip").args(words).output();
    }
}

/// All interfaces; the far ends have namespaces of their own.
pub struct Network {
    cables: BTreeMap<u32, Cable>,
    pub far: Namespace,
    pub other: Namespace,
    pub workers: Vec<Namespace>,
}

impl Network {
    fn new(workers: u32) -> Network {
        let mut network = Network {
            cables: BTreeMap::new(),
            far: Namespace::new("far"),
            other: Namespace::new("other"),
            workers: Vec::new(),
        };
        let cable = Cable::new("eth0b", TRUNK, &network.far, "eth0a", [2, 0, 0, 0, 0xcc, 0]);
        network.cables.insert(TRUNK, cable);
        let cable = Cable::new(
            "other0",
            OTHER,
            &network.other,
            "eth0",
            [2, 0, 0, 0, 0xdd, 0],
        );
        network.cables.insert(OTHER, cable);
        for number in 0..workers {
            network
                .workers
                .push(Namespace::new(&format!("worker{number}")));
            network.connect_worker(number);
        }
        network
    }

    /// Makes the interface of a worker, always with the same number.
    fn connect_worker(&mut self, number: u32) {
        let name = format!("worker{number}a");
        let far = &self.workers[number as usize];
        let cable = Cable::new(&name, port(number), far, "eth0", WORKER_MAC);
        self.cables.insert(port(number), cable);
    }

    fn cut_worker(&mut self, number: u32) {
        self.cables.remove(&port(number));
    }
}

/// Waits until what the calling thread has sent on its CPU is where it goes; for threads, too.
struct Settler {
    tallies: MapHandle,
    other: Injector,
    sent: AtomicU32,
}

impl Settler {
    /// A CPU takes the frames of a cable in their order, and puts what becomes of them behind all
    /// others. So when a frame has come, those sent before it are a hop further.
    fn settle(&self) {
        for _ in 0..HOPS {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            let source = 0x0600_0000_0000_u64 | u64::from(number);
            let [_, _, source @ ..] = source.to_be_bytes();
            let last = frame(source, LAST, 60);
            self.other.inject([last.as_slice()], Duration::ZERO);
            let flow = flow {
                destination: LAST,
                source,
                at: OTHER,
                tag_kind: 0,
                tci: 0,
            };
            let deadline = Instant::now() + ARRIVES_WITHIN;
            while frames_of(&self.tallies, &flow) == 0 {
                assert!(Instant::now() < deadline, "a frame is lost on its way");
                std::thread::yield_now();
            }
            let key = bytes_of(&flow);
            step("forget a frame", self.tallies.delete(key));
        }
    }
}

fn frames_of(tallies: &MapHandle, flow: &flow) -> u64 {
    let found = step(
        "read a tally",
        tallies.lookup(bytes_of(flow), MapFlags::ANY),
    );
    found.map_or(0, |count| u64::from_ne_bytes(*there(count.first_chunk())))
}

pub struct Rig<'obj> {
    pub demux: Demux<'obj>,
    pub network: Network,
    settler: Arc<Settler>,
    pub clients: BTreeMap<Mac, u32>,
    trunk: Injector,
    workers: BTreeMap<u32, Injector>,
    wire: VlanWireSkel<'obj>,
    setup: Setup,
    told: Cell<[u64; EVENTS]>,
}

/// Runs a test on a fresh rig, on one CPU. Skipped, loudly, without root.
pub fn run(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>) + Send) {
    sandbox::run(name, |_| with(setup, test));
}

/// The same in a sandbox that is there already.
pub fn with(setup: Setup, test: impl FnOnce(&mut Rig<'_>)) {
    // Tests run beside each other.
    static RIGS: AtomicUsize = AtomicUsize::new(0);
    if let Some(two) = cpus::two() {
        cpus::pin_to(two[RIGS.fetch_add(1, Ordering::Relaxed) % 2]);
    }
    let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    test(&mut Rig::load(setup, &mut first, &mut second));
}

/// Both ways to a worker: through its veth, and into its namespace at once. In between there is no client,
/// so every program comes off and goes back on at once, while other tests start children.
pub fn run_both_ways(name: &str, setup: Setup, test: impl Fn(&mut Rig<'_>) + Sync) {
    run(name, setup, |rig| {
        for has_peer in [false, true] {
            rig.setup.has_peer = has_peer;
            test(rig);
            rig.clients.clear();
            rig.change();
        }
    });
}

impl<'obj> Rig<'obj> {
    fn load(
        setup: Setup,
        first: &'obj mut MaybeUninit<OpenObject>,
        second: &'obj mut MaybeUninit<OpenObject>,
    ) -> Rig<'obj> {
        let network = Network::new(setup.workers);
        let open = step("open", VlanWireSkelBuilder::default().open(first));
        let mut wire = step("load the test's programs", load(open));
        there(wire.maps.bss_data.as_mut()).keeps = 1;
        let tallies = step("hold a map", MapHandle::try_from(&wire.maps.tallies));
        let demux_setup = DemuxSetup {
            trunk: named("eth0b", TRUNK),
            room: setup.room,
            hosts_too: setup.hosts_too,
            dry_run: setup.dry_run,
        };
        let demux = Demux::load(demux_setup, setup.policy.clone(), second);
        let mut rig = Rig {
            demux: step("load the demux", demux),
            settler: Arc::new(Settler {
                tallies,
                other: Injector::new(&network.other, "eth0"),
                sent: AtomicU32::new(0),
            }),
            trunk: Injector::new(&network.far, "eth0a"),
            workers: BTreeMap::new(),
            network,
            clients: BTreeMap::new(),
            wire,
            setup,
            told: Cell::new([0; EVENTS]),
        };
        let (here, far, other) = (
            Place::here(),
            rig.network.far.clone(),
            rig.network.other.clone(),
        );
        for (place, name) in [
            (&here, "eth0b"),
            (&far, "eth0a"),
            (&here, "other0"),
            (&other, "eth0"),
        ] {
            rig.watch(place, name);
        }
        filter(&mut rig.wire.progs.prepare, &far, "eth0a", "egress");
        for number in 0..rig.setup.workers {
            rig.watch_worker(number);
        }
        let attached = rig.demux.attach(&Attaching::default(), &Placed::default());
        step("attach the demux", attached);
        rig
    }

    /// Keeps what comes there, behind all programs of the demux.
    fn watch(&mut self, place: &Place, name: &str) {
        place.tc(&format!("qdisc add dev {name} clsact"));
        // Of these, the last frames are waited for.
        if self.setup.watches || name == "other0" {
            filter(&mut self.wire.progs.watch, place, name, "ingress");
        }
    }

    /// Joins a client with the trunk's far end, where these tags are put on and taken off.
    pub fn connect_client(&mut self, client: &Place, mac: [u8; 6], tags: &[Tag]) {
        let far = self.network.far.clone();
        let mac = Mac::from(mac);
        far.ip(&format!(
            "link add port0 index {PORT} mtu 9000 type veth peer name eth0 address {mac} mtu 9000 \
             netns {client}"
        ));
        for (place, name) in [(&far, "port0"), (client, "eth0")] {
            // One after the other: within one request kernel 6.1 sets it up first, with an address.
            place.ip(&format!("link set {name} multicast off addrgenmode none"));
            place.ip(&format!("link set {name} up"));
        }
        far.tc("qdisc add dev port0 clsact");
        let bss = there(self.wire.maps.bss_data.as_mut());
        (bss.client, bss.client_port, bss.far_trunk) = (in_bpf(tags), PORT, FAR);
        filter(&mut self.wire.progs.tag_client, &far, "port0", "ingress");
        filter(&mut self.wire.progs.untag_client, &far, "eth0a", "ingress");
    }

    pub fn disconnect_client(&mut self) {
        self.network.far.ip("link delete port0");
        self.network.far.tc("filter delete dev eth0a ingress");
    }

    fn watch_worker(&mut self, number: u32) {
        self.watch(&Place::here(), &format!("worker{number}a"));
        let far = self.network.workers[number as usize].clone();
        self.watch(&far, "eth0");
        self.workers.insert(number, Injector::new(&far, "eth0"));
    }

    /// What the demux is to be told of these clients.
    pub fn placed(&self) -> Placed {
        let worker = |number: u32| Worker {
            port: named(&format!("worker{number}a"), port(number)),
            has_peer: self.setup.has_peer,
        };
        Placed {
            clients: self.clients.clone(),
            workers: (0..self.setup.workers)
                .map(|number| (port(number), worker(number)))
                .collect(),
            absent: Default::default(),
        }
    }

    /// Makes `self.clients` true.
    pub fn change(&mut self) -> Changes {
        let placed = self.placed();
        step("change the table", self.demux.change_to(&placed))
    }

    /// Configures clients, by the number of their worker, beside those that there are.
    pub fn add(&mut self, clients: impl IntoIterator<Item = ([u8; 6], u32)>) -> Changes {
        let clients = clients.into_iter();
        let clients = clients.map(|(mac, worker)| (Mac::from(mac), port(worker)));
        self.clients.extend(clients);
        self.change()
    }

    pub fn set_policy(&mut self, policy: Policy) {
        step("set the policy", self.demux.set_policy(policy));
    }

    /// Sends these at the trunk's far end. Everything that comes out, in its order.
    #[track_caller]
    pub fn clients_send(&self, frames: &[Vec<u8>]) -> Vec<Arrival> {
        self.send(&self.trunk, frames)
    }

    /// The same from a worker.
    #[track_caller]
    pub fn worker_sends(&self, number: u32, frames: &[Vec<u8>]) -> Vec<Arrival> {
        self.send(&self.workers[&number], frames)
    }

    #[track_caller]
    fn send(&self, injector: &Injector, frames: &[Vec<u8>]) -> Vec<Arrival> {
        injector.inject(frames.iter().map(Vec::as_slice), Duration::ZERO);
        self.arrivals()
    }

    /// What has come out since somebody asked.
    #[track_caller]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.settler.settle();
        let mut arrivals = Vec::new();
        while let Some(bytes) = step("take a frame", self.wire.maps.queue.lookup_and_delete(&[])) {
            let arrival = arrival_of(&bytes);
            if arrival.bytes[..6] != LAST {
                arrivals.push(arrival);
            }
        }
        assert_eq!(
            there(self.wire.maps.bss_data.as_ref()).lost,
            0,
            "kept frames"
        );
        arrivals
    }

    /// A known client has sent a frame in that VLAN, and it came to its worker.
    #[track_caller]
    pub fn hear(&self, client: [u8; 6], tags: &[Tag]) {
        let number = self.clients[&client.into()];
        let sent = [behind(tags, &to_worker(client))];
        let expected = [arrival(number + 1, to_worker(client))];
        assert_eq!(self.clients_send(&sent), expected, "{client:02x?} {tags:?}");
    }

    /// The tags that a broadcast of this worker goes out to, sorted; each once.
    #[track_caller]
    pub fn outlets(&self, worker: u32) -> Vec<Vec<Tag>> {
        let sent = frame(WORKER_MAC, [0xff; 6], 60);
        let arrivals = self.worker_sends(worker, std::slice::from_ref(&sent));
        let mut outlets: Vec<Vec<Tag>> = arrivals
            .iter()
            .map(|arrival| {
                assert_eq!(arrival.at, FAR);
                let tags = tags_of(&arrival.bytes);
                assert_eq!(arrival.bytes, behind(&tags, &sent));
                tags
            })
            .collect();
        outlets.sort();
        outlets
    }

    /// Whether frames are kept; they are counted in any case.
    pub fn keep(&mut self, keeps: bool) {
        there(self.wire.maps.bss_data.as_mut()).keeps = keeps.into();
    }

    /// For a thread that sends at the trunk's far end.
    pub fn flood(&self) -> Flood {
        Flood {
            trunk: Injector::new(&self.network.far, "eth0a"),
            settler: self.settler.clone(),
        }
    }

    /// Everybody whose frames came somewhere without a tag: where, and how many. Nobody's come to two.
    pub fn untagged_arrivals(&self) -> BTreeMap<[u8; 6], (u32, u64)> {
        let mut came = BTreeMap::new();
        for (key, count) in self.all_tallies() {
            let source: [u8; 6] = *there(key[6..].first_chunk());
            let at = u32::from_ne_bytes(*there(key[12..].first_chunk()));
            let is_tagged = key[16..] != [0; 4];
            if key[..6] != LAST && !is_tagged {
                let second = came.insert(source, (at, count));
                assert_eq!(second, None, "{source:02x?} came here and there");
            }
        }
        came
    }

    pub fn forget_tallies(&self) {
        for (key, _) in self.all_tallies() {
            step("forget a tally", self.wire.maps.tallies.delete(&key));
        }
    }

    fn all_tallies(&self) -> Vec<(Vec<u8>, u64)> {
        let tallies = &self.wire.maps.tallies;
        let keys: Vec<Vec<u8>> = tallies.keys().collect();
        let count = |key: &[u8]| {
            let found = step("read a tally", tallies.lookup(key, MapFlags::ANY));
            u64::from_ne_bytes(*there(there(found).first_chunk()))
        };
        keys.into_iter()
            .map(|key| {
                let count = count(&key);
                (key, count)
            })
            .collect()
    }

    /// How many frames from one to the other came there, untagged.
    pub fn tally(&self, source: [u8; 6], destination: [u8; 6], at: u32) -> u64 {
        let flow = flow {
            destination,
            source,
            at,
            tag_kind: 0,
            tci: 0,
        };
        frames_of(&self.settler.tallies, &flow)
    }

    /// From now on the clients' frames get these tags, the outer one first, beside those that they have.
    pub fn prepare(&mut self, all: &[Tag]) {
        there(self.wire.maps.bss_data.as_mut()).prepared = in_bpf(all);
    }

    /// What is known of a client.
    pub fn state(&self, client: [u8; 6]) -> Known {
        let member = self.demux.roster()[&client.into()];
        let state = step("read a state", self.demux.state_of(member));
        let traffic = step("read counts", self.demux.traffic_of(member));
        let tags = |tags: Option<Tags>| tags.map(|tags| tags.to_string()).unwrap_or_default();
        Known {
            tags: tags(state.tags),
            is_listed: state.is_listed,
            moves: state.moves,
            before: tags(state.before),
            refusals: state.refusals,
            refused: tags(state.refused),
            rx: (traffic.rx.packets, traffic.rx.bytes),
            tx: (traffic.tx.packets, traffic.tx.bytes),
        }
    }

    /// Frames, bytes and copies of a worker's broadcasts.
    pub fn broadcasts(&self, worker: u32) -> (u64, u64, u64) {
        let all = step("read the broadcasts", self.demux.broadcasts());
        let own = all
            .into_iter()
            .find(|(it, ..)| it.port.ifindex == port(worker));
        let (_, volume, copies) = there(own);
        (volume.packets, volume.bytes, copies)
    }

    /// By MAC address: frames, and the tags of the last one.
    pub fn strangers(&self) -> BTreeMap<Mac, (u64, String)> {
        let all = step("read the strangers", self.demux.strangers());
        let told = all.into_iter().map(|(mac, stranger)| {
            let tags = Tags::from_word(stranger.tags).map(|tags| tags.to_string());
            (mac, (stranger.packets, tags.unwrap_or_default()))
        });
        told.collect()
    }

    /// Exactly this has happened since the last time that somebody asked.
    #[track_caller]
    pub fn assert_events(&self, expected: events) {
        assert_eq!(
            numbers(&self.take_events()),
            numbers(&expected),
            "expected {expected:?}"
        );
    }

    /// What has happened since the last time that somebody asked.
    pub fn take_events(&self) -> events {
        let all = step("read the events", self.demux.events());
        let mut now = [0; EVENTS];
        for cpu in &all {
            for (sum, count) in now.iter_mut().zip(numbers(cpu)) {
                *sum += count;
            }
        }
        let told = self.told.replace(now);
        let since: Vec<u8> = now
            .iter()
            .zip(told)
            .flat_map(|(now, told)| (now - told).to_ne_bytes())
            .collect();
        let mut events = events::default();
        let copied = plain::copy_from_bytes(&mut events, &since);
        assert!(copied.is_ok(), "{} bytes of events", since.len());
        events
    }

    /// Moves the far end of a worker's interface into the sandbox itself, under the same number.
    pub fn bring_back(&mut self, number: u32) {
        let far = self.network.workers[number as usize].clone();
        // A thread's number: the process is somewhere else.
        let here = nix::unistd::gettid();
        far.ip(&format!("link set eth0 name back0 netns {here}"));
        Place::here().ip("link set back0 multicast off addrgenmode none up");
        self.watch(&Place::here(), "back0");
        self.setup.has_peer = false;
    }

    /// Takes a worker's interface away, its far end too.
    pub fn cut_worker(&mut self, number: u32) {
        self.workers.remove(&number);
        self.network.cut_worker(number);
    }

    /// Makes it again, with the same number.
    pub fn connect_worker(&mut self, number: u32) {
        self.network.connect_worker(number);
        self.watch_worker(number);
    }
}

/// Sends at the trunk's far end, in any thread.
pub struct Flood {
    trunk: Injector,
    settler: Arc<Settler>,
}

impl Flood {
    /// Sends, and waits until all of it is where it goes: queues are short.
    pub fn send(&self, frames: &[Vec<u8>]) {
        self.trunk
            .inject(frames.iter().map(Vec::as_slice), Duration::ZERO);
        self.settler.settle();
    }
}

/// What the demux says of a client; tags as it prints them, none as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub tags: String,
    pub is_listed: bool,
    pub moves: u32,
    pub before: String,
    pub refusals: u32,
    pub refused: String,
    /// Packets and bytes.
    pub rx: (u64, u64),
    pub tx: (u64, u64),
}

fn bytes_of<T: plain::Plain>(value: &T) -> &[u8] {
    // SAFETY: the types of the maps have no padding.
    unsafe { plain::as_bytes(value) }
}

/// Puts a program on an interface, behind others.
fn filter(program: &mut ProgramMut<'_>, place: &Place, name: &str, side: &str) {
    const PIN: &str = "/sys/fs/bpf/wire";
    step("pin a program", program.pin(PIN));
    place.tc(&format!(
        "filter add dev {name} {side} pref 100 bpf direct-action pinned {PIN}"
    ));
    step("take the pin away", program.unpin(PIN));
}

/// All of them are counters of 64 bits.
fn numbers(events: &events) -> [u64; EVENTS] {
    let mut numbers = [0; EVENTS];
    for (number, word) in numbers.iter_mut().zip(bytes_of(events).as_chunks().0) {
        *number = u64::from_ne_bytes(*word);
    }
    numbers
}

const EVENTS: usize = size_of::<events>() / size_of::<u64>();

/// All tags that a frame begins with.
pub fn tags_of(frame: &[u8]) -> Vec<Tag> {
    let words = frame[12..].as_chunks().0.iter();
    words
        .map(|[a, b, c, d]| Tag {
            kind: u16::from_be_bytes([*a, *b]),
            tci: u16::from_be_bytes([*c, *d]),
        })
        .take_while(|tag| matches!(tag.kind, 0x8100 | 0x88a8))
        .collect()
}

fn arrival_of(bytes: &[u8]) -> Arrival {
    let word = |at: usize| {
        let word = bytes[at..].first_chunk();
        u32::from_ne_bytes(*there(word))
    };
    let half = |at: usize| {
        let half = bytes[at..].first_chunk();
        u16::from_ne_bytes(*there(half))
    };
    let (at, length) = (word(0), word(4) as usize);
    let head = std::mem::offset_of!(kept, frame);
    let frame = &bytes[head..][..length.min(bytes.len() - head)];
    let tag = Tag {
        kind: half(8),
        tci: half(10),
    };
    let tags = if tag.kind == 0 { vec![] } else { vec![tag] };
    Arrival {
        at,
        bytes: behind(&tags, frame),
    }
}

fn in_bpf(all: &[Tag]) -> tags {
    let mut pushed = [tag::default(); 2];
    for (place, Tag { kind, tci }) in pushed.iter_mut().zip(all.iter().rev()) {
        *place = tag {
            kind: *kind,
            tci: *tci,
        };
    }
    tags {
        count: all.len() as u32,
        pushed,
    }
}

/// What the skeletons, a map or a frame have always.
pub fn there<T>(option: Option<T>) -> T {
    option.unwrap_or_else(|| panic!("a map, its key or a part of the rig is missing"))
}
