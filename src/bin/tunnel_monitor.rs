//! tunnel_monitor: `--help` says what it does, docs/tunnel_monitor.md how.

use std::io::{self, IsTerminal, Write};
use std::mem::MaybeUninit;
use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure::{self, say};
use netbpf::netlink::{LinkWatch, Netlink};
use netbpf::port::Port;
use netbpf::preflight;
use netbpf::privilege::{self, Scope};
use netbpf::session::{self, Event, Session};
use netbpf::tunnel_monitor::{
    Arguments, Command, Keeper, Monitor, Outlets, Recorder, Simulation, top, traffic,
};

const NAME: &str = "tunnel_monitor";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(Command::Traffic(arguments)) => {
            let mut session = Session::start(arguments.session())?;
            return traffic::run(arguments, &mut session);
        }
        Some(Command::Top(arguments)) => {
            let mut session = Session::start(arguments.session())?;
            return top::run(arguments, &mut session);
        }
        None => {}
    }
    let mut session = Session::start(arguments.session())?;
    arguments.check()?;
    arguments.common.quieten_libbpf();
    privilege::require(arguments.capabilities())?;
    preflight::kernel_floor()?;
    let outlets = Outlets::open(arguments)?;
    if arguments.simulated() {
        simulate(arguments, outlets, &mut session)
    } else {
        monitor(arguments, outlets, &mut session)
    }
}

/// The original's example: a network of its own, until Enter.
fn simulate(arguments: &Arguments, outlets: Outlets, session: &mut Session) -> Result<()> {
    let mut simulation = Simulation::build(arguments, session)?;
    simulation.start_servers(session)?;
    let inside = simulation.enter()?;
    let port = simulation.port()?;
    let mut object = MaybeUninit::uninit();
    let mut monitor = Monitor::load(&arguments.monitoring.setup(), &mut object)?;
    let method = monitor.attach(&arguments.common.attaching(), std::slice::from_ref(&port))?;
    arguments.common.say(format_args!("attached by {method}"));
    session.check()?;

    let mut recorder = Recorder::new(arguments, outlets, vec![port.name.clone()]);
    recorder.serve(arguments)?;
    simulation.introduce(recorder.http())?;
    let link = port.link(&mut Netlink::open()?)?;
    let mut links = LinkWatch::over(&Vec::from_iter(link))?;
    let watched = session.attend(&mut links, |event| match event {
        Event::Second => recorder.record(&mut monitor),
        _ => Ok(()),
    });
    let concluded = recorder.conclude(&mut monitor);
    drop(monitor);
    drop(inside);
    watched.map(drop).and(simulation.close()).and(concluded)
}

/// On interfaces that are there, and those that come.
fn monitor(arguments: &Arguments, outlets: Outlets, session: &mut Session) -> Result<()> {
    let mut keeper = Keeper::new(&arguments.monitoring.iface)?;
    let setup = arguments.monitoring.setup();
    say(format_args!("{}", setup.room()?));
    let mut object = MaybeUninit::uninit();
    let mut monitor = Monitor::load(&setup, &mut object)?;
    session.check()?;
    let mut links = LinkWatch::all(&Netlink::open()?.links()?)?;
    let ports: Vec<Port> = keeper.ports().cloned().collect();
    let method = monitor.attach(&arguments.common.attaching(), &ports)?;
    arguments.common.say(format_args!("attached by {method}"));
    let mut recorder = Recorder::new(arguments, outlets, keeper.names());
    privilege::drop_after_attach(method, Scope::Process)?;
    recorder.serve(arguments)?;
    if let Some(address) = recorder.http() {
        say(format_args!("HTTP on {address}"));
    }
    if io::stdin().is_terminal() {
        say(format_args!("Press enter to quit"));
    }

    let watched = session.attend_all(&mut links, |event| {
        let changed = match event {
            Event::Second => {
                recorder.record(&mut monitor)?;
                keeper.tend(&mut monitor)?
            }
            Event::Link(link) => keeper.follow(link, &mut monitor)?,
            _ => false,
        };
        if changed {
            recorder.set_interfaces(keeper.names());
        }
        Ok(())
    });
    monitor.detach();
    let concluded = recorder.conclude(&mut monitor);
    io::stdout().flush()?;
    watched.map(drop).and(concluded)
}
