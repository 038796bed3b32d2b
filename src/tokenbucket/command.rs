//! `tokenbucket set`, `status` and `detach`: what is done with an instance that is there.

use std::io::{self, Write};

use anyhow::{Context, Result};
use netsetup::instance::Instance;

use super::arguments::{Command, LimitArguments};
use super::attached::{Attached, Owner};
use super::machine::Machine;
use super::maps::Maps;
use super::pins::Pins;
use super::report::Reporter;
use super::rule::Rule;
use super::skeleton::types;
use super::sweep::Sweeper;
use super::word::Reader;
use crate::Failure;
use crate::map_value;
use crate::netlink::Netlink;
use crate::policer::Tick;

impl Command {
    /// Does it.
    pub fn run(&self) -> Result<()> {
        match self {
            Command::Set { which, limit } => set(&which.iface, limit),
            Command::Status { which, json } => status(&which.iface, *json),
            Command::Detach { which } => detach(&which.iface),
        }
    }
}

fn set(interface: &str, limit: &LimitArguments) -> Result<()> {
    let attached = Attached::at(interface)?;
    // Two at once would write the same row.
    let _turn = Instance::claim(&format!("tokenbucket set on {interface}"))?;
    let maps = &attached.maps;
    let before = maps.rule()?;
    let after = limit.change(before)?;
    let machine = Machine::tokenbucket()?;
    if matches!(after, Rule::Tokens { .. }) {
        check_machine(maps, &machine)?;
    }
    let tick = Tick::of_this_kernel().context("read the length of the kernel's tick")?;
    let mut figures = after.figures(&machine, maps.knobs.counts_segments != 0, tick)?;
    if maps.figures()?.ns_at_tick_0 == 0 {
        // Loaded without us: nobody has told the program how its tick counter and the clock agree.
        figures.ns_per_tick = 0;
    }
    let old = maps.figures()?;
    let words = maps.cells.words();
    maps.set_figures(figures)?;
    stretch(maps, &words, &figures, &old)?;
    writeln!(io::stdout(), "{interface}: {after} (before: {before})")?;
    Ok(())
}

/// Every flow keeps its tokens, or bytes: those of a slow rate are not waited for at a fast one. `words`
/// are those from before the change: what the new rule has judged since goes by its pace already, and
/// stretched once more it would be shut out, for years at the worst. Such a flow may have lost tokens.
fn stretch(maps: &Maps, words: &[u64], new: &types::rule, old: &types::rule) -> Result<()> {
    let (pace, old_pace) = (new.pace(), old.pace());
    if pace == old_pace {
        return Ok(());
    }
    let reader = Reader::now(maps)?;
    let exchange = |cell, word| {
        let stretched = reader.at_pace(word, pace, old_pace);
        word != 0 && maps.cells.exchange(cell, word, stretched)
    };
    for (cell, word) in (0..).zip(words) {
        if exchange(cell, *word) || pace > old_pace {
            continue;
        }
        // Judged by the old rule after we looked: it waits for longer than the new one ever lets it.
        let word = maps.cells.word(cell);
        if reader.waits_longer(word, new.longest_wait()) {
            exchange(cell, word);
        }
    }
    Ok(())
}

/// Figures are in the places where the machine looks for them.
fn check_machine(maps: &Maps, machine: &Machine) -> Result<()> {
    let compiled = machine.compile(maps.knobs.counts_segments != 0)?;
    let expected: &types::machine = &compiled.machine;
    if maps.machine()?.starts_with(map_value::bytes(expected)) {
        return Ok(());
    }
    let text = "this instance runs a machine of its own, whose figures are in its file";
    Err(Failure::Usage(text.into()).into())
}

fn status(interface: &str, json: bool) -> Result<()> {
    let attached = Attached::at(interface)?;
    let mut sweeper = Sweeper::new(&attached.maps)?;
    eprintln!("{interface}: {}", attached.owner);
    if let Owner::Pinned(_) = attached.owner {
        // Nobody else keeps room in its table.
        sweeper.tend(&attached.maps)?;
        sweeper.finish(&attached.maps)?;
    }
    Reporter::new(json).status(&attached.maps, &sweeper)
}

fn detach(interface: &str) -> Result<()> {
    let pins = Pins::of(interface);
    if Netlink::open()?.link_named(interface)?.is_none() && pins.are_there() {
        pins.remove()?;
        writeln!(io::stdout(), "{interface} is gone; its pins are removed")?;
        return Ok(());
    }
    let attached = Attached::at(interface)?;
    let owner = attached.owner.to_string();
    attached.detach()?;
    writeln!(io::stdout(), "{interface}: detached (it was {owner})")?;
    Ok(())
}
