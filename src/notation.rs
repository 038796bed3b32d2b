//! Figures as readers like them.

use std::time::Duration;

/// 1234567 as "1,234,567".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 client", "2 clients".
pub fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number as u64))
}

/// 1536 as "1.54k": bytes, in powers of 1000.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, "")
}

/// 1024000.0 as "1.02 Mbit/s".
pub fn bits_per_second(rate: f64) -> String {
    scaled(rate, " ") + "bit/s"
}

/// Three digits and a prefix of thousands.
fn scaled(mut value: f64, gap: &str) -> String {
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        prefix = next;
    }
    let decimals = match value {
        _ if prefix.is_empty() => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{gap}{prefix}")
}

/// Seconds, minutes or hours, whole.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_readers() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        assert!(cases.iter().all(|(number, text)| grouped(*number) == *text));
        assert_eq!(bits_per_second(127_900.0), "128 kbit/s");
        assert_eq!(bits_per_second(1_024_000.0), "1.02 Mbit/s");
        assert_eq!(bytes(0), "0");
        assert_eq!(bytes(999_600), "1.00M");
    }
}
