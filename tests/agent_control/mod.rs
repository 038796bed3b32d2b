//! What an application says to the agent, and hears (docs/tcp_hold_agent.md).

use std::array::from_fn;
use std::io::IoSlice;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use testbed::step;

use crate::held_peer::{Network, patient, until};

/// An application's control connection.
pub struct Control(OwnedFd);

impl Control {
    /// To the agent that is at work there, or is about to be.
    pub fn open(agent: &str) -> Control {
        let flags = SockFlag::SOCK_CLOEXEC;
        let wire = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None);
        let wire = step("open a socket", wire);
        let address = step("name it", UnixAddr::new(agent));
        until("the agent listens", || {
            connect(wire.as_raw_fd(), &address).is_ok()
        });
        Control(wire)
    }

    /// The answer to these bytes.
    pub fn say(&self, bytes: &[u8], descriptors: &[RawFd]) -> [u8; 24] {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() {
            &[]
        } else {
            &rights[..]
        };
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::empty(), None);
        step("ask", sent);
        let mut answer = [0; 24];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty());
        assert_eq!(step("hear", length), 24);
        answer
    }

    /// Error, handle, confirmed, promised.
    pub fn ask(&self, verb: u8, handle: u32, bytes: u64, fds: &[RawFd]) -> (u16, u32, u64, u64) {
        let mut request = vec![1, verb, 0, 0];
        request.extend(handle.to_be_bytes());
        request.extend(bytes.to_be_bytes());
        let answer = self.say(&request, fds);
        assert_eq!(answer[..2], [1, verb]);
        let number = |at: usize| u64::from_be_bytes(from_fn(|place| answer[at + place]));
        (
            u16::from_be_bytes([answer[2], answer[3]]),
            u32::from_be_bytes(from_fn(|place| answer[4 + place])),
            number(8),
            number(16),
        )
    }
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A connection whose bytes are held from the first one on, and the peer's end of it.
pub fn accepted(network: &Network, control: &Control) -> (TcpStream, TcpStream) {
    let listener = step("listen", TcpListener::bind((network.here, 0)));
    assert_eq!(control.ask(6, 0, 0, &[listener.as_raw_fd()]), (0, 0, 0, 0));
    let peer = network.connect_from_peer(step("address", listener.local_addr()));
    let (stream, _) = step("accept", listener.accept());
    (patient(stream), peer)
}
