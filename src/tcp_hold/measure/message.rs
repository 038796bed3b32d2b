//! A message: its size, the time at which it was sent, and padding; the original's, so that either end may
//! be it.

use std::time::{Duration, Instant, SystemTime};

/// Size and time: 64 bits each, of this machine's byte order, as the original has them.
pub const HEADER: usize = 16;

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes, these included.
    pub size: u64,
    /// Microseconds since 1970.
    pub stamp: u64,
}

impl Header {
    /// From the first bytes of a message; none: there are too few.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let (size, rest) = bytes.split_first_chunk()?;
        let stamp = rest.first_chunk()?;
        Some(Header {
            size: u64::from_ne_bytes(*size),
            stamp: u64::from_ne_bytes(*stamp),
        })
    }

    /// Into the first bytes of a message.
    pub fn write(&self, message: &mut [u8]) {
        let fields = [self.size.to_ne_bytes(), self.stamp.to_ne_bytes()];
        for (byte, value) in message.iter_mut().zip(fields.as_flattened()) {
            *byte = *value;
        }
    }
}

/// Time as messages have it. It never goes back, whatever is done to the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since_1970: Duration,
    at: Instant,
}

impl Clock {
    /// As the machine's clock says now.
    pub fn new() -> Clock {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            since_1970,
            at: Instant::now(),
        }
    }

    /// What is written on a message.
    pub fn stamp(&self, moment: Instant) -> u64 {
        let since_1970 = self.since_1970 + moment.saturating_duration_since(self.at);
        since_1970.as_micros() as u64
    }

    /// How old a message is; 0 where it comes from the future of somebody's clock.
    pub fn age(&self, stamp: u64, now: Instant) -> Duration {
        Duration::from_micros(self.stamp(now).saturating_sub(stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            size: 0x0102_0304_0506_0708,
            stamp: 7,
        };
        let mut message = [9; 20];
        header.write(&mut message);
        assert_eq!(Header::read(&message), Some(header));
        assert_eq!(message[16..], [9; 4]);
        assert_eq!(Header::read(&message[..15]), None);
    }

    #[test]
    fn a_message_gets_older() {
        let clock = Clock::new();
        let sent = Instant::now();
        let stamp = clock.stamp(sent);
        let age = clock.age(stamp, sent + Duration::from_micros(1500));
        assert!((1499..=1501).contains(&age.as_micros()), "{age:?}");
        assert_eq!(clock.age(stamp + 5_000_000, sent), Duration::ZERO);
    }
}
