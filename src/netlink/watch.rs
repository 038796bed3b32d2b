//! What happens to links while a program runs on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::MsgFlags;

use super::socket::Socket;
use super::wire::{Attributes, Message, Messages};
use super::{IFINFOMSG, Link, Netlink, read_link};

/// Datagrams that one call of [`LinkWatch::next`] reads: a flood of changes elsewhere must not
/// keep a caller from its signals.
const DATAGRAMS_A_CALL: u32 = 256;

/// How often the links are listed again while changes keep arriving. Once exceeded, a change
/// that was undone meanwhile may be reported, and its undoing too.
const LISTINGS: u32 = 8;

/// What happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// It appeared: made, or moved here from another network namespace.
    New,
    /// It is gone.
    Deleted,
    /// It went to another network namespace, and is lost to this one.
    Moved,
    /// It was renamed.
    Renamed {
        /// Its new name.
        to: String,
    },
    /// It was set down.
    Down,
    /// It was set up.
    Up,
}

/// A change of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// The number of the link.
    pub ifindex: u32,
    /// Its name before the change.
    pub name: String,
    /// What happened.
    pub change: LinkChange,
}

impl fmt::Display for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.change {
            LinkChange::New => write!(f, "{name} appeared"),
            LinkChange::Deleted => write!(f, "{name} was deleted"),
            LinkChange::Moved => write!(f, "{name} was moved to another network namespace"),
            LinkChange::Renamed { to } => write!(f, "{name} was renamed to {to}"),
            LinkChange::Down => write!(f, "{name} went down"),
            LinkChange::Up => write!(f, "{name} went up"),
        }
    }
}

/// Which links a [`LinkWatch`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Watched {
    /// Every link, also those that appear later.
    All,
    /// The links of these numbers.
    Only(BTreeSet<u32>),
}

impl Watched {
    fn covers(&self, ifindex: u32) -> bool {
        match self {
            Watched::All => true,
            Watched::Only(numbers) => numbers.contains(&ifindex),
        }
    }
}

/// What is remembered of a link, to tell what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    up: bool,
}

impl From<Link> for Known {
    fn from(link: Link) -> Self {
        Known {
            name: link.name,
            up: link.up,
        }
    }
}

/// Reports changes of links; poll its descriptor and call [`LinkWatch::next`].
#[derive(Debug)]
pub struct LinkWatch {
    socket: Socket,
    list: Netlink,
    watched: Watched,
    known: BTreeMap<u32, Known>,
    pending: VecDeque<LinkEvent>,
}

impl LinkWatch {
    /// Watches `links`, in the network namespace of the calling thread. What happened to them
    /// since they were looked up is reported first.
    pub fn over(links: &[Link]) -> Result<Self> {
        let numbers = links.iter().map(|link| link.ifindex).collect();
        Self::start(Watched::Only(numbers), links)
    }

    /// Watches every link of the network namespace of the calling thread. Those that are there
    /// and not among `links` are reported as new.
    pub fn all(links: &[Link]) -> Result<Self> {
        Self::start(Watched::All, links)
    }

    fn start(watched: Watched, links: &[Link]) -> Result<Self> {
        // First the subscription, then the list: nothing falls between them.
        let mut watch = LinkWatch {
            socket: Socket::open(libc::RTMGRP_LINK as u32).context("watch links")?,
            list: Netlink::open()?,
            watched,
            known: links
                .iter()
                .map(|link| (link.ifindex, link.clone().into()))
                .collect(),
            pending: VecDeque::new(),
        };
        watch.list_again()?;
        Ok(watch)
    }

    /// Also reports the changes of `link`, from its state as given.
    pub fn add(&mut self, link: &Link) {
        if let Watched::Only(numbers) = &mut self.watched {
            numbers.insert(link.ifindex);
        }
        self.known.insert(link.ifindex, link.clone().into());
    }

    /// No longer reports the changes of the link `ifindex`; a watch over every link goes on.
    pub fn remove(&mut self, ifindex: u32) {
        if let Watched::Only(numbers) = &mut self.watched {
            numbers.remove(&ifindex);
            self.known.remove(&ifindex);
        }
        self.pending.retain(|event| event.ifindex != ifindex);
    }

    /// The next change, in order; `None` when there is none yet. Never waits.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: None is not the end"
    )]
    pub fn next(&mut self) -> Result<Option<LinkEvent>> {
        for _ in 0..DATAGRAMS_A_CALL {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            match self.read()? {
                Read::Nothing => return Ok(None),
                Read::Datagram => {}
                Read::Overrun => self.list_again()?,
            }
        }
        Ok(self.pending.pop_front())
    }

    /// Reads and applies one datagram.
    fn read(&mut self) -> Result<Read> {
        let datagram = match self.socket.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(datagram) => datagram,
            Err(Errno::EAGAIN) => return Ok(Read::Nothing),
            Err(Errno::ENOBUFS) => return Ok(Read::Overrun),
            Err(errno) => return Err(errno).context("watch links"),
        };
        for message in Messages::of(datagram) {
            let message = message.context("watch links")?;
            let Some(link) = read_link(&message) else {
                continue;
            };
            let ifindex = link.ifindex;
            if !self.watched.covers(ifindex) {
                continue;
            }
            let (now, gone) = match message.kind {
                libc::RTM_DELLINK => (None, departure(&message)),
                _ => (Some(link.into()), LinkChange::Deleted),
            };
            compare(&mut self.known, &mut self.pending, ifindex, now, gone);
        }
        Ok(Read::Datagram)
    }

    /// Compares what is known with the links that there are, and reports what was missed. The
    /// messages that are queued come first: they are older than the list.
    fn list_again(&mut self) -> Result<()> {
        let mut links = BTreeMap::new();
        for _ in 0..LISTINGS {
            let listed = self.list.links().context("watch links")?;
            links = listed
                .into_iter()
                .filter(|link| self.watched.covers(link.ifindex))
                .map(|link| (link.ifindex, Known::from(link)))
                .collect();
            let mut quiet = true;
            for _ in 0..DATAGRAMS_A_CALL {
                match self.read()? {
                    Read::Nothing => break,
                    Read::Datagram | Read::Overrun => quiet = false,
                }
            }
            if quiet {
                break;
            }
        }
        let numbers: BTreeSet<u32> = self.known.keys().chain(links.keys()).copied().collect();
        for ifindex in numbers {
            let now = links.remove(&ifindex);
            let gone = LinkChange::Deleted;
            compare(&mut self.known, &mut self.pending, ifindex, now, gone);
        }
        Ok(())
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

enum Read {
    Nothing,
    Datagram,
    /// Messages were lost.
    Overrun,
}

/// How a link went that an RTM_DELLINK is about: a move names the namespace it went to.
pub(super) fn departure(message: &Message<'_>) -> LinkChange {
    let moved = Attributes::after(message.payload, IFINFOMSG)
        .any(|(kind, _)| kind == libc::IFLA_NEW_NETNSID);
    if moved {
        LinkChange::Moved
    } else {
        LinkChange::Deleted
    }
}

/// Takes over the state of a link (`None`: it is `gone`) and reports how it differs.
fn compare(
    known: &mut BTreeMap<u32, Known>,
    pending: &mut VecDeque<LinkEvent>,
    ifindex: u32,
    now: Option<Known>,
    gone: LinkChange,
) {
    let mut report = |name: &str, change| {
        pending.push_back(LinkEvent {
            ifindex,
            name: name.to_owned(),
            change,
        });
    };
    let before = match &now {
        Some(now) => known.insert(ifindex, now.clone()),
        None => known.remove(&ifindex),
    };
    match (before, now) {
        (None, None) => {}
        (None, Some(now)) => report(&now.name, LinkChange::New),
        (Some(before), None) => report(&before.name, gone),
        (Some(before), Some(now)) => {
            if before.name != now.name {
                let to = now.name.clone();
                report(&before.name, LinkChange::Renamed { to });
            }
            match (before.up, now.up) {
                (true, false) => report(&now.name, LinkChange::Down),
                (false, true) => report(&now.name, LinkChange::Up),
                _ => {}
            }
        }
    }
}
