//! Tags for the simulation's clients where the kernel has no VLAN devices.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use netsetup::topology::vlan_learning::Network;

use crate::load::{load, open};
use crate::netlink::Netlink;
use crate::port::Port;
use crate::tc::{Attacher, Attachment, Direction, Method};
use skeleton::VlanTaggerSkelBuilder;

mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/vlan_tagger.skel.rs"));
}

/// The programs at the clients' ports and at the far end of the trunk.
pub struct Tagger<'obj> {
    // Attachments go before the programs that they use.
    _attachments: Vec<Attachment>,
    _skeleton: skeleton::VlanTaggerSkel<'obj>,
}

impl<'obj> Tagger<'obj> {
    /// Loads and attaches them.
    pub fn attach(
        network: &Network,
        method: Method,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Tagger<'obj>> {
        let mut netlink = Netlink::open()?;
        let far_trunk = Port::find(&mut netlink, network.far_trunk())?;
        let mut open = open(VlanTaggerSkelBuilder::default(), object)?;
        let rodata = open.maps.rodata_data.as_mut();
        rodata.context("the object has no .rodata")?.far_trunk = far_trunk.ifindex;
        let skeleton = load(open).context("load the tagger's programs")?;
        let attacher = Attacher::new(method);
        let mut attachments = Vec::new();
        for client in network.clients() {
            let name = client.port.as_ref();
            let name = name.with_context(|| format!("{} has no port", client.namespace))?;
            let port = Port::find(&mut netlink, name)?;
            let (ifindex, vlan) = (port.ifindex.to_ne_bytes(), u32::from(client.vlan));
            let (maps, program) = (&skeleton.maps, &skeleton.progs.tag_client);
            let vlan = vlan.to_ne_bytes();
            maps.vlan_of_port.update(&ifindex, &vlan, MapFlags::ANY)?;
            maps.port_of_vlan.update(&vlan, &ifindex, MapFlags::ANY)?;
            let label = "vlan_tagger/tag_client";
            let attached =
                attacher.attach(program.as_fd(), label, port.ifindex, Direction::Ingress);
            attachments.push(attached.with_context(|| format!("attach tag_client to {name}"))?);
        }
        let (program, label) = (&skeleton.progs.untag_trunk, "vlan_tagger/untag_trunk");
        let trunk = far_trunk.ifindex;
        let attached = attacher.attach(program.as_fd(), label, trunk, Direction::Ingress);
        attachments
            .push(attached.with_context(|| format!("attach untag_trunk to {}", far_trunk.name))?);
        Ok(Tagger {
            _attachments: attachments,
            _skeleton: skeleton,
        })
    }
}
