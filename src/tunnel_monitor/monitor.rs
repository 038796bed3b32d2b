//! The programs of tunnel_monitor in the kernel: loaded, attached, read. Flows and figures are read from
//! the maps' memory, without system calls and while programs count.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use libbpf_rs::{MapCore, MapFlags, OpenObject};

use super::flow::{Counts, Encap, Flow, Inner, Outer};
use super::sample::{Tally, Uncounted};
use super::sampler::Source;
use super::skeleton::types;
use super::skeleton::{OpenTunnelMonitorSkel, TunnelMonitorSkel, TunnelMonitorSkelBuilder};
use crate::Failure;
use crate::grace;
use crate::load::{load, open};
use crate::mapped::{Mapped, Shared};
use crate::notation::grouped;
use crate::options::Attaching;
use crate::port::Port;
use crate::tc::{Attacher, Attachment, Direction, Method};

/// Flows that there can be room for.
pub const MOST_FLOWS: u32 = 1 << 20;
/// UDP ports that VXLAN is expected at.
pub const MOST_VXLAN_PORTS: usize = 8;

/// What stays as it is from loading on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// UDP destination ports of VXLAN, [`MOST_VXLAN_PORTS`] at most. (Geneve has its own, 6081.)
    pub ports: Vec<u16>,
    /// GRE packets that may be NVGRE are; else their key is a number of 32 bits.
    pub nvgre: bool,
    /// Tunnel packets to all or to many are counted as flows, too.
    pub multicast: bool,
    /// Flows that there is room for, of all kinds together; [`MOST_FLOWS`] at most.
    pub max_entries: u32,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            ports: vec![4789],
            nvgre: false,
            multicast: false,
            max_entries: 65_536,
        }
    }
}

/// `struct row` of the BPF program.
#[repr(C)]
#[derive(Debug)]
struct SharedRow {
    state: AtomicU32,
    pad: AtomicU32,
    key: [AtomicU64; WIDE_WORDS],
}

const WIDE_WORDS: usize = size_of::<types::wide_key>() / 8;
const SMALL_WORDS: usize = size_of::<types::small_key>() / 8;

const IS_FREE: u32 = types::state::IS_FREE.0;
const IS_IN_USE: u32 = types::state::IS_IN_USE.0;
const IS_LEAVING: u32 = types::state::IS_LEAVING.0;

const _: () = assert!(size_of::<SharedRow>() == size_of::<types::row>());
// SAFETY: atomic integers only, laid out as the BPF program has them, without padding.
unsafe impl Shared for SharedRow {}

/// `struct counts` of the BPF program.
#[repr(C)]
#[derive(Debug)]
struct SharedCounts {
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
}

const _: () = assert!(size_of::<SharedCounts>() == size_of::<types::counts>());
// SAFETY: as above.
unsafe impl Shared for SharedCounts {}

/// `struct tally` of the BPF program.
#[repr(C)]
#[derive(Debug)]
struct SharedTally {
    totals: SharedCounts,
    other: SharedCounts,
    fragments: AtomicU64,
    multicast: AtomicU64,
    malformed: AtomicU64,
    not_tunnel: AtomicU64,
    table_errors: AtomicU64,
    pad: [AtomicU64; 3],
}

const _: () = assert!(size_of::<SharedTally>() == size_of::<types::tally>());
// SAFETY: as above.
unsafe impl Shared for SharedTally {}

impl SharedCounts {
    fn read(&self) -> Counts {
        Counts {
            tx_pkts: self.tx_packets.load(Ordering::Relaxed),
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            rx_pkts: self.rx_packets.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
        }
    }

    fn clear(&self) {
        for figure in [
            &self.tx_packets,
            &self.tx_bytes,
            &self.rx_packets,
            &self.rx_bytes,
        ] {
            figure.store(0, Ordering::Relaxed);
        }
    }
}

/// Our programs at both sides of an interface.
struct Attached {
    _sides: [Attachment; 2],
}

/// The loaded programs and their maps; the programs are attached as long as this lives.
pub struct Monitor<'obj> {
    // Attachments go before the programs and maps that they use.
    attached: BTreeMap<u32, Attached>,
    attacher: Option<Attacher>,
    rows: Mapped<SharedRow>,
    counters: Mapped<SharedCounts>,
    tallies: Mapped<SharedTally>,
    skeleton: TunnelMonitorSkel<'obj>,
    max_entries: u32,
    cpus: u32,
}

impl<'obj> Monitor<'obj> {
    /// Loads the programs. Nothing is attached yet.
    pub fn load(setup: &Setup, object: &'obj mut MaybeUninit<OpenObject>) -> Result<Monitor<'obj>> {
        setup.check()?;
        let cpus = possible_cpus()?;
        let mut open = open(TunnelMonitorSkelBuilder::default(), object)?;
        size_maps(&mut open, setup.max_entries, cpus)?;
        set_knobs(&mut open, setup)?;
        let skeleton = load(open).context("load the BPF programs")?;
        Ok(Monitor {
            attached: BTreeMap::new(),
            attacher: None,
            rows: Mapped::open(&skeleton.maps.rows)?,
            counters: Mapped::open(&skeleton.maps.counters)?,
            tallies: Mapped::open(&skeleton.maps.tallies)?,
            skeleton,
            max_entries: setup.max_entries,
            cpus,
        })
    }

    /// Bytes of kernel memory that [`Monitor::load`] takes, all of it at once.
    pub fn kernel_memory(setup: &Setup) -> Result<u64> {
        setup.check()?;
        let (flows, cpus) = (u64::from(setup.max_entries), u64::from(possible_cpus()?));
        Ok(hash_memory(size_of::<types::small_key>(), flows, cpus)
            + hash_memory(size_of::<types::wide_key>(), flows, cpus)
            + array_memory(size_of::<types::row>(), flows)
            + array_memory(size_of::<types::counts>(), flows * cpus)
            + array_memory(size_of::<types::tally>(), cpus)
            + array_memory(size_of::<u64>(), hints_for(setup.max_entries).into())
            + array_memory(size_of::<u32>(), flows + 1))
    }

    /// The maps and programs as they are, for tests and benchmarks.
    #[doc(hidden)]
    pub fn skeleton(&self) -> &TunnelMonitorSkel<'obj> {
        &self.skeleton
    }

    /// Attaches to both sides of these interfaces.
    pub fn attach(&mut self, attaching: &Attaching, ports: &[Port]) -> Result<Method> {
        let attacher = attaching.attacher(self.skeleton.progs.handle_ingress.as_fd())?;
        let attacher = self.attacher.insert(attacher);
        let method = attacher.method();
        for port in ports {
            self.add(port)?;
        }
        if let Some(attacher) = &self.attacher {
            attaching.ensure_met(attacher)?;
        }
        Ok(method)
    }

    /// Attaches to an interface that has appeared since. By TCX links this takes no capability.
    pub fn add(&mut self, port: &Port) -> Result<()> {
        // A filter of ours would be replaced by the same one, which the first one's end would remove.
        self.remove(port.ifindex);
        let _sides = [
            self.attach_one(HANDLE_INGRESS, port, Direction::Ingress)?,
            self.attach_one(HANDLE_EGRESS, port, Direction::Egress)?,
        ];
        self.attached.insert(port.ifindex, Attached { _sides });
        Ok(())
    }

    /// Takes the programs off an interface, or forgets one that is gone. What was counted stays.
    pub fn remove(&mut self, ifindex: u32) {
        self.attached.remove(&ifindex);
    }

    /// Takes the programs off all interfaces. What was counted can still be read.
    pub fn detach(&mut self) {
        self.attached.clear();
    }

    fn attach_one(&self, name: &str, port: &Port, direction: Direction) -> Result<Attachment> {
        let attacher = self.attacher.as_ref().context("attach() comes first")?;
        let program = self.program(&port.program(name))?;
        attacher
            .attach(program, &label_of(name), port.ifindex, direction)
            .with_context(|| format!("attach {name} to {} {direction}", port.name))
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let programs = &self.skeleton.progs;
        Ok(match name {
            HANDLE_INGRESS => programs.handle_ingress.as_fd(),
            HANDLE_EGRESS => programs.handle_egress.as_fd(),
            "handle_ingress_raw" => programs.handle_ingress_raw.as_fd(),
            "handle_egress_raw" => programs.handle_egress_raw.as_fd(),
            _ => anyhow::bail!("there is no program {name}"),
        })
    }

    /// Flows that there is room for.
    pub fn capacity(&self) -> u32 {
        self.max_entries
    }

    /// Slots that were ever in use: those from here on have been nobody's.
    pub fn slots_used(&self) -> u32 {
        let Some(bss) = self.skeleton.maps.bss_data.as_ref() else {
            return self.max_entries;
        };
        let next = (&raw const bss.next_slot).cast_mut();
        // SAFETY: a u32 of the BPF programs' globals, aligned, mapped as long as the skeleton lives; they
        // change it at any time, hence atomic. It is only read here.
        let next = unsafe { AtomicU32::from_ptr(next) };
        next.load(Ordering::Acquire).min(self.max_entries)
    }

    /// Whose slot it is; none: nobody's, or one's that was taken out.
    pub fn flow(&self, slot: u32) -> Option<Flow> {
        let row = self.rows.get(slot)?;
        if row.state.load(Ordering::Acquire) != IS_IN_USE {
            return None;
        }
        decode(&row.words())
    }

    /// What was counted in a slot, all CPUs together. Of one slot no figure ever goes back, until it is
    /// given back.
    pub fn counts(&self, slot: u32) -> Counts {
        self.of_slot(slot).map(SharedCounts::read).sum()
    }

    /// The figures of a slot, for each CPU.
    fn of_slot(&self, slot: u32) -> impl Iterator<Item = &SharedCounts> {
        let places = (0..self.cpus).map(move |cpu| cpu * self.max_entries + slot);
        places.filter_map(|place| self.counters.get(place))
    }

    /// What was counted apart from flows.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for of_cpu in (0..self.cpus).filter_map(|cpu| self.tallies.get(cpu)) {
            let Uncounted {
                fragments,
                multicast,
                malformed,
                not_tunnel,
                table_errors,
            } = &mut sum.uncounted;
            sum.totals += of_cpu.totals.read();
            sum.other += of_cpu.other.read();
            *fragments += of_cpu.fragments.load(Ordering::Relaxed);
            *multicast += of_cpu.multicast.load(Ordering::Relaxed);
            *malformed += of_cpu.malformed.load(Ordering::Relaxed);
            *not_tunnel += of_cpu.not_tunnel.load(Ordering::Relaxed);
            *table_errors += of_cpu.table_errors.load(Ordering::Relaxed);
        }
        sum
    }

    /// Takes the flows in these slots out, each named once. Their figures are final then; one that comes
    /// back gets another slot, until these are given back.
    pub fn take_out(&self, slots: &[u32]) -> Result<Vec<Counts>> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let (mut small, mut wide) = (Vec::new(), Vec::new());
        for slot in slots {
            let row = self.row(*slot, IS_IN_USE)?;
            let words = row.words();
            let (keys, count) = match is_small(&words) {
                true => (&mut small, SMALL_WORDS),
                false => (&mut wide, WIDE_WORDS),
            };
            keys.extend(words.iter().take(count).flat_map(|word| word.to_ne_bytes()));
        }
        let maps = &self.skeleton.maps;
        delete(&maps.flows4, &small)?;
        delete(&maps.flows6, &wide)?;
        // Only now: a program that finds the slot leaving has to find the flow's place in the map free.
        for slot in slots {
            let row = self.row(*slot, IS_IN_USE)?;
            row.state.store(IS_LEAVING, Ordering::Release);
        }
        grace::wait_for_programs(&maps.grace, &maps.grace_periods)?;
        Ok(slots.iter().map(|slot| self.counts(*slot)).collect())
    }

    /// These slots were taken out, and may be other flows' from now on. Their figures are 0 again.
    pub fn give_back(&self, slots: &[u32]) -> Result<()> {
        for slot in slots {
            let row = self.row(*slot, IS_LEAVING)?;
            self.of_slot(*slot).for_each(SharedCounts::clear);
            for word in &row.key {
                word.store(0, Ordering::Relaxed);
            }
            row.state.store(IS_FREE, Ordering::Release);
            let free = &self.skeleton.maps.free_slots;
            free.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
                .context("give a slot back")?;
        }
        Ok(())
    }

    fn row(&self, slot: u32, state: u32) -> Result<&SharedRow> {
        let row = self.rows.get(slot).context("a slot that there is not")?;
        let is = row.state.load(Ordering::Acquire);
        ensure!(is == state, "slot {slot} is in state {is}, not {state}");
        Ok(row)
    }
}

impl Source for Monitor<'_> {
    fn slots_used(&self) -> u32 {
        self.slots_used()
    }

    fn flow(&self, slot: u32) -> Option<Flow> {
        self.flow(slot)
    }

    fn counts(&self, slot: u32) -> Counts {
        self.counts(slot)
    }

    fn take_out(&mut self, slots: &[u32]) -> Result<Vec<Counts>> {
        Monitor::take_out(self, slots)
    }

    fn give_back(&mut self, slots: &[u32]) -> Result<()> {
        Monitor::give_back(self, slots)
    }

    fn tally(&self) -> Tally {
        self.tally()
    }
}

impl Setup {
    /// What is about to be taken.
    pub fn room(&self) -> Result<String> {
        let memory = Monitor::kernel_memory(self)?.div_ceil(1 << 20);
        let flows = grouped(self.max_entries.into());
        Ok(format!(
            "Taking {memory} MiB of kernel memory for a table of {flows} flows"
        ))
    }

    fn check(&self) -> Result<()> {
        let Setup {
            ports, max_entries, ..
        } = self;
        if ports.len() > MOST_VXLAN_PORTS {
            let count = ports.len();
            return Err(Failure::Usage(format!(
                "{count} VXLAN ports are more than {MOST_VXLAN_PORTS}"
            ))
            .into());
        }
        if !(1..=MOST_FLOWS).contains(max_entries) {
            return Err(Failure::Usage(format!(
                "--max-entries is 1 to {MOST_FLOWS}, not {max_entries}"
            ))
            .into());
        }
        Ok(())
    }
}

impl SharedRow {
    fn words(&self) -> [u64; WIDE_WORDS] {
        self.key.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

const HANDLE_INGRESS: &str = "handle_ingress";
const HANDLE_EGRESS: &str = "handle_egress";

/// What tells the tool's programs from all others where they are filters.
pub fn labels() -> Vec<String> {
    [HANDLE_INGRESS, HANDLE_EGRESS].map(label_of).to_vec()
}

fn label_of(program: &str) -> String {
    format!("tunnel_monitor/{program}")
}

/// Removes keys, all of which are there.
fn delete(map: &impl MapCore, keys: &[u8]) -> Result<()> {
    let count = (keys.len() / map.key_size() as usize) as u32;
    if count == 0 {
        return Ok(());
    }
    map.delete_batch(keys, count, MapFlags::ANY, MapFlags::ANY)
        .with_context(|| format!("take {count} flows out of {:?}", map.name()))
}

/// Versions of IP, outside and inside; 0: not IP.
fn versions(kind: u64) -> [u8; 2] {
    [(kind >> 40) as u8, (kind >> 48) as u8]
}

fn is_small(words: &[u64; WIDE_WORDS]) -> bool {
    let [outer, inner] = versions(words[0]);
    outer == 4 && inner != 6
}

/// `struct small_key` or `struct wide_key`.
fn decode(words: &[u64; WIDE_WORDS]) -> Option<Flow> {
    let [kind, a, b, c, d, e, f, g, h] = *words;
    let encap = *Encap::ALL.get(usize::from((kind >> 32) as u8))?;
    let ([outer4, inner4], outer6, inner6) = match is_small(words) {
        true => ([[a, a >> 32], [b, b >> 32]], [0; 4], [0; 4]),
        false => ([[a, c], [e, g]], [a, b, c, d], [e, f, g, h]),
    };
    let [outer, inner] = versions(kind);
    let outer = match outer {
        4 => {
            let [local, remote] = outer4.map(ipv4);
            Outer::V4 { local, remote }
        }
        6 => Outer::V6(Box::new(ipv6_pair(outer6))),
        _ => return None,
    };
    let inner = match inner {
        0 => Inner::NotIp,
        4 => {
            let [local, remote] = inner4.map(ipv4);
            Inner::V4 { local, remote }
        }
        6 => Inner::V6(Box::new(ipv6_pair(inner6))),
        _ => return None,
    };
    Some(Flow {
        encap,
        vni: kind as u32,
        outer,
        inner,
    })
}

/// From the low half of a word, in network byte order.
fn ipv4(word: u64) -> Ipv4Addr {
    (word as u32).to_ne_bytes().into()
}

fn ipv6_pair([a, b, c, d]: [u64; 4]) -> [Ipv6Addr; 2] {
    [[a, b], [c, d]].map(|[first, last]| {
        let mut bytes = [0; 16];
        let halves = [first, first >> 32, last, last >> 32];
        for (place, half) in bytes.chunks_exact_mut(4).zip(halves) {
            place.copy_from_slice(&(half as u32).to_ne_bytes());
        }
        bytes.into()
    })
}

/// One more than the highest number of a CPU that there can be.
fn possible_cpus() -> Result<u32> {
    let path = "/sys/devices/system/cpu/possible";
    let ranges = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let highest = ranges.trim().rsplit([',', '-']).next().unwrap_or_default();
    let highest: u32 = highest
        .parse()
        .with_context(|| format!("{path} says {ranges:?}"))?;
    Ok(highest + 1)
}

/// Two for each flow, so that most have one of their own.
fn hints_for(max_entries: u32) -> u32 {
    max_entries.next_power_of_two() * 2
}

/// A preallocated hash map: an element is a header of 48 bytes, key and value, and each CPU has one to
/// spare; buckets have 16 bytes.
fn hash_memory(key: usize, entries: u64, cpus: u64) -> u64 {
    let element = 48 + key.next_multiple_of(8) as u64 + 8;
    (entries + cpus) * element + entries.next_power_of_two() * 16
}

fn array_memory(value: usize, entries: u64) -> u64 {
    value.next_multiple_of(8) as u64 * entries
}

fn size_maps(open: &mut OpenTunnelMonitorSkel<'_>, max_entries: u32, cpus: u32) -> Result<()> {
    let maps = &mut open.maps;
    maps.flows4.set_max_entries(max_entries)?;
    maps.flows6.set_max_entries(max_entries)?;
    maps.rows.set_max_entries(max_entries)?;
    maps.free_slots.set_max_entries(max_entries)?;
    maps.hints.set_max_entries(hints_for(max_entries))?;
    let counters = max_entries.checked_mul(cpus);
    let counters = counters.with_context(|| {
        format!("{max_entries} flows on {cpus} CPUs are too many; lower --max-entries")
    })?;
    maps.counters.set_max_entries(counters)?;
    maps.tallies.set_max_entries(cpus)?;
    Ok(())
}

fn set_knobs(open: &mut OpenTunnelMonitorSkel<'_>, setup: &Setup) -> Result<()> {
    let rodata = open.maps.rodata_data.as_mut();
    let knobs = &mut rodata.context("the object has no .rodata")?.knobs;
    knobs.max_entries = setup.max_entries;
    knobs.hint_shift = 64 - hints_for(setup.max_entries).ilog2();
    knobs.vxlan_ports = setup.ports.len() as u32;
    for (knob, port) in knobs.vxlan_port.iter_mut().zip(&setup.ports) {
        *knob = port.to_be();
    }
    knobs.is_nvgre_known = setup.nvgre.into();
    knobs.is_multicast_counted = setup.multicast.into();
    Ok(())
}
