//! One packet through one program, and what the program says of it.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput, RingBuffer, RingBufferBuilder};

use crate::ground::{Ground, Record};
use crate::load::{load, open};
use skeleton::{ExplainSkel, ExplainSkelBuilder};

mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/explain.skel.rs"));
}

/// What BPF_PROG_TEST_RUN takes is a page with what goes around it. The rest of a frame nobody looks at: the
/// program is told how long it was.
const MOST: usize = 2048;
/// Shorter frames are filled up, and cut again in the kernel.
const FILLED: usize = 64;
/// `cb[0]` in `struct __sk_buff`, and all of it, in words of 32 bits.
const LENGTH: usize = 12;
const WORDS: usize = 48;
/// Above the errors of explain.bpf.c there are the verdicts.
const NOT_CUT: i32 = -100;
const NOT_RUN: i32 = -101;

/// A program that tells of each packet, ready to be run.
pub struct Runner<'obj> {
    cut: ExplainSkel<'obj>,
    records: RingBuffer<'obj>,
    told: Rc<RefCell<Vec<Result<Ground>>>>,
}

impl<'obj> Runner<'obj> {
    /// Of a loaded program and its ring buffer (`trace_records`).
    pub fn new(
        program: BorrowedFd<'_>,
        records: &impl MapCore,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Runner<'obj>> {
        let open = open(ExplainSkelBuilder::default(), object)?;
        let cut = load(open).context("load the BPF program that cuts packets")?;
        let program = program.as_raw_fd().to_ne_bytes();
        let target = &cut.maps.target;
        target
            .update(&[0; 4], &program, MapFlags::ANY)
            .context("enter the program that is to be run")?;
        let told = Rc::new(RefCell::new(Vec::new()));
        let hears = told.clone();
        let mut builder = RingBufferBuilder::new();
        builder.add(records, move |bytes| {
            let ground = Record::read(bytes).map(|record| record.ground);
            hears.borrow_mut().push(ground);
            0
        })?;
        Ok(Runner {
            cut,
            records: builder.build().context("open the ring buffer")?,
            told,
        })
    }

    /// Runs it once.
    pub fn run(&mut self, frame: &[u8]) -> Result<Ground> {
        let mut given = frame.get(..MOST).unwrap_or(frame).to_vec();
        let mut context = [0_u32; WORDS];
        if given.len() < FILLED {
            context[LENGTH] = given.len() as u32;
            given.resize(FILLED, 0);
        }
        let mut context: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let input = ProgramInput {
            data_in: Some(&given),
            context_in: Some(&mut context),
            ..Default::default()
        };
        let output = self.cut.progs.cut_and_run.test_run(input);
        let output = output.context("run the program on a packet")?;
        match output.return_value.cast_signed() {
            NOT_CUT => bail!("the kernel cuts no packet to {} bytes", frame.len()),
            NOT_RUN => bail!("the kernel did not run the program"),
            _ => {}
        }
        self.records.consume().context("read the ring buffer")?;
        let mut told = self.told.borrow_mut();
        let ground = told.pop().context("the program did not tell of a packet")?;
        told.clear();
        ground
    }
}
