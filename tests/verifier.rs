//! What the verifier has to read of every program, and what its maps take, held against docs/verifier.md: a
//! program that has grown by more than a tenth shows here, and in the change to that file.

#[path = "verifier/document.rs"]
mod document;
#[path = "verifier/measured.rs"]
mod measured;
mod on_interfaces;

use libbpf_rs::num_possible_cpus;
use netbpf::neighbor_sharing::skeleton::NeighborSharingSkelBuilder;
use netbpf::tcp_hold::skeleton::TcpHoldSkelBuilder;
use netbpf::tokenbucket::skeleton::TokenbucketSkelBuilder;
use netbpf::tunnel_monitor::skeleton::TunnelMonitorSkelBuilder;
use netbpf::vlan_learning::skeleton::VlanLearningSkelBuilder;
use nix::sys::signal::Signal;
use testbed::sandbox::{self, Sandbox};
use testbed::step;
use testbed::tool::{ENDS_WITHIN, Tool};

use document::Document;
use measured::{Figures, Map, Names};
use on_interfaces::{USES, Use, cables};

/// How much more than documented is let pass: the verifier of a new point release counts a little otherwise.
const TOLERATED: f64 = 1.1;
/// Where this is set, the document is written anew for this kernel: `make verifier`.
const WRITE: &str = "WRITE_VERIFIER";

/// The one beside those that take common options.
const AGENT: Use = Use {
    tool: Tool::new(env!("CARGO_BIN_EXE_tcp_hold")),
    arguments: "agent /run/held --iface up0",
    ready: "Holding for ",
};

/// What its maps take while it is at work, by the names of its object.
fn maps_of(sandbox: &Sandbox, used: &Use, names: &Names) -> Vec<Map> {
    let process = used.at_work(sandbox, "");
    let maps = names.of_maps(process.pid());
    process.signal(Signal::SIGTERM);
    process.finish(ENDS_WITHIN).assert_code(0);
    maps
}

fn figures(sandbox: &Sandbox) -> Figures {
    let _cables = cables();
    // In the order of their uses.
    let objects = [
        measured::load("neighbor_sharing", NeighborSharingSkelBuilder::default()),
        measured::load("vlan_learning", VlanLearningSkelBuilder::default()),
        measured::load("tokenbucket", TokenbucketSkelBuilder::default()),
        measured::load("tunnel_monitor", TunnelMonitorSkelBuilder::default()),
        measured::load("tcp_hold", TcpHoldSkelBuilder::default()),
    ];
    let mut figures = Figures {
        cpus: step("count CPUs", num_possible_cpus()) as u64,
        ..Figures::default()
    };
    for ((programs, names), used) in objects.into_iter().zip(USES.iter().chain([&AGENT])) {
        figures.programs.extend(programs);
        figures.maps.extend(maps_of(sandbox, used, &names));
    }
    figures
}

#[test]
fn programs_and_maps_are_as_large_as_documented() {
    let name = "programs_and_maps_are_as_large_as_documented";
    sandbox::run(name, |sandbox| {
        let mut now = figures(sandbox);
        let kernel = measured::kernel();
        if std::env::var_os(WRITE).is_some() {
            let document = Document::read().with(&kernel, &now);
            step("write the document", document.write());
            return;
        }
        let Some(mut documented) = Document::read().of(&kernel) else {
            let section = document::section(&kernel, &now);
            println!("{section}");
            return testbed::skip(name, &format!("{} has no Linux {kernel}", document::PATH));
        };
        if now.cpus != documented.cpus {
            let cpus = documented.cpus;
            let reason = format!("{} CPUs, and {} is of {cpus}", now.cpus, document::PATH);
            testbed::skip("maps_are_as_large_as_documented", &reason);
            (now.maps, documented.maps) = (Vec::new(), Vec::new());
        }
        let problems = now.larger_than(&documented, TOLERATED);
        assert!(
            problems.is_empty(),
            "{problems:#?}\n`make verifier` writes {} anew",
            document::PATH
        );
    });
}

#[test]
fn a_program_that_grows_is_noticed() {
    let documented = Document::read();
    let kernel = step("a section", documented.kernels().next().ok_or("none"));
    let was = step(kernel, documented.of(kernel).ok_or("not there"));
    assert!(was.larger_than(&was, TOLERATED).is_empty());

    let mut grown = was.clone();
    grown.programs[0].verified += grown.programs[0].verified / 8;
    grown.maps[0].memory += grown.maps[0].memory / 8;
    assert_eq!(grown.larger_than(&was, TOLERATED).len(), 2);

    let mut more = was.clone();
    let mut renamed = more.programs[0].clone();
    renamed.name.push_str("_new");
    more.programs.push(renamed);
    // One that the document does not have, and for the document one that is gone.
    assert_eq!(more.larger_than(&was, TOLERATED).len(), 1);
    assert_eq!(was.larger_than(&more, TOLERATED).len(), 1);
}

#[test]
fn what_is_written_is_read() {
    let documented = Document::read();
    let kernel = step("a section", documented.kernels().next().ok_or("none"));
    let figures = step(kernel, documented.of(kernel).ok_or("not there"));
    assert_eq!(documented.with(kernel, &figures), documented);
    let other = documented.with("99.9", &figures);
    assert_eq!(other.of("99.9"), Some(figures));
    assert_eq!(other.kernels().last(), Some("99.9"));
}
