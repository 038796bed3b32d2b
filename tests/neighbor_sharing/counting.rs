//! Meters of classes and of addresses against what was sent: passed, dropped, and dry runs.

use netbpf::neighbor_sharing::{Class, Counter, Way};
use testbed::packet::Packet;
use testbed::step;

use crate::rig::{
    self, DROP, LAN_1, NEIGHBOR_1, NEIGHBOR_2, PASS, Rig, Setup, Skb, TAG_EXEMPT, TICKS, UNITS,
    UNKNOWN_DOWNLOAD, UNKNOWN_UPLOAD, WAN, WAN_VLAN, dropped, events, passed, tag, there,
};

const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const NEIGHBOR: [u8; 4] = [172, 16, 1, 100];
const LAN: [u8; 4] = [172, 16, 1, 150];
const STRANGER: [u8; 4] = [172, 16, 1, 200];
const NEIGHBOR6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100];
const OUTSIDE6: [u16; 8] = [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1];

/// A frame of so many bytes.
fn frame(source: [u8; 4], destination: [u8; 4], bytes: usize) -> Vec<u8> {
    let packet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    packet
        .ipv4(source, destination)
        .udp(1, 2)
        .payload_of(bytes - 42)
        .build()
}

fn frame6(source: [u16; 8], destination: [u16; 8], bytes: usize) -> Vec<u8> {
    let packet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    packet
        .ipv6(source, destination)
        .udp(1, 2)
        .payload_of(bytes - 62)
        .build()
}

/// Both addresses are known, and nothing is counted yet. Returns their slots.
fn acquainted(rig: &Rig<'_>) -> (u32, u32) {
    rig.enter(NEIGHBOR_1, &frame(NEIGHBOR, OUTSIDE, 60));
    rig.enter(LAN_1, &frame(LAN, OUTSIDE, 60));
    rig.assert_events(events {
        learned: 2,
        ..events::default()
    });
    rig.assert_meters(&[]); // what enters is not metered there
    (there(rig.owner(NEIGHBOR)).slot, there(rig.owner(LAN)).slot)
}

#[test]
fn downloads_and_uploads_are_counted_for_class_and_address() {
    const NAME: &str = "downloads_and_uploads_are_counted_for_class_and_address";
    rig::run(NAME, Setup::default(), |rig| {
        let (neighbor, lan) = acquainted(rig);
        for (destination, bytes) in [
            (NEIGHBOR, 100),
            (NEIGHBOR, 200),
            (LAN, 400),
            (STRANGER, 800),
        ] {
            assert_eq!(rig.download(&frame(OUTSIDE, destination, bytes)), PASS);
        }
        for (port, source, bytes) in [(NEIGHBOR_1, NEIGHBOR, 1000), (LAN_1, LAN, 2000)] {
            let frame = frame(source, OUTSIDE, bytes);
            let tag = rig.enter(port, &frame).tag;
            assert_eq!(rig.upload(&frame, port, tag), PASS);
        }
        rig.assert_meters(&[
            (Class::Neighbor, Way::Download, passed(2, 300)),
            (Class::Rest, Way::Download, passed(2, 1200)),
            (Class::Neighbor, Way::Upload, passed(1, 1000)),
            (Class::Rest, Way::Upload, passed(1, 2000)),
        ]);
        rig.assert_slots(&[
            (neighbor, Way::Download, passed(2, 300)),
            (lan, Way::Download, passed(1, 400)),
            (UNKNOWN_DOWNLOAD, Way::Download, passed(1, 800)),
            (neighbor, Way::Upload, passed(1, 1000)),
            (lan, Way::Upload, passed(1, 2000)),
        ]);
        rig.assert_events(events::default());
    });
}

/// A burst of 250 bytes: 100 and 100 pass, the next 100 do not, 50 still do. A byte a unit later
/// again 100.
#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    rig::run(
        "what_does_not_fit_is_dropped_and_counted",
        Setup::default(),
        |rig| {
            let (neighbor, lan) = acquainted(rig);
            rig.limit(Class::Neighbor, Way::Download, 250);
            let hundred = frame(OUTSIDE, NEIGHBOR, 100);
            let verdicts = [&hundred, &hundred, &hundred].map(|frame| rig.download(frame));
            assert_eq!(verdicts, [PASS, PASS, DROP]);
            assert_eq!(rig.download(&frame(OUTSIDE, NEIGHBOR, 50)), PASS);
            rig.set_units(UNITS + 99);
            assert_eq!(rig.download(&hundred), DROP);
            rig.set_units(UNITS + 100);
            assert_eq!(rig.download(&hundred), PASS);
            // Neither another class nor the other way pays for it.
            assert_eq!(rig.download(&frame(OUTSIDE, LAN, 1000)), PASS);
            let upload = frame(NEIGHBOR, OUTSIDE, 1000);
            assert_eq!(
                rig.upload(&upload, NEIGHBOR_1, rig.enter(NEIGHBOR_1, &upload).tag),
                PASS
            );
            assert_eq!(rig.charged(Class::Neighbor, Way::Download), 350);
            let downloads = Counter {
                packets: 4,
                bytes: 350,
                dropped_packets: 2,
                dropped_bytes: 200,
            };
            rig.assert_meters(&[
                (Class::Neighbor, Way::Download, downloads),
                (Class::Rest, Way::Download, passed(1, 1000)),
                (Class::Neighbor, Way::Upload, passed(1, 1000)),
            ]);
            rig.assert_slots(&[
                (neighbor, Way::Download, downloads),
                (lan, Way::Download, passed(1, 1000)),
                (neighbor, Way::Upload, passed(1, 1000)),
            ]);
        },
    );
}

/// The neighbors have one bucket together, whatever the family.
#[test]
fn neighbors_share_one_bucket() {
    rig::run("neighbors_share_one_bucket", Setup::default(), |rig| {
        rig.enter(NEIGHBOR_1, &frame(NEIGHBOR, OUTSIDE, 60));
        rig.enter(NEIGHBOR_2, &frame6(NEIGHBOR6, OUTSIDE6, 80));
        rig.limit(Class::Neighbor, Way::Download, 300);
        assert_eq!(rig.download(&frame(OUTSIDE, NEIGHBOR, 200)), PASS);
        assert_eq!(rig.download(&frame6(OUTSIDE6, NEIGHBOR6, 101)), DROP);
        assert_eq!(rig.download(&frame6(OUTSIDE6, NEIGHBOR6, 100)), PASS);
        assert_eq!(rig.download(&frame(OUTSIDE, NEIGHBOR, 60)), DROP);
        let counter = Counter {
            packets: 2,
            bytes: 300,
            dropped_packets: 2,
            dropped_bytes: 161,
        };
        rig.assert_meters(&[(Class::Neighbor, Way::Download, counter)]);
    });
}

#[test]
fn a_dry_run_counts_drops_and_drops_nothing() {
    let setup = Setup {
        dry_run: true,
        only_across_wan: true,
        ..Setup::default()
    };
    rig::run("a_dry_run_counts_drops_and_drops_nothing", setup, |rig| {
        let (neighbor, lan) = acquainted(rig);
        rig.empty_all_buckets();
        let (to_neighbor, to_lan) = (frame(OUTSIDE, NEIGHBOR, 100), frame(OUTSIDE, LAN, 200));
        assert_eq!(rig.download(&to_neighbor), PASS);
        assert_eq!(rig.download(&to_lan), PASS);
        let upload = frame(NEIGHBOR, OUTSIDE, 400);
        assert_eq!(
            rig.upload(&upload, NEIGHBOR_1, rig.enter(NEIGHBOR_1, &upload).tag),
            PASS
        );
        let skb = Skb {
            frame: &to_neighbor,
            ifindex: NEIGHBOR_1,
            ingress: WAN,
            ..Skb::default()
        };
        assert_eq!(rig.run("deliver_neighbor", skb).verdict, PASS);
        rig.assert_meters(&[
            (Class::Neighbor, Way::Download, dropped(2, 200)),
            (Class::Rest, Way::Download, dropped(1, 200)),
            (Class::Neighbor, Way::Upload, dropped(1, 400)),
        ]);
        rig.assert_slots(&[
            (neighbor, Way::Download, dropped(2, 200)),
            (lan, Way::Download, dropped(1, 200)),
            (neighbor, Way::Upload, dropped(1, 400)),
        ]);
    });
}

/// --police-at lan: by the port, whoever owns the address, and only what came in by the WAN or by what
/// stands on it.
#[test]
fn deliveries_are_the_ports() {
    let setup = Setup {
        only_across_wan: true,
        ..Setup::default()
    };
    rig::run("deliveries_are_the_ports", setup, |rig| {
        let (neighbor, lan) = acquainted(rig);
        rig.empty_all_buckets();
        let deliver = |program, destination, ingress| {
            let frame = frame(OUTSIDE, destination, 100);
            let skb = Skb {
                frame: &frame,
                ifindex: NEIGHBOR_1,
                ingress,
                // Of a packet between ports: it must not reach another WAN.
                tag: tag(Class::Neighbor, neighbor),
                ..Skb::default()
            };
            let outcome = rig.run(program, skb);
            assert_eq!(outcome.tag, 0);
            outcome.verdict
        };
        // From another port, and the host's own.
        for ingress in [LAN_1, NEIGHBOR_2, 0] {
            assert_eq!(deliver("deliver_neighbor", NEIGHBOR, ingress), PASS);
            assert_eq!(deliver("deliver_lan", LAN, ingress), PASS);
        }
        rig.assert_meters(&[]);
        rig.assert_events(events {
            not_from_wan: 6,
            ..events::default()
        });
        assert_eq!(deliver("deliver_neighbor", NEIGHBOR, WAN), DROP);
        assert_eq!(deliver("deliver_neighbor", LAN, WAN), DROP);
        assert_eq!(deliver("deliver_lan", LAN, WAN_VLAN), DROP);
        assert_eq!(deliver("deliver_lan", STRANGER, WAN_VLAN), DROP);
        rig.assert_meters(&[
            (Class::Neighbor, Way::Download, dropped(2, 200)),
            (Class::Rest, Way::Download, dropped(2, 200)),
        ]);
        rig.assert_slots(&[
            (neighbor, Way::Download, dropped(1, 100)),
            (lan, Way::Download, dropped(2, 200)),
            (UNKNOWN_DOWNLOAD, Way::Download, dropped(1, 100)),
        ]);
        rig.assert_events(events::default());
    });
}

/// The tag says whose an upload is, whatever source address masquerading has made of it.
#[test]
fn uploads_are_the_tags() {
    rig::run("uploads_are_the_tags", Setup::default(), |rig| {
        let (neighbor, lan) = acquainted(rig);
        rig.empty_all_buckets();
        let upload = |source, ingress, tag| rig.upload(&frame(source, OUTSIDE, 100), ingress, tag);
        // Masqueraded: the address at the WAN is nobody's, or even another's.
        let of_neighbor = tag(Class::Neighbor, neighbor);
        assert_eq!(upload(STRANGER, NEIGHBOR_1, of_neighbor), DROP);
        assert_eq!(upload(LAN, NEIGHBOR_1, of_neighbor), DROP);
        assert_eq!(upload(NEIGHBOR, LAN_1, tag(Class::Rest, lan)), DROP);
        rig.assert_slots(&[
            (neighbor, Way::Upload, dropped(2, 200)),
            (lan, Way::Upload, dropped(1, 100)),
        ]);
        rig.assert_meters(&[
            (Class::Neighbor, Way::Upload, dropped(2, 200)),
            (Class::Rest, Way::Upload, dropped(1, 100)),
        ]);
        rig.forget_counts();
        // A tag without a slot: the class is the tag's, the address counts if anybody owns it.
        let of_nobody = tag(Class::Rest, UNKNOWN_UPLOAD);
        assert_eq!(upload(STRANGER, LAN_1, of_nobody), DROP);
        assert_eq!(upload(NEIGHBOR, LAN_1, of_nobody), DROP);
        rig.assert_slots(&[
            (UNKNOWN_UPLOAD, Way::Upload, dropped(1, 100)),
            (neighbor, Way::Upload, dropped(1, 100)),
        ]);
        rig.assert_meters(&[(Class::Rest, Way::Upload, dropped(2, 200))]);
        rig.assert_events(events::default());
    });
}

/// Where another classifier has taken skb->tc_index for itself the port says whose an upload is; what
/// came in by no port is the host's own.
#[test]
fn uploads_without_a_tag_are_the_ports() {
    for only_across_wan in [false, true] {
        let setup = Setup {
            only_across_wan,
            ..Setup::default()
        };
        rig::run("uploads_without_a_tag_are_the_ports", setup, |rig| {
            let (neighbor, lan) = acquainted(rig);
            rig.empty_all_buckets();
            let upload =
                |source, ingress, tag| rig.upload(&frame(source, OUTSIDE, 100), ingress, tag);
            // None, and class ids that no tag looks like.
            for other in [0, 1, 0x10, 0x7fff, 0x8000, 0x9fff, 0xc000, 0xffff] {
                assert_eq!(upload(STRANGER, NEIGHBOR_2, other), DROP);
                assert_eq!(upload(LAN, NEIGHBOR_2, other), DROP);
                assert_eq!(upload(NEIGHBOR, LAN_1, other), DROP);
                rig.assert_slots(&[
                    (UNKNOWN_UPLOAD, Way::Upload, dropped(1, 100)),
                    (lan, Way::Upload, dropped(1, 100)),
                    (neighbor, Way::Upload, dropped(1, 100)),
                ]);
                rig.assert_meters(&[
                    (Class::Neighbor, Way::Upload, dropped(2, 200)),
                    (Class::Rest, Way::Upload, dropped(1, 100)),
                ]);
                rig.assert_events(events {
                    tag_lost: 3,
                    ..events::default()
                });
                rig.forget_counts();
            }
            // The host's own, with a neighbor's address as a source, and what it routes from elsewhere.
            for ingress in [0, WAN_VLAN] {
                if only_across_wan {
                    assert_eq!(upload(NEIGHBOR, ingress, 0), PASS);
                    rig.assert_meters(&[]);
                    rig.assert_events(events {
                        not_from_a_port: 1,
                        ..events::default()
                    });
                } else {
                    assert_eq!(upload(NEIGHBOR, ingress, 0), DROP);
                    rig.assert_meters(&[(Class::Rest, Way::Upload, dropped(1, 100))]);
                    rig.assert_events(events::default());
                }
                rig.forget_counts();
            }
        });
    }
}

/// A tag has room for slots up to 2047. What has a higher one is counted for its address where that is
/// still in the packet, and behind masquerading for nobody's.
#[test]
fn slots_that_do_not_fit_the_tag() {
    let setup = Setup {
        slots: 2048, // 2 to 2049; the last is handed out first
        ..Setup::default()
    };
    rig::run("slots_that_do_not_fit_the_tag", setup, |rig| {
        for (host, slot, in_tag) in [
            (1, 2049, UNKNOWN_UPLOAD),
            (2, 2048, UNKNOWN_UPLOAD),
            (3, 2047, 2047),
        ] {
            let source = [172, 16, 1, host];
            let upload = frame(source, OUTSIDE, 100);
            let entered = rig.enter(NEIGHBOR_1, &upload).tag;
            assert_eq!(rig.owner(source).unwrap().slot, slot);
            assert_eq!(entered, tag(Class::Neighbor, in_tag));
            assert_eq!(rig.upload(&upload, NEIGHBOR_1, entered), PASS);
            rig.assert_slots(&[(slot, Way::Upload, passed(1, 100))]);
            rig.forget_counts();
            let masqueraded = frame(STRANGER, OUTSIDE, 100);
            assert_eq!(rig.upload(&masqueraded, NEIGHBOR_1, entered), PASS);
            rig.assert_slots(&[(in_tag, Way::Upload, passed(1, 100))]);
            rig.assert_meters(&[(Class::Neighbor, Way::Upload, passed(1, 100))]);
            rig.forget_counts();
        }
    });
}

/// 198.51.100.0/25, 203.0.113.7 and 2001:db8:1::/48.
fn with_exempt_nets() -> Setup {
    let nets = ["198.51.100.0/25", "203.0.113.7", "2001:db8:1::/48"];
    Setup {
        exempt: nets.map(|net| step(net, net.parse())).to_vec(),
        ..Setup::default()
    }
}

/// Downloads by either end, uploads by their destination, in both families; what is beside the network
/// is policed.
#[test]
fn exempt_networks_are_neither_metered_nor_policed() {
    const NAME: &str = "exempt_networks_are_neither_metered_nor_policed";
    rig::run(NAME, with_exempt_nets(), |rig| {
        acquainted(rig);
        rig.empty_all_buckets();
        let four = |remote| (frame(remote, NEIGHBOR, 100), frame(NEIGHBOR, remote, 100));
        let six = |remote| {
            (
                frame6(remote, NEIGHBOR6, 100),
                frame6(NEIGHBOR6, remote, 100),
            )
        };
        let cases = [
            (four([198, 51, 100, 0]), true),
            (four([198, 51, 100, 127]), true),
            (four([198, 51, 100, 128]), false),
            (four([198, 51, 99, 255]), false),
            (four([203, 0, 113, 7]), true),
            (four([203, 0, 113, 6]), false),
            (six([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0]), true),
            (six([0x2001, 0xdb8, 1, 0xffff, 0, 0, 0, 1]), true),
            (six([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]), false),
            // IPv6 in whose words are those of 198.51.100.1, the last as RFC 4291 maps it (2.5.5.2).
            (six([0xc633, 0x6401, 0, 0, 0, 0, 0, 0]), false),
            (six([0, 0, 0, 0, 0, 0, 0xc633, 0x6401]), false),
            (six([0, 0, 0, 0, 0, 0xffff, 0xc633, 0x6401]), false),
        ];
        for ((to, from), exempt) in cases {
            let expected = if exempt { PASS } else { DROP };
            let skb = Skb {
                frame: &to,
                ifindex: NEIGHBOR_1,
                ingress: WAN,
                ..Skb::default()
            };
            let verdicts = [
                rig.download(&to),
                rig.download(&from),
                rig.run("deliver_neighbor", skb).verdict,
                rig.run("deliver_lan", skb).verdict,
                rig.upload(&from, NEIGHBOR_1, tag(Class::Neighbor, UNKNOWN_UPLOAD)),
            ];
            assert_eq!(verdicts, [expected; 5], "{to:x?}");
            if exempt {
                rig.assert_meters(&[]);
                rig.assert_slots(&[]);
            }
            rig.assert_events(events {
                exempt: if exempt { 5 } else { 0 },
                ..events::default()
            });
            rig.forget_counts();
        }
    });
}

/// An upload's source is judged where it enters, before masquerading, and the tag carries it on. A
/// neighbor that borrows an exempt address from the LAN gets nothing for it.
#[test]
fn an_exempt_source_is_exempt_at_its_own_port() {
    const NAME: &str = "an_exempt_source_is_exempt_at_its_own_port";
    const EXEMPT: [u8; 4] = [198, 51, 100, 1];
    rig::run(NAME, with_exempt_nets(), |rig| {
        rig.empty_all_buckets();
        let frame = frame(EXEMPT, OUTSIDE, 100);
        // Of the LAN, known or not.
        let entered = rig.enter(LAN_1, &frame).tag;
        let slot = rig.owner(EXEMPT).unwrap().slot;
        assert_eq!(entered, tag(Class::Rest, slot) | TAG_EXEMPT);
        assert_eq!(rig.upload(&frame, LAN_1, entered), PASS);
        // Masqueraded it is exempt still, and the address alone is not.
        let masqueraded = self::frame(STRANGER, OUTSIDE, 100);
        assert_eq!(rig.upload(&masqueraded, LAN_1, entered), PASS);
        rig.assert_meters(&[]);
        rig.assert_events(events {
            learned: 1,
            exempt: 2,
            ..events::default()
        });
        let borrowed = rig.enter(NEIGHBOR_1, &frame).tag;
        assert_eq!(borrowed, tag(Class::Neighbor, slot));
        assert_eq!(rig.upload(&frame, NEIGHBOR_1, borrowed), DROP);
        rig.assert_meters(&[(Class::Neighbor, Way::Upload, dropped(1, 100))]);
        rig.assert_events(events {
            claim_by_neighbor: 1,
            ..events::default()
        });
        rig.forget_counts();
        // A neighbor's own.
        rig.forget(EXEMPT.into());
        rig.set_ticks(TICKS + 1);
        let entered = rig.enter(NEIGHBOR_1, &frame).tag;
        let slot = rig.owner(EXEMPT).unwrap().slot;
        assert_eq!(entered, tag(Class::Neighbor, slot) | TAG_EXEMPT);
        assert_eq!(rig.upload(&frame, NEIGHBOR_1, entered), PASS);
        rig.forget_counts();
        // The host's own has no tag; nor has what lost it, and there the source proves nothing.
        assert_eq!(rig.upload(&frame, 0, 0), PASS);
        rig.assert_events(events {
            exempt: 1,
            ..events::default()
        });
        assert_eq!(rig.upload(&frame, NEIGHBOR_1, 0), DROP);
        rig.assert_events(events {
            tag_lost: 1,
            ..events::default()
        });
    });
}
