//! Where the tools' programs stand among those of others at an interface (`--before`, `--after`).

use netbpf::tc::{Direction, programs};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use testbed::attaching;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::others::{GOES_ON, Program};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::{ENDS_WITHIN, Tool};
use testbed::{skip, step};

const USES: [(Tool, &str, &str); 4] = [
    (
        Tool::new(env!("CARGO_BIN_EXE_neighbor_sharing")),
        "--wan up1 --neighbor up0",
        "Sharing ",
    ),
    (
        Tool::new(env!("CARGO_BIN_EXE_vlan_learning")),
        "--trunk up0 --map 02:00:00:00:00:01=up1",
        "Bringing ",
    ),
    (
        Tool::new(env!("CARGO_BIN_EXE_tokenbucket")),
        "--iface up0",
        "Limiting ",
    ),
    (
        Tool::new(env!("CARGO_BIN_EXE_tunnel_monitor")),
        "--iface up0",
        "HTTP on ",
    ),
];

/// The programs that see what comes in by up0, in their order.
fn at_ingress() -> Vec<u32> {
    let index = step("up0", if_nametoindex("up0"));
    step("list programs", programs(index, Direction::Ingress))
}

/// Runs the body beside two programs of somebody else at up0, with their numbers.
fn beside_others(name: &str, body: impl FnOnce(&Sandbox, [u32; 2]) + Send) {
    if !attaching::has_tcx() {
        return skip(name, "this kernel has no TCX (6.6)");
    }
    sandbox::run(name, |sandbox| {
        let here = Place::here();
        let _cables = [("up0", "far0"), ("up1", "far1")]
            .map(|(near, far)| Veth::new((&here, near), (&here, far)));
        let others = ["one_of_others", "a_program_with_a_long_name"]
            .map(|name| Program::answering(name, GOES_ON));
        // Each goes behind those that are there.
        let _links = others.each_ref().map(|other| other.attach("up0"));
        let [first, second] = at_ingress()[..] else {
            panic!("two programs are there");
        };
        body(sandbox, [first, second]);
    });
}

#[test]
fn programs_stand_where_the_user_says() {
    beside_others("programs_stand_where_the_user_says", |sandbox, others| {
        let [first, second] = others;
        let number = format!("--after {first}");
        for (tool, over, ready) in USES {
            for (place, at) in [
                ("", 0),
                ("--before one_of_others", 0),
                (number.as_str(), 1),
                ("--before a_program_with_a_long_name", 1),
                ("--after a_program_with_a_long_name", 2),
            ] {
                let arguments = format!("{over} {place}");
                let ready = Ready::SaysAside(ready);
                let process = Job::new(sandbox, tool, &arguments, ready).at_work("");
                let mut programs = at_ingress();
                assert_eq!(programs.len(), 3, "{arguments}: {programs:?}");
                programs.remove(at);
                assert_eq!(programs, [first, second], "{arguments}");
                process.signal(Signal::SIGTERM);
                process.finish(ENDS_WITHIN).assert_code(0);
                assert_eq!(at_ingress(), others, "{arguments}");
            }
        }
    });
}

#[test]
fn a_neighbour_that_is_nowhere_is_named() {
    beside_others("a_neighbour_that_is_nowhere_is_named", |sandbox, others| {
        for (tool, over, _) in USES {
            let refused = |more: &str, code: i32, words: &str| {
                let command = tool.command(&format!("{over} {more}"));
                let ended = sandbox.start(command).finish(ENDS_WITHIN);
                ended.assert_code(code);
                let [error] = tool.errors(&ended)[..] else {
                    panic!("one error: {}", ended.stderr);
                };
                assert!(error.contains(words), "{more}: {error}");
                assert_eq!(at_ingress(), others);
            };
            refused("--before nobody", 2, "no program nobody");
            refused("--after 4294967295", 2, "no program 4294967295");
            refused("--before x --after y", 2, "cannot be used with");
            let filters = "--attach clsact --after one_of_others";
            refused(filters, 4, "need TCX links");
        }
    });
}
