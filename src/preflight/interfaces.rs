//! From the names on a command line to links that a program can be attached to.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::failure::Failure;
use crate::netlink::{Link, Netlink};

/// What a packet begins with where tc programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: there is no other (ppp, wireguard, tun, IP tunnels).
    Raw,
}

// Of linux/if_arp.h; libc knows only some of them.
const ETHER: u16 = 1;
const PPP: u16 = 512;
const RAWIP: u16 = 519;
const TUNNEL: u16 = 768;
const TUNNEL6: u16 = 769;
const LOOPBACK: u16 = 772;
const SIT: u16 = 776;
const IPGRE: u16 = 778;
const IP6GRE: u16 = 823;
const NONE: u16 = 0xfffe;
const VOID: u16 = 0xffff;

/// What packets of this link begin with; [`Failure::Kernel`] for a type that no tool parses.
pub fn link_layer(link: &Link) -> Result<LinkLayer> {
    match link.arphrd {
        ETHER | LOOPBACK => Ok(LinkLayer::Ethernet),
        // Those for which the kernel itself says that tc sees no link-layer header. PPP adds its
        // own below tc.
        PPP | RAWIP | TUNNEL | TUNNEL6 | SIT | IPGRE | IP6GRE | NONE | VOID => Ok(LinkLayer::Raw),
        other => Err(Failure::Kernel(format!(
            "interface {} is of type {} ({other}): only Ethernet and plain IP are supported",
            link.name,
            type_name(other),
        ))
        .into()),
    }
}

fn type_name(arphrd: u16) -> &'static str {
    match arphrd {
        24 => "IEEE 1394",
        32 => "InfiniBand",
        256..=259 => "SLIP",
        280 => "CAN",
        290 => "MCTP",
        513 => "HDLC",
        779 => "PIM register",
        801..=803 => "raw IEEE 802.11",
        804 | 805 => "IEEE 802.15.4",
        824 => "netlink monitor",
        825 => "6LoWPAN",
        826 => "vsock monitor",
        _ => "other",
    }
}

/// An interface that a pattern or list named and that is not attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The interface.
    pub link: Link,
    /// Why.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is left out: {}", self.link.name, self.reason)
    }
}

/// What a list of names and patterns came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The interfaces, each once, in the order in which they were named.
    pub links: Vec<Link>,
    /// Those left out: say so to the user.
    pub left_out: Vec<LeftOut>,
    /// Names and patterns that stand for nothing yet; only from [`present_interfaces`].
    pub absent: Vec<String>,
}

/// The interface of this name or alternative name; [`Failure::Usage`] with near names if there
/// is none. A pattern stands for nothing here.
pub fn find_interface(netlink: &mut Netlink, name: &str) -> Result<Link> {
    match netlink.link_named(name)? {
        Some(link) => Ok(link),
        None if is_pattern(name) => Err(Failure::Usage(format!(
            "'{name}' is a pattern, and one interface is meant: give its name (ip link shows what there is)"
        ))
        .into()),
        None => Err(unknown(name, &netlink.links()?)),
    }
}

/// The interfaces that names and patterns (`*`, `?`, `[a-c]`, `[!a]`) stand for. A name that is
/// one exactly is not taken for a pattern. Ports whose bridge or bond is in the list too are
/// left out, because their packets would count twice; so is what a pattern meets but no tool can
/// parse. A name or pattern that stands for nothing is a [`Failure::Usage`].
pub fn expand_interfaces(netlink: &mut Netlink, patterns: &[String]) -> Result<Expanded> {
    expand(&netlink.links()?, patterns)
}

/// As [`expand_interfaces`], for those who wait for interfaces: what stands for nothing is absent.
pub fn present_interfaces(netlink: &mut Netlink, patterns: &[String]) -> Result<Expanded> {
    Ok(expand_present(&netlink.links()?, patterns))
}

fn expand(all: &[Link], patterns: &[String]) -> Result<Expanded> {
    let expanded = expand_present(all, patterns);
    match expanded.absent.first() {
        Some(pattern) => Err(unknown(pattern, all)),
        None => Ok(expanded),
    }
}

fn expand_present(all: &[Link], patterns: &[String]) -> Expanded {
    let mut expanded = Expanded::default();
    let mut named: Vec<&Link> = Vec::new();
    for pattern in patterns {
        let exact = all
            .iter()
            .find(|link| names(link).any(|name| name == pattern));
        let found: Vec<&Link> = match exact {
            Some(link) => vec![link],
            None => all
                .iter()
                .filter(|link| names(link).any(|name| matches(pattern, name)))
                .collect(),
        };
        if found.is_empty() {
            expanded.absent.push(pattern.clone());
        }
        for link in found {
            let known = |left: &LeftOut| left.link.ifindex == link.ifindex;
            if named.contains(&link) {
                continue;
            }
            match link_layer(link) {
                // Named exactly, it goes on to the caller's own check, and error.
                Err(_) if exact.is_none() => {
                    if !expanded.left_out.iter().any(known) {
                        expanded.left_out.push(LeftOut {
                            link: link.clone(),
                            reason: format!("packets of type {} are not parsed", link.arphrd),
                        });
                    }
                }
                _ => {
                    expanded.left_out.retain(|left| !known(left));
                    named.push(link);
                }
            }
        }
    }
    let by_number: BTreeMap<u32, &Link> = all.iter().map(|link| (link.ifindex, link)).collect();
    for link in &named {
        match master_among(link, &named, &by_number) {
            None => expanded.links.push((*link).clone()),
            Some(master) => expanded.left_out.push(LeftOut {
                link: (*link).clone(),
                reason: format!("it is a port of {}, which sees its packets", master.name),
            }),
        }
    }
    expanded
}

/// The master of the link, or its master's master, that is in the list too.
fn master_among<'a>(
    link: &Link,
    named: &[&'a Link],
    all: &BTreeMap<u32, &'a Link>,
) -> Option<&'a Link> {
    let mut master = link.master;
    // The kernel allows eight levels; links that changed while they were listed could be a ring.
    for _ in 0..8 {
        let above = *all.get(&master?)?;
        if named.contains(&above) {
            return Some(above);
        }
        master = above.master;
    }
    None
}

fn names(link: &Link) -> impl Iterator<Item = &String> {
    std::iter::once(&link.name).chain(&link.altnames)
}

/// Whether it can stand for more than one name.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

fn unknown(name: &str, all: &[Link]) -> anyhow::Error {
    if is_pattern(name) {
        let text = format!("no interface matches '{name}' (ip link shows what there is)");
        return Failure::Usage(text).into();
    }
    let mut near: Vec<(usize, &str)> = all
        .iter()
        .flat_map(names)
        .filter_map(|other| Some((nearness(name, other)?, other.as_str())))
        .collect();
    near.sort();
    let near: Vec<&str> = near.into_iter().take(3).map(|(_, name)| name).collect();
    let hint = if near.is_empty() {
        "ip link shows what there is".into()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Failure::Usage(format!("there is no interface '{name}' ({hint})")).into()
}

/// How far a name is from what was meant, if one could be taken for the other: a letter or two,
/// by the length, or the case.
fn nearness(name: &str, other: &str) -> Option<usize> {
    if name.eq_ignore_ascii_case(other) {
        return Some(0);
    }
    let allowed = match name.chars().count().min(other.chars().count()) {
        0 | 1 => return None,
        2..=5 => 1,
        _ => 2,
    };
    Some(distance(name, other)).filter(|&distance| distance <= allowed)
}

/// How many letters to change, add, remove or swap with their neighbour to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut cost = (rows[i][j] + usize::from(a != b))
                .min(rows[i][j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Whether a shell pattern stands for the whole of `name`.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The last star met, and where in the name it stops for now: on a mismatch it takes one more.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = matches_one(&pattern[p..], name[n]) {
            p += length;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// How many characters of the pattern stand for the character, if they do.
fn matches_one(pattern: &[char], c: char) -> Option<usize> {
    let first = *pattern.first()?;
    if first == '?' {
        return Some(1);
    }
    if first == '[' {
        let negated = pattern.get(1) == Some(&'!');
        let start = if negated { 2 } else { 1 };
        // A bracket in the first place is one of the set.
        let close = (start + 1..pattern.len()).find(|&at| pattern[at] == ']');
        if let Some(close) = close {
            let inside = in_set(&pattern[start..close], c);
            return (inside != negated).then_some(close + 1);
        }
    }
    (first == c).then_some(1)
}

fn in_set(set: &[char], c: char) -> bool {
    match set {
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || in_set(rest, c),
        [one, rest @ ..] => *one == c || in_set(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, master: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            altnames: Vec::new(),
            arphrd: ETHER,
            kind: None,
            master,
            lower: None,
            lower_elsewhere: false,
            up: true,
            running: true,
            mac: None,
            mtu: 1500,
        }
    }

    /// br0 has bond0, which has eth0 and eth1; eth2 stands alone; can0 is no network of ours.
    fn links() -> Vec<Link> {
        let mut links = vec![
            link(1, "lo", None),
            link(2, "eth0", Some(5)),
            link(3, "eth1", Some(5)),
            link(4, "eth2", None),
            link(5, "bond0", Some(6)),
            link(6, "br0", None),
            link(7, "can0", None),
        ];
        links[0].arphrd = LOOPBACK;
        links[6].arphrd = 280;
        links[3].altnames = vec!["uplink-of-the-cellar".into()];
        links
    }

    fn expanded(patterns: &[&str]) -> Result<(String, String)> {
        let patterns: Vec<String> = patterns.iter().map(|&text| text.into()).collect();
        let expanded = expand(&links(), &patterns)?;
        let join = |names: Vec<String>| names.join(" ");
        Ok((
            join(expanded.links.into_iter().map(|link| link.name).collect()),
            join(
                expanded
                    .left_out
                    .into_iter()
                    .map(|left| left.link.name)
                    .collect(),
            ),
        ))
    }

    fn outcome(patterns: &[&str]) -> (String, String) {
        expanded(patterns).unwrap()
    }

    #[test]
    fn names_and_patterns_keep_their_order_and_come_once() {
        assert_eq!(outcome(&["eth2", "eth0"]).0, "eth2 eth0");
        assert_eq!(outcome(&["eth1", "eth*", "eth1"]).0, "eth1 eth0 eth2");
        assert_eq!(outcome(&["eth[01]"]).0, "eth0 eth1");
        assert_eq!(outcome(&["uplink-of-the-cellar", "eth2"]).0, "eth2");
        assert_eq!(outcome(&["uplink*"]).0, "eth2");
    }

    #[test]
    fn ports_of_a_listed_master_are_left_out() {
        assert_eq!(
            outcome(&["eth*", "bond0"]),
            ("eth2 bond0".into(), "eth0 eth1".into())
        );
        assert_eq!(outcome(&["eth0", "br0"]), ("br0".into(), "eth0".into()));
        assert_eq!(outcome(&["eth0", "eth1"]), ("eth0 eth1".into(), "".into()));
        let (links, left_out) = outcome(&["*"]);
        assert_eq!(links, "lo eth2 br0");
        assert_eq!(left_out, "can0 eth0 eth1 bond0");
    }

    #[test]
    fn a_link_that_cannot_be_parsed_is_left_to_the_caller_if_named() {
        assert_eq!(outcome(&["can0"]), ("can0".into(), "".into()));
        assert_eq!(outcome(&["can*", "can0"]), ("can0".into(), "".into()));
        assert_eq!(outcome(&["can*", "c*"]), ("".into(), "can0".into()));
        let error = link_layer(&links()[6]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "interface can0 is of type CAN (280): only Ethernet and plain IP are supported"
        );
        assert_eq!(error.downcast_ref::<Failure>().map(Failure::code), Some(4));
    }

    #[test]
    fn what_is_not_there_is_a_usage_error_with_near_names() {
        let said = |name: &str| {
            let error = expanded(&[name]).unwrap_err();
            assert_eq!(error.downcast_ref::<Failure>().map(Failure::code), Some(2));
            error.to_string()
        };
        assert_eq!(
            said("eht2"),
            "there is no interface 'eht2' (did you mean eth2?)"
        );
        assert_eq!(
            said("ethh"),
            "there is no interface 'ethh' (did you mean eth0 or eth1 or eth2?)"
        );
        assert_eq!(
            said("BR0"),
            "there is no interface 'BR0' (did you mean br0?)"
        );
        assert_eq!(
            said("wan"),
            "there is no interface 'wan' (ip link shows what there is)"
        );
        assert_eq!(
            said("wl*"),
            "no interface matches 'wl*' (ip link shows what there is)"
        );
        assert_eq!(
            said(""),
            "there is no interface '' (ip link shows what there is)"
        );
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        let yes = [
            ("*", ""),
            ("*", "eth0"),
            ("e*0", "eth0"),
            ("*t*0*", "eth0"),
            ("e*h*10", "eth1010"),
            ("eth?", "eth0"),
            ("eth[0-2]", "eth1"),
            ("eth[!1-2]", "eth0"),
            ("a[]]b", "a]b"),
            ("a[b", "a[b"),
            ("[a-]x", "-x"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let no = [
            ("", "eth0"),
            ("eth", "eth0"),
            ("eth?", "eth"),
            ("eth[0-2]", "eth3"),
            ("eth[!0-2]", "eth1"),
            ("e*1", "eth0"),
            ("*x*", "eth0"),
        ];
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "*a".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(127)));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("eth0", "eth0"), 0);
        assert_eq!(distance("eth0", "eht0"), 1);
        assert_eq!(distance("eth0", "ens3"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
