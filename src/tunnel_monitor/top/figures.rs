//! Figures as they are shown: short, of one width, in the unit that was chosen.

use crate::tunnel_monitor::flow::Counts;

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unit {
    #[default]
    Bits,
    Bytes,
    Packets,
}

impl Unit {
    pub(super) fn next(self) -> Unit {
        match self {
            Unit::Bits => Unit::Bytes,
            Unit::Bytes => Unit::Packets,
            Unit::Packets => Unit::Bits,
        }
    }

    /// Of rates.
    pub(super) fn rate(self) -> &'static str {
        match self {
            Unit::Bits => "bit/s",
            Unit::Bytes => "byte/s",
            Unit::Packets => "packets/s",
        }
    }

    /// Of totals: nobody counts bits that passed.
    pub(super) fn amount(self) -> &'static str {
        match self {
            Unit::Bits | Unit::Bytes => "bytes",
            Unit::Packets => "packets",
        }
    }

    /// Received and sent, for rates.
    pub(super) fn of_rate(self, counts: Counts) -> (u64, u64) {
        match self {
            Unit::Bits => (
                counts.rx_bytes.saturating_mul(8),
                counts.tx_bytes.saturating_mul(8),
            ),
            Unit::Bytes => (counts.rx_bytes, counts.tx_bytes),
            Unit::Packets => (counts.rx_pkts, counts.tx_pkts),
        }
    }

    /// Both ways, for totals.
    pub(super) fn of_amount(self, counts: Counts) -> u64 {
        let (rx, tx) = match self {
            Unit::Bits | Unit::Bytes => (counts.rx_bytes, counts.tx_bytes),
            Unit::Packets => (counts.rx_pkts, counts.tx_pkts),
        };
        rx.saturating_add(tx)
    }
}

/// In five characters at most, with a thousand's letter: `0`, `999`, `1.23k`, `45.6M`, `789G`.
pub(super) fn short(number: f64) -> String {
    const LETTERS: [&str; 8] = ["", "k", "M", "G", "T", "P", "E", "Z"];
    if !number.is_finite() || number < 0.0 {
        return "?".into();
    }
    if number == 0.0 {
        return "0".into();
    }
    // Slower than one in a second, but not nothing.
    if number < 0.995 {
        return format!("{:.2}", number.max(0.01));
    }
    let (mut scaled, mut power) = (number, 0);
    // What would be rounded to 1000 has the next letter.
    while scaled >= 999.5 && power + 1 < LETTERS.len() {
        scaled /= 1000.0;
        power += 1;
    }
    let digits = match power {
        0 => usize::from(scaled < 99.95 && scaled.fract() != 0.0),
        _ if scaled < 9.995 => 2,
        _ if scaled < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{}", LETTERS[power])
}

/// In a second; `-` where no time has passed.
pub(super) fn rate(amount: u64, seconds: f64) -> String {
    if seconds > 0.0 {
        short(amount as f64 / seconds)
    } else {
        "-".into()
    }
}

/// Of a whole, in percent; `-` of nothing.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        0.0 => "0%".into(),
        // It is something.
        _ if percent < 0.05 => "<0.1%".into(),
        _ if percent < 99.95 => format!("{percent:.1}%"),
        _ => "100%".into(),
    }
}

/// A stretch of time: `7 s`, `12:34`, `1:02:03`, `3 d 01:02:03`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes}:{seconds:02}"),
        (0, ..) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} d {hours:02}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (number, text) in [
            (0.0, "0"),
            (0.2, "0.20"),
            (0.001, "0.01"),
            (1.0, "1"),
            (7.5, "7.5"),
            (999.0, "999"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_499.0, "999k"),
            (999_500.0, "1.00M"),
            (1e9, "1.00G"),
            (1.8446744073709552e19, "18.4E"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    proptest! {
        #[test]
        fn no_number_is_wider_than_its_column(number: u64, seconds in 0.001_f64..1e9) {
            prop_assert!(short(number as f64).len() <= 5);
            prop_assert!(rate(number, seconds).len() <= 5, "{}", rate(number, seconds));
        }
    }

    #[test]
    fn shares() {
        for (part, whole, text) in [
            (0, 0, "-"),
            (0, 5, "0%"),
            (1, 3, "33.3%"),
            (1, 1_000_000, "<0.1%"),
            (9_999_999, 10_000_000, "100%"),
            (5, 5, "100%"),
        ] {
            assert_eq!(share(part, whole), text);
        }
        assert_eq!(rate(5, 0.0), "-");
        assert_eq!(rate(10, 4.0), "2.5");
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (-1.0, "0 s"),
            (7.9, "7 s"),
            (754.0, "12:34"),
            (3723.0, "1:02:03"),
            (262_923.0, "3 d 01:02:03"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
