//! The TCP sessions of this host that a program on an interface could slow down or cut.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use nix::libc::ARPHRD_LOOPBACK;

use crate::netlink::{Link, Netlink};

/// How many sessions a warning names.
const NAMED: usize = 5;

/// An established TCP session of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSession {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// It is the ssh session in which this program was started.
    pub own_ssh: bool,
}

impl fmt::Display for TcpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.local, self.peer)?;
        if self.own_ssh {
            f.write_str(" (your ssh session)")?;
        }
        Ok(())
    }
}

/// The established TCP sessions in the network namespace of the calling thread, and what tells over which
/// interface they run: read once, asked for each interface. Sessions within the host are left out; those of
/// other namespaces, routed through, are not seen.
#[derive(Debug)]
pub struct TcpSessions {
    links: Vec<Link>,
    /// With the links over which their packets leave.
    sessions: Vec<(TcpSession, Vec<u32>)>,
}

impl TcpSessions {
    /// Those of now; the own ssh session comes first.
    pub fn read(netlink: &mut Netlink) -> Result<TcpSessions> {
        let mut ends = established()?;
        ends.retain(|(_, peer)| !peer.ip().is_loopback());
        if ends.is_empty() {
            return Ok(TcpSessions {
                links: Vec::new(),
                sessions: Vec::new(),
            });
        }
        let ssh = own_ssh();
        let addresses = netlink.addresses()?;
        let mut routes = BTreeMap::new();
        let mut sessions = Vec::new();
        for (local, peer) in ends {
            let over = if is_link_local(peer.ip()) {
                // Every link has a route to it. Our end tells which is meant.
                let ours = addresses.iter().filter(|own| own.address == local.ip());
                ours.map(|own| own.ifindex).collect()
            } else {
                let ends = (local.ip(), peer.ip());
                let route = match routes.get(&ends) {
                    Some(route) => *route,
                    None => {
                        let found = route(netlink, local.ip(), peer.ip())?;
                        *routes.entry(ends).or_insert(found)
                    }
                };
                route.into_iter().collect()
            };
            let own_ssh = ssh == Some(peer);
            let session = TcpSession {
                local,
                peer,
                own_ssh,
            };
            sessions.push((session, over));
        }
        sessions.sort_by_key(|(session, _)| !session.own_ssh);
        Ok(TcpSessions {
            links: netlink.links()?,
            sessions,
        })
    }

    /// Those whose packets leave over this interface: directly, through its bridge or bond, or through a
    /// VLAN on it.
    pub fn over(&self, ifindex: u32) -> Vec<TcpSession> {
        let loops = |link: &Link| link.ifindex == ifindex && link.arphrd == ARPHRD_LOOPBACK;
        if self.sessions.is_empty() || self.links.iter().any(loops) {
            return Vec::new();
        }
        let above = standing_on(ifindex, &self.links);
        let leaves_there = |(_, over): &&(TcpSession, Vec<u32>)| {
            over.iter().any(|ifindex| above.contains(ifindex))
        };
        let found = self.sessions.iter().filter(leaves_there);
        found.map(|(session, _)| *session).collect()
    }
}

/// The line that warns of them, naming five at most; `None` if there are none.
pub fn warning(interface: &str, sessions: &[TcpSession]) -> Option<String> {
    if sessions.is_empty() {
        return None;
    }
    let mut named: Vec<String> = sessions
        .iter()
        .take(NAMED)
        .map(TcpSession::to_string)
        .collect();
    if sessions.len() > NAMED {
        named.push(format!("and {} more", sessions.len() - NAMED));
    }
    Some(format!(
        "TCP sessions of this host run over {interface} and may be slowed down or cut: {}",
        named.join(", ")
    ))
}

fn route(netlink: &mut Netlink, local: IpAddr, peer: IpAddr) -> Result<Option<u32>> {
    // Without a route from the local address (it is not ours any more) any route will do.
    match netlink.route_to(peer, Some(local))? {
        Some(link) => Ok(Some(link)),
        None => netlink.route_to(peer, None),
    }
}

/// The link, its masters, and the VLANs and other links on top of them.
pub fn standing_on(ifindex: u32, links: &[Link]) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([ifindex]);
    loop {
        let size = found.len();
        for link in links {
            // What a veth or netkit device names is its other end.
            let pair = matches!(link.kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
            let lower = link.lower.filter(|_| !pair && !link.lower_elsewhere);
            if lower.is_some_and(|lower| found.contains(&lower)) {
                found.insert(link.ifindex);
            }
            if found.contains(&link.ifindex) {
                found.extend(link.master);
            }
        }
        if found.len() == size {
            return found;
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Both ends of the established sessions.
fn established() -> Result<Vec<(SocketAddr, SocketAddr)>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(text.lines().filter_map(parse_line)),
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        }
    }
    Ok(found)
}

/// One line of /proc/net/tcp or tcp6, if it is an established session.
fn parse_line(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut columns = line.split_whitespace().skip(1);
    let local = parse_end(columns.next()?)?;
    let peer = parse_end(columns.next()?)?;
    (columns.next()? == "01").then_some((local, peer))
}

/// `ADDRESS:PORT` in hex, the address as one or four 32-bit words in the machine's byte order.
fn parse_end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = std::str::from_utf8(word).ok()?;
        octets.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let address = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        _ => return None,
    };
    // A socket of both families has IPv4 peers in IPv6 notation.
    Some(SocketAddr::new(address.to_canonical(), port))
}

/// The peer of the ssh session in which this program was started. sudo(8) removes the variable,
/// but the shell above it has it.
fn own_ssh() -> Option<SocketAddr> {
    if let Ok(connection) = env::var("SSH_CONNECTION") {
        return parse_ssh(&connection);
    }
    let mut process = parent_of("self")?;
    // Deeper than any shell in a shell; ends at process 1, or where we may not look.
    for _ in 0..64 {
        let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
        let found = environment.split(|&byte| byte == 0).find_map(|variable| {
            std::str::from_utf8(variable)
                .ok()?
                .strip_prefix("SSH_CONNECTION=")
        });
        if let Some(connection) = found {
            return parse_ssh(connection);
        }
        process = parent_of(&process)?;
    }
    None
}

fn parent_of(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, behind) = stat.rsplit_once(')')?;
    let parent = behind.split_whitespace().nth(1)?;
    (parent != "0").then(|| parent.to_owned())
}

/// `CLIENT PORT SERVER PORT`.
fn parse_ssh(connection: &str) -> Option<SocketAddr> {
    let mut words = connection.split_whitespace();
    // A link-local address has its interface behind a percent sign.
    let (address, _) = words
        .next()
        .map(|text| text.split_once('%').unwrap_or((text, "")))?;
    let address: IpAddr = address.parse().ok()?;
    Some(SocketAddr::new(
        address.to_canonical(),
        words.next()?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn word(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    fn line(local: &str, peer: &str, state: &str) -> String {
        format!("   0: {local}:0016 {peer}:C350 {state} 00000000:00000000 00:00000000 00000000")
    }

    #[test]
    fn established_sessions_of_both_families_are_read() {
        let v4 = line(&word([192, 0, 2, 1]), &word([198, 51, 100, 7]), "01");
        let expected = |local: &str, peer: &str| {
            Some((
                local.parse::<SocketAddr>().unwrap(),
                peer.parse::<SocketAddr>().unwrap(),
            ))
        };
        assert_eq!(
            parse_line(&v4),
            expected("192.0.2.1:22", "198.51.100.7:50000")
        );
        let v6 = |last: u8| {
            [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, last]]
                .map(word)
                .concat()
        };
        let text = line(&v6(1), &v6(2), "01");
        assert_eq!(
            parse_line(&text),
            expected("[2001:db8::1]:22", "[2001:db8::2]:50000")
        );
        let mapped = [[0; 4], [0; 4], [0, 0, 0xff, 0xff], [192, 0, 2, 9]]
            .map(word)
            .concat();
        let text = line(&mapped, &mapped, "01");
        assert_eq!(
            parse_line(&text),
            expected("192.0.2.9:22", "192.0.2.9:50000")
        );
    }

    #[test]
    fn other_lines_are_not_sessions() {
        let address = word([192, 0, 2, 1]);
        for text in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid",
            "",
            "0:",
            &line(&address, &address, "0A"),
            &line(&address, "", "01"),
            &line(&address, "0000000", "01")[..20],
            &line("zzzzzzzz", &address, "01"),
            &line(&address.repeat(2), &address, "01"),
        ] {
            assert_eq!(parse_line(text), None, "{text}");
        }
    }

    #[test]
    fn the_ssh_variable_gives_the_peer() {
        let peer = |text: &str| parse_ssh(text).map(|peer| peer.to_string());
        assert_eq!(
            peer("192.0.2.1 50000 198.51.100.2 22").unwrap(),
            "192.0.2.1:50000"
        );
        assert_eq!(
            peer("fe80::1%eth0 50000 fe80::2%eth0 22").unwrap(),
            "[fe80::1]:50000"
        );
        assert_eq!(peer(""), None);
        assert_eq!(peer("nonsense 1 2 3"), None);
    }

    #[test]
    fn the_parent_is_a_process() {
        let parent = parent_of("self").unwrap();
        assert_eq!(parent, std::os::unix::process::parent_id().to_string());
    }

    #[test]
    fn the_warning_names_five_and_counts_the_rest() {
        let session = |port| TcpSession {
            local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 22),
            peer: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            own_ssh: port == 1,
        };
        assert_eq!(warning("eth0", &[]), None);
        let one = warning("eth0", &[session(1)]).unwrap();
        assert_eq!(
            one,
            "TCP sessions of this host run over eth0 and may be slowed down or cut: \
             192.0.2.1:22 - [::1]:1 (your ssh session)"
        );
        let five: Vec<_> = (1..=5).map(session).collect();
        assert!(!warning("eth0", &five).unwrap().contains("more"));
        let seven: Vec<_> = (1..=7).map(session).collect();
        let text = warning("eth0", &seven).unwrap();
        assert!(text.ends_with("- [::1]:5, and 2 more"), "{text}");
    }

    fn link(ifindex: u32, kind: &str, master: u32, lower: u32) -> Link {
        let some = |number| (number != 0).then_some(number);
        Link {
            ifindex,
            name: format!("link{ifindex}"),
            altnames: Vec::new(),
            arphrd: 1,
            kind: Some(kind.into()),
            master: some(master),
            lower: some(lower),
            lower_elsewhere: false,
            up: true,
            running: true,
            mac: None,
            mtu: 1500,
        }
    }

    #[test]
    fn masters_and_vlans_stand_on_a_link_and_a_veth_does_not() {
        let links = [
            link(9, "vlan", 0, 4),
            link(4, "bridge", 0, 0),
            link(2, "dummy", 4, 0),
            link(3, "veth", 0, 2),
            link(5, "dummy", 4, 0),
        ];
        assert_eq!(standing_on(2, &links), BTreeSet::from([2, 4, 9]));
        assert_eq!(standing_on(3, &links), BTreeSet::from([3]));
        assert_eq!(standing_on(9, &links), BTreeSet::from([9]));
    }
}
