//! The packets between an application and the agent; docs/tcp_hold_agent.md is their description.

/// Of this protocol; the first byte of each packet.
pub const VERSION: u8 = 1;
/// Bytes of a request.
pub const REQUEST: usize = 16;
/// Bytes of an answer.
pub const ANSWER: usize = 24;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Hold the connection that comes with it.
    Hold,
    /// So many bytes more are dealt with.
    Confirm,
    /// The kernel may acknowledge as it likes.
    Release,
    /// The agent closes its copy of the socket.
    Close,
    /// How far it is.
    Ask,
    /// Hold what the listener that comes with it accepts.
    HoldAccepted,
}

/// Why it was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another version.
    Version = 1,
    /// Not as the protocol has it.
    Malformed = 2,
    /// Nothing of that handle is held.
    Handle = 3,
    /// The socket is of another network namespace.
    Elsewhere = 4,
    /// More would be confirmed than was read.
    Beyond = 5,
    /// The kernel, or the library, would not; the agent says why on its standard error.
    Refused = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    pub handle: u32,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub handle: u32,
    pub confirmed: u64,
    pub promised: u64,
}

impl Request {
    /// As it came.
    pub fn parse(packet: &[u8]) -> Result<Request, Fault> {
        match packet.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(Fault::Version),
            None => return Err(Fault::Malformed),
        }
        let packet: &[u8; REQUEST] = packet.try_into().map_err(|_| Fault::Malformed)?;
        let [_, verb, 0, 0, a, b, c, d, bytes @ ..] = *packet else {
            return Err(Fault::Malformed);
        };
        let verb = match verb {
            1 => Verb::Hold,
            2 => Verb::Confirm,
            3 => Verb::Release,
            4 => Verb::Close,
            5 => Verb::Ask,
            6 => Verb::HoldAccepted,
            _ => return Err(Fault::Malformed),
        };
        let request = Request {
            verb,
            handle: u32::from_be_bytes([a, b, c, d]),
            bytes: u64::from_be_bytes(bytes),
        };
        // What means nothing is 0, so that it can mean something one day.
        let has_handle = !matches!(verb, Verb::Hold | Verb::HoldAccepted);
        if (request.handle != 0 && !has_handle) || (request.bytes != 0 && verb != Verb::Confirm) {
            return Err(Fault::Malformed);
        }
        Ok(request)
    }
}

/// The answer to a request of which this was the second byte.
pub fn answer(verb: u8, outcome: Result<Answer, Fault>) -> [u8; ANSWER] {
    let fault = outcome.err().map_or(0, |fault| fault as u16);
    let answer = outcome.unwrap_or_default();
    let mut packet = [0; ANSWER];
    packet[0] = VERSION;
    packet[1] = verb;
    packet[2..4].copy_from_slice(&fault.to_be_bytes());
    packet[4..8].copy_from_slice(&answer.handle.to_be_bytes());
    packet[8..16].copy_from_slice(&answer.confirmed.to_be_bytes());
    packet[16..24].copy_from_slice(&answer.promised.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_described() {
        let packet = [1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4];
        let request = Request {
            verb: Verb::Confirm,
            handle: 0x102,
            bytes: 0x304,
        };
        assert_eq!(Request::parse(&packet), Ok(request));
        for length in 1..REQUEST {
            assert_eq!(Request::parse(&packet[..length]), Err(Fault::Malformed));
        }
        assert_eq!(Request::parse(&[]), Err(Fault::Malformed));
        assert_eq!(
            Request::parse(&[packet, packet].concat()),
            Err(Fault::Malformed)
        );
    }

    #[test]
    fn what_means_nothing_is_0() {
        let with = |at: usize, byte: u8| {
            let mut packet = [1, 5, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];
            packet[at] = byte;
            Request::parse(&packet)
        };
        assert!(with(0, 1).is_ok());
        assert_eq!(with(0, 2), Err(Fault::Version));
        for (at, byte) in [(1, 0), (1, 7), (2, 1), (3, 1), (15, 1), (1, 1), (1, 6)] {
            assert_eq!(with(at, byte), Err(Fault::Malformed), "{byte} at {at}");
        }
    }

    #[test]
    fn an_answer_is_as_it_is_described() {
        let done = Answer {
            handle: 7,
            confirmed: 0x0102,
            promised: 0x03,
        };
        let expected = [
            1, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3,
        ];
        assert_eq!(answer(2, Ok(done)), expected);
        let mut expected = [0; ANSWER];
        (expected[0], expected[1], expected[3]) = (1, 9, 2);
        assert_eq!(answer(9, Err(Fault::Malformed)), expected);
    }
}
