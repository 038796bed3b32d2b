//! The program at the interfaces that connections leave by.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use libbpf_rs::OpenObject;

use super::socket::Socket;
use crate::Failure;
use crate::netlink::Netlink;
use crate::port::Port;
use crate::tc::Method;
use crate::tcp_hold::{Events, Holder, Setup};

/// Holds connections, at whatever interfaces they leave by.
pub struct Hook<'obj> {
    holder: Holder<'obj>,
    method: Method,
    ports: Vec<Port>,
    netlink: Netlink,
}

impl<'obj> Hook<'obj> {
    /// Loads it for so many connections. It stands nowhere yet.
    pub fn load(
        method: Option<Method>,
        connections: usize,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Hook<'obj>> {
        let setup = Setup {
            max_holds: u32::try_from(connections)?,
        };
        let holder = Holder::load(&setup, object)?;
        Ok(Hook {
            method: method.unwrap_or_else(|| holder.best_method()),
            holder,
            ports: Vec::new(),
            netlink: Netlink::open()?,
        })
    }

    /// Lets it stand at an interface.
    pub fn attach_to(&mut self, interface: &str) -> Result<()> {
        let port = Port::find(&mut self.netlink, interface)?;
        self.attach(port)
    }

    /// Lets it stand where packets to a peer leave.
    pub fn attach_towards(&mut self, peer: SocketAddr, local: Option<IpAddr>) -> Result<()> {
        let address = peer.ip().to_canonical();
        let ifindex = match peer {
            // Every link has a route to a link-local address.
            SocketAddr::V6(peer) if peer.scope_id() != 0 => Some(peer.scope_id()),
            _ => self.netlink.route_to(address, local)?,
        };
        let no_route = || Failure::Usage(format!("there is no route to {address}; see --iface"));
        let ifindex = ifindex.ok_or_else(no_route)?;
        if self.ports.iter().any(|port| port.ifindex == ifindex) {
            return Ok(());
        }
        let link = self.netlink.link(ifindex)?;
        let link = link.with_context(|| format!("the interface towards {address} is gone"))?;
        self.attach(Port::try_from(&link)?)
    }

    fn attach(&mut self, port: Port) -> Result<()> {
        if self.ports.iter().any(|other| other.ifindex == port.ifindex) {
            return Ok(());
        }
        let ports = std::slice::from_ref(&port);
        self.holder.attach(Some(self.method), ports)?;
        self.ports.push(port);
        Ok(())
    }

    /// How it attaches.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Where it stands.
    pub fn interfaces(&self) -> Vec<String> {
        self.ports.iter().map(|port| port.name.clone()).collect()
    }

    /// Holds a connection, from now on.
    pub fn hold(&self, stream: TcpStream) -> Result<Socket> {
        Ok(Socket::Held(self.holder.hold(stream)?))
    }

    /// Holds whatever is accepted, from its first byte on: only where all interfaces are known already.
    pub fn hold_accepted(&self, listener: &TcpListener) -> Result<()> {
        self.holder.hold_accepted(listener)
    }

    /// What the program did.
    pub fn events(&self) -> Result<Events> {
        self.holder.events()
    }
}
