//! Quantities as tc(8) writes them: rates (`128kbit`), sizes (`32kb`), and spans of time.
//!
//! Decimals are read exactly, without floating point; what is left below the smallest unit (a
//! bit per second, a byte, a nanosecond) is cut off, as tc does. Units may be written in any
//! case. Nothing, zero, and what does not fit are refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not the quantity that it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QuantityError {}

/// A data rate above zero.
///
/// Read with tc's units: `bit`, `kbit`, `mbit`, `gbit`, `tbit` (thousands), `kibit`, … (1024s),
/// and `bps`, `kbps`, `kibps`, … for bytes per second; a bare number counts bits per second.
/// Serialised as the number of bits per second; read from that number or from tc's notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// A number of bytes above zero.
///
/// Read with tc's units: `b`, `kb` or `k`, `mb` or `m`, `gb` or `g`, and `kbit`, `mbit`, `gbit`;
/// in sizes k is 1024. A bare number counts bytes. Serialised as the number of bytes; read from
/// that number or from tc's notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

const KILO: u64 = 1000;
const KIBI: u64 = 1024;

/// What one unit counts, in bits per second.
const RATE_UNITS: [(&str, u64); 19] = [
    ("", 1),
    ("bit", 1),
    ("kbit", KILO),
    ("mbit", KILO.pow(2)),
    ("gbit", KILO.pow(3)),
    ("tbit", KILO.pow(4)),
    ("kibit", KIBI),
    ("mibit", KIBI.pow(2)),
    ("gibit", KIBI.pow(3)),
    ("tibit", KIBI.pow(4)),
    ("bps", 8),
    ("kbps", 8 * KILO),
    ("mbps", 8 * KILO.pow(2)),
    ("gbps", 8 * KILO.pow(3)),
    ("tbps", 8 * KILO.pow(4)),
    ("kibps", 8 * KIBI),
    ("mibps", 8 * KIBI.pow(2)),
    ("gibps", 8 * KIBI.pow(3)),
    ("tibps", 8 * KIBI.pow(4)),
];

/// What one unit counts, in bytes.
const SIZE_UNITS: [(&str, u64); 11] = [
    ("", 1),
    ("b", 1),
    ("kb", KIBI),
    ("k", KIBI),
    ("mb", KIBI.pow(2)),
    ("m", KIBI.pow(2)),
    ("gb", KIBI.pow(3)),
    ("g", KIBI.pow(3)),
    ("kbit", KIBI / 8),
    ("mbit", KIBI.pow(2) / 8),
    ("gbit", KIBI.pow(3) / 8),
];

/// What one unit counts, in nanoseconds.
const TIME_UNITS: [(&str, u64); 8] = [
    ("", 1_000_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("m", 60 * 1_000_000_000),
    ("min", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

impl Rate {
    /// A rate of so many bits per second; `None` for 0.
    pub const fn from_bits(bits_per_second: u64) -> Option<Self> {
        if bits_per_second == 0 {
            None
        } else {
            Some(Rate(bits_per_second))
        }
    }

    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl Size {
    /// A size of so many bytes; `None` for 0.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Size(bytes)) }
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, "rate", &RATE_UNITS, "128kbit, 1.5mbit or 16kbps").map(Rate)
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, "size", &SIZE_UNITS, "1500, 32kb or 1mb").map(Size)
    }
}

/// In the largest of tc's units that leaves no fraction, so that it reads back as the same rate.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(4, "tbit"), (3, "gbit"), (2, "mbit"), (1, "kbit")];
        write_whole(f, self.0, KILO, &units, "bit")
    }
}

/// In the largest of tc's units that leaves no fraction, so that it reads back as the same size.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_whole(f, self.0, KIBI, &[(3, "gb"), (2, "mb"), (1, "kb")], "b")
    }
}

/// Reads a span of time for an option: seconds, or with a unit `us`, `ms`, `s`, `m` or `h`.
/// (In tc a bare number counts microseconds; nobody expects that of `--duration 10`.)
pub fn seconds(text: &str) -> Result<Duration, QuantityError> {
    parse(text, "time", &TIME_UNITS, "10, 0.5, 500ms or 2m").map(Duration::from_nanos)
}

fn write_whole(
    f: &mut fmt::Formatter<'_>,
    value: u64,
    base: u64,
    units: &[(u32, &str)],
    smallest: &str,
) -> fmt::Result {
    let fitting = units
        .iter()
        .map(|(power, unit)| (base.pow(*power), *unit))
        .find(|(factor, _)| value.is_multiple_of(*factor))
        .unwrap_or((1, smallest));
    // pad() lets tables align the text as a whole.
    f.pad(&format!("{}{}", value / fitting.0, fitting.1))
}

fn parse(
    text: &str,
    what: &str,
    units: &[(&str, u64)],
    examples: &str,
) -> Result<u64, QuantityError> {
    let error = |problem: &str| QuantityError(format!("{what} '{text}' {problem}"));
    let not_one = || error(&format!("is not a number and a unit, such as {examples}"));
    let trimmed = text.trim();
    let end = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(not_one());
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(not_one)?;
    let value = scale(whole, fraction, *factor).ok_or_else(|| error("is too large"))?;
    if value == 0 {
        return Err(error("is zero, or less than the smallest unit"));
    }
    Ok(value)
}

/// `whole.fraction` times `factor`, cut off below 1; `None` if it does not fit.
fn scale(whole: &str, fraction: &str, factor: u64) -> Option<u64> {
    let whole = whole.trim_start_matches('0');
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // The factors are below 2^44 (8 * 1024^4) and 10^20 is below 2^67, so nothing overflows
    // here; digits beyond the twentieth count less than one bit, byte or nanosecond.
    let kept = &fraction[..fraction.len().min(20)];
    let mut numerator = 0u128;
    let mut denominator = 1u128;
    for digit in kept.bytes() {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    let below = numerator * u128::from(factor) / denominator;
    whole
        .checked_mul(factor)?
        .checked_add(u64::try_from(below).ok()?)
}

/// What a configuration file may hold in place of a quantity.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(bits) => Rate::from_bits(bits).ok_or(de::Error::custom("rate 0")),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Size::from_bytes(bytes).ok_or(de::Error::custom("size 0")),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> u64 {
        text.parse::<Rate>().unwrap().bits()
    }

    fn size(text: &str) -> u64 {
        text.parse::<Size>().unwrap().bytes()
    }

    #[test]
    fn rates_in_the_units_of_tc() {
        let cases = [
            ("1", 1),
            ("1500000", 1_500_000),
            ("128kbit", 128_000),
            ("1024Kbit", 1_024_000),
            ("1.5mbit", 1_500_000),
            ("1gbit", 1_000_000_000),
            ("1TBIT", 1_000_000_000_000),
            ("1kibit", 1024),
            ("1.5MiBit", 1_572_864),
            ("1bps", 8),
            ("16kbps", 128_000),
            ("1mbps", 8_000_000),
            ("1mibps", 8_388_608),
            (".5kbit", 500),
            ("5.kbit", 5_000),
            ("0.001kbit", 1),
            ("0001kbit", 1_000),
            (" 1kbit ", 1_000),
            ("18446744073709551615", u64::MAX),
            ("18446744.073709551615tbit", u64::MAX),
        ];
        for (text, bits) in cases {
            assert_eq!(rate(text), bits, "{text}");
        }
    }

    #[test]
    fn sizes_in_the_units_of_tc() {
        let cases = [
            ("1500", 1500),
            ("32kb", 32_768),
            ("32k", 32_768),
            ("1mb", 1_048_576),
            ("1M", 1_048_576),
            ("1.5kb", 1536),
            ("2g", 2_147_483_648),
            ("15kbit", 1920),
            ("1mbit", 131_072),
            ("9b", 9),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn times_in_seconds_or_with_a_unit() {
        let cases = [
            ("10", 10_000),
            ("0.5", 500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1.5h", 5_400_000),
            ("1s", 1_000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                seconds(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        assert!(seconds("0").is_err());
        assert!(seconds("1e3").is_err());
    }

    #[test]
    fn what_is_refused_says_why_in_one_line() {
        let not_one = [
            "",
            " ",
            "kbit",
            ".",
            ".kbit",
            "1.2.3kbit",
            "-1kbit",
            "+1",
            "1 kbit",
            "1kb",
            "1e6",
            "1,5mbit",
            "5%",
            "1kbit/s",
            "1٣kbit",
            "0x10",
            "inf",
            "nan",
        ];
        for text in not_one {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("is not a number and a unit"), "{error}");
            assert!(!error.contains('\n'));
        }
        for text in ["0", "0kbit", "0.0004kbit", "0.9"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("is zero"), "{error}");
        }
        for text in [
            "18446744073709551616",
            "18446744.073709551616tbit",
            "18446745tbit",
            "99999999999999999999999999999999999999999999",
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("is too large"), "{error}");
        }
        assert!("0".parse::<Size>().is_err());
        assert!("1kbps".parse::<Size>().is_err());
        assert!("17179869184g".parse::<Size>().is_err());
    }

    #[test]
    fn decimals_are_exact_in_every_unit() {
        for (unit, factor) in RATE_UNITS {
            for thousandths in 0..5_000u64 {
                let text = format!("{}.{:03}{unit}", thousandths / 1000, thousandths % 1000);
                let exact = u128::from(thousandths) * u128::from(factor) / 1000;
                let read = text
                    .parse::<Rate>()
                    .map_or(0, |rate| u128::from(rate.bits()));
                assert_eq!(read, exact, "{text}");
            }
        }
    }

    #[test]
    fn many_decimals_do_not_round_up() {
        let nines = "9".repeat(300);
        assert_eq!(rate(&format!("0.{nines}tbit")), 999_999_999_999);
        assert_eq!(rate(&format!("1.{nines}")), 1);
    }

    #[test]
    fn what_is_written_reads_back() {
        for power in 0..64 {
            for near in -2i64..=2 {
                let base = [1u64 << power, 10u64.saturating_pow(power)];
                for value in base.map(|base| base.wrapping_add_signed(near)) {
                    if value == 0 {
                        continue;
                    }
                    assert_eq!(rate(&Rate(value).to_string()), value);
                    assert_eq!(size(&Size(value).to_string()), value);
                }
            }
        }
        for value in 1..100_000 {
            assert_eq!(rate(&Rate(value).to_string()), value);
            assert_eq!(size(&Size(value).to_string()), value);
        }
    }

    #[test]
    fn display_takes_the_largest_whole_unit() {
        let shown = |text: &str| text.parse::<Rate>().unwrap().to_string();
        assert_eq!(shown("128000"), "128kbit");
        assert_eq!(shown("1.5mbit"), "1500kbit");
        assert_eq!(shown("1000kbit"), "1mbit");
        assert_eq!(shown("1kibit"), "1024bit");
        assert_eq!(Size(32_768).to_string(), "32kb");
        assert_eq!(Size(1500).to_string(), "1500b");
        assert_eq!(format!("{:>9}", Rate(128_000)), "  128kbit");
    }

    #[test]
    fn json_is_a_number_and_may_be_text() {
        assert_eq!(serde_json::to_string(&Rate(128_000)).unwrap(), "128000");
        let read: Rate = serde_json::from_str("\"128kbit\"").unwrap();
        assert_eq!(read, Rate(128_000));
        let read: Size = serde_json::from_str("1500").unwrap();
        assert_eq!(read, Size(1500));
        assert!(serde_json::from_str::<Rate>("0").is_err());
        assert!(serde_json::from_str::<Size>("\"0kb\"").is_err());
    }
}
