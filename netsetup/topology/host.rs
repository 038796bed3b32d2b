//! Hosts behind the ports of one bridge: what the networks of several tools have in common.
//!
//! The IPv6 addresses are unique local ones (RFC 4193) that repeat the digits of the IPv4
//! addresses, usable at once (no duplicate address detection). The machine itself has no address
//! on the bridge, so it sends nothing into such a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::guard::Guard;
use crate::link::Link;
use crate::topology::OnStep;
use crate::{ip, namespace};

/// Every host's only device, at the far end of its port.
pub(super) const DEVICE: &str = "eth0";
pub(super) const IPV4_PREFIX: u8 = 24;
pub(super) const IPV6_PREFIX: u8 = 64;

/// One host of a network: a namespace behind a port of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its namespace.
    pub namespace: String,
    /// The host-side end of its veth pair.
    pub port: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; not assigned where the kernel speaks no IPv6.
    pub ipv6: Ipv6Addr,
}

impl Host {
    pub(super) fn configuration(&self) -> Vec<String> {
        configuration(self.ipv4, self.ipv6)
    }
}

/// The lines that give a namespace its addresses and set its devices up.
pub(super) fn configuration(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Vec<String> {
    let mut lines = vec![
        ip::up_line("lo"),
        ip::address_line(DEVICE, IpAddr::V4(ipv4), IPV4_PREFIX),
    ];
    if namespace::has_ipv6() {
        lines.push(ip::address_line(DEVICE, IpAddr::V6(ipv6), IPV6_PREFIX));
    }
    lines.push(ip::up_line(DEVICE));
    lines
}

/// The addresses with these last digits, read as decimal in IPv4 and as hexadecimal in IPv6:
/// 172.16.1.100 and fd00:ac10:1::100.
pub(super) fn addresses(
    [a, b, c]: [u8; 3],
    [e, f, g, h]: [u16; 4],
    digits: u8,
) -> (Ipv4Addr, Ipv6Addr) {
    (
        Ipv4Addr::new(a, b, c, digits),
        Ipv6Addr::new(e, f, g, h, 0, 0, 0, same_digits(digits)),
    )
}

/// What is written in hexadecimal as the number is in decimal.
pub(super) fn same_digits(number: u8) -> u16 {
    let (hundreds, tens, ones) = (number / 100, number / 10 % 10, number % 10);
    u16::from(hundreds) << 8 | u16::from(tens) << 4 | u16::from(ones)
}

/// A bridge, and the networks that the hosts at its ports are in.
pub(super) struct Lan {
    pub(super) bridge: &'static str,
    /// The first three bytes of all IPv4 addresses.
    pub(super) ipv4: [u8; 3],
    /// The first half of all IPv6 addresses.
    pub(super) ipv6: [u16; 4],
}

impl Lan {
    /// `digits` are the last ones of both addresses.
    pub(super) fn host(&self, namespace: impl Into<String>, digits: u8) -> Host {
        let namespace = namespace.into();
        let (ipv4, ipv6) = addresses(self.ipv4, self.ipv6, digits);
        Host {
            port: format!("{namespace}a"),
            namespace,
            ipv4,
            ipv6,
        }
    }

    /// Builds the bridge and the hosts, in their order, as the network `name`; packets pass when
    /// it returns. See [`OnStep`].
    pub(super) fn build(
        &self,
        name: &str,
        hosts: &[&Host],
        on_step: &mut OnStep<'_>,
    ) -> Result<Guard> {
        let namespaces: Vec<&str> = hosts.iter().map(|host| host.namespace.as_str()).collect();
        let ports: Vec<&str> = hosts.iter().map(|host| host.port.as_str()).collect();
        let links: Vec<Link> = [Link::bridge(self.bridge)]
            .into_iter()
            .chain(hosts.iter().map(|host| self.port(host)))
            .collect();

        on_step("looking for what is there already")?;
        let mut guard = Guard::claim(name, &namespaces, &links)?;
        for name in namespaces {
            on_step(&format!("making the namespace {name}"))?;
            guard.make_namespace(name)?;
        }
        on_step(&format!("making the bridge {} and its ports", self.bridge))?;
        guard.make_links(&links)?;
        for host in hosts {
            on_step(&format!("giving {} its addresses", host.namespace))?;
            guard.configure(&host.namespace, &host.configuration())?;
        }
        on_step("waiting for the ports to forward")?;
        guard.wait_until_up(&ports)?;
        Ok(guard)
    }

    fn port(&self, host: &Host) -> Link {
        Link::veth(&host.port, DEVICE, &host.namespace).port_of(self.bridge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_repeat_their_digits() {
        let lan = Lan {
            bridge: "br7",
            ipv4: [192, 0, 2],
            ipv6: [0x2001, 0xdb8, 2, 0],
        };
        for (digits, ipv4, ipv6) in [
            (5, "192.0.2.5", "2001:db8:2::5"),
            (102, "192.0.2.102", "2001:db8:2::102"),
            (151, "192.0.2.151", "2001:db8:2::151"),
        ] {
            let host = lan.host("far", digits);
            assert_eq!(
                (host.ipv4.to_string(), host.ipv6.to_string()),
                (ipv4.into(), ipv6.into())
            );
            assert_eq!((host.namespace, host.port), ("far".into(), "fara".into()));
        }
    }
}
