//! What the parser makes of whole, cut and malformed packets: whose they are, and of how many bytes.

use std::net::IpAddr;

use netbpf::neighbor_sharing::{Class, Way};
use testbed::packet::{Ipv4, Packet, truncations};

use crate::rig::{
    self, DROP, FIRST_SLOT, LAN_1, NEIGHBOR_1, NEIGHBOR_2, PASS, Rig, Setup, Skb, UNKNOWN_UPLOAD,
    dropped, events, passed, tag, there,
};

/// 172.16.1.100 to 172.16.1.5, by UDP.
#[rustfmt::skip]
const IPV4: &[u8] = &[
    0x02, 0, 0, 0, 0, 5, 0x02, 0, 0, 0, 0, 100, 0x08, 0x00, // Ethernet: to, from, IPv4
    0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0,            // 20 bytes, 32 with data, DF, TTL 64, UDP
    172, 16, 1, 100, 172, 16, 1, 5,                         // from, to
    0x9c, 0x40, 0, 53, 0, 12, 0, 0,                         // UDP: ports, length, no checksum
    1, 2, 3, 4,
];

/// The same with eight bytes of options and an 802.1Q tag.
#[rustfmt::skip]
const IPV4_OPTIONS_TAGGED: &[u8] = &[
    0x02, 0, 0, 0, 0, 5, 0x02, 0, 0, 0, 0, 100, 0x81, 0x00, // Ethernet: to, from, 802.1Q
    0, 7, 0x08, 0x00,                                       // VLAN 7, IPv4
    0x47, 0, 0, 40, 0, 1, 0x40, 0, 64, 17, 0, 0,            // 28 bytes
    172, 16, 1, 100, 172, 16, 1, 5,
    148, 4, 0, 0, 1, 1, 1, 0,                               // router alert, three no-ops, end
    0x9c, 0x40, 0, 53, 0, 12, 0, 0,
    1, 2, 3, 4,
];

/// 2001:db8::100 to 2001:db8::5, by UDP.
#[rustfmt::skip]
const IPV6: &[u8] = &[
    0x02, 0, 0, 0, 0, 5, 0x02, 0, 0, 0, 0, 100, 0x86, 0xdd, // Ethernet: to, from, IPv6
    0x60, 0, 0, 0, 0, 12, 17, 64,                           // 12 bytes of data, UDP, hop limit 64
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x05,
    0x9c, 0x40, 0, 53, 0, 12, 0, 1,
    1, 2, 3, 4,
];

/// The same in 802.1ad and 802.1Q tags.
#[rustfmt::skip]
const IPV6_QINQ: &[u8] = &[
    0x02, 0, 0, 0, 0, 5, 0x02, 0, 0, 0, 0, 100, 0x88, 0xa8, // Ethernet: to, from, 802.1ad
    0, 9, 0x81, 0x00,                                       // service VLAN 9, 802.1Q
    0, 7, 0x86, 0xdd,                                       // VLAN 7, IPv6
    0x60, 0, 0, 0, 0, 12, 17, 64,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x05,
    0x9c, 0x40, 0, 53, 0, 12, 0, 1,
    1, 2, 3, 4,
];

/// Without a link header. BPF_PROG_TEST_RUN sets skb->protocol by bytes 12 and 13, as if they were an
/// EtherType: here they are the first two of the source address, 8.0.0.100.
#[rustfmt::skip]
const RAW_IPV4: &[u8] = &[
    0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0,
    8, 0, 0, 100, 172, 16, 1, 5,
    0x9c, 0x40, 0, 53, 0, 12, 0, 0,
    1, 2, 3, 4,
];

/// Here they are the third group of the source address, 2001:db8:86dd::100.
#[rustfmt::skip]
const RAW_IPV6: &[u8] = &[
    0x60, 0, 0, 0, 0, 12, 17, 64,
    0x20, 0x01, 0x0d, 0xb8, 0x86, 0xdd, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x05,
    0x9c, 0x40, 0, 53, 0, 12, 0, 1,
    1, 2, 3, 4,
];

struct Fixture {
    frame: &'static [u8],
    tags: usize,
    /// Bytes up to the end of the fixed IP header: with them the addresses are there.
    enough: usize,
    source: &'static str,
    destination: &'static str,
    /// Ending of the programs' names.
    suffix: &'static str,
}

const FIXTURES: [Fixture; 6] = [
    Fixture {
        frame: IPV4,
        tags: 0,
        enough: 14 + 20,
        source: "172.16.1.100",
        destination: "172.16.1.5",
        suffix: "",
    },
    Fixture {
        frame: IPV4_OPTIONS_TAGGED,
        tags: 1,
        enough: 14 + 4 + 20,
        source: "172.16.1.100",
        destination: "172.16.1.5",
        suffix: "",
    },
    Fixture {
        frame: IPV6,
        tags: 0,
        enough: 14 + 40,
        source: "2001:db8::100",
        destination: "2001:db8::5",
        suffix: "",
    },
    Fixture {
        frame: IPV6_QINQ,
        tags: 2,
        enough: 14 + 8 + 40,
        source: "2001:db8::100",
        destination: "2001:db8::5",
        suffix: "",
    },
    Fixture {
        frame: RAW_IPV4,
        tags: 0,
        enough: 20,
        source: "8.0.0.100",
        destination: "172.16.1.5",
        suffix: "_raw",
    },
    Fixture {
        frame: RAW_IPV6,
        tags: 0,
        enough: 40,
        source: "2001:db8:86dd::100",
        destination: "2001:db8::5",
        suffix: "_raw",
    },
];

impl Fixture {
    /// The neighbor that the packet goes to says something, and becomes known so.
    fn destination_speaks(&self, rig: &Rig<'_>) {
        let frame = from(ip(self.destination));
        rig.enter(NEIGHBOR_2, &frame);
        assert_eq!(rig.port_of(ip(self.destination)), Some(NEIGHBOR_2));
    }

    /// Inline tags that are whole in a frame that was cut.
    fn tag_bytes(&self, cut: &[u8]) -> usize {
        4 * self.tags.min(cut.len().saturating_sub(14) / 4)
    }

    /// The packet enters by a neighbor's port, and its source is learned if it is there.
    fn check_learning(&self, rig: &Rig<'_>, cut: &[u8]) {
        let skb = Skb {
            frame: cut,
            ifindex: NEIGHBOR_1,
            ..Skb::default()
        };
        let outcome = rig.run(&format!("classify_neighbor{}", self.suffix), skb);
        assert_eq!(outcome.verdict, PASS);
        let owner = rig.owner(ip(self.source));
        if cut.len() >= self.enough {
            let owner = there(owner);
            assert_eq!((owner.port, owner.class), (NEIGHBOR_1, Class::Neighbor));
            assert_eq!(outcome.tag, tag(Class::Neighbor, owner.slot));
            rig.assert_events(events {
                learned: 1,
                ..events::default()
            });
            rig.forget(ip(self.source));
        } else {
            assert_eq!(owner, None, "of {} bytes", cut.len());
            assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
            rig.assert_events(events {
                malformed: 1,
                ..events::default()
            });
        }
    }

    /// The packet goes to a neighbor, who gets nothing any more; what nobody owns passes.
    fn check_policing(&self, rig: &Rig<'_>, cut: &[u8]) {
        let skb = Skb {
            frame: cut,
            ..Skb::default()
        };
        let outcome = rig.run(&format!("classify_wan{}", self.suffix), skb);
        let bytes = (cut.len() - self.tag_bytes(cut)) as u64;
        if cut.len() >= self.enough {
            assert_eq!(outcome.verdict, DROP, "{} bytes", cut.len());
            rig.assert_meters(&[(Class::Neighbor, Way::Download, dropped(1, bytes))]);
            rig.assert_events(events::default());
        } else {
            assert_eq!(outcome.verdict, PASS, "{} bytes", cut.len());
            rig.assert_meters(&[(Class::Rest, Way::Download, passed(1, bytes))]);
            rig.assert_events(events {
                malformed: 1,
                ..events::default()
            });
        }
        rig.forget_counts();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Some packet with this source.
fn from(source: IpAddr) -> Vec<u8> {
    let ethernet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = match source {
        IpAddr::V4(source) => ethernet.ipv4(source, [192, 0, 2, 1]),
        IpAddr::V6(source) => ethernet.ipv6(source, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xffff]),
    };
    packet.udp(1, 2).build()
}

#[test]
fn every_truncation_of_every_fixture() {
    rig::run(
        "every_truncation_of_every_fixture",
        Setup::default(),
        |rig| {
            for fixture in &FIXTURES {
                fixture.destination_speaks(rig);
                rig.forget_counts();
                // Only the neighbors' downloads: what is taken for anybody else's passes.
                rig.empty(Class::Neighbor, Way::Download);
                for cut in truncations(fixture.frame, 14).chain([fixture.frame]) {
                    fixture.check_learning(rig, cut);
                    fixture.check_policing(rig, cut);
                }
                rig.forget(ip(fixture.destination));
            }
            rig.assert_sound();
        },
    );
}

/// A version that contradicts the EtherType, and a header length that is none.
#[test]
fn every_version_and_every_header_length() {
    rig::run(
        "every_version_and_every_header_length",
        Setup::default(),
        |rig| {
            for first in 0..=255_u8 {
                let (version, words) = (first >> 4, first & 0xf);
                let mut four = IPV4.to_vec();
                four[14] = first;
                let mut six = IPV6.to_vec();
                six[14] = first;
                let (four_is_ip, six_is_ip) = (version == 4 && words >= 5, version == 6);
                for (frame, is_ip, source) in [
                    (four, four_is_ip, ip("172.16.1.100")),
                    (six, six_is_ip, ip("2001:db8::100")),
                ] {
                    let outcome = rig.enter(NEIGHBOR_1, &frame);
                    assert_eq!(rig.owner(source).is_some(), is_ip, "first byte {first:#x}");
                    let mut expected = events::default();
                    if is_ip {
                        expected.learned = 1;
                        rig.forget(source);
                    } else {
                        expected.malformed = 1;
                        assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
                    }
                    rig.assert_events(expected);
                }
            }
        },
    );
}

#[test]
fn fragments_are_whose_their_address_is() {
    rig::run(
        "fragments_are_whose_their_address_is",
        Setup::default(),
        |rig| {
            let ethernet = || Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let four = |offset, more| {
                let mut header = Ipv4::between([172, 16, 1, 100], [172, 16, 1, 5]);
                (header.fragment_offset, header.more_fragments) = (offset, more);
                header.protocol = Some(17);
                ethernet().ipv4_with(header).payload_of(16).build()
            };
            let six = |offset, more| {
                let packet = ethernet().ipv6(
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100],
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 5],
                );
                packet.fragment(offset, more, 7).payload_of(16).build()
            };
            for (offset, more) in [(0, true), (2, true), (2, false)] {
                for (frame, source) in [
                    (four(offset, more), ip("172.16.1.100")),
                    (six(offset, more), ip("2001:db8::100")),
                ] {
                    rig.enter(NEIGHBOR_1, &frame);
                    assert_eq!(rig.port_of(source), Some(NEIGHBOR_1));
                    rig.forget(source);
                    assert_eq!(rig.download(&frame), PASS);
                }
            }
            rig.assert_events(events {
                learned: 6,
                ..events::default()
            });
            let bytes = 3 * (14 + 20 + 16) + 3 * (14 + 40 + 8 + 16);
            rig.assert_meters(&[(Class::Rest, Way::Download, passed(6, bytes))]);
        },
    );
}

/// A third tag ends the parse: what is behind it is not IP to us, and the third tag is data.
#[test]
fn tags_up_to_two_are_looked_through() {
    rig::run(
        "tags_up_to_two_are_looked_through",
        Setup::default(),
        |rig| {
            let tag = |protocol: u16| [&protocol.to_be_bytes()[..], &[0, 7]].concat();
            let (q, ad) = (0x8100, 0x88a8);
            for tags in [
                &[q][..],
                &[ad],
                &[q, q],
                &[ad, q],
                &[q, ad],
                &[ad, ad],
                &[ad, q, q],
                &[q; 4],
            ] {
                let inline: Vec<u8> = tags.iter().flat_map(|protocol| tag(*protocol)).collect();
                let frame = [&IPV4[..12], &inline, &IPV4[12..]].concat();
                let through = tags.len() <= 2;
                rig.enter(NEIGHBOR_1, &frame);
                let owner = rig.owner(ip("172.16.1.100"));
                assert_eq!(owner.is_some(), through, "{tags:x?}");
                rig.download(&frame);
                let bytes = frame.len() - 4 * tags.len().min(2);
                let counter = passed(1, bytes as u64);
                rig.assert_meters(&[(Class::Rest, Way::Download, counter)]);
                rig.assert_events(events {
                    learned: through.into(),
                    ..events::default()
                });
                rig.forget_counts();
                if through {
                    rig.forget(ip("172.16.1.100"));
                }
            }
        },
    );
}

#[test]
fn what_is_not_ip_is_the_rest_and_nobodys_address() {
    const NAME: &str = "what_is_not_ip_is_the_rest_and_nobodys_address";
    rig::run(NAME, Setup::default(), |rig| {
        // PPPoE, MPLS, IEEE 802 experiments, and IPX in 802.3 with LLC, each around IPv4.
        for protocol in [0x8864_u16, 0x8847, 0x88b5, 46] {
            let mut frame = IPV4.to_vec();
            frame[12..14].copy_from_slice(&protocol.to_be_bytes());
            let outcome = rig.enter(NEIGHBOR_1, &frame);
            assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
            assert!(rig.owners().is_empty());
            rig.assert_events(events::default());
            // The upload is the neighbor's all the same: the port says so.
            let bytes = frame.len() as u64;
            assert_eq!(rig.upload(&frame, NEIGHBOR_1, outcome.tag), PASS);
            assert_eq!(rig.download(&frame), PASS);
            rig.assert_meters(&[
                (Class::Neighbor, Way::Upload, passed(1, bytes)),
                (Class::Rest, Way::Download, passed(1, bytes)),
            ]);
            rig.assert_events(events::default());
            rig.forget_counts();
        }
        // Without a link header skb->protocol decides; this says 0x8847.
        let mut raw = RAW_IPV4.to_vec();
        raw[12..14].copy_from_slice(&[0x88, 0x47]);
        let skb = Skb {
            frame: &raw,
            ifindex: LAN_1,
            ..Skb::default()
        };
        let outcome = rig.run("classify_lan_raw", skb);
        assert_eq!(
            (outcome.verdict, outcome.tag),
            (PASS, tag(Class::Rest, UNKNOWN_UPLOAD))
        );
        assert!(rig.owners().is_empty());
        rig.assert_events(events::default());
    });
}

/// The twins of all programs do the same without a link header.
#[test]
fn interfaces_without_a_link_header() {
    let setup = Setup {
        only_across_wan: true,
        ..Setup::default()
    };
    rig::run("interfaces_without_a_link_header", setup, |rig| {
        let bytes = RAW_IPV4.len() as u64;
        let at = |ifindex| Skb {
            frame: RAW_IPV4,
            ifindex,
            ingress: rig::WAN,
            ..Skb::default()
        };
        let learned = rig.run("classify_neighbor_raw", at(NEIGHBOR_1));
        let slot = rig.owner(ip("8.0.0.100")).unwrap().slot;
        assert!(slot >= FIRST_SLOT);
        assert_eq!(learned.tag, tag(Class::Neighbor, slot));
        // A LAN port claims the same address, in vain.
        let claimed = rig.run("classify_lan_raw", at(LAN_1));
        assert_eq!(claimed.tag, tag(Class::Rest, slot));
        rig.assert_events(events {
            learned: 1,
            claim_by_lan: 1,
            ..events::default()
        });
        rig.empty_all_buckets();
        let upload = Skb {
            tag: learned.tag,
            ..at(rig::WAN)
        };
        for (program, skb) in [
            ("classify_wan_raw", at(rig::WAN)),
            ("deliver_lan_raw", at(LAN_1)),
            ("deliver_neighbor_raw", at(NEIGHBOR_1)),
            ("police_upload_raw", upload),
        ] {
            assert_eq!(rig.run(program, skb).verdict, DROP, "{program}");
        }
        rig.assert_meters(&[
            (Class::Rest, Way::Download, dropped(2, 2 * bytes)),
            (Class::Neighbor, Way::Download, dropped(1, bytes)),
            (Class::Neighbor, Way::Upload, dropped(1, bytes)),
        ]);
    });
}
