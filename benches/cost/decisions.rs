//! How many packets a second a program decides on, on one CPU and on all of them at once: each has the same
//! packet, so that they meet at every row that it changes.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
use std::time::Instant;

use testbed::{cpus, joined, test_run};

use super::{Case, sorted};

const ROUNDS: usize = 5;
const REPEAT: u32 = 1_000_000;

/// Measures them all, and prints a line for each.
pub fn print(cases: &[Case<'_>]) {
    let cpus = cpus::all();
    let title = format!("million packets a second, median of {ROUNDS} rounds");
    println!();
    println!(
        "{title:<46} {:>7} {:>7} {:>7}",
        "one CPU",
        format!("all {}", cpus.len()),
        "times"
    );
    for case in cases {
        let program = case.program.as_fd();
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let one = rate(program, case.packet, &cpus[..1]);
            rounds.push((one, rate(program, case.packet, &cpus)));
        }
        let median =
            |of: fn(&(f64, f64)) -> f64| sorted(rounds.iter().map(of).collect())[ROUNDS / 2];
        println!(
            "{:<46} {:>7.1} {:>7.1} {:>7.2}",
            case.name,
            median(|round| round.0 / 1e6),
            median(|round| round.1 / 1e6),
            median(|round| round.1 / round.0)
        );
    }
}

/// Packets a second, all CPUs together.
fn rate(program: BorrowedFd<'_>, packet: &[u8], cpus: &[usize]) -> f64 {
    let start = Barrier::new(cpus.len());
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = cpus
            .iter()
            .map(|cpu| {
                let start = &start;
                scope.spawn(move || {
                    cpus::pin_to(*cpu);
                    start.wait();
                    let begin = Instant::now();
                    test_run::by_descriptor(program, packet, REPEAT);
                    f64::from(REPEAT) / begin.elapsed().as_secs_f64()
                })
            })
            .collect();
        running.into_iter().map(joined).collect()
    });
    rates.into_iter().sum()
}
