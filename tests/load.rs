//! Loading: every program of the tree, and while signals come faster than the verifier reads one.

use std::any::type_name;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use libbpf_rs::OpenObject;
use libbpf_rs::skel::SkelBuilder;
use netbpf::load::load;
use netbpf::neighbor_sharing::skeleton::NeighborSharingSkelBuilder;
use netbpf::tcp_hold::skeleton::TcpHoldSkelBuilder;
use netbpf::tokenbucket::skeleton::TokenbucketSkelBuilder;
use netbpf::tunnel_monitor::skeleton::TunnelMonitorSkelBuilder;
use netbpf::vlan_learning::skeleton::VlanLearningSkelBuilder;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use testbed::{sandbox, step};

mod tagger {
    include!(concat!(env!("OUT_DIR"), "/vlan_tagger.skel.rs"));
}

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

/// With the constants of their sources: what tools set before they load, their own tests have.
#[test]
fn every_program_passes_the_verifier() {
    sandbox::run("every_program_passes_the_verifier", |_| {
        fn assert_loads<'obj, Builder: SkelBuilder<'obj>>(
            builder: Builder,
            object: &'obj mut MaybeUninit<OpenObject>,
        ) {
            let what = type_name::<Builder>();
            let open = step(format!("open {what}"), builder.open(object));
            drop(step(format!("load {what}"), load(open)));
        }
        assert_loads(
            NeighborSharingSkelBuilder::default(),
            &mut MaybeUninit::uninit(),
        );
        assert_loads(TcpHoldSkelBuilder::default(), &mut MaybeUninit::uninit());
        assert_loads(
            TokenbucketSkelBuilder::default(),
            &mut MaybeUninit::uninit(),
        );
        assert_loads(
            TunnelMonitorSkelBuilder::default(),
            &mut MaybeUninit::uninit(),
        );
        assert_loads(
            VlanLearningSkelBuilder::default(),
            &mut MaybeUninit::uninit(),
        );
        assert_loads(
            tagger::VlanTaggerSkelBuilder::default(),
            &mut MaybeUninit::uninit(),
        );
    });
}
