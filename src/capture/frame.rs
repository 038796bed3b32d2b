//! Packets of every kind of link as Ethernet frames.

use super::{Packet, Raw};

/// Link types, by their numbers in both formats (tcpdump.org/linktypes.html).
const ETHERNET: u16 = 1;
const RAW: u16 = 101;
/// What Linux and OpenBSD call raw in files that they have written by their own numbers.
const RAW_OF_SYSTEMS: [u16; 2] = [12, 14];
const IPV4: u16 = 228;
const IPV6: u16 = 229;
/// `tcpdump -i any`: what the kernel says of the link, in place of its header.
const COOKED: u16 = 113;
const COOKED2: u16 = 276;

const HEADER: u32 = 14;
const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// None: a link that is not understood.
pub(super) fn of(raw: Raw, number: u64) -> Option<Packet> {
    let Raw {
        link,
        time,
        length,
        bytes,
    } = raw;
    let captured = bytes.len() as u32;
    let packet = |frame, length: u32, captured: u32| Packet {
        number,
        time,
        frame,
        length: length.max(captured),
        captured,
    };
    let by_version = match bytes.first().map(|byte| byte >> 4) {
        Some(6) => ETHER_TYPE_IPV6,
        _ => ETHER_TYPE_IPV4,
    };
    let ether_type = match link {
        ETHERNET => return Some(packet(bytes, length, captured)),
        RAW => by_version,
        link if RAW_OF_SYSTEMS.contains(&link) => by_version,
        IPV4 => ETHER_TYPE_IPV4,
        IPV6 => ETHER_TYPE_IPV6,
        COOKED | COOKED2 => {
            let (header, protocol) = if link == COOKED { (16, 14) } else { (20, 0) };
            // They were frames on their way, nearly always of Ethernet: so they are as long as such.
            let as_frame = |bytes: u32| bytes.saturating_sub(header) + HEADER;
            let frame = cooked(&bytes, header, protocol);
            return Some(packet(frame, as_frame(length), as_frame(captured)));
        }
        _ => return None,
    };
    Some(packet(headed(ether_type, &bytes), length, captured))
}

/// With an Ethernet header in front that says no more than what follows.
fn headed(ether_type: [u8; 2], bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ether_type);
    frame.extend(bytes);
    frame
}

/// The frame in place of such a header.
fn cooked(bytes: &[u8], header: u32, protocol: usize) -> Vec<u8> {
    let ether_type = match bytes.get(protocol..protocol + 2) {
        Some([first, second]) => [*first, *second],
        _ => [0; 2],
    };
    let behind = bytes.get(header as usize..).unwrap_or_default();
    headed(ether_type, behind)
}
