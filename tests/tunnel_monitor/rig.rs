//! The programs of tunnel_monitor, loaded but attached nowhere: packets go in by BPF_PROG_TEST_RUN, and
//! what is counted is read as the tool reads it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput};
use netbpf::load::load;
use netbpf::tunnel_monitor::{Counts, Flow, Monitor, Setup, Tally};
use testbed::{sandbox, step, test_run};

use tagged::{TaggedSkel, TaggedSkelBuilder};

mod tagged {
    include!(concat!(env!("OUT_DIR"), "/tagged.skel.rs"));
}

/// "Not ours, let it go on", for TCX and for direct action.
const PASS: i32 = -1;

/// Frames that are shorter are cut in the kernel, because it takes none that end within an IP header.
const LEAST: usize = 64;

/// Words of struct __sk_buff (linux/bpf.h), all 32 bits wide.
mod word {
    /// cb[1] and cb[2], as tagged.bpf.c uses them.
    pub const TARGET: usize = 13;
    pub const LENGTH: usize = 14;
    pub const GSO_SEGS: usize = 41;
    pub const GSO_SIZE: usize = 44;
    pub const ALL: usize = 48;
}

/// Which program a packet goes through; places in `targets` of tagged.bpf.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
    IngressRaw,
    EgressRaw,
}

/// A packet, and what the kernel knows of it besides.
#[derive(Clone, Copy, Debug)]
pub struct Skb<'a> {
    pub frame: &'a [u8],
    pub side: Side,
    /// Both 0: it is one segment.
    pub gso_segs: u32,
    pub gso_size: u32,
}

pub struct Rig<'obj> {
    pub monitor: Monitor<'obj>,
    tagged: TaggedSkel<'obj>,
}

/// Runs a test on a fresh rig. Skipped, loudly, without root.
pub fn run(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>) + Send) {
    sandbox::run(name, |_| with(&setup, test));
}

/// The same in a sandbox that is there already.
pub fn with(setup: &Setup, test: impl FnOnce(&mut Rig<'_>)) {
    let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    test(&mut Rig::load(setup, &mut first, &mut second));
}

impl<'obj> Rig<'obj> {
    fn load(
        setup: &Setup,
        first: &'obj mut MaybeUninit<OpenObject>,
        second: &'obj mut MaybeUninit<OpenObject>,
    ) -> Rig<'obj> {
        let monitor = step("load tunnel_monitor", Monitor::load(setup, first));
        let open = step("open", TaggedSkelBuilder::default().open(second));
        let tagged = step("load the test's program", load(open));
        let rig = Rig { monitor, tagged };
        for side in [
            Side::Ingress,
            Side::Egress,
            Side::IngressRaw,
            Side::EgressRaw,
        ] {
            let key = (side as u32).to_ne_bytes();
            let descriptor = rig.program(side).as_raw_fd().to_ne_bytes();
            let put = rig
                .tagged
                .maps
                .targets
                .update(&key, &descriptor, MapFlags::ANY);
            step("put a program in its place", put);
        }
        rig
    }

    /// The program of a side, for threads.
    pub fn program(&self, side: Side) -> BorrowedFd<'_> {
        let programs = &self.monitor.skeleton().progs;
        match side {
            Side::Ingress => programs.handle_ingress.as_fd(),
            Side::Egress => programs.handle_egress.as_fd(),
            Side::IngressRaw => programs.handle_ingress_raw.as_fd(),
            Side::EgressRaw => programs.handle_egress_raw.as_fd(),
        }
    }

    /// Runs a program once on a packet, which has to come out as it went in, and to pass on.
    #[track_caller]
    pub fn run(&self, skb: Skb<'_>) {
        let mut context = [0_u32; word::ALL];
        context[word::TARGET] = skb.side as u32;
        context[word::GSO_SEGS] = skb.gso_segs;
        context[word::GSO_SIZE] = skb.gso_size;
        let mut frame_in = skb.frame.to_vec();
        if frame_in.len() < LEAST {
            assert_eq!(skb.gso_size, 0, "cutting would end GSO");
            context[word::LENGTH] = frame_in.len() as u32;
            frame_in.resize(LEAST, 0xa5);
        }
        let mut context_in: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut frame_out = vec![0; frame_in.len()];
        let input = ProgramInput {
            data_in: Some(&frame_in),
            data_out: Some(&mut frame_out),
            context_in: Some(&mut context_in),
            ..Default::default()
        };
        let output = step("run a program", self.tagged.progs.tagged.test_run(input));
        assert_eq!(
            output.data.as_deref(),
            Some(skb.frame),
            "the program changed {skb:?}"
        );
        assert_eq!(output.return_value.cast_signed(), PASS, "{skb:?}");
    }

    /// As `run`, of a packet that is one segment.
    #[track_caller]
    pub fn pass(&self, side: Side, frame: &[u8]) {
        self.run(Skb {
            frame,
            side,
            gso_segs: 0,
            gso_size: 0,
        });
    }

    /// All flows, with what was counted for them, by slot.
    pub fn flows(&self) -> Vec<(Flow, Counts)> {
        let slots = 0..self.monitor.slots_used();
        slots
            .filter_map(|slot| Some((self.monitor.flow(slot)?, self.monitor.counts(slot))))
            .collect()
    }

    pub fn tally(&self) -> Tally {
        self.monitor.tally()
    }
}

/// From any thread.
pub fn run_by_descriptor(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) {
    let verdict = test_run::by_descriptor(program, frame, repeat);
    assert_eq!(verdict, PASS);
}
