//! How threads of a simulation end: at once, wherever they wait, and without a socket that would keep their
//! namespace.

use std::io::{self, PipeReader, PipeWriter};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

/// Held by whoever started threads: dropping it asks them to end.
#[derive(Debug)]
pub(crate) struct Running {
    _writer: PipeWriter,
}

/// A thread's view of it.
#[derive(Debug, Clone)]
pub(crate) struct Ending(Arc<PipeReader>);

/// What a thread has waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something is ready, or the time has come.
    ToWork,
    /// It is to end.
    ToEnd,
}

/// For threads that are about to be started.
pub(crate) fn ending() -> io::Result<(Running, Ending)> {
    let (reader, writer) = io::pipe()?;
    Ok((Running { _writer: writer }, Ending(Arc::new(reader))))
}

impl Ending {
    /// Waits until one of these is ready or that moment has come, but no longer than to the end.
    pub(crate) fn wait<'a>(
        &'a self,
        fds: &mut Vec<PollFd<'a>>,
        until: Option<Instant>,
    ) -> io::Result<Woken> {
        // A pipe hangs up when its last writer goes; that needs no asking.
        fds.push(PollFd::new(self.0.as_fd(), PollFlags::empty()));
        let result = wait(fds, until);
        let ended = fds.pop().is_some_and(|fd| fd.any() == Some(true));
        result.map(|()| if ended { Woken::ToEnd } else { Woken::ToWork })
    }
}

/// Waits until one of these is ready or that moment has come.
pub(crate) fn wait(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    // In nanoseconds: rounded to poll's milliseconds it would wait too long, or spin.
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    match ppoll(fds, left.map(TimeSpec::from_duration), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Closes a connection by a reset, of which nothing stays: a connection that is closed in order keeps the
/// namespace until the other side has agreed, which may be never.
pub(crate) fn reset(stream: TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Where that fails the connection is closed in order.
    let _ = setsockopt(&stream, sockopt::Linger, &at_once);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn an_end_wakes_who_waits_and_time_does_too() {
        let (running, ending) = ending().unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(ending.wait(&mut vec![], Some(soon)).unwrap(), Woken::ToWork);
        assert!(Instant::now() >= soon);
        let (readable, writer) = io::pipe().unwrap();
        drop(writer);
        let mut fds = vec![PollFd::new(readable.as_fd(), PollFlags::POLLIN)];
        assert_eq!(ending.wait(&mut fds, None).unwrap(), Woken::ToWork);
        assert_eq!(fds.len(), 1);
        assert_eq!(fds[0].any(), Some(true));
        let waiting = thread::spawn({
            let ending = ending.clone();
            move || ending.wait(&mut vec![], None).unwrap()
        });
        drop(running);
        assert_eq!(waiting.join().unwrap(), Woken::ToEnd);
        assert_eq!(ending.wait(&mut vec![], None).unwrap(), Woken::ToEnd);
    }
}
