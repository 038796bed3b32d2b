//! `tokenbucket set`, `status` and `detach`: what is done with an instance that is there.

use std::io::{self, Write};

use anyhow::{Context, Result};
use netsetup::instance::Instance;

use super::arguments::{Command, LimitArguments};
use super::attached::{Attached, Owner};
use super::label::STEM;
use super::machine::Machine;
use super::maps::Maps;
use super::pins::Pins;
use super::report::Reporter;
use super::rule::Rule;
use super::skeleton::types;
use super::stretch::stretch;
use super::sweep::Sweeper;
use crate::Failure;
use crate::failure::say;
use crate::map_value;
use crate::netlink::Netlink;
use crate::policer::Tick;
use crate::port::{self, Port};

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
    say(format_args!("{interface}: {}", attached.owner));
    // Nobody else keeps room in the table of a pinned one; two at once would take back the same cells.
    let lock = port::lock_of(STEM, interface);
    if let Owner::Pinned(_) = attached.owner
        && let Ok(_lock) = Instance::claim(&lock)
    {
        sweeper.tend(&attached.maps)?;
        sweeper.finish(&attached.maps)?;
    }
    Reporter::new(json).status(&attached.maps, &sweeper)
}

fn detach(interface: &str) -> Result<()> {
    let dead = Pins::of_the_dead()?;
    for pins in &dead {
        pins.remove()?;
        let folder = pins.folder().display();
        writeln!(io::stdout(), "{folder} removed: its interface is gone")?;
    }
    let port = match Netlink::open()?.link_named(interface)? {
        None if !dead.is_empty() => return Ok(()),
        Some(link) => Port::try_from(&link)?,
        None => Port::find(&mut Netlink::open()?, interface)?,
    };
    let pins = Pins::of(&port)?;
    match Attached::find(&port)? {
        None if pins.are_there() => {
            pins.remove()?;
            writeln!(io::stdout(), "{interface}: pins removed that held nothing")?;
            Ok(())
        }
        _ => {
            let attached = Attached::at(interface)?;
            let owner = attached.owner.to_string();
            let mut others = attached.interfaces()?;
            others.retain(|name| *name != attached.port.name);
            attached.detach()?;
            let mut out = io::stdout().lock();
            writeln!(out, "{interface}: detached (it was {owner})")?;
            for other in others {
                writeln!(out, "{other}: detached too (it was the same instance)")?;
            }
            Ok(())
        }
    }
}
