//! `src/bpf/xfsm.h` alone: the token bucket against the original's five steps, at times around the
//! window's edges, after boot and about the register's wrap-around; segments that go together; and
//! machines made at random against the Open Packet Processor.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use netbpf::load::load;
use testbed::{long, sandbox, step, test_run};

use crate::machine::{Action, Facts, Known, LENGTHS, Machine, PORTS, PROTOCOLS, into_types_of};
use crate::model::{ClosedForm, FiveSteps, REGISTER_BITS, in_register};
use crate::rig::there;
use crate::seed::Random;
use crate::times::{Clock, Tokens, of_any_size};

use skeleton::types::{arrival, batch, flow};
use skeleton::{XfsmSkel, XfsmSkelBuilder};

mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/xfsm.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::arrival {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::flow {}
}
into_types_of!(skeleton);

/// Packets that one run judges.
const BATCH: usize = size_of::<batch>() / size_of::<arrival>();
/// Flows of a batch.
const FLOWS: usize = 64;
const KEY: [u8; 4] = [0; 4];

struct Engine<'obj> {
    skeleton: XfsmSkel<'obj>,
}

impl<'obj> Engine<'obj> {
    fn load(object: &'obj mut MaybeUninit<OpenObject>) -> Engine<'obj> {
        let open = step("open", XfsmSkelBuilder::default().open(object));
        let skeleton = step("load the BPF program", load(open));
        Engine { skeleton }
    }

    /// Puts a machine in, and no flow is known.
    fn set(&mut self, machine: &Machine) {
        let bss = there(self.skeleton.maps.bss_data.as_mut());
        bss.machine = machine.into();
        bss.figures = machine.into();
        let unknown = [0; size_of::<flow>()];
        for at in 0..FLOWS as u32 {
            let result =
                self.skeleton
                    .maps
                    .flows
                    .update(&at.to_ne_bytes(), &unknown, MapFlags::ANY);
            step("forget a flow", result);
        }
    }

    /// What becomes of these packets, in this order: a full batch.
    fn judge(&self, arrivals: &mut [arrival]) {
        assert_eq!(arrivals.len(), BATCH);
        let map = &self.skeleton.maps.batches;
        // SAFETY: integers without padding.
        let given = unsafe { plain::as_bytes(arrivals) };
        step("write the batch", map.update(&KEY, given, MapFlags::ANY));
        test_run::by_descriptor(self.skeleton.progs.judge_batch.as_fd(), &[0; 64], 1);
        let judged = there(step("read the batch", map.lookup(&KEY, MapFlags::ANY)));
        for (arrival, judged) in arrivals.iter_mut().zip(judged.chunks(size_of::<arrival>())) {
            let copied = plain::copy_from_bytes(arrival, judged);
            assert!(copied.is_ok(), "{} bytes of an arrival", judged.len());
        }
    }

    /// State, and register in 58 bits, of a flow that is known.
    fn word(&self, at: usize) -> Option<(u8, u64)> {
        let key = (at as u32).to_ne_bytes();
        let bytes = there(step(
            "read a flow",
            self.skeleton.maps.flows.lookup(&key, MapFlags::ANY),
        ));
        let mut found = flow::default();
        assert!(plain::copy_from_bytes(&mut found, &bytes).is_ok());
        let state = (found.word >> REGISTER_BITS) as u8;
        (found.known != 0).then_some((state, in_register(found.word.into())))
    }
}

fn with_engine(name: &str, body: impl FnOnce(&mut Engine<'_>) + Send) {
    sandbox::run(name, |_| {
        let mut object = MaybeUninit::uninit();
        body(&mut Engine::load(&mut object));
    });
}

/// A rule, and the packets of up to 64 sources.
#[derive(Debug)]
struct Scene {
    rule: Tokens,
    clock: Clock,
    sources: usize,
    /// Of a packet; they go together.
    most_segments: u64,
    machine: Machine,
}

impl Scene {
    fn random(random: &mut Random) -> Scene {
        let rule = Tokens::random(random);
        Scene {
            rule,
            clock: Clock::random(random, rule),
            sources: of_any_size(random, 1, FLOWS as u64) as usize,
            most_segments: 1,
            machine: Machine::tokenbucket(rule),
        }
    }

    /// What is known is known for longer than it says anything, so that the row of what is to the right
    /// of the window is taken, too.
    fn that_forgets_late(random: &mut Random) -> Scene {
        let mut scene = Scene::random(random);
        scene.machine.forget *= 1 + random.below(3) as i64;
        scene
    }

    fn of_segments(random: &mut Random) -> Scene {
        let mut scene = Scene::random(random);
        // The model takes them one by one.
        while scene.rule.tokens > 512 {
            scene = Scene::random(random);
        }
        // Sometimes no more than the bucket holds, and sometimes many more.
        let most = match random.below(3) {
            0 => 3,
            1 => 45,
            _ => scene.rule.tokens * 2,
        };
        // What such a packet is charged has to fit the register.
        let most_charged = (1 << 55) / scene.rule.regeneration;
        scene.most_segments = most.clamp(2, most_charged.min(65_535));
        scene
    }

    /// Two batches. Returns how many packets passed.
    fn play(&mut self, engine: &mut Engine<'_>, random: &mut Random) -> u64 {
        engine.set(&self.machine);
        let mut sources = vec![Source::new(self.rule); self.sources];
        let mut passed = 0;
        for _ in 0..2 {
            let mut batch = vec![arrival::default(); BATCH];
            // The next time depends on the windows as they are, so the model goes first.
            let mut verdicts = Vec::with_capacity(BATCH);
            for arrival in &mut batch {
                let at = random.below(self.sources as u64) as usize;
                let source = &mut sources[at];
                let now = self.clock.advance(random, &source.steps);
                let segments = 1 + random.below(self.most_segments) as u32;
                arrival.flow = at as u32;
                arrival.packets = segments;
                // The kernel's clock has 64 bits.
                arrival.now = now as u64;
                arrival.action = u32::MAX;
                verdicts.push((now, source.passes(segments, now)));
            }
            engine.judge(&mut batch);
            for (arrival, (now, passes)) in batch.iter().zip(&verdicts) {
                let expected = match passes {
                    true => Action::Forward,
                    false => Action::Discard,
                };
                let actual = arrival.action;
                assert_eq!(actual, expected as u32, "{arrival:?} at {now}: {self:?}");
                passed += u64::from(*passes);
            }
            // What is kept is what the model says, not only the verdicts.
            for (at, source) in sources.iter().enumerate() {
                let kept = source
                    .steps
                    .window()
                    .map(|[tmin, _]| (1, in_register(tmin)));
                assert_eq!(engine.word(at), kept, "source {at}: {self:?}");
            }
        }
        passed
    }
}

/// What the models know of a source.
#[derive(Clone, Debug)]
struct Source {
    steps: FiveSteps,
    /// Of a source whose packets are all of one segment.
    closed: Option<ClosedForm>,
}

impl Source {
    fn new(rule: Tokens) -> Source {
        Source {
            steps: rule.model(),
            closed: Some(ClosedForm::new(rule.tokens, rule.regeneration)),
        }
    }

    fn passes(&mut self, segments: u32, now: i128) -> bool {
        let passes = self.steps.pass_together(segments, now);
        self.closed = self.closed.filter(|_| segments == 1);
        if let Some(closed) = &mut self.closed {
            assert_eq!(closed.passes(now), passes, "the closed form, {self:?}");
        }
        passes
    }
}

/// Plays scenes until enough packets were judged.
fn play_many(name: &str, scene: fn(&mut Random) -> Scene) {
    with_engine(name, |engine| {
        let long = long(name, "1 of 40 million packets");
        let packets = if long { 40_000_000 } else { 1_000_000 };
        let mut random = Random::new(name, long);
        let (mut passed, mut played) = (0, 0);
        while played < packets {
            passed += scene(&mut random).play(engine, &mut random);
            played += 2 * BATCH;
        }
        // A model and a machine that always agree on the same answer would prove little.
        let share = passed as f64 / played as f64;
        assert!((0.1..0.9).contains(&share), "{share} of {played} passed");
    });
}

#[test]
fn every_verdict_is_that_of_the_five_steps() {
    play_many(
        "every_verdict_is_that_of_the_five_steps",
        Scene::that_forgets_late,
    );
}

#[test]
fn segments_take_a_token_each_and_go_together() {
    play_many(
        "segments_take_a_token_each_and_go_together",
        Scene::of_segments,
    );
}

#[test]
fn any_machine_goes_from_row_to_row_as_its_table_says() {
    const NAME: &str = "any_machine_goes_from_row_to_row_as_its_table_says";
    with_engine(NAME, |engine| {
        let long = long(NAME, "100 of 4,000 machines");
        let mut random = Random::new(NAME, long);
        let mut actions = [0_u64; 3];
        for _ in 0..if long { 4000 } else { 100 } {
            let machine = Machine::random(&mut random, 0);
            let judged = play_machine(engine, &machine, &mut random);
            for (sum, count) in actions.iter_mut().zip(judged) {
                *sum += count;
            }
        }
        assert!(actions.iter().all(|count| *count > 10_000), "{actions:?}");
    });
}

/// A batch. Returns how often each action was taken.
fn play_machine(engine: &mut Engine<'_>, machine: &Machine, random: &mut Random) -> [u64; 3] {
    engine.set(machine);
    let mut now = [0, 1 << 57, 1 << 58, 1 << 63][random.below(4) as usize];
    now += i128::from(random.below(1 << 40));
    let pause = of_any_size(random, 1, 1 << 37);
    let mut batch = vec![arrival::default(); BATCH];
    let mut times = Vec::with_capacity(BATCH);
    for arrival in &mut batch {
        now += i128::from(random.below(pause));
        times.push(now);
        *arrival = skeleton::types::arrival {
            now: now as u64,
            flow: random.below(FLOWS as u64) as u32,
            packets: 1,
            protocol: PROTOCOLS[random.below(3) as usize].into(),
            port: random.below(PORTS) as i32 - 1,
            length: random.below(LENGTHS) as i32,
            action: u32::MAX,
        };
    }
    engine.judge(&mut batch);
    let mut flows: Vec<Option<Known>> = vec![None; FLOWS];
    let mut actions = [0; 3];
    for (arrival, now) in batch.iter().zip(times) {
        let facts = Facts {
            now,
            protocol: arrival.protocol,
            port: arrival.port,
            length: arrival.length,
        };
        let flow = &mut flows[arrival.flow as usize];
        let known = flow.unwrap_or_else(|| machine.new_flow(now));
        let (action, next) = machine.step(known, &facts);
        // What leaves a flow as it is new says nothing of it.
        *flow = (flow.is_some() || next != known).then_some(next);
        assert_eq!(
            arrival.action, action as u32,
            "{arrival:?} at {now}: {machine:?}"
        );
        actions[action as usize] += 1;
    }
    for (at, flow) in flows.iter().enumerate() {
        let kept = flow.map(|known| (known.state, in_register(known.register)));
        assert_eq!(engine.word(at), kept, "flow {at}: {machine:?}");
    }
    actions
}
