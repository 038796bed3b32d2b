//! What a packet costs in the program of tokenbucket, and how long a report takes: `make bench`.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Map, MapCore, MapFlags, MapHandle, OpenObject};
use netbpf::tokenbucket::{Maps, Reporter, Sweeper, skeleton};

mod cost;
mod find {
    include!(concat!(env!("OUT_DIR"), "/tokenbucket_find.skel.rs"));
}

use cost::Case;

const SENDER: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 100);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 5);
/// Keys of one run of find_many.
const KEYS: f64 = 1024.0;
/// The first cell that is a flow's own.
const OVERFLOW_CELLS: u32 = 4096;
const ETH_P_IP: u16 = 0x0800;

fn main() -> Result<()> {
    print_costs()?;
    print_look_ups()
}

fn print_costs() -> Result<()> {
    let mut objects = [const { MaybeUninit::uninit() }; 4];
    let [first, second, third, fourth] = &mut objects;
    // A token that regenerates in no time: everything passes, and is charged.
    let (coarse, precise) = (4_000_000, 0);
    let forwarding = load(first, coarse, 0)?;
    let dropping = load(second, coarse, 1_000_000_000)?;
    let forwarding_precisely = load(third, precise, 0)?;
    let dropping_precisely = load(fourth, precise, 1_000_000_000)?;
    let packet = cost::udp(SENDER, RECEIVER);
    let arp = cost::arp();
    let case = |name, program, packet| Case {
        name,
        program,
        packet,
    };
    cost::print(&[
        case(
            "tokenbucket, forward, coarse clock",
            &forwarding.progs.tokenbucket,
            &packet,
        ),
        case(
            "tokenbucket, drop, coarse clock",
            &dropping.progs.tokenbucket,
            &packet,
        ),
        case(
            "tokenbucket, forward, precise clock",
            &forwarding_precisely.progs.tokenbucket,
            &packet,
        ),
        case(
            "tokenbucket, drop, precise clock",
            &dropping_precisely.progs.tokenbucket,
            &packet,
        ),
        case("tokenbucket, ARP", &dropping.progs.tokenbucket, &arp),
    ])
}

fn load(
    object: &mut MaybeUninit<OpenObject>,
    ns_per_tick: u64,
    regeneration: i64,
) -> Result<skeleton::TokenbucketSkel<'_>> {
    let mut open = skeleton::TokenbucketSkelBuilder::default().open(object)?;
    let data = open.maps.data_data.as_mut().context("no .data")?;
    let [rule, _] = &mut data.rulebook.rules;
    rule.ns_per_tick = ns_per_tick;
    rule.xfsm.updates[0] = regeneration;
    Ok(open.load()?)
}

/// A flow found in a small table and in a large one, each time another one, and the report of them all.
/// Of a million that all send, next to none is in the CPU's cache when its packet comes.
fn print_look_ups() -> Result<()> {
    println!();
    println!("a flow in a table of so many, by how many of them send:");
    for (flows, senders) in [
        (1_000, [1_000].as_slice()),
        (1_000_000, &[1_000, 1_000_000]),
    ] {
        let mut object = MaybeUninit::uninit();
        let mut loaded = load_find(&mut object, flows)?;
        fill(&loaded.maps.state_table, flows)?;
        let report = time_report(&loaded)?;
        figure(&format!("all {flows} reported, ms"), report);
        for senders in senders {
            let data = loaded.maps.data_data.as_mut().context("no .data")?;
            data.flows = *senders;
            let find = time_find(&loaded)?;
            figure(&format!("one of {senders} found among {flows}, ns"), find);
        }
    }
    Ok(())
}

fn figure(what: &str, value: f64) {
    println!("{what:<46} {value:>7.1}");
}

fn load_find(
    object: &mut MaybeUninit<OpenObject>,
    flows: u32,
) -> Result<find::TokenbucketFindSkel<'_>> {
    let mut open = find::TokenbucketFindSkelBuilder::default().open(object)?;
    open.maps.state_table.set_max_entries(flows)?;
    open.maps.free_cells.set_max_entries(flows)?;
    open.maps.cells.set_max_entries(OVERFLOW_CELLS + flows)?;
    let rodata = open.maps.rodata_data.as_mut().context("no .rodata")?;
    rodata.knobs.flows = flows;
    Ok(open.load()?)
}

/// ns, what the loop around it costs taken off.
fn time_find(loaded: &find::TokenbucketFindSkel<'_>) -> Result<f64> {
    let packet = cost::udp(SENDER, RECEIVER);
    let mut times = Vec::new();
    for _ in 0..9 {
        let with = cost::run(&loaded.progs.find_many, &packet, 1000)?;
        let without = cost::run(&loaded.progs.find_none, &packet, 1000)?;
        times.push((with - without) / KEYS);
    }
    Ok(cost::sorted(times)[4])
}

/// ms to list all flows and to find the top 20.
fn time_report(loaded: &find::TokenbucketFindSkel<'_>) -> Result<f64> {
    let maps = &loaded.maps;
    let handles = [
        &maps.state_table,
        &maps.wide_state_table,
        &maps.cells,
        &maps.cells_taken,
        &maps.free_cells,
        &maps.events,
        &maps.rodata,
        &maps.data,
    ];
    let handles = handles.into_iter().map(MapHandle::try_from);
    let maps = Maps::among(handles.collect::<libbpf_rs::Result<_>>()?)?;
    let sweeper = Sweeper::new(&maps)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut reporter = Reporter::new(true);
        let started = Instant::now();
        reporter.take(&maps, &sweeper, true)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(cost::sorted(times)[2])
}

fn fill(table: &Map<'_>, flows: u32) -> Result<()> {
    for source in 0..flows {
        // struct flow_key: EtherType, protocol, a zero, address.
        let mut key = [0; 12];
        key[..2].copy_from_slice(&ETH_P_IP.to_be_bytes());
        key[4..8].copy_from_slice(&source.to_ne_bytes());
        let cell = (OVERFLOW_CELLS + source).to_ne_bytes();
        table.update(&key, &cell, MapFlags::ANY)?;
    }
    Ok(())
}
