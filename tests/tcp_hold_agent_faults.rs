//! Life and death of the agent: every way to end it at any time. Whatever happens, nothing of it stays when
//! nothing is held.

use std::time::Duration;

use testbed::attaching;
use testbed::job::{Job, Ready};
use testbed::namespace::{Place, Veth};
use testbed::sandbox;
use testbed::tool::Tool;

const TOOL: Tool = Tool::new(env!("CARGO_BIN_EXE_tcp_hold"));

/// An agent at an interface of its own, by each way to attach. Its guard outlives it.
#[track_caller]
fn by_each_way(name: &str, body: impl Fn(Job<'_>) + Sync) {
    attaching::by_each_way(|way| {
        sandbox::run(name, |sandbox| {
            let here = Place::here();
            let _interface = Veth::new((&here, "up0"), (&here, "far0"));
            let arguments = format!("agent /run/agent --iface up0 --attach {way}");
            let ready = Ready::SaysAside("Holding for /run/agent");
            body(Job::new(sandbox, TOOL, &arguments, ready).outlived());
        });
    });
}

#[test]
fn every_end_of_the_agent_leaves_nothing() {
    let name = "every_end_of_the_agent_leaves_nothing";
    by_each_way(name, |job| job.assert_every_end_leaves_nothing());
}

#[test]
fn without_standard_input_it_runs_on_and_sleeps() {
    let name = "without_standard_input_it_runs_on_and_sleeps";
    by_each_way(name, |job| job.assert_sleeps_without_input());
}

#[test]
fn a_signal_at_any_stage_of_the_start_ends_it() {
    let name = "a_signal_at_any_stage_of_the_start_ends_it";
    by_each_way(name, |job| {
        job.assert_signals_end_its_start(name, Duration::from_millis(500));
    });
}

#[test]
fn after_kill_9_at_any_time_the_next_start_works_and_cleans_up() {
    let name = "after_kill_9_at_any_time_the_next_start_works_and_cleans_up";
    by_each_way(name, |job| job.assert_cleans_up_after_kill_9(name));
}

#[test]
fn any_call_of_its_start_and_its_end_may_fail() {
    let name = "any_call_of_its_start_and_its_end_may_fail";
    by_each_way(name, |job| job.assert_bears_faults(name));
}
