//! How much may be held back, and for how long.
//!
//! A peer whose window is full of what nobody confirms sends nothing more, and whoever waits for more before he
//! confirms waits for ever; and a peer who is not answered for long enough takes the connection for dead. Both
//! are known before they happen: that is what bounds are for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::accounts::Account;

/// `BOUND_...` of the BPF program.
const BYTES: u64 = 1;
const TIME: u64 = 2;
const RELEASED: u64 = 4;

/// Where a hold comes to its end; `Default` has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// More bytes are not held back. `None`: as many as the socket's buffer takes.
    pub bytes: Option<u64>,
    /// A byte is not held back for longer. Between once and twice that time it is noticed, with the next
    /// segment that the socket sends; the peer asks for one when nothing is acknowledged, every time after
    /// twice as long. `None`: for ever.
    pub time: Option<Duration>,
    /// What happens there.
    pub at_bound: AtBound,
}

/// What happens when a bound is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtBound {
    /// It is said, by [`Held::reached`](super::Held::reached), and the hold goes on.
    #[default]
    Keep,
    /// It is said, and the kernel acknowledges from then on as it likes, what was not confirmed too.
    Release,
}

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Too much was held back.
    Bytes(AtBound),
    /// Something was held back for too long.
    Time(AtBound),
}

impl Bounds {
    pub(super) fn set(&self, account: &Account) {
        // A bound of 0 would be none to the program.
        let bytes = self.bytes.map_or(0, |bytes| bytes.max(1));
        let time = self.time.map_or(0, nanoseconds);
        let is_released = u32::from(self.at_bound == AtBound::Release);
        let to = |word: &AtomicU64, value| word.store(value, Ordering::Release);
        account
            .is_released_at_bound
            .store(is_released, Ordering::Release);
        to(&account.most_bytes, bytes);
        to(&account.longest, time);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl Reached {
    /// What the program has said. A hold that goes on may come to its bound again, and it is said again.
    pub(super) fn take(account: &Account) -> Option<Reached> {
        // In one step: the program may write down the next one at any time.
        let taken = account
            .reached
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |reached| {
                (reached & RELEASED == 0).then_some(0)
            });
        // It stays where the hold is over.
        let reached = taken.unwrap_or_else(|stays| stays);
        let what = if reached & RELEASED != 0 {
            AtBound::Release
        } else {
            AtBound::Keep
        };
        match reached & !RELEASED {
            BYTES => Some(Reached::Bytes(what)),
            TIME => Some(Reached::Time(what)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    #[test]
    fn a_bound_is_told_once_and_a_release_always() {
        let account = Account::default();
        assert_eq!(Reached::take(&account), None);
        account.reached.store(TIME, Ordering::Release);
        let kept = Some(Reached::Time(AtBound::Keep));
        assert_eq!(Reached::take(&account), kept);
        assert_eq!(Reached::take(&account), None);
        account.reached.store(BYTES | RELEASED, Ordering::Release);
        let released = Some(Reached::Bytes(AtBound::Release));
        assert_eq!(Reached::take(&account), released);
        assert_eq!(Reached::take(&account), released);
    }

    /// The program writes one down whenever the one before was taken, at whatever step of the next taking that is.
    #[test]
    fn none_is_lost_that_is_reached_while_it_is_looked_for() {
        const ROUNDS: u64 = 100_000;
        /// More than a busy machine keeps a thread waiting; one that was lost stays away for ever.
        const WITHIN: Duration = Duration::from_secs(20);
        let account = Account::default();
        let taken = AtomicU64::new(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    account.reached.store(BYTES, Ordering::Release);
                    while taken.load(Ordering::Acquire) <= round && !is_over.load(Ordering::Acquire)
                    {
                        std::thread::yield_now();
                    }
                }
            });
            let mut last = Instant::now();
            for count in 1..=ROUNDS {
                while Reached::take(&account).is_none() {
                    is_over.store(last.elapsed() > WITHIN, Ordering::Release);
                    assert!(!is_over.load(Ordering::Acquire), "number {count} was lost");
                }
                last = Instant::now();
                taken.store(count, Ordering::Release);
            }
        });
    }
}
