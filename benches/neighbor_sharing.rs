//! What a packet costs in the programs of neighbor_sharing: `make bench`.

use std::mem::MaybeUninit;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use netbpf::neighbor_sharing::skeleton;

mod cost;

use cost::Case;

const NEIGHBOR: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 100);
const WAN: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 5);

fn main() -> Result<()> {
    let mut object = MaybeUninit::uninit();
    let sharing = load(&mut object)?;
    let programs = &sharing.progs;
    let download = cost::udp(WAN, NEIGHBOR);
    let unknown = cost::udp(WAN, Ipv4Addr::new(172, 16, 1, 250));
    let upload = cost::udp(NEIGHBOR, WAN);
    let arp = cost::arp();
    // The first packet makes the neighbor known; test packets come in by loopback, ifindex 1.
    cost::run(&programs.classify_neighbor, &upload, 1)?;
    let case = |name, program, packet| Case {
        name,
        program,
        packet,
    };
    cost::print(&[
        case(
            "classify_wan, neighbor, policed",
            &programs.classify_wan,
            &download,
        ),
        case(
            "classify_wan, unknown, policed",
            &programs.classify_wan,
            &unknown,
        ),
        case("classify_wan, ARP", &programs.classify_wan, &arp),
        case(
            "classify_neighbor, known source",
            &programs.classify_neighbor,
            &upload,
        ),
        case("police_upload, untagged", &programs.police_upload, &upload),
    ])
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
