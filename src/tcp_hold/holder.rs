//! The program, at the links to the peers.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use plain::Plain;

use super::accounts::Accounts;
use super::connection::{self, Progress};
use super::guard::Guard;
use super::held::Held;
use super::post::Post;
use super::skeleton::types;
use super::skeleton::{TcpHoldSkel, TcpHoldSkelBuilder};
use super::standing::Standing;
use crate::Failure;
use crate::load::{load, open};
use crate::map_value;
use crate::notation::grouped;
use crate::port::Port;
use crate::tc::{Attacher, Method};

/// Connections that can be held at once.
pub const MOST_HOLDS: u32 = 65_536;

/// Connections that have sent their FIN stay for minutes; their slots are others' by then.
const LEAVERS_PER_HOLD: u32 = 4;

const HOLD_BACK: &str = "hold_back";

// SAFETY: integers only, without padding.
unsafe impl Plain for types::events {}

/// How it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Connections that there is room for; [`MOST_HOLDS`] at most.
    pub max_holds: u32,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            max_holds: MOST_HOLDS,
        }
    }
}

/// What the program did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Acknowledgements that were lowered.
    pub lowered: u64,
    /// Segments that left when more was held back than was to be, or for longer.
    pub bounds: u64,
    /// Probes that left as acknowledgements.
    pub probes: u64,
    /// Packets of held sockets that were dropped, because they have no TCP header where one was looked for.
    pub unreadable: u64,
    /// Packets of held sockets that were dropped, because the kernel would not change them.
    pub failed: u64,
}

/// How many connections are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// Now.
    pub held: u64,
    /// Ever.
    pub ever: u64,
    /// At most.
    pub room: u64,
}

/// Holds sockets. The programs stay where they are attached, when this is dropped or its process dies, until no
/// socket is held any more: a guard, a process of its own, looks after them.
pub struct Holder<'obj> {
    // Dropped in this order: taken off, then closed.
    standing: Standing,
    skeleton: TcpHoldSkel<'obj>,
    accounts: Arc<Accounts>,
}

/// A holder's sockets: what any thread needs to hold one more.
#[derive(Clone, Debug)]
pub struct Holds(Arc<Accounts>);

impl Holds {
    /// Holds a TCP socket: one that is about to connect, one that was accepted, or one that has been at work for
    /// long. Nobody may read from it meanwhile.
    pub fn hold<S: AsFd>(&self, socket: S) -> Result<Held<S>> {
        self.0.sweep()?;
        let was_watched = self.0.watch(&socket)?;
        let progress = Progress::of(&socket, false)?;
        let promised = self.0.promised(&socket)?;
        if promised.is_some() && !was_watched {
            // Somebody steers connections to a listener by other ports than its own.
            self.0.watch_all()?;
        }
        // Nobody knows which of the bytes that had come before were acknowledged.
        let promised = promised.filter(|_| was_watched);
        let promised = promised.unwrap_or(progress.received);
        let slot = self.0.begin(progress.read, promised);
        let slot = slot.with_context(|| {
            format!(
                "{} connections are held; there is no room for more",
                grouped(self.0.room().into())
            )
        })?;
        let exposed = promised.saturating_sub(progress.read);
        Held::begin(socket, &self.0, slot, promised, exposed)
    }

    /// How many are held.
    pub(super) fn census(&self) -> Census {
        let (held, ever) = self.0.taken();
        Census {
            held,
            ever,
            room: self.0.room().into(),
        }
    }

    /// Holds every connection that a listening socket accepts from now on, before its first byte comes.
    /// [`Holds::hold`] of the accepted socket begins its confirmations. Where that is before it listens, not a
    /// byte is missed. It is refused with TCP Fast Open, by which the kernel acknowledges what comes in a SYN;
    /// nobody may turn that on later.
    pub fn hold_accepted(&self, listener: &impl AsFd) -> Result<()> {
        ensure!(
            !connection::is_fast_open(listener)?,
            Failure::Usage(
                "what a listener accepts cannot be held with TCP Fast Open: leave TCP_FASTOPEN off"
                    .into()
            )
        );
        self.0.watch(listener)?;
        self.0.hold(listener, None, 0)
    }
}

impl<'obj> Holder<'obj> {
    /// Loads the program. It stands nowhere yet.
    pub fn load(setup: &Setup, object: &'obj mut MaybeUninit<OpenObject>) -> Result<Holder<'obj>> {
        let room = 1..=MOST_HOLDS;
        ensure!(
            room.contains(&setup.max_holds),
            Failure::Usage(format!(
                "there is room for 1 to {} held connections",
                grouped(MOST_HOLDS.into())
            ))
        );
        let mut open = open(TcpHoldSkelBuilder::default(), object)?;
        open.maps.accounts.set_max_entries(setup.max_holds)?;
        let leavers = setup.max_holds * LEAVERS_PER_HOLD;
        open.maps.leavers.set_max_entries(leavers)?;
        let skeleton = load(open).context("load the BPF programs")?;
        let accounts = Arc::new(Accounts::open(&skeleton.maps)?);
        Ok(Holder {
            standing: Standing::new(&accounts),
            accounts,
            skeleton,
        })
    }

    /// The maps and programs as they are, for tests and benchmarks.
    #[doc(hidden)]
    pub fn skeleton(&self) -> &TcpHoldSkel<'obj> {
        &self.skeleton
    }

    /// Attaches to these links, by the best method where none is named. Acknowledgements that leave by others
    /// are not held.
    pub fn attach(&mut self, method: Option<Method>, ports: &[Port]) -> Result<Method> {
        let attacher = Attacher::new(method.unwrap_or_else(|| self.best_method()));
        let post =
            |port: &Port| Post::take(&attacher, port, self.program(&port.program(HOLD_BACK))?);
        let posts = ports.iter().map(post).collect::<Result<_>>()?;
        self.standing.add(posts)?;
        Ok(attacher.method())
    }

    /// The guard's process; `None`: nothing is attached yet, or the guard was killed. Without him the programs
    /// stay as long as this process lives, and no longer: [`Holder::guard_again`] mends that.
    pub fn guard(&self) -> Option<u32> {
        self.standing.guard().map(Guard::pid)
    }

    /// Starts another guard where the one before was killed. Says whether that was necessary.
    pub fn guard_again(&mut self) -> Result<bool> {
        let is_necessary = self.guard().is_none();
        if is_necessary {
            self.standing.renew()?;
        }
        Ok(is_necessary)
    }

    fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let programs = &self.skeleton.progs;
        Ok(match name {
            HOLD_BACK => programs.hold_back.as_fd(),
            "hold_back_raw" => programs.hold_back_raw.as_fd(),
            _ => anyhow::bail!("there is no program {name}"),
        })
    }

    /// What holds sockets, for other threads.
    pub fn holds(&self) -> Holds {
        Holds(Arc::clone(&self.accounts))
    }

    /// As [`Holds::hold`].
    pub fn hold<S: AsFd>(&self, socket: S) -> Result<Held<S>> {
        self.holds().hold(socket)
    }

    /// As [`Holds::hold_accepted`].
    pub fn hold_accepted(&self, listener: &impl AsFd) -> Result<()> {
        self.holds().hold_accepted(listener)
    }

    /// The best method to attach by on this kernel.
    pub fn best_method(&self) -> Method {
        Method::best(self.skeleton.progs.hold_back.as_fd())
    }

    /// What the program did so far, on all CPUs.
    pub fn events(&self) -> Result<Events> {
        let events = &self.skeleton.maps.events;
        let values = events.lookup_percpu(&[0; 4], MapFlags::ANY)?;
        let of_each: Vec<types::events> = map_value::read_each(&values.unwrap_or_default())?;
        let mut sum = Events::default();
        for of_cpu in of_each {
            sum.lowered += of_cpu.lowered;
            sum.bounds += of_cpu.bounds;
            sum.probes += of_cpu.probes;
            sum.unreadable += of_cpu.unreadable;
            sum.failed += of_cpu.failed;
        }
        Ok(sum)
    }
}
