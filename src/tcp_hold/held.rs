//! A socket that is held.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::accounts::{Account, Accounts, Slot};
use super::bounds::{Bounds, Reached};
use super::connection::{Habits, Progress};

/// A socket whose peer is told of no byte that was not confirmed. It is used as the socket that it is; whoever
/// drops it closes it, and the peer gets a reset, unless it was released.
#[derive(Debug)]
pub struct Held<S: AsFd> {
    socket: S,
    own: Own,
    habits: Habits,
    exposed: u64,
}

/// The account, which is somebody else's afterwards.
#[derive(Debug)]
struct Own {
    accounts: Arc<Accounts>,
    slot: Slot,
}

impl Own {
    fn account(&self) -> Result<&Account> {
        self.accounts.get(self.slot)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.accounts.end(self.slot);
    }
}

impl<S: AsFd> Held<S> {
    pub(super) fn begin(
        socket: S,
        accounts: &Arc<Accounts>,
        slot: Slot,
        promised: u64,
        exposed: u64,
    ) -> Result<Held<S>> {
        let accounts = Arc::clone(accounts);
        let own = Own { accounts, slot };
        let habits = Habits::suspend(&socket)?;
        if let Err(error) = own.accounts.hold(&socket, Some(slot), promised) {
            habits.resume(&socket)?;
            return Err(error);
        }
        Ok(Held {
            socket,
            own,
            habits,
            exposed,
        })
    }

    /// So many bytes more were read and dealt with. They are acknowledged with whatever the socket sends next;
    /// [`Held::announce`] does not wait for that. Nobody may confirm what was not read.
    pub fn confirm(&self, bytes: u64) -> Result<()> {
        let account = self.own.account()?;
        account.confirmed.fetch_add(bytes, Ordering::Release);
        Ok(())
    }

    /// Tells the peer what was confirmed, unless it knows already; once for many confirmations is enough. Says
    /// whether it was necessary. It takes CAP_NET_ADMIN in this thread. Once the peer has sent its FIN there
    /// is nothing that this could send: what is confirmed then leaves with the answer to the peer's next
    /// segment, for as long as this value lives.
    pub fn announce(&self) -> Result<bool> {
        let account = self.own.account()?;
        let confirmed = account.confirmed.load(Ordering::Acquire);
        if account.promised.load(Ordering::Acquire) >= confirmed {
            return Ok(false);
        }
        account.is_probe_wanted.store(1, Ordering::Release);
        self.habits.probe(&self.socket)?;
        Ok(true)
    }

    /// Bytes that were confirmed, from the first one of the connection on.
    pub fn confirmed(&self) -> Result<u64> {
        Ok(self.own.account()?.confirmed.load(Ordering::Acquire))
    }

    /// Bytes that the peer was told to have arrived.
    pub fn promised(&self) -> Result<u64> {
        Ok(self.own.account()?.promised.load(Ordering::Acquire))
    }

    /// Bytes that were read from it.
    pub(super) fn read(&self) -> Result<u64> {
        Ok(self.progress()?.read)
    }

    /// Bytes that had come before it was held and that nobody had read: they may have been acknowledged.
    pub fn exposed(&self) -> u64 {
        self.exposed
    }

    /// Bounds this hold; without, it has none. They are kept by the kernel, also where this process hangs.
    pub fn bound(&self, bounds: &Bounds) -> Result<()> {
        bounds.set(self.own.account()?);
        Ok(())
    }

    /// Whether a bound was reached: since the last time that this was asked, or once and for all where that
    /// released the socket. Then it is for the application to take it back by [`Held::release`].
    pub fn reached(&self) -> Result<Option<Reached>> {
        Ok(Reached::take(self.own.account()?))
    }

    /// Every byte that has come is confirmed. Nobody may be reading meanwhile. Where we have left first, the
    /// peer's FIN passes for a byte until it was sent again and answered.
    pub fn is_settled(&self) -> Result<bool> {
        Ok(self.confirmed()? >= self.progress()?.received)
    }

    /// Whether the peer's FIN has come, as far as the BPF program knows.
    pub(super) fn has_ended(&self) -> Result<bool> {
        Ok(self.own.account()?.has_ended.load(Ordering::Acquire) != 0)
    }

    fn progress(&self) -> Result<Progress> {
        Progress::of(&self.socket, self.has_ended()?)
    }

    /// Lets the kernel acknowledge as it likes, what was not confirmed too, and gives the socket back as it was.
    pub fn release(self) -> Result<S> {
        self.own.accounts.release(&self.socket, self.own.slot)?;
        self.habits.resume(&self.socket)?;
        self.habits.probe(&self.socket)?;
        Ok(self.socket)
    }
}

impl<S: AsFd> Deref for Held<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsFd> DerefMut for Held<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.socket
    }
}
