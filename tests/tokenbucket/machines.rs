//! Other machines in the program than the token bucket: port knocking, and whatever chance makes.

use std::net::Ipv4Addr;

use netbpf::tokenbucket::machine;
use testbed::packet::Packet;
use testbed::{long, sandbox, step};

use crate::frames::{A, B};
use crate::machine::{
    Action, Comparison, Condition, Facts, Known, LENGTHS, Machine, PORTS, PROTOCOLS, Row, Subject,
    Update,
};
use crate::model::{REGISTER_BITS, in_register};
use crate::rig::{self, Cell, DROP, NOW, PASS, Rig, SECOND, Setup, events, flow};
use crate::seed::Random;
use crate::times::of_any_size;

fn ethernet(host: u8) -> Packet {
    let source = Ipv4Addr::new(10, 0, 0, host);
    Packet::ethernet(A, B).ipv4(source, [192, 0, 2, 1])
}

/// From 10.0.0.`host`, with that destination port.
fn udp_to(host: u8, port: u16) -> Vec<u8> {
    ethernet(host).udp(40_000, port).payload_of(30).build()
}

fn tcp_to(host: u8, port: u16) -> Vec<u8> {
    ethernet(host).tcp(40_000, port).payload_of(10).build()
}

/// UDP to 7000, 8000 and 9000, each within five seconds of the one before, opens TCP port 22 to the
/// source, until it has not been used for 30 seconds.
fn knocking(flows: u32) -> Setup {
    let machine = step("read the machine", machine::Machine::port_knocking());
    Setup {
        machine: Some(step("compile the machine", machine.compile(false))),
        flows,
        ..Setup::default()
    }
}

/// Knocks of a host; they pass, whatever they are good for.
#[track_caller]
fn knock(rig: &Rig<'_>, host: u8, ports: &[u16]) {
    for port in ports {
        assert!(rig.passes(&udp_to(host, *port)), "a knock at {port}");
    }
}

#[track_caller]
fn assert_open(rig: &Rig<'_>, host: u8, open: bool) {
    assert_eq!(rig.passes(&tcp_to(host, 22)), open, "10.0.0.{host}");
}

#[test]
fn the_sequence_opens_the_port_to_its_source_alone() {
    const NAME: &str = "the_sequence_opens_the_port_to_its_source_alone";
    rig::run(NAME, knocking(8), |rig| {
        assert_open(rig, 1, false);
        for port in [7000, 8000, 9000] {
            assert_open(rig, 1, false);
            knock(rig, 1, &[port]);
            assert_open(rig, 2, false);
        }
        assert_open(rig, 1, true);
        assert_open(rig, 1, true);
        // What another one does in between is nothing to it, nor the other way round.
        for (host, port) in [(2, 7000), (3, 7000), (2, 8000), (3, 9000), (2, 9000)] {
            knock(rig, host, &[port]);
        }
        for (host, open) in [(1, true), (2, true), (3, false)] {
            assert_open(rig, host, open);
        }
    });
}

#[test]
fn wrong_knocks_begin_from_the_beginning() {
    rig::run(
        "wrong_knocks_begin_from_the_beginning",
        knocking(64),
        |rig| {
            for (host, ports) in (1..).zip([
                &[][..],
                &[7000],
                &[7000, 8000],
                &[8000, 9000],
                &[9000, 8000, 7000],
                &[7000, 9000, 8000],
                &[7000, 9000, 8000, 9000],
                &[7000, 8000, 8000, 9000],
                &[7000, 8000, 7000, 9000],
            ]) {
                knock(rig, host, ports);
                assert_open(rig, host, false);
                knock(rig, host, &[7000, 8000, 9000]);
                assert_open(rig, host, true);
            }
            // The first knock again begins again.
            knock(rig, 60, &[7000, 7000, 8000, 7000, 8000, 9000]);
            assert_open(rig, 60, true);
            // TCP and what has no ports is no knock.
            for port in [7000, 8000, 9000] {
                assert!(rig.passes(&tcp_to(61, port)));
            }
            assert_open(rig, 61, false);
            let ping = ethernet(62).icmp(8, 0, [0; 4]).payload_of(30).build();
            for port in [7000, 8000, 9000] {
                assert!(rig.passes(&ping));
                knock(rig, 62, &[port]);
            }
            assert_open(rig, 62, true);
        },
    );
}

#[test]
fn knocks_and_open_ports_time_out() {
    rig::run("knocks_and_open_ports_time_out", knocking(8), |rig| {
        for (host, pause, opens) in [(1, 5 * SECOND, true), (2, 5 * SECOND + 1, false)] {
            for late in [8000, 9000] {
                // Long after whatever was before.
                let mut now = NOW + u64::from(late) * SECOND;
                for port in [7000, 8000, 9000] {
                    now += if port == late { pause } else { 0 };
                    rig.set_now(now);
                    knock(rig, host, &[port]);
                }
                assert_open(rig, host, opens);
            }
        }
        // Each packet to the open port keeps it so, what goes elsewhere does not.
        let mut now = NOW;
        rig.set_now(now);
        knock(rig, 3, &[7000, 8000, 9000]);
        for _ in 0..3 {
            now += 30 * SECOND;
            rig.set_now(now);
            assert_open(rig, 3, true);
        }
        for seconds in [10, 20] {
            rig.set_now(now + seconds * SECOND);
            assert!(rig.passes(&tcp_to(3, 80)));
        }
        rig.set_now(now + 30 * SECOND + 1);
        assert_open(rig, 3, false);
    });
}

/// Scanners have no place in the table: who does not knock is no flow.
#[test]
fn who_does_not_knock_takes_no_room() {
    rig::run("who_does_not_knock_takes_no_room", knocking(2), |rig| {
        let mut expected = events::default();
        for host in 1..=250 {
            for port in [1, 21, 22, 23, 7000, 65_535] {
                let frame = tcp_to(host, port);
                let opens = port != 22;
                assert_eq!(rig.passes(&frame), opens, "TCP port {port}");
                let meter = match opens {
                    true => &mut expected.passed,
                    false => &mut expected.dropped,
                };
                meter.packets += 1;
                meter.bytes += frame.len() as u64;
                // The table of the machine says nothing about other ports.
                expected.no_row += u64::from(opens);
            }
        }
        assert!(rig.flows().is_empty());
        rig.assert_events(expected);
        knock(rig, 1, &[7000, 8000, 9000]);
        assert_open(rig, 1, true);
        assert_eq!(rig.take_events().flows, 1);
    });
}

/// Who finds no room stays outside: a shared cell would be opened by others' knocks.
#[test]
fn a_full_table_opens_to_nobody() {
    rig::run("a_full_table_opens_to_nobody", knocking(2), |rig| {
        knock(rig, 1, &[7000, 8000, 9000]);
        knock(rig, 2, &[7000, 8000]);
        rig.take_events();
        for host in 3..=250 {
            knock(rig, host, &[7000, 8000, 9000]);
            assert_open(rig, host, false);
        }
        assert_open(rig, 1, true);
        assert_open(rig, 2, false);
        knock(rig, 2, &[9000]);
        assert_open(rig, 2, true);
        let counted = rig.take_events();
        // The first knock of each would have been remembered.
        assert_eq!((counted.flows, counted.overflowed), (0, 248));
        assert_eq!(
            rig.overflow_cells(),
            vec![Cell::default(); rig.overflow_cells().len()]
        );
        // Others pass as before.
        assert!(rig.passes(&tcp_to(3, 80)));
    });
}

/// A register that says when a flow was first seen: it is known from its first packet on, though that
/// changes neither its state nor its register.
#[test]
fn the_first_packet_is_remembered() {
    let mut machine = Machine {
        conditions: vec![Condition::new(
            Subject::Age,
            Comparison::LessOrEqual,
            10 * SECOND as i64,
        )],
        updates: vec![Update {
            from_now: false,
            figure: 0,
        }],
        initial: 1,
        forget: 3600 * SECOND as i64,
        ..Machine::default()
    };
    // Ten seconds of everything, and nothing more.
    for (conditions, action) in [(1, Action::Forward), (0, Action::Discard)] {
        let row = Row {
            next: 1,
            action,
            update: 0,
        };
        machine.rows.insert((1, conditions), row);
    }
    let setup = Setup {
        machine: Some((&machine).into()),
        ..Setup::default()
    };
    rig::run("the_first_packet_is_remembered", setup, |rig| {
        for (seconds, passes) in [(0, true), (5, true), (10, true), (11, false)] {
            rig.set_now(NOW + seconds * SECOND);
            assert_eq!(rig.passes(&tcp_to(1, 80)), passes, "after {seconds} s");
        }
    });
}

/// A packet that such a machine looks at.
struct Sample {
    host: u8,
    frame: Vec<u8>,
    protocol: u8,
    port: i32,
}

fn any_packet(random: &mut Random) -> Sample {
    let host = random.below(20) as u8;
    let protocol = PROTOCOLS[random.below(3) as usize];
    let port = random.below(PORTS - 1) as u16;
    let packet = ethernet(host);
    let (packet, port) = match protocol {
        6 => (packet.tcp(40_000, port), port.into()),
        17 => (packet.udp(40_000, port), port.into()),
        _ => (packet.icmp(8, 0, [0; 4]), -1),
    };
    Sample {
        host,
        frame: packet
            .payload_of(30 + random.below(LENGTHS - 100) as usize)
            .build(),
        protocol,
        port,
    }
}

#[test]
fn any_machine_in_the_program_does_as_its_table_says() {
    const NAME: &str = "any_machine_in_the_program_does_as_its_table_says";
    let long = long(NAME, "10 of 100 machines");
    let mut random = Random::new(NAME, long);
    sandbox::run(NAME, |_| {
        for _ in 0..if long { 100 } else { 10 } {
            // State 0 with register 0 is how a cell says that it is nobody's.
            let machine = Machine::random(&mut random, 1);
            let setup = Setup {
                machine: Some((&machine).into()),
                ..Setup::default()
            };
            rig::with(setup, |rig| play(rig, &machine, &mut random));
        }
    });
}

fn play(rig: &mut Rig<'_>, machine: &Machine, random: &mut Random) {
    let mut flows: Vec<Option<Known>> = vec![None; 20];
    let mut counted = events::default();
    let pause = of_any_size(random, 1, 1 << 37);
    let mut now = NOW;
    for _ in 0..2000 {
        let packet = any_packet(random);
        now += random.below(pause);
        rig.set_now(now);
        let facts = Facts {
            now: now.into(),
            protocol: packet.protocol.into(),
            port: packet.port,
            length: packet.frame.len() as i32,
        };
        let flow = &mut flows[usize::from(packet.host)];
        let known = flow.unwrap_or_else(|| machine.new_flow(now.into()));
        let (action, next) = machine.step(known, &facts);
        // What leaves a flow as it is new needs no place, where a new one is as old as flows get.
        let stays_new = next == known && -machine.fresh >= machine.forget;
        let is_entered = flow.is_none() && action != Action::NoRow && !stays_new;
        counted.flows += u64::from(is_entered);
        *flow = (flow.is_some() || is_entered).then_some(next);
        let expected = if action == Action::Discard {
            DROP
        } else {
            PASS
        };
        assert_eq!(
            rig.verdict(&packet.frame),
            expected,
            "{known:?} at {now}: {machine:?}"
        );
        counted.no_row += u64::from(action == Action::NoRow);
        let meter = match expected {
            PASS => &mut counted.passed,
            _ => &mut counted.dropped,
        };
        meter.packets += 1;
        meter.bytes += packet.frame.len() as u64;
    }
    rig.assert_events(counted);
    for (host, known) in (0..).zip(flows) {
        let word = known
            .map(|known| u64::from(known.state) << REGISTER_BITS | in_register(known.register));
        let cell = rig.cell_of(&flow([10, 0, 0, host]));
        assert_eq!(
            cell.map(|cell| cell.word),
            word,
            "10.0.0.{host}: {machine:?}"
        );
    }
}
