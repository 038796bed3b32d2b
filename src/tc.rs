//! Attaches tc programs to interfaces, and takes exactly them off again.
//!
//! From kernel 6.6 on a program is attached by a TCX link, which the kernel removes with the process,
//! whatever ends it. Before, it becomes a filter on the interface's clsact qdisc: [`Attachment`]
//! removes that one filter, and with the last one the qdisc, when [`Attacher`] made it and nothing
//! else uses it.
//!
//! Nothing here but [`crate::netlink`] belongs to netbpf: libbpf-rs 0.27 has no TCX links, and its
//! `TcHook` neither undoes itself nor leaves others' filters alone.

mod clsact;
mod kept;
mod place;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::{Rc, Weak};

use anyhow::Result;
use libbpf_sys as sys;
use nix::libc;

use clsact::{Filter, Owner};
pub use clsact::{labels_at, remove_leftovers};
pub use kept::{open_pinned, pin, program_info, programs, replace_program};
pub use place::{Other, Place};

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
        match create_tcx_link(program, i32::MAX as u32, Direction::Ingress, (0, None)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Method::Tcx,
            _ => Method::Clsact,
        }
    }
}

/// Attaches programs one way, and shares what the attachments of one interface share.
#[derive(Debug)]
pub struct Attacher {
    method: Method,
    place: Place,
    /// Whether the neighbour was anywhere.
    has_met: Cell<bool>,
    /// Whose the clsact qdiscs are on which filters of ours are, by ifindex.
    owners: RefCell<HashMap<u32, Weak<Owner>>>,
}

impl Attacher {
    /// Attaches by `method`.
    pub fn new(method: Method) -> Attacher {
        Attacher {
            method,
            place: Place::First,
            has_met: Cell::new(false),
            owners: RefCell::default(),
        }
    }

    /// Attaches there among the programs of others, at interfaces where the neighbour is. Of filters the
    /// priority decides, so that they have no such place.
    pub fn at(self, place: Place) -> Attacher {
        Attacher { place, ..self }
    }

    /// Whether the neighbour was anywhere.
    pub fn has_met(&self) -> bool {
        self.place == Place::First || self.has_met.get()
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
                let place = self.place.at(ifindex, direction)?;
                let link = create_tcx_link(program, ifindex, direction, place)?;
                self.has_met.set(self.has_met.get() || place.1.is_some());
                Ok(Attachment::Tcx {
                    link: TcxLink(Some(link)),
                })
            }
            Method::Clsact => {
                let mut owners = self.owners.borrow_mut();
                let owner = owners.get(&ifindex).and_then(Weak::upgrade);
                let filter = Filter::attach(program, label, ifindex, direction, owner)?;
                owners.insert(ifindex, Rc::downgrade(filter.owner()));
                Ok(Attachment::Clsact { _filter: filter })
            }
        }
    }
}

/// A program on one side of an interface; dropping it takes the program off.
#[derive(Debug)]
pub enum Attachment {
    /// Held by the link's file descriptor.
    Tcx {
        #[doc(hidden)]
        link: TcxLink,
    },
    /// Held by the kernel until it is told otherwise.
    Clsact {
        #[doc(hidden)]
        _filter: Filter,
    },
}

/// A link that ends with this value, unless it was pinned. To close its descriptor would not be enough while
/// another thread starts a child: until exec that has a copy.
#[derive(Debug)]
pub struct TcxLink(Option<OwnedFd>);

impl Drop for TcxLink {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            // SAFETY: a call with a number. It fails where the interface is gone, and the link with it.
            unsafe { sys::bpf_link_detach(link.as_raw_fd()) };
        }
    }
}

fn attach_type(direction: Direction) -> sys::bpf_attach_type {
    match direction {
        Direction::Ingress => sys::BPF_TCX_INGRESS,
        Direction::Egress => sys::BPF_TCX_EGRESS,
    }
}

fn create_tcx_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    direction: Direction,
    (flags, neighbour): (u32, Option<u32>),
) -> io::Result<OwnedFd> {
    let mut options = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as _,
        flags,
        ..Default::default()
    };
    options.__bindgen_anon_1.tcx.relative_id = neighbour.unwrap_or(0);
    // SAFETY: the options outlive the call and say their own size; libbpf only reads them.
    let fd = unsafe {
        sys::bpf_link_create(
            program.as_raw_fd(),
            ifindex as i32,
            attach_type(direction),
            &options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: libbpf has just handed us this new descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
