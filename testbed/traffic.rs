//! Traffic between two namespaces, sent, received and counted here, always bounded in time.
//!
//! TCP is measured as payload (goodput), UDP and captures as Ethernet frames without FCS and VLAN
//! tag, a GSO packet counted as the frames it stands for. A socket belongs to the namespace in
//! which it was opened, so only opening one needs to be there. Flows run beside each other in
//! `std::thread::scope`.

use crate::namespace::{Place, wait_for_addresses};
use crate::step;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use std::ffi::OsString;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime};

const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How often loops look whether they shall end.
const TICK: Duration = Duration::from_millis(20);
/// What the kernel may queue for a receiver that is not scheduled for a while.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Frames that a capture keeps, to be looked at.
const KEPT: usize = 256;

/// Of a packet socket, in network byte order.
const EVERY_PROTOCOL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// EtherType of frames that nobody sends (IEEE 802, local experiments).
const UNUSED: u16 = 0x88b6;
const ETHERNET: usize = 14;
const UDP: usize = 8;

/// When to count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Traffic flows, but is not counted: the burst is used up, TCP finds its rate.
    pub settle: Duration,
    /// Then this long counts.
    pub measure: Duration,
}

impl Window {
    /// Leaves out `settle` seconds, counts `measure` seconds.
    pub fn seconds(settle: u64, measure: u64) -> Window {
        Window {
            settle: Duration::from_secs(settle),
            measure: Duration::from_secs(measure),
        }
    }

    fn whole(&self) -> Duration {
        self.settle + self.measure
    }
}

/// What was counted in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames on the wire; 0 for TCP goodput, where nobody counts them.
    pub packets: u64,
    /// As this module's description says.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }

    /// The rate when this came `within` that time.
    pub fn kbit_per_second(&self, within: Duration) -> f64 {
        self.bytes as f64 * 8.0 / 1000.0 / within.as_secs_f64()
    }
}

/// One TCP connection (cubic, where the kernel has it) from one place to an address of another,
/// sending as fast as it may. Returns the goodput at the receiver in kbit/s.
pub fn tcp(from: &Place, to: &Place, address: IpAddr, window: Window) -> f64 {
    let (sender, receiver) = connection(from, to, address);
    let count = std::thread::scope(|scope| {
        let end = Instant::now() + window.whole();
        scope.spawn(move || write_until(sender, end));
        let begin = end - window.measure;
        read_between(receiver, begin, end)
    });
    count.kbit_per_second(window.measure)
}

/// Sends that many bytes through one TCP connection and waits until they have arrived.
pub fn tcp_transfer(from: &Place, to: &Place, address: IpAddr, bytes: usize, within: Duration) {
    let (mut sender, mut receiver) = connection(from, to, address);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            step("bound the sending", sender.set_write_timeout(Some(within)));
            step("send", sender.write_all(&vec![0; bytes]));
        });
        let deadline = Instant::now() + within;
        step(
            "bound the receiving",
            receiver.set_read_timeout(Some(within)),
        );
        let mut buffer = vec![0; 1 << 16];
        let mut received = 0;
        while received < bytes {
            let read = step("receive", receiver.read(&mut buffer));
            received += read;
            let in_time = read > 0 && Instant::now() < deadline;
            assert!(
                in_time,
                "{received} of {bytes} bytes came within {within:?}"
            );
        }
    });
}

fn connection(from: &Place, to: &Place, address: IpAddr) -> (TcpStream, TcpStream) {
    let what = format!("TCP from {from} to {address} ({to})");
    for place in [from, to] {
        place.run(wait_for_addresses);
    }
    let listener = to.run(|| step(format!("{what}: listen"), TcpListener::bind((address, 0))));
    let bound = step(format!("{what}: own address"), listener.local_addr());
    let connect = || TcpStream::connect_timeout(&bound, CONNECTS_WITHIN);
    let sender = from.run(|| step(format!("{what}: connect"), connect()));
    // Without cubic the kernel's own choice is as good.
    let _ = setsockopt(&sender, sockopt::TcpCongestion, &OsString::from("cubic"));
    wait_readable(&listener, CONNECTS_WITHIN, &what);
    let (receiver, _) = step(format!("{what}: accept"), listener.accept());
    (sender, receiver)
}

fn wait_readable(fd: &impl AsFd, within: Duration, what: &str) {
    let ready = readable(fd, within);
    assert!(ready, "{what}: nothing came within {within:?}");
}

fn readable(fd: &impl AsFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = step("a time to wait", PollTimeout::try_from(within));
    step("wait", poll(&mut fds, timeout)) > 0
}

fn write_until(mut sender: TcpStream, end: Instant) {
    let chunk = [0; 1 << 16];
    step("bound the sending", sender.set_write_timeout(Some(TICK)));
    while Instant::now() < end {
        match sender.write(&chunk) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            // The receiver has finished while this was waiting for room.
            Err(_) if Instant::now() >= end => {}
            Err(error) => panic!("send: {error}"),
        }
    }
    // What is still queued (at a policed rate, seconds) is thrown away.
    reset_when_closed(&sender);
}

/// Its close sends an RST and no FIN, and nobody waits for what is queued.
pub fn reset_when_closed(stream: &impl AsFd) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    step(
        "set SO_LINGER",
        setsockopt(stream, sockopt::Linger, &at_once),
    );
}

fn read_between(mut receiver: TcpStream, begin: Instant, end: Instant) -> Count {
    let mut chunk = vec![0; 1 << 18];
    let mut count = Count::default();
    step("bound the receiving", receiver.set_read_timeout(Some(TICK)));
    loop {
        let read = match receiver.read(&mut chunk) {
            Ok(0) => panic!("the connection ended before its time"),
            Ok(read) => read,
            Err(error) if is_timeout(&error) => 0,
            // The sender has finished first.
            Err(_) if Instant::now() >= end => 0,
            Err(error) => panic!("receive: {error}"),
        };
        let now = Instant::now();
        if now >= end {
            return count;
        }
        if now >= begin {
            count.add(0, read as u64);
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// UDP at a steady pace.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Of each datagram; 1,472 fill an Ethernet frame over IPv4, 1,452 over IPv6.
    pub payload: usize,
    /// In Ethernet frames, as everything here.
    pub kbit_per_second: u32,
}

/// What became of a flood, in Ethernet frames.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// What the sender gave to its kernel within the window.
    pub sent: Count,
    /// What reached the receiver within the window.
    pub received: Count,
}

/// A UDP flow from one place to an address of another.
#[derive(Clone, Copy, Debug)]
pub struct UdpFlow<'a> {
    /// Who sends.
    pub from: &'a Place,
    /// Who receives.
    pub to: &'a Place,
    /// Where he has it.
    pub address: IpAddr,
    /// What is sent.
    pub flood: Flood,
}

/// One UDP flow.
pub fn udp(from: &Place, to: &Place, address: IpAddr, flood: Flood, window: Window) -> Delivery {
    let flow = UdpFlow {
        from,
        to,
        address,
        flood,
    };
    udp_together(&[flow], window)[0]
}

/// UDP flows in one window: where they share a limit, what one gets before the others begin, or after they
/// have ended, would be too much for all.
pub fn udp_together(flows: &[UdpFlow<'_>], window: Window) -> Vec<Delivery> {
    let flows: Vec<OpenFlow> = flows.iter().map(OpenFlow::open).collect();
    let end = Instant::now() + window.whole();
    let begin = end - window.measure;
    std::thread::scope(|scope| {
        let run = |flow| scope.spawn(move || OpenFlow::run(flow, begin, end));
        let running: Vec<_> = flows.iter().map(run).collect();
        running.into_iter().map(crate::joined).collect()
    })
}

struct OpenFlow {
    sender: UdpSocket,
    receiver: UdpSocket,
    flood: Flood,
    /// Bytes of each frame.
    frame: u64,
}

impl OpenFlow {
    fn open(flow: &UdpFlow<'_>) -> OpenFlow {
        let UdpFlow {
            from,
            to,
            address,
            flood,
        } = *flow;
        let what = format!("UDP from {from} to {address} ({to})");
        for place in [from, to] {
            place.run(wait_for_addresses);
        }
        let receiver = to.run(|| step(format!("{what}: bind"), UdpSocket::bind((address, 0))));
        let bound = step(format!("{what}: own address"), receiver.local_addr());
        let any: SocketAddr = match address {
            IpAddr::V4(_) => ([0; 4], 0).into(),
            IpAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let sender = from.run(|| step(format!("{what}: open"), UdpSocket::bind(any)));
        step(format!("{what}: connect"), sender.connect(bound));
        let room = setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        step(format!("{what}: make room"), room);
        let stamped = setsockopt(&receiver, sockopt::ReceiveTimestampns, &true);
        step(format!("{what}: ask when they come"), stamped);
        let ip = if address.is_ipv4() { 20 } else { 40 };
        OpenFlow {
            sender,
            receiver,
            flood,
            frame: (ETHERNET + ip + UDP + flood.payload) as u64,
        }
    }

    fn run(&self, begin: Instant, end: Instant) -> Delivery {
        let (flood, frame) = (self.flood, self.frame);
        std::thread::scope(|scope| {
            let sending =
                scope.spawn(move || send_datagrams(&self.sender, flood, frame, begin, end));
            let received = receive_datagrams(&self.receiver, flood.payload, frame, begin, end);
            let sent = crate::joined(sending);
            Delivery { sent, received }
        })
    }
}

fn send_datagrams(
    sender: &UdpSocket,
    flood: Flood,
    frame: u64,
    begin: Instant,
    end: Instant,
) -> Count {
    let payload = vec![0; flood.payload];
    let mut count = Count::default();
    let start = Instant::now();
    for number in 0u64.. {
        // By absolute time: what one pause lasts too long the next ones make up for. Bits over
        // kbit/s are milliseconds.
        let due = number as f64 * frame as f64 * 8.0 / f64::from(flood.kbit_per_second) / 1000.0;
        let due = start + Duration::from_secs_f64(due);
        sleep(due.saturating_duration_since(Instant::now()));
        if Instant::now() >= end {
            break;
        }
        match sender.send(&payload) {
            // Nobody listens any more, or a queue is full: lost, as a policer would have it.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
            result => step("send a datagram", result),
        };
        if Instant::now() >= begin {
            count.add(1, frame);
        }
    }
    count
}

/// What came within the window, by the kernel's word: a reader that the machine lets wait at an edge of it
/// reads later what has come. The senders end with the window, so there is a last one.
fn receive_datagrams(
    receiver: &UdpSocket,
    payload: usize,
    frame: u64,
    begin: Instant,
    end: Instant,
) -> Count {
    let mut buffer = vec![0; payload + 1];
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut count = Count::default();
    step("bound the receiving", receiver.set_read_timeout(Some(TICK)));
    let window = on_the_wall(begin)..on_the_wall(end);
    loop {
        let over = Instant::now() >= end;
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let message =
            match recvmsg::<()>(receiver.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Err(Errno::EAGAIN) if over => return count,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                result => step("receive a datagram", result),
            };
        let came = step("read when a datagram came", message.cmsgs()).find_map(|part| match part {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let came = step(
            "when a datagram came",
            came.ok_or("the kernel does not say"),
        );
        if window.contains(&came) {
            assert_eq!(message.bytes, payload, "a datagram came in another size");
            count.add(1, frame);
        }
    }
}

/// The time of day, since 1970, as the kernel stamps datagrams.
fn on_the_wall(time: Instant) -> Duration {
    let (now, today) = (Instant::now(), SystemTime::now());
    let today = step(
        "read the time of day",
        today.duration_since(SystemTime::UNIX_EPOCH),
    );
    today + time.saturating_duration_since(now) - now.saturating_duration_since(time)
}

/// Whether one of three pings is answered, a second apart: on a busy machine the first between two hosts may
/// be late.
pub fn reaches(from: &Place, to: IpAddr) -> bool {
    from.run(wait_for_addresses);
    let mut ping = from.command("ping");
    let output = ping
        .args(["-n", "-c", "1", "-W", "1", "-w", "3", &to.to_string()])
        .output();
    step("run ping", output).status.success()
}

/// Pings from one of the place's addresses, so many a second. What was sent, and how many were answered.
pub fn ping(from: &Place, source: IpAddr, to: IpAddr, per_second: f64, count: u64) -> (Paced, u64) {
    from.run(wait_for_addresses);
    let interval = (1.0 / per_second).to_string();
    let mut ping = from.command("ping");
    ping.args(["-q", "-n", "-W", "1", "-I", &source.to_string()]);
    ping.args(["-i", &interval, "-c", &count.to_string(), &to.to_string()]);
    let output = step("run ping", ping.output());
    pinged(&String::from_utf8_lossy(&output.stdout))
}

/// `30 packets transmitted, 11 received, 63.3333% packet loss, time 5814ms`
fn pinged(text: &str) -> (Paced, u64) {
    let line = text.lines().find(|line| line.contains(" transmitted, "));
    let line = line.unwrap_or_else(|| panic!("no result in {text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| step(line, word.parse::<u64>());
    let time = words.last().and_then(|time| time.strip_suffix("ms"));
    let sent = Paced {
        packets: number(words[0]),
        span: Duration::from_millis(number(time.unwrap_or_default())),
    };
    (sent, number(words[3]))
}

/// Sends frames as they are, whatever source they claim; `pause` between two of them. Returns how
/// many.
pub fn inject<'f>(
    at: &Place,
    interface: &str,
    frames: impl IntoIterator<Item = &'f [u8]>,
    pause: Duration,
) -> u64 {
    Injector::new(at, interface).inject(frames, pause)
}

/// Sends frames as they are, again and again: to close its socket costs the kernel 10 ms or more.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    interface: String,
    /// What the kernel wants to know of every frame.
    offload: Option<[u8; OFFLOAD]>,
}

impl Injector {
    /// By that interface, as it is now.
    pub fn new(at: &Place, interface: &str) -> Injector {
        Injector {
            socket: at.run(|| packet_socket(interface, 0)),
            interface: interface.to_owned(),
            offload: None,
        }
    }

    /// The kernel keeps frames as a driver may hand them over: the Ethernet header by itself, the rest,
    /// tags too, in pages. Only frames of a page or more.
    pub fn in_pages(at: &Place, interface: &str) -> Injector {
        let [low, high] = (ETHERNET as u16).to_ne_bytes();
        Injector {
            // A socket without a protocol looks for tags, and has them beside the header then.
            socket: at.run(|| packet_socket(interface, UNUSED.to_be())),
            interface: interface.to_owned(),
            offload: Some([0, 0, low, high, 0, 0, 0, 0, 0, 0]),
        }
    }

    /// As [`inject`].
    pub fn inject<'f>(&self, frames: impl IntoIterator<Item = &'f [u8]>, pause: Duration) -> u64 {
        let mut sent = 0;
        for frame in frames {
            let deadline = Instant::now() + CONNECTS_WITHIN;
            let with_offload = self.offload.map(|offload| [&offload, frame].concat());
            let frame = with_offload.as_deref().unwrap_or(frame);
            loop {
                match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                    // The interface's queue is full.
                    Err(nix::Error::ENOBUFS) if Instant::now() < deadline => {
                        sleep(pause.max(TICK));
                    }
                    result => {
                        step(format!("send a frame on {}", self.interface), result);
                        break;
                    }
                }
            }
            sent += 1;
            if !pause.is_zero() {
                sleep(pause);
            }
        }
        sent
    }
}

/// What was sent at a steady pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paced {
    /// How many.
    pub packets: u64,
    /// From the first to the last of them.
    pub span: Duration,
}

/// Sends frames in turn, so many a second, as long as `goes_on` says so of the time since the first.
pub fn pace(
    at: &Place,
    interface: &str,
    frames: &[Vec<u8>],
    per_second: f64,
    goes_on: impl Fn(Duration) -> bool,
) -> Paced {
    let injector = Injector::new(at, interface);
    let start = Instant::now();
    let mut paced = Paced::default();
    for frame in frames.iter().cycle() {
        // By absolute time, as datagrams above.
        let due = Duration::from_secs_f64(paced.packets as f64 / per_second);
        sleep(due.saturating_sub(start.elapsed()));
        if !goes_on(start.elapsed()) {
            break;
        }
        paced.span = start.elapsed();
        // Whoever was kept from sending for long catches up, with more than the interface's queue may take.
        paced.packets += injector.inject([frame.as_slice()], Duration::ZERO);
    }
    paced
}

/// Frames that come in at an Ethernet interface, counted by a thread of its own.
pub struct Capture {
    state: Arc<CaptureState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct CaptureState {
    seen: Mutex<Seen>,
    grown: Condvar,
    stop: AtomicBool,
}

/// A packet that a capture sees, without its VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// From its Ethernet header on.
    pub bytes: &'a [u8],
    /// The checksum of its transport protocol is not made yet: that of the pseudo-header stands in its place,
    /// and the interface that sends it makes the rest (the kernel's CHECKSUM_PARTIAL).
    pub is_checksum_due: bool,
}

/// What a capture has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Wire frames, and their bytes without FCS and VLAN tag.
    pub count: Count,
    /// The first 256 packets, without their VLAN tag; a GSO packet is one of them.
    pub packets: Vec<Vec<u8>>,
}

impl Capture {
    /// Counts what comes in at `interface` and is `wanted` (a function of the packet without VLAN
    /// tag), for at most that long.
    pub fn start(
        at: &Place,
        interface: &str,
        at_most: Duration,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Capture {
        let socket = at.run(|| packet_socket(interface, EVERY_PROTOCOL));
        Capture::by(socket, at_most, move |frame| wanted(frame.bytes))
    }

    /// As [`Capture::start`], and also what leaves by that interface, as its filters have left it.
    pub fn both_ways(
        at: &Place,
        interface: &str,
        at_most: Duration,
        wanted: impl Fn(Frame<'_>) -> bool + Send + 'static,
    ) -> Capture {
        let socket = at.run(|| packet_socket(interface, EVERY_PROTOCOL));
        set_packet_option(&socket, PACKET_IGNORE_OUTGOING, 0);
        Capture::by(socket, at_most, wanted)
    }

    fn by(
        socket: OwnedFd,
        at_most: Duration,
        wanted: impl Fn(Frame<'_>) -> bool + Send + 'static,
    ) -> Capture {
        let state = Arc::new(CaptureState::default());
        let shared = state.clone();
        let end = Instant::now() + at_most;
        let thread = std::thread::spawn(move || {
            while Instant::now() < end && !shared.stop.load(Ordering::Acquire) {
                if readable(&socket, TICK) {
                    shared.receive(&socket, &wanted);
                }
            }
            shared.receive(&socket, &wanted);
            refuse_losses(&socket);
        });
        Capture {
            state,
            thread: Some(thread),
        }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.state
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until it has seen that many wire frames; panics when it has not within that time.
    #[track_caller]
    pub fn wait_for(&self, packets: u64, within: Duration) {
        let seen = self
            .state
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (seen, _) = self
            .state
            .grown
            .wait_timeout_while(seen, within, |seen| seen.count.packets < packets)
            .unwrap_or_else(PoisonError::into_inner);
        let count = seen.count.packets;
        drop(seen);
        assert!(
            count >= packets,
            "{count} of {packets} frames came within {within:?}"
        );
    }

    /// Ends it, with what is queued still counted.
    pub fn finish(mut self) -> Seen {
        self.stop();
        self.seen()
    }

    fn stop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        let outcome = self.thread.take().map_or(Ok(()), JoinHandle::join);
        match outcome {
            // Two panics at a time would abort the whole test binary.
            Err(panic) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

impl CaptureState {
    /// Takes everything that is queued.
    fn receive(&self, socket: &OwnedFd, wanted: &impl Fn(Frame<'_>) -> bool) {
        // The largest GSO packet, and what the kernel says about it.
        let mut buffer = vec![0; (1 << 16) + 1024];
        loop {
            let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(nix::Error::EAGAIN) => return,
                // The interface went down or away: nothing more will come, or later.
                Err(nix::Error::ENETDOWN | nix::Error::ENXIO) => return,
                result => step("receive a frame", result),
            };
            let whole = buffer.get(..length).unwrap_or_default();
            let Some((offload, packet)) = whole.split_first_chunk::<OFFLOAD>() else {
                panic!("a frame of {length} bytes, offload header included");
            };
            let frame = Frame {
                bytes: packet,
                is_checksum_due: offload[0] & NEEDS_CHECKSUM != 0,
            };
            if !wanted(frame) {
                continue;
            }
            let count = on_the_wire(offload, packet);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.count.add(count.packets, count.bytes);
            if seen.packets.len() < KEPT {
                seen.packets.push(packet.to_vec());
            }
            self.grown.notify_all();
        }
    }
}

/// struct virtio_net_hdr, in host byte order: flags, gso_type, hdr_len (2 bytes), gso_size (2),
/// csum_start (2), csum_offset (2).
const OFFLOAD: usize = 10;
/// Of its flags, VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CHECKSUM: u8 = 1;

/// The frames that one packet stands for.
fn on_the_wire(offload: &[u8; OFFLOAD], packet: &[u8]) -> Count {
    let [_, gso_type, _, _, size_0, size_1, ..] = *offload;
    let bytes = packet.len() as u64;
    if gso_type == 0 {
        return Count { packets: 1, bytes };
    }
    let headers = headers(packet) as u64;
    let size = u64::from(u16::from_ne_bytes([size_0, size_1]));
    assert!(
        size > 0 && headers < bytes,
        "a GSO packet of size {size}: {packet:02x?}"
    );
    let packets = (bytes - headers).div_ceil(size);
    Count {
        packets,
        bytes: bytes + (packets - 1) * headers,
    }
}

/// Bytes of the headers that every segment of a GSO packet repeats.
fn headers(packet: &[u8]) -> usize {
    let byte = |at: usize| packet.get(at).copied().map_or(0, usize::from);
    let (protocol, transport) = match (byte(12), byte(13)) {
        (0x08, 0x00) => (byte(ETHERNET + 9), ETHERNET + (byte(ETHERNET) & 0xf) * 4),
        // The kernel makes no GSO packets with extension headers of its own.
        (0x86, 0xdd) => (byte(ETHERNET + 6), ETHERNET + 40),
        _ => panic!("a GSO packet that is not IP: {packet:02x?}"),
    };
    match protocol {
        6 => transport + (byte(transport + 12) >> 4) * 4,
        17 => transport + UDP,
        _ => panic!("a GSO packet that is neither TCP nor UDP: {packet:02x?}"),
    }
}

/// A socket for the frames of one interface of the caller's namespace. Protocol 0 (in network
/// byte order, as ETH_P_ALL has to be) receives nothing.
fn packet_socket(interface: &str, protocol: u16) -> OwnedFd {
    let index = step(format!("interface {interface}"), if_nametoindex(interface));
    let flags = SockFlag::SOCK_CLOEXEC;
    // The protocol comes with bind: before that, frames of all interfaces would be queued.
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None);
    let socket = step("open a packet socket", socket);
    if protocol != 0 {
        // Frames to segment stay one packet, with a header that says how many there are.
        set_packet_option(&socket, libc::PACKET_VNET_HDR, 1);
        set_packet_option(&socket, PACKET_IGNORE_OUTGOING, 1);
        let room = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        step("make room for frames", room);
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole sockaddr_ll, of the length that is said.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    step(format!("bind to {interface}"), nix::Error::result(result));
    socket
}

/// linux/if_packet.h, Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

fn set_packet_option(socket: &OwnedFd, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the value is an int, of the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    step(
        format!("packet socket option {option}"),
        nix::Error::result(result),
    );
}

/// A capture that lost frames has counted nothing.
fn refuse_losses(socket: &OwnedFd) {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes a tpacket_stats at most, and has room for one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    step("ask for lost frames", nix::Error::result(result));
    assert_eq!(
        statistics.tp_drops, 0,
        "the capture lost frames: its buffer was full"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{Namespace, Veth};
    use crate::packet::Packet;
    use crate::sandbox;
    use crate::sandbox::tests::run_and_fail;
    use std::net::Ipv4Addr;

    const SOON: Duration = Duration::from_secs(5);
    const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    struct Pair {
        left: Namespace,
        right: Namespace,
        _cable: Veth,
    }

    /// Two namespaces and a cable: 192.0.2.1 and .2, 2001:db8::1 and ::2, MACs 02:…:01 and :02.
    fn pair() -> Pair {
        let (left, right) = (Namespace::new("left"), Namespace::new("right"));
        let cable = Veth::new((&left, "eth0"), (&right, "eth0"));
        for (place, number) in [(&left, 1), (&right, 2)] {
            place.ip(&format!("link set eth0 address 02:00:00:00:00:0{number}"));
            place.ip(&format!("address add 192.0.2.{number}/24 dev eth0"));
            place.ip(&format!("address add 2001:db8::{number}/64 dev eth0"));
        }
        Pair {
            left,
            right,
            _cable: cable,
        }
    }

    fn both_families() -> [IpAddr; 2] {
        [IPV4, "2001:db8::2".parse().unwrap()]
    }

    #[test]
    fn every_datagram_of_a_slow_flood_arrives() {
        sandbox::run("every_datagram_of_a_slow_flood_arrives", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            for address in both_families() {
                assert!(reaches(&left, address));
                // 1,000 frames of 1,000 bits a second.
                let payload = if address.is_ipv4() {
                    125 - 42
                } else {
                    125 - 62
                };
                let flood = Flood {
                    payload,
                    kbit_per_second: 1000,
                };
                let window = Window {
                    settle: SOON / 25,
                    measure: SOON / 5,
                };
                let Delivery { sent, received } = udp(&left, &right, address, flood, window);
                assert_eq!(sent.bytes, sent.packets * 125);
                assert_eq!(received.bytes, received.packets * 125);
                // On a busy machine either side comes late to an edge of the window, by 50 ms or so.
                let few = 60;
                assert!(
                    sent.packets.abs_diff(received.packets) <= few,
                    "{sent:?} {received:?}"
                );
                assert!(sent.packets.abs_diff(1000) <= few, "{sent:?}");
            }
        });
    }

    #[test]
    fn datagrams_count_by_when_they_came_not_by_when_they_are_read() {
        let name = "datagrams_count_by_when_they_came_not_by_when_they_are_read";
        sandbox::run(name, |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            // 1,000 datagrams a second.
            let flood = Flood {
                payload: 125 - 42,
                kbit_per_second: 1000,
            };
            let flow = OpenFlow::open(&UdpFlow {
                from: &left,
                to: &right,
                address: IPV4,
                flood,
            });
            let begin = Instant::now() + SOON / 25;
            let end = begin + SOON / 25;
            let sent = send_datagrams(&flow.sender, flood, flow.frame, begin, end);
            assert!(Instant::now() >= end);
            step("send one more", flow.sender.send(&[0; 125 - 42]));
            let received = receive_datagrams(&flow.receiver, 125 - 42, flow.frame, begin, end);
            // One may be on its way at each edge.
            assert!(
                sent.packets > 0 && sent.packets.abs_diff(received.packets) <= 2,
                "{sent:?} {received:?}"
            );
        });
    }

    #[test]
    fn tcp_is_measured_behind_a_known_limit() {
        sandbox::run("tcp_is_measured_behind_a_known_limit", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            // 20 Mbit/s of frames are 19.1 Mbit/s of payload. On a busy machine the reader comes late
            // to an edge of the window, by 50 ms or so: 2.5 %.
            left.tc("qdisc add dev eth0 root tbf rate 20mbit burst 32kb latency 20ms");
            for address in both_families() {
                let kbit = tcp(&left, &right, address, Window::seconds(1, 2));
                assert!(
                    (17_000.0..21_000.0).contains(&kbit),
                    "{address}: {kbit} kbit/s"
                );
            }
        });
    }

    #[test]
    fn a_capture_counts_injected_frames_exactly() {
        sandbox::run("a_capture_counts_injected_frames_exactly", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            let is_udp_to_9 = |packet: &[u8]| packet.get(36..38) == Some(&[0, 9]);
            let capture = Capture::start(&right, "eth0", SOON, is_udp_to_9);
            let frame = |id, port| {
                let spoofed = Packet::ethernet([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 2]);
                let spoofed = if id > 0 { spoofed.vlan(id) } else { spoofed };
                spoofed
                    .ipv4([10, 9, 8, 7], [192, 0, 2, 2])
                    .udp(1, port)
                    .payload_of(58)
                    .build()
            };
            let frames = [frame(0, 9), frame(5, 9), frame(0, 8)];
            let many = frames.iter().cycle().take(3000).map(Vec::as_slice);
            assert_eq!(inject(&left, "eth0", many, Duration::ZERO), 3000);
            capture.wait_for(2000, SOON);
            let seen = capture.finish();
            // The tag is not part of the frame.
            assert_eq!(
                seen.count,
                Count {
                    packets: 2000,
                    bytes: 2000 * 100
                }
            );
            assert_eq!(seen.packets.len(), KEPT);
            assert_eq!(seen.packets[0], frames[0]);
        });
    }

    #[test]
    fn pings_are_sent_and_answered() {
        sandbox::run("pings_are_sent_and_answered", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            let source = "192.0.2.1".parse().unwrap();
            let (sent, answered) = ping(&left, source, IPV4, 50.0, 10);
            assert_eq!((sent.packets, answered), (10, 10));
            assert!(sent.span >= Duration::from_millis(150), "{sent:?}");
            right.ip("address delete 192.0.2.2/24 dev eth0");
            let (sent, answered) = ping(&left, source, IPV4, 50.0, 2);
            assert_eq!((sent.packets, answered), (2, 0));
        });
    }

    #[test]
    fn a_pace_is_kept() {
        sandbox::run("a_pace_is_kept", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            let frames = [60, 70].map(|length| {
                let packet = Packet::ethernet([2, 0, 0, 0, 0, 7], [0xff; 6]);
                packet.payload_of(length - 14).build()
            });
            let is_ours = |frame: &[u8]| frame.get(6..12) == Some(&[2, 0, 0, 0, 0, 7]);
            let capture = Capture::start(&right, "eth0", SOON, is_ours);
            let second = Duration::from_secs(1);
            let paced = pace(&left, "eth0", &frames, 50.0, |time| time < second);
            capture.wait_for(paced.packets, SOON);
            let seen = capture.finish();
            assert_eq!(seen.count.packets, paced.packets);
            let lengths: Vec<usize> = seen.packets.iter().take(3).map(Vec::len).collect();
            assert_eq!(lengths, [60, 70, 60]);
            // A busy machine leaves none out, but may be late with the last.
            assert!((40..=50).contains(&paced.packets), "{paced:?}");
            assert!(paced.span < second, "{paced:?}");
        });
    }

    #[test]
    fn a_capture_counts_the_segments_of_tcp() {
        sandbox::run("a_capture_counts_the_segments_of_tcp", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            for (address, headers) in both_families().into_iter().zip([66, 86]) {
                let protocol = if address.is_ipv4() { 23 } else { 20 };
                let is_tcp = move |packet: &[u8]| packet.get(protocol) == Some(&6);
                let capture = Capture::start(&right, "eth0", SOON, is_tcp);
                tcp_transfer(&left, &right, address, 1_000_000, SOON);
                let seen = capture.finish();
                let biggest = seen.packets.iter().map(Vec::len).max().unwrap();
                assert!(biggest > 1514, "no GSO packet was seen");
                // The SYN has 8 bytes more of options; a segment may have come twice.
                let overhead = seen.count.packets * headers as u64 + 8;
                let payload = seen.count.bytes - overhead;
                assert!(
                    (1_000_000..1_050_000).contains(&payload),
                    "{:?}",
                    seen.count
                );
                // At most 1,448 bytes a segment over IPv4.
                assert!(seen.count.packets >= 1_000_000 / 1448, "{:?}", seen.count);
            }
        });
    }

    #[test]
    fn a_gso_packet_is_as_many_frames_as_it_will_be() {
        let offload = |size: u16| {
            let [low, high] = size.to_ne_bytes();
            [1, 1, 0, 0, low, high, 0, 0, 0, 0]
        };
        let tcp = |payload| {
            let packet = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            packet
                .ipv4([192, 0, 2, 1], [192, 0, 2, 2])
                .tcp(1, 2)
                .payload_of(payload)
                .build()
        };
        let count = |packets, bytes| Count { packets, bytes };
        assert_eq!(on_the_wire(&[0; OFFLOAD], &tcp(3000)), count(1, 3054));
        assert_eq!(
            on_the_wire(&offload(1000), &tcp(3000)),
            count(3, 3000 + 3 * 54)
        );
        assert_eq!(
            on_the_wire(&offload(1000), &tcp(3001)),
            count(4, 3001 + 4 * 54)
        );
        let udp = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv6(
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
            )
            .udp(1, 2)
            .payload_of(2500)
            .build();
        assert_eq!(on_the_wire(&offload(1000), &udp), count(3, 2500 + 3 * 62));
    }

    #[test]
    fn what_nobody_hears_is_not_reached() {
        sandbox::run("what_nobody_hears_is_not_reached", |_| {
            let Pair {
                left,
                right,
                _cable,
            } = pair();
            right.ip("link set eth0 down");
            assert!(!reaches(&left, IPV4));
        });
    }

    #[test]
    fn a_capture_that_waits_in_vain_is_a_failure() {
        let name = "a_capture_that_waits_in_vain_is_a_failure";
        run_and_fail(name, "0 of 1 frames came", |_| {
            let capture = Capture::start(&Place::here(), "lo", SOON, |_| true);
            capture.wait_for(1, TICK);
        });
    }
}
