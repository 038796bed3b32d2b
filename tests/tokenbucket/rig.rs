//! The programs of tokenbucket, loaded but attached nowhere, and their maps: packets go in by
//! BPF_PROG_TEST_RUN; verdict, maps and the packet that comes out are looked at here.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{Map, MapCore, MapFlags, OpenObject, ProgramInput};
use netbpf::cidr::Cidr;
use netbpf::load::load;
use netbpf::policer::Limit;
use netbpf::tokenbucket::machine::{self, Compiled};
use netbpf::tokenbucket::skeleton::{self, TokenbucketSkel, TokenbucketSkelBuilder, types};
use testbed::{sandbox, step, test_run};

use crate::machine::{Machine, into_types_of, number_of_row};
use crate::times::Tokens;

use tagged::{TaggedSkel, TaggedSkelBuilder};

mod tagged {
    include!(concat!(env!("OUT_DIR"), "/tagged.skel.rs"));
}
into_types_of!(skeleton);

pub use types::{events, meter};

/// "Not ours, let it go on", for TCX and for direct action.
pub const PASS: i32 = -1;
/// TCX_DROP and TC_ACT_SHOT.
pub const DROP: i32 = 2;

/// Cells that flows share when the table is full; the first ones.
pub const OVERFLOW_CELLS: u32 = 4096;

/// Where the clock of the rig stands at the beginning, in ns.
pub const NOW: u64 = 1 << 50;
pub const SECOND: u64 = 1_000_000_000;

/// Frames that are shorter are cut in the kernel, because it takes none that end within an IP header.
pub const LEAST: usize = 64;

/// Words of struct __sk_buff (linux/bpf.h), all 32 bits wide.
mod word {
    /// cb[1] and cb[2], as tagged.bpf.c uses them.
    pub const TARGET: usize = 13;
    pub const LENGTH: usize = 14;
    pub const GSO_SEGS: usize = 41;
    pub const GSO_SIZE: usize = 44;
    pub const ALL: usize = 48;
}

/// In the order of `enum flow_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Source,
    Destination,
    Tuple,
}

/// What tells flows from each other.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub by: By,
    /// Bits of an address that count.
    pub prefix4: u32,
    pub prefix6: u32,
}

impl Key {
    /// Without --key.
    pub const SOURCE: Key = Key {
        by: By::Source,
        prefix4: 32,
        prefix6: 64,
    };
    pub const DESTINATION: Key = Key {
        by: By::Destination,
        ..Key::SOURCE
    };
    pub const TUPLE: Key = Key {
        by: By::Tuple,
        prefix4: 32,
        prefix6: 128,
    };

    fn is_wide(self) -> bool {
        self.by == By::Tuple || self.prefix6 > 64
    }
}

/// The knobs that differ between tests. Those that have no value are as in the object file.
#[derive(Clone, Debug)]
pub struct Setup {
    pub key: Option<Key>,
    pub machine: Option<Compiled>,
    /// Instead of the machine.
    pub bytes: Option<Limit>,
    pub counts_segments: bool,
    pub dry_run: bool,
    pub exempt: Vec<Cidr>,
    pub flows: u32,
    pub seed: u32,
    /// Instead of the test's own.
    pub real_clock: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            key: None,
            machine: None,
            bytes: None,
            counts_segments: false,
            dry_run: false,
            exempt: Vec::new(),
            flows: 1024,
            seed: 7,
            real_clock: false,
        }
    }
}

impl From<&Machine> for Compiled {
    fn from(machine: &Machine) -> Compiled {
        Compiled {
            machine: machine.into(),
            figures: machine.into(),
            needs_transport: machine.looks_behind_ip(),
        }
    }
}

/// What goes into a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skb<'a> {
    pub frame: &'a [u8],
    /// It has no link header.
    pub is_raw: bool,
    pub gso_segs: u32,
    pub gso_size: u32,
}

/// `struct cell`: what is known of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// State and register; 0: nobody's.
    pub word: u64,
    pub passed: u64,
    pub dropped: u64,
}

const _: () = assert!(size_of::<Cell>() == size_of::<types::cell>());

impl Cell {
    fn from_bytes(bytes: &[u8]) -> Cell {
        let words = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word));
        let [word, passed, dropped] = words.collect::<Vec<_>>()[..] else {
            panic!("a cell of {} bytes", bytes.len());
        };
        Cell {
            word,
            passed,
            dropped,
        }
    }
}

pub struct Rig<'obj> {
    skeleton: TokenbucketSkel<'obj>,
    tagged: TaggedSkel<'obj>,
    is_wide: bool,
    counts_segments: bool,
}

/// Runs a test on a fresh rig. Skipped, loudly, without root.
pub fn run(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>) + Send) {
    sandbox::run(name, |_| with(setup, test));
}

/// The same in a sandbox that is there already.
pub fn with(setup: Setup, test: impl FnOnce(&mut Rig<'_>)) {
    let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    test(&mut Rig::load(&setup, &mut first, &mut second));
}

impl<'obj> Rig<'obj> {
    fn load(
        setup: &Setup,
        first: &'obj mut MaybeUninit<OpenObject>,
        second: &'obj mut MaybeUninit<OpenObject>,
    ) -> Rig<'obj> {
        let mut open = step("open", TokenbucketSkelBuilder::default().open(first));
        let is_wide = setup.key.is_some_and(Key::is_wide);
        let rodata = there(open.maps.rodata_data.as_mut());
        let knobs = &mut rodata.knobs;
        knobs.virtual_clock = (!setup.real_clock).into();
        knobs.wide_keys = is_wide.into();
        knobs.polices_bytes = setup.bytes.is_some().into();
        knobs.counts_segments = setup.counts_segments.into();
        let machine_needs_transport = setup.machine.is_some_and(|machine| machine.needs_transport);
        let is_by_tuple = setup.key.is_some_and(|key| key.by == By::Tuple);
        knobs.needs_transport = (machine_needs_transport || is_by_tuple).into();
        knobs.dry_run = setup.dry_run.into();
        knobs.have_exempt_nets = (!setup.exempt.is_empty()).into();
        knobs.seed = setup.seed;
        knobs.flows = setup.flows;
        if let Some(key) = setup.key {
            knobs.by = key.by as u8;
            knobs.mask4 = mask4(key.prefix4);
            knobs.mask6 = mask6(key.prefix6);
        }
        let rule = &mut there(open.maps.data_data.as_mut()).rulebook.rules[0];
        if let Some(compiled) = setup.machine {
            rodata.machine = compiled.machine;
            rule.xfsm = compiled.figures;
        }
        if let Some(Limit { cost, burst }) = setup.bytes {
            (rule.cost, rule.burst) = (cost, burst);
        }
        let rows = [setup.flows, 1];
        let [narrow, wide] = if is_wide { [rows[1], rows[0]] } else { rows };
        let maps = &mut open.maps;
        step("size a map", maps.state_table.set_max_entries(narrow));
        step("size a map", maps.wide_state_table.set_max_entries(wide));
        step(
            "size a map",
            maps.cells.set_max_entries(OVERFLOW_CELLS + setup.flows),
        );
        step("size a map", maps.free_cells.set_max_entries(setup.flows));
        let skeleton = step("load the BPF programs", load(open));
        let open = step("open", TaggedSkelBuilder::default().open(second));
        let tagged = step("load the test's program", load(open));
        for (is_raw, program) in [
            (false, &skeleton.progs.tokenbucket),
            (true, &skeleton.progs.tokenbucket_raw),
        ] {
            let descriptor = program.as_fd().as_raw_fd();
            put(
                &tagged.maps.targets,
                &target(is_raw),
                &descriptor.to_ne_bytes(),
            );
        }
        for net in &setup.exempt {
            put(&skeleton.maps.exempt_nets, &net.map_key(), &[1]);
        }
        let mut rig = Rig {
            skeleton,
            tagged,
            is_wide,
            counts_segments: setup.counts_segments,
        };
        rig.set_now(NOW);
        if setup.counts_segments {
            rig.set_tokens(Tokens::USUAL);
        }
        rig
    }

    pub fn set_now(&mut self, now: u64) {
        there(self.skeleton.maps.bss_data.as_mut()).virtual_now = now;
    }

    /// Puts another rule in, the way that user space does: what is known of flows stays.
    pub fn set_rule(&mut self, write: impl FnOnce(&mut types::rule)) {
        let book = &mut there(self.skeleton.maps.data_data.as_mut()).rulebook;
        let next = book.in_use ^ 1;
        book.rules[next as usize] = book.rules[book.in_use as usize];
        write(&mut book.rules[next as usize]);
        book.in_use = next;
    }

    pub fn set_tokens(&mut self, rule: Tokens) {
        let machine = step("read the machine", machine::Machine::tokenbucket());
        let regeneration = Duration::from_nanos(rule.regeneration);
        let machine = step(
            "set the tokens",
            machine.with_tokens(rule.tokens, regeneration),
        );
        let compiled = step("compile the machine", machine.compile(self.counts_segments));
        self.set_rule(|place| place.xfsm = compiled.figures);
    }

    /// Runs the program that reads the kernel's clocks. Returns its ticks, and the precise one in ns.
    pub fn read_clocks(&self) -> (u64, u64) {
        test_run::by_descriptor(self.skeleton.progs.read_clock.as_fd(), &[0; LEAST], 1);
        let bss = there(self.skeleton.maps.bss_data.as_ref());
        (bss.clock_ticks, bss.clock_ns)
    }

    /// The machine that is in the program.
    pub fn machine(&self) -> &types::machine {
        &there(self.skeleton.maps.rodata_data).machine
    }

    /// The token bucket's state of a flow that has sent something.
    pub fn state_one(&self) -> u8 {
        let machine = self.machine();
        let in_the_window = 0b11;
        machine.rows[number_of_row((machine.initial, in_the_window))].next
    }

    /// Runs a program once on a packet, which has to come out as it went in.
    #[track_caller]
    pub fn run(&self, skb: Skb<'_>) -> i32 {
        let mut context = [0_u32; word::ALL];
        context[word::TARGET] = skb.is_raw.into();
        context[word::GSO_SEGS] = skb.gso_segs;
        context[word::GSO_SIZE] = skb.gso_size;
        let mut frame_in = skb.frame.to_vec();
        if frame_in.len() < LEAST && skb.gso_size == 0 {
            context[word::LENGTH] = frame_in.len() as u32;
            frame_in.resize(LEAST, 0xa5);
        }
        let mut context_in: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut frame_out = vec![0; frame_in.len()];
        let input = ProgramInput {
            data_in: Some(&frame_in),
            data_out: Some(&mut frame_out),
            context_in: Some(&mut context_in),
            ..Default::default()
        };
        let output = step("run a program", self.tagged.progs.tagged.test_run(input));
        assert_eq!(there(output.data), skb.frame, "the program changed {skb:?}");
        output.return_value.cast_signed()
    }

    /// The verdict on a frame with an Ethernet header; as `run`, and quicker. At least 64 bytes.
    pub fn verdict(&self, frame: &[u8]) -> i32 {
        test_run::by_descriptor(self.program(), frame, 1)
    }

    /// Whether a frame passes.
    #[track_caller]
    pub fn passes(&self, frame: &[u8]) -> bool {
        let verdict = self.verdict(frame);
        assert!(matches!(verdict, PASS | DROP), "verdict {verdict}");
        verdict == PASS
    }

    /// The program for interfaces with an Ethernet header, for threads.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.skeleton.progs.tokenbucket.as_fd()
    }

    fn table(&self) -> &Map<'_> {
        match self.is_wide {
            false => &self.skeleton.maps.state_table,
            true => &self.skeleton.maps.wide_state_table,
        }
    }

    /// The place of a flow's cell.
    pub fn index_of(&self, flow: &[u8]) -> Option<u32> {
        let found = step("look up a flow", self.table().lookup(flow, MapFlags::ANY));
        found.map(|index| value(&index))
    }

    pub fn cell_at(&self, index: u32) -> Cell {
        let found = self
            .skeleton
            .maps
            .cells
            .lookup(&index.to_ne_bytes(), MapFlags::ANY);
        Cell::from_bytes(&there(step("look up a cell", found)))
    }

    pub fn set_cell(&self, index: u32, cell: Cell) {
        let value = [cell.word, cell.passed, cell.dropped]
            .map(u64::to_ne_bytes)
            .concat();
        put(&self.skeleton.maps.cells, &index.to_ne_bytes(), &value);
    }

    /// What is known of a flow.
    pub fn cell_of(&self, flow: &[u8]) -> Option<Cell> {
        self.index_of(flow).map(|index| self.cell_at(index))
    }

    /// Every flow, and the place of its cell. Both tables are looked at.
    pub fn flows(&self) -> BTreeMap<Vec<u8>, u32> {
        let maps = &self.skeleton.maps;
        let mut flows = BTreeMap::new();
        for table in [&maps.state_table, &maps.wide_state_table] {
            for key in table.keys() {
                let index = there(step("look up a flow", table.lookup(&key, MapFlags::ANY)));
                flows.insert(key, value(&index));
            }
        }
        flows
    }

    /// Cells that were taken for the first time; more may have been asked for.
    pub fn cells_taken(&self) -> u32 {
        let key = 0_u32.to_ne_bytes();
        let found = self.skeleton.maps.cells_taken.lookup(&key, MapFlags::ANY);
        value(&there(step("count the cells", found)))
    }

    /// Cells that were handed back, the last one first. They stay where they are.
    pub fn free_cells(&self) -> Vec<u32> {
        let map = &self.skeleton.maps.free_cells;
        let mut free = Vec::new();
        while let Some(index) = step("take a cell", map.lookup_and_delete(&[])) {
            free.push(value(&index));
        }
        for index in free.iter().rev() {
            self.free_cell(*index);
        }
        free
    }

    /// Hands a cell back.
    pub fn free_cell(&self, index: u32) {
        put(&self.skeleton.maps.free_cells, &[], &index.to_ne_bytes());
    }

    /// The cells that flows share when there is no room, in their order.
    pub fn overflow_cells(&self) -> Vec<Cell> {
        let map = &self.skeleton.maps.cells;
        let all = map.lookup_batch(OVERFLOW_CELLS, MapFlags::ANY, MapFlags::ANY);
        let shared = step("read the cells", all).take(OVERFLOW_CELLS as usize);
        shared.map(|(_, cell)| Cell::from_bytes(&cell)).collect()
    }

    /// Takes a cell back from its flow, which stays in the table. Returns its place.
    #[track_caller]
    pub fn take_back(&self, flow: &[u8]) -> u32 {
        let index = there(self.index_of(flow));
        self.set_cell(index, Cell::default());
        index
    }

    /// Removes a flow. Its cell is not handed back.
    #[track_caller]
    pub fn remove(&self, flow: &[u8]) -> u32 {
        let index = self.take_back(flow);
        step("forget a flow", self.table().delete(flow));
        index
    }

    /// As user space forgets a flow: its cell says that it is nobody's, the entry goes, then another
    /// flow may have the cell; but not in this tick, in which some CPU may still know it as the flow's.
    #[track_caller]
    pub fn forget(&self, flow: &[u8]) {
        let index = self.remove(flow);
        wait_for_another_tick();
        self.free_cell(index);
    }

    fn events(&self) -> [u64; EVENTS] {
        let key = 0_u32.to_ne_bytes();
        let each = self.skeleton.maps.events.lookup_percpu(&key, MapFlags::ANY);
        let mut sum = [0; EVENTS];
        for events in there(step("read the events", each)) {
            for (sum, count) in sum.iter_mut().zip(numbers(&value::<events>(&events))) {
                *sum += count;
            }
        }
        sum
    }

    /// Everything that was counted since the last time that somebody asked.
    pub fn take_events(&self) -> events {
        let sum: Vec<u8> = self
            .events()
            .iter()
            .flat_map(|count| count.to_ne_bytes())
            .collect();
        let key = 0_u32.to_ne_bytes();
        let cpus = step("count the CPUs", libbpf_rs::num_possible_cpus());
        let zeros = vec![vec![0; size_of::<events>()]; cpus];
        let map = &self.skeleton.maps.events;
        step(
            "clear the events",
            map.update_percpu(&key, &zeros, MapFlags::ANY),
        );
        value(&sum)
    }

    /// Exactly this has happened since the last time that somebody asked.
    #[track_caller]
    pub fn assert_events(&self, expected: events) {
        let happened = self.take_events();
        let same = numbers(&happened) == numbers(&expected);
        assert!(same, "{happened:?}, expected {expected:?}");
    }
}

/// What CPUs remember they remember for one tick of the kernel's clock; at most 10 ms (HZ=100).
pub fn wait_for_another_tick() {
    std::thread::sleep(Duration::from_millis(11));
}

/// The key of a source, or of any address that counts alone: the whole of IPv4, /64 of IPv6.
pub fn flow(ip: impl Into<IpAddr>) -> Vec<u8> {
    let ip = ip.into();
    let [a, b, c, d, e, f, g, h, ..] = padded(ip);
    [&ether_type(ip)[..], &[0, 0, a, b, c, d, e, f, g, h]].concat()
}

/// Such a key in the table of long ones: addresses as they are, the peer and the ports of a 5-tuple.
pub fn wide_flow(ip: IpAddr, protocol: u8, peer: Option<IpAddr>, ports: [u16; 2]) -> Vec<u8> {
    let ports = ports.map(u16::to_be_bytes).concat();
    let peer = peer.map_or([0; 16], padded);
    [
        &ether_type(ip)[..],
        &[protocol, 0],
        &padded(ip),
        &peer,
        &ports,
    ]
    .concat()
}

fn ether_type(ip: IpAddr) -> [u8; 2] {
    match ip {
        IpAddr::V4(_) => [0x08, 0x00],
        IpAddr::V6(_) => [0x86, 0xdd],
    }
}

fn padded(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// In the byte order of the network, as packets have their addresses.
fn mask4(prefix: u32) -> u32 {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    u32::from_ne_bytes(Ipv4Addr::from(mask).octets())
}

fn mask6(prefix: u32) -> [u32; 4] {
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    let octets = Ipv6Addr::from(mask).octets();
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*octets);
    }
    words
}

fn target(is_raw: bool) -> [u8; 4] {
    u32::from(is_raw).to_ne_bytes()
}

const EVENTS: usize = size_of::<events>() / size_of::<u64>();

/// All of them are counters of 64 bits.
fn numbers(events: &events) -> [u64; EVENTS] {
    let mut numbers = [0; EVENTS];
    for (number, word) in numbers.iter_mut().zip(bytes(events).as_chunks().0) {
        *number = u64::from_ne_bytes(*word);
    }
    numbers
}

/// What the skeletons or a map have always.
#[track_caller]
pub fn there<T>(option: Option<T>) -> T {
    option.unwrap_or_else(|| panic!("a map, its key or a part of the rig is missing"))
}

fn put(map: &Map<'_>, key: &[u8], value: &[u8]) {
    step("write a map", map.update(key, value, MapFlags::ANY));
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
