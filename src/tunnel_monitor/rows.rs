//! Flows as the original writes them: a JSON array of one object each. Rows are put
//! together without `serde`: there may be a million of them every second.

use std::io::{self, Write};
use std::net::IpAddr;

use super::flow::{Counts, Flow};
use super::sample::Sample;

/// Bytes that are put together before they go out; the last row may go beyond. Every reader who stalls has
/// one of them.
pub(super) const PIECE: usize = 2 * 1024;
/// Room for a piece.
pub(super) const ROOM: usize = PIECE + LONGEST;
/// No row is longer: names of fields, ten addresses of IPv6, twenty numbers of 64 bits.
pub(super) const LONGEST: usize = 1200;
/// Flows that are looked at in one go, for rows that may be far apart.
const AT_ONCE: usize = 64 * 1024;

/// Which figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// Of all flows, from the start: the original's `tunnel.json`.
    Totals,
    /// Of those that something passed for in [`Sample::window`]: the original's `tunnel-delta.json`.
    Window,
}

/// Writes all rows, in pieces.
pub fn write_rows(out: &mut impl Write, sample: &Sample, which: Which) -> io::Result<()> {
    let mut export = Export::new(which);
    let mut piece = Vec::with_capacity(ROOM);
    while !export.is_over() {
        export.fill(sample, &mut piece);
        out.write_all(&piece)?;
        piece.clear();
    }
    Ok(())
}

/// How far the writing has got, so that it can be gone on with.
#[derive(Debug)]
pub(super) struct Export {
    which: Which,
    /// First slot that was not looked at.
    next: usize,
    /// What goes before the next row.
    before: &'static [u8],
    is_over: bool,
}

impl Export {
    pub(super) fn new(which: Which) -> Export {
        Export {
            which,
            next: 0,
            before: b"[\n",
            is_over: false,
        }
    }

    /// Whether everything was written.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Appends what has room in a piece. It may be nothing, where the next row is far away.
    pub(super) fn fill(&mut self, sample: &Sample, piece: &mut Vec<u8>) {
        let end = self.next.saturating_add(AT_ONCE);
        for row in sample.rows_from(self.next) {
            if row.slot >= end {
                self.next = end;
                return;
            }
            let counts = match self.which {
                Which::Totals => row.total,
                Which::Window if row.window.is_zero() => continue,
                Which::Window => row.window,
            };
            if piece.len() >= PIECE {
                self.next = row.slot;
                return;
            }
            piece.extend_from_slice(self.before);
            self.before = b",\n";
            put_original(piece, row.flow, counts);
        }
        let is_empty = self.before != b",\n";
        piece.extend_from_slice(if is_empty { b"[]\n" } else { b"\n]\n" });
        self.is_over = true;
    }
}

/// The original's order of a pair: the lower outer address first, the inner ones with it. What was
/// received and sent stays so for the monitored interface.
fn put_original(out: &mut Vec<u8>, flow: &Flow, counts: Counts) {
    let ([local, remote], [inner_local, inner_remote]) = (flow.outer(), flow.inner_or_zeros());
    let (outer, inner) = if flow.is_remote_first() {
        ([remote, local], [inner_remote, inner_local])
    } else {
        ([local, remote], [inner_local, inner_remote])
    };
    out.extend_from_slice(b"{\"vni\":");
    put_number(out, flow.vni.into());
    for (name, address) in [
        (&b",\"outer_sip\":"[..], outer[0]),
        (b",\"outer_dip\":", outer[1]),
        (b",\"inner_sip\":", inner[0]),
        (b",\"inner_dip\":", inner[1]),
    ] {
        out.extend_from_slice(name);
        put_address(out, address);
    }
    out.push(b',');
    put_counts(out, counts);
    out.extend_from_slice(b",\"local\":");
    put_address(out, local);
    out.extend_from_slice(b",\"encap\":\"");
    out.extend_from_slice(flow.encap.name().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// The members of the object that `serde` would make of them, without its braces.
pub(super) fn put_counts(out: &mut Vec<u8>, counts: Counts) {
    for (name, count) in [
        (&b"\"tx_pkts\":"[..], counts.tx_pkts),
        (b",\"tx_bytes\":", counts.tx_bytes),
        (b",\"rx_pkts\":", counts.rx_pkts),
        (b",\"rx_bytes\":", counts.rx_bytes),
    ] {
        out.extend_from_slice(name);
        put_number(out, count);
    }
}

/// Quoted.
pub(super) fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    out.push(b'"');
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                put_number(out, octet.into());
            }
        }
        IpAddr::V6(address) => {
            // A vector takes whatever is written.
            let _ = write!(out, "{address}");
        }
    }
    out.push(b'"');
}

/// In decimal.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    // 2^64 has 20 digits.
    let mut digits = [b'0'; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[digits.len() - length..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel_monitor::flow::{Encap, Inner, Outer};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::net::Ipv6Addr;

    proptest! {
        #[test]
        fn numbers_are_those_of_the_standard_library(number: u64) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }

        #[test]
        fn addresses_are_those_of_the_standard_library(v4: [u8; 4], v6: [u16; 8]) {
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let mut out = Vec::new();
                put_address(&mut out, address);
                prop_assert_eq!(String::from_utf8(out).unwrap(), format!("\"{address}\""));
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_written() {
        for number in [0, 9, 10, 99, 100, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn the_longest_row_is_shorter_than_the_room_for_it() {
        let longest = Ipv6Addr::from([0xffff; 8]);
        let flow = Flow {
            encap: Encap::Geneve,
            vni: u32::MAX,
            outer: Outer::V6(Box::new([longest; 2])),
            inner: Inner::V6(Box::new([longest; 2])),
        };
        let most = Counts {
            tx_pkts: u64::MAX,
            tx_bytes: u64::MAX,
            rx_pkts: u64::MAX,
            rx_bytes: u64::MAX,
        };
        let mut out = Vec::new();
        put_original(&mut out, &flow, most);
        assert!(out.len() < LONGEST / 2, "{}", out.len());
        let row: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(row["rx_bytes"], json!(u64::MAX));
        assert_eq!(row["inner_dip"], json!(longest));
    }
}
