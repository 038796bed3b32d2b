//! The agent, at work for a test.

use std::path::Path;
use std::process::Command;

use netbpf::tc::Method;
use nix::sys::signal::Signal;
use testbed::process::Process;
use testbed::sandbox::Sandbox;
use testbed::tool::Tool;

use crate::held_peer::WITHIN;

pub const SOCKET: &str = "/run/agent";

pub struct Agent<'a> {
    pub process: Process<'a>,
}

impl<'a> Agent<'a> {
    pub fn start(sandbox: &'a Sandbox, method: Method) -> Agent<'a> {
        Agent::run(sandbox, command(method))
    }

    pub fn run(sandbox: &'a Sandbox, command: Command) -> Agent<'a> {
        let process = sandbox.start(command);
        process.wait_for_error("Holding for", WITHIN);
        Agent { process }
    }

    pub fn end(self) {
        self.process.signal(Signal::SIGTERM);
        self.process.finish(WITHIN).assert_code(0);
        assert!(!Path::new(SOCKET).exists());
    }
}

/// Everybody may use it, and it attaches so.
pub fn command(method: Method) -> Command {
    let way = match method {
        Method::Tcx => "tcx",
        Method::Clsact => "clsact",
    };
    let tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));
    tool.command(&format!(
        "agent {SOCKET} --iface up0 --mode 0666 --attach {way}"
    ))
}
