//! Bytes and segments of GSO packets: what they will be on the wire, without FCS and VLAN tags.

use netbpf::neighbor_sharing::{Class, Way};
use testbed::packet::{Ipv4, Packet, Tcp};

use crate::rig::{self, PASS, Rig, Setup, Skb, passed};

const FOUR: ([u8; 4], [u8; 4]) = ([172, 16, 1, 5], [172, 16, 1, 100]);
const SIX: ([u16; 8], [u16; 8]) = (
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 5],
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100],
);

/// NOP, NOP, timestamps: what TCP has in nearly every packet.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

type AddHeader = fn(Packet) -> Packet;

fn ethernet() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

/// What a packet of so many payload bytes in segments of `size` is counted as; `segments` as the
/// kernel has counted them, or 0 where it has not yet.
fn counted(rig: &Rig<'_>, frame: &[u8], size: u32, segments: u32) -> (u64, u64) {
    let skb = Skb {
        frame,
        gso_size: size,
        gso_segs: segments,
        ..Skb::default()
    };
    assert_eq!(rig.run("classify_wan", skb).verdict, PASS);
    let counter = rig.meter(Class::Rest, Way::Download);
    rig.assert_meters(&[(
        Class::Rest,
        Way::Download,
        passed(counter.packets, counter.bytes),
    )]);
    rig.assert_events(rig::events::default());
    rig.forget_counts();
    (counter.packets, counter.bytes)
}

fn with_rig(name: &str, test: impl FnOnce(&Rig<'_>) + Send) {
    rig::run(name, Setup::default(), |rig| test(rig));
}

#[test]
fn headers_are_repeated_in_every_segment() {
    with_rig("headers_are_repeated_in_every_segment", |rig| {
        let timestamps = Tcp {
            options: TIMESTAMPS.to_vec(),
            ..Tcp::between(1, 2)
        };
        let options = Ipv4 {
            options: vec![148, 4, 0, 0],
            ..Ipv4::between(FOUR.0, FOUR.1)
        };
        let cases: [(&str, Packet, u64); 10] = [
            (
                "TCP",
                ethernet().ipv4(FOUR.0, FOUR.1).tcp(1, 2),
                14 + 20 + 20,
            ),
            (
                "TCP with timestamps",
                ethernet().ipv4(FOUR.0, FOUR.1).tcp_with(timestamps.clone()),
                14 + 20 + 32,
            ),
            (
                "IPv4 with options",
                ethernet().ipv4_with(options).tcp(1, 2),
                14 + 24 + 20,
            ),
            (
                "UDP",
                ethernet().ipv4(FOUR.0, FOUR.1).udp(1, 2),
                14 + 20 + 8,
            ),
            (
                "TCP, IPv6",
                ethernet().ipv6(SIX.0, SIX.1).tcp(1, 2),
                14 + 40 + 20,
            ),
            (
                "TCP with timestamps, IPv6",
                ethernet().ipv6(SIX.0, SIX.1).tcp_with(timestamps),
                14 + 40 + 32,
            ),
            (
                "UDP, IPv6",
                ethernet().ipv6(SIX.0, SIX.1).udp(1, 2),
                14 + 40 + 8,
            ),
            (
                "UDP behind destination options",
                ethernet()
                    .ipv6(SIX.0, SIX.1)
                    .destination_options(&[])
                    .udp(1, 2),
                14 + 40 + 8 + 8,
            ),
            (
                "TCP, tagged",
                ethernet().vlan(7).ipv4(FOUR.0, FOUR.1).tcp(1, 2),
                14 + 20 + 20,
            ),
            (
                "UDP, IPv6, tagged twice",
                ethernet()
                    .service_vlan(9)
                    .vlan(7)
                    .ipv6(SIX.0, SIX.1)
                    .udp(1, 2),
                14 + 40 + 8,
            ),
        ];
        for (what, packet, headers) in cases {
            // 2500 bytes in segments of 1000: three, the last one half full.
            let frame = packet.payload_of(2500).build();
            let expected = (3, 3 * headers + 2500);
            assert_eq!(
                counted(rig, &frame, 1000, 3),
                expected,
                "{what}, segments counted"
            );
            assert_eq!(
                counted(rig, &frame, 1000, 0),
                expected,
                "{what}, not counted yet"
            );
            // The kernel's own number of segments is believed.
            let expected = (5, 5 * headers + 2500);
            assert_eq!(counted(rig, &frame, 1000, 5), expected, "{what}");
            assert_eq!(
                counted(rig, &frame, 0, 0),
                (1, headers + 2500),
                "{what}, no GSO"
            );
            assert_eq!(
                counted(rig, &frame, 0, 7),
                (1, headers + 2500),
                "{what}, no GSO"
            );
        }
    });
}

/// Where nobody has counted them: whole segments, one byte more, one less, and none at all.
#[test]
fn segments_that_nobody_counted_are_counted() {
    with_rig("segments_that_nobody_counted_are_counted", |rig| {
        for (payload, size, segments) in [
            (1000, 1000, 1),
            (1001, 1000, 2),
            (1999, 1000, 2),
            (2000, 1000, 2),
            (2001, 1000, 3),
            (1, 1000, 1),
            (0, 1000, 1),
            (3000, 1, 3000),
            (3000, 65_535, 1),
        ] {
            let packet = ethernet().ipv4(FOUR.0, FOUR.1).tcp(1, 2);
            let frame = packet.payload_of(payload).build();
            let expected = (segments, segments * 54 + payload as u64);
            assert_eq!(
                counted(rig, &frame, size, 0),
                expected,
                "{payload} in {size}"
            );
        }
    });
}

/// RFC 8200 headers between IPv6 and transport, up to the limit and one beyond it. What is behind
/// more of them is not known, so its length is counted once.
#[test]
fn extension_headers_are_followed_up_to_eight() {
    with_rig("extension_headers_are_followed_up_to_eight", |rig| {
        let kinds: [(&str, AddHeader, u64); 6] = [
            ("hop by hop", |packet| packet.hop_by_hop(&[]), 8),
            ("routing", |packet| packet.routing(&[4, 0, 0, 0, 0, 0]), 8),
            (
                "destination options",
                |packet| packet.destination_options(&[0; 14]),
                16,
            ),
            (
                "fragment, the first",
                |packet| packet.fragment(0, true, 7),
                8,
            ),
            (
                "authentication",
                |packet| packet.authentication(&[0; 12]),
                24,
            ),
            (
                "authentication, long",
                |packet| packet.authentication(&[0; 20]),
                32,
            ),
        ];
        for (what, add, bytes) in kinds {
            for number in 0..=10 {
                let mut packet = ethernet().ipv6(SIX.0, SIX.1);
                for _ in 0..number {
                    packet = add(packet);
                }
                let frame = packet.udp(1, 2).payload_of(2500).build();
                let own = 14 + 40 + number * bytes + 8;
                // 256 bytes of headers are looked at (TRANSPORT_HEADERS), the rest may be anywhere.
                let followed = if number <= 8 { own } else { 0 };
                let expected = (3, own + 2500 + 2 * followed);
                assert_eq!(
                    counted(rig, &frame, 1000, 3),
                    expected,
                    "{number} times {what}"
                );
            }
        }
    });
}

/// All kinds in one packet, and a chain whose end is missing.
#[test]
fn mixed_and_cut_chains() {
    with_rig("mixed_and_cut_chains", |rig| {
        let packet = ethernet().ipv6(SIX.0, SIX.1).hop_by_hop(&[]);
        let packet = packet.destination_options(&[0; 22]).routing(&[4, 0, 0, 0]);
        let packet = packet.fragment(0, true, 7).authentication(&[0; 12]);
        let packet = packet.destination_options(&[]);
        let chain = 8 + 24 + 8 + 8 + 24 + 8;
        let frame = packet.clone().tcp(1, 2).payload_of(2500).build();
        let headers = 14 + 40 + chain + 20;
        assert_eq!(counted(rig, &frame, 1000, 3), (3, 3 * headers + 2500));
        // Later fragments have no transport header, whatever their data looks like.
        let later = ethernet().ipv6(SIX.0, SIX.1).fragment(2, true, 7);
        let frame = later.udp(1, 2).payload_of(2500).build();
        assert_eq!(counted(rig, &frame, 1000, 3), (3, frame.len() as u64));
        let mut header = Ipv4::between(FOUR.0, FOUR.1);
        header.fragment_offset = 2;
        let frame = ethernet()
            .ipv4_with(header)
            .udp(1, 2)
            .payload_of(2500)
            .build();
        assert_eq!(counted(rig, &frame, 1000, 3), (3, frame.len() as u64));
        // Cut anywhere in the chain or the TCP header: counted as it is, no headers known.
        let whole = packet.tcp(1, 2).build();
        for cut in (14 + 40)..whole.len() {
            let frame = &whole[..cut];
            if frame.len() < 64 {
                continue; // the kernel would have to cut it itself, and that ends GSO
            }
            assert_eq!(
                counted(rig, frame, 1000, 3),
                (3, cut as u64),
                "cut to {cut}"
            );
        }
        // Neither TCP nor UDP.
        let frame = ethernet()
            .ipv4(FOUR.0, FOUR.1)
            .icmp(8, 0, [0; 4])
            .payload_of(2500)
            .build();
        assert_eq!(counted(rig, &frame, 1000, 3), (3, frame.len() as u64));
    });
}

#[test]
fn every_data_offset_of_tcp() {
    with_rig("every_data_offset_of_tcp", |rig| {
        for words in 0..=15_u8 {
            let packet = ethernet().ipv4(FOUR.0, FOUR.1).tcp(1, 2);
            let mut frame = packet.payload_of(2500).build();
            frame[14 + 20 + 12] = words << 4;
            let (segments, bytes) = counted(rig, &frame, 1000, 3);
            assert_eq!(segments, 3);
            let length = frame.len() as u64;
            if words >= 5 {
                assert_eq!(bytes, length + 2 * (14 + 20 + 4 * u64::from(words)));
            } else {
                // No TCP header is that short: never more than a whole one is counted.
                assert!((length..=length + 2 * 54).contains(&bytes), "{bytes} bytes");
            }
        }
    });
}

/// The bucket is charged what is counted.
#[test]
fn what_is_counted_is_charged() {
    with_rig("what_is_counted_is_charged", |rig| {
        rig.limit(Class::Rest, Way::Download, 10_000);
        let frame = ethernet()
            .vlan(7)
            .ipv4(FOUR.0, FOUR.1)
            .tcp(1, 2)
            .payload_of(2500)
            .build();
        let bytes = 3 * 54 + 2500;
        assert_eq!(counted(rig, &frame, 1000, 3), (3, bytes));
        assert_eq!(rig.charged(Class::Rest, Way::Download), bytes);
        assert_eq!(counted(rig, &frame, 0, 0), (1, 54 + 2500));
        assert_eq!(rig.charged(Class::Rest, Way::Download), bytes + 54 + 2500);
    });
}
