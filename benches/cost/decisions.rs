//! How many packets a second a program decides on, on one CPU and on all of them at once: each has the same
//! packet, so that they meet at every row that it changes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Result, ensure};
use libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use testbed::{cpus, joined};

use super::{Case, sorted};

const ROUNDS: usize = 5;
const REPEAT: u32 = 1_000_000;

/// Measures them all, and prints a line for each.
pub fn print(cases: &[Case<'_>]) -> Result<()> {
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
            let one = rate(program, case.packet, &cpus[..1])?;
            rounds.push((one, rate(program, case.packet, &cpus)?));
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
    Ok(())
}

/// Packets a second, all CPUs together.
fn rate(program: BorrowedFd<'_>, packet: &[u8], cpus: &[usize]) -> Result<f64> {
    let start = Barrier::new(cpus.len());
    let rates: Vec<Result<f64>> = std::thread::scope(|scope| {
        let running: Vec<_> = cpus
            .iter()
            .map(|cpu| {
                let start = &start;
                scope.spawn(move || {
                    cpus::pin_to(*cpu);
                    start.wait();
                    let begin = Instant::now();
                    run(program, packet)?;
                    Ok(f64::from(REPEAT) / begin.elapsed().as_secs_f64())
                })
            })
            .collect();
        running.into_iter().map(joined).collect()
    });
    rates.into_iter().sum()
}

/// libbpf-rs's programs stay in the thread that loaded them; their descriptors do not.
fn run(program: BorrowedFd<'_>, packet: &[u8]) -> Result<()> {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as u64,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        repeat: REPEAT as i32,
        ..Default::default()
    };
    // SAFETY: an open descriptor; the options and the packet they point to outlive the call.
    let answer = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    ensure!(answer == 0, "run a program: error {answer}");
    Ok(())
}
