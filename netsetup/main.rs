//! `netsetup up|down|list`: keeps a topology up without a tool, for those who want to look around.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use netsetup::arguments::{Arguments, Command};
use netsetup::failure;
use netsetup::guard;
use netsetup::ledger::{Owner, Record};
use netsetup::topology::{ALL, Topology};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

fn main() -> ExitCode {
    match failure::parse::<Arguments>("netsetup") {
        Ok(arguments) => failure::conclude("netsetup", run(&arguments)),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Up { topology, verbose } => up(Topology::find(topology)?, *verbose),
        Command::Down { topology } => down(Topology::find(topology)?),
        Command::List { topology: None } => list(ALL.iter()),
        Command::List {
            topology: Some(name),
        } => list([Topology::find(name)?]),
    }
}

fn up(topology: &Topology, verbose: bool) -> Result<()> {
    let interrupts = Interrupts::block()?;
    let network = topology.build(&mut |step| {
        if verbose {
            writeln!(io::stderr(), "netsetup: {step}")?;
        }
        interrupts.check()
    })?;
    network.keep()
}

fn down(topology: &Topology) -> Result<()> {
    if !guard::take_down(topology.name)? {
        writeln!(io::stderr(), "netsetup: {} is not up", topology.name)?;
    }
    Ok(())
}

fn list<'a>(topologies: impl IntoIterator<Item = &'a Topology>) -> Result<()> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let mut text = String::new();
    for topology in topologies {
        let state = match Record::load(topology.name)? {
            None => "down".to_string(),
            Some(record) => state(&record, now),
        };
        let Topology { name, summary, .. } = topology;
        text.push_str(&format!("{name}  {state}  ({summary})\n"));
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        _ => Ok(()),
    }
}

fn state(record: &Record, now: Duration) -> String {
    let age = age(now.as_secs().saturating_sub(record.since));
    match &record.owner {
        Owner::Kept => format!("up for {age}, kept by netsetup up"),
        Owner::Process(process) if process.is_alive() => {
            format!("up for {age}, owned by pid {}", process.pid)
        }
        Owner::Process(process) => format!(
            "left {age} ago by pid {}, which was killed; `netsetup down {}` removes it",
            process.pid, record.name
        ),
    }
}

fn age(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours}:{minutes:02}:{seconds:02}")
}

/// Signals that ask us to end, held back so that a build ends between two steps, undone.
struct Interrupts(SignalFd);

impl Interrupts {
    fn block() -> Result<Interrupts> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        signals.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let waiting = SignalFd::with_flags(&signals, flags).context("watch for signals")?;
        Ok(Interrupts(waiting))
    }

    fn check(&self) -> Result<()> {
        match self.0.read_signal().context("look for a signal")? {
            None => Ok(()),
            Some(_) => bail!("interrupted; what was built is removed again"),
        }
    }
}
