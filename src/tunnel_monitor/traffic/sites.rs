//! Where the entries of a list are in the network that is up.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netsetup::namespace;
use netsetup::topology::tunnel_monitor::{self, Client, Host};

use super::list::{Entry, Load, Packets, Place};
use crate::Failure;
use crate::notation::counted;

/// What the client of `--heavy` sends to each of the others, in packets of this size, so far apart:
/// 560 kbit/s, where an entry of the default list has 8 kbit/s at most.
const HEAVY: Packets = Packets {
    size: 1400,
    every: Duration::from_millis(20),
    count: None,
};
/// How many others.
const MOST_OTHERS: usize = 8;

/// The hosts of the network that is up.
#[derive(Debug)]
pub struct Sites {
    hosts: Vec<Host>,
    /// The inode of the first host's namespace: with it, the network is gone.
    inode: u64,
}

/// An entry, and who takes part in it.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// What the list says.
    pub entry: &'a Entry,
    /// The host that sends.
    pub from: &'a str,
    /// The host that has the address; none: nobody has it.
    pub to: Option<&'a str>,
}

impl<'a> Route<'a> {
    /// Whether nothing of it is ever on the wire.
    pub fn is_local(&self) -> bool {
        self.to == Some(self.from)
    }

    /// The host that has the address, in which there is to be a socket.
    pub fn receiver(&self) -> Result<&'a str> {
        self.to
            .with_context(|| format!("nobody has {}", self.entry.to))
    }
}

impl Sites {
    /// Of the network that is up now, whoever built it.
    pub fn find() -> Result<Sites> {
        let none = "no network of tunnel_monitor is up: start `tunnel_monitor` (or `netsetup up \
                    tunnel_monitor`) first";
        let hosts = tunnel_monitor::running()?;
        let hosts = hosts.ok_or_else(|| Failure::Conflict(none.into()))?;
        let first = hosts.first().context(none)?;
        let inode = inode(first).context("look at the first namespace")?;
        Ok(Sites { hosts, inode })
    }

    /// An error once the network has gone.
    pub fn check(&self) -> Result<()> {
        match self.hosts.first().map(inode) {
            Some(Ok(inode)) if inode == self.inode => Ok(()),
            _ => bail!("the network of tunnel_monitor is gone; start again when there is one"),
        }
    }

    /// Who takes part in these entries; [`Failure::Usage`] where there is nobody.
    pub fn routes<'a>(&'a self, entries: &'a [Entry]) -> Result<Vec<Route<'a>>> {
        entries.iter().map(|entry| self.route(entry)).collect()
    }

    fn route<'a>(&'a self, entry: &'a Entry) -> Result<Route<'a>> {
        let Some(from) = self.host(&entry.from) else {
            return Err(entry
                .place
                .refusal(&format!("there is no {} in {self}", entry.from))
                .into());
        };
        let route = Route {
            entry,
            from: &from.namespace,
            to: self.owner(entry.to).map(|host| host.namespace.as_str()),
        };
        // That nobody answers a ping may be what somebody wants to see.
        if route.to.is_none() && !matches!(entry.load, Load::Ping(_)) {
            let problem = format!("nobody has {} in {self}", entry.to);
            return Err(entry.place.refusal(&problem).into());
        }
        Ok(route)
    }

    /// Of the default list, what there is in this network too, which may be smaller than the original's.
    pub fn keep_known(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| self.host(&entry.from).is_some() && self.owner(entry.to).is_some());
    }

    /// The entries that make this client, or the first client of this host, send much more than others.
    pub fn heavy(&self, who: &str) -> Result<Vec<Entry>> {
        let (host, client, v6) = self.client(who)?;
        let others = self.hosts.iter().filter(|other| *other != host);
        let peers = others.flat_map(|other| &other.clients);
        let entry = |peer: &Client| Entry {
            from: host.namespace.clone(),
            to: if v6 {
                peer.ipv6.into()
            } else {
                peer.ipv4.into()
            },
            load: Load::Udp(HEAVY),
            place: Place::of_option("--heavy"),
        };
        Ok(peers
            .filter(|peer| peer.vni == client.vni)
            .take(MOST_OTHERS)
            .map(entry)
            .collect())
    }

    /// Its host, itself, and whether it is meant by its IPv6 address.
    fn client(&self, who: &str) -> Result<(&Host, &Client, bool)> {
        let named = self
            .host(who)
            .and_then(|host| Some((host, host.clients.first()?, false)));
        let address: Option<IpAddr> = who.parse().ok();
        let addressed = || {
            let clients = self
                .hosts
                .iter()
                .flat_map(|host| host.clients.iter().map(move |client| (host, client)));
            let address = address?;
            let (host, client) = clients
                .into_iter()
                .find(|(_, client)| has(client, address))?;
            Some((host, client, address.is_ipv6()))
        };
        named.or_else(addressed).ok_or_else(|| {
            crate::settings::in_one_line(&format!(
                "--heavy {who}: that is neither a host nor a client's address in {self}"
            ))
            .into()
        })
    }

    fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.namespace == name)
    }

    fn owner(&self, address: IpAddr) -> Option<&Host> {
        self.hosts.iter().find(|host| {
            IpAddr::from(host.ipv4) == address
                || IpAddr::from(host.ipv6) == address
                || host.clients.iter().any(|client| has(client, address))
        })
    }
}

/// What there is.
impl std::fmt::Display for Sites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vnis = self.hosts.first().map_or(0, |host| host.clients.len());
        write!(
            f,
            "this network of {} and {}",
            counted(self.hosts.len(), "host"),
            counted(vnis, "VNI")
        )
    }
}

fn has(client: &Client, address: IpAddr) -> bool {
    IpAddr::from(client.ipv4) == address || IpAddr::from(client.ipv6) == address
}

fn inode(host: &Host) -> std::io::Result<u64> {
    Ok(fs::metadata(namespace::path(&host.namespace))?.ino())
}
