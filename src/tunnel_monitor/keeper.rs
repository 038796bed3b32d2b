//! Keeps the monitor on the interfaces that the command line means, while interfaces come and go.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use netsetup::instance::Instance;

use super::monitor::{Monitor, labels};
use crate::failure::say;
use crate::netlink::{Link, LinkChange, LinkEvent, Netlink};
use crate::port::{self, Port};
use crate::preflight::{self, Expanded};

/// The name of the tool in its locks.
const NAME: &str = "tunnel_monitor";
const GONE: &str = "is gone; it is monitored again when it is back";

/// An interface that is monitored. The lock: what one instance counts, another one would count again.
#[derive(Debug)]
struct Kept {
    port: Port,
    _lock: Instance,
}

/// The interfaces, and what they are called for.
#[derive(Debug)]
pub struct Keeper {
    /// Names and patterns.
    wanted: Vec<String>,
    kept: BTreeMap<u32, Kept>,
    /// What was said about interfaces that are not monitored, so as not to say it each second.
    said: BTreeSet<String>,
}

impl Keeper {
    /// Locks the interfaces that are there. A name that is not there is an error; of a pattern it is
    /// enough that interfaces may come.
    pub fn new(wanted: &[String]) -> Result<Keeper> {
        let mut keeper = Keeper {
            wanted: wanted.to_vec(),
            kept: BTreeMap::new(),
            said: BTreeSet::new(),
        };
        let mut netlink = Netlink::open()?;
        let expanded = preflight::present_interfaces(&mut netlink, wanted)?;
        for name in &expanded.absent {
            if preflight::is_pattern(name) {
                keeper.say_once(format!("no interface matches '{name}' yet"));
            } else {
                preflight::find_interface(&mut netlink, name)?;
            }
        }
        keeper.tell_left_out(&expanded);
        for link in &expanded.links {
            keeper.keep(Port::try_from(link)?)?;
        }
        port::remove_leftovers(NAME, &keeper.ports().collect::<Vec<_>>(), &labels())?;
        Ok(keeper)
    }

    /// The interfaces that are monitored now.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.kept.values().map(|kept| &kept.port)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.ports().map(|port| port.name.clone()).collect()
    }

    fn keep(&mut self, port: Port) -> Result<()> {
        for lock in port::claim(NAME, [&port])? {
            let port = port.clone();
            self.kept.insert(port.ifindex, Kept { port, _lock: lock });
        }
        Ok(())
    }

    /// A link has changed. Whether other interfaces are monitored than before.
    pub fn follow(&mut self, event: &LinkEvent, monitor: &mut Monitor<'_>) -> Result<bool> {
        // Its number may be another interface's at any time, so this comes before all else.
        let gone = matches!(event.change, LinkChange::Deleted | LinkChange::Moved);
        let lost = gone && self.lose(event.ifindex, monitor, GONE);
        if self.kept.contains_key(&event.ifindex) {
            say(format_args!("{event}"));
        }
        Ok(self.tend(monitor)? || lost)
    }

    /// Whether it was monitored until now.
    fn lose(&mut self, ifindex: u32, monitor: &mut Monitor<'_>, why: &str) -> bool {
        monitor.remove(ifindex);
        let kept = self.kept.remove(&ifindex);
        if let Some(kept) = &kept {
            say(format_args!("{} {why}", kept.port.name));
        }
        kept.is_some()
    }

    /// Interfaces that are there and wanted are attached to, others no longer: their names may have changed,
    /// or they were made ports of a bridge that is monitored too. Whether that changed anything.
    pub fn tend(&mut self, monitor: &mut Monitor<'_>) -> Result<bool> {
        let mut netlink = Netlink::open()?;
        let expanded = preflight::present_interfaces(&mut netlink, &self.wanted)?;
        self.tell_left_out(&expanded);
        let wanted: BTreeMap<u32, &Link> = expanded
            .links
            .iter()
            .map(|link| (link.ifindex, link))
            .collect();
        let dropped: Vec<u32> = self
            .kept
            .keys()
            .copied()
            .filter(|ifindex| !wanted.contains_key(ifindex))
            .collect();
        let mut changed = !dropped.is_empty();
        for ifindex in dropped {
            // The kernel lists a link no longer before it says that it is gone.
            let why = match netlink.link(ifindex)? {
                Some(_) => "is no longer monitored",
                None => GONE,
            };
            self.lose(ifindex, monitor, why);
        }
        for (ifindex, link) in wanted {
            match self.kept.get_mut(&ifindex) {
                Some(kept) if kept.port.name != link.name => {
                    kept.port.name.clone_from(&link.name);
                    changed = true;
                }
                Some(_) => {}
                None => changed |= self.take_in(link, monitor),
            }
        }
        Ok(changed)
    }

    /// What cannot be attached to must not end what runs.
    fn take_in(&mut self, link: &Link, monitor: &mut Monitor<'_>) -> bool {
        let attached = Port::try_from(link).and_then(|port| {
            self.keep(port.clone())?;
            monitor.add(&port)
        });
        match attached {
            Ok(()) => say(format_args!("{} is monitored now", link.name)),
            Err(error) => {
                self.kept.remove(&link.ifindex);
                self.say_once(format!("{} is not monitored: {error:#}", link.name));
                return false;
            }
        }
        true
    }

    fn tell_left_out(&mut self, expanded: &Expanded) {
        for left_out in &expanded.left_out {
            self.say_once(left_out.to_string());
        }
    }

    fn say_once(&mut self, text: String) {
        if !self.said.contains(&text) {
            say(format_args!("{text}"));
            self.said.insert(text);
        }
    }
}
