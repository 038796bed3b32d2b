//! Loading while signals come faster than the verifier reads a program.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use libbpf_rs::skel::SkelBuilder;
use netbpf::load::load;
use netbpf::tokenbucket::skeleton::TokenbucketSkelBuilder;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use testbed::{sandbox, step};

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_signal: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn signals_do_not_keep_a_program_from_being_loaded() {
    sandbox::run("signals_do_not_keep_a_program_from_being_loaded", |_| {
        let counting = SigAction::new(
            SigHandler::Handler(count),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler only adds to an atomic number; nothing else in this process uses the signal.
        let before = step("handle a signal", unsafe {
            sigaction(Signal::SIGURG, &counting)
        });
        let (loader, is_loaded) = (pthread_self(), AtomicBool::new(false));
        scope(|scope| {
            scope.spawn(|| {
                while !is_loaded.load(Ordering::Relaxed) {
                    step("send a signal", pthread_kill(loader, Signal::SIGURG));
                    sleep(Duration::from_micros(100));
                }
            });
            let mut object = MaybeUninit::uninit();
            let open = step("open", TokenbucketSkelBuilder::default().open(&mut object));
            let loaded = load(open);
            is_loaded.store(true, Ordering::Relaxed);
            drop(step("load the BPF program", loaded));
        });
        assert!(
            HANDLED.load(Ordering::Relaxed) > 0,
            "no signal came while it was loaded"
        );
        // SAFETY: what was there before.
        step("as before", unsafe { sigaction(Signal::SIGURG, &before) });
    });
}
