//! vlan_learning: `--help` says what it does, docs/vlan_learning.md how.

use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure::{self, say};
use netbpf::metrics::Exporter;
use netbpf::netlink::{LinkWatch, Netlink};
use netbpf::port;
use netbpf::preflight;
use netbpf::privilege::{self, Scope};
use netbpf::session::{self, Event, Session};
use netbpf::vlan_learning::{Arguments, Demux, Keeper, Reporter, Simulation, Tagger, labels};

const NAME: &str = "vlan_learning";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut session = Session::start(arguments.session())?;
    arguments.check()?;
    arguments.common.quieten_libbpf();
    privilege::require(arguments.capabilities())?;
    preflight::kernel_floor()?;
    let metrics = Exporter::bind(NAME, arguments.common.metrics)?;
    if arguments.simulated() {
        simulate(arguments, &mut session, metrics)
    } else {
        demux(arguments, &mut session, metrics)
    }
}

/// The original's example: a network of its own, until Enter.
fn simulate(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let mut simulation = Simulation::build(arguments, session)?;
    let table = simulation.table(arguments)?;
    let mut object = MaybeUninit::uninit();
    let setup = arguments.setup(table.trunk.clone());
    let mut demux = Demux::load(setup, table.policy.clone(), &mut object)?;
    let method = demux.attach(&arguments.common.attaching(), &table.placed)?;
    let mut object = MaybeUninit::uninit();
    let tagger = simulation
        .needs_tagger()
        .then(|| Tagger::attach(simulation.network(), method, &mut object))
        .transpose()?;
    arguments.common.say(format_args!("attached by {method}"));
    session.check()?;
    simulation.start()?;

    let mut reporter = Reporter::new(arguments.common.json);
    metrics.serve(|| reporter.figures(&demux, &table.mapping))?;
    let mut links = LinkWatch::over(&table.links()?)?;
    let watched = if arguments.demo {
        simulation.demonstrate(session)
    } else {
        let tend = |event: &Event| match event {
            Event::Second => {
                simulation.tend()?;
                metrics.publish(|| reporter.figures(&demux, &table.mapping))
            }
            Event::Tick => reporter.interim(&demux, &table.mapping),
            _ => Ok(()),
        };
        session.attend(&mut links, tend).map(drop)
    };
    let concluded = reporter.conclude(&demux, &table.mapping);
    drop(tagger);
    drop(demux);
    watched.and(simulation.close()).and(concluded)
}

/// The same on interfaces that are there.
fn demux(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let mut table = arguments.table()?;
    table.placed = table.placed.complete()?;
    let mut keeper = Keeper::new(arguments, table)?;
    port::remove_leftovers(NAME, &keeper.ports().collect::<Vec<_>>(), &labels())?;
    keeper.warn()?;
    let mut object = MaybeUninit::uninit();
    let setup = arguments.setup(keeper.table().trunk.clone());
    let mut demux = Demux::load(setup, keeper.table().policy.clone(), &mut object)?;
    session.check()?;
    let mut links = LinkWatch::all(&Netlink::open()?.links()?)?;
    let method = demux.attach(&arguments.common.attaching(), &keeper.table().placed)?;
    arguments.common.say(format_args!("attached by {method}"));
    let mut reporter = Reporter::new(arguments.common.json);
    privilege::drop_after_attach(method, Scope::Process)?;
    metrics.serve(|| reporter.figures(&demux, keeper.mapping()))?;
    say(format_args!("{}", keeper.table()));
    if io::stdin().is_terminal() {
        say(format_args!("Press enter when finished"));
    }

    let watched = session.attend_all(&mut links, |event| match event {
        Event::Second => metrics.publish(|| reporter.figures(&demux, keeper.mapping())),
        Event::Tick => reporter.interim(&demux, keeper.mapping()),
        Event::Reload => keeper.reload(&mut demux),
        Event::Link(link) => keeper.follow(link, &mut demux),
        _ => Ok(()),
    });
    demux.detach();
    let concluded = reporter.conclude(&demux, keeper.mapping());
    io::stdout().flush()?;
    watched.map(drop).and(concluded)
}
