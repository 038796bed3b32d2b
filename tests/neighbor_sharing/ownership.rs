//! Who owns an address: the first owner while it is fresh, each port up to its quota.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netbpf::neighbor_sharing::{Class, Way};
use testbed::packet::{BROADCAST, Packet, truncations};
use testbed::{long, skip};

use crate::rig::{
    self, DROP, FIRST_SLOT, LAN_1, LAN_2, NEIGHBOR_1, NEIGHBOR_2, Outcome, PASS, PORTS, Rig, Setup,
    TICKS, UNKNOWN_UPLOAD, dropped, events, passed, tag, there,
};
use crate::seed;

/// Of `Setup::default()`.
const FORGET: u64 = 1000;

const A: [u8; 4] = [172, 16, 1, 100];

fn from(source: IpAddr) -> Vec<u8> {
    let ethernet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = match source {
        IpAddr::V4(source) => ethernet.ipv4(source, [192, 0, 2, 1]),
        IpAddr::V6(source) => ethernet.ipv6(source, [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]),
    };
    packet.udp(1, 2).build()
}

fn to(destination: IpAddr) -> Vec<u8> {
    let ethernet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = match destination {
        IpAddr::V4(destination) => ethernet.ipv4([192, 0, 2, 1], destination),
        IpAddr::V6(destination) => ethernet.ipv6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], destination),
    };
    packet.udp(1, 2).build()
}

/// Somebody behind that port speaks.
#[track_caller]
fn speaks(rig: &Rig<'_>, port: u32, source: impl Into<IpAddr>) -> Outcome {
    rig.enter(port, &from(source.into()))
}

/// The class whose bucket a download to that address is charged to.
#[track_caller]
fn class_of(rig: &Rig<'_>, destination: impl Into<IpAddr>) -> Class {
    rig.empty(Class::Neighbor, Way::Download);
    match rig.download(&to(destination.into())) {
        DROP => Class::Neighbor,
        _ => Class::Rest,
    }
}

fn four(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 1, host)
}

fn six(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

#[test]
fn the_first_owner_is_learned_and_tagged() {
    rig::run(
        "the_first_owner_is_learned_and_tagged",
        Setup::default(),
        |rig| {
            assert_eq!(class_of(rig, A), Class::Rest);
            for (ip, port, class) in [
                (IpAddr::from(A), NEIGHBOR_1, Class::Neighbor),
                (four(150).into(), LAN_1, Class::Rest),
                (six(0x100).into(), NEIGHBOR_2, Class::Neighbor),
                (six(0x150).into(), LAN_2, Class::Rest),
            ] {
                let first = speaks(rig, port, ip);
                let owner = rig.owner(ip).unwrap();
                assert_eq!((owner.port, owner.class, owner.seen), (port, class, TICKS));
                assert_eq!(first.tag, tag(class, owner.slot));
                // Again in the same tick, and in later ones.
                assert_eq!(speaks(rig, port, ip), first);
                for ticks in [TICKS + 1, TICKS + 1, TICKS + 1 + FORGET] {
                    rig.set_ticks(ticks);
                    assert_eq!(speaks(rig, port, ip), first);
                    assert_eq!(rig.owner(ip).unwrap().seen, ticks);
                }
                assert_eq!(class_of(rig, ip), class);
                rig.assert_events(events {
                    learned: 1,
                    ..events::default()
                });
                rig.set_ticks(TICKS);
            }
            rig.assert_sound();
        },
    );
}

#[test]
fn a_fresh_address_stays_with_its_class() {
    rig::run(
        "a_fresh_address_stays_with_its_class",
        Setup::default(),
        |rig| {
            for ip in [IpAddr::from(A), six(0x100).into()] {
                let start = TICKS;
                rig.set_ticks(start);
                speaks(rig, LAN_1, ip);
                // A neighbor takes a LAN client's address: the client is not throttled by that.
                for ticks in [start, start + 1, start + FORGET - 1] {
                    rig.set_ticks(ticks);
                    let claimed = speaks(rig, NEIGHBOR_1, ip);
                    let slot = rig.owner(ip).unwrap().slot;
                    assert_eq!(claimed.tag, tag(Class::Neighbor, slot), "the port counts");
                    let owner = rig.owner(ip).unwrap();
                    assert_eq!((owner.port, owner.seen), (LAN_1, start));
                    assert_eq!(class_of(rig, ip), Class::Rest);
                }
                rig.assert_events(events {
                    learned: 1,
                    claim_by_neighbor: 3,
                    ..events::default()
                });
                // Speaking keeps it.
                speaks(rig, LAN_1, ip);
                rig.set_ticks(start + 2 * FORGET - 2);
                speaks(rig, NEIGHBOR_1, ip);
                assert_eq!(rig.port_of(ip), Some(LAN_1));
                rig.assert_events(events {
                    claim_by_neighbor: 1,
                    ..events::default()
                });
                rig.forget(ip);
                // A neighbor's packet that comes in again by a LAN port does not free the neighbor.
                let start = start + 2 * FORGET;
                rig.set_ticks(start);
                speaks(rig, NEIGHBOR_1, ip);
                rig.set_ticks(start + FORGET - 1);
                speaks(rig, LAN_1, ip);
                assert_eq!(rig.port_of(ip), Some(NEIGHBOR_1));
                assert_eq!(class_of(rig, ip), Class::Neighbor);
                rig.assert_events(events {
                    learned: 1,
                    claim_by_lan: 1,
                    ..events::default()
                });
                rig.assert_sound();
                rig.forget(ip);
            }
        },
    );
}

#[test]
fn a_silent_owner_loses_the_address() {
    rig::run(
        "a_silent_owner_loses_the_address",
        Setup::default(),
        |rig| {
            for (ip, before, after, class) in [
                (IpAddr::from(A), LAN_1, NEIGHBOR_1, Class::Neighbor),
                (six(1).into(), LAN_1, NEIGHBOR_2, Class::Neighbor),
                (four(9).into(), NEIGHBOR_2, LAN_1, Class::Rest),
                (six(9).into(), NEIGHBOR_1, LAN_2, Class::Rest),
            ] {
                rig.set_ticks(TICKS);
                speaks(rig, before, ip);
                let slot = rig.owner(ip).unwrap().slot;
                rig.set_ticks(TICKS + FORGET);
                speaks(rig, after, ip);
                let owner = rig.owner(ip).unwrap();
                assert_eq!((owner.port, owner.class), (after, class));
                assert_eq!((owner.slot, owner.seen), (slot, TICKS + FORGET));
                assert_eq!(class_of(rig, ip), class);
                rig.assert_events(events {
                    learned: 1,
                    taken_over: 1,
                    ..events::default()
                });
                // And now it is the new owner's, as long as he speaks.
                speaks(rig, before, ip);
                assert_eq!(rig.port_of(ip), Some(after));
                rig.forget_counts();
                rig.assert_sound();
            }
        },
    );
}

#[test]
fn within_a_class_an_address_moves_at_once() {
    rig::run(
        "within_a_class_an_address_moves_at_once",
        Setup::default(),
        |rig| {
            for (from, to) in [(NEIGHBOR_1, NEIGHBOR_2), (LAN_1, LAN_2)] {
                let tag = speaks(rig, from, A).tag;
                rig.set_ticks(TICKS + 1);
                assert_eq!(speaks(rig, to, A).tag, tag, "the counts go with it");
                let owner = rig.owner(A).unwrap();
                assert_eq!((owner.port, owner.seen), (to, TICKS + 1));
                rig.assert_events(events {
                    learned: 1,
                    moved: 1,
                    ..events::default()
                });
                assert_eq!((rig.account(from), rig.account(to)), (0, 1));
                rig.assert_sound();
                rig.forget(A.into());
                rig.set_ticks(TICKS);
            }
        },
    );
}

/// Another CPU may have seen the owner in the tick that begins just now for this one. An owner who was
/// heard in the future is not a silent one.
#[test]
fn an_owner_heard_a_tick_ahead_is_fresh() {
    rig::run(
        "an_owner_heard_a_tick_ahead_is_fresh",
        Setup::default(),
        |rig| {
            rig.set_ticks(TICKS + 1);
            speaks(rig, LAN_1, A);
            rig.set_ticks(TICKS);
            speaks(rig, NEIGHBOR_1, A);
            assert_eq!(rig.port_of(A), Some(LAN_1));
            rig.assert_events(events {
                learned: 1,
                claim_by_neighbor: 1,
                ..events::default()
            });
        },
    );
}

/// Owners are remembered for the tick in which they were found; what changes shows in the next one.
#[test]
fn what_is_remembered_is_forgotten_with_the_tick() {
    const NAME: &str = "what_is_remembered_is_forgotten_with_the_tick";
    rig::run(NAME, Setup::default(), |rig| {
        speaks(rig, NEIGHBOR_1, A);
        assert_eq!(class_of(rig, A), Class::Neighbor); // now it is remembered
        rig.forget(A.into());
        rig.set_ticks(TICKS + 1);
        assert_eq!(class_of(rig, A), Class::Rest);
        speaks(rig, LAN_1, A);
        assert_eq!(rig.port_of(A), Some(LAN_1));
        assert_eq!(class_of(rig, A), Class::Rest);
        // Remembered as a destination: its owner is heard of all the same.
        rig.set_ticks(TICKS + 2);
        assert_eq!(class_of(rig, A), Class::Rest);
        speaks(rig, LAN_1, A);
        assert_eq!(rig.owner(A).unwrap().seen, TICKS + 2);
    });
}

/// As many addresses as share every place where owners are remembered.
#[test]
fn nobody_is_taken_for_who_is_remembered() {
    const NAME: &str = "nobody_is_taken_for_who_is_remembered";
    rig::run(NAME, Setup::default(), |rig| {
        speaks(rig, NEIGHBOR_1, A);
        assert_eq!(class_of(rig, A), Class::Neighbor);
        let mut download = to(A.into());
        for host in 0..=u16::MAX {
            download[30..32].copy_from_slice(&[10, 0]); // 10.0.x.y
            download[32..34].copy_from_slice(&host.to_be_bytes());
            assert_eq!(rig.download(&download), PASS);
        }
        assert_eq!(rig.meter(Class::Neighbor, Way::Download), dropped(1, 42));
    });
}

#[test]
fn what_nobody_can_own_is_not_learned() {
    rig::run(
        "what_nobody_can_own_is_not_learned",
        Setup::default(),
        |rig| {
            let unlearnable: [IpAddr; 14] = [
                [0, 0, 0, 0].into(),
                [0, 255, 255, 255].into(),
                [127, 0, 0, 1].into(),
                [127, 255, 255, 255].into(),
                [224, 0, 0, 1].into(),
                [239, 255, 255, 255].into(),
                [240, 0, 0, 1].into(),
                [255, 255, 255, 255].into(),
                Ipv6Addr::UNSPECIFIED.into(),
                Ipv6Addr::LOCALHOST.into(),
                Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(),
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
                Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1).into(),
                Ipv6Addr::from([0xff; 16]).into(),
            ];
            for ip in unlearnable {
                for (port, class) in [(NEIGHBOR_1, Class::Neighbor), (LAN_1, Class::Rest)] {
                    assert_eq!(
                        speaks(rig, port, ip).tag,
                        tag(class, UNKNOWN_UPLOAD),
                        "{ip}"
                    );
                }
            }
            assert!(rig.owners().is_empty());
            rig.assert_events(events::default());
            // Their neighbours in the address space can.
            let learnable: [IpAddr; 8] = [
                [1, 0, 0, 0].into(),
                [126, 255, 255, 255].into(),
                [128, 0, 0, 0].into(),
                [223, 255, 255, 255].into(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 2).into(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, 1, 1).into(),
                Ipv6Addr::new(1, 0, 0, 0, 0, 0, 0, 0).into(),
                Ipv6Addr::new(0xfeff, 0, 0, 0, 0, 0, 0, 1).into(),
            ];
            for (ip, port) in learnable
                .into_iter()
                .zip([NEIGHBOR_1, NEIGHBOR_2].into_iter().cycle())
            {
                speaks(rig, port, ip);
                assert_eq!(rig.port_of(ip), Some(port), "{ip}");
            }
            rig.assert_events(events {
                learned: 8,
                ..events::default()
            });
        },
    );
}

/// Who speaks ARP only has an address as well (RFC 826), tagged or not; what is cut, is for another
/// protocol than IPv4 or has addresses of other lengths says none.
#[test]
fn the_sender_of_arp_is_learned() {
    rig::run("the_sender_of_arp_is_learned", Setup::default(), |rig| {
        let mac = [2, 0, 0, 0, 0, 100];
        let frame = |packet: Packet| packet.arp_request((mac, A.into()), four(5)).build();
        let plain = frame(Packet::ethernet(mac, BROADCAST));
        let tagged = frame(Packet::ethernet(mac, BROADCAST).service_vlan(9).vlan(7));
        for (frame, network) in [(plain, 14), (tagged, 22)] {
            let outcome = rig.enter(NEIGHBOR_1, &frame);
            let owner = rig.owner(A).unwrap();
            assert_eq!(owner.port, NEIGHBOR_1);
            assert_eq!(outcome.tag, tag(Class::Neighbor, owner.slot));
            assert_eq!(rig.owners().len(), 1);
            rig.forget(A.into());
            rig.assert_events(events {
                learned: 1,
                ..events::default()
            });
            for cut in truncations(&frame, network) {
                rig.enter(NEIGHBOR_1, cut);
                // The sender's address ends 18 bytes into ARP.
                let there = cut.len() >= network + 18;
                assert_eq!(rig.owner(A).is_some(), there, "of {} bytes", cut.len());
                if there {
                    rig.forget(A.into());
                }
            }
            rig.forget_counts();
            // Protocol, length of a hardware address, length of a protocol address.
            for at in [2, 4, 5] {
                let mut other = frame.clone();
                other[network + at] ^= 1;
                rig.enter(NEIGHBOR_1, &other);
                assert!(rig.owners().is_empty());
            }
            // A probe (RFC 5227) has no address yet.
            let mut probe = frame.clone();
            probe[network + 14..network + 18].fill(0);
            rig.enter(NEIGHBOR_1, &probe);
            assert!(rig.owners().is_empty());
            rig.assert_events(events::default());
        }
        // Nor does a neighbor get a LAN client's address by ARP.
        speaks(rig, LAN_1, A);
        let packet = Packet::ethernet(mac, BROADCAST);
        rig.enter(
            NEIGHBOR_1,
            &packet.arp_reply((mac, A.into()), (mac, four(5))).build(),
        );
        assert_eq!(rig.port_of(A), Some(LAN_1));
        rig.assert_events(events {
            learned: 1,
            claim_by_neighbor: 1,
            ..events::default()
        });
    });
}

/// An interface that is no port of the configuration owns nothing.
#[test]
fn what_is_no_port_learns_nothing() {
    rig::run("what_is_no_port_learns_nothing", Setup::default(), |rig| {
        let frame = from(A.into());
        for ifindex in [rig::WAN, 0] {
            let skb = rig::Skb {
                frame: &frame,
                ifindex,
                ..rig::Skb::default()
            };
            let outcome = rig.run("classify_neighbor", skb);
            assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
        }
        assert!(rig.owners().is_empty());
        rig.assert_events(events::default());
    });
}

/// Four addresses a port. A neighbor that makes up more neither frees the neighbors nor takes a LAN
/// port's share.
#[test]
fn a_full_neighbor_touches_no_lan_client() {
    rig::run(
        "a_full_neighbor_touches_no_lan_client",
        Setup::default(),
        |rig| {
            for host in 1..=4 {
                speaks(rig, NEIGHBOR_1, four(host));
            }
            assert_eq!(class_of(rig, four(77)), Class::Rest);
            assert!(!rig.neighbors_are_full());
            // The quota is of both families together.
            for ip in [IpAddr::from(four(5)), six(5).into()] {
                let outcome = speaks(rig, NEIGHBOR_1, ip);
                assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
                assert_eq!(rig.owner(ip), None);
            }
            rig.assert_events(events {
                learned: 4,
                neighbors_full: 2,
                ..events::default()
            });
            assert!(rig.neighbors_are_full());
            assert_eq!(rig.account(NEIGHBOR_1), 4);
            // Who is not known may be one of those: a neighbor's, until there is room.
            assert_eq!(class_of(rig, four(5)), Class::Neighbor);
            assert_eq!(class_of(rig, six(5)), Class::Neighbor);
            rig.assert_events(events {
                unknown_while_full: 2,
                ..events::default()
            });
            // The other ports have their shares still; known clients keep their class.
            for (port, host) in [(LAN_1, 11), (LAN_2, 12), (NEIGHBOR_2, 13)] {
                speaks(rig, port, four(host));
                assert_eq!(rig.port_of(four(host)), Some(port));
            }
            assert_eq!(class_of(rig, four(11)), Class::Rest);
            rig.assert_events(events {
                learned: 3,
                ..events::default()
            });
            // Room again: user space says so, and the address is learned with its next packet.
            rig.forget(four(1).into());
            rig.clear_neighbors_are_full();
            assert_eq!(class_of(rig, four(6)), Class::Rest);
            speaks(rig, NEIGHBOR_1, four(5));
            assert_eq!(rig.port_of(four(5)), Some(NEIGHBOR_1));
            rig.assert_events(events {
                learned: 1,
                ..events::default()
            });
            rig.assert_sound();
        },
    );
}

#[test]
fn a_full_lan_port_touches_no_neighbor() {
    rig::run(
        "a_full_lan_port_touches_no_neighbor",
        Setup::default(),
        |rig| {
            for host in 1..=6 {
                speaks(rig, LAN_1, four(host));
            }
            rig.assert_events(events {
                learned: 4,
                lan_full: 2,
                ..events::default()
            });
            assert!(!rig.neighbors_are_full());
            assert_eq!(class_of(rig, four(5)), Class::Rest);
            speaks(rig, NEIGHBOR_1, four(5));
            assert_eq!(rig.port_of(four(5)), Some(NEIGHBOR_1));
            assert_eq!(class_of(rig, four(5)), Class::Neighbor);
            rig.assert_events(events {
                learned: 1,
                ..events::default()
            });
            rig.assert_sound();
        },
    );
}

/// Without LAN ports everybody unknown would be a neighbor's: the rest's, then, and counted.
#[test]
fn without_lan_ports_the_unknown_are_the_rest() {
    let setup = Setup {
        lan_is_known: false,
        ..Setup::default()
    };
    rig::run("without_lan_ports_the_unknown_are_the_rest", setup, |rig| {
        for host in 1..=5 {
            speaks(rig, NEIGHBOR_1, four(host));
        }
        assert!(rig.neighbors_are_full());
        assert_eq!(class_of(rig, four(5)), Class::Rest);
        assert_eq!(class_of(rig, four(4)), Class::Neighbor);
        rig.assert_events(events {
            learned: 4,
            neighbors_full: 1,
            unknown_while_full: 1,
            ..events::default()
        });
    });
}

/// A port at its quota takes over nothing either, and loses nothing by trying.
#[test]
fn a_full_port_takes_nothing_over() {
    rig::run("a_full_port_takes_nothing_over", Setup::default(), |rig| {
        for host in 1..=4 {
            speaks(rig, NEIGHBOR_1, four(host));
        }
        speaks(rig, NEIGHBOR_2, four(5));
        speaks(rig, LAN_1, four(6));
        rig.set_ticks(TICKS + FORGET);
        speaks(rig, NEIGHBOR_1, four(5));
        speaks(rig, NEIGHBOR_1, four(6));
        assert_eq!(rig.port_of(four(5)), Some(NEIGHBOR_2));
        assert_eq!(rig.port_of(four(6)), Some(LAN_1));
        rig.assert_events(events {
            learned: 6,
            neighbors_full: 2,
            ..events::default()
        });
        rig.assert_sound();
    });
}

/// --neighbor-net: neighbors' addresses are in there and nobody else's, learned or not.
#[test]
fn neighbor_nets_say_who_may_be_a_neighbor() {
    let net = |text: &str| text.parse().unwrap();
    let setup = Setup {
        neighbor_nets: vec![net("172.16.1.64/26"), net("2001:db8::/64")],
        ..Setup::default()
    };
    rig::run("neighbor_nets_say_who_may_be_a_neighbor", setup, |rig| {
        let outside6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
        for (ip, inside) in [
            (IpAddr::from(four(63)), false),
            (four(64).into(), true),
            (four(127).into(), true),
            (four(128).into(), false),
            (six(1).into(), true),
            (outside6.into(), false),
        ] {
            let class = if inside { Class::Neighbor } else { Class::Rest };
            assert_eq!(class_of(rig, ip), class, "{ip}, not learned");
            let (wrong, right) = match class {
                Class::Neighbor => (LAN_1, NEIGHBOR_1),
                Class::Rest => (NEIGHBOR_1, LAN_1),
            };
            speaks(rig, wrong, ip);
            assert_eq!(rig.owner(ip), None, "{ip}");
            rig.assert_events(events {
                outside_nets: 1,
                ..events::default()
            });
            speaks(rig, right, ip);
            assert_eq!(rig.port_of(ip), Some(right), "{ip}");
            // A claim across the border is none: it is not even heard.
            rig.set_ticks(TICKS + FORGET);
            speaks(rig, wrong, ip);
            rig.set_ticks(TICKS);
            assert_eq!(rig.port_of(ip), Some(right), "{ip}");
            assert_eq!(class_of(rig, ip), class, "{ip}");
            rig.assert_events(events {
                learned: 1,
                outside_nets: 1,
                ..events::default()
            });
            rig.forget(ip);
        }
        rig.assert_sound();
    });
}

/// All of IPv6 is none of IPv4, and neither is an IPv6 address that maps one of IPv4 (RFC 4291, 2.5.5.2).
#[test]
fn neighbor_nets_of_one_version_are_not_of_the_other() {
    const NAME: &str = "neighbor_nets_of_one_version_are_not_of_the_other";
    let within = |net: &str| Setup {
        neighbor_nets: vec![net.parse().unwrap()],
        ..Setup::default()
    };
    let mapped = four(1).to_ipv6_mapped();
    rig::run(NAME, within("::/0"), |rig| {
        assert_eq!(class_of(rig, six(1)), Class::Neighbor);
        assert_eq!(class_of(rig, mapped), Class::Neighbor);
        assert_eq!(class_of(rig, four(1)), Class::Rest);
    });
    rig::run(NAME, within("172.16.0.0/12"), |rig| {
        assert_eq!(class_of(rig, four(1)), Class::Neighbor);
        assert_eq!(class_of(rig, mapped), Class::Rest);
    });
}

/// As many spoofed sources as one likes: the table stays sound, the LAN client keeps his rate, the
/// neighbors theirs.
#[test]
fn spoofed_sources_neither_free_nor_throttle() {
    const NAME: &str = "spoofed_sources_neither_free_nor_throttle";
    let setup = Setup {
        quota: 64,
        slots: 256,
        ..Setup::default()
    };
    rig::run(NAME, setup, |rig| {
        let sources = if long(NAME, "20,000 of 100,000 sources") {
            100_000
        } else {
            20_000
        };
        let (client, neighbor) = (four(150), four(100));
        speaks(rig, LAN_1, client);
        speaks(rig, NEIGHBOR_2, neighbor);
        let mut frame = from(Ipv4Addr::UNSPECIFIED.into());
        for at in 0..sources {
            frame[26..30].copy_from_slice(&(0x0a00_0000_u32 + at).to_be_bytes());
            rig.enter(NEIGHBOR_1, &frame);
        }
        speaks(rig, NEIGHBOR_1, client);
        rig.assert_events(events {
            learned: 2 + 64,
            neighbors_full: u64::from(sources) - 64,
            claim_by_neighbor: 1,
            ..events::default()
        });
        assert_eq!(class_of(rig, client), Class::Rest);
        assert_eq!(class_of(rig, neighbor), Class::Neighbor);
        let last = Ipv4Addr::from(0x0a00_0000 + sources - 1);
        assert_eq!(class_of(rig, last), Class::Neighbor);
        rig.assert_meters(&[
            (Class::Rest, Way::Download, passed(1, 42)),
            (Class::Neighbor, Way::Download, dropped(2, 84)),
        ]);
        rig.assert_sound();
    });
}

/// Slots are fewer than the quotas together would take: what cannot be counted is not learned, and
/// the port's account says so.
#[test]
fn without_a_free_slot_nothing_is_learned() {
    let setup = Setup {
        slots: 3,
        ..Setup::default()
    };
    rig::run("without_a_free_slot_nothing_is_learned", setup, |rig| {
        for host in 1..=4 {
            speaks(rig, NEIGHBOR_1, four(host));
        }
        assert_eq!(rig.owners().len(), 3);
        assert_eq!(rig.account(NEIGHBOR_1), 3);
        rig.assert_sound();
    });
}

/// What the rules say of a table of addresses, without slots, words and locks.
#[derive(Default)]
struct Model {
    owners: BTreeMap<IpAddr, (u32, u64)>,
    events: events,
}

impl Model {
    fn class(port: u32) -> Class {
        there(PORTS.into_iter().find(|(ifindex, _)| *ifindex == port)).1
    }

    fn has_room(&mut self, port: u32, quota: usize) -> bool {
        let own = self
            .owners
            .values()
            .filter(|(owner, _)| *owner == port)
            .count();
        if own == quota {
            match Model::class(port) {
                Class::Neighbor => self.events.neighbors_full += 1,
                Class::Rest => self.events.lan_full += 1,
            }
        }
        own < quota
    }

    fn speaks(&mut self, port: u32, ip: IpAddr, now: u64, setup: &Setup) {
        let quota = setup.quota as usize;
        let class = Model::class(port);
        match self.owners.get(&ip).copied() {
            Some((owner, _)) if owner == port => {
                self.owners.insert(ip, (port, now));
            }
            Some((owner, seen)) => {
                let moves = Model::class(owner) == class;
                if !moves && now - seen < setup.forget_ticks {
                    match class {
                        Class::Neighbor => self.events.claim_by_neighbor += 1,
                        Class::Rest => self.events.claim_by_lan += 1,
                    }
                } else if self.has_room(port, quota) {
                    self.owners.insert(ip, (port, now));
                    match moves {
                        true => self.events.moved += 1,
                        false => self.events.taken_over += 1,
                    }
                }
            }
            None if self.has_room(port, quota) => {
                self.owners.insert(ip, (port, now));
                self.events.learned += 1;
            }
            None => {}
        }
    }
}

/// Random speakers at random ports, and user space that forgets: the table is the model's after every
/// step, and no slot is lost or given twice.
#[test]
fn the_table_is_the_models() {
    const NAME: &str = "the_table_is_the_models";
    let setup = Setup {
        quota: 6,
        slots: 24,
        forget_ticks: 50,
        ..Setup::default()
    };
    rig::run(NAME, setup.clone(), |rig| {
        let long = long(NAME, "20,000 of 500,000 steps");
        let steps = if long { 500_000 } else { 20_000 };
        let mut random = seed::Random::new(NAME, long);
        let (mut model, mut now) = (Model::default(), TICKS);
        for step_number in 0..steps {
            // A tick apart: within one, what is remembered may be older than the table.
            now += 1 + random.below(4);
            rig.set_ticks(now);
            let host = random.below(16) as u16;
            let ip = match random.below(2) {
                0 => IpAddr::from(four(host as u8)),
                _ => six(host + 2).into(),
            };
            if random.below(8) == 0 {
                if model.owners.remove(&ip).is_some() {
                    rig.forget(ip);
                }
            } else {
                let (port, _) = PORTS[random.below(4) as usize];
                speaks(rig, port, ip);
                model.speaks(port, ip, now, &setup);
            }
            let owner = rig.owner(ip).map(|owned| (owned.port, owned.seen));
            assert_eq!(
                owner,
                model.owners.get(&ip).copied(),
                "step {step_number}, {ip}"
            );
            if step_number % 500 == 0 || step_number + 1 == steps {
                let owners = rig.owners().into_iter();
                let owners: BTreeMap<_, _> = owners
                    .map(|(ip, owned)| (ip, (owned.port, owned.seen)))
                    .collect();
                assert_eq!(owners, model.owners, "step {step_number}");
                rig.assert_sound();
            }
        }
        rig.assert_events(model.events);
        let slots = rig.owners().into_values().map(|owned| owned.slot);
        assert!(slots.min() >= Some(FIRST_SLOT));
        let events = model.events;
        for (what, count) in [
            ("learned", events.learned),
            ("moved", events.moved),
            ("taken over", events.taken_over),
            ("claimed by a neighbor", events.claim_by_neighbor),
            ("claimed by the LAN", events.claim_by_lan),
            ("no room for a neighbor", events.neighbors_full),
            ("no room in the LAN", events.lan_full),
        ] {
            assert!(count > 100, "{what} {count} times: this proves little");
        }
    });
}

/// On two CPUs at once: the same addresses at a neighbor's and at a LAN port, nobody's for longer than a
/// tick and more than the quotas hold; and two addresses that move between neighbors with nearly every
/// packet. Whoever wins, the table, the accounts and the slots agree.
#[test]
fn two_cpus_leave_the_table_sound() {
    const NAME: &str = "two_cpus_leave_the_table_sound";
    let setup = Setup {
        quota: 40,
        slots: 160,
        forget_ticks: 1,
        ..Setup::default()
    };
    rig::run(NAME, setup, |rig| {
        let rounds = if long(NAME, "20 of 400 rounds") {
            400
        } else {
            20
        };
        let mut random = seed::Random::new(NAME, false);
        let mut packets = |port| -> Vec<(u32, Vec<u8>)> {
            let packets = (0..6000).map(|_| match random.below(2) {
                0 => (port, from(four(random.below(48) as u8 + 1).into())),
                // IPv6, because no owner of those is remembered for a tick.
                _ => {
                    let port = [NEIGHBOR_1, NEIGHBOR_2][random.below(2) as usize];
                    (port, from(six(random.below(2) as u16 + 2).into()))
                }
            });
            packets.collect()
        };
        for _ in 0..rounds {
            let (first, second) = (packets(NEIGHBOR_1), packets(LAN_1));
            if rig.enter_at_once([&first, &second]).is_none() {
                return skip(NAME, "needs two CPUs");
            }
            assert!(rig.owners().len() >= 40);
            rig.assert_sound();
            for ip in rig.owners().into_keys() {
                rig.forget(ip);
            }
        }
    });
}
