//! What each tool takes to be ready, to be gone, and while it runs: `make bench`. Every run is the
//! tool's simulation in namespaces of its own, without arguments, and once as large as it is said to be
//! quick at.

use std::process::Command;
use std::time::{Duration, Instant};

use testbed::sandbox::{self, Sandbox};

struct Tool {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// What it says on standard output once everything works.
    ready: &'static str,
}

const TOOLS: [Tool; 5] = [
    Tool {
        name: "neighbor_sharing",
        program: env!("CARGO_BIN_EXE_neighbor_sharing"),
        arguments: &[],
        ready: "Network ready",
    },
    Tool {
        name: "tokenbucket",
        program: env!("CARGO_BIN_EXE_tokenbucket"),
        arguments: &[],
        ready: "Network ready",
    },
    Tool {
        name: "vlan_learning",
        program: env!("CARGO_BIN_EXE_vlan_learning"),
        arguments: &[],
        ready: "Serving HTTP",
    },
    Tool {
        name: "tunnel_monitor",
        program: env!("CARGO_BIN_EXE_tunnel_monitor"),
        arguments: &[],
        ready: "HTTPServer listening",
    },
    Tool {
        name: "tunnel_monitor --hosts 64 --vnis 8",
        program: env!("CARGO_BIN_EXE_tunnel_monitor"),
        arguments: &["--hosts", "64", "--vnis", "8"],
        ready: "HTTPServer listening",
    },
];

const RUNS: usize = 15;
/// Beyond this it hangs: there is nothing to measure.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a simulation starts to be measured against; not the tool's own memory, nor its processes.
const SERVERS: [&str; 2] = ["netserver", "iperf3"];

fn main() {
    for tool in &TOOLS {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            sandbox::run(tool.name, |sandbox| runs.push(Run::of(tool, sandbox)));
        }
        // Without root nothing ran, and that has been said.
        if !runs.is_empty() {
            print(tool, &runs);
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
    fn of(tool: &Tool, sandbox: &Sandbox) -> Run {
        let mut command = Command::new(tool.program);
        command.args(tool.arguments);
        let mut process = sandbox.start(command);
        process.wait_for(tool.ready, PATIENCE);
        let ready = process.started().elapsed();
        let memory_kib = process.peak_memory_kib();
        let is_server = |command: &str| SERVERS.iter().any(|server| command.starts_with(server));
        let processes = sandbox.processes();
        let own = processes.iter().filter(|(_, command)| !is_server(command));
        let processes = own.count();
        let asked = Instant::now();
        process.write("\n");
        process.finish(PATIENCE).assert_code(0);
        Run {
            ready,
            gone: asked.elapsed(),
            memory_kib,
            processes,
        }
    }
}

fn print(tool: &Tool, runs: &[Run]) {
    let Tool { name, ready, .. } = tool;
    let title = format!("{name}, {} runs", runs.len());
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
    row(&format!("start to \"{ready}\", ms"), 0, |run| {
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
