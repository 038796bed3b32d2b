//! A line through an interface of the sandbox, for tools that limit or redirect what passes there.
//!
//! ```text
//!    sender            sandbox            receiver
//!  192.0.2.1        +-----------+        192.0.2.2
//!  2001:db8::1  ----| wan0 lan0 |----  2001:db8::2
//!         eth0      +--- br7 ---+      eth0
//! ```
//!
//! A bridge passes frames on whatever source or tag they have. So what the sender sends, and the tool at
//! wan0 lets through, arrives.

use crate::namespace::{Namespace, Place, Veth};
use crate::packet::{Mac, Packet};
use crate::traffic::{Capture, Seen, inject, reaches};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The sender's addresses.
pub const SENDER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), ipv6(1));
/// The receiver's.
pub const RECEIVER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 2), ipv6(2));
/// Addresses that nobody has: what is sent to them arrives and is not answered.
pub const NOBODY: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 99), ipv6(99));

const fn ipv6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

/// How long the bridge may take to pass packets on, once its ports have carrier.
const OPENS_WITHIN: Duration = Duration::from_secs(5);
/// And then for one packet.
const PASSES_WITHIN: Duration = Duration::from_secs(5);
/// Captures end by themselves if the test does not end them.
const AT_MOST: Duration = Duration::from_secs(120);

/// The sender, the receiver and what is between them; goes when dropped.
#[derive(Debug)]
pub struct Line {
    // Interfaces go before the namespaces that their far ends are in.
    _cables: [Veth; 2],
    _bridge: Bridge,
    /// Of the sender and of the receiver.
    macs: [Mac; 2],
    /// Behind wan0.
    pub sender: Namespace,
    /// Behind lan0.
    pub receiver: Namespace,
}

/// A bridge, up: it passes on whatever comes in by its ports. Goes when dropped.
#[derive(Debug)]
pub struct Bridge {
    name: &'static str,
}

impl Bridge {
    /// A new one, without ports.
    pub fn new(name: &'static str) -> Bridge {
        // Without snooping it does not ask who listens to which group.
        Place::here().ip(&format!("link add {name} type bridge mcast_snooping 0"));
        Place::here().ip(&format!("link set {name} up"));
        Bridge { name }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // What stays, the comparison at the end of the sandbox finds.
        let words = ["link", "delete", self.name];
        let _ = Place::here().command("ip").args(words).output();
    }
}

impl Line {
    /// In place, and passing packets on.
    pub fn new() -> Line {
        let here = Place::here();
        let bridge = Bridge::new("br7");
        let sender = Namespace::new("sender");
        let receiver = Namespace::new("receiver");
        let ends = [("wan0", &sender, SENDER), ("lan0", &receiver, RECEIVER)];
        let cables = ends.map(|(port, far, (ipv4, ipv6))| {
            let cable = Veth::new((&here, port), (far, "eth0"));
            far.ip(&format!("address add {ipv4}/24 dev eth0"));
            far.ip(&format!("address add {ipv6}/64 dev eth0"));
            here.ip(&format!("link set {port} master br7"));
            cable
        });
        let line = Line {
            _cables: cables,
            _bridge: bridge,
            macs: [&sender, &receiver].map(|host| host.mac("eth0")),
            sender,
            receiver,
        };
        let deadline = Instant::now() + OPENS_WITHIN;
        while !reaches(&line.sender, RECEIVER.0.into()) {
            assert!(Instant::now() < deadline, "the line is dead");
        }
        line
    }

    /// The beginning of a frame from the sender to the receiver.
    pub fn frame(&self) -> Packet {
        let [sender, receiver] = self.macs;
        Packet::ethernet(sender, receiver)
    }

    /// The beginning of a frame the other way.
    pub fn frame_back(&self) -> Packet {
        let [sender, receiver] = self.macs;
        Packet::ethernet(receiver, sender)
    }

    /// What arrives at the receiver from now on.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::between(&self.sender, &self.receiver, self.frame())
    }

    /// What arrives at the sender from now on.
    pub fn arrivals_back(&self) -> Arrivals {
        Arrivals::between(&self.receiver, &self.sender, self.frame_back())
    }
}

impl Default for Line {
    fn default() -> Line {
        Line::new()
    }
}

/// A UDP datagram to nobody, from whatever source it is to claim.
pub fn datagram(frame: Packet, source: IpAddr) -> Packet {
    let packet = match source {
        IpAddr::V4(source) => frame.ipv4(source, NOBODY.0),
        IpAddr::V6(source) => frame.ipv6(source, NOBODY.1),
    };
    packet.udp(9, 9).payload_of(22)
}

/// IP packets that arrive, by their source; not those of link-local ones, which keep the network going.
pub struct Arrivals {
    capture: Capture,
    tally: Arc<Tally>,
    from: Place,
    last: Vec<u8>,
}

#[derive(Default)]
struct Tally {
    sources: Mutex<BTreeMap<IpAddr, u64>>,
    last_came: AtomicBool,
}

impl Arrivals {
    fn between(from: &Place, to: &Place, frame: Packet) -> Arrivals {
        let last = frame.payload(b"no more of them").build();
        let tally = Arc::new(Tally::default());
        let (counted, awaited) = (tally.clone(), last.clone());
        let count = move |frame: &[u8]| {
            if frame == awaited {
                counted.last_came.store(true, Ordering::Release);
            }
            let source = source_of(frame).filter(|source| !is_link_local(*source));
            if let Some(source) = source {
                let mut sources = counted
                    .sources
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *sources.entry(source).or_default() += 1;
            }
            source.is_some()
        };
        Arrivals {
            capture: Capture::start(to, "eth0", AT_MOST, count),
            tally,
            from: from.clone(),
            last,
        }
    }

    /// Packets as the kernel hands them over, by source, and what they are on the wire. Those that are
    /// on their way are waited for, by a frame behind them that is not IP.
    pub fn finish(self) -> (BTreeMap<IpAddr, u64>, Seen) {
        inject(&self.from, "eth0", [self.last.as_slice()], Duration::ZERO);
        let deadline = Instant::now() + PASSES_WITHIN;
        while !self.tally.last_came.load(Ordering::Acquire) {
            assert!(Instant::now() < deadline, "not even the last frame came");
            sleep(Duration::from_millis(1));
        }
        let seen = self.capture.finish();
        let sources = self.tally.sources.lock();
        (
            sources.unwrap_or_else(PoisonError::into_inner).clone(),
            seen,
        )
    }
}

/// The source of an IP packet behind any number of tags.
fn source_of(frame: &[u8]) -> Option<IpAddr> {
    let mut rest = frame.get(12..)?;
    loop {
        let (ether_type, next) = rest.split_first_chunk()?;
        match ether_type {
            [0x81, 0x00] | [0x88, 0xa8] => rest = next.get(2..)?,
            [0x08, 0x00] => return Some(next.get(12..)?.first_chunk::<4>().copied()?.into()),
            [0x86, 0xdd] => return Some(next.get(8..)?.first_chunk::<16>().copied()?.into()),
            _ => return None,
        }
    }
}

/// Unspecified is the source of who asks whether somebody has his address already, for example.
fn is_link_local(source: IpAddr) -> bool {
    source.is_unspecified()
        || match source {
            IpAddr::V4(source) => source.is_link_local(),
            IpAddr::V6(source) => source.is_unicast_link_local(),
        }
}

/// How many packets of a source arrived.
pub fn of(arrived: &BTreeMap<IpAddr, u64>, source: impl Into<IpAddr>) -> u64 {
    arrived.get(&source.into()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox;

    #[test]
    fn whatever_is_sent_arrives() {
        sandbox::run("whatever_is_sent_arrives", |_| {
            let line = Line::new();
            let (there, back) = (line.arrivals(), line.arrivals_back());
            let source = Ipv4Addr::new(10, 0, 0, 1).into();
            let other = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1).into();
            let frames = [
                datagram(line.frame(), source).build(),
                datagram(line.frame().vlan(7), source).build(),
                datagram(line.frame().service_vlan(8).vlan(7), source).build(),
                datagram(line.frame(), other).build(),
            ];
            let frames = frames.iter().map(Vec::as_slice);
            inject(&line.sender, "eth0", frames, Duration::ZERO);
            let frame = datagram(line.frame_back(), source).build();
            inject(&line.receiver, "eth0", [frame.as_slice()], Duration::ZERO);
            let (arrived, seen) = there.finish();
            assert_eq!(arrived, BTreeMap::from([(source, 3), (other, 1)]));
            assert_eq!(seen.count.packets, 4);
            assert_eq!(back.finish().0, BTreeMap::from([(source, 1)]));
        });
    }
}
