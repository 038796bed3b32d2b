//! Whether this kernel runs our programs, found out by loading small ones.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, Result};
use libbpf_rs::libbpf_sys as sys;
use nix::libc;

use super::descriptors::take_all_descriptors;
use crate::failure::Failure;

/// Refuses a kernel that lacks what every program here uses, in one line that names it:
/// [`Failure::Kernel`], or [`Failure::Privilege`] where it is bpf() itself that is not allowed.
///
/// What decides is what the kernel can do: distributions backport. Everything needed is in Linux
/// 5.15 and later.
pub fn kernel_floor() -> Result<()> {
    // A probe that got no descriptor would say that the kernel lacks something.
    take_all_descriptors()?;
    verdict(make_map().err(), load(&compare_and_exchange()), || {
        load(&[call(sys::BPF_FUNC_ktime_get_coarse_ns), exit()])
    })?;
    // Every look at a per-CPU map asks it, and would only say that some file is not there.
    libbpf_rs::num_possible_cpus()
        .context("count the CPUs in /sys/devices/system/cpu/possible: is /sys mounted?")?;
    Ok(())
}

/// Judges the outcome of each probe. The later ones say nothing where an earlier one failed.
fn verdict(
    map: Option<io::Error>,
    exchange: io::Result<()>,
    coarse: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    if let Some(error) = map {
        return Err(match error.raw_os_error() {
            Some(libc::EPERM) => Failure::Privilege(
                "the kernel does not allow BPF here: it needs CAP_BPF outside of any user \
                 namespace, and no lockdown or container policy against it"
                    .into(),
            ),
            Some(libc::ENOSYS) => lacking("bpf() (CONFIG_BPF_SYSCALL)"),
            _ => lacking(&format!("BPF hash maps ({error})")),
        });
    }
    exchange.map_err(|error| {
        if error.raw_os_error() == Some(libc::EPERM) {
            return Failure::Privilege(
                "the kernel does not allow to load BPF programs: CAP_BPF and CAP_NET_ADMIN are \
                 needed, run this with sudo"
                    .into(),
            );
        }
        lacking("atomic compare-and-exchange in BPF programs at tc")
    })?;
    coarse().map_err(|_| lacking("the BPF helper ktime_get_coarse_ns"))
}

fn lacking(what: &str) -> Failure {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Failure::Kernel(format!(
        "this kernel ({}) lacks {what}: Linux 5.15 or later is needed",
        release.trim()
    ))
}

fn make_map() -> io::Result<OwnedFd> {
    // SAFETY: no name and no options are given; the rest are numbers.
    let fd =
        unsafe { sys::bpf_map_create(sys::BPF_MAP_TYPE_HASH, ptr::null(), 4, 8, 1, ptr::null()) };
    owned(fd)
}

/// Loads a program for tc, and lets go of it.
fn load(program: &[sys::bpf_insn]) -> io::Result<()> {
    // SAFETY: the licence is a C string and the instructions outlive the call; the kernel only
    // reads them. No name and no options are given.
    let fd = unsafe {
        sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_SCHED_CLS,
            ptr::null(),
            c"Dual BSD/GPL".as_ptr(),
            program.as_ptr(),
            program.len() as sys::size_t,
            ptr::null_mut(),
        )
    };
    owned(fd).map(drop)
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: libbpf has just handed over this new descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// r0 = 0; r1 = 1; compare r0 with a slot of the stack and put r1 there (Linux 5.12).
fn compare_and_exchange() -> [sys::bpf_insn; 5] {
    const CMPXCHG: i32 = 0xf1;
    let slot = -8;
    [
        instruction(sys::BPF_ST | sys::BPF_MEM | sys::BPF_DW, 10, 0, slot, 0),
        instruction(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K, 0, 0, 0, 0),
        instruction(sys::BPF_ALU64 | sys::BPF_MOV | sys::BPF_K, 1, 0, 0, 1),
        instruction(
            sys::BPF_STX | sys::BPF_ATOMIC | sys::BPF_DW,
            10,
            1,
            slot,
            CMPXCHG,
        ),
        exit(),
    ]
}

fn call(helper: u32) -> sys::bpf_insn {
    instruction(sys::BPF_JMP | sys::BPF_CALL, 0, 0, 0, helper as i32)
}

fn exit() -> sys::bpf_insn {
    instruction(sys::BPF_JMP | sys::BPF_EXIT, 0, 0, 0, 0)
}

fn instruction(code: u32, destination: u8, source: u8, off: i16, imm: i32) -> sys::bpf_insn {
    sys::bpf_insn {
        code: code as u8,
        _bitfield_align_1: [],
        _bitfield_1: sys::bpf_insn::new_bitfield_1(destination, source),
        off,
        imm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privilege::{Cap, require};

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn each_missing_piece_is_named_with_its_exit_code() {
        let fine = || Ok(());
        assert!(verdict(None, Ok(()), fine).is_ok());
        let said = |verdict: Result<(), Failure>, code: u8, word: &str| {
            let failure = verdict.unwrap_err();
            assert_eq!(failure.code(), code, "{failure}");
            let text = failure.to_string();
            assert!(text.contains(word) && !text.contains('\n'), "{text}");
        };
        let refused = || Err(errno(libc::EINVAL));
        said(
            verdict(Some(errno(libc::ENOSYS)), refused(), fine),
            4,
            "CONFIG_BPF_SYSCALL",
        );
        said(
            verdict(Some(errno(libc::EPERM)), refused(), fine),
            3,
            "CAP_BPF",
        );
        said(
            verdict(Some(errno(libc::ENOMEM)), refused(), fine),
            4,
            "hash maps",
        );
        said(verdict(None, refused(), fine), 4, "compare-and-exchange");
        said(
            verdict(None, Err(errno(libc::EPERM)), fine),
            3,
            "CAP_NET_ADMIN",
        );
        said(verdict(None, Ok(()), refused), 4, "ktime_get_coarse_ns");
    }

    #[test]
    fn this_kernel_is_good_enough() {
        if require(&[Cap::Bpf, Cap::NetAdmin]).is_err() {
            eprintln!("SKIP this_kernel_is_good_enough: needs root");
            return;
        }
        kernel_floor().unwrap();
        // A program that the verifier refuses is refused here too.
        assert!(load(&[exit()]).is_err());
        assert!(load(&[call(100_000), exit()]).is_err());
    }
}
