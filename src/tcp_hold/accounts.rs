//! What the application and the BPF program tell each other of each connection.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::libc;
use nix::time::{ClockId, clock_gettime};
use plain::Plain;

use super::connection;
use super::skeleton::{TcpHoldMaps, types};
use crate::map_value;
use crate::mapped::{Mapped, Shared};

/// `struct account` of the BPF program.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Account {
    generation: AtomicU64,
    /// How far the connection may be acknowledged.
    pub confirmed: AtomicU64,
    /// Not 0: a probe that leaves is to be an acknowledgement.
    pub is_probe_wanted: AtomicU64,
    /// How far it is acknowledged.
    pub promised: AtomicU64,
    /// That may be held back; 0: as many as there are.
    pub most_bytes: AtomicU64,
    /// Nanoseconds that a byte may be held back; 0: for ever.
    pub longest: AtomicU64,
    /// What happens there: not 0: the kernel's acknowledgements pass.
    pub is_released_at_bound: AtomicU32,
    /// Not 0: the peer's FIN has come.
    pub has_ended: AtomicU32,
    /// `BOUND_...` of the BPF program, or 0.
    pub reached: AtomicU64,
}

/// `watched` of the BPF program: a bit for each local port that a held socket may have.
#[repr(C)]
#[derive(Debug)]
pub struct Watched([AtomicU64; 65536 / 64]);

const _: () = assert!(size_of::<Watched>() == size_of::<types::bss>());
// SAFETY: atomic integers only, laid out as the BPF program has them, without padding.
unsafe impl Shared for Watched {}

const _: () = assert!(size_of::<Account>() == size_of::<types::account>());
// SAFETY: atomic integers only, laid out as the BPF program has them, without padding.
unsafe impl Shared for Account {}

/// A socket that is reset has given its port back by then.
const NO_PORT: u16 = 0;

/// A hold without an account, as in the BPF program.
const NO_SLOT: u32 = u32::MAX;

// SAFETY: integers only, without padding.
unsafe impl Plain for types::hold {}
// SAFETY: integers only, without padding.
unsafe impl Plain for types::leaver {}

/// What has been silent for so long is not in TIME-WAIT any more, which lasts for 60 s since the peer's last
/// segment.
const GONE_AFTER: Duration = Duration::from_secs(70);
/// So often at most those are looked for that have gone.
const SWEPT_EVERY: Duration = Duration::from_secs(10);

/// Sockets that are held, and their accounts.
#[derive(Debug)]
pub struct Accounts {
    accounts: Mapped<Account>,
    /// Socket storage, by descriptor.
    holds: MapHandle,
    /// Connections that have sent their FIN, by their ends.
    leavers: MapHandle,
    watched: Mapped<Watched>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    free: VecDeque<u32>,
    /// From here on nobody had one.
    next: u32,
    /// The last one that was given.
    generation: u64,
    swept: Option<Instant>,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    number: u32,
    generation: u64,
}

impl Accounts {
    /// By the program's maps. Of the kernel's own sockets what they answer is watched, from now on.
    pub fn open(maps: &TcpHoldMaps<'_>) -> Result<Accounts> {
        let accounts = Accounts {
            accounts: Mapped::open(&maps.accounts)?,
            holds: MapHandle::try_from(&maps.holds).context("take the map of holds")?,
            leavers: MapHandle::try_from(&maps.leavers).context("take the map of leavers")?,
            watched: Mapped::open(&maps.bss)?,
            slots: Mutex::default(),
        };
        accounts.watch_port(libc::IPPROTO_TCP as u16)?;
        accounts.watch_port(NO_PORT)?;
        Ok(accounts)
    }

    /// From now on the program looks at what leaves from this socket's local port. Says whether it did before.
    pub fn watch(&self, socket: &impl AsFd) -> Result<bool> {
        match connection::own_port(socket)? {
            // It may get any, and so may those that it accepts.
            None => self.watch_all(),
            Some(port) => self.watch_port(port),
        }
    }

    /// Likewise at what leaves from any port. Says whether it did before.
    pub fn watch_all(&self) -> Result<bool> {
        let words = &self.watched()?.0;
        let before = words
            .iter()
            .map(|word| word.fetch_or(u64::MAX, Ordering::SeqCst));
        Ok(before.fold(u64::MAX, |all, word| all & word) == u64::MAX)
    }

    fn watch_port(&self, port: u16) -> Result<bool> {
        let (word, bit) = (usize::from(port / 64), 1 << (port % 64));
        let word = self.watched()?.0.get(word);
        let word = word.context("a port that there is not")?;
        Ok(word.fetch_or(bit, Ordering::SeqCst) & bit != 0)
    }

    fn watched(&self) -> Result<&Watched> {
        self.watched.get(0).context("the program has no ports")
    }

    /// An account for a connection of whose bytes so many were read, which are confirmed, and so many may have
    /// been acknowledged. `None`: all are taken.
    pub fn begin(&self, read: u64, promised: u64) -> Option<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let number = slots.free.pop_front().or_else(|| {
            let next = slots.next;
            (next < self.accounts.count()).then(|| {
                slots.next += 1;
                next
            })
        })?;
        slots.generation += 1;
        let slot = Slot {
            number,
            generation: slots.generation,
        };
        drop(slots);
        let account = self.accounts.get(number)?;
        account.confirmed.store(read, Ordering::Relaxed);
        account.is_probe_wanted.store(0, Ordering::Relaxed);
        account.promised.store(promised, Ordering::Relaxed);
        account.most_bytes.store(0, Ordering::Relaxed);
        account.longest.store(0, Ordering::Relaxed);
        account.is_released_at_bound.store(0, Ordering::Relaxed);
        account.has_ended.store(0, Ordering::Relaxed);
        account.reached.store(0, Ordering::Relaxed);
        account.generation.store(slot.generation, Ordering::Release);
        Some(slot)
    }

    /// Nothing more is confirmed of whatever still has this slot.
    pub fn end(&self, slot: Slot) {
        if let Some(account) = self.accounts.get(slot.number) {
            account.generation.store(0, Ordering::Release);
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.free.push_back(slot.number);
    }

    /// Connections that have one, and that ever had.
    pub fn taken(&self) -> (u64, u64) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let free = u32::try_from(slots.free.len()).unwrap_or(u32::MAX);
        (slots.next.saturating_sub(free).into(), slots.generation)
    }

    /// Connections that there is room for.
    pub fn room(&self) -> u32 {
        self.accounts.count()
    }

    /// What is known of a connection.
    pub fn get(&self, slot: Slot) -> Result<&Account> {
        let account = self.accounts.get(slot.number);
        account.context("an account that there is not")
    }

    /// From now on the socket's acknowledgements go by this account; without one, nothing is confirmed. Its port
    /// is watched already.
    pub fn hold(&self, socket: &impl AsFd, slot: Option<Slot>, promised: u64) -> Result<()> {
        let (slot, generation) = slot.map_or((NO_SLOT, 0), |it| (it.number, it.generation));
        let hold = types::hold {
            slot,
            generation,
            promised,
            ..Default::default()
        };
        self.holds
            .update(&key(socket), map_value::bytes(&hold), MapFlags::ANY)
            .context("hold the socket")
    }

    /// The kernel's acknowledgements pass again.
    pub fn release(&self, socket: &impl AsFd, slot: Slot) -> Result<()> {
        self.holds
            .delete(&key(socket))
            .context("release the socket")?;
        // Also those that it sends when the socket is gone.
        self.forget_leavers(|_, of| of == slot)
    }

    /// Forgets those that have gone, so that there is room for others.
    pub fn sweep(&self) -> Result<()> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.swept.is_some_and(|at| at.elapsed() < SWEPT_EVERY) {
            return Ok(());
        }
        slots.swept = Some(Instant::now());
        drop(slots);
        self.forget_leavers(|seen, of| seen > GONE_AFTER && !self.is_living(of))
    }

    /// Whether one that has sent its FIN may have acknowledgements to send, as far as that can be told.
    pub fn has_leavers(&self) -> Result<bool> {
        let mut has = false;
        self.visit_leavers(|_, seen, _| {
            has |= seen <= GONE_AFTER;
            Ok(())
        })?;
        Ok(has)
    }

    /// The maps' descriptors: that by which held sockets are found, and those that are to be open with it.
    pub fn holds(&self) -> BorrowedFd<'_> {
        self.holds.as_fd()
    }

    /// As [`Accounts::holds`].
    pub fn leavers(&self) -> BorrowedFd<'_> {
        self.leavers.as_fd()
    }

    /// Those of which this is so, by the time since they sent something and by their slots.
    fn forget_leavers(&self, is_gone: impl Fn(Duration, Slot) -> bool) -> Result<()> {
        self.visit_leavers(|ends, seen, slot| {
            if is_gone(seen, slot) {
                // Somebody else may have been as quick.
                let _ = self.leavers.delete(ends);
            }
            Ok(())
        })
    }

    fn visit_leavers(
        &self,
        mut visit: impl FnMut(&[u8], Duration, Slot) -> Result<()>,
    ) -> Result<()> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("read the clock")?;
        let now = Duration::from(now);
        map_value::for_each(&self.leavers, |ends, leaver| {
            let leaver: types::leaver = map_value::read(leaver)?;
            let slot = Slot {
                number: leaver.slot,
                generation: leaver.generation,
            };
            visit(
                ends,
                now.saturating_sub(Duration::from_nanos(leaver.seen)),
                slot,
            )
        })
    }

    fn is_living(&self, slot: Slot) -> bool {
        let account = self.accounts.get(slot.number);
        account.is_some_and(|account| account.generation.load(Ordering::Acquire) == slot.generation)
    }

    /// How far a held socket is acknowledged; `None`: it is not held. One that goes by a living account is
    /// refused.
    pub fn promised(&self, socket: &impl AsFd) -> Result<Option<u64>> {
        let value = self.holds.lookup(&key(socket), MapFlags::ANY);
        let Some(value) = value.context("look for the socket's hold")? else {
            return Ok(None);
        };
        let hold: types::hold = map_value::read(&value)?;
        let slot = Slot {
            number: hold.slot,
            generation: hold.generation,
        };
        ensure!(!self.is_living(slot), "the socket is held already");
        Ok(Some(hold.promised))
    }
}

fn key(socket: &impl AsFd) -> [u8; 4] {
    socket.as_fd().as_raw_fd().to_ne_bytes()
}
