//! What the simulation's servers and clients make of each other's HTTP, and by which names a browser may call the
//! tools' own server (its requests are hyper's to read). The first byte says in pieces of what size a request comes:
//! that makes no difference.

#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use netbpf::http::is_allowed;
use netbpf::vlan_learning::{read_page, read_request};

/// A server shows this much of a request's line, each byte as four characters at most.
const LONGEST_LINE: usize = 4 * 200 + 3;
const CODES: [u16; 6] = [200, 400, 404, 431, 501, 505];

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else {
        return;
    };
    let request = read_request([bytes]);
    let pieces = bytes.chunks(usize::from(*size).max(1));
    assert_eq!(read_request(pieces), request);
    if let Some((line, code, header_only)) = request {
        // It goes to a terminal.
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert!(line.len() <= LONGEST_LINE);
        assert!(CODES.contains(&code));
        assert!(!header_only || line.starts_with("HEAD"));
    }
    if let Ok((worker, length)) = read_page(bytes) {
        assert!((1..=64).contains(&worker.len()) && worker.is_ascii());
        assert!(length < bytes.len());
    }
    if let Ok(host) = str::from_utf8(bytes)
        && is_allowed(host, Vec::new()) == Some(true)
    {
        assert!(is_known(host), "{host:?}");
    }
});

/// An address or localhost, with a port or without.
fn is_known(host: &str) -> bool {
    let without_port = host
        .trim_end_matches(|c: char| c.is_ascii_digit())
        .strip_suffix(':');
    [Some(host), without_port]
        .into_iter()
        .flatten()
        .any(|name| {
            let in_brackets = name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'));
            match in_brackets {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => {
                    matches!(name.parse(), Ok(IpAddr::V4(_)))
                        || name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
                }
            }
        })
}
