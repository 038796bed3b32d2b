//! Where the tools' programs stand among those of others at an interface (`--before`, `--after`).

mod on_interfaces;

use netbpf::tc::{Direction, programs};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use testbed::attaching;
use testbed::others::{GOES_ON, Program};
use testbed::sandbox::{self, Sandbox};
use testbed::tool::ENDS_WITHIN;
use testbed::{skip, step};

use on_interfaces::{USES, cables};

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
        let _cables = cables();
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
        for used in USES {
            for (place, at) in [
                ("", 0),
                ("--before one_of_others", 0),
                (number.as_str(), 1),
                ("--before a_program_with_a_long_name", 1),
                ("--after a_program_with_a_long_name", 2),
            ] {
                let process = used.at_work(sandbox, place);
                let arguments = format!("{} {place}", used.arguments);
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
        for used in USES {
            let refused = |more: &str, code: i32, words: &str| {
                let command = used.tool.command(&format!("{} {more}", used.arguments));
                let ended = sandbox.start(command).finish(ENDS_WITHIN);
                ended.assert_code(code);
                let [error] = used.tool.errors(&ended)[..] else {
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
