//! One application, and what is held for it.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::anyhow;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, send};

use super::protocol::{Answer, Fault, REQUEST, Request, Verb, answer};
use super::served::Served;
use crate::failure::say;
use crate::tcp_hold::connection::{Progress, network_namespace};
use crate::tcp_hold::held::Held;
use crate::tcp_hold::holder::Holds;

/// A control connection. When it ends, the agent's copies of the sockets are closed; where they are the last
/// ones the peers get a reset.
pub struct Client {
    wire: OwnedFd,
    held: HashMap<u32, Held<OwnedFd>>,
    /// The last handle that was given.
    last: u32,
}

/// A packet, as it came.
struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// There were more; the kernel has opened as many as there is room for, and this process may have.
    is_cut: bool,
}

impl Client {
    pub fn new(wire: OwnedFd) -> Client {
        Client {
            wire,
            held: HashMap::new(),
            last: 0,
        }
    }

    pub fn wire(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    /// Answers one request, if there is one. `false`: the application has gone, or does not read its answers.
    pub fn serve(&mut self, holds: &Holds, served: &Served) -> bool {
        let packet = match receive(self.wire.as_fd()) {
            Ok(Some(packet)) => packet,
            Ok(None) => return false,
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Err(_) => return false,
        };
        let verb = packet.bytes.get(1).copied().unwrap_or(0);
        let outcome = self.outcome(packet, holds);
        served.answered(&outcome);
        let answer = answer(verb, outcome);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.wire.as_raw_fd(), &answer, flags).is_ok()
    }

    fn outcome(&mut self, packet: Packet, holds: &Holds) -> Result<Answer, Fault> {
        let request = Request::parse(&packet.bytes)?;
        if packet.is_cut && packet.descriptors.len() < MOST_DESCRIPTORS {
            return Err(refused(anyhow!(
                "take a socket: the agent may open no more files"
            )));
        }
        let mut descriptors = packet.descriptors.into_iter();
        let socket = match (descriptors.next(), descriptors.next()) {
            (socket, None) if !packet.is_cut => socket,
            _ => return Err(Fault::Malformed),
        };
        match (request.verb, socket) {
            (Verb::Hold, Some(socket)) => {
                self.check_namespace(&socket)?;
                let held = holds.hold(socket).map_err(refused)?;
                let handle = self.next_handle();
                let answer = state(handle, &held)?;
                self.held.insert(handle, held);
                Ok(answer)
            }
            (Verb::HoldAccepted, Some(socket)) => {
                self.check_namespace(&socket)?;
                holds.hold_accepted(&socket).map_err(refused)?;
                Ok(Answer::default())
            }
            (Verb::Hold | Verb::HoldAccepted, None) | (_, Some(_)) => Err(Fault::Malformed),
            (Verb::Confirm, None) => {
                let held = self.held.get(&request.handle).ok_or(Fault::Handle)?;
                confirm(held, request.bytes)?;
                state(request.handle, held)
            }
            (Verb::Ask, None) => {
                let held = self.held.get(&request.handle).ok_or(Fault::Handle)?;
                state(request.handle, held)
            }
            (Verb::Release, None) => {
                let held = self.held.remove(&request.handle).ok_or(Fault::Handle)?;
                let confirmed = held.confirmed().map_err(refused)?;
                let has_ended = held.has_ended().map_err(refused)?;
                let socket = held.release().map_err(refused)?;
                // From now on the kernel acknowledges whatever has come.
                let progress = Progress::of(&socket, has_ended).map_err(refused)?;
                Ok(Answer {
                    handle: request.handle,
                    confirmed,
                    promised: progress.received,
                })
            }
            (Verb::Close, None) => {
                let held = self.held.remove(&request.handle).ok_or(Fault::Handle)?;
                state(request.handle, &held)
            }
        }
    }

    /// The programs stand in one network namespace; sockets of another one would seem to be held.
    fn check_namespace(&self, socket: &OwnedFd) -> Result<(), Fault> {
        let theirs = network_namespace(socket).map_err(refused)?;
        // That of the agent, where its socket was made.
        let ours = network_namespace(&self.wire).map_err(refused)?;
        if theirs == ours {
            Ok(())
        } else {
            Err(Fault::Elsewhere)
        }
    }

    fn next_handle(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.held.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

fn confirm(held: &Held<OwnedFd>, bytes: u64) -> Result<(), Fault> {
    let confirmed = held.confirmed().map_err(refused)?;
    let read = held.read().map_err(refused)?;
    if confirmed.checked_add(bytes).is_none_or(|sum| sum > read) {
        return Err(Fault::Beyond);
    }
    held.confirm(bytes).map_err(refused)?;
    held.announce().map_err(refused)?;
    Ok(())
}

fn state(handle: u32, held: &Held<OwnedFd>) -> Result<Answer, Fault> {
    Ok(Answer {
        handle,
        confirmed: held.confirmed().map_err(refused)?,
        promised: held.promised().map_err(refused)?,
    })
}

fn refused(error: anyhow::Error) -> Fault {
    say(format_args!("{error:#}"));
    Fault::Refused
}

/// That are taken from a packet: one too many. The kernel does not open what does not fit.
const MOST_DESCRIPTORS: usize = 2;
/// Room for them, behind the header of their control message.
const CONTROL: usize = size_of::<libc::cmsghdr>() + MOST_DESCRIPTORS * size_of::<RawFd>();

/// Aligned as control messages have to be.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The next packet, with the descriptors that came with it; `None`: the other side has closed. One that is too
/// long is cut off behind the byte that shows it. (What nix 0.31 makes of a message whose descriptors did not
/// all fit is an error, and the others stay open for ever.)
fn receive(wire: BorrowedFd<'_>) -> nix::Result<Option<Packet>> {
    let mut bytes = vec![0; REQUEST + 1];
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: numbers and pointers, for which 0 is "nothing".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all that the message points to outlives the call, and is as long as it says.
    let length = unsafe { libc::recvmsg(wire.as_raw_fd(), &raw mut message, flags) };
    let length = Errno::result(length)? as usize;
    let descriptors = passed(&message);
    bytes.truncate(length);
    Ok((length > 0).then_some(Packet {
        bytes,
        descriptors,
        is_cut: message.msg_flags & libc::MSG_CTRUNC != 0,
    }))
}

/// The descriptors that came with a message, as recvmsg has left it.
fn passed(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled in the control messages up to `msg_controllen`, each as long as it says; in
    // one of descriptors there are as many as fit into its length. They were opened for this process, and
    // nobody else knows them.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = control.as_ref() {
            if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = header.cmsg_len - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(control).cast::<RawFd>();
                for place in 0..bytes / size_of::<RawFd>() {
                    let descriptor = first.add(place).read_unaligned();
                    descriptors.push(OwnedFd::from_raw_fd(descriptor));
                }
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
    descriptors
}
