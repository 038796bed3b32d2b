//! The clocks that the program goes by where the test does not set the time.

use std::time::Duration;

use netbpf::policer::Tick;
use nix::time::{ClockId, clock_gettime};
use testbed::step;

use crate::frames::{from, source};
use crate::model::in_register;
use crate::rig::{self, Rig, SECOND, Setup, flow, there};

/// CLOCK_MONOTONIC in ns.
fn monotonic() -> u64 {
    let time = step("read the clock", clock_gettime(ClockId::CLOCK_MONOTONIC));
    time.tv_sec() as u64 * SECOND + time.tv_nsec() as u64
}

/// When the program says that the first packet of a source came: its window begins four seconds before.
fn arrival(rig: &Rig<'_>, number: u32) -> u64 {
    assert!(rig.passes(&from(source(number))));
    let cell = there(rig.cell_of(&flow(source(number))));
    in_register(i128::from(cell.word) + 4 * i128::from(SECOND))
}

#[test]
fn both_clocks_show_the_monotonic_time() {
    let setup = Setup {
        real_clock: true,
        ..Setup::default()
    };
    rig::run("both_clocks_show_the_monotonic_time", setup, |rig| {
        let tick = step("ask for the tick", Tick::of_this_kernel());
        let precise = [0, 0];
        let (ticks, ns) = rig.read_clocks();
        let ns_at_tick_0 = ns.wrapping_sub(ticks.wrapping_mul(tick.ns));
        let coarse = [tick.ns, ns_at_tick_0];
        for (number, [ns_per_tick, ns_at_tick_0]) in
            [precise, coarse, precise, coarse].into_iter().enumerate()
        {
            rig.set_rule(|rule| {
                rule.ns_per_tick = ns_per_tick;
                rule.ns_at_tick_0 = ns_at_tick_0.cast_signed();
            });
            let before = monotonic();
            let arrival = arrival(rig, number as u32);
            let after = monotonic();
            // The tick that was read may have been about to end, and a CPU that had to wait sees it late.
            let slack = 2 * ns_per_tick;
            assert!(
                (before - slack..=after + slack).contains(&arrival),
                "{before} to {after} by the clock, {arrival} by the program, {ns_per_tick} ns a tick"
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    });
}
