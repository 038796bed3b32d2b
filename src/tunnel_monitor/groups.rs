//! What passed in each virtual network and between each two hosts, since the start. It is summed up as
//! samples come, so that flows which are forgotten later still count, and asking for it costs nothing.

use std::net::IpAddr;

use super::flow::{Counts, Encap, Flow};
use super::sample::Sample;
use crate::metrics::{Kept, MOST_KEPT};

/// A virtual network: its number means something only together with how it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// How packets are packed in it.
    pub encap: Encap,
    /// Its number; 0 where there is none.
    pub vni: u32,
}

/// The hosts at the ends of a tunnel, by their outer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The one on the side of the monitored interface.
    pub local: IpAddr,
    /// The other one.
    pub remote: IpAddr,
}

/// The sums; the first [`MOST_KEPT`] networks and pairs have their own.
#[derive(Debug, Default)]
pub struct Groups {
    networks: Kept<Network, Counts>,
    pairs: Kept<Pair, Counts>,
    /// By slot: where its flow counts.
    places: Vec<Option<Place>>,
    flows: u64,
    /// Of the last sample.
    number: u64,
}

/// Where a flow counts among networks and among pairs.
#[derive(Clone, Copy, Debug)]
struct Place {
    network: u16,
    pair: u16,
}

// A place is one of so many, and one more for the rest.
const _: () = assert!(MOST_KEPT <= u16::MAX as usize);

impl Groups {
    /// Adds what passed in the second before this sample. To be called with every sample, in their order;
    /// with one that was there already nothing is added.
    pub fn update(&mut self, sample: &Sample) {
        if sample.number <= self.number {
            return;
        }
        self.number = sample.number;
        self.flows = 0;
        self.places.resize(sample.flows.len(), None);
        for (slot, flow) in sample.flows.iter().enumerate() {
            let Some(flow) = flow else {
                // Whoever comes next has another place.
                self.places[slot] = None;
                continue;
            };
            self.flows += 1;
            let place = match self.places[slot] {
                Some(place) => place,
                None => {
                    *self.places[slot].insert(place_of(&mut self.networks, &mut self.pairs, flow))
                }
            };
            let passed = sample.second.passed(slot);
            if !passed.is_zero() {
                self.networks.add(place.network.into(), passed);
                self.pairs.add(place.pair.into(), passed);
            }
        }
    }

    /// Flows in the last sample.
    pub fn flows(&self) -> u64 {
        self.flows
    }

    /// Each network, the first that was seen first. The last: all those without a sum of their own.
    pub fn networks(&self) -> impl Iterator<Item = (Option<Network>, Counts)> {
        sums(&self.networks)
    }

    /// Each pair, likewise.
    pub fn pairs(&self) -> impl Iterator<Item = (Option<Pair>, Counts)> {
        sums(&self.pairs)
    }
}

fn place_of(
    networks: &mut Kept<Network, Counts>,
    pairs: &mut Kept<Pair, Counts>,
    flow: &Flow,
) -> Place {
    let [local, remote] = flow.outer();
    let network = Network {
        encap: flow.encap,
        vni: flow.vni,
    };
    Place {
        network: networks.place(&network) as u16,
        pair: pairs.place(&Pair { local, remote }) as u16,
    }
}

fn sums<K: Copy + Eq + std::hash::Hash>(
    kept: &Kept<K, Counts>,
) -> impl Iterator<Item = (Option<K>, Counts)> {
    let own = kept.series().map(|(key, counts)| (Some(*key), *counts));
    own.chain([(None, *kept.other())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel_monitor::flow::{Inner, Outer};
    use crate::tunnel_monitor::sample::Column;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    const FLOWS: u32 = 100_000;

    fn flow(number: u32) -> Flow {
        let ends = |network: u32| Ipv4Addr::from((network << 24) | (number % 1000));
        Flow {
            encap: Encap::Vxlan,
            vni: number % 300,
            outer: Outer::V4 {
                local: ends(10),
                remote: ends(11),
            },
            inner: Inner::NotIp,
        }
    }

    fn packets(count: u64) -> Counts {
        Counts {
            tx_pkts: count,
            tx_bytes: 100 * count,
            rx_pkts: 2 * count,
            rx_bytes: 200 * count,
        }
    }

    /// The sample after `last`, with these flows and figures.
    fn next(last: &Sample, rows: impl Iterator<Item = Option<(u32, u64)>>) -> Sample {
        let rows: Vec<_> = rows.collect();
        let mut sample = last.clone();
        sample.number += 1;
        sample.flows = Arc::new(rows.iter().map(|row| Some(flow(row.as_ref()?.0))).collect());
        let figures = rows
            .iter()
            .map(|row| row.map_or(Counts::default(), |(_, count)| packets(count)));
        sample.second.before = Column::clone(&last.second.after);
        sample.second.after = Column::new(figures.collect());
        sample
    }

    fn networks(groups: &Groups) -> Vec<(Option<u32>, u64)> {
        let networks = groups
            .networks()
            .map(|(it, sum)| (it.map(|it| it.vni), sum.tx_pkts));
        networks.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn what_is_forgotten_still_counts_and_its_slot_is_another_s() {
        let mut groups = Groups::default();
        let mut sample = Sample::empty(Vec::new(), 3);
        let rounds: [&[Option<(u32, u64)>]; 5] = [
            &[Some((1, 5))],
            &[Some((1, 7)), Some((2, 1))],
            // Forgotten; then another one is in its slot.
            &[None, Some((2, 4))],
            &[Some((3, 8)), Some((2, 4))],
            &[Some((3, 9)), Some((2, 4)), Some((1, 10))],
        ];
        for rows in rounds {
            sample = next(&sample, rows.iter().copied());
            groups.update(&sample);
            groups.update(&sample);
        }
        assert_eq!(
            networks(&groups),
            [(Some(1), 17), (Some(2), 4), (Some(3), 9)]
        );
        assert_eq!(groups.flows(), 3);
        let pairs: Vec<(Option<Pair>, Counts)> = groups.pairs().collect();
        let pair = |number| Pair {
            local: Ipv4Addr::new(10, 0, 0, number).into(),
            remote: Ipv4Addr::new(11, 0, 0, number).into(),
        };
        assert_eq!(pairs[0], (Some(pair(1)), packets(17)));
        assert_eq!(pairs.last(), Some(&(None, Counts::default())));
    }

    #[test]
    fn many_flows_are_summed_up_to_the_last_packet() {
        let mut groups = Groups::default();
        let empty = Sample::empty(Vec::new(), FLOWS);
        let rows = |times: u64| {
            (0..FLOWS).map(move |number| Some((number, times * u64::from(number % 7))))
        };
        let one = next(&empty, rows(1));
        let two = next(&one, rows(3));
        for sample in [&one, &two] {
            groups.update(sample);
            let all: Counts = sample.rows().map(|row| row.total).sum();
            assert_eq!(groups.networks().map(|(_, sum)| sum).sum::<Counts>(), all);
            assert_eq!(groups.pairs().map(|(_, sum)| sum).sum::<Counts>(), all);
        }
        assert_eq!(groups.networks().count(), MOST_KEPT + 1);
        assert_eq!(groups.flows(), u64::from(FLOWS));
    }
}
