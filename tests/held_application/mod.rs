//! An application that a test may kill, and what it has noted until then.

use std::cell::Cell;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use testbed::step;

use crate::held_peer::WITHIN;

/// What an application tells the test, and is told.
pub struct Wire {
    stream: UnixStream,
    /// What it has done so far. It is there when the application is dead.
    pub noted: Noted,
}

impl Wire {
    pub fn say(&mut self, word: u32) {
        step("say", self.stream.write_all(&word.to_ne_bytes()));
    }

    #[track_caller]
    pub fn hear(&mut self) -> u32 {
        let mut word = [0; 4];
        step("hear", self.stream.read_exact(&mut word));
        u32::from_ne_bytes(word)
    }
}

/// A fork of the test, killed at its end.
pub struct Application {
    /// `None`: it was killed, and another process may have its number.
    pid: Cell<Option<Pid>>,
    pub wire: Wire,
}

impl Application {
    pub fn start(body: impl FnOnce(&mut Wire)) -> Application {
        let (ours, its) = step("make a wire", UnixStream::pair());
        step("bound", ours.set_read_timeout(Some(WITHIN)));
        let noted = Noted::new();
        // SAFETY: the child is a copy with this thread alone; it allocates, which glibc allows after fork, and
        // leaves without running what the test set up.
        match step("fork", unsafe { fork() }) {
            ForkResult::Parent { child } => Application {
                pid: Cell::new(Some(child)),
                wire: Wire {
                    stream: ours,
                    noted,
                },
            },
            ForkResult::Child => {
                close_others(its.as_raw_fd());
                let mut wire = Wire { stream: its, noted };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&mut wire))) {
                    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                    // The test runner has nobody here to tell, and another thread's lock may be on the usual way.
                    let text = format!("application: {text}\n");
                    let _ = nix::unistd::write(std::io::stderr().as_fd(), text.as_bytes());
                }
                // SAFETY: it takes a number and does not return.
                unsafe { libc::_exit(1) }
            }
        }
    }

    pub fn kill(&self) {
        if let Some(pid) = self.pid.take() {
            step("kill it", kill(pid, Signal::SIGKILL));
            step("wait for it", waitpid(pid, None));
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sockets of tests that run beside this one would end with the application.
fn close_others(kept: RawFd) {
    let parts = [(libc::STDERR_FILENO + 1, kept - 1), (kept + 1, RawFd::MAX)];
    for (first, last) in parts.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: numbers only; whatever owns these descriptors is never dropped in this process.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        step("close the test's files", nix::errno::Errno::result(result));
    }
}

/// A number that forks share.
#[derive(Clone)]
pub struct Noted(Arc<Page>);

struct Page(NonNull<AtomicU64>);

// SAFETY: whoever has it only reads and writes the atomic number there.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

/// A page at least, whatever is asked for.
const SIZE: NonZeroUsize = NonZeroUsize::MIN;

impl Noted {
    fn new() -> Noted {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice, of zeros.
        let memory = unsafe { mmap_anonymous(None, SIZE, protection, MapFlags::MAP_SHARED) };
        Noted(Arc::new(Page(step("share memory", memory).cast())))
    }
}

impl Deref for Noted {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        // SAFETY: the page lasts as long as `self`, and is aligned enough; all bit patterns are numbers.
        unsafe { self.0.0.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this mapping, whole; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.0.cast(), SIZE.get()) };
    }
}
