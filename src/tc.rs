//! Attaches tc programs to interfaces, and takes exactly them off again.
//!
//! From kernel 6.6 on a program is attached by a TCX link, which the kernel removes with the process,
//! whatever ends it. Before, it becomes a filter on the interface's clsact qdisc: [`Attachment`]
//! removes that one filter, and the qdisc goes when [`Attacher`] made it and nothing else uses it.
//!
//! Nothing here but [`crate::netlink`] belongs to netbpf: libbpf-rs 0.27 has no TCX links, and its
//! `TcHook` neither undoes itself nor leaves others' filters alone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::{Rc, Weak};

use anyhow::Result;
use libbpf_sys as sys;
use nix::libc;

use crate::Failure;
use crate::netlink::{self, Clsact, Netlink};

/// Our filters' priorities: early, so that few filters can end the chain before ours. Which of the two
/// says whose the qdisc is, so that a later run knows it when this one is killed.
const PRIORITY_ON_OUR_QDISC: u32 = 7;
const PRIORITY_ON_A_STRANGERS_QDISC: u32 = 8;
/// `BPF_F_BEFORE` without a relative: the head of the list. Whoever answers `TCX_PASS` ends the list,
/// and a policer that stands behind him would let everything through.
const TCX_AT_HEAD: u32 = 1 << 3;

/// The side of an interface that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What comes in by the interface.
    Ingress,
    /// What goes out by it.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// The ways to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A BPF link, since kernel 6.6.
    Tcx,
    /// A filter on a clsact qdisc, on any kernel that is new enough for the programs.
    Clsact,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Tcx => "TCX links",
            Method::Clsact => "clsact filters",
        })
    }
}

impl Method {
    /// The best that this kernel can. `program` is any loaded tc program: the attempt to attach it to
    /// an interface that cannot exist is refused for the interface (`ENODEV`) where TCX is known,
    /// and for the kind of link (`EINVAL`) where it is not.
    pub fn best(program: BorrowedFd<'_>) -> Method {
        match create_tcx_link(program, i32::MAX as u32, Direction::Ingress) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Method::Tcx,
            _ => Method::Clsact,
        }
    }
}

/// Attaches programs one way, and shares what the attachments of one interface share.
#[derive(Debug)]
pub struct Attacher {
    method: Method,
    qdiscs: RefCell<HashMap<u32, Weak<Qdisc>>>,
}

impl Attacher {
    /// Attaches by `method`.
    pub fn new(method: Method) -> Attacher {
        Attacher {
            method,
            qdiscs: RefCell::default(),
        }
    }

    /// How this one attaches.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Attaches `program` until the result is dropped. `label` tells it from every other program of
    /// ours; a filter that is there under the same label is replaced, so the caller holds a lock by
    /// which no living process has one there.
    pub fn attach(
        &self,
        program: BorrowedFd<'_>,
        label: &str,
        ifindex: u32,
        direction: Direction,
    ) -> Result<Attachment> {
        match self.method {
            Method::Tcx => {
                let link = create_tcx_link(program, ifindex, direction)?;
                Ok(Attachment::Tcx { _link: link })
            }
            Method::Clsact => {
                let qdisc = self.qdisc(ifindex)?;
                let filter = Filter::attach(program, label, &qdisc, direction)?;
                Ok(Attachment::Clsact {
                    _filter: filter,
                    _qdisc: qdisc,
                })
            }
        }
    }

    fn qdisc(&self, ifindex: u32) -> Result<Rc<Qdisc>> {
        let mut qdiscs = self.qdiscs.borrow_mut();
        if let Some(qdisc) = qdiscs.get(&ifindex).and_then(Weak::upgrade) {
            return Ok(qdisc);
        }
        let qdisc = Rc::new(Qdisc::ensure(ifindex)?);
        qdiscs.insert(ifindex, Rc::downgrade(&qdisc));
        Ok(qdisc)
    }
}

/// A program on one side of an interface; dropping it takes the program off.
#[derive(Debug)]
pub enum Attachment {
    /// Held by the link's file descriptor.
    Tcx {
        #[doc(hidden)]
        _link: OwnedFd,
    },
    /// Held by the kernel; fields are dropped in this order, the filter before its qdisc.
    Clsact {
        #[doc(hidden)]
        _filter: Filter,
        #[doc(hidden)]
        _qdisc: Rc<Qdisc>,
    },
}

fn create_tcx_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    direction: Direction,
) -> io::Result<OwnedFd> {
    let attach_type = match direction {
        Direction::Ingress => sys::BPF_TCX_INGRESS,
        Direction::Egress => sys::BPF_TCX_EGRESS,
    };
    let options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as _,
        flags: TCX_AT_HEAD,
        ..Default::default()
    };
    // SAFETY: the options outlive the call and say their own size; libbpf only reads them.
    let fd =
        unsafe { sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, attach_type, &options) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: libbpf has just handed us this new descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The clsact qdisc of an interface: a place for filters, it queues nothing.
#[derive(Debug)]
pub struct Qdisc {
    ifindex: u32,
    made_by_us: bool,
}

impl Qdisc {
    fn ensure(ifindex: u32) -> Result<Qdisc> {
        let there = Netlink::open()?.clsact(ifindex)? != Clsact::Absent;
        if !there {
            let mut hook = hook_of(ifindex, sys::BPF_TC_INGRESS | sys::BPF_TC_EGRESS);
            // SAFETY: the hook outlives the call and says its own size; libbpf only reads it.
            check(unsafe { sys::bpf_tc_hook_create(&mut hook) }).map_err(no_clsact)?;
        }
        Ok(Qdisc {
            ifindex,
            made_by_us: !there,
        })
    }

    fn priority(&self) -> u32 {
        if self.made_by_us {
            PRIORITY_ON_OUR_QDISC
        } else {
            PRIORITY_ON_A_STRANGERS_QDISC
        }
    }

    fn remove(&self) -> Result<()> {
        if Netlink::open()?.clsact(self.ifindex)? == Clsact::Empty {
            let mut hook = hook_of(self.ifindex, sys::BPF_TC_INGRESS | sys::BPF_TC_EGRESS);
            // SAFETY: as in `ensure`; both sides together stand for the qdisc itself.
            check(unsafe { sys::bpf_tc_hook_destroy(&mut hook) })?;
        }
        Ok(())
    }
}

fn no_clsact(error: io::Error) -> anyhow::Error {
    let failure = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            Failure::Kernel("this kernel has no clsact qdisc (CONFIG_NET_SCH_INGRESS)".into())
        }
        Some(libc::EEXIST) => Failure::Conflict(
            "an ingress qdisc is where the clsact qdisc has to go (tc qdisc show shows it)".into(),
        ),
        _ => return anyhow::Error::from(error).context("add a clsact qdisc"),
    };
    failure.into()
}

/// Removes the filters that a killed run left at an interface under any of these labels, and its
/// clsact qdisc where that run had made it and nothing else is in it. Says whether there were any.
/// The caller knows that no living process has them.
pub fn remove_leftovers(netlink: &mut Netlink, ifindex: u32, labels: &[String]) -> Result<bool> {
    let handles: Vec<u32> = labels.iter().map(|label| handle_of(label)).collect();
    let priorities = [PRIORITY_ON_OUR_QDISC, PRIORITY_ON_A_STRANGERS_QDISC];
    let mut found = false;
    let mut made_by_us = false;
    for (direction, parent) in [
        (Direction::Ingress, netlink::CLSACT_INGRESS),
        (Direction::Egress, netlink::CLSACT_EGRESS),
    ] {
        for filter in netlink.tc_filters(ifindex, parent)? {
            let priority = u32::from(filter.priority);
            let ours = filter.kind == "bpf"
                && priorities.contains(&priority)
                && handles.contains(&filter.handle);
            if ours {
                // Dropping it detaches it.
                drop(Filter {
                    ifindex,
                    direction,
                    priority,
                    handle: filter.handle,
                });
                found = true;
                made_by_us |= priority == PRIORITY_ON_OUR_QDISC;
            }
        }
    }
    drop(Qdisc {
        ifindex,
        made_by_us,
    });
    Ok(found)
}

impl Drop for Qdisc {
    fn drop(&mut self) {
        if self.made_by_us
            && let Err(error) = self.remove()
            && !is_gone(&error)
        {
            eprintln!(
                "remove the clsact qdisc of interface {}: {error:#}",
                self.ifindex
            );
        }
    }
}

/// One filter of ours on a clsact qdisc.
#[derive(Debug)]
pub struct Filter {
    ifindex: u32,
    direction: Direction,
    priority: u32,
    handle: u32,
}

impl Filter {
    fn attach(
        program: BorrowedFd<'_>,
        label: &str,
        qdisc: &Qdisc,
        direction: Direction,
    ) -> Result<Filter> {
        let ifindex = qdisc.ifindex;
        let hook = hook_of(ifindex, side_of(direction));
        let priority = qdisc.priority();
        let mut options = sys::bpf_tc_opts {
            sz: size_of::<sys::bpf_tc_opts>() as _,
            prog_fd: program.as_raw_fd(),
            priority,
            handle: handle_of(label),
            flags: sys::BPF_TC_F_REPLACE,
            ..Default::default()
        };
        // SAFETY: hook and options outlive the call and say their own sizes; libbpf writes the
        // attached program's id into the options.
        check(unsafe { sys::bpf_tc_attach(&hook, &mut options) })?;
        Ok(Filter {
            ifindex,
            direction,
            priority,
            handle: options.handle,
        })
    }

    fn detach(&self) -> io::Result<()> {
        let hook = hook_of(self.ifindex, side_of(self.direction));
        let options = sys::bpf_tc_opts {
            sz: size_of::<sys::bpf_tc_opts>() as _,
            priority: self.priority,
            handle: self.handle,
            ..Default::default()
        };
        // SAFETY: hook and options outlive the call and say their own sizes; libbpf only reads them.
        check(unsafe { sys::bpf_tc_detach(&hook, &options) })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Err(error) = self.detach().map_err(anyhow::Error::from)
            && !is_gone(&error)
        {
            let Filter {
                ifindex, direction, ..
            } = self;
            eprintln!("detach from interface {ifindex} {direction}: {error:#}");
        }
    }
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

fn side_of(direction: Direction) -> sys::bpf_tc_attach_point {
    match direction {
        Direction::Ingress => sys::BPF_TC_INGRESS,
        Direction::Egress => sys::BPF_TC_EGRESS,
    }
}

fn hook_of(ifindex: u32, attach_point: sys::bpf_tc_attach_point) -> sys::bpf_tc_hook {
    sys::bpf_tc_hook {
        sz: size_of::<sys::bpf_tc_hook>() as _,
        ifindex: ifindex as i32,
        attach_point,
        ..Default::default()
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(())
    }
}

/// The interface, and with it what we had there, is gone already.
fn is_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
        .is_some_and(|errno| errno == libc::ENODEV || errno == libc::ENOENT)
}
