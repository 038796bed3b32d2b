//! What the tests of this workspace stand on.
//!
//! A root test runs its body in [`sandbox::run`]: network and mount namespaces of its own, and a
//! comparison of everything it could leave behind, before and after. [`packet`] builds frames,
//! [`process`] runs the binary under test, [`tool`] and [`job`] say what holds for each of them,
//! [`reports`] and [`schema`] read what it writes, [`document`] what is written about it. [`traffic`] measures between two [`namespace`]s, for
//! example those of a [`line`](mod@line), a [`tun`] device is an interface without Ethernet, [`netserver`]
//! stands in for a program that may not be there. [`attaching`] says how a kernel can attach programs, [`bpf`] watches what
//! it frees late, [`interrupted`] kills a program or lets it fail at any of its steps, [`others`] are programs of somebody else, [`threads`] are those of the test itself, [`offload`]
//! says what an interface does for the kernel, [`capture`] writes captures.
//!
//! Nothing here returns an error: a step that fails panics with its name, because that is what a
//! test has to say about it.

#![deny(missing_docs)]

pub mod attaching;
pub mod bpf;
pub mod capture;
pub mod cpus;
pub mod document;
pub mod interrupted;
pub mod job;
pub mod line;
pub mod namespace;
pub mod netserver;
pub mod offload;
pub mod others;
pub mod packet;
pub mod process;
pub mod reports;
pub mod sandbox;
pub mod schema;
pub mod snapshot;
pub mod test_run;
pub mod threads;
pub mod tool;
pub mod traffic;
pub mod tun;

use std::fmt::Display;
use std::io::Write;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

/// The value of a step that has to work; a panic naming the step where it did not.
#[track_caller]
pub fn step<T, E: Display>(what: impl Display, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// What a thread has come to; its panic is the caller's.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Says that it is over when it is dropped: threads that go on until then end where the test fails, too.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs them at once: several sandboxes, for example, that hardly use the machine, but wait.
pub fn side_by_side<const N: usize>(bodies: [&(dyn Fn() + Sync); N]) {
    std::thread::scope(|scope| {
        let running = bodies.map(|body| scope.spawn(body));
        running.into_iter().for_each(joined);
    });
}

/// Whether a program is in PATH.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Says that a test (or a part of one) does not run, and why. `packaging/run-tests` counts these
/// lines, CI refuses those it does not know.
pub fn skip(name: &str, reason: &str) {
    say(&format!("SKIP {name}: {reason}"));
}

/// Whether the long form of a test is wanted (`make check-long`); where not, says what the short
/// form leaves out.
pub fn long(name: &str, leaves_out: &str) -> bool {
    let long = std::env::var_os("NETBPF_LONG").is_some_and(|value| value == "1");
    if !long {
        say(&format!("SHORT {name}: {leaves_out} (make check-long)"));
    }
    long
}

/// A line on the real stderr: the test runner swallows what the print macros say in tests that
/// pass.
fn say(line: &str) {
    // A lost line changes no result, and there is nobody else to tell.
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}
