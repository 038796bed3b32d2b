//! Rates, sizes, times and paces, as options and lists have them: what is read is above zero, and reads back as
//! it is printed.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use netbpf::rate::{self, Rate, Size};
use netbpf::tokenbucket::Pace;

fuzz_target!(|text: &str| {
    if let Ok(rate) = text.parse::<Rate>() {
        assert!(rate.bits() > 0);
        assert_eq!(rate.to_string().parse(), Ok(rate));
    }
    if let Ok(size) = text.parse::<Size>() {
        assert!(size.bytes() > 0);
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    // In JSON and TOML the same text is the same rate.
    let quoted = serde_json::to_string(text).expect("text is JSON");
    let of_json = serde_json::from_str::<Rate>(&quoted).ok();
    assert_eq!(of_json, text.parse().ok());
    if let Ok(time) = rate::seconds(text) {
        assert!(time > Duration::ZERO);
        assert_eq!(rate::seconds(&in_seconds(time)), Ok(time));
    }
    if let Ok(Pace::Token(regeneration)) = text.parse() {
        let centuries = Duration::from_nanos(u64::MAX);
        assert!((Duration::from_nanos(1)..=centuries).contains(&regeneration));
    }
});

fn in_seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}
