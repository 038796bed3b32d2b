//! A connection whose reader has to go on reading.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

/// How long a peer may take to close its end once it has been answered.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a peer may send after its last request before it is cut off.
const DISREGARDED: usize = 64 * 1024;

/// Stands between an answer and its connection: while the reader takes nothing, no more of the answer is
/// made. (hyper alone would go on until it holds 8 KiB.)
#[derive(Default)]
pub(super) struct Valve {
    is_shut: Cell<bool>,
    /// Whom to tell when it opens.
    waiting: Cell<Option<Waker>>,
}

impl Valve {
    /// Whether the next piece may be made; if not, the task is woken when it may.
    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_shut.get() {
            self.waiting.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn open(&self) {
        self.is_shut.set(false);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// A connection. Unless both sides have parted in order, dropping it resets it: what was not sent goes at
/// once, and with it what keeps the network namespace.
pub(super) struct Wire {
    stream: TcpStream,
    valve: Rc<Valve>,
    patience: Duration,
    /// Since when nothing could be written: runs out when patience has.
    stalled: Option<Pin<Box<Sleep>>>,
    parted: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, valve: Rc<Valve>, patience: Duration) -> Wire {
        Wire {
            stream,
            valve,
            patience,
            stalled: None,
            parted: false,
        }
    }

    /// Closes it so that the peer sees all of the answer: a connection that is closed while something
    /// comes in is reset by the kernel, and the answer may be lost.
    pub(super) async fn part(mut self) {
        if self.stalled.is_some() || self.stream.shutdown().await.is_err() {
            return;
        }
        let deadline = Instant::now() + FAREWELL;
        let mut disregarded = 0;
        let mut bytes = [0; 256];
        while disregarded < DISREGARDED {
            match timeout_at(deadline, self.stream.read(&mut bytes)).await {
                Ok(Ok(0)) => {
                    self.parted = true;
                    return;
                }
                Ok(Ok(length)) => disregarded += length,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// What a write has come to, if the reader is still waited for.
    fn bounded<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            self.valve.open();
            return written;
        }
        self.valve.is_shut.set(true);
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        let over = stalled.as_mut().poll(cx);
        over.map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.bounded(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if !self.parted {
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            // Where that fails the kernel closes it in its own time.
            let _ = setsockopt(&self.stream, sockopt::Linger, &at_once);
        }
    }
}
