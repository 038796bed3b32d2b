//! Measurement servers inside namespaces.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{AccessFlags, access};

use crate::child;

/// How long a server may take until it listens; they take milliseconds.
const LISTENS: Duration = Duration::from_secs(5);
/// Milliseconds that netserver may take from then on until it has said so; it is the next thing that
/// it does. One that never does is taken as it is.
const SAYS_SO: u16 = 500;

/// Called with every line that a server says when it starts. An error ends the start.
pub type OnLine<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// Which server runs, and so which client fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `netserver`, measured by `netperf`.
    Netperf,
    /// `iperf3 -s`, measured by `iperf3 -c`.
    Iperf3,
}

impl Kind {
    /// The first of them that is installed.
    pub fn find() -> Option<Kind> {
        Kind::find_in(&env::var_os("PATH")?)
    }

    fn find_in(path: &OsStr) -> Option<Kind> {
        [Kind::Netperf, Kind::Iperf3].into_iter().find(|kind| {
            env::split_paths(path).any(|folder| is_program(&folder.join(kind.argv()[0])))
        })
    }

    fn argv(self) -> [&'static str; 2] {
        match self {
            Kind::Netperf => ["netserver", "-D"],
            Kind::Iperf3 => ["iperf3", "-s"],
        }
    }

    /// The TCP port that it listens on.
    pub fn port(self) -> u16 {
        match self {
            Kind::Netperf => 12865,
            Kind::Iperf3 => 5201,
        }
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// A server that runs as long as this value, and no longer than the thread that started it; so does
/// the process that netserver has for each connection, which would wait for a peer that is gone.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    namespace: String,
    /// Its stdout is kept: a server that has something to say later must not die of it (SIGPIPE).
    child: Child,
}

impl Server {
    /// Starts a server in a namespace, in a process group of its own: Ctrl-C is for us alone.
    pub(crate) fn start(kind: Kind, namespace: &str, file: &File) -> Result<Server> {
        let [program, argument] = kind.argv();
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null());
        match kind {
            Kind::Netperf => command.stdout(Stdio::piped()),
            // It tells of every connection.
            Kind::Iperf3 => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        child::tie_to_this_thread(&mut command);
        child::put_into(&mut command, file)?;
        let child = child::spawn_with_its_own(&mut command)
            .with_context(|| format!("start {program} in {namespace}"))?;
        Ok(Server {
            kind,
            namespace: namespace.into(),
            child,
        })
    }

    /// Waits until the server accepts connections, and passes on what it says about that.
    pub(crate) fn wait_until_listening(&mut self, on_line: &mut OnLine<'_>) -> Result<()> {
        let [program, argument] = self.kind.argv();
        let what = format!("{program} {argument} in namespace {}", self.namespace);
        let deadline = Instant::now() + LISTENS;
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.with_context(|| format!("look at {what}"))? {
                bail!("{what} ended at once ({status})");
            }
            if listens(self.child.id(), self.kind.port())
                .map_err(|error| anyhow!(error).context(format!("look at the sockets of {what}")))?
            {
                return self.said()?.lines().try_for_each(on_line);
            }
            if Instant::now() > deadline {
                bail!("{what} does not listen on port {}", self.kind.port());
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// What netserver writes, all at once, when it has begun to listen.
    fn said(&mut self) -> Result<String> {
        let Some(stdout) = &mut self.child.stdout else {
            return Ok(String::new());
        };
        let mut text = [0; 1024];
        let mut length = 0;
        let mut waiting = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        // Interrupted is as good as silent: a signal ends the tool.
        if poll(&mut waiting, SAYS_SO).is_ok_and(|ready| ready > 0) {
            length = stdout.read(&mut text).context("read what netserver says")?;
        }
        let text = text.get(..length).unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends only when everything that it started has. Both fail when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether something listens on `port` in the network namespace of process `pid`.
fn listens(pid: u32, port: u16) -> io::Result<bool> {
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            Ok(text) if has_listener(&text, port) => return Ok(true),
            Ok(_) => {}
            // A kernel without IPv6, or a server that has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Lines of /proc/net/tcp: `sl local_address rem_address st ...`, addresses as `HEX:PORT`, state
/// 0A being LISTEN.
fn has_listener(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next();
        local.is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let listening = "  sl  local_address rem_address   st tx_queue\n\
                         \u{20}  0: 00000000:1451 00000000:0000 0A 00000000:00000000\n";
        let connected = "  sl  local_address rem_address   st tx_queue\n\
                         \u{20}  0: 0100007F:1451 0100007F:8000 01 00000000:00000000\n";
        assert!(has_listener(listening, 5201));
        assert!(!has_listener(listening, 12865));
        assert!(!has_listener(connected, 5201));
    }
}
