//! Flows and figures that the tests of the parts have in common.

use std::net::Ipv4Addr;

use super::picture::{Head, Known, Update};
use crate::tunnel_monitor::flow::{Counts, Encap, Flow, Inner, Outer};

/// As many of everything.
pub(super) fn counts(number: u64) -> Counts {
    Counts {
        tx_pkts: number,
        tx_bytes: number,
        rx_pkts: number,
        rx_bytes: number,
    }
}

/// Host 1 to `host`, in a network and between clients that follow from it.
pub(super) fn flow(host: u8) -> Flow {
    Flow {
        encap: Encap::Vxlan,
        vni: 10_000 + u32::from(host % 4),
        outer: Outer::V4 {
            local: Ipv4Addr::new(172, 16, 0, 1),
            remote: Ipv4Addr::new(172, 16, 0, host),
        },
        inner: Inner::V4 {
            local: Ipv4Addr::new(10, 0, host % 4, 1),
            remote: Ipv4Addr::new(10, 0, host % 4, host),
        },
    }
}

/// Silent.
pub(super) fn known(host: u8) -> Known {
    Known {
        flow: flow(host),
        total: Counts::default(),
        second: Counts::default(),
        window: Counts::default(),
        since: Counts::default(),
    }
}

pub(super) fn head(number: u64) -> Head {
    Head {
        number,
        elapsed: number as f64,
        second: 1.0,
        window: 5.0,
        interfaces: vec!["h0-eth0".into()],
        capacity: 65_536,
        ..Head::default()
    }
}

pub(super) fn update(number: u64, is_snapshot: bool, rows: Vec<(u32, Known)>) -> Update {
    Update {
        head: head(number),
        is_snapshot,
        gone: Vec::new(),
        rows,
    }
}
