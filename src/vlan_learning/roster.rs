//! Which clients there are: each has a number, by which the BPF program knows it, and keeps it as long as
//! it stays with its worker.

use std::collections::BTreeMap;

use crate::mac::Mac;

/// A client that is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its row in every map of clients.
    pub number: u32,
    /// ifindex of its worker's interface.
    pub port: u32,
}

/// Everybody, by MAC address.
#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<Mac, Member>,
    /// Numbers that were somebody's.
    free: Vec<u32>,
    /// Numbers from here on have not been anybody's.
    next: u32,
}

/// From one roster to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New, or with another worker than before.
    pub added: Vec<(Mac, u32)>,
    /// Gone, or with another worker from now on.
    pub removed: Vec<(Mac, Member)>,
}

impl Roster {
    /// What is to be done so that these, by their workers' interfaces, are the clients.
    pub fn difference(&self, wanted: &BTreeMap<Mac, u32>) -> Difference {
        let added = wanted
            .iter()
            .filter(|(mac, port)| self.members.get(mac).map(|member| member.port) != Some(**port));
        let removed = self
            .members
            .iter()
            .filter(|(mac, member)| wanted.get(mac) != Some(&member.port));
        Difference {
            added: added.map(|(mac, port)| (*mac, *port)).collect(),
            removed: removed.map(|(mac, member)| (*mac, *member)).collect(),
        }
    }

    /// Gives a client a number. Whether it has been somebody's before, and left something behind.
    pub fn add(&mut self, mac: Mac, port: u32) -> (Member, bool) {
        let (number, used) = match self.free.pop() {
            Some(number) => (number, true),
            None => {
                self.next += 1;
                (self.next - 1, false)
            }
        };
        let member = Member { number, port };
        self.members.insert(mac, member);
        (member, used)
    }

    /// Nobody has the number any more, and no BPF program is still at it.
    pub fn free(&mut self, member: Member) {
        self.free.push(member.number);
    }

    /// Takes a client off; its number is to be freed later.
    pub fn remove(&mut self, mac: Mac) {
        self.members.remove(&mac);
    }

    /// How many more there could be with `room` numbers.
    pub fn left(&self, room: u32) -> usize {
        (room - self.next) as usize + self.free.len()
    }

    /// Everybody.
    pub fn members(&self) -> &BTreeMap<Mac, Member> {
        &self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u64) -> Mac {
        Mac::from_number(number)
    }

    #[test]
    fn who_stays_with_his_worker_keeps_his_number() {
        let mut roster = Roster::default();
        for i in 1..=3 {
            roster.add(mac(i), 10);
        }
        let wanted = BTreeMap::from([(mac(1), 10), (mac(2), 11), (mac(4), 10)]);
        let difference = roster.difference(&wanted);
        assert_eq!(difference.added, [(mac(2), 11), (mac(4), 10)]);
        let removed: Vec<u32> = difference.removed.iter().map(|(_, m)| m.number).collect();
        assert_eq!(removed, [1, 2]);
        for (gone, member) in difference.removed {
            roster.remove(gone);
            roster.free(member);
        }
        assert_eq!(roster.left(4), 3);
        let numbers: Vec<(u32, bool)> = difference
            .added
            .iter()
            .map(|(mac, port)| roster.add(*mac, *port))
            .map(|(member, used)| (member.number, used))
            .collect();
        assert_eq!(numbers, [(2, true), (1, true)]);
        assert_eq!(roster.difference(&wanted), Difference::default());
        assert_eq!(roster.members()[&mac(1)].number, 0);
    }
}
