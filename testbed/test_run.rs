//! Programs run on packets by BPF_PROG_TEST_RUN from any thread: libbpf-rs's programs stay in the thread that
//! loaded them, their descriptors do not.

use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};

/// Runs it so often on one frame; what it returned the last time.
#[track_caller]
pub fn by_descriptor(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> i32 {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: repeat as i32,
        ..Default::default()
    };
    // SAFETY: an open descriptor; the options and the frame they point to outlive the call.
    let answer = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    assert_eq!(answer, 0, "run a program");
    options.retval.cast_signed()
}
