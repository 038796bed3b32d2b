//! Programs as filters on an interface's clsact qdisc, a place for filters that queues nothing.
//!
//! The kernel keeps them when this process is killed, so they have to say whose they are. A filter
//! does: by its handle, and by its priority, which also says whose the qdisc is. An empty qdisc says
//! nothing, so there is never one of ours: it is made with its first filter in one system call, and
//! removed with its last in one.

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Direction;
use crate::Failure;
use crate::failure::say;
use crate::netlink::{
    self, ANY_PROTOCOL, CLSACT, CLSACT_EGRESS, CLSACT_INGRESS, Change, Netlink, Refusal,
};

/// Who made the qdisc that our filters are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// We did.
    Us,
    /// Somebody else, or we cannot prove that we did.
    Somebody,
}

const OWNERS: [Owner; 2] = [Owner::Us, Owner::Somebody];

impl Owner {
    /// The priority of our filters on his qdisc: early, so that few filters can end the chain before
    /// ours.
    fn priority(self) -> u16 {
        match self {
            Owner::Us => 7,
            Owner::Somebody => 8,
        }
    }
}

/// One filter of ours.
#[derive(Debug)]
pub struct Filter {
    listed: netlink::Filter,
    label: String,
    /// Shared by our filters on the same qdisc, so that they agree.
    owner: Rc<Owner>,
}

impl Filter {
    /// Attaches `program`, in place of a filter that is there under the same label. `owner` is that
    /// of other filters that we have on this interface.
    pub(super) fn attach(
        program: BorrowedFd<'_>,
        label: &str,
        ifindex: u32,
        direction: Direction,
        owner: Option<Rc<Owner>>,
    ) -> Result<Filter> {
        let mut netlink = Netlink::open()?;
        let filter = |owner| Filter::new(ifindex, direction, label, owner);
        if let Some(whose) = predecessor(&mut netlink, ifindex, direction, label)? {
            // Elsewhere it would run beside the one that is there, not in its place.
            let owner = owner.filter(|owner| **owner == whose);
            let next = filter(owner.unwrap_or_else(|| Rc::new(whose)));
            return next.replace(&mut netlink, program);
        }
        if owner.is_none() && !has_clsact(&mut netlink, ifindex)? {
            let first = filter(Rc::new(Owner::Us));
            if let Some(first) = first.attach_with_qdisc(&mut netlink, program)? {
                return Ok(first);
            }
            // Somebody was faster, perhaps with a qdisc of another kind.
            has_clsact(&mut netlink, ifindex)?;
        }
        let next = filter(owner.unwrap_or_else(|| Rc::new(Owner::Somebody)));
        next.attach_to_qdisc(&mut netlink, program)
    }

    pub(super) fn new(ifindex: u32, direction: Direction, label: &str, owner: Rc<Owner>) -> Filter {
        let listed = netlink::Filter {
            ifindex,
            parent: parent_of(direction),
            kind: "bpf".into(),
            priority: owner.priority(),
            handle: handle_of(label),
            protocol: ANY_PROTOCOL,
        };
        Filter {
            listed,
            label: label.into(),
            owner,
        }
    }

    /// Whose qdisc it is on.
    pub(super) fn owner(&self) -> &Rc<Owner> {
        &self.owner
    }

    fn put<'a>(&'a self, program: BorrowedFd<'a>) -> Change<'a> {
        Change::PutProgram {
            filter: &self.listed,
            program,
            name: &self.label,
        }
    }

    /// Attaches it on a qdisc that is there. From here on, dropping it takes it off.
    fn attach_to_qdisc(self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> Result<Filter> {
        let [put] = netlink.change([self.put(program)])?;
        match put {
            Ok(()) => Ok(self),
            Err(refusal) => Err(self.not_put(netlink, refusal)),
        }
    }

    /// Puts the program into the filter of this place that is there. Where that is refused, the filter
    /// stays as it was.
    fn replace(self, netlink: &mut Netlink, program: BorrowedFd<'_>) -> Result<Filter> {
        match netlink.change([self.put(program)])? {
            [Ok(())] => Ok(self),
            [Err(refusal)] => {
                let error = self.not_put(netlink, refusal);
                std::mem::forget(self);
                Err(error)
            }
        }
    }

    /// Makes the qdisc with this filter in it. `None` if there is a qdisc meanwhile.
    pub(super) fn attach_with_qdisc(
        mut self,
        netlink: &mut Netlink,
        program: BorrowedFd<'_>,
    ) -> Result<Option<Filter>> {
        // Killed while the module is loaded for the filter, we would leave the qdisc without one.
        netlink.load_bpf_filters()?;
        let ifindex = self.listed.ifindex;
        match netlink.change([Change::MakeClsact { ifindex }, self.put(program)])? {
            [Ok(()), Ok(())] => Ok(Some(self)),
            [Ok(()), Err(refusal)] => {
                if filters(netlink, ifindex)?.is_empty() {
                    let [removed] = netlink.change([Change::RemoveClsact { ifindex }])?;
                    removed.context("remove the clsact qdisc, in which a filter was refused")?;
                }
                Err(self.not_put(netlink, refusal))
            }
            [Err(refusal), _] => {
                // If the filter came to be, it is on somebody else's qdisc, and its priority lies.
                // Dropped as one on his, it goes without the qdisc.
                self.owner = Rc::new(Owner::Somebody);
                match refusal.errno {
                    Errno::EEXIST => Ok(None),
                    _ => Err(no_clsact(refusal)),
                }
            }
        }
    }

    fn not_put(&self, netlink: &mut Netlink, refusal: Refusal) -> anyhow::Error {
        if refusal.errno == Errno::ENOENT {
            let text = "this kernel has no BPF filters for tc (CONFIG_NET_CLS_BPF)";
            return Failure::Kernel(text.into()).into();
        }
        let ours = &self.listed;
        let there = filters(netlink, ours.ifindex).unwrap_or_default();
        let in_the_way = there.iter().find(|other| {
            (other.parent, other.priority) == (ours.parent, ours.priority)
                && (&other.kind, other.protocol) != (&ours.kind, ours.protocol)
        });
        match in_the_way {
            Some(netlink::Filter { kind, priority, .. }) => Failure::Conflict(format!(
                "a {kind} filter of somebody else has priority {priority} there, which ours needs \
                 (tc filter show lists it)"
            ))
            .into(),
            None => refusal.into(),
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let Filter {
            listed,
            label,
            owner,
        } = self;
        let taken_off = Netlink::open()
            .and_then(|mut netlink| take_off(&mut netlink, **owner, std::slice::from_ref(listed)));
        if let Err(error) = taken_off {
            say(format_args!(
                "detach {label} from interface {}: {error:#}",
                listed.ifindex
            ));
        }
    }
}

/// On whose qdisc the filter is that this side of an interface has under that label; none: there is no
/// such filter.
fn predecessor(
    netlink: &mut Netlink,
    ifindex: u32,
    direction: Direction,
    label: &str,
) -> Result<Option<Owner>> {
    let filters = netlink.tc_filters(ifindex, parent_of(direction))?;
    let is_ours = |filter: &netlink::Filter, owner: Owner| {
        filter.kind == "bpf"
            && filter.protocol == ANY_PROTOCOL
            && (filter.priority, filter.handle) == (owner.priority(), handle_of(label))
    };
    Ok(OWNERS
        .into_iter()
        .find(|owner| filters.iter().any(|filter| is_ours(filter, *owner))))
}

fn parent_of(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => CLSACT_INGRESS,
        Direction::Egress => CLSACT_EGRESS,
    }
}

/// Removes the filters that a killed run left at an interface under any of these labels, and its
/// clsact qdisc where that run had made it and nothing else is in it. Says whether there were any.
/// The caller knows that no living process has them.
pub fn remove_leftovers(netlink: &mut Netlink, ifindex: u32, labels: &[String]) -> Result<bool> {
    let handles: Vec<u32> = labels.iter().map(|label| handle_of(label)).collect();
    let mut ours = own_filters(netlink, ifindex)?;
    ours.retain(|filter| handles.contains(&filter.handle));
    let says_ours = |filter: &netlink::Filter| filter.priority == Owner::Us.priority();
    let owner = if ours.iter().any(says_ours) {
        Owner::Us
    } else {
        Owner::Somebody
    };
    take_off(netlink, owner, &ours).with_context(|| {
        format!("remove the filters that a killed run left at interface {ifindex}")
    })?;
    Ok(!ours.is_empty())
}

/// Which of these labels filters of ours have at an interface.
pub fn labels_at<'a>(
    netlink: &mut Netlink,
    ifindex: u32,
    labels: &'a [String],
) -> Result<Vec<&'a String>> {
    let filters = own_filters(netlink, ifindex)?;
    let is_there = |label: &&String| {
        let handle = handle_of(label);
        filters.iter().any(|filter| filter.handle == handle)
    };
    Ok(labels.iter().filter(is_there).collect())
}

/// Takes filters off an interface, those that are still there; where they are all that is in a
/// qdisc of ours, by removing it. Whoever adds a filter between our look and that loses it: the
/// kernel cannot be asked to remove a qdisc only if it is empty.
fn take_off(netlink: &mut Netlink, owner: Owner, ours: &[netlink::Filter]) -> Result<()> {
    let Some(&netlink::Filter { ifindex, .. }) = ours.first() else {
        return Ok(());
    };
    let there = filters(netlink, ifindex)?;
    let is_ours = |filter: &netlink::Filter| ours.contains(filter);
    // Beside the filters of a priority the kernel lists the priority itself.
    let priority_of = |filter: &netlink::Filter| netlink::Filter {
        handle: 0,
        ..filter.clone()
    };
    let priorities: Vec<_> = ours.iter().map(priority_of).collect();
    let alone = (there.iter()).all(|filter| is_ours(filter) || priorities.contains(filter));
    let mut refused = None;
    if owner == Owner::Us && alone && there.iter().any(is_ours) {
        let [removed] = netlink.change([Change::RemoveClsact { ifindex }])?;
        refused = removed.err();
    } else {
        for filter in there.iter().filter(|filter| is_ours(filter)) {
            let [removed] = netlink.change([Change::RemoveFilter(filter)])?;
            refused = refused.or(removed.err());
        }
    }
    match refused {
        // What is gone, perhaps with its qdisc or interface, was removed by somebody else.
        Some(refusal) if filters(netlink, ifindex)?.iter().any(is_ours) => Err(refusal.into()),
        _ => Ok(()),
    }
}

/// Whether there is a clsact qdisc. In the place of another qdisc it cannot be made.
fn has_clsact(netlink: &mut Netlink, ifindex: u32) -> Result<bool> {
    let qdiscs = netlink.qdiscs(ifindex)?;
    match qdiscs.iter().find(|qdisc| qdisc.parent == CLSACT) {
        None => Ok(false),
        Some(qdisc) if qdisc.kind == "clsact" => Ok(true),
        Some(_) => Err(Failure::Conflict(
            "an ingress qdisc is where the clsact qdisc has to go (tc qdisc show shows it)".into(),
        )
        .into()),
    }
}

fn no_clsact(refusal: Refusal) -> anyhow::Error {
    match refusal.errno {
        Errno::ENOENT => {
            let text = "this kernel has no clsact qdisc (CONFIG_NET_SCH_INGRESS)";
            Failure::Kernel(text.into()).into()
        }
        _ => anyhow::Error::from(refusal).context("add a clsact qdisc"),
    }
}

/// The filters on both sides of an interface.
fn filters(netlink: &mut Netlink, ifindex: u32) -> Result<Vec<netlink::Filter>> {
    let mut filters = netlink.tc_filters(ifindex, CLSACT_INGRESS)?;
    filters.extend(netlink.tc_filters(ifindex, CLSACT_EGRESS)?);
    Ok(filters)
}

/// Those that can be ours.
fn own_filters(netlink: &mut Netlink, ifindex: u32) -> Result<Vec<netlink::Filter>> {
    let priorities = OWNERS.map(Owner::priority);
    let mut filters = filters(netlink, ifindex)?;
    filters.retain(|filter| {
        filter.kind == "bpf"
            && filter.protocol == ANY_PROTOCOL
            && priorities.contains(&filter.priority)
    });
    Ok(filters)
}

/// A label as a filter's handle: FNV-1a, 32 bits. 0 would let the kernel choose.
fn handle_of(label: &str) -> u32 {
    label
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
        .max(1)
}
