//! The packets that applications send to `tcp_hold agent`, by docs/tcp_hold_agent.md: what is read is what those
//! bytes say, all of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netbpf::tcp_hold::agent::protocol::{Answer, Fault, REQUEST, Request, VERSION, Verb, answer};

fuzz_target!(|packet: &[u8]| {
    let outcome = Request::parse(packet);
    let is_of_another_version = packet.first().is_some_and(|version| *version != VERSION);
    assert_eq!(outcome == Err(Fault::Version), is_of_another_version);
    let done = outcome.map(|request| {
        assert_eq!(written(request), *packet);
        Answer {
            handle: request.handle,
            confirmed: request.bytes,
            promised: 0,
        }
    });
    let verb = packet.get(1).copied().unwrap_or_default();
    let said = answer(verb, done);
    assert_eq!(said[..2], [VERSION, verb]);
    assert_eq!(said[2..4] == [0, 0], done.is_ok());
});

fn written(request: Request) -> [u8; REQUEST] {
    let verb = match request.verb {
        Verb::Hold => 1,
        Verb::Confirm => 2,
        Verb::Release => 3,
        Verb::Close => 4,
        Verb::Ask => 5,
        Verb::HoldAccepted => 6,
    };
    let mut packet = [0; REQUEST];
    packet[..2].copy_from_slice(&[VERSION, verb]);
    packet[4..8].copy_from_slice(&request.handle.to_be_bytes());
    packet[8..].copy_from_slice(&request.bytes.to_be_bytes());
    packet
}
