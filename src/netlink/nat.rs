//! Whether this network namespace masquerades: behind that, every download bears the host's own
//! address at the outer interface.

use std::fs;

use anyhow::Result;
use nix::libc;
use nix::sys::socket::SockProtocol;

use super::socket::{Refusal, Socket};
use super::wire::{Attributes, Message, Request, text};

/// `struct nfgenmsg`: any family, version 0, no resource.
const ANY_FAMILY: [u8; 4] = [0; 4];
/// linux/netfilter/nf_tables.h: attributes of a chain, and of its hook.
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_POST_ROUTING`, in network byte order.
const POST_ROUTING: [u8; 4] = 4_u32.to_be_bytes();

/// Whether anything rewrites the source addresses of what leaves: a nat chain of nftables at
/// postrouting, or the nat table of the old iptables. What such a chain says is not read, so an empty
/// one counts too.
pub fn rewrites_sources() -> Result<bool> {
    Ok(has_iptables_nat() || has_nftables_nat()?)
}

fn has_iptables_nat() -> bool {
    ["ip_tables_names", "ip6_tables_names"]
        .into_iter()
        .any(|file| {
            let tables = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            tables.is_ok_and(|tables| tables.lines().any(|table| table == "nat"))
        })
}

fn has_nftables_nat() -> Result<bool> {
    let Ok(mut socket) = Socket::speaking(SockProtocol::NetlinkNetFilter, 0) else {
        return Ok(false); // a kernel without netfilter
    };
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_GETCHAIN) as u16;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let chains = socket.dump(&Request::new(kind, flags, &ANY_FAMILY), |message| {
        is_source_nat(message).then_some(())
    });
    match chains {
        Ok(found) => Ok(!found.is_empty()),
        // A kernel without nftables.
        Err(error) if error.is::<Refusal>() => Ok(false),
        Err(error) => Err(error.context("list the chains of nftables")),
    }
}

fn is_source_nat(message: &Message<'_>) -> bool {
    let chain = || Attributes::after(message.payload, ANY_FAMILY.len());
    let is_nat = chain().any(|(kind, value)| kind == CHAIN_TYPE && text(value) == "nat");
    let hook = chain().find(|(kind, _)| *kind == CHAIN_HOOK);
    let at_postrouting = hook.is_some_and(|(_, hook)| {
        Attributes::of(hook).any(|(kind, value)| kind == HOOK_NUMBER && value == POST_ROUTING)
    });
    is_nat && at_postrouting
}
