//! Networks, MAC addresses, keys, names and addresses, as options have them: what is read reads back as it is
//! printed.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use netbpf::cidr::Cidr;
use netbpf::http::{HostName, is_allowed};
use netbpf::mac::Mac;
use netbpf::metrics::Address;
use netbpf::tc::Other;
use netbpf::tokenbucket::Key;
use netbpf::tunnel_monitor::Listen;
use netbpf::tunnel_monitor::top::MonitorUrl;
use netbpf::vlan_learning::{Mapping, Pair, Unknown};

fuzz_target!(|text: &str| {
    if let Some(cidr) = read_back::<Cidr>(text) {
        let printed = cidr.to_string();
        let (address, _) = printed.split_once('/').expect("a prefix");
        assert!(cidr.contains(address.parse().expect("an address")));
    }
    if let Some(mac) = read_back::<Mac>(text) {
        assert_eq!(mac.digits().parse(), Ok(mac));
        assert_eq!(Mac::from_number(mac.number()), mac);
    }
    if let Some(key) = read_back::<Key>(text) {
        assert!(key.prefix4 <= 32 && key.prefix6 <= 128);
    }
    read_back::<MonitorUrl>(text);
    read_back::<Listen>(text);
    read_back::<Other>(text);
    let _ = text.parse::<Address>();
    if let Ok(name) = text.parse::<HostName>() {
        assert_eq!(is_allowed(text, vec![name]), Some(true));
    }
    if let Ok(Unknown::To(interface)) = text.parse() {
        assert_eq!(interface, text);
    }
    if let Ok(pair) = text.parse::<Pair>() {
        let mapping = Mapping::of_pairs(&[pair.clone()]).expect("one client");
        let (mac, entry) = mapping.clients.first_key_value().expect("one client");
        assert_eq!(mac.of_host(), Some(*mac));
        assert_eq!(format!("{mac}={}", entry.worker).parse(), Ok(pair));
    }
});

/// Whether there is one, and then the same again from what it prints.
fn read_back<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    let again = read.to_string().parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&read));
    Some(read)
}
