//! tcp_hold: `--help` says what it does, docs/tcp_hold.md how.

use std::process::ExitCode;

use anyhow::Result;
use netbpf::failure;
use netbpf::session::{self, Session};
use netbpf::tcp_hold::measure::{self, MeasureArguments, Role};
use netbpf::tcp_hold::{Arguments, Command, network};

const NAME: &str = "tcp_hold";

fn main() -> ExitCode {
    match failure::parse::<Arguments>(NAME) {
        Ok(arguments) => failure::conclude(NAME, session::settle(run(&arguments))),
        Err(code) => code,
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Client(arguments) => measure(arguments, Role::Client),
        Command::Server(arguments) => measure(arguments, Role::Server),
        Command::NetUp(arguments) => network::up(arguments),
        Command::NetDown => network::down(),
    }
}

fn measure(arguments: &MeasureArguments, role: Role) -> Result<()> {
    let plan = arguments.plan(role)?;
    let mut session = Session::start(arguments.session()?)?;
    measure::run(arguments, &plan, &mut session)
}
