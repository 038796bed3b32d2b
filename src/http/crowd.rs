//! Who is connected, and who has to go when there are too many.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::time::Instant;

use tokio::task::AbortHandle;

/// So many connections of one peer are none too many: whoever has more is the first to lose one.
const FAIR: usize = 16;

/// All connections.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    /// By the order of their arrival.
    entries: BTreeMap<u64, Rc<Entry>>,
    arrivals: u64,
}

/// A connection among the others, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Weak<RefCell<Crowd>>,
    number: u64,
    entry: Rc<Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    /// Answers on their way.
    busy: Cell<usize>,
    /// When it came, began or ended an answer.
    last: Cell<Instant>,
    task: RefCell<Option<AbortHandle>>,
}

/// Whom an address belongs to: this machine, one host of IPv4, one network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Peer {
    Loopback,
    V4(u32),
    /// The first 64 bits: hosts choose the others as they like.
    V6(u64),
}

impl Peer {
    fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            address if address.is_loopback() => Peer::Loopback,
            IpAddr::V4(address) => Peer::V4(address.to_bits()),
            IpAddr::V6(address) => Peer::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Crowd {
    pub(super) fn new(most: usize) -> Crowd {
        Crowd {
            most,
            entries: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Lets one more in; where that is one too many, somebody has to go.
    pub(super) fn admit(crowd: &Rc<RefCell<Crowd>>, address: IpAddr) -> Rc<Place> {
        let entry = Rc::new(Entry {
            peer: Peer::of(address),
            busy: Cell::new(0),
            last: Cell::new(Instant::now()),
            task: RefCell::new(None),
        });
        let mut all = crowd.borrow_mut();
        if all.entries.len() >= all.most {
            all.send_away(Some(entry.peer));
        }
        all.arrivals += 1;
        let number = all.arrivals;
        all.entries.insert(number, Rc::clone(&entry));
        Rc::new(Place {
            crowd: Rc::downgrade(crowd),
            number,
            entry,
        })
    }

    /// Ends one connection, for want of something else than places.
    pub(super) fn make_room(&mut self) {
        self.send_away(None);
    }

    /// Ends a connection of the peer that has the most, the newcomer included, if one has more than is
    /// fair; otherwise of anybody. Rather one that waits for a request than one that is being answered,
    /// and the one that has been at it for the longest.
    fn send_away(&mut self, newcomer: Option<Peer>) {
        let mut counts: HashMap<Peer, usize> = HashMap::new();
        let present = self.entries.values().map(|entry| entry.peer);
        for peer in present.chain(newcomer) {
            *counts.entry(peer).or_default() += 1;
        }
        let order = |entry: &Entry| {
            let count = counts.get(&entry.peer).copied().unwrap_or_default();
            let waits = entry.busy.get() == 0;
            (count.max(FAIR), waits, Reverse(entry.last.get()))
        };
        let last = self.entries.iter().max_by_key(|(_, entry)| order(entry));
        let Some((number, entry)) = last else {
            return;
        };
        if let Some(task) = entry.task.borrow().as_ref() {
            task.abort();
        }
        // Its place is free at once; what it holds is when its task has been looked at.
        let number = *number;
        self.entries.remove(&number);
    }
}

impl Place {
    /// What is to be ended when this one has to go.
    pub(super) fn is_held_by(&self, task: AbortHandle) {
        *self.entry.task.borrow_mut() = Some(task);
    }

    /// An answer begins.
    pub(super) fn begin(&self) -> Busy {
        let entry = Rc::clone(&self.entry);
        entry.busy.set(entry.busy.get() + 1);
        entry.last.set(Instant::now());
        Busy(entry)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(crowd) = self.crowd.upgrade() {
            crowd.borrow_mut().entries.remove(&self.number);
        }
    }
}

/// While an answer is on its way.
#[derive(Debug)]
pub(super) struct Busy(Rc<Entry>);

impl Drop for Busy {
    fn drop(&mut self) {
        let Busy(entry) = self;
        entry.busy.set(entry.busy.get().saturating_sub(1));
        entry.last.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(most: usize) -> Rc<RefCell<Crowd>> {
        Rc::new(RefCell::new(Crowd::new(most)))
    }

    fn admit(crowd: &Rc<RefCell<Crowd>>, from: &str) -> Rc<Place> {
        Crowd::admit(crowd, from.parse().unwrap())
    }

    fn is_there(place: &Place) -> bool {
        let crowd = place.crowd.upgrade().unwrap();
        crowd.borrow().entries.contains_key(&place.number)
    }

    fn there(places: &[Rc<Place>]) -> Vec<bool> {
        places.iter().map(|place| is_there(place)).collect()
    }

    #[test]
    fn the_one_that_waits_for_the_longest_goes_first() {
        let crowd = crowd(3);
        let places = ["127.0.0.1"; 3].map(|from| admit(&crowd, from));
        let busy = places[0].begin();
        let fourth = admit(&crowd, "::1");
        assert_eq!(there(&places), [true, false, true]);
        // All are busy: the oldest goes. Places 2 and the fourth began later than the first.
        let _others = [places[2].begin(), fourth.begin()];
        let fifth = admit(&crowd, "127.0.0.1");
        assert_eq!(there(&places), [false, false, true]);
        assert!(is_there(&fourth) && is_there(&fifth));
        drop(busy);
        // What goes by itself leaves room.
        drop(fifth);
        let _sixth = admit(&crowd, "127.0.0.1");
        assert_eq!(there(&places), [false, false, true]);
    }

    #[test]
    fn a_peer_with_many_connections_drives_nobody_else_out() {
        let crowd = crowd(FAIR + 4);
        let other = admit(&crowd, "192.0.2.1");
        let many: Vec<_> = (0..100).map(|_| admit(&crowd, "192.0.2.2")).collect();
        assert!(is_there(&other));
        let left = there(&many);
        assert_eq!(left.iter().filter(|there| **there).count(), FAIR + 3);
        assert!(left[100 - FAIR - 3..].iter().all(|there| *there));
        // One more of another peer: one of the many goes, although the other waits for longer.
        let another = admit(&crowd, "::ffff:192.0.2.3");
        assert!(is_there(&other) && is_there(&another));
        assert!(!is_there(&many[100 - FAIR - 3]));
    }

    #[test]
    fn many_peers_with_few_connections_make_those_go_that_wait() {
        let crowd = crowd(8);
        // Several of one peer are no reason to go while they are few.
        let tabs: Vec<_> = (0..6).map(|_| admit(&crowd, "192.0.2.1")).collect();
        let _busy: Vec<_> = tabs.iter().map(|tab| tab.begin()).collect();
        for peer in 10..200 {
            drop(admit(&crowd, &format!("192.0.2.{peer}")));
        }
        let strangers: Vec<_> = (10..200)
            .map(|peer| admit(&crowd, &format!("192.0.2.{peer}")))
            .collect();
        assert_eq!(there(&tabs), [true; 6]);
        let left = there(&strangers).into_iter().filter(|there| *there).count();
        assert_eq!(left, 2);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_this_machine_is() {
        let same = |a: &str, b: &str| Peer::of(a.parse().unwrap()) == Peer::of(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("127.0.0.1", "127.9.9.9"));
        assert!(same("127.0.0.1", "::1"));
        assert!(same("::ffff:127.0.0.1", "::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn without_anybody_nobody_goes() {
        crowd(1).borrow_mut().make_room();
    }
}
