//! What a frame costs in the programs of vlan_learning, and how much TCP goes through them: `make bench`.
//!
//! BPF_PROG_TEST_RUN knows no tags, so a wrapper puts them on and takes them off; what the wrapper costs
//! with an empty program in the place of ours is taken off.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput, ProgramMut};
use netbpf::vlan_learning::skeleton::{VlanLearningSkel, VlanLearningSkelBuilder};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::sandbox::{self, Sandbox};
use testbed::traffic::{Window, tcp};

#[expect(
    dead_code,
    reason = "the other benchmarks' table; here figures are subtracted"
)]
mod cost;
mod wrapper {
    include!(concat!(env!("OUT_DIR"), "/vlan_cost.skel.rs"));
}
mod baseline {
    include!(concat!(env!("OUT_DIR"), "/baseline.skel.rs"));
}

use cost::{run, sorted};

const ROUNDS: usize = 21;
const REPEAT: u32 = 1_000_000;
const TRANSFERS: usize = 5;
/// Frames of a test run come from here, lo.
const IFINDEX: u32 = 1;
const CLIENT: u64 = 0x0200_0000_0002;
/// TC_ACT_REDIRECT.
const REDIRECT: u32 = 7;
/// `IS_TAGGED | LISTED | 5` of the BPF program.
const TAGS: u64 = 1 << 32 | 1 << 36 | 5;

fn main() -> Result<()> {
    print_costs()?;
    sandbox::run("throughput", print_throughput);
    Ok(())
}

/// One TCP connection from a client to its worker, default offloads, MTU 1500, beside one over a bridge.
fn print_throughput(sandbox: &Sandbox) {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_vlan_learning"));
    tool.args(["--clients", "1", "--workers", "1"]);
    let mut tool = sandbox.start(tool);
    tool.wait_for("Serving HTTP", Duration::from_secs(30));
    let here = Place::here();
    let (one, other) = (Namespace::new("one"), Namespace::new("other"));
    let _cables = [(&one, "one-port"), (&other, "other-port")]
        .map(|(host, port)| Veth::new((&here, port), (host, "eth0")));
    here.ip("link add br9 type bridge");
    for (place, words) in [
        (&here, "link set br9 up"),
        (&here, "link set one-port master br9 up"),
        (&here, "link set other-port master br9 up"),
        (&*one, "address add 192.0.2.1/24 dev eth0"),
        (&*other, "address add 192.0.2.2/24 dev eth0"),
    ] {
        place.ip(words);
    }
    let window = Window {
        settle: Duration::from_millis(500),
        measure: Duration::from_secs(2),
    };
    let (client, worker) = (Place::named("client0"), Place::named("worker0"));
    let (through, over) = ([172, 16, 1, 5].into(), [192, 0, 2, 2].into());
    let (mut demuxed, mut bridged) = (Vec::new(), Vec::new());
    for _ in 0..TRANSFERS {
        demuxed.push(tcp(&client, &worker, through, window) / 1e6);
        bridged.push(tcp(&one, &other, over, window) / 1e6);
    }
    let ratios = demuxed.iter().zip(&bridged).map(|(one, other)| one / other);
    let ratios = sorted(ratios.collect());
    println!();
    println!("TCP, Gbit/s of payload, {TRANSFERS} rounds: min, median, max");
    for (name, rates) in [
        ("client to worker", sorted(demuxed)),
        ("host to host over a bridge", sorted(bridged)),
        ("ratio, paired", ratios),
    ] {
        let [min, median, max] = [0, TRANSFERS / 2, TRANSFERS - 1].map(|place| rates[place]);
        println!("{name:<36} {min:>6.2} {median:>6.2} {max:>6.2}");
    }
    here.ip("link delete br9");
    tool.write("\n");
    tool.finish(Duration::from_secs(10)).assert_code(0);
}

fn print_costs() -> Result<()> {
    let mut objects = [const { MaybeUninit::uninit() }; 3];
    let [first, second, third] = &mut objects;
    let wrapper = wrapper::VlanCostSkelBuilder::default()
        .open(first)?
        .load()?;
    let baseline = baseline::BaselineSkelBuilder::default()
        .open(second)?
        .load()?;
    let demux = load(third)?;
    let from = std::net::Ipv4Addr::LOCALHOST;
    // Source 02:00:00:00:00:02, as cost::udp makes it; the other way round for the way back.
    let up = cost::udp(from, from);
    let mut down = up.clone();
    let (destination, source) = down.split_at_mut(6);
    destination.swap_with_slice(&mut source[..6]);

    let put = |program: &ProgramMut<'_>| -> Result<()> {
        let fd = program.as_fd().as_raw_fd().to_ne_bytes();
        Ok(wrapper.maps.target.update(&[0; 4], &fd, MapFlags::ANY)?)
    };
    let programs = &wrapper.progs;
    let mut to_worker = Vec::new();
    let mut to_trunk = Vec::new();
    for (ours, wrapped, frame) in [
        (&demux.progs.to_worker, &programs.tagged_before, &up),
        (&demux.progs.to_trunk, &programs.untagged_after, &down),
    ] {
        put(ours)?;
        let input = ProgramInput {
            data_in: Some(frame),
            ..Default::default()
        };
        let verdict = wrapped.test_run(input)?.return_value;
        ensure!(
            verdict == REDIRECT,
            "verdict {verdict}, so something else is measured"
        );
    }
    for _ in 0..ROUNDS {
        put(&baseline.progs.empty)?;
        let once = run(&programs.tagged_once, &up, REPEAT)?;
        let twice = run(&programs.tagged_twice, &up, REPEAT)?;
        let tag = twice - once; // on and off
        put(&demux.progs.to_worker)?;
        // The wrapper's push is in both, our pop and its pop are not.
        to_worker.push(run(&programs.tagged_before, &up, REPEAT)? - once + tag / 2.0);
        put(&demux.progs.to_trunk)?;
        to_trunk.push(run(&programs.untagged_after, &down, REPEAT)? - once + tag / 2.0);
    }
    println!(
        "ns a frame above an empty program, {ROUNDS} rounds of {REPEAT}, tags and redirect included"
    );
    println!(
        "{:<36} {:>6} {:>6} {:>6}",
        "program", "min", "median", "max"
    );
    for (name, times) in [("to_worker", to_worker), ("to_trunk", to_trunk)] {
        let times = sorted(times);
        let (min, median, max) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
        println!("{name:<36} {min:>6.1} {median:>6.1} {max:>6.1}");
    }
    Ok(())
}

/// With one client, whose worker is where test runs come from.
fn load(object: &mut MaybeUninit<OpenObject>) -> Result<VlanLearningSkel<'_>> {
    let loaded = VlanLearningSkelBuilder::default().open(object)?.load()?;
    let maps = &loaded.maps;
    let mut row = [0; 64];
    row[..8].copy_from_slice(&(CLIENT << 16).to_ne_bytes());
    maps.directory.update(&[0; 4], &row, MapFlags::ANY)?;
    let mut client = [0; 64];
    client[..8].copy_from_slice(&TAGS.to_ne_bytes());
    client[32..36].copy_from_slice(&IFINDEX.to_ne_bytes());
    maps.clients.update(&[0; 4], &client, MapFlags::ANY)?;
    Ok(loaded)
}
