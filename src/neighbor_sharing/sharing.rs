//! The programs of neighbor_sharing in the kernel: loaded, attached, read, tended.

use std::collections::HashMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use serde::Serialize;

use super::config::{Config, Placement, PoliceAt};
use super::skeleton::types;
use super::skeleton::{NeighborSharingSkel, NeighborSharingSkelBuilder, OpenNeighborSharingSkel};
use super::table::{FIRST_SLOT, Learned, Table};
use super::{Class, Counter, PerWay, Way};
use crate::load::{load, open, run_once};
use crate::map_value;
use crate::options::Attaching;
use crate::policer::{Clock, Limit, Tick};
use crate::tc::{Attachment, Method};
use crate::tick::TickClock;

/// The loaded programs and their maps; the programs are attached as long as this lives.
pub struct Sharing<'obj> {
    // Attachments go before the programs and maps that they use.
    attachments: Vec<Attachment>,
    skeleton: NeighborSharingSkel<'obj>,
    config: Config,
    pub(super) clock: TickClock,
    pub(super) forgotten: Forgotten,
    /// Addresses that have long been silent, and what was sent to them since when.
    watched: HashMap<IpAddr, Watched>,
    were_full: bool,
}

/// Someone who only listens is not gone.
#[derive(Clone, Copy, Debug)]
struct Watched {
    downloads: u64,
    unchanged_since: Instant,
}

/// What the user should hear of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A neighbor's share of the table is used up; what unknown addresses count as from now on.
    Full(Class),
    /// There is room again.
    Room,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Notice::Full(Class::Neighbor) => {
                "a neighbor's share of the address table is used up: unknown addresses count as \
                 neighbors' until there is room"
            }
            Notice::Full(Class::Rest) => {
                "WARNING: a neighbor's share of the address table is used up and no LAN port is \
                 known: unknown addresses, a neighbor's too, count as the rest; name the LAN's \
                 ports (--lan) or the neighbors' networks (--neighbor-net)"
            }
            Notice::Room => "the neighbors' shares of the address table have room again",
        })
    }
}

/// What was counted for addresses that are forgotten since.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Forgotten {
    /// How many addresses.
    pub addresses: u64,
    /// What was counted for them.
    pub counts: PerWay<Counter>,
}

impl<'obj> Sharing<'obj> {
    /// Loads the programs that `config` needs. Nothing is attached yet.
    pub fn load(
        config: Config,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Sharing<'obj>> {
        let tick = Tick::of_this_kernel().context("read the length of the kernel's tick")?;
        let mut open = open(NeighborSharingSkelBuilder::default(), object)?;
        size_maps(&mut open, &config)?;
        set_knobs(&mut open, &config, tick)?;
        let placements = config.placements();
        for mut program in open.open_object_mut().progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            let wanted = placements.iter().any(|placement| placement.program == name);
            program.set_autoload(wanted || name == "read_clock");
        }
        let skeleton = load(open).context("load the BPF programs")?;
        let clock = read_clock(&skeleton, tick)?;
        let forgotten = Forgotten::default();
        let sharing = Sharing {
            attachments: Vec::new(),
            skeleton,
            config,
            clock,
            forgotten,
            watched: HashMap::new(),
            were_full: false,
        };
        sharing.fill_maps().context("fill the maps")?;
        Ok(sharing)
    }

    fn fill_maps(&self) -> Result<()> {
        let maps = &self.skeleton.maps;
        let quota = self.config.quota();
        for (index, (port, class)) in (0..).zip(self.config.ports()) {
            let row = types::port {
                index,
                class: class.in_bpf(),
                quota,
            };
            let key = port.ifindex.to_ne_bytes();
            maps.ports
                .update(&key, map_value::bytes(&row), MapFlags::ANY)?;
        }
        for (ifindex, class) in &self.config.ports.uppers {
            // Nothing is learned there: only the class is asked for.
            let row = types::port {
                class: class.in_bpf(),
                ..Default::default()
            };
            let key = ifindex.to_ne_bytes();
            maps.ports
                .update(&key, map_value::bytes(&row), MapFlags::ANY)?;
        }
        for ((class, way), (_, limit)) in &self.config.limits {
            let Limit { cost, burst } = *limit;
            let bucket = types::bucket {
                cost,
                burst,
                ..Default::default()
            };
            maps.buckets.update(
                &row_of(*class, *way),
                map_value::bytes(&bucket),
                MapFlags::ANY,
            )?;
        }
        let exempt = (&maps.exempt_nets, &self.config.exempt);
        let neighbors = (&maps.neighbor_nets, &self.config.neighbor_nets);
        for (map, nets) in [exempt, neighbors] {
            for net in nets {
                map.update(&net.map_key(), &[1], MapFlags::ANY)?;
            }
        }
        self.table().fill_slots(self.config.max_entries)
    }

    /// Attaches the programs, the ports' before the WAN's: an address is learned before the first
    /// packet to it is judged.
    pub fn attach(&mut self, attaching: &Attaching) -> Result<Method> {
        let attacher = attaching.attacher(self.skeleton.progs.read_clock.as_fd())?;
        let mut attachments = Vec::new();
        for Placement {
            program,
            port,
            direction,
        } in self.config.placements()
        {
            let attachment = attacher
                .attach(
                    self.program(&program)?,
                    &label_of(&program),
                    port.ifindex,
                    direction,
                )
                .with_context(|| format!("attach {program} to {} {direction}", port.name))?;
            attachments.push(attachment);
        }
        attaching.ensure_met(&attacher)?;
        self.attachments = attachments;
        Ok(attacher.method())
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let programs = &self.skeleton.progs;
        let program = match name {
            "classify_neighbor" => &programs.classify_neighbor,
            "classify_neighbor_raw" => &programs.classify_neighbor_raw,
            "classify_lan" => &programs.classify_lan,
            "classify_lan_raw" => &programs.classify_lan_raw,
            "classify_wan" => &programs.classify_wan,
            "classify_wan_raw" => &programs.classify_wan_raw,
            "police_upload" => &programs.police_upload,
            "police_upload_raw" => &programs.police_upload_raw,
            "deliver_neighbor" => &programs.deliver_neighbor,
            "deliver_neighbor_raw" => &programs.deliver_neighbor_raw,
            "deliver_lan" => &programs.deliver_lan,
            "deliver_lan_raw" => &programs.deliver_lan_raw,
            _ => bail!("there is no program {name}"),
        };
        Ok(program.as_fd())
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes the programs off again. Counters can still be read.
    pub fn detach(&mut self) {
        self.attachments.clear();
    }

    /// To be called about once a second: forgets addresses whose owner has been silent for long, and
    /// lets unknown addresses be the rest's again when neighbors' tables have room.
    pub fn tend(&mut self) -> Result<Option<Notice>> {
        let rows: HashMap<u32, u32> = (0..)
            .zip(self.config.ports())
            .map(|(row, (port, _))| (port.ifindex, row))
            .collect();
        let before = self.port_uses()?;
        let addresses = self.table().addresses()?;
        let gone = self.gone(&addresses)?;
        for learned in &gone {
            if let Some((owner, counts)) = self.table().forget(learned)? {
                self.forgotten.addresses += 1;
                self.forgotten.counts += counts;
                if let Some(row) = rows.get(&owner) {
                    self.table().give_back(*row)?;
                }
            }
        }
        // Nothing was learned or moved while we listed, so the list is the truth.
        if gone.is_empty() && before == self.port_uses()? {
            for (ifindex, row) in &rows {
                let owned = addresses.iter().filter(|learned| learned.port == *ifindex);
                self.table().set_owned(*row, owned.count() as u64)?;
            }
        }
        self.note_room()
    }

    fn port_uses(&self) -> Result<Vec<(u64, u64)>> {
        let table = self.table();
        let rows = 0..self.config.ports().count() as u32;
        rows.map(|row| table.port_use(row)).collect()
    }

    /// Who has neither sent nor been sent anything for long.
    fn gone(&mut self, addresses: &[Learned]) -> Result<Vec<Learned>> {
        let now = Instant::now();
        let half = self.config.forget_after / 2;
        let mut watched = HashMap::new();
        let mut gone = Vec::new();
        for learned in addresses {
            let silence = self.clock.since(learned.seen);
            if silence < half {
                continue;
            }
            let Counter {
                packets,
                dropped_packets,
                ..
            } = self.table().counts(learned)?.download;
            let seen = Watched {
                downloads: packets + dropped_packets,
                unchanged_since: now,
            };
            let known = self.watched.get(&learned.ip).copied();
            let known = known.filter(|known| known.downloads == seen.downloads);
            let watch = known.unwrap_or(seen);
            if silence >= self.config.forget_after && now - watch.unchanged_since >= half {
                gone.push(*learned);
            } else {
                watched.insert(learned.ip, watch);
            }
        }
        self.watched = watched;
        Ok(gone)
    }

    fn note_room(&mut self) -> Result<Option<Notice>> {
        let mut room = true;
        for row in (0..).take(self.config.ports.neighbors.len()) {
            // Under 90 %, so that the table does not go back and forth at its limit.
            room &= self.table().owned_by(row)? * 10 < u64::from(self.config.quota()) * 9;
        }
        if room && let Some(bss) = &mut self.skeleton.maps.bss_data {
            // SAFETY: a u32 of the BPF programs' globals, mapped as long as the skeleton lives; the
            // programs write it too, hence volatile.
            unsafe { (&raw mut bss.neighbors_are_full).write_volatile(0) };
        }
        let full = self.neighbors_are_full();
        let notice = match (std::mem::replace(&mut self.were_full, full), full) {
            (false, true) => Some(Notice::Full(self.unknown_counts_as())),
            (true, false) => Some(Notice::Room),
            _ => None,
        };
        Ok(notice)
    }

    /// What a download to an address that nobody owns is charged to.
    pub fn unknown_counts_as(&self) -> Class {
        if self.neighbors_are_full() && !self.config.ports.lan.is_empty() {
            Class::Neighbor
        } else {
            Class::Rest
        }
    }

    fn neighbors_are_full(&self) -> bool {
        self.skeleton.maps.bss_data.as_ref().is_some_and(|bss| {
            // SAFETY: as in `note_room`.
            unsafe { (&raw const bss.neighbors_are_full).read_volatile() != 0 }
        })
    }

    pub(super) fn table(&self) -> Table<'_> {
        let maps = &self.skeleton.maps;
        Table {
            learned4: &maps.learned_ips,
            learned6: &maps.learned_ips6,
            free_slots: &maps.free_slots,
            address_counts: &maps.address_counts,
            port_use: &maps.port_use,
            port_forgotten: &maps.port_forgotten,
        }
    }

    pub(super) fn meter(&self, class: Class, way: Way) -> Result<Counter> {
        let meters = &self.skeleton.maps.meters;
        let values = meters.lookup_percpu(&row_of(class, way), MapFlags::ANY)?;
        let mut sum = Counter::default();
        for meter in map_value::read_each::<types::meter>(&values.context("no such meter")?)? {
            sum += Counter::from(meter);
        }
        Ok(sum)
    }

    pub(super) fn events(&self) -> Result<Vec<types::events>> {
        let key = 0_u32.to_ne_bytes();
        let values = self
            .skeleton
            .maps
            .events
            .lookup_percpu(&key, MapFlags::ANY)?;
        map_value::read_each(&values.context("the events are in the map")?)
    }
}

/// What tells the tool's programs from all others where they are filters.
pub fn labels() -> Vec<String> {
    let stems = [
        "classify_neighbor",
        "classify_lan",
        "classify_wan",
        "police_upload",
        "deliver_neighbor",
        "deliver_lan",
    ];
    let twins = |stem: &str| [label_of(stem), label_of(&format!("{stem}_raw"))];
    stems.into_iter().flat_map(twins).collect()
}

/// What tells a program of ours from all others where it is a filter.
pub(super) fn label_of(program: &str) -> String {
    format!("neighbor_sharing/{program}")
}

/// The key of buckets and meters: `class + CLASSES * direction` in the BPF program.
fn row_of(class: Class, way: Way) -> [u8; 4] {
    (class as u32 + Class::ALL.len() as u32 * way as u32).to_ne_bytes()
}

fn size_maps(open: &mut OpenNeighborSharingSkel<'_>, config: &Config) -> Result<()> {
    let maps = &mut open.maps;
    maps.learned_ips.set_max_entries(config.max_entries)?;
    maps.learned_ips6.set_max_entries(config.max_entries)?;
    maps.free_slots.set_max_entries(config.max_entries)?;
    maps.address_counts
        .set_max_entries(config.max_entries + FIRST_SLOT)?;
    Ok(())
}

fn set_knobs(open: &mut OpenNeighborSharingSkel<'_>, config: &Config, tick: Tick) -> Result<()> {
    let knobs = open
        .maps
        .rodata_data
        .as_mut()
        .context("the object has no .rodata")?;
    let limits = config.limits.values().map(|(_, limit)| limit);
    knobs.units_per_tick = Clock::for_limits(limits, tick).units_per_tick(tick);
    knobs.forget_ticks = tick.count_in(config.forget_after);
    knobs.only_across_wan = config.police_at == PoliceAt::Lan;
    for (side, ifindex) in knobs.wan_sides.iter_mut().zip(&config.ports.wan_sides) {
        *side = *ifindex;
    }
    knobs.lan_is_known = !config.ports.lan.is_empty();
    knobs.dry_run = config.dry_run;
    knobs.have_exempt_nets = !config.exempt.is_empty();
    knobs.have_neighbor_nets = !config.neighbor_nets.is_empty();
    Ok(())
}

/// Which tick is now? Asked once: from here on the monotonic clock tells.
fn read_clock(skeleton: &NeighborSharingSkel<'_>, tick: Tick) -> Result<TickClock> {
    run_once(&skeleton.progs.read_clock).context("run read_clock")?;
    let bss = skeleton
        .maps
        .bss_data
        .as_ref()
        .context("the object has no .bss")?;
    // SAFETY: a u64 of the BPF programs' globals, mapped as long as the skeleton lives.
    let ticks = unsafe { (&raw const bss.ticks_now).read_volatile() };
    Ok(TickClock::starting(tick, ticks))
}
