//! The token bucket that is attached to an interface, whoever attached it: found in the kernel, which
//! alone knows for certain what runs there. Nothing has to be written down, so nothing can be stale.

use std::fmt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::MapHandle;
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use netsetup::instance::Instance;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
        for port in ports {
            let pins = Pins::of(&port.name);
            if !pins.are_there() {
                continue;
            }
            let attached = Attached::find(port)?;
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

    /// The instance at this interface, if there is one.
    pub fn find(port: &Port) -> Result<Option<Attached>> {
        let mut directions = Vec::new();
        let mut maps = None;
        for direction in [Direction::Ingress, Direction::Egress] {
            for program in tc::programs(port.ifindex, direction)? {
                let Some(ids) = maps_of(program) else {
                    continue;
                };
                let open = |id: u32| Ok(MapHandle::from_map_id(id)?);
                let handles: Result<Vec<_>> = ids.into_iter().map(open).collect();
                maps = Some(Maps::among(handles.context("open the maps by their ids")?)?);
                directions.push(direction);
            }
        }
        let Some(maps) = maps else {
            return Ok(None);
        };
        let pins = Pins::of(&port.name);
        let owner = match Instance::holder(&port::lock_of(STEM, &port.name))? {
            Some(pid) => Owner::Process(pid),
            None if pins.are_there() => Owner::Pinned(pins.folder().to_owned()),
            None => Owner::Stranger,
        };
        Ok(Some(Attached {
            port: port.clone(),
            owner,
            maps,
            directions,
        }))
    }

    /// Ends it, and removes exactly what it has in the kernel.
    pub fn detach(self) -> Result<()> {
        let Attached { port, owner, .. } = &self;
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
        Pins::of(&port.name).remove()?;
        tc::remove_leftovers(&mut Netlink::open()?, port.ifindex, &pinned_labels())?;
        // The kernel lets go of a link a moment after its last pin.
        until(|| Ok(Attached::find(port)?.is_none()))?
            .with_context(|| format!("the token bucket at {} is still attached", port.name))
    }
}

/// The ids of the program's maps, if it is a token bucket.
fn maps_of(program: u32) -> Option<Vec<u32>> {
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let info = programs.find(|info| info.id == program)?;
    let name = info.name.to_string_lossy();
    (name == STEM || name == format!("{STEM}_raw")).then_some(info.map_ids)
}

/// Asks a process to end, and waits until it has.
fn end(pid: i32, interface: &str) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno).with_context(|| format!("end pid {pid}")),
    }
    let lock = port::lock_of(STEM, interface);
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
