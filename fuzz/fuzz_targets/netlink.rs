//! Datagrams of netlink: no message is longer than its datagram, no attributes are longer than their message, and
//! no name has a NUL in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netbpf::netlink::read_datagram;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

fuzz_target!(|datagram: &[u8]| {
    let Ok(messages) = read_datagram(datagram) else {
        return;
    };
    let bytes = messages.iter().map(|message| HEADER + message.payload);
    assert!(bytes.sum::<usize>() <= datagram.len());
    for message in messages {
        for length in message.attributes {
            assert!(length <= message.payload);
        }
        if let Some(link) = message.link {
            let names = link.altnames.iter().chain(&link.kind).chain([&link.name]);
            assert!(names.into_iter().all(|name| !name.contains('\0')));
        }
        if let Some(address) = message.address {
            assert!(address.address.is_ipv4() || address.address.is_ipv6());
        }
        if let Some(refusal) = message.refusal {
            assert!(!refusal.is_empty());
        }
    }
});
