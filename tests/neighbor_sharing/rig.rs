//! The programs of neighbor_sharing, loaded but attached nowhere, and their maps: packets go in by
//! BPF_PROG_TEST_RUN; verdict, tag, maps and the packet that comes out are looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use libbpf_rs::skel::{Skel, SkelBuilder};
use libbpf_rs::{Map, MapCore, MapFlags, OpenObject, ProgramInput};
use libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use netbpf::cidr::Cidr;
use netbpf::load::load;
use netbpf::neighbor_sharing::skeleton::{NeighborSharingSkel, NeighborSharingSkelBuilder, types};
use netbpf::neighbor_sharing::{Class, Counter, Way};
use testbed::namespace::Place;
use testbed::{cpus, sandbox, step};

use tagged::{TaggedSkel, TaggedSkelBuilder};

mod tagged {
    include!(concat!(env!("OUT_DIR"), "/tagged.skel.rs"));
}

pub use types::events;

/// "Not ours, let it go on", for TCX and for direct action.
pub const PASS: i32 = -1;
/// TCX_DROP and TC_ACT_SHOT.
pub const DROP: i32 = 2;

/// Interfaces of the rig; BPF_PROG_TEST_RUN takes no ifindex that is nobody's.
pub const WAN: u32 = 101;
/// What stands on the WAN; downloads may come in there as well.
pub const WAN_VLAN: u32 = 102;
pub const NEIGHBOR_1: u32 = 103;
pub const NEIGHBOR_2: u32 = 104;
pub const LAN_1: u32 = 105;
pub const LAN_2: u32 = 106;
/// Ports in the order of their rows in port_use.
pub const PORTS: [(u32, Class); 4] = [
    (NEIGHBOR_1, Class::Neighbor),
    (NEIGHBOR_2, Class::Neighbor),
    (LAN_1, Class::Rest),
    (LAN_2, Class::Rest),
];

/// What every tag has, so that it is not taken for another classifier's class.
pub const TAG: u16 = 0xa000;
/// In a tag: the source is exempt.
pub const TAG_EXEMPT: u16 = 0x1000;
/// In a tag: it came in by a neighbor's port.
pub const TAG_NEIGHBOR: u16 = 0x0800;
/// In a tag: the slot of the source address.
pub const TAG_SLOT: u16 = 0x07ff;
/// The tag of a packet that came in by a port of that class.
pub fn tag(class: Class, slot: u32) -> u16 {
    let neighbor = if class == Class::Neighbor {
        TAG_NEIGHBOR
    } else {
        0
    };
    TAG | neighbor | step("a slot fits a tag", u16::try_from(slot))
}

/// Slots that are nobody's.
pub const UNKNOWN_DOWNLOAD: u32 = 0;
pub const UNKNOWN_UPLOAD: u32 = 1;
/// The first slot that an address may get.
pub const FIRST_SLOT: u32 = 2;

/// Where the clocks of the rig stand at the beginning, in policer units and in ticks.
pub const UNITS: u64 = 1 << 40;
pub const TICKS: u64 = 1 << 20;

/// Frames that are shorter are cut in the kernel, because it takes none that end within an IP header.
const LEAST: usize = 64;

/// Words of struct __sk_buff (linux/bpf.h), all 32 bits wide.
mod word {
    pub const INGRESS_IFINDEX: usize = 9;
    pub const IFINDEX: usize = 10;
    /// cb[0] to cb[2], as tagged.bpf.c uses them.
    pub const TAG: usize = 12;
    pub const TARGET: usize = 13;
    pub const LENGTH: usize = 14;
    pub const GSO_SEGS: usize = 41;
    pub const GSO_SIZE: usize = 44;
    pub const ALL: usize = 48;
}

/// The knobs that differ between tests.
#[derive(Clone, Debug)]
pub struct Setup {
    pub lan_is_known: bool,
    pub dry_run: bool,
    /// --police-at lan.
    pub only_across_wan: bool,
    pub exempt: Vec<Cidr>,
    pub neighbor_nets: Vec<Cidr>,
    pub forget_ticks: u64,
    /// Addresses of each port.
    pub quota: u32,
    /// Addresses of all ports together.
    pub slots: u32,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            lan_is_known: true,
            dry_run: false,
            only_across_wan: false,
            exempt: Vec::new(),
            neighbor_nets: Vec::new(),
            forget_ticks: 1000,
            quota: 4,
            slots: 16,
        }
    }
}

/// What goes into a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skb<'a> {
    pub frame: &'a [u8],
    /// The interface that the program runs at; 0: loopback, which is no port.
    pub ifindex: u32,
    /// Where the packet came in, at egress.
    pub ingress: u32,
    pub tag: u16,
    pub gso_segs: u32,
    pub gso_size: u32,
}

/// What came out of it. The packet came out as it went in: `Rig::run` has seen to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: i32,
    pub tag: u16,
}

/// An address that has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    pub port: u32,
    pub class: Class,
    pub slot: u32,
    /// Ticks.
    pub seen: u64,
}

pub struct Rig<'obj> {
    sharing: NeighborSharingSkel<'obj>,
    tagged: TaggedSkel<'obj>,
    setup: Setup,
    /// Place in the map of tail calls by name.
    targets: BTreeMap<String, u32>,
}

/// Runs a test on a fresh rig, in a sandbox that has the interfaces. Skipped, loudly, without root.
pub fn run(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>) + Send) {
    sandbox::run(name, |_| {
        let ports = PORTS.map(|(ifindex, _)| ifindex);
        let links = [&[WAN, WAN_VLAN], &ports[..]].concat();
        for link in &links {
            Place::here().ip(&format!(
                "link add p{link} index {link} group 7 type bridge"
            ));
        }
        let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        test(&mut Rig::load(setup, &mut first, &mut second));
        Place::here().ip("link delete group 7"); // all at once: each deletion waits for all CPUs
    });
}

impl<'obj> Rig<'obj> {
    fn load(
        setup: Setup,
        first: &'obj mut MaybeUninit<OpenObject>,
        second: &'obj mut MaybeUninit<OpenObject>,
    ) -> Rig<'obj> {
        let mut open = step("open", NeighborSharingSkelBuilder::default().open(first));
        let knobs = there(open.maps.rodata_data.as_mut());
        knobs.virtual_clock = true;
        knobs.lan_is_known = setup.lan_is_known;
        knobs.dry_run = setup.dry_run;
        knobs.only_across_wan = setup.only_across_wan;
        knobs.wan_sides[0] = WAN;
        knobs.wan_sides[1] = WAN_VLAN;
        knobs.have_exempt_nets = !setup.exempt.is_empty();
        knobs.have_neighbor_nets = !setup.neighbor_nets.is_empty();
        knobs.forget_ticks = setup.forget_ticks;
        let sharing = step("load the BPF programs", load(open));
        let open = step("open", TaggedSkelBuilder::default().open(second));
        let tagged = step("load the test's program", load(open));
        let mut targets = BTreeMap::new();
        for (at, program) in (0_u32..).zip(sharing.object().progs()) {
            let fd = program.as_fd().as_raw_fd();
            put(&tagged.maps.targets, &at.to_ne_bytes(), &fd.to_ne_bytes());
            targets.insert(program.name().to_string_lossy().into_owned(), at);
        }
        let mut rig = Rig {
            sharing,
            tagged,
            setup,
            targets,
        };
        rig.fill();
        rig
    }

    fn fill(&mut self) {
        let maps = &self.sharing.maps;
        for (index, (ifindex, class)) in (0..).zip(PORTS) {
            let port = types::port {
                index,
                class: in_bpf(class),
                quota: self.setup.quota,
            };
            put(&maps.ports, &ifindex.to_ne_bytes(), bytes(&port));
        }
        for slot in FIRST_SLOT..FIRST_SLOT + self.setup.slots {
            put(&maps.free_slots, &[], &slot.to_ne_bytes());
        }
        let exempt = (&maps.exempt_nets, &self.setup.exempt);
        let neighbors = (&maps.neighbor_nets, &self.setup.neighbor_nets);
        for (map, nets) in [exempt, neighbors] {
            for net in nets {
                put(map, &net.map_key(), &[1]);
            }
        }
        self.set_units(UNITS);
        self.set_ticks(TICKS);
    }

    /// Runs a program once on a packet, which has to come out as it went in.
    #[track_caller]
    pub fn run(&self, program: &str, skb: Skb<'_>) -> Outcome {
        let mut context = [0_u32; word::ALL];
        context[word::INGRESS_IFINDEX] = skb.ingress;
        context[word::IFINDEX] = skb.ifindex;
        context[word::TAG] = skb.tag.into();
        context[word::TARGET] = *there(self.targets.get(program));
        context[word::GSO_SEGS] = skb.gso_segs;
        context[word::GSO_SIZE] = skb.gso_size;
        let mut frame_in = skb.frame.to_vec();
        if frame_in.len() < LEAST && skb.gso_size == 0 {
            context[word::LENGTH] = frame_in.len() as u32;
            frame_in.resize(LEAST, 0xa5);
        }
        let mut context_in: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut context_out = vec![0; context_in.len()];
        let mut frame_out = vec![0; frame_in.len()];
        let input = ProgramInput {
            data_in: Some(&frame_in),
            data_out: Some(&mut frame_out),
            context_in: Some(&mut context_in),
            context_out: Some(&mut context_out),
            ..Default::default()
        };
        let output = step(program, self.tagged.progs.tagged.test_run(input));
        let verdict = output.return_value.cast_signed();
        assert_eq!(there(output.data), skb.frame, "{program} changed {skb:?}");
        let (words, _) = context_out.as_chunks::<4>();
        let tag = u32::from_ne_bytes(words[word::TAG]);
        Outcome {
            verdict,
            tag: step("a tag has 16 bits", u16::try_from(tag)),
        }
    }

    /// Uploads at the ingress of ports on two CPUs at once, while time goes on. `None` where there are
    /// no two.
    pub fn enter_at_once(&mut self, jobs: [&[(u32, Vec<u8>)]; 2]) -> Option<()> {
        let cpus = cpus::two()?;
        let program = self.tagged.progs.tagged.as_fd();
        let ticks = &raw mut there(self.sharing.maps.bss_data.as_mut()).virtual_ticks;
        let targets = &self.targets;
        std::thread::scope(|scope| {
            let running = jobs.into_iter().zip(cpus).map(|(frames, cpu)| {
                scope.spawn(move || {
                    cpus::pin_to(cpu);
                    let mut context = [0_u32; word::ALL];
                    for (port, frame) in frames {
                        context[word::IFINDEX] = *port;
                        context[word::TARGET] = *there(targets.get(ingress_program(*port)));
                        enter_by_descriptor(program, &context, frame);
                    }
                })
            });
            let running: Vec<_> = running.collect();
            for now in TICKS.. {
                // SAFETY: a u64 of the BPF programs' globals, mapped as long as the skeleton lives.
                unsafe { ticks.write_volatile(now) };
                if running.iter().all(|thread| thread.is_finished()) {
                    break;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        Some(())
    }

    /// An upload at the ingress of a port of that class.
    #[track_caller]
    pub fn enter(&self, port: u32, frame: &[u8]) -> Outcome {
        let class = class_of(port);
        let program = ingress_program(port);
        let ifindex = port;
        let outcome = self.run(
            program,
            Skb {
                frame,
                ifindex,
                ..Skb::default()
            },
        );
        assert_eq!(outcome.verdict, PASS, "{program} passes everything");
        let neighbor = if class == Class::Neighbor {
            TAG_NEIGHBOR
        } else {
            0
        };
        assert_eq!(outcome.tag & !(TAG_EXEMPT | TAG_SLOT), TAG | neighbor);
        outcome
    }

    /// A download at the ingress of the WAN.
    #[track_caller]
    pub fn download(&self, frame: &[u8]) -> i32 {
        let skb = Skb {
            frame,
            ifindex: WAN,
            ..Skb::default()
        };
        self.run("classify_wan", skb).verdict
    }

    /// An upload at the egress of the WAN, with the tag of the port's ingress.
    #[track_caller]
    pub fn upload(&self, frame: &[u8], ingress: u32, tag: u16) -> i32 {
        let skb = Skb {
            frame,
            ifindex: WAN,
            ingress,
            tag,
            ..Skb::default()
        };
        let outcome = self.run("police_upload", skb);
        assert_eq!(outcome.tag, 0, "nobody else takes the tag for his own");
        outcome.verdict
    }

    pub fn set_units(&mut self, units: u64) {
        there(self.sharing.maps.bss_data.as_mut()).virtual_units = units;
    }

    pub fn set_ticks(&mut self, ticks: u64) {
        there(self.sharing.maps.bss_data.as_mut()).virtual_ticks = ticks;
    }

    pub fn neighbors_are_full(&self) -> bool {
        there(self.sharing.maps.bss_data.as_ref()).neighbors_are_full != 0
    }

    /// As user space does when there is room again.
    pub fn clear_neighbors_are_full(&mut self) {
        there(self.sharing.maps.bss_data.as_mut()).neighbors_are_full = 0;
    }

    /// Limits a class to a byte a unit and a burst; the bucket is full. Without this it is not limited.
    pub fn limit(&self, class: Class, way: Way, burst: u64) {
        let bucket = types::bucket {
            paid_until: UNITS,
            cost: 1 << 10,
            burst,
            ..Default::default()
        };
        put(&self.sharing.maps.buckets, &row(class, way), bytes(&bucket));
    }

    /// Nothing of this class passes any more.
    pub fn empty(&self, class: Class, way: Way) {
        let bucket = types::bucket {
            paid_until: UNITS + (1 << 30),
            cost: 1 << 10,
            burst: 1,
            ..Default::default()
        };
        put(&self.sharing.maps.buckets, &row(class, way), bytes(&bucket));
    }

    /// Nothing that is policed passes any more.
    pub fn empty_all_buckets(&self) {
        for class in Class::ALL {
            for way in Way::ALL {
                self.empty(class, way);
            }
        }
    }

    /// Bytes that were charged to a class since `limit`.
    pub fn charged(&self, class: Class, way: Way) -> u64 {
        let bucket: types::bucket = value(&get(&self.sharing.maps.buckets, &row(class, way)));
        bucket.paid_until - UNITS
    }

    pub fn meter(&self, class: Class, way: Way) -> Counter {
        let mut sum = Counter::default();
        for meter in per_cpu::<types::meter>(&self.sharing.maps.meters, &row(class, way)) {
            sum += Counter::from(meter);
        }
        sum
    }

    /// These meters say this, and the others nothing.
    #[track_caller]
    pub fn assert_meters(&self, expected: &[(Class, Way, Counter)]) {
        for class in Class::ALL {
            for way in Way::ALL {
                let mut expected = expected.iter().filter(|(c, w, _)| (*c, *w) == (class, way));
                let counter = expected
                    .next()
                    .map_or_else(Counter::default, |(_, _, counter)| *counter);
                assert_eq!(self.meter(class, way), counter, "{class:?} {way:?}");
            }
        }
    }

    /// What was counted in a slot, for an address or for nobody's.
    pub fn slot(&self, slot: u32, way: Way) -> Counter {
        let mut sum = Counter::default();
        let map = &self.sharing.maps.address_counts;
        for count in per_cpu::<types::address_count>(map, &slot.to_ne_bytes()) {
            let [download, upload] = count.meters;
            sum += Counter::from(match way {
                Way::Download => download,
                Way::Upload => upload,
            });
        }
        sum
    }

    /// These slots say this, and the others nothing.
    #[track_caller]
    pub fn assert_slots(&self, expected: &[(u32, Way, Counter)]) {
        for slot in 0..FIRST_SLOT + self.setup.slots {
            for way in Way::ALL {
                let mut expected = expected.iter().filter(|(s, w, _)| (*s, *w) == (slot, way));
                let counter = expected
                    .next()
                    .map_or_else(Counter::default, |(_, _, counter)| *counter);
                assert_eq!(self.slot(slot, way), counter, "slot {slot} {way:?}");
            }
        }
    }

    fn events(&self) -> [u64; EVENTS] {
        let mut sum = [0; EVENTS];
        for events in per_cpu::<types::events>(&self.sharing.maps.events, &0_u32.to_ne_bytes()) {
            for (sum, count) in sum.iter_mut().zip(numbers(&events)) {
                *sum += count;
            }
        }
        sum
    }

    /// Exactly this has happened since the last time that somebody asked.
    #[track_caller]
    pub fn assert_events(&self, expected: events) {
        assert_eq!(self.events(), numbers(&expected), "expected {expected:?}");
        self.forget_events();
    }

    /// What counts from here on is counted from zero.
    pub fn forget_counts(&self) {
        self.forget_events();
        let maps = &self.sharing.maps;
        for row in 0..4_u32 {
            put_zeros(&maps.meters, &row.to_ne_bytes(), size_of::<types::meter>());
        }
        for slot in 0..FIRST_SLOT + self.setup.slots {
            let size = size_of::<types::address_count>();
            put_zeros(&maps.address_counts, &slot.to_ne_bytes(), size);
        }
    }

    fn forget_events(&self) {
        let size = size_of::<types::events>();
        put_zeros(&self.sharing.maps.events, &0_u32.to_ne_bytes(), size);
    }

    pub fn owner(&self, ip: impl Into<IpAddr>) -> Option<Owned> {
        let value_found = match ip.into() {
            IpAddr::V4(ip) => self
                .sharing
                .maps
                .learned_ips
                .lookup(&ip.octets(), MapFlags::ANY),
            IpAddr::V6(ip) => self
                .sharing
                .maps
                .learned_ips6
                .lookup(&ip.octets(), MapFlags::ANY),
        };
        step("look up an address", value_found).map(|found| owned(&found))
    }

    /// The port of an address.
    pub fn port_of(&self, ip: impl Into<IpAddr>) -> Option<u32> {
        self.owner(ip).map(|owned| owned.port)
    }

    /// Every address that has an owner.
    pub fn owners(&self) -> BTreeMap<IpAddr, Owned> {
        let maps = &self.sharing.maps;
        let mut owners = BTreeMap::new();
        for key in maps.learned_ips.keys() {
            let ip = Ipv4Addr::from(step("an IPv4 key", <[u8; 4]>::try_from(key).map_err(debug)));
            owners.insert(ip.into(), there(self.owner(ip)));
        }
        for key in maps.learned_ips6.keys() {
            let ip = Ipv6Addr::from(step(
                "an IPv6 key",
                <[u8; 16]>::try_from(key).map_err(debug),
            ));
            owners.insert(ip.into(), there(self.owner(ip)));
        }
        owners
    }

    /// As user space forgets an address: the entry, then its slot, then its port's share.
    pub fn forget(&self, ip: IpAddr) {
        let maps = &self.sharing.maps;
        let owned = there(self.owner(ip));
        let deleted = match ip {
            IpAddr::V4(ip) => maps.learned_ips.delete(&ip.octets()),
            IpAddr::V6(ip) => maps.learned_ips6.delete(&ip.octets()),
        };
        step("forget an address", deleted);
        put(&maps.free_slots, &[], &owned.slot.to_ne_bytes());
        let row = row_of_port(owned.port);
        let forgotten: u64 = value(&get(&maps.port_forgotten, &row));
        put(&maps.port_forgotten, &row, &(forgotten + 1).to_ne_bytes());
    }

    /// Addresses that a port owns, as it is told by its own account.
    pub fn account(&self, port: u32) -> u64 {
        let maps = &self.sharing.maps;
        let row = row_of_port(port);
        let own: types::port_use = value(&get(&maps.port_use, &row));
        let forgotten: u64 = value(&get(&maps.port_forgotten, &row));
        own.learned - own.released - forgotten
    }

    /// The table, the accounts of the ports and the stack of slots agree. Takes all free slots.
    #[track_caller]
    pub fn assert_sound(&self) {
        let owners = self.owners();
        for (port, class) in PORTS {
            let own: Vec<_> = owners.values().filter(|owned| owned.port == port).collect();
            assert!(own.iter().all(|owned| owned.class == class), "{own:?}");
            assert_eq!(self.account(port), own.len() as u64, "account of {port}");
            assert!(own.len() <= self.setup.quota as usize, "{port} has {own:?}");
        }
        let mut slots: Vec<u32> = owners.values().map(|owned| owned.slot).collect();
        let mut free = Vec::new();
        while let Some(slot) = step(
            "take a slot",
            self.sharing.maps.free_slots.lookup_and_delete(&[]),
        ) {
            free.push(value::<u32>(&slot));
        }
        slots.extend(&free);
        let all: BTreeSet<u32> = (FIRST_SLOT..FIRST_SLOT + self.setup.slots).collect();
        assert_eq!(
            slots.len(),
            all.len(),
            "a slot is lost, or there twice: {slots:?}"
        );
        assert_eq!(slots.into_iter().collect::<BTreeSet<_>>(), all);
        for slot in free.into_iter().rev() {
            put(&self.sharing.maps.free_slots, &[], &slot.to_ne_bytes());
        }
    }
}

fn class_of(port: u32) -> Class {
    there(PORTS.into_iter().find(|(ifindex, _)| *ifindex == port)).1
}

fn ingress_program(port: u32) -> &'static str {
    match class_of(port) {
        Class::Neighbor => "classify_neighbor",
        Class::Rest => "classify_lan",
    }
}

/// libbpf-rs's programs stay in the thread that loaded them; their descriptors do not.
fn enter_by_descriptor(program: BorrowedFd<'_>, context: &[u32; word::ALL], frame: &[u8]) {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: size_of_val(context) as u32,
        ..Default::default()
    };
    // SAFETY: an open descriptor; the options and what they point to outlive the call.
    let answer = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    assert_eq!((answer, options.retval.cast_signed()), (0, PASS));
}

const EVENTS: usize = size_of::<types::events>() / size_of::<u64>();

/// All of them are counters of 64 bits.
fn numbers(events: &types::events) -> [u64; EVENTS] {
    let mut numbers = [0; EVENTS];
    for (number, word) in numbers.iter_mut().zip(bytes(events).as_chunks().0) {
        *number = u64::from_ne_bytes(*word);
    }
    numbers
}

fn in_bpf(class: Class) -> types::class {
    match class {
        Class::Rest => types::class::REST,
        Class::Neighbor => types::class::NEIGHBOR,
    }
}

fn owned(found: &[u8]) -> Owned {
    let types::learned { owner, seen } = value(found);
    let class = Class::ALL
        .into_iter()
        .find(|class| in_bpf(*class).0 == u32::from(owner.class));
    Owned {
        port: owner.port,
        class: there(class),
        slot: owner.slot.into(),
        seen,
    }
}

/// The row of buckets and meters.
fn row(class: Class, way: Way) -> [u8; 4] {
    let row: u32 = match (way, class) {
        (Way::Download, Class::Rest) => 0,
        (Way::Download, Class::Neighbor) => 1,
        (Way::Upload, Class::Rest) => 2,
        (Way::Upload, Class::Neighbor) => 3,
    };
    row.to_ne_bytes()
}

fn row_of_port(port: u32) -> [u8; 4] {
    let row = there(PORTS.iter().position(|(ifindex, _)| *ifindex == port));
    (row as u32).to_ne_bytes()
}

/// What the skeletons or a map have always.
pub fn there<T>(option: Option<T>) -> T {
    option.unwrap_or_else(|| panic!("a map, its key or a part of the rig is missing"))
}

fn debug(error: impl Debug) -> String {
    format!("{error:?}")
}

fn put(map: &Map<'_>, key: &[u8], value: &[u8]) {
    step("write a map", map.update(key, value, MapFlags::ANY));
}

fn put_zeros(map: &Map<'_>, key: &[u8], size: usize) {
    let cpus = step("count the CPUs", libbpf_rs::num_possible_cpus());
    let zeros = vec![vec![0; size]; cpus];
    step("clear a map", map.update_percpu(key, &zeros, MapFlags::ANY));
}

fn get(map: &Map<'_>, key: &[u8]) -> Vec<u8> {
    there(step("read a map", map.lookup(key, MapFlags::ANY)))
}

fn per_cpu<T: plain::Plain + Default>(map: &Map<'_>, key: &[u8]) -> Vec<T> {
    let values = there(step("read a map", map.lookup_percpu(key, MapFlags::ANY)));
    values.iter().map(|bytes| value(bytes)).collect()
}

fn value<T: plain::Plain + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let copied = plain::copy_from_bytes(&mut value, bytes);
    assert!(copied.is_ok(), "{} bytes of a value", bytes.len());
    value
}

fn bytes<T: plain::Plain>(value: &T) -> &[u8] {
    // SAFETY: the types of the maps have no padding.
    unsafe { plain::as_bytes(value) }
}

/// Packets and bytes that passed.
pub fn passed(packets: u64, bytes: u64) -> Counter {
    Counter {
        packets,
        bytes,
        ..Counter::default()
    }
}

/// Packets and bytes that were dropped.
pub fn dropped(packets: u64, bytes: u64) -> Counter {
    Counter {
        dropped_packets: packets,
        dropped_bytes: bytes,
        ..Counter::default()
    }
}
