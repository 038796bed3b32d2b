//! neighbor_sharing: `--help` says what it does, docs/neighbor_sharing.md how.

use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure::{self, say};
use netbpf::metrics::Exporter;
use netbpf::neighbor_sharing::{Arguments, Demo, Ports, Reporter, Sharing, Simulation, labels};
use netbpf::netlink::LinkWatch;
use netbpf::port;
use netbpf::preflight;
use netbpf::privilege::{self, Scope};
use netbpf::session::{self, Event, Session};

const NAME: &str = "neighbor_sharing";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut session = Session::start(arguments.session())?;
    arguments.limits()?;
    arguments.common.quieten_libbpf();
    privilege::require(arguments.capabilities())?;
    preflight::kernel_floor()?;
    let metrics = Exporter::bind(NAME, arguments.common.metrics)?;
    if arguments.simulated() {
        simulate(arguments, &mut session, metrics)
    } else {
        share(arguments, &mut session, metrics)
    }
}

/// The original's example: a network of its own, until Enter.
fn simulate(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let mut simulation = Simulation::build(arguments, session)?;
    let mut object = MaybeUninit::uninit();
    let config = arguments.configure(simulation.ports()?)?;
    let mut sharing = Sharing::load(config, &mut object)?;
    let method = sharing.attach(&arguments.common.attaching())?;
    arguments.common.say(format_args!("attached by {method}"));
    simulation.start_servers(session)?;

    let mut reporter = Reporter::new(arguments.common.json);
    metrics.serve(|| reporter.figures(&sharing))?;
    let outcome = if arguments.demo {
        let demo = Demo::run(&simulation, sharing.config(), session);
        demo.and_then(|demo| demo.print(arguments.common.json))
    } else {
        let introduced = simulation.introduce();
        introduced.and_then(|()| watch(arguments, session, &mut sharing, &mut reporter, metrics))
    };
    let concluded = reporter.conclude(&sharing);
    drop(sharing);
    outcome.and(simulation.close()).and(concluded)
}

/// The same on interfaces that are there.
fn share(arguments: &Arguments, session: &mut Session, mut metrics: Exporter) -> Result<()> {
    let ports = Ports::find(arguments)?;
    let _locks = port::claim(NAME, ports.all())?;
    port::remove_leftovers(NAME, &ports.all().collect::<Vec<_>>(), &labels())?;
    ports.warn(arguments)?;
    let mut object = MaybeUninit::uninit();
    let mut sharing = Sharing::load(arguments.configure(ports)?, &mut object)?;
    session.check()?;
    let method = sharing.attach(&arguments.common.attaching())?;
    arguments.common.say(format_args!("attached by {method}"));
    let mut reporter = Reporter::new(arguments.common.json);
    privilege::drop_after_attach(method, Scope::Process)?;
    metrics.serve(|| reporter.figures(&sharing))?;
    say(format_args!("{}", sharing.config()));
    if io::stdin().is_terminal() {
        say(format_args!("Press enter when finished"));
    }

    let watched = watch(arguments, session, &mut sharing, &mut reporter, metrics);
    sharing.detach();
    let concluded = reporter.conclude(&sharing);
    watched.and(concluded)
}

/// Until the session ends, or an interface does.
fn watch(
    arguments: &Arguments,
    session: &mut Session,
    sharing: &mut Sharing<'_>,
    reporter: &mut Reporter,
    mut metrics: Exporter,
) -> Result<()> {
    let mut links = LinkWatch::over(&sharing.config().links()?)?;
    let reason = session.attend(&mut links, |event| match event {
        Event::Second => {
            if let Some(notice) = sharing.tend()? {
                say(format_args!("{notice}"));
            }
            metrics.publish(|| reporter.figures(sharing))
        }
        Event::Tick => reporter.interim(sharing),
        _ => Ok(()),
    })?;
    arguments.common.say(format_args!("ending: {reason}"));
    Ok(io::stdout().flush()?)
}
