//! `tokenbucket --explain`: a capture through the program. Nothing is attached and no signal is taken over, so
//! that whoever ends it, ends it at once.

use std::mem::MaybeUninit;

use anyhow::Result;

use super::arguments::Arguments;
use super::label::STEM;
use super::metering::Metering;
use super::reason::Reasons;
use crate::capture::Capture;
use crate::explain::{self, Explained, Reason};
use crate::ground::Ground;
use crate::{preflight, privilege};

struct Explanation<'obj> {
    metering: Metering<'obj>,
    reasons: Reasons,
}

impl Explained for Explanation<'_> {
    fn set_moment(&mut self, now: u64, length: u32) {
        self.metering.set_moment(now, length);
    }

    fn reason(&self, ground: &Ground) -> Reason {
        self.reasons.of(ground)
    }
}

/// Explains this capture.
pub fn explain(arguments: &Arguments, capture: &str) -> Result<()> {
    let config = arguments.configure(Vec::new())?;
    let mut capture = Capture::open(capture)?;
    arguments.common.quieten_libbpf();
    privilege::require(arguments.capabilities())?;
    preflight::kernel_floor()?;
    let (mut program, mut cut) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let metering = Metering::load(config, None, None, &mut program)?;
    let mut runner = metering.runner(&mut cut)?;
    let reasons = metering.reasons()?;
    let mut explanation = Explanation { metering, reasons };
    let json = arguments.common.json;
    explain::explain(STEM, json, &mut capture, &mut explanation, &mut runner)
}
