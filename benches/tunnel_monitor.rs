//! What a packet costs in the programs of tunnel_monitor: `make bench`.

use std::mem::MaybeUninit;

use anyhow::{Result, ensure};
use netbpf::tunnel_monitor::{Monitor, Setup};
use testbed::packet::Packet;

mod cost;

use cost::Case;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn main() -> Result<()> {
    let mut object = MaybeUninit::uninit();
    let monitor = Monitor::load(&Setup::default(), &mut object)?;
    let programs = &monitor.skeleton().progs;
    let (ingress, egress) = (&programs.handle_ingress, &programs.handle_egress);
    let four = |inner: &[u8]| {
        let outer = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
        outer.udp(0xc001, 4789).payload(inner).build()
    };
    let six = |inner: &[u8]| {
        let ends = [0x2001_0db8_u128 << 96 | 2, 0x2001_0db8 << 96 | 1];
        let outer = Packet::ethernet(A, B).ipv6(ends[0], ends[1]);
        outer.udp(0xc001, 4789).payload(inner).build()
    };
    let inner4 = Packet::ethernet(A, B).ipv4([10, 0, 0, 2], [10, 0, 0, 1]);
    let inner4 = vxlan(&inner4.icmp(8, 0, [0; 4]).payload_of(56).build());
    let inner6 = Packet::ethernet(A, B).ipv6(0xfd << 120 | 2_u128, 0xfd << 120 | 1_u128);
    let inner6 = vxlan(&inner6.icmpv6(128, 0, [0; 4]).payload_of(56).build());
    let tcp = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
    let tcp = tcp.tcp(1000, 80).payload_of(1000).build();
    let dns = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
    let dns = dns.udp(1000, 53).payload_of(50).build();
    let frames = [
        ("VXLAN, IPv4 in IPv4, ingress", ingress, four(&inner4)),
        ("VXLAN, IPv4 in IPv4, egress", egress, four(&inner4)),
        ("VXLAN, IPv6 in IPv4", ingress, four(&inner6)),
        ("VXLAN, IPv4 in IPv6", ingress, six(&inner4)),
        ("VXLAN, IPv6 in IPv6", ingress, six(&inner6)),
        ("TCP", ingress, tcp),
        ("other UDP", ingress, dns),
        ("ARP", ingress, cost::arp()),
    ];
    let cases: Vec<Case<'_>> = frames
        .iter()
        .map(|(name, program, packet)| Case {
            name,
            program,
            packet,
        })
        .collect();
    cost::print(&cases)?;
    ensure!(monitor.slots_used() == 5, "something else was measured");
    Ok(())
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0x27, 0x10, 0], inner].concat()
}
