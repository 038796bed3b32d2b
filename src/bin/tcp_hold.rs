//! tcp_hold: `--help` says what it does, docs/tcp_hold.md how.

use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure;
use netbpf::session::{self, Session};
use netbpf::tcp_hold::measure::{self, MeasureArguments, Role};
use netbpf::tcp_hold::{Arguments, Command, agent, experiment, network};

const NAME: &str = "tcp_hold";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        None => experiment::run(&arguments.experiment),
        Some(Command::Client(arguments)) => measure(arguments, Role::Client),
        Some(Command::Server(arguments)) => measure(arguments, Role::Server),
        Some(Command::NetUp(arguments)) => network::up(arguments),
        Some(Command::NetDown) => network::down(),
        Some(Command::Agent(arguments)) => agent::run(arguments),
        Some(Command::Lockstep(lockstep)) => lockstep.run(&mut Session::start(lockstep.session())?),
        Some(Command::Plug(step)) => step.run(),
    }
}

fn measure(arguments: &MeasureArguments, role: Role) -> Result<()> {
    let plan = arguments.plan(role)?;
    let mut session = Session::start(arguments.session()?)?;
    measure::run(arguments, &plan, &mut session)
}
