//! Keys, from the bytes that a terminal sends for them. A key may come in several parts.

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Tab,
    BackTab,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    /// With Ctrl.
    Control(char),
}

/// The longest sequence that is waited for; no key has one as long.
const LONGEST: usize = 32;

/// The beginning of a key whose end has not come.
#[derive(Debug, Default)]
pub(super) struct Keys {
    begun: Vec<u8>,
}

impl Keys {
    /// Takes bytes in, and gives the keys that ended with them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.begun.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut rest = &self.begun[..];
        while let Some((key, length)) = first(rest) {
            keys.extend(key);
            rest = &rest[length..];
        }
        let kept = rest.to_vec();
        self.begun = kept;
        keys
    }

    /// Whether an Escape came that may be a key of its own or the beginning of another.
    pub(super) fn is_open(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Nothing followed: it was a key of its own.
    pub(super) fn close(&mut self) -> Option<Key> {
        let begun = std::mem::take(&mut self.begun);
        (begun.first() == Some(&0x1b)).then_some(Key::Escape)
    }
}

/// The first key and how many bytes it has; none for what is no key of ours. `None`: more is to come.
fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let key = match *bytes.first()? {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        0x1b => return sequence(bytes),
        control @ 1..=26 => Key::Control(char::from(b'a' + control - 1)),
        byte @ b' '..=b'~' => Key::Char(char::from(byte)),
        // Nothing but ASCII means anything here: addresses, numbers, names of encapsulations.
        _ => return Some((None, 1)),
    };
    Some((Some(key), 1))
}

/// A key that begins with Escape: CSI or SS3 (ECMA-48, xterm's control sequences).
fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match bytes.get(1)? {
        b'O' => {
            let last = *bytes.get(2)?;
            Some((by_letter(last), 3))
        }
        b'[' => {
            let end = bytes[2..]
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte));
            let Some(end) = end else {
                // What has no end is thrown away.
                return (bytes.len() > LONGEST).then_some((None, bytes.len()));
            };
            let (parameters, last) = (&bytes[2..2 + end], bytes[2 + end]);
            let key = match last {
                b'~' => by_number(parameters),
                letter => by_letter(letter),
            };
            Some((key, end + 3))
        }
        // Escape, and then a key of its own.
        _ => Some((Some(Key::Escape), 1)),
    }
}

fn by_letter(letter: u8) -> Option<Key> {
    Some(match letter {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'Z' => Key::BackTab,
        b'M' => Key::Enter,
        _ => return None,
    })
}

fn by_number(parameters: &[u8]) -> Option<Key> {
    let number = parameters.split(|byte| *byte == b';').next()?;
    Some(match number {
        b"1" | b"7" => Key::Home,
        b"4" | b"8" => Key::End,
        b"5" => Key::PageUp,
        b"6" => Key::PageDown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terminals_say_these_for_their_keys() {
        for (bytes, key) in [
            (&b"q"[..], Key::Char('q')),
            (b"\r", Key::Enter),
            (b"\t", Key::Tab),
            (b"\x1b[Z", Key::BackTab),
            (b"\x7f", Key::Backspace),
            (b"\x03", Key::Control('c')),
            (b"\x1b[A", Key::Up),
            (b"\x1bOA", Key::Up),
            (b"\x1b[B", Key::Down),
            (b"\x1b[1;5C", Key::Right),
            (b"\x1b[H", Key::Home),
            (b"\x1b[1~", Key::Home),
            (b"\x1bOF", Key::End),
            (b"\x1b[4~", Key::End),
            (b"\x1b[5~", Key::PageUp),
            (b"\x1b[6~", Key::PageDown),
        ] {
            assert_eq!(Keys::default().take(bytes), [key], "{bytes:?}");
        }
    }

    #[test]
    fn a_key_may_come_in_parts_and_several_at_once() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"a\x1b"), [Key::Char('a')]);
        assert!(keys.is_open());
        assert_eq!(keys.take(b"["), []);
        assert_eq!(keys.take(b"Bb"), [Key::Down, Key::Char('b')]);
        assert!(!keys.is_open());
    }

    #[test]
    fn an_escape_that_nothing_follows_is_a_key() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"\x1b"), []);
        assert_eq!(keys.close(), Some(Key::Escape));
        assert_eq!(keys.close(), None);
        assert_eq!(keys.take(b"\x1bq"), [Key::Escape, Key::Char('q')]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_and_not_kept(bytes: Vec<u8>) {
            let mut keys = Keys::default();
            for part in bytes.chunks(3) {
                keys.take(part);
                prop_assert!(keys.begun.len() <= LONGEST + 3);
            }
        }
    }
}
