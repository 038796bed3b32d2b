//! The token bucket that is attached to an interface, whoever attached it: found in the kernel, which
//! alone knows for certain what runs there. Nothing has to be written down, so nothing can be stale.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::MapHandle;
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use netsetup::instance::{Holder, Instance};

use super::label::{STEM, pinned_labels};
use super::maps::Maps;
use super::pins::Pins;
use crate::Failure;
use crate::netlink::Netlink;
use crate::port::{self, Port};
use crate::tc::{self, Direction};

/// How long an instance may take to end.
const ENDS: Duration = Duration::from_secs(5);

/// Who answers for it.
#[derive(Debug)]
pub enum Owner {
    /// A process.
    Process(i32),
    /// Nobody: it was pinned to stay.
    Pinned(PathBuf),
    /// Somebody who loaded the object by himself.
    Stranger,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Process(pid) => write!(f, "running as pid {pid}"),
            Owner::Pinned(path) => write!(f, "pinned in {}", path.display()),
            Owner::Stranger => f.write_str("attached by tc or another program"),
        }
    }
}

/// An instance.
#[derive(Debug)]
pub struct Attached {
    /// The interface.
    pub port: Port,
    /// Who answers for it.
    pub owner: Owner,
    /// Its maps.
    pub maps: Maps,
    /// The sides that it is attached to.
    pub directions: Vec<Direction>,
}

impl Attached {
    /// The instance at this interface, or [`Failure::Usage`].
    pub fn at(interface: &str) -> Result<Attached> {
        let port = Port::find(&mut Netlink::open()?, interface)?;
        match Attached::find(&port)? {
            Some(attached) => Ok(attached),
            None => {
                let text = format!("no tokenbucket is attached to {interface}");
                Err(Failure::Usage(text).into())
            }
        }
    }

    /// The pinned instance that a new one would take over from. Without `--pin` that is a
    /// [`Failure::Conflict`]. Pins that hold nothing any more are removed.
    pub fn predecessor(ports: &[Port], pinned: bool) -> Result<Option<Attached>> {
        for dead in Pins::of_the_dead()? {
            dead.remove()?;
        }
        for port in ports {
            let pins = Pins::of(port)?;
            if !pins.are_there() {
                continue;
            }
            let attached = Attached::find(port)?;
            let attached = attached.filter(|attached| matches!(attached.owner, Owner::Pinned(_)));
            if attached.is_none() {
                pins.remove()?;
            } else if !pinned {
                let text = format!(
                    "a pinned tokenbucket is at {name}: --pin takes it over, and tokenbucket detach \
                     --iface {name} ends it",
                    name = port.name
                );
                return Err(Failure::Conflict(text).into());
            } else {
                return Ok(attached);
            }
        }
        Ok(None)
    }

    /// The instance at this interface, if there is one: ours, or else a stranger's.
    pub fn find(port: &Port) -> Result<Option<Attached>> {
        let mut found: Vec<(Owner, Maps, Vec<Direction>)> = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            for program in tc::programs(port.ifindex, direction)? {
                let Some(maps) = maps_of(program)? else {
                    continue;
                };
                // One instance may have programs at both sides.
                match found
                    .iter_mut()
                    .find(|(_, other, _)| other.share_cells(&maps))
                {
                    Some((_, _, directions)) => directions.push(direction),
                    None => found.push((owner_of(port, &maps)?, maps, vec![direction])),
                }
            }
        }
        found.sort_by_key(|(owner, ..)| matches!(owner, Owner::Stranger));
        let first = found.into_iter().next();
        Ok(first.map(|(owner, maps, directions)| Attached {
            port: port.clone(),
            owner,
            maps,
            directions,
        }))
    }

    /// The names of all interfaces that it is attached to: [`Attached::port`] may be one of many.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for link in Netlink::open()?.links()? {
            if self.is_at(link.ifindex)? {
                names.push(link.name);
            }
        }
        Ok(names)
    }

    fn is_at(&self, ifindex: u32) -> Result<bool> {
        for direction in [Direction::Ingress, Direction::Egress] {
            for program in tc::programs(ifindex, direction)? {
                if maps_of(program)?.is_some_and(|maps| maps.share_cells(&self.maps)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Ends it at all its interfaces, and removes exactly what it has in the kernel.
    pub fn detach(self) -> Result<()> {
        let Attached {
            port, owner, maps, ..
        } = &self;
        match owner {
            Owner::Process(pid) => end(*pid, &port.name)?,
            Owner::Pinned(_) => {}
            Owner::Stranger => {
                let text = format!(
                    "the token bucket at {} was attached by tc or another program, which has to \
                     remove it (tc filter show dev {} ingress shows filters)",
                    port.name, port.name
                );
                return Err(Failure::Conflict(text).into());
            }
        }
        let _lock = Instance::claim(&port::lock_of(STEM, &port.name))?;
        Pins::of(port)?.remove()?;
        tc::remove_leftovers(&mut Netlink::open()?, port.ifindex, &pinned_labels())?;
        // The kernel lets go of a link a moment after its last pin.
        let is_gone = || {
            let left = Attached::find(port)?;
            Ok(left.is_none_or(|left| !left.maps.share_cells(maps)))
        };
        until(is_gone)?
            .with_context(|| format!("the token bucket at {} is still attached", port.name))
    }
}

/// Who answers for a program with these maps: who holds them. (We do ourselves, to look at them, and
/// perhaps have the lock already.)
fn owner_of(port: &Port, maps: &Maps) -> Result<Owner> {
    if let Some(Holder { pid, .. }) = Instance::holder(&port::lock_of(STEM, &port.name))?
        && pid.cast_unsigned() != std::process::id()
        && holds(pid, maps.cells_id()?)
    {
        return Ok(Owner::Process(pid));
    }
    let pins = Pins::of(port)?;
    if pins.hold(maps.map("cells")?, "cells") {
        return Ok(Owner::Pinned(pins.folder().to_owned()));
    }
    Ok(Owner::Stranger)
}

/// Whether a process has the map open.
fn holds(pid: i32, map: u32) -> bool {
    let wanted = format!("map_id:\t{map}");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false; // it has just ended
    };
    let texts =
        descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.ok()?.path()).ok());
    texts
        .into_iter()
        .any(|text| text.lines().any(|line| line == wanted))
}

/// The program's maps, if it is a token bucket and not only called so.
fn maps_of(program: u32) -> Result<Option<Maps>> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let Some(info) = programs.find(|info| info.id == program) else {
        return Ok(None); // gone meanwhile
    };
    let name = info.name.to_string_lossy();
    if name != STEM && name != format!("{STEM}_raw") {
        return Ok(None);
    }
    let open = |id: u32| Ok(MapHandle::from_map_id(id)?);
    let handles: Result<Vec<_>> = info.map_ids.into_iter().map(open).collect();
    let handles = handles.context("open the maps by their ids")?;
    Maps::are_among(&handles)
        .then(|| Maps::among(handles))
        .transpose()
}

/// Asks a process to end, and waits until it has.
fn end(pid: i32, interface: &str) -> Result<()> {
    let lock = port::lock_of(STEM, interface);
    // Only who still has the lock: the pid alone may be another process's by now.
    match Instance::holder(&lock)? {
        Some(holder) if holder.pid == pid => holder.terminate()?,
        _ => {}
    }
    until(|| Ok(Instance::holder(&lock)?.is_none()))?
        .with_context(|| format!("pid {pid} was asked to end and still runs"))
}

/// Waits until it is so; `None` if that takes too long.
fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<Option<()>> {
    let deadline = Instant::now() + ENDS;
    while !is_so()? {
        if Instant::now() > deadline {
            return Ok(None);
        }
        sleep(Duration::from_millis(5));
    }
    Ok(Some(()))
}
