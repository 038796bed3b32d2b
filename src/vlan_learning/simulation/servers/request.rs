//! A request as the network brings it (RFC 9112): from anybody, in pieces of any size, and perhaps no
//! request at all.

use std::fmt::Write;

/// Bytes of a request line and the header below it, at most.
const LONGEST: usize = 8 * 1024;
/// Characters of a request line that are shown.
const SHOWN: usize = 200;

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    TooLarge,
    NotImplemented,
    VersionNotSupported,
}

impl Status {
    pub(super) fn code(self) -> u16 {
        match self {
            Status::Ok => 200,
            Status::BadRequest => 400,
            Status::NotFound => 404,
            Status::TooLarge => 431,
            Status::NotImplemented => 501,
            Status::VersionNotSupported => 505,
        }
    }

    /// As RFC 9110, 15 and RFC 6585, 5 have it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::BadRequest => "Bad Request",
            Status::NotFound => "Not Found",
            Status::TooLarge => "Request Header Fields Too Large",
            Status::NotImplemented => "Not Implemented",
            Status::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// A request that has been understood as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Its first line, fit to be shown.
    pub(super) line: String,
    pub(super) status: Status,
    /// Whether the answer is to have no body.
    pub(super) header_only: bool,
}

/// A request that has not come to its end.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    /// How many bytes have come, with those that are not kept.
    length: usize,
}

impl Head {
    /// Takes what has come; the request, once it is there. What follows it is nobody's.
    pub(super) fn take(&mut self, chunk: &[u8]) -> Option<Request> {
        for byte in chunk {
            self.length += 1;
            // Empty lines before a request do not count (RFC 9112, 2.2).
            if !(self.bytes.is_empty() && matches!(byte, b'\r' | b'\n')) {
                self.bytes.push(*byte);
            }
            // A line may end without the CR (as above).
            if self.bytes.ends_with(b"\n\r\n") || self.bytes.ends_with(b"\n\n") {
                return Some(Request::read(&self.bytes));
            }
            if self.length >= LONGEST {
                return Some(Request {
                    line: shown(first_line(&self.bytes)),
                    status: Status::TooLarge,
                    header_only: false,
                });
            }
        }
        None
    }
}

impl Request {
    fn read(head: &[u8]) -> Request {
        let line = first_line(head);
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let status = match words[..] {
            [method, target, version] if words.iter().all(|word| is_visible(word)) => {
                answer(method, target, version)
            }
            _ => Status::BadRequest,
        };
        Request {
            line: shown(line),
            status,
            header_only: words.first().is_some_and(|method| *method == b"HEAD"),
        }
    }
}

fn answer(method: &[u8], target: &[u8], version: &[u8]) -> Status {
    match *version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => {}
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Status::VersionNotSupported;
        }
        _ => return Status::BadRequest,
    }
    match (method, target) {
        (b"GET" | b"HEAD", b"/") => Status::Ok,
        (b"GET" | b"HEAD", _) => Status::NotFound,
        _ => Status::NotImplemented,
    }
}

fn is_visible(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(u8::is_ascii_graphic)
}

fn first_line(head: &[u8]) -> &[u8] {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What a stranger wrote, as it may stand on a terminal: without control characters, without bytes that
/// are no text, without end.
fn shown(line: &[u8]) -> String {
    let mut text = String::new();
    for byte in line.iter().take(SHOWN) {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    if line.len() > SHOWN {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<Request> {
        Head::default().take(bytes)
    }

    #[track_caller]
    fn status(bytes: &[u8]) -> Status {
        read(bytes).unwrap().status
    }

    #[test]
    fn a_get_of_the_page_is_one_however_it_is_cut() {
        let bytes = b"GET / HTTP/1.1\r\nHost: 172.16.1.5\r\nAccept: */*\r\n\r\n";
        let expected = Request {
            line: "GET / HTTP/1.1".into(),
            status: Status::Ok,
            header_only: false,
        };
        assert_eq!(read(bytes), Some(expected.clone()));
        for size in 1..bytes.len() {
            let mut head = Head::default();
            let mut found: Vec<_> = bytes
                .chunks(size)
                .filter_map(|part| head.take(part))
                .collect();
            assert_eq!(found.pop(), Some(expected.clone()), "in pieces of {size}");
            assert_eq!(found, []);
        }
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn only_the_page_is_there_and_only_to_be_read() {
        for (line, expected, header_only) in [
            ("GET / HTTP/1.0", Status::Ok, false),
            ("HEAD / HTTP/1.1", Status::Ok, true),
            ("GET /index.html HTTP/1.1", Status::NotFound, false),
            ("HEAD /x HTTP/1.1", Status::NotFound, true),
            ("GET /../../etc/passwd HTTP/1.1", Status::NotFound, false),
            ("GET http://172.16.1.5/ HTTP/1.1", Status::NotFound, false),
            ("POST / HTTP/1.1", Status::NotImplemented, false),
            ("get / HTTP/1.1", Status::NotImplemented, false),
            ("PRI * HTTP/2.0", Status::VersionNotSupported, false),
            ("GET / HTTP/1.x", Status::BadRequest, false),
            ("GET / http/1.1", Status::BadRequest, false),
            ("GET /", Status::BadRequest, false),
            ("GET  / HTTP/1.1", Status::BadRequest, false),
            ("GET / HTTP/1.1 ", Status::BadRequest, false),
            ("GET /\t HTTP/1.1", Status::BadRequest, false),
            ("GET", Status::BadRequest, false),
        ] {
            for end in ["\r\n\r\n", "\n\n", "\r\nA: b\n\r\n"] {
                let request = read(format!("{line}{end}").as_bytes()).unwrap();
                assert_eq!(
                    (request.status, request.header_only),
                    (expected, header_only),
                    "{line}"
                );
            }
        }
        assert_eq!(status(b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n"), Status::Ok);
    }

    #[test]
    fn a_header_without_end_is_refused_when_it_is_too_long() {
        let endless = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(LONGEST)].concat();
        assert_eq!(read(&endless[..LONGEST - 1]), None);
        assert_eq!(status(&endless[..LONGEST]), Status::TooLarge);
        for byte in [b'a', b' ', b'\n', b'\r', 0, 0xff] {
            let mut head = Head::default();
            let mut taken = 0;
            while head.take(&[byte, b'\r']).is_none() {
                taken += 1;
                assert!(taken <= LONGEST / 2, "{byte}");
                assert!(head.bytes.len() <= LONGEST);
            }
        }
    }

    #[test]
    fn what_a_stranger_writes_cannot_act_on_a_terminal() {
        let line = |bytes: &[u8]| read(&[bytes, b"\n\n"].concat()).unwrap().line;
        assert_eq!(
            line(b"GET /\x1b[2J\r\x00\xff\\ HTTP/1.1"),
            "GET /\\x1b[2J\\x0d\\x00\\xff\\\\ HTTP/1.1"
        );
        assert_eq!(line("GET /\u{9b}31m".as_bytes()), "GET /\\xc2\\x9b31m");
        let long = line(&[b'a'; 4000]);
        assert_eq!(long, "a".repeat(200) + "...");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_do_no_harm(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..40)
        ) {
            let mut head = Head::default();
            for piece in &pieces {
                if let Some(request) = head.take(piece) {
                    prop_assert!(request.line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                    prop_assert!(request.line.len() <= 4 * SHOWN + 3);
                    break;
                }
                prop_assert!(head.bytes.len() < LONGEST);
            }
        }
    }
}
