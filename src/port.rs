//! An interface that takes part.

use anyhow::Result;

use crate::netlink::{Link, Netlink};
use crate::preflight::{self, LinkLayer};

/// An interface that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name when it was looked up.
    pub name: String,
    /// Its number, which it keeps when it is renamed.
    pub ifindex: u32,
    /// Where its packets start.
    pub link_layer: LinkLayer,
}

impl TryFrom<&Link> for Port {
    type Error = anyhow::Error;

    fn try_from(link: &Link) -> Result<Port> {
        Ok(Port {
            name: link.name.clone(),
            ifindex: link.ifindex,
            link_layer: preflight::link_layer(link)?,
        })
    }
}

impl Port {
    /// The interface of this name.
    pub fn find(netlink: &mut Netlink, name: &str) -> Result<Port> {
        Port::try_from(&preflight::find_interface(netlink, name)?)
    }

    /// The interface as it is now; none: it is gone, or has another name.
    pub fn link(&self, netlink: &mut Netlink) -> Result<Option<Link>> {
        let link = netlink.link(self.ifindex)?;
        Ok(link.filter(|link| link.name == self.name))
    }

    /// The program of that stem for such an interface: those without an Ethernet header take its twin.
    pub fn program(&self, stem: &str) -> String {
        match self.link_layer {
            LinkLayer::Ethernet => stem.to_owned(),
            LinkLayer::Raw => format!("{stem}_raw"),
        }
    }
}
