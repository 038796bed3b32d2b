//! Tools that may have next to no files open at a time: they say so, and nothing else happens; from the fewest on
//! that they ask for, they work.

use std::ops::RangeInclusive;
use std::process::Command;

use nix::sys::signal::Signal;
use testbed::process::{Input, Output};
use testbed::sandbox;
use testbed::tool::{ENDS_WITHIN, READY_WITHIN, Tool};

mod on_interfaces;

use on_interfaces::{USES, Use, cables};

/// The one beside those that take common options.
const AGENT: Use = Use {
    tool: Tool::new(env!("CARGO_BIN_EXE_tcp_hold")),
    arguments: "agent /run/held --iface up0",
    ready: "Holding for ",
};

/// With fewer than 8 they cannot even listen to signals.
const TOO_FEW: RangeInclusive<u32> = 8..=40;
/// src/preflight/descriptors.rs
const FEWEST: u32 = 64;

/// The tool with these arguments, and so few files.
fn limited(tool: &Tool, arguments: &str, files: u32) -> Command {
    let command = tool.command(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("ulimit -n {files}; exec {}", words.join(" ")),
    ]);
    shell
}

#[test]
fn too_few_open_files_are_one_clear_line() {
    let name = "too_few_open_files_are_one_clear_line";
    sandbox::run(name, |sandbox| {
        let _cables = cables();
        // Simulations too; that of tcp_hold is its experiment.
        let uses = USES.iter().chain([&AGENT]);
        let uses = uses.map(|used| (used.tool, used.arguments, TOO_FEW));
        let simulations = USES.iter().chain([&AGENT]);
        let simulations = simulations.map(|used| (used.tool, "", 8..=8));
        for (tool, arguments, too_few) in uses.chain(simulations) {
            let before = sandbox.snapshot();
            for files in too_few.chain([FEWEST - 1]) {
                let command = limited(&tool, arguments, files);
                let ended = sandbox.start_with(command, Input::AtEnd, Output::Read);
                let ended = ended.finish(ENDS_WITHIN);
                ended.assert_code(1);
                let words = format!(
                    "{}: {files} files may be open at a time, {FEWEST} are needed: raise the limit (ulimit -n, \
                     LimitNOFILE= of a unit)\n",
                    tool.name()
                );
                assert_eq!(ended.stderr, words);
                assert_eq!(ended.stdout, "");
            }
            before.assert_same(&sandbox.snapshot(), tool.name());
        }
        // Nor is there anything in the way of the next start, with as many as are usual.
        for used in USES.iter().chain([&AGENT]) {
            let process = used.at_work(sandbox, "");
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}

#[test]
fn the_fewest_open_files_are_enough() {
    sandbox::run("the_fewest_open_files_are_enough", |sandbox| {
        let _cables = cables();
        for used in USES.iter().chain([&AGENT]) {
            let command = limited(&used.tool, used.arguments, FEWEST);
            let process = sandbox.start(command);
            process.wait_for_error(used.ready, READY_WITHIN);
            process.signal(Signal::SIGTERM);
            process.finish(ENDS_WITHIN).assert_code(0);
        }
    });
}
