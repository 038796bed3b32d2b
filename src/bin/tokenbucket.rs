//! tokenbucket: `--help` says what it does, docs/tokenbucket.md how.

use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure::{self, say};
use netbpf::metrics::Exporter;
use netbpf::netlink::LinkWatch;
use netbpf::privilege::{self, Scope};
use netbpf::session::{self, Event, Session};
use netbpf::tokenbucket::{Arguments, Attached, Metering, Reporter, Simulation, explain, labels};
use netbpf::{port, preflight};

const NAME: &str = "tokenbucket";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let machine = arguments.machine()?;
    if arguments.show_xfsm {
        return Ok(writeln!(io::stdout(), "{machine}")?);
    }
    if let Some(capture) = &arguments.explain {
        return explain(arguments, capture);
    }
    let mut session = Session::start(arguments.session())?;
    arguments.common.quieten_libbpf();
    privilege::require(arguments.capabilities())?;
    if let Some(command) = &arguments.command {
        return command.run();
    }
    preflight::kernel_floor()?;
    let metrics = Exporter::bind(NAME, arguments.common.metrics)?;
    if arguments.simulated() {
        simulate(arguments, &mut session, metrics)
    } else {
        limit(arguments, &mut session, metrics)
    }
}

/// Three senders and a receiver, until Enter.
fn simulate(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let mut simulation = Simulation::build(arguments, session)?;
    let mut object = MaybeUninit::uninit();
    let config = arguments.configure(simulation.ports()?)?;
    let trace = arguments.trace.create()?;
    let mut metering = Metering::load(config, None, trace, &mut object)?;
    let method = metering.attach(&arguments.common.attaching())?;
    arguments.common.say(format_args!("attached by {method}"));
    metering.follow_drops()?;
    simulation.start_traffic()?;

    let mut reporter = Reporter::new(arguments.common.json);
    metrics.serve(|| reporter.figures(metering.maps(), metering.sweeper()))?;
    let watched = if arguments.demo {
        simulation.demonstrate(session)
    } else {
        let introduced = simulation.introduce();
        introduced.and_then(|()| {
            watch(
                arguments,
                session,
                &mut metering,
                &mut reporter,
                metrics,
                Some(&simulation),
            )
        })
    };
    let outcome = watched.and(simulation.conclude(metering.maps().rule()?));
    let outcome = outcome.and(metering.detach());
    let concluded = reporter.conclude(metering.maps(), metering.sweeper());
    drop(metering);
    outcome.and(simulation.close()).and(concluded)
}

/// On interfaces that are there.
fn limit(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let ports = arguments.ports()?;
    let _locks = port::claim(NAME, &ports)?;
    port::remove_leftovers(NAME, &ports.iter().collect::<Vec<_>>(), &labels())?;
    let predecessor = Attached::predecessor(&ports, arguments.pinned())?;
    let predecessor = predecessor.as_ref();
    port::warn(&ports)?;
    let mut object = MaybeUninit::uninit();
    let config = arguments.configure(ports)?;
    let trace = arguments.trace.create()?;
    if predecessor.is_none() {
        say(format_args!("{}", config.room()));
    }
    let metering = &mut Metering::load(config, predecessor, trace, &mut object)?;
    session.check()?;
    let attaching = arguments.common.attaching();
    let method = if arguments.pinned() {
        metering.attach_to_stay(&attaching, arguments.pin_legacy, predecessor)?
    } else {
        metering.attach(&attaching)?
    };
    arguments.common.say(format_args!("attached by {method}"));
    let reporter = &mut Reporter::new(arguments.common.json);
    privilege::drop_after_attach(method, Scope::Process)?;
    metering.follow_drops()?;
    metrics.serve(|| reporter.figures(metering.maps(), metering.sweeper()))?;
    say(format_args!("{}", metering.config()));
    if io::stdin().is_terminal() {
        say(format_args!("Press enter when finished"));
    }

    let watched = watch(arguments, session, metering, reporter, metrics, None);
    let mut watched = watched.and(metering.detach());
    if arguments.pinned() {
        watched = watched.and(metering.leave());
        say(format_args!("{}", metering.config().stay()));
    }
    let concluded = reporter.conclude(metering.maps(), metering.sweeper());
    watched.and(concluded)
}

/// Until the session ends, or an interface does.
fn watch(
    arguments: &Arguments,
    session: &mut Session,
    metering: &mut Metering<'_>,
    reporter: &mut Reporter,
    mut metrics: Exporter,
    simulation: Option<&Simulation>,
) -> Result<()> {
    let mut links = LinkWatch::over(&metering.config().links()?)?;
    let reason = session.attend(&mut links, |event| match event {
        Event::Second => {
            simulation.map_or(Ok(()), Simulation::check)?;
            metering.tend()?;
            metrics.publish(|| reporter.figures(metering.maps(), metering.sweeper()))
        }
        Event::Tick => reporter.interim(metering.maps(), metering.sweeper()),
        _ => Ok(()),
    })?;
    arguments.common.say(format_args!("ending: {reason}"));
    Ok(io::stdout().flush()?)
}
