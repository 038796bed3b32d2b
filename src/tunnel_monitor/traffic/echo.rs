//! Echo requests and their answers (RFC 792, RFC 4443 4.1 and 4.2), by sockets that need CAP_NET_RAW only
//! when they are opened.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto,
    socket,
};

use super::list::MARK;

/// Types of messages.
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
/// Type, code, checksum, identifier, number.
const HEADER: usize = 8;
/// linux/icmp.h, and where it is set (SOL_RAW).
const ICMP_FILTER: libc::c_int = 1;
/// linux/icmpv6.h
const ICMPV6_FILTER: libc::c_int = 1;

/// A socket for all echoes of one namespace and one version of IP.
#[derive(Debug)]
pub struct EchoSocket {
    socket: OwnedFd,
    v6: bool,
}

/// An answer to one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who sent it.
    pub from: IpAddr,
    /// The identifier that the request had.
    pub id: u16,
    /// Bytes behind the header.
    pub size: usize,
}

impl EchoSocket {
    /// In the network namespace of the calling thread.
    pub fn open(v6: bool) -> Result<EchoSocket> {
        let (family, protocol) = if v6 {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp)
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Raw, flags, protocol).context("open a raw socket")?;
        let filtered = if v6 {
            let mut blocked = [u32::MAX; 8];
            let (word, bit) = (usize::from(REPLY_V6 / 32), REPLY_V6 % 32);
            if let Some(word) = blocked.get_mut(word) {
                *word &= !(1 << bit);
            }
            filter(&socket, (libc::IPPROTO_ICMPV6, ICMPV6_FILTER), &blocked)
        } else {
            let blocked = !(1_u32 << REPLY_V4);
            filter(&socket, (libc::SOL_RAW, ICMP_FILTER), &blocked)
        };
        filtered.context("leave everything but answers out")?;
        Ok(EchoSocket { socket, v6 })
    }

    /// Sends a request.
    pub fn send(&self, to: IpAddr, message: &[u8]) -> nix::Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(self.socket.as_raw_fd(), message, &to, MsgFlags::empty()).map(drop)
    }

    /// The next answer with that mark that is there, whatever else comes before it.
    pub fn receive(&self, mark: &[u8; MARK]) -> nix::Result<Option<Answer>> {
        let mut buffer = [0; 2048];
        loop {
            let got = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer);
            let (length, from) = match got {
                Ok(got) => got,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let answer = from.and_then(|from| self.answer(packet, ip(&from)?, mark));
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }

    fn answer(&self, packet: &[u8], from: IpAddr, mark: &[u8; MARK]) -> Option<Answer> {
        // Of IPv4 the kernel hands the header over too, of IPv6 it does not.
        let skip = if self.v6 {
            0
        } else {
            usize::from(packet.first()? & 0x0f) * 4
        };
        let (header, data) = packet.get(skip..)?.split_at_checked(HEADER)?;
        let [kind, code, _, _, id @ ..] = header else {
            return None;
        };
        let id = u16::from_be_bytes([*id.first()?, *id.get(1)?]);
        let reply = if self.v6 { REPLY_V6 } else { REPLY_V4 };
        (*kind == reply && *code == 0 && data.starts_with(mark)).then_some(Answer {
            from,
            id,
            size: data.len(),
        })
    }
}

impl AsRawFd for EchoSocket {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl std::os::fd::AsFd for EchoSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

fn filter<T>(socket: &OwnedFd, (level, name): (i32, i32), blocked: &T) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes from `blocked`, which is that long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(blocked).cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}

/// A request: its number is written into it each time.
#[derive(Debug)]
pub struct Request {
    message: Vec<u8>,
    number: u16,
    v6: bool,
}

impl Request {
    /// With so many bytes behind the header, which begin with the mark.
    pub fn new(v6: bool, id: u16, size: u16, mark: &[u8; MARK]) -> Request {
        let kind = if v6 { REQUEST_V6 } else { REQUEST_V4 };
        let [high, low] = id.to_be_bytes();
        let mut message = vec![kind, 0, 0, 0, high, low, 0, 0];
        message.extend(mark);
        message.resize(HEADER + usize::from(size).max(MARK), 0);
        Request {
            message,
            number: 0,
            v6,
        }
    }

    /// The next one. It counts only once it is [sent](Request::sent).
    pub fn message(&mut self) -> &[u8] {
        let number = self.number.to_be_bytes();
        if let Some(place) = self.message.get_mut(6..8) {
            place.copy_from_slice(&number);
        }
        // Of ICMPv6, over the addresses too, the kernel makes the checksum (RFC 3542, 3.1).
        if !self.v6 {
            self.set_checksum([0, 0]);
            let sum = checksum(&self.message);
            self.set_checksum(sum.to_be_bytes());
        }
        &self.message
    }

    /// The message has gone: the next one has another number.
    pub fn sent(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    fn set_checksum(&mut self, sum: [u8; 2]) {
        if let Some(place) = self.message.get_mut(2..4) {
            place.copy_from_slice(&sum);
        }
    }
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let sum: u32 = message
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKED: [u8; MARK] = *b"netbpf01";

    #[test]
    fn a_request_is_what_the_rfc_says() {
        let mut request = Request::new(false, 0x1234, 9, &MARKED);
        request.message();
        request.sent();
        let message = request.message();
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(message[4..], *b"\x12\x34\x00\x01netbpf01\x00");
        // All 16-bit words add up to all ones, their checksum among them.
        assert_eq!(checksum(message), 0);
        assert_ne!(message[2..4], [0, 0]);
        // RFC 1071, 3: 00 01 f2 03 f4 f5 f6 f7 have the sum dd f2.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_answer_is_told_from_everything_else() {
        // Nothing is received by it: any socket will do.
        let pair = || std::os::unix::net::UnixStream::pair().unwrap().0.into();
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let (v4, v6) = (
            EchoSocket {
                socket: pair(),
                v6: false,
            },
            EchoSocket {
                socket: pair(),
                v6: true,
            },
        );
        let message = |kind: u8, code: u8| -> Vec<u8> {
            [&[kind, code, 0, 0, 0, 7, 0, 1], &MARKED[..], b"rest"].concat()
        };
        let packet = |words: u8, message: &[u8]| -> Vec<u8> {
            let mut packet = vec![0; usize::from(words) * 4];
            packet[0] = 0x40 | words;
            packet.extend(message);
            packet
        };
        let answer = Some(Answer {
            from,
            id: 7,
            size: 12,
        });
        for words in [5, 6, 15] {
            let packet = packet(words, &message(0, 0));
            assert_eq!(v4.answer(&packet, from, &MARKED), answer);
            for length in 0..usize::from(words) * 4 + HEADER + MARK {
                assert_eq!(v4.answer(&packet[..length], from, &MARKED), None);
            }
        }
        assert_eq!(v6.answer(&message(129, 0), from, &MARKED), answer);
        for (kind, code) in [(8, 0), (0, 1), (3, 0), (128, 0)] {
            assert_eq!(
                v4.answer(&packet(5, &message(kind, code)), from, &MARKED),
                None
            );
            assert_eq!(v6.answer(&message(kind, code), from, &MARKED), None);
        }
        assert_eq!(v6.answer(&message(129, 0), from, b"netbpf02"), None);
    }
}
