use super::*;

/// One number after the other, in that order.
fn numbers(order: Order, words: &[u32]) -> Vec<u8> {
    let bytes = words.iter().map(|word| match order {
        Order::Big => word.to_be_bytes(),
        Order::Little => word.to_le_bytes(),
    });
    bytes.flatten().collect()
}

/// Two numbers of 16 bits as one of 32, so that either order has the first one first.
fn pair(order: Order, first: u16, second: u16) -> u32 {
    let [high, low] = match order {
        Order::Big => [first, second],
        Order::Little => [second, first],
    };
    u32::from(high) << 16 | u32::from(low)
}

fn classic(order: Order, magic: u32, link: u32, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let version = pair(order, 2, 4);
    let mut file = numbers(order, &[magic, version, 0, 0, 65_535, link]);
    for (seconds, fraction, length, bytes) in packets {
        let header = [*seconds, *fraction, bytes.len() as u32, *length];
        file.extend(numbers(order, &header));
        file.extend(*bytes);
    }
    file
}

/// A block of pcapng.
fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = 12 + padded as u32;
    let mut block = numbers(order, &[kind, length]);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(numbers(order, &[length]));
    block
}

fn section(order: Order) -> Vec<u8> {
    let version = pair(order, 1, 0);
    let body = numbers(order, &[0x1a2b_3c4d, version, u32::MAX, u32::MAX]);
    block(order, 0x0a0d_0d0a, &body)
}

fn interface(order: Order, link: u16, options: &[u8]) -> Vec<u8> {
    let mut body = numbers(order, &[pair(order, link, 0), 0]);
    body.extend(options);
    block(order, 1, &body)
}

/// if_tsresol, and if_tsoffset.
fn time_options(order: Order, resolution: u8, offset: i64) -> Vec<u8> {
    let mut options = numbers(order, &[pair(order, 9, 1)]);
    options.extend([resolution, 0, 0, 0]);
    options.extend(numbers(order, &[pair(order, 14, 8)]));
    options.extend(match order {
        Order::Big => offset.to_be_bytes(),
        Order::Little => offset.to_le_bytes(),
    });
    options.extend([0; 4]);
    options
}

fn enhanced(order: Order, interface: u32, time: u64, length: u32, bytes: &[u8]) -> Vec<u8> {
    let words = [
        interface,
        (time >> 32) as u32,
        time as u32,
        bytes.len() as u32,
        length,
    ];
    let mut body = numbers(order, &words);
    body.extend(bytes);
    block(order, 6, &body)
}

fn open(file: &[u8]) -> Result<Capture, Failure> {
    Capture::read("cap", io::Cursor::new(file.to_vec()))
}

/// All packets, and what was said at the end.
fn read(file: &[u8]) -> (Vec<Packet>, Option<String>) {
    let mut packets = Vec::new();
    let mut capture = match open(file) {
        Ok(capture) => capture,
        Err(failure) => return (packets, Some(failure.to_string())),
    };
    loop {
        match capture.next_packet() {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(failure) => return (packets, Some(failure.to_string())),
        }
    }
}

#[track_caller]
fn assert_refused(file: &[u8], packets: usize, words: &str) {
    let (read, said) = read(file);
    let said = said.unwrap_or_default();
    assert_eq!(read.len(), packets, "{said}");
    assert!(said.starts_with("cap ") && said.contains(words), "{said:?}");
    assert!(!said.contains('\n'), "{said:?}");
}

const ORDERS: [Order; 2] = [Order::Big, Order::Little];
const FRAME: [u8; 20] = [7; 20];

#[test]
fn pcap_in_either_order_and_unit() {
    for order in ORDERS {
        for (magic, unit) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            let packets: [(u32, u32, u32, &[u8]); 2] =
                [(5, 7, 20, &FRAME), (4_294_967_295, 1, 1500, &FRAME)];
            let (packets, said) = read(&classic(order, magic, 1, &packets));
            assert_eq!(said, None);
            assert_eq!(packets[0].time, 5_000_000_000 + 7 * unit);
            assert_eq!(packets[1].time, 4_294_967_295_000_000_000 + unit);
            assert_eq!((packets[0].number, packets[1].number), (1, 2));
            assert_eq!(packets[0].frame, FRAME);
            assert_eq!((packets[0].length, packets[0].is_cut()), (20, false));
            let cut = &packets[1];
            assert_eq!((cut.length, cut.captured, cut.is_cut()), (1500, 20, true));
        }
    }
}

#[test]
fn pcapng_with_interfaces_of_different_resolutions() {
    for order in ORDERS {
        let mut file = section(order);
        file.extend(interface(order, 1, &[]));
        file.extend(interface(order, 1, &time_options(order, 9, 0)));
        file.extend(interface(order, 1, &time_options(order, 0x80 | 10, 100)));
        file.extend(interface(order, 1, &time_options(order, 0, -3)));
        file.extend(interface(order, 1, &time_options(order, 127, 0)));
        file.extend(block(order, 0x0bad, b"whatever this is"));
        for (interface, time) in [
            (0, 5_000_007),
            (1, 5_000_000_007),
            (2, 2_560),
            (3, 8),
            (4, 9),
        ] {
            file.extend(enhanced(order, interface, time, 60, &FRAME));
        }
        // A simple one has no time; another section may have the other order.
        file.extend(block(
            order,
            3,
            &[&numbers(order, &[20])[..], &FRAME].concat(),
        ));
        let other = ORDERS[usize::from(order == Order::Big)];
        file.extend(section(other));
        file.extend(interface(other, 1, &[]));
        file.extend(enhanced(other, 0, 9, 20, &FRAME));
        let (packets, said) = read(&file);
        assert_eq!(said, None);
        let times: Vec<_> = packets.iter().map(|packet| packet.time).collect();
        let second = 1_000_000_000;
        assert_eq!(
            times,
            [
                5 * second + 7_000,
                5 * second + 7,
                102 * second + second / 2,
                5 * second,
                0,
                0,
                9_000
            ]
        );
        assert!(packets.iter().all(|packet| packet.frame == FRAME));
    }
}

#[test]
fn links_without_ethernet_are_given_a_header() {
    let order = Order::Little;
    let ipv6 = [0x60, 0, 0, 0];
    let ipv4 = [0x45, 0, 0, 0];
    let cooked = [&[0; 14][..], &[0x86, 0xdd], &ipv6].concat();
    let cooked2 = [&[0x08, 0][..], &[0; 18], &ipv4].concat();
    for (link, bytes, ether_type, ip, length) in [
        (101, &ipv6[..], [0x86, 0xdd], ipv6, 90),
        (101, &ipv4[..], [0x08, 0], ipv4, 90),
        (229, &ipv6[..], [0x86, 0xdd], ipv6, 90),
        (113, &cooked[..], [0x86, 0xdd], ipv6, 88),
        (276, &cooked2[..], [0x08, 0], ipv4, 84),
    ] {
        let file = classic(order, 0xa1b2_c3d4, link, &[(0, 0, 90, bytes)]);
        let (packets, said) = read(&file);
        assert_eq!(said, None, "{link}");
        let frame = [&[0; 12][..], &ether_type, &ip].concat();
        assert_eq!(
            (&packets[0].frame, packets[0].length),
            (&frame, length),
            "{link}"
        );
        assert!(packets[0].is_cut());
    }
    let file = classic(order, 0xa1b2_c3d4, 127, &[(0, 0, 20, &FRAME)]);
    assert_refused(&file, 0, "has packet 1 of link type 127");
}

#[test]
fn what_is_no_capture_is_told_so() {
    assert_refused(b"", 0, "is empty");
    assert_refused(b"GET / HTTP/1.1", 0, "is no capture");
    let order = Order::Big;
    let huge = numbers(order, &[0, 0, u32::MAX, 20]);
    let file = [classic(order, 0xa1b2_c3d4, 1, &[(0, 0, 20, &FRAME)]), huge].concat();
    assert_refused(&file, 1, "4294967295 bytes were captured of packet 2");
    let long = numbers(order, &[0, 0, 0, u32::MAX]);
    let file = [classic(order, 0xa1b2_c3d4, 1, &[]), long].concat();
    assert_refused(&file, 0, "4294967295 bytes are packet 1");

    let begin = [section(order), interface(order, 1, &[])].concat();
    let with = |words: &[u32]| [begin.clone(), numbers(order, words)].concat();
    assert_refused(
        &with(&[6, 0xffff_fff0]),
        0,
        "has a block of 4294967280 bytes where packet 1",
    );
    assert_refused(
        &with(&[6, 13, 0]),
        0,
        "has a block of 13 bytes where packet 1",
    );
    assert_refused(&with(&[6, 8, 0]), 0, "has a block of 8 bytes");
    assert_refused(&with(&[0x0bad, 0xffff_fff0]), 0, "ends within packet 1");
    let of_nobody = [begin.clone(), enhanced(order, 7, 0, 20, &FRAME)].concat();
    assert_refused(&of_nobody, 0, "packet 1 of interface 7");
    let mut short = enhanced(order, 0, 0, 20, &FRAME);
    short[20..24].copy_from_slice(&numbers(order, &[4000]));
    assert_refused(
        &[begin.clone(), short].concat(),
        0,
        "packet 1 has 4000 bytes",
    );
    let mut unordered = section(order);
    unordered[8] = 0;
    assert_refused(&unordered, 0, "has no byte order");
}

/// Whoever wrote it may have been killed at any byte.
#[test]
fn a_capture_that_ends_anywhere_gives_what_is_whole() {
    let order = Order::Little;
    let mut file = [
        section(order),
        interface(order, 1, &time_options(order, 9, 0)),
    ]
    .concat();
    let mut wholes = vec![file.len()];
    for time in 0..3 {
        file.extend(enhanced(order, 0, time, 20, &FRAME));
        wholes.push(file.len());
    }
    let pcap: [(u32, u32, u32, &[u8]); 2] = [(5, 7, 20, &FRAME), (6, 1, 20, &FRAME)];
    let pcap = classic(order, 0xa1b2_c3d4, 1, &pcap);
    for (file, wholes) in [(file, wholes), (pcap, vec![24, 60, 96])] {
        for end in 0..=file.len() {
            let (packets, said) = read(&file[..end]);
            let whole = wholes.iter().filter(|whole| **whole <= end).count();
            assert_eq!(packets.len(), whole.saturating_sub(1), "{end}: {said:?}");
            // Between blocks of the beginning nothing is missing either.
            assert!(said.is_none() || !wholes.contains(&end), "{end}: {said:?}");
            assert!(
                said.is_some() || whole == 0 || wholes.contains(&end),
                "{end}"
            );
        }
    }
}

/// Neither a panic, nor more memory than there are bytes.
#[test]
fn noise_is_refused_or_read() {
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let order = Order::Little;
    let good = [
        section(order),
        interface(order, 1, &time_options(order, 9, 5)),
        enhanced(order, 0, 5, 60, &FRAME),
        block(order, 3, &[&numbers(order, &[20])[..], &FRAME].concat()),
    ]
    .concat();
    for _ in 0..20_000 {
        let mut file = good.clone();
        for _ in 0..=random() % 4 {
            let place = random() as usize % file.len();
            file[place] = random() as u8;
        }
        let (packets, _) = read(&file);
        assert!(
            packets
                .iter()
                .all(|packet| packet.frame.len() <= good.len() + 14)
        );
    }
}
