//! What a packet costs in the programs of tunnel_monitor, and what two CPUs count on one flow: `make bench`.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Result, ensure};
use libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use netbpf::tunnel_monitor::{Monitor, Setup};
use testbed::packet::Packet;
use testbed::{cpus, joined};

mod cost;

use cost::Case;

const SCALING_ROUNDS: usize = 11;
const SCALING_REPEAT: i32 = 1_000_000;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn main() -> Result<()> {
    let mut object = MaybeUninit::uninit();
    let monitor = Monitor::load(&Setup::default(), &mut object)?;
    let programs = &monitor.skeleton().progs;
    let (ingress, egress) = (&programs.handle_ingress, &programs.handle_egress);
    let four = |inner: &[u8]| {
        let outer = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
        outer.udp(0xc001, 4789).payload(inner).build()
    };
    let six = |inner: &[u8]| {
        let ends = [0x2001_0db8_u128 << 96 | 2, 0x2001_0db8 << 96 | 1];
        let outer = Packet::ethernet(A, B).ipv6(ends[0], ends[1]);
        outer.udp(0xc001, 4789).payload(inner).build()
    };
    let inner4 = Packet::ethernet(A, B).ipv4([10, 0, 0, 2], [10, 0, 0, 1]);
    let inner4 = vxlan(&inner4.icmp(8, 0, [0; 4]).payload_of(56).build());
    let inner6 = Packet::ethernet(A, B).ipv6(0xfd << 120 | 2_u128, 0xfd << 120 | 1_u128);
    let inner6 = vxlan(&inner6.icmpv6(128, 0, [0; 4]).payload_of(56).build());
    let tcp = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
    let tcp = tcp.tcp(1000, 80).payload_of(1000).build();
    let dns = Packet::ethernet(A, B).ipv4([192, 0, 2, 2], [192, 0, 2, 1]);
    let dns = dns.udp(1000, 53).payload_of(50).build();
    let frames = [
        ("VXLAN, IPv4 in IPv4, ingress", ingress, four(&inner4)),
        ("VXLAN, IPv4 in IPv4, egress", egress, four(&inner4)),
        ("VXLAN, IPv6 in IPv4", ingress, four(&inner6)),
        ("VXLAN, IPv4 in IPv6", ingress, six(&inner4)),
        ("VXLAN, IPv6 in IPv6", ingress, six(&inner6)),
        ("TCP", ingress, tcp),
        ("other UDP", ingress, dns),
        ("ARP", ingress, cost::arp()),
    ];
    let cases: Vec<Case<'_>> = frames
        .iter()
        .map(|(name, program, packet)| Case {
            name,
            program,
            packet,
        })
        .collect();
    cost::print(&cases)?;
    ensure!(monitor.slots_used() == 5, "something else was measured");
    print_scaling(&monitor, &frames[0].2)
}

/// Packets of one flow that two CPUs count, against one.
fn print_scaling(monitor: &Monitor<'_>, frame: &[u8]) -> Result<()> {
    println!();
    let Some(cpus) = cpus::two() else {
        println!("two CPUs on one flow: there is one CPU only");
        return Ok(());
    };
    let program = monitor.skeleton().progs.handle_ingress.as_fd();
    let mut rates = Vec::new();
    for _ in 0..SCALING_ROUNDS {
        let alone = rate(program, frame, &cpus[..1])?;
        rates.push(rate(program, frame, &cpus)? / alone);
    }
    let rates = cost::sorted(rates);
    let [min, median, max] = [0, SCALING_ROUNDS / 2, SCALING_ROUNDS - 1].map(|it| rates[it]);
    println!("two CPUs on one flow, times the packets of one: {min:.2} {median:.2} {max:.2}");
    Ok(())
}

/// Packets a second, all CPUs together.
fn rate(program: BorrowedFd<'_>, frame: &[u8], cpus: &[usize]) -> Result<f64> {
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
                    run(program, frame)?;
                    Ok(f64::from(SCALING_REPEAT) / begin.elapsed().as_secs_f64())
                })
            })
            .collect();
        running.into_iter().map(joined).collect()
    });
    rates.into_iter().sum::<Result<f64>>()
}

/// libbpf-rs's programs stay in the thread that loaded them; their descriptors do not.
fn run(program: BorrowedFd<'_>, frame: &[u8]) -> Result<()> {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: SCALING_REPEAT,
        ..Default::default()
    };
    // SAFETY: an open descriptor; the options and the frame they point to outlive the call.
    let answer = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    ensure!(answer == 0, "run a program: error {answer}");
    Ok(())
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0x27, 0x10, 0], inner].concat()
}
