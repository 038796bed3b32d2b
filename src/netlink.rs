//! Links, addresses, routes, qdiscs and filters of this network namespace, asked of the kernel
//! itself (NETLINK_ROUTE). `/sys/class/net` is of no use: it shows the links of the namespace in
//! which it was mounted.

mod diag;
mod nat;
mod socket;
mod tc;
mod watch;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;

pub use diag::sockets_in;
pub use nat::rewrites_sources;
pub use socket::Refusal;
use socket::Socket;
pub use tc::{
    ANY_PROTOCOL, CLSACT, CLSACT_EGRESS, CLSACT_INGRESS, Change, Filter, PlugOrder, Qdisc,
};
pub use watch::{LinkChange, LinkEvent, LinkWatch};
use wire::{Attributes, Message, Request, i32_at, text, u16_at, u32_at};

/// Bytes of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// Bytes of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
/// Bytes of `struct rtmsg`.
const RTMSG: usize = 12;

/// Longest name of a link without and with the alternative names, in bytes (linux/if.h).
const NAME_MAX: usize = 15;
const ALTERNATIVE_NAME_MAX: usize = 127;

const ASK: u16 = libc::NLM_F_REQUEST as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its alternative names (`ip link property add … altname`).
    pub altnames: Vec<String>,
    /// What its link-layer header is: an ARPHRD number of linux/if_arp.h.
    pub arphrd: u16,
    /// The driver's name for it: "veth", "bridge", "bond", …; hardware has none.
    pub kind: Option<String>,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// What it stands on (a VLAN's lower device), or a veth's other end. The number counts in
    /// the namespace of that link: see [`Link::lower_elsewhere`].
    pub lower: Option<u32>,
    /// [`Link::lower`] is a number in another network namespace.
    pub lower_elsewhere: bool,
    /// It is administratively up.
    pub up: bool,
    /// It is up and can carry packets.
    pub running: bool,
    /// Its Ethernet address, if it has one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest network-layer packet, bytes.
    pub mtu: u32,
}

/// An IP address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link that has it.
    pub ifindex: u32,
    /// The address itself, not a point-to-point peer's.
    pub address: IpAddr,
    /// Length of its network prefix, bits.
    pub prefix: u8,
}

/// An open conversation with the kernel about one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens it in the network namespace of the calling thread. Needs no privilege.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(0)?;
        Ok(Netlink { socket })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = without_statistics(Request::new(libc::RTM_GETLINK, DUMP, &[0; IFINFOMSG]))?;
        self.socket.dump(&request, read_link).context("list links")
    }

    /// The link of this name or alternative name.
    pub fn link_named(&mut self, name: &str) -> Result<Option<Link>> {
        // A NUL would cut the name short and could make it another link's.
        if name.is_empty() || name.len() > ALTERNATIVE_NAME_MAX || name.contains('\0') {
            return Ok(None);
        }
        let kind = match name.len() {
            ..=NAME_MAX => libc::IFLA_IFNAME,
            _ => libc::IFLA_ALT_IFNAME,
        };
        let request = Request::new(libc::RTM_GETLINK, ASK, &[0; IFINFOMSG])
            .attribute(kind, format!("{name}\0").as_bytes())?;
        self.one_link(request)
            .with_context(|| format!("look up link {name}"))
    }

    /// The link with this number.
    pub fn link(&mut self, ifindex: u32) -> Result<Option<Link>> {
        if ifindex == 0 {
            return Ok(None);
        }
        let mut fixed = [0; IFINFOMSG];
        fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        self.one_link(Request::new(libc::RTM_GETLINK, ASK, &fixed))
            .with_context(|| format!("look up link {ifindex}"))
    }

    fn one_link(&mut self, request: Request) -> Result<Option<Link>> {
        let request = without_statistics(request)?;
        let answer = self.socket.request(request, read_link);
        Ok(absent(answer, &[Errno::ENODEV])?.flatten())
    }

    /// The IP addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let request = Request::new(libc::RTM_GETADDR, DUMP, &[0; IFADDRMSG]);
        let all = self.socket.dump(&request, read_address);
        all.context("list addresses")
    }

    /// The link over which packets to `destination` leave, sent from `source` if that is given
    /// (a rule may choose by it). None if there is no route.
    pub fn route_to(&mut self, destination: IpAddr, source: Option<IpAddr>) -> Result<Option<u32>> {
        let source = source.filter(|source| source.is_ipv4() == destination.is_ipv4());
        let (family, target) = octets(destination);
        let bits = u8::try_from(target.len() * 8)?;
        let mut fixed = [0; RTMSG];
        fixed[0] = family;
        fixed[1] = bits;
        fixed[2] = if source.is_some() { bits } else { 0 };
        let mut request =
            Request::new(libc::RTM_GETROUTE, ASK, &fixed).attribute(libc::RTA_DST, &target)?;
        if let Some(source) = source {
            request = request.attribute(libc::RTA_SRC, &octets(source).1)?;
        }
        let answer = self.socket.request(request, read_route_link);
        // No route, and the routes that refuse: unreachable, prohibit, blackhole.
        let nowhere = [
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::EACCES,
            Errno::EINVAL,
        ];
        absent(answer, &nowhere)
            .map(Option::flatten)
            .with_context(|| format!("look up the route to {destination}"))
    }
}

/// `None` in place of an error that only says that the thing is not there.
fn absent<T>(answer: Result<Option<T>>, errors: &[Errno]) -> Result<Option<T>> {
    match answer {
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if errors.contains(&refusal.errno) => Ok(None),
            _ => Err(error),
        },
        found => found,
    }
}

/// Leaves the counters out of the answer: they are most of its size.
fn without_statistics(request: Request) -> Result<Request> {
    let mask = libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    request.attribute(libc::IFLA_EXT_MASK, &mask)
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

fn address_of(family: u8, payload: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = payload.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = payload.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Reads RTM_NEWLINK and RTM_DELLINK. Both are also sent, with a family of their own, when a
/// link joins or leaves a bridge: those say nothing about the link itself.
fn read_link(message: &Message<'_>) -> Option<Link> {
    let payload = message.payload;
    if ![libc::RTM_NEWLINK, libc::RTM_DELLINK].contains(&message.kind)
        || i32::from(*payload.first()?) != libc::AF_UNSPEC
    {
        return None;
    }
    let flags = i32_at(payload, 8)?;
    let mut link = Link {
        ifindex: u32_at(payload, 4)?,
        name: String::new(),
        altnames: Vec::new(),
        arphrd: u16_at(payload, 2)?,
        kind: None,
        master: None,
        lower: None,
        lower_elsewhere: false,
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
        mac: None,
        mtu: 0,
    };
    for (kind, payload) in Attributes::after(payload, IFINFOMSG) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(payload),
            libc::IFLA_ADDRESS => link.mac = payload.try_into().ok(),
            libc::IFLA_MTU => link.mtu = u32_at(payload, 0)?,
            libc::IFLA_MASTER => link.master = u32_at(payload, 0).filter(|&master| master != 0),
            libc::IFLA_LINK => link.lower = u32_at(payload, 0).filter(|&lower| lower != 0),
            libc::IFLA_LINK_NETNSID => link.lower_elsewhere = true,
            libc::IFLA_LINKINFO => {
                link.kind = Attributes::of(payload)
                    .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
                    .map(|(_, payload)| text(payload));
            }
            libc::IFLA_PROP_LIST => {
                link.altnames = Attributes::of(payload)
                    .filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME)
                    .map(|(_, payload)| text(payload))
                    .collect();
            }
            _ => {}
        }
    }
    if link.arphrd != libc::ARPHRD_ETHER {
        link.mac = None;
    }
    Some(link)
}

fn read_address(message: &Message<'_>) -> Option<Address> {
    let payload = message.payload;
    if message.kind != libc::RTM_NEWADDR {
        return None;
    }
    let family = *payload.first()?;
    let find = |wanted| {
        Attributes::after(payload, IFADDRMSG)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, payload)| address_of(family, payload))
    };
    Some(Address {
        ifindex: u32_at(payload, 4)?,
        // On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL is always ours.
        address: find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?,
        prefix: *payload.get(1)?,
    })
}

/// What is read of one message of a datagram.
#[doc(hidden)]
#[derive(Debug)]
pub struct Read {
    /// Bytes behind its header.
    pub payload: usize,
    /// Bytes of what its attributes carry, wherever the first of them may stand.
    pub attributes: Vec<usize>,
    /// The link that it is about.
    pub link: Option<Link>,
    /// The address.
    pub address: Option<Address>,
    /// The explanation of a refusal.
    pub refusal: Option<String>,
}

/// All messages of a datagram, by everything that reads them, for fuzzing: no kernel need have sent it.
#[doc(hidden)]
pub fn read_datagram(datagram: &[u8]) -> Result<Vec<Read>> {
    let read = |message: Result<Message<'_>>| {
        let message = message?;
        let ifindex = u32_at(message.payload, 4).unwrap_or_default();
        // Numbers and kinds: whatever they are, they do no harm.
        let _ = (
            read_route_link(&message),
            tc::read_all(&message, ifindex),
            watch::departure(&message),
        );
        let fixed = [IFINFOMSG, IFADDRMSG, RTMSG, 0].into_iter();
        let attributes = fixed.map(|fixed| {
            let found = Attributes::after(message.payload, fixed);
            found.map(|(_, payload)| payload.len()).sum()
        });
        Ok(Read {
            payload: message.payload.len(),
            attributes: attributes.collect(),
            link: read_link(&message),
            address: read_address(&message),
            refusal: socket::outcome(&message)
                .err()
                .map(|error| error.to_string()),
        })
    };
    wire::Messages::of(datagram).map(read).collect()
}

fn read_route_link(message: &Message<'_>) -> Option<u32> {
    Attributes::after(message.payload, RTMSG)
        .find(|(kind, _)| *kind == libc::RTA_OIF)
        .and_then(|(_, payload)| u32_at(payload, 0))
}
