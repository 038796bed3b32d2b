//! Output in epochs: what leaves an interface with a plug, packet by packet, and who is refused one.
//!
//! ```text
//! sandbox: frames -> up0 [plug] --- far0 -> capture
//! ```
//! Many kernels have no plug; `make check-kernels` runs this where there is one.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use netbpf::Failure;
use netbpf::netlink::{Change, Netlink};
use netbpf::tcp_hold::plug::Plug;
use testbed::namespace::Place;
use testbed::packet::Packet;
use testbed::traffic::{Capture, inject};
use testbed::{sandbox, skip, step};

const WITHIN: Duration = Duration::from_secs(20);
/// Bytes of each frame, and those of its headers: Ethernet, IPv4, UDP.
const FRAME: u64 = 142;
const HEADERS: u64 = 14 + 20 + 8;

/// Runs the body in a sandbox with up0 and far0, whose own packets are none.
fn between_two_ends(name: &str, body: impl FnOnce() + Send) {
    sandbox::run(name, |_| {
        let here = Place::here();
        let quiet = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        step(quiet, fs::write(quiet, "1"));
        here.ip("link add up0 type veth peer name far0");
        for end in ["up0", "far0"] {
            here.ip(&format!("link set {end} up"));
        }
        body();
        here.ip("link delete up0");
        step(quiet, fs::write(quiet, "0"));
    });
}

/// Whether the kernel has a plug; up0 has its own qdisc afterwards.
fn has_plug() -> bool {
    let mut tc = Command::new("tc");
    tc.args("qdisc add dev up0 root plug".split(' '));
    let made = step("run tc", tc.output()).status.success();
    if made {
        Place::here().tc("qdisc del dev up0 root");
    }
    made
}

/// The same where the kernel has a plug; elsewhere the test skips itself.
fn with_plugs(name: &'static str, body: impl FnOnce() + Send) {
    between_two_ends(name, || {
        if has_plug() {
            body();
        } else {
            skip(name, "this kernel has no plug qdisc (make check-kernels)");
        }
    });
}

fn frames(count: usize) {
    let frame = Packet::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv4([192, 0, 2, 1], [192, 0, 2, 2])
        .udp(7, 7)
        .payload_of((FRAME - HEADERS) as usize)
        .build();
    assert_eq!(frame.len() as u64, FRAME);
    let frames = std::iter::repeat_n(&frame[..], count);
    inject(&Place::here(), "up0", frames, Duration::ZERO);
}

fn capture() -> Capture {
    Capture::start(&Place::here(), "far0", WITHIN, |_| true)
}

fn put_in() -> Plug {
    step("put a plug in", Plug::put_in("up0"))
}

fn holds(plug: &mut Plug) -> (u32, u32) {
    step("what the plug holds", plug.holds())
}

/// The qdisc at the root of up0, as tc shows it.
fn root() -> String {
    Place::here().tc("qdisc show dev up0 root")
}

#[test]
fn packets_leave_with_the_epoch_after_theirs() {
    with_plugs("packets_leave_with_the_epoch_after_theirs", || {
        let capture = capture();
        let mut plug = put_in();
        frames(3);
        assert_eq!(holds(&mut plug), (3, 0));
        assert_eq!(capture.seen().count.packets, 0);
        step("an epoch", plug.next_epoch());
        capture.wait_for(3, WITHIN);
        // Those of the epoch that has begun stay.
        frames(2);
        assert_eq!(holds(&mut plug), (2, 0));
        step("an epoch", plug.next_epoch());
        capture.wait_for(5, WITHIN);
        // An epoch without any lets nothing of the next one go.
        step("an epoch", plug.next_epoch());
        frames(4);
        assert_eq!(holds(&mut plug), (4, 0));
        assert_eq!(step("take the plug out", plug.remove()), 0);
        assert_eq!(capture.finish().count.packets, 9);
        assert!(!root().contains("plug"), "{}", root());
    });
}

/// Whoever was killed has left what he held; it goes when somebody says so.
#[test]
fn a_plug_outlives_who_made_it_and_is_taken_over() {
    with_plugs("a_plug_outlives_who_made_it_and_is_taken_over", || {
        let capture = capture();
        drop(put_in());
        frames(5);
        assert_eq!(capture.seen().count.packets, 0);
        let mut plug = put_in();
        assert_eq!(holds(&mut plug), (5, 0));
        drop(plug);
        let mut plug = step("find it", Plug::find("up0"));
        step("an epoch", plug.next_epoch());
        capture.wait_for(5, WITHIN);
        assert_eq!(step("take the plug out", plug.remove()), 0);
    });
}

#[test]
fn what_a_plug_had_no_room_for_is_told() {
    with_plugs("what_a_plug_had_no_room_for_is_told", || {
        let capture = capture();
        let link = step("find up0", step("ask", Netlink::open()).link_named("up0"));
        let link = link.unwrap_or_else(|| panic!("no up0"));
        let small = Change::MakePlug {
            ifindex: link.ifindex,
            limit: 3 * FRAME as u32,
        };
        let [made] = step("make a plug", step("ask", Netlink::open()).change([small]));
        step("make a small plug", made);
        // A packet socket would be told of each that is dropped, and try again.
        let here = Place::here();
        here.ip("address add 192.0.2.1/24 dev up0");
        here.ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev up0");
        let sender = step("open a socket", UdpSocket::bind("192.0.2.1:7"));
        for _ in 0..5 {
            let length = sender.send_to(&[0; (FRAME - HEADERS) as usize], "192.0.2.2:7");
            step("send a datagram", length);
        }
        let mut plug = put_in();
        assert_eq!(holds(&mut plug), (3, 2));
        assert_eq!(step("take the plug out", plug.remove()), 2);
        capture.wait_for(3, WITHIN);
    });
}

/// Who is refused a plug, and with which exit code; everything is as before.
#[track_caller]
fn assert_refused(
    attempt: fn(&str) -> anyhow::Result<Plug>,
    interface: &str,
    code: u8,
    words: &str,
) {
    let before = root();
    let Err(error) = attempt(interface) else {
        panic!("nothing was refused: {}, then {}", before, root());
    };
    let failure = error.downcast_ref::<Failure>();
    assert_eq!(failure.map(Failure::code), Some(code), "{error:#}");
    assert!(error.to_string().contains(words), "{error:#}");
    assert_eq!(root(), before);
}

#[test]
fn somebodys_qdisc_is_left_alone() {
    between_two_ends("somebodys_qdisc_is_left_alone", || {
        Place::here().tc("qdisc add dev up0 root handle 7: pfifo limit 10");
        let words = "up0 has a qdisc of somebody's at its root, pfifo";
        assert_refused(Plug::put_in, "up0", 5, words);
        assert_refused(Plug::find, "up0", 5, words);
        assert!(root().contains("pfifo 7:"), "{}", root());
    });
}

#[test]
fn where_there_is_none_that_is_said() {
    between_two_ends("where_there_is_none_that_is_said", || {
        assert_refused(
            Plug::find,
            "up0",
            2,
            "up0 has no plug; 'plug up' puts one in",
        );
        assert_refused(Plug::find, "up9", 2, "there is no interface 'up9'");
        if !has_plug() {
            assert_refused(Plug::put_in, "up0", 4, "this kernel has no plug qdisc");
        }
    });
}
