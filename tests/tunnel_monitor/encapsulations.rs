//! One packet of each encapsulation, byte by byte.

use netbpf::tunnel_monitor::{Counts, Encap, Flow, Inner, Outer, Setup};

use crate::rig::{self, Side};

/// An Ethernet header, 192.0.2.2 > 192.0.2.1 in UDP to 4789, VNI 10000, and inside 10.0.0.2 > 10.0.0.1.
#[rustfmt::skip]
const VXLAN: [u8; 84 + 8] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
    0x45, 0, 0, 78, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
    0xc0, 0x01, 0x12, 0xb5, 0, 58, 0, 0,
    0x08, 0, 0, 0, 0x00, 0x27, 0x10, 0,
    2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 4, 0x08, 0x00,
    0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
    8, 0, 0, 0, 0, 1, 0, 1,
];

#[test]
fn vxlan() {
    rig::run("vxlan", Setup::default(), |rig| {
        rig.pass(Side::Ingress, &VXLAN);
        rig.pass(Side::Ingress, &VXLAN);
        let flow = Flow {
            encap: Encap::Vxlan,
            vni: 10_000,
            outer: Outer::V4 {
                local: [192, 0, 2, 1].into(),
                remote: [192, 0, 2, 2].into(),
            },
            inner: Inner::V4 {
                local: [10, 0, 0, 1].into(),
                remote: [10, 0, 0, 2].into(),
            },
        };
        let counts = Counts {
            rx_pkts: 2,
            rx_bytes: 2 * 92,
            ..Counts::default()
        };
        assert_eq!(rig.flows(), [(flow, counts)], "{:?}", rig.tally());
        assert_eq!(rig.tally().totals, counts);
    });
}
