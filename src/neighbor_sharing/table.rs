//! The table of learned addresses as user space sees it: read, and freed of those who fell silent.

use std::net::IpAddr;

use anyhow::{Context, Result};
use libbpf_rs::{Map, MapCore, MapFlags};

use super::skeleton::types;
use super::{Counter, PerWay};
use crate::map_value;

/// Slots below this one belong to no address (`SLOT_UNKNOWN_…` in the BPF program).
pub const FIRST_SLOT: u32 = 2;
/// A slot has 16 bits in the table.
pub const MOST_ADDRESSES: u32 = 0xffff - FIRST_SLOT + 1;

/// An address that has an owner.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    /// The address.
    pub ip: IpAddr,
    /// ifindex of the port that owns it.
    pub port: u32,
    /// The class of that port.
    pub class: u16,
    slot: u16,
    /// The tick of its last packet.
    pub seen: u64,
}

/// The maps of the table. All of this works without any capability once they are open.
pub struct Table<'a> {
    pub learned4: &'a Map<'a>,
    pub learned6: &'a Map<'a>,
    pub free_slots: &'a Map<'a>,
    pub address_counts: &'a Map<'a>,
    pub port_use: &'a Map<'a>,
    pub port_forgotten: &'a Map<'a>,
}

impl Table<'_> {
    /// Hands `count` slots to the BPF programs, once, before they are attached. The last one pushed is
    /// the first one popped, and the low ones are worth most: they fit the tag.
    pub fn fill_slots(&self, count: u32) -> Result<()> {
        let slots = FIRST_SLOT..FIRST_SLOT + count;
        slots.rev().try_for_each(|slot| self.free(slot))
    }

    fn free(&self, slot: u32) -> Result<()> {
        self.free_slots
            .update(&[], &slot.to_ne_bytes(), MapFlags::ANY)
            .with_context(|| format!("free slot {slot}"))
    }

    /// Every address that has an owner.
    pub fn addresses(&self) -> Result<Vec<Learned>> {
        let mut addresses = Vec::new();
        for map in [self.learned4, self.learned6] {
            for (key, value) in map_value::entries(map)? {
                let entry: types::learned = map_value::read(&value)?;
                addresses.push(Learned {
                    ip: ip_of(&key)?,
                    port: entry.owner.port,
                    class: entry.owner.class,
                    slot: entry.owner.slot,
                    seen: entry.seen,
                });
            }
        }
        Ok(addresses)
    }

    /// What was counted for an address.
    pub fn counts(&self, learned: &Learned) -> Result<PerWay<Counter>> {
        self.counts_in(u32::from(learned.slot))
    }

    /// What was counted in a slot, all CPUs together.
    pub fn counts_in(&self, slot: u32) -> Result<PerWay<Counter>> {
        let values = self
            .address_counts
            .lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)?
            .with_context(|| format!("address_counts has no slot {slot}"))?;
        let mut sum = PerWay::<Counter>::default();
        for count in map_value::read_each::<types::address_count>(&values)? {
            let [download, upload] = count.meters;
            sum.download += Counter::from(download);
            sum.upload += Counter::from(upload);
        }
        Ok(sum)
    }

    /// Removes an address; returns the port that owned it last, and what was counted for it. A packet
    /// that found the entry in this very moment is counted for its class, but perhaps no more for its
    /// address; and an address that speaks in this very moment is learned anew with its next packet.
    pub fn forget(&self, learned: &Learned) -> Result<Option<(u32, PerWay<Counter>)>> {
        let deleted = match learned.ip {
            IpAddr::V4(ip) => self.learned4.lookup_and_delete(&ip.octets()),
            IpAddr::V6(ip) => self.learned6.lookup_and_delete(&ip.octets()),
        };
        let deleted = deleted.with_context(|| format!("forget {}", learned.ip))?;
        let Some(deleted) = deleted else {
            return Ok(None);
        };
        let last: types::learned = map_value::read(&deleted)?;
        let slot = u32::from(last.owner.slot);
        let counts = self.counts_in(slot)?;
        map_value::clear_each(self.address_counts, &slot.to_ne_bytes())?;
        self.free(slot)?;
        Ok(Some((last.owner.port, counts)))
    }

    /// What the BPF programs have learned and released at a port.
    pub fn port_use(&self, row: u32) -> Result<(u64, u64)> {
        let value = self.port_use.lookup(&row.to_ne_bytes(), MapFlags::ANY)?;
        let value = value.with_context(|| format!("port_use has no row {row}"))?;
        let owned: types::port_use = map_value::read(&value)?;
        Ok((owned.learned, owned.released))
    }

    /// Addresses that the port owns now. What is read is written by others meanwhile, so the sum may
    /// be off by a few.
    pub fn owned_by(&self, row: u32) -> Result<u64> {
        let (learned, released) = self.port_use(row)?;
        let owned = learned
            .wrapping_sub(released)
            .wrapping_sub(self.forgotten(row)?);
        Ok(owned.cast_signed().max(0).unsigned_abs())
    }

    /// One address of the port was forgotten.
    pub fn give_back(&self, row: u32) -> Result<()> {
        self.set_forgotten(row, self.forgotten(row)?.wrapping_add(1))
    }

    /// The port owns so many, whatever was counted: an owner may change in the moment in which its
    /// address is forgotten, and such a thing must not add up.
    pub fn set_owned(&self, row: u32, owned: u64) -> Result<()> {
        let (learned, released) = self.port_use(row)?;
        let forgotten = learned.wrapping_sub(released).wrapping_sub(owned);
        if forgotten == self.forgotten(row)? {
            return Ok(());
        }
        self.set_forgotten(row, forgotten)
    }

    fn forgotten(&self, row: u32) -> Result<u64> {
        let value = self
            .port_forgotten
            .lookup(&row.to_ne_bytes(), MapFlags::ANY)?;
        let value = value.with_context(|| format!("port_forgotten has no row {row}"))?;
        map_value::read(&value)
    }

    fn set_forgotten(&self, row: u32, forgotten: u64) -> Result<()> {
        let (key, value) = (row.to_ne_bytes(), forgotten.to_ne_bytes());
        Ok(self.port_forgotten.update(&key, &value, MapFlags::ANY)?)
    }
}

fn ip_of(key: &[u8]) -> Result<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(key) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(key).context("a key of learned_ips6 has 16 bytes")?;
    Ok(octets.into())
}

impl From<types::meter> for Counter {
    fn from(meter: types::meter) -> Counter {
        Counter {
            packets: meter.packets,
            bytes: meter.bytes,
            dropped_packets: meter.dropped_packets,
            dropped_bytes: meter.dropped_bytes,
        }
    }
}
