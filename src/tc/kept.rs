//! Programs that stay attached when their process has ended, and what is attached already.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use libbpf_sys as sys;
use nix::libc;

use super::{Attachment, Direction, attach_type};
use crate::netlink::{CLSACT_EGRESS, CLSACT_INGRESS, Netlink};

/// Programs at one side of an interface; more would not be listed.
const MOST_PROGRAMS: usize = 64;

impl Attachment {
    /// Leaves the program attached: a link by a pin at `path`, a filter as it is.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        match self {
            Attachment::Tcx { mut link } => {
                if let Some(link) = &link.0 {
                    pin(link.as_fd(), path)?;
                }
                link.0 = None;
                Ok(())
            }
            Attachment::Clsact { _filter } => {
                std::mem::forget(_filter);
                Ok(())
            }
        }
    }

    /// Leaves the program attached, to another process that has the same attachment: one that is a fork of
    /// this one.
    pub fn leave(self) {
        match self {
            Attachment::Tcx { mut link } => link.0 = None,
            Attachment::Clsact { _filter } => std::mem::forget(_filter),
        }
    }

    /// What has to stay open for the program to stay attached, if anything has to.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Attachment::Tcx { link } => link.0.as_ref().map(OwnedFd::as_fd),
            Attachment::Clsact { .. } => None,
        }
    }
}

/// Gives a BPF object a name in the BPF file system, by which it stays.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path outlives the call, which only reads it.
    check(unsafe { sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// The BPF object of that name.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path outlives the call, which only reads it.
    let fd = check(unsafe { sys::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the kernel has just made this descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program into a link: from one packet to the next it is that one's.
pub fn replace_program(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: without options there is no memory to look after.
    let result =
        unsafe { sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) };
    check(result).map(drop)
}

/// The ids of the programs that are attached at a side of an interface, whoever attached them.
pub fn programs(ifindex: u32, direction: Direction) -> Result<Vec<u32>> {
    let mut programs = tcx_programs(ifindex, direction)
        .with_context(|| format!("list the programs of interface {ifindex}"))?;
    let parent = match direction {
        Direction::Ingress => CLSACT_INGRESS,
        Direction::Egress => CLSACT_EGRESS,
    };
    programs.extend(Netlink::open()?.tc_programs(ifindex, parent)?);
    Ok(programs)
}

pub(super) fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut options = sys::bpf_prog_query_opts {
        sz: size_of::<sys::bpf_prog_query_opts>() as _,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    // What the crate calls `prog_cnt` in C is one side of an anonymous union here.
    options.__bindgen_anon_1.count = MOST_PROGRAMS as u32;
    // SAFETY: the options say their own size, and have room for as many ids as they say.
    let result =
        unsafe { sys::bpf_prog_query_opts(ifindex as i32, attach_type(direction), &mut options) };
    match check(result) {
        Ok(_) => {}
        // A kernel without TCX.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    // SAFETY: all sides of the union are this number.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    Ok(ids.into_iter().take(count).collect())
}

/// What the kernel says of a program, in numbers: what takes buffers is left out.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<sys::bpf_prog_info> {
    let mut info = sys::bpf_prog_info::default();
    let mut size = size_of_val(&info) as u32;
    // SAFETY: the kernel writes `size` bytes at most, all of them numbers; without buffers of ours it writes
    // nothing else.
    check(unsafe {
        sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    })?;
    Ok(info)
}

pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(result)
    }
}
