//! Where the program stands, beside those of other holders at the same link.
//!
//! TCX links are beside each other by themselves. A filter takes the place of one of the same label, so each
//! holder's has a number, and there is a lock for each: whoever has it, the filter of that number is his. The
//! guard has a copy of the lock as it has one of the link, and so a successor of a dead application takes another
//! number, as long as sockets of that one are held still.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use netsetup::instance::Instance;

use crate::Failure;
use crate::netlink::Netlink;
use crate::port::{self, Port, lock_of};
use crate::preflight;
use crate::tc::{self, Attacher, Attachment, Direction, Method};

/// Holders that there is room for at one interface, where they attach by filters.
const MOST_BESIDE: u32 = 16;

/// The program at one link, until this is dropped.
#[derive(Debug)]
pub struct Post {
    // Dropped in this order: nobody takes the number before the filter is off.
    attached: Attachment,
    lock: Option<Instance>,
}

impl Post {
    /// Attaches the program.
    pub fn take(attacher: &Attacher, port: &Port, program: BorrowedFd<'_>) -> Result<Post> {
        let (lock, label) = match attacher.method() {
            Method::Tcx => (None, label(1)),
            Method::Clsact => {
                preflight::take_all_descriptors()?;
                remove_leftovers()?;
                let (lock, label) = claim(&port.name)?;
                (Some(lock), label)
            }
        };
        let attached = attacher
            .attach(program, &label, port.ifindex, Direction::Egress)
            .with_context(|| format!("attach hold_back to {}", port.name))?;
        Ok(Post { attached, lock })
    }

    /// Leaves it to another process that has the same: a fork of this one.
    pub fn leave(self) {
        self.attached.leave();
        if let Some(lock) = self.lock {
            lock.leave();
        }
    }

    /// That other process, from here on: the lock names it as its holder.
    pub fn take_over(&self) -> Result<()> {
        self.lock.as_ref().map_or(Ok(()), Instance::take_over)
    }

    /// What has to stay open.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let lock = self.lock.as_ref().map(AsFd::as_fd);
        self.attached.descriptor().into_iter().chain(lock)
    }
}

fn label(number: u32) -> String {
    format!("netbpf_hold_back_{number}")
}

/// The first number that nobody has.
fn claim(interface: &str) -> Result<(Instance, String)> {
    for label in (1..=MOST_BESIDE).map(label) {
        match Instance::claim(&lock_of(&label, interface)) {
            Ok(lock) => return Ok((lock, label)),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
    }
    bail!(Failure::Conflict(format!(
        "{MOST_BESIDE} instances hold sockets on {interface}, and there is no room for another filter; end one \
         first"
    )))
}

fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::Conflict(_)))
}

/// Removes what guards left that were killed themselves.
fn remove_leftovers() -> Result<()> {
    let mut netlink = Netlink::open()?;
    let labels: Vec<String> = (1..=MOST_BESIDE).map(label).collect();
    for link in netlink.links()? {
        for label in tc::labels_at(&mut netlink, link.ifindex, &labels)? {
            if let Ok(_lock) = Instance::claim(&lock_of(label, &link.name)) {
                port::remove_left(&mut netlink, &link, std::slice::from_ref(label))?;
            }
        }
    }
    Ok(())
}
