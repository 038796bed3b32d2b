//! What a packet costs in a program, as ns above an empty program in the same run. BPF_PROG_TEST_RUN
//! repeats a program on one packet; rounds of all programs take turns, so that a machine that changes its
//! speed changes it for all of them.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;

use anyhow::Result;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ProgramInput, ProgramMut};

mod decisions;

mod baseline {
    include!(concat!(env!("OUT_DIR"), "/baseline.skel.rs"));
}

pub const ROUNDS: usize = 21;
const REPEAT: u32 = 1_000_000;

/// A program on a packet.
pub struct Case<'a> {
    pub name: &'a str,
    pub program: &'a ProgramMut<'a>,
    pub packet: &'a [u8],
}

/// Measures them all, and prints a line for each.
pub fn print(cases: &[Case<'_>]) -> Result<()> {
    let mut object = MaybeUninit::uninit();
    let baseline = baseline::BaselineSkelBuilder::default()
        .open(&mut object)?
        .load()?;
    let any = udp(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
    let mut floor = Vec::new();
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        floor.push(run(&baseline.progs.empty, &any, REPEAT)?);
        for (case, times) in cases.iter().zip(&mut times) {
            times.push(run(case.program, case.packet, REPEAT)?);
        }
    }
    println!(
        "ns a packet, median of {ROUNDS} rounds of {REPEAT}; above: paired with the empty program"
    );
    print_head();
    print_line("empty program", &floor, &floor);
    for (case, times) in cases.iter().zip(&times) {
        print_line(case.name, times, &floor);
    }
    decisions::print(cases);
    Ok(())
}

/// Of the table.
pub fn print_head() {
    println!(
        "{:<36} {:>6} {:>6} {:>6} {:>6}",
        "program", "min", "median", "max", "above"
    );
}

/// A figure of each round, in the program and in the empty one.
pub fn print_line(name: &str, times: &[f64], floor: &[f64]) {
    let paired = times.iter().zip(floor).map(|(time, floor)| time - floor);
    let above = sorted(paired.collect());
    let times = sorted(times.to_vec());
    let (min, median, max) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
    println!(
        "{name:<36} {min:>6.1} {median:>6.1} {max:>6.1} {:>6.1}",
        above[ROUNDS / 2]
    );
}

/// In ascending order.
pub fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// ns a run, as the kernel measures them.
pub fn run(program: &ProgramMut<'_>, packet: &[u8], repeat: u32) -> Result<f64> {
    let input = ProgramInput {
        data_in: Some(packet),
        repeat,
        ..Default::default()
    };
    let output = program.test_run(input)?;
    Ok(output.duration.as_nanos() as f64)
}

/// A frame of 64 bytes.
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend([0x30, 0x39, 0, 9, 0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}

/// An ARP frame of 60 bytes.
pub fn arp() -> Vec<u8> {
    [[0xff; 12].as_slice(), &[8, 6], &[0; 46]].concat()
}
