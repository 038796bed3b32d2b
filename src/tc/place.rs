//! Where a program of ours stands among those of others: TCX keeps a list of them at each side of an interface,
//! and asks one after the other.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::str::FromStr;

use anyhow::{Context, Result};
use libbpf_sys as sys;

use super::Direction;
use super::kept::{check, program_info, tcx_programs};

/// A place in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// At its head. Whoever answers `TCX_PASS` ends the list, and a policer that stands behind him would let
    /// everything through.
    #[default]
    First,
    /// Right before this one.
    Before(Other),
    /// Right behind this one.
    After(Other),
}

/// Somebody else's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// By the number that the kernel gave it.
    Id(u32),
    /// By its name, of which the kernel keeps 15 bytes.
    Name(String),
}

/// What is none of the numbers is a name.
impl FromStr for Other {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Other, Infallible> {
        Ok(text
            .parse()
            .map_or_else(|_| Other::Name(text.into()), Other::Id))
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Other::Id(id) => write!(f, "{id}"),
            Other::Name(name) => f.write_str(name),
        }
    }
}

impl Place {
    /// Whose neighbour it is.
    pub fn neighbour(&self) -> Option<&Other> {
        match self {
            Place::First => None,
            Place::Before(other) | Place::After(other) => Some(other),
        }
    }

    /// For the kernel: what the number means, and the number. It is the head where the neighbour is not there.
    pub(super) fn at(&self, ifindex: u32, direction: Direction) -> Result<(u32, Option<u32>)> {
        let neighbour = match self.neighbour() {
            Some(other) => other.find(&tcx_programs(ifindex, direction)?)?,
            None => None,
        };
        let side = match (self, neighbour) {
            (Place::After(_), Some(_)) => sys::BPF_F_AFTER,
            _ => sys::BPF_F_BEFORE,
        };
        let by_id = neighbour.map_or(0, |_| sys::BPF_F_ID);
        Ok((side | by_id, neighbour))
    }
}

impl Other {
    fn find(&self, ids: &[u32]) -> Result<Option<u32>> {
        for id in ids {
            let is_it = match self {
                Other::Id(wanted) => wanted == id,
                Other::Name(wanted) => {
                    let name = name_of(*id).with_context(|| {
                        format!("find out which program is {wanted}, which takes CAP_SYS_ADMIN (its number does not)")
                    })?;
                    // SIZE of the kernel's own field, without the NUL.
                    name.is_some_and(|name| name == wanted.as_bytes()[..wanted.len().min(15)])
                }
            };
            if is_it {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }
}

/// None: it is gone.
fn name_of(id: u32) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: a call with a number.
    let program = match check(unsafe { sys::bpf_prog_get_fd_by_id(id) }) {
        // SAFETY: the kernel has just made this descriptor, nobody else knows it.
        Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = program_info(program.as_fd())?.name.map(|byte| byte as u8);
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    Ok(Some(name.to_bytes().to_owned()))
}
