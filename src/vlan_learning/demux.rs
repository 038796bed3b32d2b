//! The programs of vlan_learning in the kernel: loaded, attached, told who belongs where, read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use serde::Serialize;

use super::directory::{self, Directory};
use super::interfaces::{Placed, Worker};
use super::mapping::Untagged;
use super::roster::{Member, Roster};
use super::skeleton::types;
use super::skeleton::{OpenVlanLearningSkel, VlanLearningSkel, VlanLearningSkelBuilder};
use super::tags::{self, Tags};
use crate::Failure;
use crate::grace;
use crate::load::{load, open, run_once};
use crate::mac::Mac;
use crate::map_value;
use crate::mapped::{Mapped, Shared};
use crate::notation::{counted, grouped};
use crate::options::Attaching;
use crate::port::Port;
use crate::promiscuous::Promiscuous;
use crate::tc::{Attacher, Attachment, Direction, Method};
use crate::tick::{Tick, TickClock};

/// Clients have 16 bits in the directory.
pub const MOST_CLIENTS: u32 = 65_536;
/// Rows of the BPF program's `workers`.
const MOST_WORKERS: u32 = 4096;

/// What stays as it is from loading on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the clients' frames come in.
    pub trunk: Port,
    /// Clients that there can be at a time.
    pub room: u32,
    /// The machine itself may be spoken to at these interfaces: what is for it passes on.
    pub hosts_too: bool,
    /// Counts what would be dropped, drops nothing.
    pub dry_run: bool,
}

/// What happens to frames that are not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They pass on, as without us.
    Pass,
    /// They are dropped.
    Drop,
    /// They go to this interface, tags and all.
    Redirect(Port),
}

impl From<Untagged> for Verdict {
    fn from(untagged: Untagged) -> Verdict {
        match untagged {
            Untagged::Pass => Verdict::Pass,
            Untagged::Drop => Verdict::Drop,
        }
    }
}

/// What a reload can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For tagged frames from a MAC address that is not configured.
    pub unknown: Verdict,
    /// For frames without a tag: [`Verdict::Pass`] or [`Verdict::Drop`].
    pub untagged: Verdict,
    /// Clients stay in the VLAN that they were first seen in.
    pub no_move: bool,
}

/// What a new table came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New clients, and those with another worker than before.
    pub added: usize,
    /// Clients that are gone, and those with another worker from now on.
    pub removed: usize,
    /// Clients that stay as they are.
    pub kept: usize,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes {
            added,
            removed,
            kept,
        } = self;
        write!(
            f,
            "{} added, {} removed, {} kept",
            counted(*added, "client"),
            grouped(*removed as u64),
            grouped(*kept as u64)
        )
    }
}

/// Wire segments, and bytes of Ethernet frames without FCS and tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Wire segments.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign<types::volume> for Volume {
    fn add_assign(&mut self, other: types::volume) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Volume) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Both ways of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// From the client.
    pub rx: Volume,
    /// To the client, broadcasts apart.
    pub tx: Volume,
}

/// `struct client` of the BPF program, which writes to it at any time.
#[repr(C)]
#[derive(Debug)]
struct SharedClient {
    tags: AtomicU64,
    before: AtomicU64,
    refused: AtomicU64,
    seen: AtomicU64,
    port: AtomicU32,
    worker: AtomicU32,
    moves: AtomicU32,
    refusals: AtomicU32,
    has_peer: AtomicU32,
    gone: AtomicU32,
    pad: AtomicU64,
}

const _: () = assert!(size_of::<SharedClient>() == size_of::<types::client>());

// SAFETY: atomic integers only, laid out as the BPF program has them, without padding.
unsafe impl Shared for SharedClient {}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Those of its last frame; none: it was not heard of.
    pub tags: Option<Tags>,
    /// Its worker's broadcasts reach it.
    pub is_listed: bool,
    /// How often it was in another VLAN than before, and where it was then.
    pub moves: u32,
    /// See `moves`.
    pub before: Option<Tags>,
    /// Frames that `--no-move` kept out, and where the last one came from.
    pub refusals: u32,
    /// See `refusals`.
    pub refused: Option<Tags>,
    /// The tick of its last frame.
    pub seen: u64,
}

/// A worker's interface, with our program on it.
struct Attached {
    worker: Worker,
    row: u32,
    attachment: Option<Attachment>,
}

/// The loaded programs and their maps; the programs are attached as long as this lives.
pub struct Demux<'obj> {
    // Attachments go before the programs and maps that they use; the trunk's first, so that nobody is
    // brought to a worker that has no way back.
    trunk: Option<Attachment>,
    workers: BTreeMap<u32, Attached>,
    free_rows: Vec<u32>,
    attacher: Option<Attacher>,
    directory: Directory,
    clients: Mapped<SharedClient>,
    roster: Roster,
    removed: Removed,
    /// Frames are for workers and clients, not for the interfaces that they come in by.
    promiscuous: Promiscuous,
    pub(super) clock: TickClock,
    skeleton: VlanLearningSkel<'obj>,
    setup: Setup,
    policy: Policy,
}

/// Clients that were taken out of the table: they are configured no longer, or their worker's interface
/// went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Removed {
    /// How many.
    pub clients: u64,
    /// What was counted for them.
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl<'obj> Demux<'obj> {
    /// Loads the programs. Nothing is attached, and nobody is known yet.
    pub fn load(
        setup: Setup,
        policy: Policy,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Demux<'obj>> {
        let tick = Tick::of_this_kernel().context("read the length of the kernel's tick")?;
        let mut open = open(VlanLearningSkelBuilder::default(), object)?;
        size_maps(&mut open, setup.room)?;
        set_knobs(&mut open, &setup)?;
        let skeleton = load(open).context("load the BPF programs")?;
        let clock = read_clock(&skeleton, tick)?;
        let mut demux = Demux {
            trunk: None,
            workers: BTreeMap::new(),
            free_rows: (0..most_workers(setup.room)).rev().collect(),
            attacher: None,
            directory: Directory::open(&skeleton.maps.directory)?,
            clients: Mapped::open(&skeleton.maps.clients)?,
            roster: Roster::default(),
            removed: Removed::default(),
            promiscuous: Promiscuous::new()?,
            clock,
            skeleton,
            setup,
            policy: policy.clone(),
        };
        demux.set_policy(policy)?;
        Ok(demux)
    }

    /// Attaches at the workers of these clients, then at the trunk.
    pub fn attach(&mut self, attaching: &Attaching, placed: &Placed) -> Result<Method> {
        let attacher = attaching.attacher(self.skeleton.progs.read_clock.as_fd())?;
        let method = attacher.method();
        self.attacher = Some(attacher);
        self.change_to(placed)?;
        let trunk = self.setup.trunk.clone();
        let program = self.skeleton.progs.to_worker.as_fd();
        self.trunk = Some(self.attach_one(program, TO_WORKER, &trunk)?);
        if let Some(attacher) = &self.attacher {
            attaching.ensure_met(attacher)?;
        }
        Ok(method)
    }

    fn attach_one(&self, program: BorrowedFd<'_>, name: &str, port: &Port) -> Result<Attachment> {
        let attacher = self.attacher.as_ref().context("attach() comes first")?;
        let attachment = attacher
            .attach(program, &label_of(name), port.ifindex, Direction::Ingress)
            .with_context(|| format!("attach {name} to {}", port.name))?;
        self.promiscuous
            .add(port.ifindex)
            .with_context(|| format!("let {} take every frame", port.name))?;
        Ok(attachment)
    }

    /// What was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What happens to frames that are not delivered.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes it, at once.
    pub fn set_policy(&mut self, policy: Policy) -> Result<()> {
        let data = self.skeleton.maps.data_data.as_mut();
        let place = &raw mut data.context("the object has no .data")?.policy;
        // SAFETY: a global of the BPF programs, mapped as long as the skeleton lives; they read its words
        // one by one at any time, hence volatile. The interface goes before the verdict that uses it, and
        // stays where a program may still go by the old one.
        unsafe {
            if let Verdict::Redirect(port) = &policy.unknown {
                (&raw mut (*place).unknown_ifindex).write_volatile(port.ifindex);
            }
            (&raw mut (*place).unknown).write_volatile(policy.unknown.in_bpf());
            (&raw mut (*place).untagged).write_volatile(policy.untagged.in_bpf());
            (&raw mut (*place).no_move).write_volatile(policy.no_move.into());
        }
        self.policy = policy;
        Ok(())
    }

    /// From now on these are the clients, all of it at one moment. An interface that our program cannot
    /// be attached to leaves everything as it was.
    pub fn change_to(
        &mut self,
        Placed {
            clients, workers, ..
        }: &Placed,
    ) -> Result<Changes> {
        if clients.len() > self.setup.room as usize {
            return Err(Failure::Usage(format!(
                "{} clients are more than --max-entries {}",
                clients.len(),
                self.setup.room
            ))
            .into());
        }
        let used: BTreeSet<u32> = clients.values().copied().collect();
        self.attach_workers(&used, workers)?;
        self.look_at_peers(workers)?;
        let members = self.roster.members();
        let stays = |mac: &Mac, port: u32| members.get(mac).is_some_and(|it| it.port == port);
        let mut remaining = clients.clone();
        remaining.retain(|mac, port| stays(mac, *port));
        let changes = Changes {
            added: clients.len() - remaining.len(),
            removed: members.len() - remaining.len(),
            kept: remaining.len(),
        };
        if changes.added > self.roster.left(self.setup.room) {
            // Numbers are short: those of the removed have to be free before others get them.
            self.replace(&remaining)?;
        }
        self.replace(clients)?;
        self.release_workers(&used)?;
        Ok(changes)
    }

    /// These interfaces are gone, and the clients of their workers with them. To be called as soon as that
    /// is known: their numbers may be another interface's at any time.
    pub fn lose(&mut self, ports: &BTreeSet<u32>) -> Result<usize> {
        let rest: BTreeMap<Mac, u32> = self
            .roster
            .members()
            .iter()
            .filter(|(_, member)| !ports.contains(&member.port))
            .map(|(mac, member)| (*mac, member.port))
            .collect();
        let lost = self.roster.members().len() - rest.len();
        self.replace(&rest)?;
        let used = rest.values().copied().collect();
        self.release_workers(&used)?;
        Ok(lost)
    }

    /// Puts our program on the interfaces that have none of ours yet, on all of them or none.
    fn attach_workers(
        &mut self,
        used: &BTreeSet<u32>,
        workers: &BTreeMap<u32, Worker>,
    ) -> Result<()> {
        let before: BTreeSet<u32> = self.workers.keys().copied().collect();
        for ifindex in used.difference(&before) {
            let worker = workers.get(ifindex).context("a client without a worker")?;
            if let Err(error) = self.attach_worker(worker) {
                self.release_workers(&before)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// The far ends of veths may have been moved to other namespaces.
    fn look_at_peers(&mut self, workers: &BTreeMap<u32, Worker>) -> Result<()> {
        for (port, attached) in &mut self.workers {
            let Some(now) = workers.get(port) else {
                continue;
            };
            if attached.worker.has_peer == now.has_peer {
                continue;
            }
            attached.worker.has_peer = now.has_peer;
            for member in self.roster.members().values() {
                if member.port == *port {
                    let client = self.clients.get(member.number);
                    let client = client.context("a client without a row")?;
                    let has_peer = u32::from(now.has_peer);
                    client.has_peer.store(has_peer, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn attach_worker(&mut self, worker: &Worker) -> Result<()> {
        let row = self.free_rows.pop().ok_or_else(|| {
            let most = most_workers(self.setup.room);
            Failure::Usage(format!("there are more than {most} workers"))
        })?;
        self.clear_worker(row)?;
        let key = worker.port.ifindex.to_ne_bytes();
        let rows = &self.skeleton.maps.worker_rows;
        rows.update(&key, &row.to_ne_bytes(), MapFlags::ANY)?;
        let program = self.skeleton.progs.to_trunk.as_fd();
        let attachment = self.attach_one(program, TO_TRUNK, &worker.port);
        let worker = worker.clone();
        let (attachment, error) = match attachment {
            Ok(attachment) => (Some(attachment), None),
            Err(error) => (None, Some(error)),
        };
        // Also where nothing was attached: whoever releases the worker releases its row.
        self.workers.insert(
            worker.port.ifindex,
            Attached {
                worker,
                row,
                attachment,
            },
        );
        error.map_or(Ok(()), Err)
    }

    /// Nothing of the worker that had the row before is left.
    fn clear_worker(&self, row: u32) -> Result<()> {
        let (key, maps) = (row.to_ne_bytes(), &self.skeleton.maps);
        let zeros = vec![0; size_of::<types::worker>()];
        maps.workers.update(&key, &zeros, MapFlags::ANY)?;
        map_value::clear_each(&maps.worker_counts, &key)
    }

    fn release_workers(&mut self, used: &BTreeSet<u32>) -> Result<()> {
        let unused: Vec<u32> = self
            .workers
            .keys()
            .filter(|port| !used.contains(port))
            .copied()
            .collect();
        for port in unused {
            if let Some(Attached {
                row, attachment, ..
            }) = self.workers.remove(&port)
            {
                // Our program goes before what it would look for.
                drop(attachment);
                self.promiscuous.remove(port);
                let rows = &self.skeleton.maps.worker_rows;
                rows.delete(&port.to_ne_bytes())?;
                self.free_rows.push(row);
            }
        }
        Ok(())
    }

    /// Turns the directory to these clients, whose workers are all attached.
    fn replace(&mut self, wanted: &BTreeMap<Mac, u32>) -> Result<()> {
        let difference = self.roster.difference(wanted);
        for (mac, _) in &difference.removed {
            self.roster.remove(*mac);
        }
        for (mac, port) in &difference.added {
            let (member, was_used) = self.roster.add(*mac, *port);
            self.begin_client(member, was_used)?;
        }
        self.turn_directory()?;
        // Whoever still reads the half that was in use before has to be done before it is written again,
        // and before a number is somebody else's.
        let maps = &self.skeleton.maps;
        grace::wait_for_programs(&maps.grace, &maps.grace_periods)?;
        for (_, member) in difference.removed {
            self.removed.clients += 1;
            let Traffic { rx, tx } = self.traffic_of(member)?;
            self.removed.traffic.rx += rx;
            self.removed.traffic.tx += tx;
            self.forget(member)?;
            self.roster.free(member);
        }
        Ok(())
    }

    fn begin_client(&self, Member { number, port }: Member, was_used: bool) -> Result<()> {
        if was_used {
            map_value::clear_each(&self.skeleton.maps.client_counts, &number.to_ne_bytes())?;
        }
        let attached = self
            .workers
            .get(&port)
            .context("a client without a worker")?;
        let client = self.clients.get(number).context("a client without a row")?;
        for word in [&client.tags, &client.before, &client.refused, &client.seen] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&client.moves, &client.refusals, &client.gone] {
            word.store(0, Ordering::Relaxed);
        }
        client.port.store(port, Ordering::Relaxed);
        client.worker.store(attached.row, Ordering::Relaxed);
        let has_peer = u32::from(attached.worker.has_peer);
        client.has_peer.store(has_peer, Ordering::Relaxed);
        Ok(())
    }

    fn turn_directory(&mut self) -> Result<()> {
        let members = self.roster.members().iter();
        let clients: Vec<(Mac, u32)> = members.map(|(mac, it)| (*mac, it.number)).collect();
        let bss = self.skeleton.maps.bss_data.as_mut();
        let place = &raw mut bss.context("the object has no .bss")?.directory_view;
        // SAFETY: a u64 of the BPF programs' globals, aligned, mapped as long as the skeleton lives; they
        // read it at any time, hence atomic.
        let view = unsafe { AtomicU64::from_ptr(place) };
        let next = self
            .directory
            .write(&clients, view.load(Ordering::Relaxed))?;
        view.store(next, Ordering::Release);
        Ok(())
    }

    /// Takes the client out of its worker's broadcasts; only a BPF program can take the lock for that.
    fn forget(&mut self, member: Member) -> Result<()> {
        let bss = self.skeleton.maps.bss_data.as_mut();
        let place = &raw mut bss.context("the object has no .bss")?.client_to_forget;
        // SAFETY: a u32 of the BPF programs' globals, mapped as long as the skeleton lives.
        unsafe { place.write_volatile(member.number) };
        run_once(&self.skeleton.progs.forget_client).context("run forget_client")
    }

    /// Everybody that is configured.
    pub fn roster(&self) -> &BTreeMap<Mac, Member> {
        self.roster.members()
    }

    /// Clients that were taken out of the table.
    pub fn removed(&self) -> Removed {
        self.removed
    }

    /// Workers that have clients, with what was broadcast by them and how many copies of it went out.
    pub fn broadcasts(&self) -> Result<Vec<(&Worker, Volume, u64)>> {
        let mut all = Vec::new();
        for Attached { worker, row, .. } in self.workers.values() {
            let counts = &self.skeleton.maps.worker_counts;
            let values = counts.lookup_percpu(&row.to_ne_bytes(), MapFlags::ANY)?;
            let values = values.context("a worker without a row")?;
            let (mut volume, mut copies) = (Volume::default(), 0);
            for count in map_value::read_each::<types::worker_count>(&values)? {
                volume += count.broadcasts;
                copies += count.copies;
            }
            all.push((worker, volume, copies));
        }
        Ok(all)
    }

    /// The workers that have clients.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values().map(|it| &it.worker)
    }

    /// How many clients the worker behind an interface has.
    pub fn clients_of(&self, ifindex: u32) -> usize {
        let members = self.roster.members().values();
        members.filter(|member| member.port == ifindex).count()
    }

    /// What was counted for a client, all CPUs together.
    pub fn traffic_of(&self, member: Member) -> Result<Traffic> {
        let counts = &self.skeleton.maps.client_counts;
        let values = counts.lookup_percpu(&member.number.to_ne_bytes(), MapFlags::ANY)?;
        let mut sum = Traffic::default();
        let values = values.context("a client without counts")?;
        for count in map_value::read_each::<types::client_count>(&values)? {
            sum.rx += count.rx;
            sum.tx += count.tx;
        }
        Ok(sum)
    }

    /// What is known of a client.
    pub fn state_of(&self, member: Member) -> Result<State> {
        let client = self.clients.get(member.number);
        let client = client.context("a client without a row")?;
        let tags = client.tags.load(Ordering::Relaxed);
        Ok(State {
            tags: Tags::from_word(tags),
            is_listed: tags::is_listed(tags),
            moves: client.moves.load(Ordering::Relaxed),
            before: Tags::from_word(client.before.load(Ordering::Relaxed)),
            refusals: client.refusals.load(Ordering::Relaxed),
            refused: Tags::from_word(client.refused.load(Ordering::Relaxed)),
            seen: client.seen.load(Ordering::Relaxed),
        })
    }

    /// MAC addresses that are not configured and send; of very many only the latest.
    pub fn strangers(&self) -> Result<Vec<(Mac, types::stranger)>> {
        let map = &self.skeleton.maps.strangers;
        let mut strangers = Vec::new();
        for key in map.keys() {
            let number = <[u8; 8]>::try_from(key.as_slice()).context("a key of strangers")?;
            // It may have made room for another one meanwhile.
            if let Some(value) = map.lookup(&key, MapFlags::ANY)? {
                let mac = Mac::from_number(u64::from_ne_bytes(number));
                strangers.push((mac, map_value::read(&value)?));
            }
        }
        Ok(strangers)
    }

    /// Frames that were not delivered, or not everywhere, for each CPU.
    pub fn events(&self) -> Result<Vec<types::events>> {
        let key = 0_u32.to_ne_bytes();
        let map = &self.skeleton.maps.events;
        let values = map.lookup_percpu(&key, MapFlags::ANY)?;
        map_value::read_each(&values.context("the events are in the map")?)
    }

    /// Takes the programs off again. Counters can still be read.
    pub fn detach(&mut self) {
        self.trunk = None;
        self.promiscuous.remove(self.setup.trunk.ifindex);
        for (port, attached) in &mut self.workers {
            attached.attachment = None;
            self.promiscuous.remove(*port);
        }
    }
}

impl Verdict {
    fn in_bpf(&self) -> types::verdict {
        match self {
            Verdict::Pass => types::verdict::PASS_IT,
            Verdict::Drop => types::verdict::DROP_IT,
            Verdict::Redirect(_) => types::verdict::REDIRECT_IT,
        }
    }
}

const TO_WORKER: &str = "to_worker";
const TO_TRUNK: &str = "to_trunk";

/// What tells the tool's programs from all others where they are filters.
pub fn labels() -> Vec<String> {
    [TO_WORKER, TO_TRUNK].map(label_of).to_vec()
}

fn label_of(program: &str) -> String {
    format!("vlan_learning/{program}")
}

fn most_workers(room: u32) -> u32 {
    room.min(MOST_WORKERS)
}

fn size_maps(open: &mut OpenVlanLearningSkel<'_>, room: u32) -> Result<()> {
    let maps = &mut open.maps;
    maps.clients.set_max_entries(room)?;
    maps.client_counts.set_max_entries(room)?;
    maps.directory
        .set_max_entries(2 * directory::rows_for(room))?;
    for map in [
        &mut maps.workers,
        &mut maps.worker_rows,
        &mut maps.worker_counts,
    ] {
        map.set_max_entries(most_workers(room))?;
    }
    Ok(())
}

fn set_knobs(open: &mut OpenVlanLearningSkel<'_>, setup: &Setup) -> Result<()> {
    let rodata = open.maps.rodata_data.as_mut();
    let knobs = &mut rodata.context("the object has no .rodata")?.knobs;
    let rows = directory::rows_for(setup.room);
    knobs.trunk = setup.trunk.ifindex;
    knobs.directory_rows = rows;
    knobs.directory_shift = 64 - rows.ilog2();
    knobs.is_hosts_too = setup.hosts_too.into();
    knobs.dry_run = setup.dry_run.into();
    Ok(())
}

/// Which tick is now? Asked once: from here on the monotonic clock tells.
fn read_clock(skeleton: &VlanLearningSkel<'_>, tick: Tick) -> Result<TickClock> {
    run_once(&skeleton.progs.read_clock).context("run read_clock")?;
    let bss = skeleton.maps.bss_data.as_ref();
    let ticks = &raw const bss.context("the object has no .bss")?.ticks_now;
    // SAFETY: a u64 of the BPF programs' globals, mapped as long as the skeleton lives.
    Ok(TickClock::starting(tick, unsafe { ticks.read_volatile() }))
}
