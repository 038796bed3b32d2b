//! Appends what comes by a connection to a log; what is not on the disk, the peer still has.
//!
//! usage: tcp_hold_log INTERFACE LOG ADDRESS:PORT    (INTERFACE: that by which the peers are reached)
//! Whoever connects is told first, in 8 bytes, how much of his stream the log has already.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{self, Path};

use anyhow::{Context, Result, bail};
use netbpf::netlink::Netlink;
use netbpf::port::Port;
use netbpf::tc::Method;
use netbpf::tcp_hold::{Holder, Setup};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

/// Bytes that are written, and confirmed, at once.
pub const BATCH: usize = 65536;
/// Connections that wait to be accepted.
const WAITING: i32 = 128;

/// Where the stream goes.
pub trait Log: Write {
    /// How much it has.
    fn length(&self) -> io::Result<u64>;

    /// Returns when all that was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Log for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, log, address] = &arguments[..] else {
        bail!("usage: tcp_hold_log INTERFACE LOG ADDRESS:PORT");
    };
    let address = address.parse().context("read ADDRESS:PORT")?;
    let mut log = open(Path::new(log)).with_context(|| format!("open {log}"))?;
    run(interface, None, address, &mut log, |port| {
        println!("ready {port}");
    })
}

/// So that it is still there after the machine has gone down.
fn open(path: &Path) -> io::Result<File> {
    let log = File::options().create(true).append(true).open(path)?;
    log.sync_all()?;
    if let Some(folder) = path::absolute(path)?.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(log)
}

/// Serves one peer after the other; `ready` is told the port.
pub fn run(
    interface: &str,
    method: Option<Method>,
    address: SocketAddr,
    log: &mut impl Log,
    ready: impl FnOnce(u16),
) -> Result<()> {
    let port = Port::find(&mut Netlink::open()?, interface)?;
    let mut object = MaybeUninit::uninit();
    let mut holder = Holder::load(&Setup::default(), &mut object)?;
    holder.attach(method, &[port])?;
    let listener = held_listener(&holder, address)?;
    ready(listener.local_addr()?.port());
    loop {
        let (connection, peer) = listener.accept()?;
        // The peer still has whatever was not confirmed.
        if let Err(error) = serve(&mut holder, connection, log) {
            eprintln!("{peer}: {error:#}");
        }
    }
}

/// What it accepts is held from the first byte on, because it is held before it listens.
fn held_listener(holder: &Holder<'_>, address: SocketAddr) -> Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&listener, sockopt::ReuseAddr, &true)?;
    let bound = bind(listener.as_raw_fd(), &SockaddrStorage::from(address));
    bound.with_context(|| format!("bind to {address}"))?;
    holder.hold_accepted(&listener)?;
    listen(&listener, Backlog::new(WAITING)?)?;
    Ok(listener.into())
}

/// Until the peer has said all, or the connection ends.
fn serve(holder: &mut Holder<'_>, connection: TcpStream, log: &mut impl Log) -> Result<()> {
    let held = holder.hold(connection)?;
    (&*held).write_all(&log.length()?.to_be_bytes())?;
    let mut batch = vec![0; BATCH];
    loop {
        // Where the guard was killed, another one takes its place.
        holder.guard_again()?;
        let bytes = (&*held).read(&mut batch)?;
        if bytes == 0 {
            break;
        }
        log.write_all(&batch[..bytes])?;
        log.sync()?;
        held.confirm(bytes as u64)?;
        held.announce()?;
    }
    // All is confirmed: it ends in order.
    held.release()?;
    Ok(())
}
