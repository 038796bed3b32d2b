//! A list of `tunnel_monitor traffic`: what is read is within the bounds that the tool has, and what is refused is
//! refused in one line that names its place.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netbpf::tunnel_monitor::traffic::list::{self, Load, headers};
use netbpf_fuzz::assert_refusal;

const FILE: &str = "traffic.list";

fuzz_target!(|text: &str| {
    let entries = match list::parse(FILE, text) {
        Ok(entries) => entries,
        Err(failure) => return assert_refusal(FILE, text, &failure),
    };
    assert!((1..=1000).contains(&entries.len()));
    for entry in entries {
        assert!(!entry.from.is_empty());
        assert!(!entry.to.is_unspecified() && !entry.to.is_multicast());
        match entry.load {
            Load::Ping(packets) | Load::Udp(packets) => {
                assert!((8..=1450 - headers(entry.to)).contains(&packets.size));
                // 0.01 to 10,000 in a second.
                let periods = Duration::from_micros(100)..=Duration::from_secs(100);
                assert!(periods.contains(&packets.every), "{packets:?}");
                assert_ne!(packets.count, Some(0));
            }
            Load::Tcp(stream) => assert!(stream.rate.bits() <= 1_000_000_000),
        }
    }
});
