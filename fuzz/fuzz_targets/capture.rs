//! Captures for `--explain`: no packet has more bytes than the file, numbers count up, a refusal is one line, and
//! whatever a frame has in it can be shown.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use netbpf::capture::Capture;
use netbpf::explain::Endpoints;
use netbpf_fuzz::assert_refusal;

/// An Ethernet header in the place of another one, or of none.
const HEADER: usize = 14;

fuzz_target!(|file: &[u8]| {
    let mut capture = match Capture::read("file", Cursor::new(file.to_vec())) {
        Ok(capture) => capture,
        Err(failure) => return assert_refusal("file", "", &failure),
    };
    let mut number = 0;
    let mut bytes = 0;
    loop {
        match capture.next_packet() {
            Ok(None) => return,
            Err(failure) => return assert_refusal("file", "", &failure),
            Ok(Some(packet)) => {
                number += 1;
                assert_eq!(packet.number, number);
                assert!(packet.captured <= packet.length);
                bytes += packet.frame.len().saturating_sub(HEADER);
                assert!(bytes <= file.len());
                let ends = Endpoints::of(&packet.frame);
                let words = [ends.source, ends.destination, ends.protocol];
                assert!(
                    words
                        .iter()
                        .all(|word| !word.is_empty() && !word.contains(char::is_control))
                );
            }
        }
    }
});
