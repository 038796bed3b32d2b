//! By which names a browser may call the server.
//!
//! A page of somebody else's can have its name point to an address of ours, and would then be allowed to
//! read what we answer (DNS rebinding). It cannot choose what the browser writes into `Host`: the page's
//! own name. Addresses are safe, since nobody else answers for them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::uri::Authority;

/// A name of a host, without a port; lower case, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<HostName, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        // RFC 1123, and the underscore that people use.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(fits) {
            return Err(format!(
                "'{text}' is no name of a host, such as monitor.example.com (without a port)"
            ));
        }
        Ok(HostName(name.to_ascii_lowercase()))
    }
}

/// All names by which it may be called.
#[derive(Debug)]
pub(super) struct Hosts(Vec<HostName>);

impl Hosts {
    /// These, localhost and this host's own.
    pub(super) fn new(allowed: Vec<HostName>) -> Hosts {
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Hosts::named(own.trim(), allowed)
    }

    fn named(own: &str, mut names: Vec<HostName>) -> Hosts {
        let short = own.split('.').next().unwrap_or_default();
        // A host without a name has none that could be allowed.
        names.extend(
            ["localhost", own, short]
                .iter()
                .filter_map(|name| name.parse().ok()),
        );
        Hosts(names)
    }

    /// Whether `host`, with a port or without, is an address or one of the names. `None`: it is neither
    /// nor could it be.
    pub(super) fn allow(&self, host: &str) -> Option<bool> {
        let (name, port) = split(host)?;
        let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
        if !port.bytes().all(|byte| byte.is_ascii_digit()) || !is_port(port) {
            return None;
        }
        if let Some(literal) = name.strip_prefix('[') {
            let address = literal.strip_suffix(']')?;
            return address.parse::<Ipv6Addr>().ok().map(|_| true);
        }
        if name.parse::<Ipv4Addr>().is_ok() {
            return Some(true);
        }
        let name: HostName = name.parse().ok()?;
        Some(self.0.contains(&name))
    }

    /// The same for a request's target that names a host.
    pub(super) fn allow_target(&self, target: &Authority) -> Option<bool> {
        self.allow(target.as_str())
    }
}

/// [`Hosts::allow`] where the host itself has no name, for fuzzing.
#[doc(hidden)]
pub fn is_allowed(host: &str, allowed: Vec<HostName>) -> Option<bool> {
    Hosts::named("", allowed).allow(host)
}

/// Name and port; the latter is empty where there is none.
fn split(host: &str) -> Option<(&str, &str)> {
    let end_of_name = match host.strip_prefix('[') {
        Some(_) => host.find(']')? + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at(end_of_name);
    match rest.strip_prefix(':') {
        Some(port) => Some((name, port)),
        None => rest.is_empty().then_some((name, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts() -> Hosts {
        let allowed = vec!["Monitor.Example.COM.".parse().unwrap()];
        Hosts::named("box.example.org", allowed)
    }

    #[test]
    fn addresses_and_known_names_are_allowed() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.7:1",
            "0.0.0.0:8080",
            "255.255.255.255:65535",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::7]:80",
            "[::ffff:192.0.2.1]:80",
            "localhost",
            "LocalHost:8080",
            "localhost.:8080",
            "localhost:",
            "box.example.org",
            "box:8080",
            "BOX.example.org.:8080",
            "monitor.example.com:443",
        ] {
            assert_eq!(hosts().allow(host), Some(true), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "example.com",
            "monitor.example.com.evil.example",
            "box.example.com",
            "xbox",
            "localhost..",
            // No browser sends these: it has made four numbers of them.
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "127.0.0.256",
            "-",
        ] {
            assert_eq!(hosts().allow(host), Some(false), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_as_such() {
        for host in [
            "",
            ":",
            ":8080",
            ".",
            "localhost:80:80",
            "localhost:65536",
            "localhost:-1",
            "localhost:+80",
            "localhost: 80",
            "localhost:80 ",
            " localhost",
            "localhost,evil.example",
            "localhost@evil.example",
            "evil.example/localhost",
            "user:pass@localhost",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[]",
            "[::1]]:80",
            "[fe80::1%25eth0]:80",
            "[127.0.0.1]",
            "[localhost]",
            "lo\u{0}calhost",
            "löcalhost",
            "localhost\u{3002}",
        ] {
            assert_eq!(hosts().allow(host), None, "{host:?}");
        }
    }

    #[test]
    fn a_host_without_a_name_allows_no_empty_one() {
        for own in ["", "(none)", "."] {
            let hosts = Hosts::named(own, Vec::new());
            assert_eq!(hosts.allow(""), None);
            assert_eq!(hosts.allow("none"), Some(false));
            assert_eq!(hosts.allow("localhost"), Some(true));
        }
    }

    #[test]
    fn a_name_has_no_port_and_nothing_that_a_name_has_not() {
        for text in ["", ".", "a b", "a:80", "http://a", "a/", "*", "ä", "a\n"] {
            let error = text.parse::<HostName>().unwrap_err();
            assert!(error.contains("without a port"), "{error}");
        }
        "x".repeat(253).parse::<HostName>().unwrap();
        "x".repeat(254).parse::<HostName>().unwrap_err();
    }

    proptest! {
        #[test]
        fn nothing_else_is_allowed(host in "\\PC{0,40}") {
            let allowed = hosts().allow(&host) == Some(true);
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            let known = ["localhost", "box", "box.example.org", "monitor.example.com"];
            let is_known = |name: &str| {
                known.contains(&name.trim_end_matches('.').to_ascii_lowercase().as_str())
                    || name.parse::<Ipv4Addr>().is_ok()
                    || (name.starts_with('[') && name.ends_with(']'))
            };
            prop_assert!(!allowed || is_known(name) || is_known(&host), "{host:?}");
        }
    }
}
