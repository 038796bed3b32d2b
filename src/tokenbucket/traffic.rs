//! The senders of the simulation: pings and UDP at a fixed pace each, and how many of them arrived. No
//! other program takes part.
//!
//! A socket stays in the namespace in which it was opened, so only opening it takes that namespace and
//! privileges. The thread that sends and counts afterwards holds no capability.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use netsetup::namespace;
use netsetup::topology::tokenbucket::{Host, Network};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
    recv, send, socket,
};
use nix::sys::time::TimeSpec;

use crate::privilege::{self, Scope};

/// What the senders send, one after the other, and how often a second.
const SENDERS: [(What, u32); 3] = [(What::Ping, 1), (What::Ping, 5), (What::Udp, 20)];
/// Bytes behind the ICMP or UDP header, as many as ping sends unless told otherwise.
const PAYLOAD: usize = 56;
/// Room for a packet as a socket hands it out, with the longest IPv4 header. A packet that fills it may
/// have been cut, and has another length than ours.
const BUFFER: usize = 256;
/// Packets taken from a socket before anything else is looked at.
const AT_ONCE: usize = 64;
/// How long the last packets may take; on this network they take microseconds.
const LAST_ARRIVE_WITHIN: Duration = Duration::from_millis(100);
/// So many packets of a sender may be on their way; one that was sent before them is lost.
const UNDERWAY: usize = 256;

const IPPROTO_ICMP: u8 = 1;
/// RFC 792 and RFC 4443, 4.
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_6: u8 = 128;
const ECHO_REPLY_6: u8 = 129;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ping,
    Udp,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Ping => "ping",
            What::Udp => "UDP",
        }
    }
}

/// What one sender has sent, and what of it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// Its namespace.
    pub sender: String,
    /// `ping`, of which the reply counts, or `UDP`, of which the datagram itself does.
    pub what: &'static str,
    /// Its pace, packets a second.
    pub per_second: f64,
    /// Its address.
    pub source: IpAddr,
    /// Packets sent.
    pub sent: u64,
    /// Those that arrived, each counted once.
    pub arrived: u64,
    /// From the first packet sent to the last one.
    pub span: Duration,
}

/// The senders at work. Dropping it ends them; until then their sockets keep the namespaces, so it is
/// to go before the network does.
#[derive(Debug)]
pub struct Traffic {
    senders: Vec<Sender>,
    /// Closing it is what ends the threads.
    running: Option<PipeWriter>,
}

#[derive(Debug)]
struct Sender {
    host: Host,
    what: What,
    per_second: u32,
    source: IpAddr,
    counts: Arc<Mutex<Counts>>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    arrived: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Why its thread has ended before its time.
    failure: Option<String>,
}

impl Traffic {
    /// Starts the senders of the network, over IPv4.
    pub fn start(network: &Network) -> Result<Traffic> {
        Traffic::between(network, |host| host.ipv4.into())
    }

    /// Starts them over IPv6.
    pub fn start_over_ipv6(network: &Network) -> Result<Traffic> {
        Traffic::between(network, |host| host.ipv6.into())
    }

    fn between(network: &Network, address: impl Fn(&Host) -> IpAddr) -> Result<Traffic> {
        let receiver = network.receiver();
        let (ending, running) = io::pipe().context("make a pipe")?;
        let ending = Arc::new(ending);
        let mut traffic = Traffic {
            senders: Vec::new(),
            running: Some(running),
        };
        for (host, (what, per_second)) in network.senders().iter().zip(SENDERS) {
            let (source, destination) = (address(host), address(receiver));
            let sockets = match what {
                What::Ping => Sockets::ping((host, source), destination),
                What::Udp => Sockets::udp((host, source), (receiver, destination)),
            };
            let counts = Arc::<Mutex<Counts>>::default();
            let flow = Flow {
                sockets: sockets?,
                period: Duration::from_secs(1) / per_second,
                next: 0,
                underway: Underway::default(),
                counts: Arc::clone(&counts),
                ending: Arc::clone(&ending),
            };
            let thread = thread::Builder::new()
                .name(host.namespace.clone())
                .spawn(|| flow.run())
                .context("start a thread")?;
            traffic.senders.push(Sender {
                host: host.clone(),
                what,
                per_second,
                source,
                counts,
                thread: Some(thread),
            });
        }
        Ok(traffic)
    }

    /// A tally for each sender. An error if one of them could not go on.
    pub fn so_far(&self) -> Result<Vec<Tally>> {
        self.senders.iter().map(Sender::tally).collect()
    }

    /// Ends the senders, after a moment in which the last packets may arrive, and closes their sockets.
    pub fn stop(mut self) -> Result<Vec<Tally>> {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.running = None;
        for sender in &mut self.senders {
            let ended = sender.thread.take().map(JoinHandle::join);
            if let Some(Err(_)) = ended {
                lock(&sender.counts).failure = Some("its thread panicked".into());
            }
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

impl Sender {
    fn tally(&self) -> Result<Tally> {
        let counts = lock(&self.counts);
        if let Some(failure) = &counts.failure {
            bail!("{} stopped: {failure}", self.host.namespace);
        }
        let span = counts.first.zip(counts.last);
        Ok(Tally {
            sender: self.host.namespace.clone(),
            what: self.what.name(),
            per_second: f64::from(self.per_second),
            source: self.source,
            sent: counts.sent,
            arrived: counts.arrived,
            span: span.map_or(Duration::ZERO, |(first, last)| last - first),
        })
    }
}

/// Whoever panicked while holding it has left numbers that are numbers still.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where packets leave and where they, or their replies, arrive; both connected, so that the kernel
/// keeps what others send away.
#[derive(Debug)]
struct Sockets {
    outgoing: OwnedFd,
    incoming: OwnedFd,
    format: Format,
}

impl Sockets {
    /// A raw socket: the unprivileged kind is for the groups of `net.ipv4.ping_group_range`, which in a
    /// new namespace are none.
    fn ping((host, source): (&Host, IpAddr), destination: IpAddr) -> Result<Sockets> {
        let (family, protocol) = match source {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let sockaddr = |address| SockaddrStorage::from(SocketAddr::new(address, 0));
        let outgoing = inside(host, || {
            let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            bind(raw.as_raw_fd(), &sockaddr(source))?;
            connect(raw.as_raw_fd(), &sockaddr(destination))?;
            Ok(raw)
        })
        .with_context(|| {
            let name = &host.namespace;
            format!("open a raw socket from {source} ({name}) to {destination}")
        })?;
        // As ping does it; replies to another ping in the same namespace differ in their payload too.
        let [.., high, low] = std::process::id().to_be_bytes();
        let identifier = u16::from_be_bytes([high, low]);
        Ok(Sockets {
            incoming: outgoing.try_clone().context("copy a raw socket")?,
            outgoing,
            format: match source {
                IpAddr::V4(_) => Format::Echo { identifier },
                IpAddr::V6(_) => Format::Echo6 { identifier },
            },
        })
    }

    /// The receiver's socket and the sender's, on ports that are free.
    fn udp(sender: (&Host, IpAddr), receiver: (&Host, IpAddr)) -> Result<Sockets> {
        let open = |(host, address): (&Host, IpAddr)| {
            inside(host, || Ok(UdpSocket::bind((address, 0))?))
                .with_context(|| format!("open a UDP socket on {address} ({})", host.namespace))
        };
        let (outgoing, incoming) = (open(sender)?, open(receiver)?);
        for (from, to) in [(&outgoing, &incoming), (&incoming, &outgoing)] {
            let address = to.local_addr().context("read the address of a socket")?;
            from.connect(address)
                .with_context(|| format!("connect a UDP socket to {address}"))?;
        }
        Ok(Sockets {
            outgoing: outgoing.into(),
            incoming: incoming.into(),
            format: Format::Datagram,
        })
    }

    fn send(&self, number: u64) -> Result<()> {
        let packet = self.format.packet(number);
        send(self.outgoing.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT)
            .context("send a packet")?;
        Ok(())
    }

    /// Takes what has come, and tells the number of each packet that may be ours. Returns now and then
    /// also in a flood: there is a pace to be kept, and an end to be noticed.
    fn receive(&self, mut tell: impl FnMut(u64)) -> Result<()> {
        let mut buffer = [0; BUFFER];
        for _ in 0..AT_ONCE {
            let fd = self.incoming.as_raw_fd();
            match recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    if let Some(number) = self.format.number(packet) {
                        tell(number);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(anyhow!(errno).context("receive a packet")),
            }
        }
        Ok(())
    }
}

fn inside<T: Send>(host: &Host, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    namespace::inside(&namespace::open(&host.namespace)?, action)
}

/// What a thread sends, and counts.
struct Flow {
    sockets: Sockets,
    /// From one packet to the next.
    period: Duration,
    /// Number of the next packet.
    next: u64,
    underway: Underway,
    counts: Arc<Mutex<Counts>>,
    /// Hangs up when the end is asked for.
    ending: Arc<PipeReader>,
}

impl Flow {
    fn run(mut self) {
        if let Err(error) = self.send_and_count() {
            lock(&self.counts).failure = Some(format!("{error:#}"));
        }
    }

    fn send_and_count(&mut self) -> Result<()> {
        privilege::drop_all(Scope::Thread)?;
        let mut due = Instant::now();
        let mut last = due;
        while !self.end_comes_before(due)? {
            self.receive()?;
            let now = Instant::now();
            if now >= due {
                self.send(now)?;
                last = now;
                due = slot_after(due, self.period, now);
            }
        }
        let deadline = last + LAST_ARRIVE_WITHIN;
        loop {
            self.receive()?;
            if self.underway.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            let incoming = PollFd::new(self.sockets.incoming.as_fd(), PollFlags::POLLIN);
            wait(&mut [incoming], deadline)?;
        }
    }

    /// Waits until a packet has come, `due` has, or the end is asked for; whether it was the end.
    fn end_comes_before(&self, due: Instant) -> Result<bool> {
        let mut fds = [
            PollFd::new(self.sockets.incoming.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ending.as_fd(), PollFlags::empty()),
        ];
        wait(&mut fds, due)?;
        Ok(fds[1].any() == Some(true))
    }

    fn send(&mut self, now: Instant) -> Result<()> {
        self.sockets.send(self.next)?;
        self.underway.add(self.next);
        self.next += 1;
        let mut counts = lock(&self.counts);
        counts.sent += 1;
        counts.first.get_or_insert(now);
        counts.last = Some(now);
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let Flow {
            sockets,
            underway,
            counts,
            ..
        } = self;
        sockets.receive(|number| {
            if underway.remove(number) {
                lock(counts).arrived += 1;
            }
        })
    }
}

/// Waits for one of these, no longer than to that moment. In nanoseconds: rounded to poll's milliseconds
/// packets would leave late, or the thread would spin.
fn wait(fds: &mut [PollFd<'_>], until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    match ppoll(fds, Some(TimeSpec::from_duration(left)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("wait for packets"),
    }
}

/// When the next packet is due: slots are a period apart for ever. Those that were missed (the process
/// was stopped for a while) are left out, because to catch up would be another pace.
fn slot_after(slot: Instant, period: Duration, now: Instant) -> Instant {
    let mut next = slot + period;
    while next <= now {
        next += period;
    }
    next
}

/// Numbers of the packets that may still arrive.
#[derive(Debug, Default)]
struct Underway(BTreeSet<u64>);

impl Underway {
    fn add(&mut self, number: u64) {
        self.0.insert(number);
        if self.0.len() > UNDERWAY {
            self.0.pop_first();
        }
    }

    /// Whether it was among them: a packet arrives once.
    fn remove(&mut self, number: u64) -> bool {
        self.0.remove(&number)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a packet carries its number: at the beginning of the payload, and pings as their sequence number
/// too, of which 16 bits are left.
#[derive(Debug, Clone, Copy)]
enum Format {
    Datagram,
    /// A raw ICMP socket leaves the checksum to us, and the IPv4 header in front of what it receives.
    Echo {
        identifier: u16,
    },
    /// A raw ICMPv6 socket fills the checksum in, checks it, and takes the IPv6 header off (RFC 3542, 3).
    Echo6 {
        identifier: u16,
    },
}

impl Format {
    fn packet(self, number: u64) -> Vec<u8> {
        match self {
            Format::Datagram => payload(number).to_vec(),
            Format::Echo { identifier } => {
                let sum = checksum(&echo(ECHO_REQUEST, 0, identifier, number));
                echo(ECHO_REQUEST, sum, identifier, number)
            }
            Format::Echo6 { identifier } => echo(ECHO_REQUEST_6, 0, identifier, number),
        }
    }

    /// The number of a packet that has arrived. `None` if it cannot be one of ours.
    fn number(self, packet: &[u8]) -> Option<u64> {
        match self {
            Format::Datagram => number_in(packet),
            Format::Echo { identifier } => {
                // The kernel hands it out before it looks at the checksum.
                let message = icmp_in(packet).filter(|message| checksum(message) == 0)?;
                number_echoed(message, ECHO_REPLY, identifier)
            }
            Format::Echo6 { identifier } => number_echoed(packet, ECHO_REPLY_6, identifier),
        }
    }
}

fn payload(number: u64) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    for (byte, value) in payload.iter_mut().zip(number.to_be_bytes()) {
        *byte = value;
    }
    payload
}

fn number_in(payload: &[u8]) -> Option<u64> {
    let number = payload.first_chunk()?;
    (payload.len() == PAYLOAD).then(|| u64::from_be_bytes(*number))
}

fn echo(kind: u8, checksum: u16, identifier: u16, number: u64) -> Vec<u8> {
    let mut message = vec![kind, 0];
    message.extend(checksum.to_be_bytes());
    message.extend(identifier.to_be_bytes());
    message.extend(sequence(number));
    message.extend(payload(number));
    message
}

fn number_echoed(message: &[u8], reply: u8, identifier: u16) -> Option<u64> {
    let (header, payload) = message.split_first_chunk()?;
    let [kind, code, _, _, i, d, s, q] = *header;
    let number = number_in(payload)?;
    let ours = [kind, code] == [reply, 0]
        && [i, d] == identifier.to_be_bytes()
        && [s, q] == sequence(number);
    ours.then_some(number)
}

fn sequence(number: u64) -> [u8; 2] {
    let [.., high, low] = number.to_be_bytes();
    [high, low]
}

/// The ICMP message in an IPv4 packet (RFC 791, 3.1).
fn icmp_in(packet: &[u8]) -> Option<&[u8]> {
    let (first, protocol) = (packet.first()?, *packet.get(9)?);
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 || protocol != IPPROTO_ICMP {
        return None;
    }
    packet.get(header..)
}

/// The Internet checksum (RFC 1071); 0 for bytes that hold their own.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use testbed::packet::{Ipv4, Packet};

    const ECHO: Format = Format::Echo { identifier: 0x1234 };
    const ECHO6: Format = Format::Echo6 { identifier: 0x1234 };
    const RECEIVER: [u8; 4] = [172, 16, 2, 5];
    const SENDER: [u8; 4] = [172, 16, 2, 100];

    /// The receiver's packet with that ICMP header, as a raw socket hands it out.
    fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        Packet::without_link()
            .ipv4(RECEIVER, SENDER)
            .icmp(kind, code, rest)
            .payload(payload)
            .build()
    }

    #[test]
    fn a_ping_is_this() {
        let message = ECHO.packet(0x0001_0002);
        let header = [
            8, 0, // echo request
            0xe5,
            0xc6, // what 0800, 1234, 0002 and, of the payload, 0001 and 0002 lack to ffff
            0x12, 0x34, // identifier
            0, 2, // sequence: the lower half of the number
        ];
        assert_eq!(message[..8], header);
        assert_eq!(message[8..16], [0, 0, 0, 0, 0, 1, 0, 2]);
        assert_eq!(message[16..], [0; 48]);
        assert_eq!(checksum(&message), 0);

        let message = ECHO6.packet(0x0001_0002);
        assert_eq!(message[..8], [128, 0, 0, 0, 0x12, 0x34, 0, 2]);
        assert_eq!(message.len(), 64);
    }

    #[test]
    fn checksums_are_those_of_an_independent_packet() {
        for number in [0, 1, 0xfffe, 0xffff, 0x1_0000, u64::MAX] {
            let [high, low] = sequence(number);
            let packet = icmp(ECHO_REQUEST, 0, [0x12, 0x34, high, low], &payload(number));
            assert_eq!(ECHO.packet(number), packet[20..], "{number}");
        }
        // The example of RFC 1071, 3, and an odd byte, which counts as if a zero followed.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0, 1, 0xf2]), !0xf201);
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    fn the_reply_to_a_ping_has_its_number() {
        for number in [0, 7, 0xffff, 0x1_0000, u64::MAX] {
            let [high, low] = sequence(number);
            let rest = [0x12, 0x34, high, low];
            let reply = icmp(ECHO_REPLY, 0, rest, &payload(number));
            assert_eq!(ECHO.number(&reply), Some(number));
            let with_options = Ipv4 {
                options: vec![1; 8],
                ..Ipv4::between(RECEIVER, SENDER)
            };
            let reply = Packet::without_link()
                .ipv4_with(with_options)
                .icmp(ECHO_REPLY, 0, rest)
                .payload(&payload(number));
            assert_eq!(ECHO.number(&reply.build()), Some(number));
            let reply = echo(ECHO_REPLY_6, 0xabcd, 0x1234, number);
            assert_eq!(ECHO6.number(&reply), Some(number));
            let datagram = Format::Datagram.packet(number);
            assert_eq!(Format::Datagram.number(&datagram), Some(number));
        }
    }

    #[test]
    fn what_is_not_our_reply_has_no_number() {
        let rest = [0x12, 0x34, 0, 7];
        for (what, kind, code, kind6) in [
            ("a request", ECHO_REQUEST, 0, ECHO_REQUEST_6),
            ("host unreachable", 3, 1, 1),
        ] {
            let packet = icmp(kind, code, rest, &payload(7));
            assert_eq!(ECHO.number(&packet), None, "{what}");
            let message = echo(kind6, 0, 0x1234, 7);
            assert_eq!(ECHO6.number(&message), None, "{what}, IPv6");
        }
        let reply = |code, rest, payload: &[u8]| {
            let packet = icmp(ECHO_REPLY, code, rest, payload);
            let mut message = packet[20..].to_vec();
            message[0] = ECHO_REPLY_6;
            (ECHO.number(&packet), ECHO6.number(&message))
        };
        assert_eq!(reply(0, rest, &payload(7)), (Some(7), Some(7)));
        assert_eq!(reply(1, rest, &payload(7)), (None, None), "a code");
        let another = [0x12, 0x35, 0, 7];
        assert_eq!(reply(0, another, &payload(7)), (None, None), "identifier");
        assert_eq!(reply(0, rest, &payload(8)), (None, None), "sequence");
        assert_eq!(reply(0, rest, &[0; PAYLOAD]), (None, None), "payload");
        let longer = [&payload(7)[..], &[0]].concat();
        assert_eq!(reply(0, rest, &longer), (None, None), "too long");
        assert_eq!(Format::Datagram.number(&longer), None);
    }

    #[test]
    fn cut_or_changed_replies_have_no_number() {
        let whole = icmp(ECHO_REPLY, 0, [0x12, 0x34, 0, 7], &payload(7));
        for length in 0..whole.len() {
            assert_eq!(ECHO.number(&whole[..length]), None, "{length} bytes");
            let message = whole[20..].get(..length.saturating_sub(20));
            assert_eq!(ECHO6.number(message.unwrap_or_default()), None);
        }
        for at in 20 * 8..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(ECHO.number(&changed), None, "bit {at}");
        }
        for (at, byte, what) in [
            (0, 0x65, "version 6"),
            (0, 0x40, "no header"),
            (0, 0x44, "a header of 16 bytes"),
            (0, 0x4f, "a header of 60 bytes"),
            (9, 17, "UDP"),
        ] {
            let mut changed = whole.clone();
            changed[at] = byte;
            assert_eq!(ECHO.number(&changed), None, "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..BUFFER)) {
            // Chance alone does not hit a checksum, an identifier and a sequence number.
            prop_assert_eq!(ECHO.number(&bytes), None);
            prop_assert_eq!(ECHO6.number(&bytes), None);
            prop_assert_eq!(Format::Datagram.number(&bytes).is_some(), bytes.len() == PAYLOAD);
        }
    }

    #[test]
    fn slots_missed_are_left_out_and_the_others_stay_where_they_are() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let period = Duration::from_millis(50);
        let next = |now| slot_after(start, period, after(now));
        assert_eq!(next(0), after(50));
        assert_eq!(next(49), after(50));
        assert_eq!(next(50), after(100));
        assert_eq!(next(1234), after(1250));
    }

    #[test]
    fn a_packet_arrives_once_and_not_for_ever() {
        let mut underway = Underway::default();
        let many = UNDERWAY as u64 + 2;
        (0..many).for_each(|number| underway.add(number));
        assert!(!underway.remove(1), "too old");
        assert!(!underway.remove(many), "not sent yet");
        assert!((2..many).all(|number| underway.remove(number)));
        assert!(underway.is_empty());
        assert!(!underway.remove(2), "a second time");
    }
}
