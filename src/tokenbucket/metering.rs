//! The program of tokenbucket in the kernel: loaded, attached, tended.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};

use super::attached::Attached;
use super::config::Config;
use super::key::By;
use super::label::{self, STEM};
use super::maps::{Maps, OVERFLOW_CELLS};
use super::pins::Pins;
use super::reason::Reasons;
use super::rule::Rule;
use super::skeleton::{OpenTokenbucketSkel, TokenbucketSkel, TokenbucketSkelBuilder, types};
use super::stretch::stretch;
use super::sweep::{self, Sweeper};
use crate::Failure;
use crate::explain::Runner;
use crate::ground::{self, Tracing};
use crate::load::{load, open, run_once};
use crate::map_value;
use crate::netlink::Netlink;
use crate::options::Attaching;
use crate::policer::Tick;
use crate::port::Port;
use crate::tc::{self, Attacher, Attachment, Direction, Method};
use crate::trace::{Following, Ready, Standing, Trace, TraceMaps};

/// The loaded program and its maps; it is attached as long as this lives.
pub struct Metering<'obj> {
    // Attachments go before the program and the maps that they use.
    attachments: Vec<Attachment>,
    skeleton: TokenbucketSkel<'obj>,
    maps: Maps,
    sweeper: Sweeper,
    config: Config,
    /// The file of what is dropped, before it is written and while it is.
    ready: Option<Ready>,
    following: Option<Following>,
}

impl<'obj> Metering<'obj> {
    /// Loads the program, to write what it drops to this file; where it takes over from another one it goes on with
    /// what that knows. Nothing is attached yet.
    pub fn load(
        config: Config,
        predecessor: Option<&Attached>,
        trace: Option<Trace>,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Metering<'obj>> {
        let tick = Tick::of_this_kernel().context("read the length of the kernel's tick")?;
        let mut open = open(TokenbucketSkelBuilder::default(), object)?;
        let seed = match predecessor {
            Some(Attached { maps, .. }) => maps.knobs.seed,
            None => u32::from_ne_bytes(netsetup::random::bytes()?),
        };
        size_maps(&mut open, &config)?;
        set_knobs(&mut open, &config, seed)?;
        if let Some(predecessor) = predecessor {
            check_heritage(&open, &config, predecessor)?;
            inherit(&mut open, &predecessor.maps)?;
        }
        let programs: Vec<String> = config.ports.iter().map(|port| port.program(STEM)).collect();
        for mut program in open.open_object_mut().progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            let is_explained = config.tracing == Tracing::All && name == STEM;
            program.set_autoload(programs.contains(&name) || is_explained || name == "read_clock");
        }
        let skeleton = load(open).context("load the BPF program")?;
        let mut maps = Maps::among(handles(&skeleton)?)?;
        let mut figures = config
            .rule
            .figures(&config.machine, config.count_segments, tick)?;
        figures.ns_at_tick_0 = ns_at_tick_0(&skeleton, tick)?;
        if config.tracing == Tracing::All {
            // A capture's times are exact.
            figures.ns_per_tick = 0;
        }
        maps.begin_with(figures)?;
        if predecessor.is_some() {
            sweep::recover(&maps)?;
        }
        for net in &config.exempt {
            let nets = &skeleton.maps.exempt_nets;
            nets.update(&net.map_key(), &[1], MapFlags::ANY)?;
        }
        let ready = trace
            .map(|trace| ready(trace, &skeleton, &config, &figures))
            .transpose()?;
        maps.trace = ready.as_ref().map(Ready::tally);
        Ok(Metering {
            attachments: Vec::new(),
            ready,
            following: None,
            skeleton,
            sweeper: Sweeper::new(&maps)?,
            maps,
            config,
        })
    }

    /// Attaches the program everywhere.
    pub fn attach(&mut self, attaching: &Attaching) -> Result<Method> {
        let attacher = attaching.attacher(self.skeleton.progs.read_clock.as_fd())?;
        for (port, direction) in self.config.placements() {
            let attachment = attacher
                .attach(
                    self.program(&port.program(STEM)),
                    &label::of(direction),
                    port.ifindex,
                    direction,
                )
                .with_context(|| format!("attach to {} {direction}", port.name))?;
            self.attachments.push(attachment);
        }
        attaching.ensure_met(&attacher)?;
        Ok(attacher.method())
    }

    /// Attaches the program to stay, or puts it in the place of the one that it takes over from: no packet
    /// passes in between, and flows keep their tokens.
    pub fn attach_to_stay(
        &mut self,
        attaching: &Attaching,
        legacy: bool,
        predecessor: Option<&Attached>,
    ) -> Result<Method> {
        let Some(port) = self.config.ports.first() else {
            bail!("no interface to attach to");
        };
        let pins = Pins::of(port)?;
        let Some(predecessor) = predecessor else {
            let attached = self.attach_pinned(&pins, attaching, legacy);
            if attached.is_err() {
                // What is half there is nobody's; the error above matters more than one of these.
                let _ = pins.remove();
                let _ = tc::remove_leftovers(
                    &mut Netlink::open()?,
                    port.ifindex,
                    &label::pinned_labels(),
                );
            }
            return attached;
        };
        let old = predecessor.maps.figures()?;
        let words = self.maps.cells.words();
        let method = self.replace_pinned(&pins, legacy)?;
        stretch(&self.maps, &words, &self.maps.figures()?, &old)?;
        Ok(method)
    }

    fn attach_pinned(&self, pins: &Pins, attaching: &Attaching, legacy: bool) -> Result<Method> {
        let attacher = attaching.attacher(self.skeleton.progs.read_clock.as_fd())?;
        pins.keep_maps(&self.maps, legacy)?;
        for (port, direction) in self.config.placements() {
            self.attach_one_pinned(pins, &attacher, port, direction)?;
        }
        attaching.ensure_met(&attacher)?;
        Ok(attacher.method())
    }

    /// A program in a link is replaced in it, a filter by one with its label.
    fn replace_pinned(&self, pins: &Pins, legacy: bool) -> Result<Method> {
        pins.keep_maps(&self.maps, legacy)?;
        let mut method = Method::Clsact;
        let filters = Attacher::new(method);
        for (port, direction) in self.config.placements() {
            let Some(link) = pins.open_link(direction)? else {
                self.attach_one_pinned(pins, &filters, port, direction)?;
                continue;
            };
            let program = self.program(&port.program(STEM));
            let replaced = tc::replace_program(link.as_fd(), program);
            replaced.with_context(|| format!("replace the program at {}", port.name))?;
            method = Method::Tcx;
        }
        Ok(method)
    }

    fn attach_one_pinned(
        &self,
        pins: &Pins,
        attacher: &Attacher,
        port: &Port,
        direction: Direction,
    ) -> Result<()> {
        let program = self.program(&port.program(STEM));
        let label = label::of_pinned(direction);
        let attached = attacher.attach(program, &label, port.ifindex, direction);
        let attachment =
            attached.with_context(|| format!("attach to {} {direction}", port.name))?;
        pins.keep(attachment, direction)
    }

    fn program(&self, name: &str) -> BorrowedFd<'_> {
        let programs = &self.skeleton.progs;
        if name == STEM {
            programs.tokenbucket.as_fd()
        } else {
            programs.tokenbucket_raw.as_fd()
        }
    }

    /// What was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it counts.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Who is known, and for how long.
    pub fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    /// Why it decides as it does.
    pub(super) fn reasons(&self) -> Result<Reasons> {
        Ok(Reasons::new(&self.config, &self.maps.figures()?)?)
    }

    /// What runs it on packets of a capture.
    pub(super) fn runner<'run>(
        &self,
        object: &'run mut MaybeUninit<OpenObject>,
    ) -> Result<Runner<'run>> {
        Runner::new(
            self.program(STEM),
            &self.skeleton.maps.trace_records,
            object,
        )
    }

    /// Sets its clock, and the bytes that the next packet had.
    pub(super) fn set_moment(&mut self, now: u64, length: u32) {
        if let Some(bss) = self.skeleton.maps.bss_data.as_mut() {
            // SAFETY: integers of the BPF program's globals, mapped as long as the skeleton lives.
            unsafe {
                (&raw mut bss.virtual_now).write_volatile(now);
                (&raw mut bss.virtual_length).write_volatile(length);
            }
        }
    }

    /// Writes what is dropped, where that is asked for, in a thread of its own; so capabilities are dropped before.
    pub fn follow_drops(&mut self) -> Result<()> {
        self.following = self.ready.take().map(Ready::follow).transpose()?;
        Ok(())
    }

    /// Takes the program off again. Counters can still be read.
    pub fn detach(&mut self) -> Result<()> {
        self.attachments.clear();
        self.following.take().map_or(Ok(()), Following::finish)
    }

    /// To be called about once a second: keeps room in the table.
    pub fn tend(&mut self) -> Result<()> {
        self.sweeper.tend(&self.maps)
    }

    /// To be called at the end where the program stays attached.
    pub fn leave(&mut self) -> Result<()> {
        self.sweeper.finish(&self.maps)
    }
}

/// What is known of flows can only be understood as it was meant.
fn check_heritage(
    open: &OpenTokenbucketSkel<'_>,
    config: &Config,
    predecessor: &Attached,
) -> Result<()> {
    let rodata = open.maps.rodata_data.as_ref();
    let types::rodata { knobs, machine } = rodata.context("the object has no .rodata")?;
    let Attached { port, maps, .. } = predecessor;
    let old = &maps.knobs;
    let differs = if (knobs.by, knobs.mask4, knobs.mask6) != (old.by, old.mask4, old.mask6) {
        "--key"
    } else if config.directions != predecessor.directions {
        "choice of --ingress and --egress"
    } else if knobs.flows != old.flows {
        "--max-entries"
    } else if knobs.polices_bytes != old.polices_bytes {
        "--rate (tokens or bytes)"
    } else if !maps.machine()?.starts_with(map_value::bytes(machine)) {
        "--xfsm"
    } else {
        return Ok(());
    };
    let text = format!(
        "the tokenbucket pinned at {} was started with another {differs}, so what it knows of flows \
         cannot be taken over; give the same, or end it first: tokenbucket detach --iface {}",
        port.name, port.name
    );
    Err(Failure::Conflict(text).into())
}

fn inherit(open: &mut OpenTokenbucketSkel<'_>, from: &Maps) -> Result<()> {
    let maps = &mut open.maps;
    for (name, map) in [
        ("state_table", &mut maps.state_table),
        ("wide_state_table", &mut maps.wide_state_table),
        ("cells", &mut maps.cells),
        ("cells_taken", &mut maps.cells_taken),
        ("free_cells", &mut maps.free_cells),
        ("events", &mut maps.events),
    ] {
        map.reuse_fd(from.map(name)?.as_fd())
            .with_context(|| format!("take over the map {name}"))?;
    }
    Ok(())
}

fn size_maps(open: &mut OpenTokenbucketSkel<'_>, config: &Config) -> Result<()> {
    let entries = config.max_entries;
    let maps = &mut open.maps;
    let (used, unused) = if config.key.is_wide() {
        (&mut maps.wide_state_table, &mut maps.state_table)
    } else {
        (&mut maps.state_table, &mut maps.wide_state_table)
    };
    used.set_max_entries(entries)?;
    unused.set_max_entries(1)?;
    maps.cells.set_max_entries(OVERFLOW_CELLS + entries)?;
    maps.free_cells.set_max_entries(entries)?;
    if config.tracing == Tracing::Nothing {
        for map in [
            &mut maps.trace_records,
            &mut maps.trace_counts,
            &mut maps.trace_limit,
        ] {
            map.set_autocreate(false)?;
        }
    } else {
        maps.trace_records.set_max_entries(ground::ROOM)?;
        let ports = config.ports.len().max(1) as u32;
        maps.trace_counts.set_max_entries(ports)?;
    }
    Ok(())
}

/// The file of what is dropped, begun.
fn ready(
    trace: Trace,
    skeleton: &TokenbucketSkel<'_>,
    config: &Config,
    figures: &types::rule,
) -> Result<Ready> {
    let reasons = Reasons::new(config, figures)?;
    let maps = &skeleton.maps;
    let maps = TraceMaps {
        records: &maps.trace_records,
        counts: MapHandle::try_from(&maps.trace_counts)?,
        limit: &maps.trace_limit,
    };
    let standing = Standing {
        tool: STEM,
        ports: &config.ports,
        direction: match config.directions[..] {
            [direction] => Some(direction),
            _ => None,
        },
    };
    trace.ready(maps, &standing, move |ground| reasons.of(ground).text)
}

fn set_knobs(open: &mut OpenTokenbucketSkel<'_>, config: &Config, seed: u32) -> Result<()> {
    let rodata = open.maps.rodata_data.as_mut();
    let rodata = rodata.context("the object has no .rodata")?;
    let compiled = config.machine.compile(config.count_segments)?;
    let polices_bytes = matches!(config.rule, Rule::Bytes { .. });
    let needed_by_key = u8::from(config.key.by == By::Tuple);
    let needed_by_machine = u8::from(compiled.needs_transport && !polices_bytes) << 1;
    let (mask4, mask6) = config.key.masks();
    let (tracing, trace_one_in) = config.tracing.knobs();
    rodata.machine = compiled.machine;
    rodata.knobs = types::knobs {
        by: config.key.by as u8,
        wide_keys: config.key.is_wide().into(),
        polices_bytes: polices_bytes.into(),
        counts_segments: config.count_segments.into(),
        needs_transport: needed_by_key | needed_by_machine,
        dry_run: config.dry_run.into(),
        virtual_clock: (config.tracing == Tracing::All).into(),
        tracing,
        trace_one_in,
        have_exempt_nets: (!config.exempt.is_empty()).into(),
        mask4,
        mask6,
        seed,
        flows: config.max_entries,
        ..rodata.knobs
    };
    Ok(())
}

fn handles(skeleton: &TokenbucketSkel<'_>) -> Result<Vec<MapHandle>> {
    let maps = &skeleton.maps;
    [
        &maps.state_table,
        &maps.wide_state_table,
        &maps.cells,
        &maps.free_cells,
        &maps.cells_taken,
        &maps.events,
        &maps.rodata,
        &maps.data,
    ]
    .into_iter()
    .map(|map| Ok(MapHandle::try_from(map)?))
    .collect()
}

/// The monotonic clock when the tick counter was 0. (The kernel moves the one by whole ticks of the
/// other.)
fn ns_at_tick_0(skeleton: &TokenbucketSkel<'_>, tick: Tick) -> Result<i64> {
    run_once(&skeleton.progs.read_clock).context("run read_clock")?;
    let bss = skeleton.maps.bss_data.as_ref();
    let bss = bss.context("the object has no .bss")?;
    // SAFETY: two u64 of the BPF program's globals, mapped as long as the skeleton lives.
    let (ticks, ns) = unsafe {
        (
            (&raw const bss.clock_ticks).read_volatile(),
            (&raw const bss.clock_ns).read_volatile(),
        )
    };
    Ok(ns.wrapping_sub(ticks.wrapping_mul(tick.ns)).cast_signed())
}
