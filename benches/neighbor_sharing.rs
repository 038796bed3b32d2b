//! What a packet costs in the programs of neighbor_sharing, as ns above an empty program in the same
//! run: `make bench`. BPF_PROG_TEST_RUN repeats a program on one packet; rounds of all programs take
//! turns, so that a machine that changes its speed changes it for all of them.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput, ProgramMut};
use netbpf::neighbor_sharing::skeleton;

mod baseline {
    include!(concat!(env!("OUT_DIR"), "/baseline.skel.rs"));
}

const ROUNDS: usize = 21;
const REPEAT: u32 = 1_000_000;

const NEIGHBOR: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);
const WAN: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 5);

fn main() -> Result<()> {
    let (mut first, mut second) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let empty = baseline::BaselineSkelBuilder::default()
        .open(&mut first)?
        .load()?;
    let sharing = load(&mut second)?;
    let programs = &sharing.progs;
    let download = udp(WAN, NEIGHBOR);
    let unknown = udp(WAN, Ipv4Addr::new(172, 16, 1, 250));
    let upload = udp(NEIGHBOR, WAN);
    let arp = [[0xff; 12].as_slice(), &[8, 6], &[0; 46]].concat();
    // The first packet makes the neighbor known; test packets come in by loopback, ifindex 1.
    run(&programs.classify_neighbor, &upload, 1)?;
    let cases: [(&str, &ProgramMut<'_>, &[u8]); 6] = [
        ("empty program", &empty.progs.empty, &download),
        (
            "classify_wan, neighbor, policed",
            &programs.classify_wan,
            &download,
        ),
        (
            "classify_wan, unknown, policed",
            &programs.classify_wan,
            &unknown,
        ),
        ("classify_wan, ARP", &programs.classify_wan, &arp),
        (
            "classify_neighbor, known source",
            &programs.classify_neighbor,
            &upload,
        ),
        ("police_upload, untagged", &programs.police_upload, &upload),
    ];
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, program, packet), times) in cases.iter().zip(&mut times) {
            times.push(run(program, packet, REPEAT)?);
        }
    }
    let floor = times[0].clone();
    println!(
        "ns a packet, median of {ROUNDS} rounds of {REPEAT}; above: paired with the empty program"
    );
    println!(
        "{:<34} {:>6} {:>6} {:>6} {:>6}",
        "program", "min", "median", "max", "above"
    );
    for ((name, _, _), times) in cases.iter().zip(&mut times) {
        let mut above: Vec<_> = times
            .iter()
            .zip(&floor)
            .map(|(time, floor)| time - floor)
            .collect();
        times.sort_by(f64::total_cmp);
        above.sort_by(f64::total_cmp);
        let (min, median, max) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
        println!(
            "{name:<34} {min:>6.1} {median:>6.1} {max:>6.1} {:>6.1}",
            above[ROUNDS / 2]
        );
    }
    Ok(())
}

/// ns a run, as the kernel measures them.
fn run(program: &ProgramMut<'_>, packet: &[u8], repeat: u32) -> Result<f64> {
    let input = ProgramInput {
        data_in: Some(packet),
        repeat,
        ..Default::default()
    };
    let output = program.test_run(input)?;
    Ok(output.duration.as_nanos() as f64)
}

/// With the ticks for a clock, as at the default rates, and a limit that lets everything pass: that is
/// the longer way, because what exceeds is not charged.
fn load(object: &mut MaybeUninit<OpenObject>) -> Result<skeleton::NeighborSharingSkel<'_>> {
    let mut open = skeleton::NeighborSharingSkelBuilder::default().open(object)?;
    let knobs = open.maps.rodata_data.as_mut().context("no .rodata")?;
    knobs.units_per_tick = 4_000_000 * 16;
    let loaded = open.load()?;
    let bucket = [0, 1 << 10, 1 << 60, 0, 0, 0, 0, 0_u64]; // paid_until, cost, burst, padding
    let bucket: Vec<u8> = bucket.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for row in 0..4_u32 {
        loaded
            .maps
            .buckets
            .update(&row.to_ne_bytes(), &bucket, MapFlags::ANY)?;
    }
    let loopback = 1_u32.to_ne_bytes();
    let port = [0_u32, skeleton::types::class::NEIGHBOR.0, 100]; // index, class, quota
    let port: Vec<u8> = port.iter().flat_map(|word| word.to_ne_bytes()).collect();
    loaded.maps.ports.update(&loopback, &port, MapFlags::ANY)?;
    loaded
        .maps
        .free_slots
        .update(&[], &2_u32.to_ne_bytes(), MapFlags::ANY)?;
    Ok(loaded)
}

/// A 64 byte frame.
fn udp(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend([0x30, 0x39, 0, 9, 0, 30, 0, 0]);
    frame.resize(64, 0);
    frame
}
