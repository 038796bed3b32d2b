//! Samples without a data plane: what a test says was counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netbpf::tunnel_monitor::{Column, Counts, Encap, Flow, Inner, Outer, Sample, Span};
use testbed::step;

/// A flow; the inner addresses are `None` for what is not IP.
pub fn flow(encap: Encap, vni: u32, outer: [&str; 2], inner: Option<[&str; 2]>) -> Flow {
    let parsed = |ends: [&str; 2]| ends.map(|end| step(end, end.parse::<IpAddr>()));
    let outer = match parsed(outer) {
        [IpAddr::V4(local), IpAddr::V4(remote)] => Outer::V4 { local, remote },
        [IpAddr::V6(local), IpAddr::V6(remote)] => Outer::V6(Box::new([local, remote])),
        _ => panic!("both of one kind"),
    };
    let inner = match inner.map(parsed) {
        None => Inner::NotIp,
        Some([IpAddr::V4(local), IpAddr::V4(remote)]) => Inner::V4 { local, remote },
        Some([IpAddr::V6(local), IpAddr::V6(remote)]) => Inner::V6(Box::new([local, remote])),
        Some(_) => panic!("both of one kind"),
    };
    Flow {
        encap,
        vni,
        outer,
        inner,
    }
}

/// One of many flows of the usual kind.
pub fn usual(number: u32) -> Flow {
    let [_, b, c, d] = number.to_be_bytes();
    let (local, remote) = (format!("192.168.{c}.{d}"), format!("10.{b}.{c}.{d}"));
    let peer = format!("172.16.{}.{}", 1 + number % 4, 101 + number % 100);
    let inner = Some([local.as_str(), remote.as_str()]);
    flow(
        Encap::Vxlan,
        10000 + number % 8,
        ["172.16.1.100", &peer],
        inner,
    )
}

pub fn counts(tx_pkts: u64, tx_bytes: u64, rx_pkts: u64, rx_bytes: u64) -> Counts {
    Counts {
        tx_pkts,
        tx_bytes,
        rx_pkts,
        rx_bytes,
    }
}

/// What was counted so far.
pub struct Table {
    flows: Arc<Vec<Option<Flow>>>,
    counts: Vec<Counts>,
    began: SystemTime,
    /// Where the window that is running began.
    window: (SystemTime, Column),
    last: Sample,
}

impl Table {
    pub fn new(interfaces: &[&str]) -> Table {
        let names = interfaces.iter().map(|name| (*name).to_owned()).collect();
        let last = Sample::empty(names, 1024);
        Table {
            flows: Arc::default(),
            counts: Vec::new(),
            began: last.time,
            window: (last.time, Column::default()),
            last,
        }
    }

    pub fn with(flows: u32) -> Table {
        let mut table = Table::new(&["eth0"]);
        for number in 0..flows {
            table.count(number as usize, &usual(number), counts(1, 100, 2, 300));
        }
        table
    }

    pub fn last(&self) -> Arc<Sample> {
        Arc::new(self.last.clone())
    }

    /// So much passes for a flow, which has this slot.
    pub fn count(&mut self, slot: usize, flow: &Flow, passed: Counts) {
        if self.flows.len() <= slot || self.flows[slot].is_none() {
            let flows = Arc::make_mut(&mut self.flows);
            flows.resize(flows.len().max(slot + 1), None);
            flows[slot] = Some(flow.clone());
        }
        assert_eq!(self.flows[slot].as_ref(), Some(flow));
        self.counts.resize(self.flows.len(), Counts::default());
        self.counts[slot] += passed;
        self.last.totals += passed;
    }

    /// The flow is taken out: it is in no sample from the next one on.
    pub fn take_out(&mut self, slot: usize) {
        let flow = Arc::make_mut(&mut self.flows)[slot].take();
        assert!(flow.is_some(), "nobody is in slot {slot}");
        self.last.forgotten += std::mem::take(&mut self.counts[slot]);
        self.last.forgotten_flows += 1;
    }

    /// A sample, a second after the one before; it may end the window.
    pub fn sample(&mut self, ends_window: bool) -> Arc<Sample> {
        let column = Arc::new(self.counts.clone());
        let sample = &mut self.last;
        let before = sample.time;
        sample.number += 1;
        sample.time += Duration::from_secs(1);
        sample.elapsed += Duration::from_secs(1);
        sample.window_age += Duration::from_secs(1);
        sample.flows = Arc::clone(&self.flows);
        sample.second = Span {
            from: before,
            to: sample.time,
            length: Duration::from_secs(1),
            before: Arc::clone(&sample.second.after),
            after: Arc::clone(&column),
        };
        if ends_window {
            let (from, before) = &self.window;
            sample.window = Span {
                from: *from,
                to: sample.time,
                length: step("the window", sample.time.duration_since(*from)),
                before: Arc::clone(before),
                after: Arc::clone(&column),
            };
            sample.window_age = Duration::ZERO;
            self.window = (sample.time, column);
        }
        assert!(sample.time > self.began);
        Arc::new(sample.clone())
    }
}
