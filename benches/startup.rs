//! What each tool takes to be ready, to be gone, and while it runs: `make bench`. Every run is the
//! tool's simulation in namespaces of its own, without arguments, and once as large as it is said to be
//! quick at; of tcp_hold, which has an experiment in the place of one, the agent.

use std::time::{Duration, Instant};

use testbed::job::{Job, Ready};
use testbed::namespace::Place;
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, Tool};

/// A way to use a tool.
struct Use {
    tool: Tool,
    arguments: &'static str,
    /// What it says once everything works.
    ready: Ready,
}

const USES: [Use; 6] = [
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing")),
        arguments: "",
        ready: Ready::Says("Network ready"),
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tokenbucket")),
        arguments: "",
        ready: Ready::Says("Network ready"),
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_vlan_learning")),
        arguments: "",
        ready: Ready::Says("Serving HTTP"),
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor")),
        arguments: "",
        ready: Ready::Says("HTTPServer listening"),
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor")),
        arguments: "--hosts 64 --vnis 8",
        ready: Ready::Says("HTTPServer listening"),
    },
    Use {
        tool: Tool::new(env!("CARGO_BIN_EXE_tcp_hold")),
        arguments: "agent /run/held --iface lo",
        ready: Ready::SaysAside("Holding for"),
    },
];

const RUNS: usize = 15;
/// What a simulation starts to be measured against; not the tool's own memory, nor its processes.
const SERVERS: [&str; 2] = ["netserver", "iperf3"];

fn main() {
    for used in &USES {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            sandbox::run(used.tool.name(), |sandbox| {
                runs.push(Run::of(used, sandbox))
            });
        }
        // Without root nothing ran, and that has been said.
        if !runs.is_empty() {
            print(used, &runs);
        }
    }
}

struct Run {
    ready: Duration,
    gone: Duration,
    memory_kib: u64,
    processes: usize,
}

impl Run {
    fn of(used: &Use, sandbox: &Sandbox) -> Run {
        Place::here().ip("link set lo up");
        let mut process = Job::new(sandbox, used.tool, used.arguments, used.ready).at_work("");
        let ready = process.started().elapsed();
        let memory_kib = process.peak_memory_kib();
        let is_server = |command: &str| SERVERS.iter().any(|server| command.starts_with(server));
        let processes = sandbox.processes();
        let own = processes.iter().filter(|(_, command)| !is_server(command));
        let processes = own.count();
        let asked = Instant::now();
        process.write("\n");
        process.finish(ENDS_WITHIN).assert_code(0);
        Run {
            ready,
            gone: asked.elapsed(),
            memory_kib,
            processes,
        }
    }
}

fn print(used: &Use, runs: &[Run]) {
    let words = [used.tool.name(), used.arguments].join(" ");
    let title = format!("{}, {} runs", words.trim_end(), runs.len());
    println!("{title:<46} {:>7} {:>7} {:>7}", "min", "median", "max");
    let row = |what: &str, decimals: usize, value: fn(&Run) -> f64| {
        let mut values: Vec<_> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (min, median, max) = (
            values[0],
            values[values.len() / 2],
            values[values.len() - 1],
        );
        println!("{what:<46} {min:>7.decimals$} {median:>7.decimals$} {max:>7.decimals$}");
    };
    let (Ready::Says(said) | Ready::SaysAside(said)) = used.ready;
    row(&format!("start to \"{said}\", ms"), 0, |run| {
        run.ready.as_secs_f64() * 1e3
    });
    row("Enter to the end, ms", 0, |run| {
        run.gone.as_secs_f64() * 1e3
    });
    row("resident memory at the peak, MB", 1, |run| {
        run.memory_kib as f64 * 1024.0 / 1e6
    });
    row("processes besides the servers", 0, |run| {
        run.processes as f64
    });
}
