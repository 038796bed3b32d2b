//! A NETLINK_ROUTE socket: requests, dumps, and the errors that the kernel sends back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, recvfrom, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::wire::{Attributes, HEADER, Message, Messages, Request, i32_at, text, u32_at};

/// The kernel answers a request before `sendto` returns; this only keeps a lost answer from
/// hanging the program. Seconds.
const PATIENCE: i64 = 5;

/// How often a dump is asked for again when the table changed while it was being sent.
const DUMPS: u32 = 20;

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h: the text of an extended acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel refused: its errno and, where it gave one, its own explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The text of the extended acknowledgement; empty if there was none.
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.text.is_empty() {
            write!(f, "{}", self.errno.desc())
        } else {
            write!(f, "{}: {}", self.errno.desc(), self.text)
        }
    }
}

impl std::error::Error for Refusal {}

/// An open socket of the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket that receives the multicast groups of the mask `groups` (0: none).
    pub(super) fn open(groups: u32) -> Result<Self> {
        Socket::speaking(SockProtocol::NetlinkRoute, groups)
    }

    /// Opens a socket to another part of the kernel.
    pub(super) fn speaking(protocol: SockProtocol, groups: u32) -> Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .context("open a netlink socket")?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("bind a netlink socket")?;
        let address: NetlinkAddr =
            getsockname(fd.as_raw_fd()).context("read the port of a netlink socket")?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))
            .context("set the receive timeout of a netlink socket")?;
        extended_acknowledgements(fd.as_fd());
        Ok(Socket {
            fd,
            port: address.pid(),
            sequence: 0,
            buffer: vec![0; 32 * 1024],
        })
    }

    /// The next datagram that the kernel sent, whatever its size. `Err(EAGAIN)` after
    /// [`PATIENCE`], or at once with `MSG_DONTWAIT`; `Err(ENOBUFS)` once when some were lost.
    pub(super) fn receive(&mut self, flags: MsgFlags) -> Result<&[u8], Errno> {
        loop {
            // With MSG_TRUNC the answer is the datagram's real size, so none is ever cut short.
            let peek = flags | MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
            let size = match recv(self.fd.as_raw_fd(), &mut [], peek) {
                Err(Errno::EINTR) => continue,
                size => size?,
            };
            if size > self.buffer.len() {
                self.buffer.resize(size, 0);
            }
            let (length, sender) =
                match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                    Err(Errno::EINTR) => continue,
                    received => received?,
                };
            // Any process may send to this port; only port 0 is the kernel.
            if sender.is_some_and(|sender| sender.pid() == 0) {
                return Ok(self.buffer.get(..length).unwrap_or_default());
            }
        }
    }

    /// Sends requests in one datagram. Their answers carry the number returned and those that
    /// follow it.
    fn send(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(request.finish(self.sequence)?);
        }
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.fd.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())
            .context("send a netlink request")?;
        if sent != bytes.len() {
            bail!("sent {sent} of {} bytes of a netlink request", bytes.len());
        }
        Ok(first)
    }

    /// Sends a request with one answer and hands its payload to `read`. The request must not
    /// carry `NLM_F_DUMP`; one that has no answer but success must carry `NLM_F_ACK`, and `read`
    /// is not called then.
    pub(super) fn request<T>(
        &mut self,
        request: Request,
        mut read: impl FnMut(&Message<'_>) -> T,
    ) -> Result<Option<T>> {
        let sequence = self.send([request])?;
        let port = self.port;
        loop {
            let datagram = self
                .receive(MsgFlags::empty())
                .context("receive the answer to a netlink request")?;
            for message in Messages::of(datagram) {
                let message = message?;
                if message.sequence != sequence || message.port != port {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => return outcome(&message).map(|()| None),
                    libc::NLMSG_NOOP => {}
                    _ => return Ok(Some(read(&message))),
                }
            }
        }
    }

    /// Sends requests that have no answer but success, each with `NLM_F_ACK`, in one datagram: the
    /// kernel works through all of it before `sendto` returns. Gives an outcome for each; an `Err`
    /// of the whole leaves open what was done.
    pub(super) fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = vec![None; requests.len()];
        let first = self.send(requests)?;
        let port = self.port;
        while outcomes.contains(&None) {
            let datagram = match self.receive(MsgFlags::empty()) {
                Err(error) => {
                    // Until it is empty, a socket that lost answers loses further ones in silence.
                    while self.receive(MsgFlags::MSG_DONTWAIT).is_ok() {}
                    return Err(error).context("receive the answers to netlink requests");
                }
                Ok(datagram) => datagram,
            };
            for message in Messages::of(datagram) {
                let message = message?;
                let place = usize::try_from(message.sequence.wrapping_sub(first))?;
                if message.port == port
                    && i32::from(message.kind) == libc::NLMSG_ERROR
                    && let Some(awaited) = outcomes.get_mut(place)
                {
                    *awaited = Some(match outcome(&message) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(error.downcast()?),
                    });
                }
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Asks for a whole table and hands each entry to `read`. A table that changed meanwhile, or
    /// of which some was lost, is asked for again.
    pub(super) fn dump<T>(
        &mut self,
        request: &Request,
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMPS {
            if let Some(entries) = self.dump_once(request.clone(), &mut read)? {
                return Ok(entries);
            }
        }
        bail!("the kernel's table changed during each of {DUMPS} netlink dumps");
    }

    fn dump_once<T>(
        &mut self,
        request: Request,
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let sequence = self.send([request])?;
        let port = self.port;
        let mut entries = Vec::new();
        let mut whole = true;
        loop {
            let datagram = match self.receive(MsgFlags::empty()) {
                // The dump still runs, and another would be refused (EBUSY) before its end.
                Err(Errno::ENOBUFS) => {
                    whole = false;
                    continue;
                }
                received => received.context("receive a netlink dump")?,
            };
            for message in Messages::of(datagram) {
                let message = message?;
                if message.sequence != sequence || message.port != port {
                    continue;
                }
                whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => outcome(&message)?,
                    libc::NLMSG_DONE => {
                        outcome(&message)?;
                        return Ok(whole.then_some(entries));
                    }
                    libc::NLMSG_NOOP => {}
                    libc::NLMSG_OVERRUN => whole = false,
                    _ => entries.extend(read(&message)),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks for the kernel's explanations beside its error numbers.
fn extended_acknowledgements(fd: BorrowedFd<'_>) {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer and length describe the live integer `on`.
    // The result is not needed: without the option, errors carry their number only.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}

/// The result that an NLMSG_ERROR or NLMSG_DONE carries: 0 or a negative errno, then for an
/// error the refused request (its header alone if NLM_F_CAPPED), then attributes.
pub(super) fn outcome(message: &Message<'_>) -> Result<()> {
    let done = i32::from(message.kind) == libc::NLMSG_DONE;
    let code = match i32_at(message.payload, 0) {
        Some(code) => code,
        None if done => 0,
        None => return Err(anyhow!("a netlink error message without an error number")),
    };
    // A positive number in NLMSG_DONE is a length, not an error.
    if code >= 0 {
        return Ok(());
    }
    let flags = i32::from(message.flags);
    let mut explanation = String::new();
    if flags & libc::NLM_F_ACK_TLVS != 0 {
        let refused = match (done, flags & libc::NLM_F_CAPPED != 0) {
            (true, _) => 0,
            (false, true) => HEADER,
            (false, false) => u32_at(message.payload, 4)
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(usize::MAX),
        };
        let skip = refused.min(message.payload.len()).saturating_add(4);
        explanation = Attributes::after(message.payload, skip)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, payload)| text(payload))
            .unwrap_or_default();
    }
    Err(Refusal {
        errno: Errno::from_raw(code.saturating_neg()),
        text: explanation,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::socket::sockopt;

    use super::*;

    fn error(flags: i32, payload: &[u8]) -> Result<()> {
        outcome(&Message {
            kind: libc::NLMSG_ERROR as u16,
            flags: flags as u16,
            sequence: 1,
            port: 1,
            payload,
        })
    }

    fn refusal(flags: i32, payload: &[u8]) -> Refusal {
        error(flags, payload).unwrap_err().downcast().unwrap()
    }

    /// -EINVAL, a request of `length` bytes of which `kept` are repeated, and the text "no".
    fn payload(length: u32, kept: usize) -> Vec<u8> {
        let mut bytes = (-22i32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.resize(4 + kept, 0);
        bytes.extend_from_slice(&7u16.to_ne_bytes());
        bytes.extend_from_slice(&NLMSGERR_ATTR_MSG.to_ne_bytes());
        bytes.extend_from_slice(b"no\0\0");
        bytes
    }

    #[test]
    fn the_explanation_follows_the_request_or_its_header() {
        let tlvs = libc::NLM_F_ACK_TLVS;
        assert_eq!(refusal(tlvs, &payload(40, 40)).text, "no");
        let capped = refusal(tlvs | libc::NLM_F_CAPPED, &payload(40, HEADER));
        assert_eq!(capped.text, "no");
        assert_eq!(capped.errno, Errno::EINVAL);
        assert_eq!(refusal(0, &payload(40, 40)).text, "");
    }

    #[test]
    fn hostile_lengths_lose_the_explanation_and_nothing_else() {
        for length in [0, 1, 39, 41, 1 << 20, u32::MAX] {
            for kept in 4..48 {
                let bytes = payload(length, kept);
                for end in 4..bytes.len() {
                    let refused = refusal(libc::NLM_F_ACK_TLVS, &bytes[..end]);
                    assert_eq!(refused.errno, Errno::EINVAL);
                }
            }
        }
        assert!(error(0, &[]).is_err());
        assert!(error(0, &i32::MIN.to_ne_bytes()).is_err());
        assert!(error(0, &0i32.to_ne_bytes()).is_ok());
    }

    /// For a route to an address of the wrong length.
    fn route_to_half_an_address() -> Request {
        let mut fixed = [0; 12];
        fixed[0] = libc::AF_INET as u8;
        Request::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST as u16, &fixed)
            .attribute(libc::RTA_DST, &[127, 0])
            .unwrap()
    }

    /// For nothing but an answer.
    fn acknowledgement() -> Request {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        Request::new(libc::NLMSG_NOOP as u16, flags, &[])
    }

    #[test]
    fn each_request_of_a_batch_has_its_own_outcome() {
        let mut socket = Socket::open(0).unwrap();
        // Sequence numbers start again at 0 in the middle.
        socket.sequence = u32::MAX - 50;
        let mut requests = vec![acknowledgement(); 100];
        requests[70] = route_to_half_an_address();
        let outcomes = socket.batch(requests).unwrap();
        assert_eq!(outcomes.len(), 100);
        for (place, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.is_err(), place == 70, "{place}: {outcome:?}");
        }
        let refusal = outcomes[70].as_ref().unwrap_err();
        assert!(!refusal.text.is_empty(), "{refusal:?}");
    }

    #[test]
    fn lost_answers_are_an_error_at_once() {
        let mut socket = Socket::open(0).unwrap();
        // The smallest buffer that the kernel gives holds an answer or two.
        setsockopt(&socket, sockopt::RcvBuf, &1).unwrap();
        let asked = Instant::now();
        let error = socket.batch(vec![acknowledgement(); 100]).unwrap_err();
        assert!(asked.elapsed().as_secs() < PATIENCE as u64);
        assert_eq!(error.downcast_ref(), Some(&Errno::ENOBUFS), "{error:?}");
        // The next ones are answered again, and not by what came late.
        let refused = socket.batch(vec![route_to_half_an_address()]).unwrap();
        assert!(refused[0].is_err(), "{refused:?}");
    }

    #[test]
    fn the_kernel_explains_what_it_refuses() {
        let request = route_to_half_an_address();
        let mut socket = Socket::open(0).unwrap();
        let error = socket.request(request, |_| ()).unwrap_err();
        let refusal: Refusal = error.downcast().unwrap();
        assert!(!refusal.text.is_empty(), "{refusal:?}");
        // The socket is usable afterwards.
        let request = Request::new(
            libc::RTM_GETLINK,
            (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
            &[0; 16],
        );
        assert!(!socket.dump(&request, |_| Some(())).unwrap().is_empty());
    }
}
