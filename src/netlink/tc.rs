//! Qdiscs and filters of a link: what there is, and changes of it.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result, anyhow};
use nix::libc;

use super::socket::Refusal;
use super::wire::{Attributes, Message, Request, text, u32_at};
use super::{ASK, DUMP, Netlink};

/// Bytes of `struct tcmsg`.
const TCMSG: usize = 20;

/// The parent of a clsact qdisc (linux/pkt_sched.h). An ingress qdisc has the same.
pub const CLSACT: u32 = 0xffff_fff1;
/// The parent of clsact filters that see received packets.
pub const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// The parent of clsact filters that see packets to be sent.
pub const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// The handle of every clsact qdisc. Without it, a request to make one would put it in the place of
/// an ingress qdisc that is there.
const CLSACT_HANDLE: u32 = 0xffff_0000;

const CHANGE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const MAKE: u16 = CHANGE | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const PUT: u16 = CHANGE | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// Every EtherType, as a filter's protocol.
pub const ANY_PROTOCOL: u16 = libc::ETH_P_ALL as u16;

/// linux/pkt_cls.h: attributes of a BPF filter, and the flag by which the program's answer is the
/// verdict.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// The parent of the qdisc through which all of a link's packets leave.
const ROOT: u32 = 0xffff_ffff;

/// The handle of every plug that we make ("PL"). Without one, a request to make a qdisc puts it in the place of
/// somebody's, NLM_F_EXCL or not (Linux 6.12, measured).
const PLUG_HANDLE: u32 = 0x504c_0000;
/// Whatever handle the plug has that is there.
const ANY_HANDLE: u32 = 0;

/// `struct tc_plug_qopt` of linux/pkt_sched.h: what to do, and the limit in bytes.
const TCQ_PLUG_BUFFER: i32 = 0;
const TCQ_PLUG_RELEASE_ONE: i32 = 1;
const TCQ_PLUG_RELEASE_INDEFINITE: i32 = 2;

/// linux/gen_stats.h: the attribute of TCA_STATS2 with `struct gnet_stats_queue`, in which the length in
/// packets, the bytes and the drops are the first three words.
const TCA_STATS_QUEUE: u16 = 3;

/// In place of an ifindex: the filters of a block that links share (linux/rtnetlink.h). Blocks are
/// numbered from 1; the number stands in the parent's place.
const TCM_IFINDEX_MAGIC_BLOCK: u32 = u32::MAX;
const NO_BLOCK: u32 = 0;

/// A queueing discipline of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// "clsact", "fq_codel", …
    pub kind: String,
    /// Its own handle.
    pub handle: u32,
    /// Where it hangs.
    pub parent: u32,
    /// Packets that wait in it.
    pub waiting: u32,
    /// Packets that found no room in it.
    pub dropped: u32,
}

impl Qdisc {
    /// The qdisc through which all of the link's packets leave.
    pub fn is_root(&self) -> bool {
        self.parent == ROOT
    }

    /// The kernel gave it to the link by itself: whoever wants another one takes its place.
    pub fn is_default(&self) -> bool {
        self.handle == 0
    }
}

/// What a plug does from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlugOrder {
    /// Begins a new epoch: packets that come belong to it.
    Buffer,
    /// Lets the packets of the epoch before the last order to buffer go.
    ReleaseOne,
    /// Lets all go, those that come too.
    ReleaseAll,
}

/// A traffic-control filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The link that it is on.
    pub ifindex: u32,
    /// Where on it, for example [`CLSACT_INGRESS`].
    pub parent: u32,
    /// "bpf", "flower", …
    pub kind: String,
    /// Its place among the filters of its parent; 1 runs first.
    pub priority: u16,
    /// Its handle. 0 names the priority itself, which is listed beside its filters.
    pub handle: u32,
    /// The EtherType that it is for, in host byte order, or [`ANY_PROTOCOL`].
    pub protocol: u16,
}

/// A change of a link's qdiscs and filters.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Makes a clsact qdisc. `EEXIST` where one is, or an ingress qdisc.
    MakeClsact {
        /// The link that gets it.
        ifindex: u32,
    },
    /// Removes the clsact qdisc, and every filter in it.
    RemoveClsact {
        /// The link that has it.
        ifindex: u32,
    },
    /// Makes a filter of kind "bpf", or replaces what is there under the same handle. What the
    /// program answers is the verdict.
    PutProgram {
        /// The filter to be.
        filter: &'a Filter,
        /// The program that it runs, and keeps.
        program: BorrowedFd<'a>,
        /// What `tc filter show` calls it, 255 bytes at most.
        name: &'a str,
    },
    /// Removes a filter; with the handle 0, all of its priority.
    RemoveFilter(&'a Filter),
    /// Makes a plug, through which all packets leave, in the place of the kernel's own qdisc. It holds
    /// them from the start. `EEXIST` where somebody's qdisc is, `ENOENT` where the kernel has no plug.
    MakePlug {
        /// The link that gets it.
        ifindex: u32,
        /// What it holds, in bytes; what comes beyond is dropped.
        limit: u32,
    },
    /// Tells the plug what to do. `EINVAL` where another qdisc is in its place.
    TellPlug {
        /// The link that has it.
        ifindex: u32,
        /// What.
        order: PlugOrder,
    },
    /// Removes the plug, and what waits in it. The kernel's own qdisc takes its place.
    RemovePlug {
        /// The link that has it.
        ifindex: u32,
    },
}

impl Netlink {
    /// The queueing disciplines of the link `ifindex`.
    pub fn qdiscs(&mut self, ifindex: u32) -> Result<Vec<Qdisc>> {
        let request = Request::new(libc::RTM_GETQDISC, DUMP, &tcmsg(ifindex, 0, 0, 0));
        self.socket
            .dump(&request, |message| read_qdisc(message, ifindex))
            .with_context(|| format!("list the qdiscs of link {ifindex}"))
    }

    /// The filters of the link `ifindex` at `parent`, for example [`CLSACT_INGRESS`]. A parent
    /// that is not there has none.
    pub fn tc_filters(&mut self, ifindex: u32, parent: u32) -> Result<Vec<Filter>> {
        let request = Request::new(libc::RTM_GETTFILTER, DUMP, &tcmsg(ifindex, parent, 0, 0));
        self.socket
            .dump(&request, |message| read_filter(message, ifindex, parent))
            .with_context(|| format!("list the filters of link {ifindex}"))
    }

    /// The ids of the programs that filters of kind "bpf" run there.
    pub fn tc_programs(&mut self, ifindex: u32, parent: u32) -> Result<Vec<u32>> {
        let request = Request::new(libc::RTM_GETTFILTER, DUMP, &tcmsg(ifindex, parent, 0, 0));
        self.socket
            .dump(&request, |message| read_program(message, ifindex))
            .with_context(|| format!("list the programs of link {ifindex}"))
    }

    /// Makes the changes in their order, in one system call: a signal takes effect before it or after
    /// it, `SIGKILL` too. The kernel goes on to the next also after one that it refuses; the
    /// outcomes are in the order of the changes. An `Err` of the whole leaves open what was done.
    ///
    /// What `SIGKILL` does end is the loading of a module that a change needs: then that one is
    /// refused. See [`Netlink::load_bpf_filters`].
    pub fn change<const N: usize>(
        &mut self,
        changes: [Change<'_>; N],
    ) -> Result<[Result<(), Refusal>; N]> {
        let requests: Result<Vec<Request>> = changes.iter().map(Change::request).collect();
        let outcomes = self
            .socket
            .batch(requests?)
            .context("change qdiscs and filters")?;
        outcomes
            .try_into()
            .map_err(|_| anyhow!("not as many answers as netlink requests"))
    }

    /// Has the kernel load its module for filters of kind "bpf", where that is a module, and changes
    /// nothing else.
    pub fn load_bpf_filters(&mut self) -> Result<()> {
        let nowhere = tcmsg(TCM_IFINDEX_MAGIC_BLOCK, NO_BLOCK, 0, info(1, ANY_PROTOCOL));
        let request = Request::new(libc::RTM_GETTFILTER, ASK, &nowhere)
            .attribute(libc::TCA_KIND, b"bpf\0")?;
        match self.socket.request(request, |_| ()) {
            // There is no such block; the kind is looked up first.
            Err(error) if error.is::<Refusal>() => Ok(()),
            answer => answer.map(drop).context("load the module of BPF filters"),
        }
    }
}

impl Change<'_> {
    fn request(&self) -> Result<Request> {
        match *self {
            Change::MakeClsact { ifindex } => clsact(libc::RTM_NEWQDISC, MAKE, ifindex),
            Change::RemoveClsact { ifindex } => clsact(libc::RTM_DELQDISC, CHANGE, ifindex),
            Change::PutProgram {
                filter,
                program,
                name,
            } => filter
                .request(libc::RTM_NEWTFILTER, PUT)?
                .nested(libc::TCA_OPTIONS, |options| {
                    options
                        .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())?
                        .attribute(TCA_BPF_NAME, format!("{name}\0").as_bytes())?
                        .attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes())
                }),
            Change::RemoveFilter(filter) => filter.request(libc::RTM_DELTFILTER, CHANGE),
            Change::MakePlug { ifindex, limit } => {
                // The order is read from a change only.
                plug(libc::RTM_NEWQDISC, MAKE, ifindex, PLUG_HANDLE)?
                    .attribute(libc::TCA_OPTIONS, &plug_options(TCQ_PLUG_BUFFER, limit))
            }
            Change::TellPlug { ifindex, order } => {
                let action = match order {
                    PlugOrder::Buffer => TCQ_PLUG_BUFFER,
                    PlugOrder::ReleaseOne => TCQ_PLUG_RELEASE_ONE,
                    PlugOrder::ReleaseAll => TCQ_PLUG_RELEASE_INDEFINITE,
                };
                plug(libc::RTM_NEWQDISC, CHANGE, ifindex, ANY_HANDLE)?
                    .attribute(libc::TCA_OPTIONS, &plug_options(action, 0))
            }
            Change::RemovePlug { ifindex } => plug(libc::RTM_DELQDISC, CHANGE, ifindex, ANY_HANDLE),
        }
    }
}

/// With its kind, the request is about no other qdisc that may be in this place.
fn clsact(message: u16, flags: u16, ifindex: u32) -> Result<Request> {
    let fixed = tcmsg(ifindex, CLSACT, CLSACT_HANDLE, 0);
    Request::new(message, flags, &fixed).attribute(libc::TCA_KIND, b"clsact\0")
}

/// With its kind, as that of clsact.
fn plug(message: u16, flags: u16, ifindex: u32, handle: u32) -> Result<Request> {
    let fixed = tcmsg(ifindex, ROOT, handle, 0);
    Request::new(message, flags, &fixed).attribute(libc::TCA_KIND, b"plug\0")
}

fn plug_options(action: i32, limit: u32) -> [u8; 8] {
    let mut options = [0; 8];
    options[..4].copy_from_slice(&action.to_ne_bytes());
    options[4..].copy_from_slice(&limit.to_ne_bytes());
    options
}

impl Filter {
    fn request(&self, message: u16, flags: u16) -> Result<Request> {
        let info = info(self.priority, self.protocol);
        let fixed = tcmsg(self.ifindex, self.parent, self.handle, info);
        let kind = format!("{}\0", self.kind);
        Request::new(message, flags, &fixed).attribute(libc::TCA_KIND, kind.as_bytes())
    }
}

fn tcmsg(ifindex: u32, parent: u32, handle: u32, info: u32) -> [u8; TCMSG] {
    let mut fixed = [0; TCMSG];
    fixed[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    fixed[8..12].copy_from_slice(&handle.to_ne_bytes());
    fixed[12..16].copy_from_slice(&parent.to_ne_bytes());
    fixed[16..20].copy_from_slice(&info.to_ne_bytes());
    fixed
}

/// `tcm_info` of a filter: its priority above its protocol, which is in network byte order.
fn info(priority: u16, protocol: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(protocol.to_be())
}

/// The `tcmsg` of a message about `ifindex`: handle, parent, info, and the kind.
fn read_tc(message: &Message<'_>, ifindex: u32) -> Option<(u32, u32, u32, String)> {
    let payload = message.payload;
    if u32_at(payload, 4)? != ifindex {
        return None;
    }
    let (_, kind) = Attributes::after(payload, TCMSG).find(|(kind, _)| *kind == libc::TCA_KIND)?;
    Some((
        u32_at(payload, 8)?,
        u32_at(payload, 12)?,
        u32_at(payload, 16)?,
        text(kind),
    ))
}

/// By all of these, for fuzzing.
pub(super) fn read_all(
    message: &Message<'_>,
    ifindex: u32,
) -> (Option<Qdisc>, Option<Filter>, Option<u32>) {
    (
        read_qdisc(message, ifindex),
        read_filter(message, ifindex, 0),
        read_program(message, ifindex),
    )
}

fn read_qdisc(message: &Message<'_>, ifindex: u32) -> Option<Qdisc> {
    let (handle, parent, _, kind) = read_tc(message, ifindex)?;
    let mut attributes = Attributes::after(message.payload, TCMSG);
    let queue = attributes
        .find(|(kind, _)| *kind == libc::TCA_STATS2)
        .and_then(|(_, stats)| {
            Attributes::of(stats)
                .find_map(|(kind, queue)| (kind == TCA_STATS_QUEUE).then_some(queue))
        })
        .unwrap_or_default();
    (message.kind == libc::RTM_NEWQDISC).then_some(Qdisc {
        kind,
        handle,
        parent,
        waiting: u32_at(queue, 0).unwrap_or_default(),
        dropped: u32_at(queue, 8).unwrap_or_default(),
    })
}

/// The parent in the message is the one that was last given for any filter of its side, in
/// whatever way: `parent` is the one that was asked for.
fn read_filter(message: &Message<'_>, ifindex: u32, parent: u32) -> Option<Filter> {
    let (handle, _, info, kind) = read_tc(message, ifindex)?;
    (message.kind == libc::RTM_NEWTFILTER).then_some(Filter {
        ifindex,
        parent,
        kind,
        priority: (info >> 16) as u16,
        handle,
        protocol: u16::from_be(info as u16),
    })
}

fn read_program(message: &Message<'_>, ifindex: u32) -> Option<u32> {
    let (_, _, _, kind) = read_tc(message, ifindex)?;
    let mut attributes = Attributes::after(message.payload, TCMSG);
    let (_, options) = attributes.find(|(kind, _)| *kind == libc::TCA_OPTIONS)?;
    let (_, id) = Attributes::after(options, 0).find(|(kind, _)| *kind == TCA_BPF_ID)?;
    (message.kind == libc::RTM_NEWTFILTER && kind == "bpf").then(|| u32_at(id, 0))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_in_network_byte_order_below_the_priority() {
        let bytes = info(7, 0x0800).to_ne_bytes();
        let halves = [&bytes[..2], &bytes[2..]];
        assert!(halves.contains(&&[8, 0][..]), "{bytes:?}");
        assert!(halves.contains(&&7_u16.to_ne_bytes()[..]), "{bytes:?}");
        assert_eq!(info(7, ANY_PROTOCOL) >> 16, 7);
    }
}
