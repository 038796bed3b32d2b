//! Tools at work on interfaces of the user's, up0 and up1.

use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::process::Process;
use testbed::sandbox::Sandbox;
use testbed::tool::Tool;

/// A way to use a tool there.
#[derive(Clone, Copy)]
pub struct Use {
    pub tool: Tool,
    pub arguments: &'static str,
    /// What it says on standard error once it is at work.
    pub ready: &'static str,
}

/// Each of them sees what comes in by up0.
pub const USES: [Use; 4] = [
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing")),
        arguments: "--wan up1 --neighbor up0",
        ready: "Sharing ",
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_vlan_learning")),
        arguments: "--trunk up0 --map 02:00:00:00:00:01=up1",
        ready: "Bringing ",
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tokenbucket")),
        arguments: "--iface up0",
        ready: "Limiting ",
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor")),
        arguments: "--iface up0",
        ready: "HTTP on ",
    },
];

/// The interfaces.
pub fn cables() -> [Veth; 2] {
    let here = Place::here();
    [("up0", "far0"), ("up1", "far1")].map(|(near, far)| Veth::new((&here, near), (&here, far)))
}

impl Use {
    /// At work, with more arguments.
    pub fn at_work<'a>(&self, sandbox: &'a Sandbox, more: &str) -> Process<'a> {
        let ready = Ready::SaysAside(self.ready);
        Job::new(sandbox, self.tool, self.arguments, ready).at_work(more)
    }
}
