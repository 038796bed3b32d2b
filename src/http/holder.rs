//! Who listens on a port, for the line that says it is taken.

use std::fmt;
use std::fs;
use std::net::SocketAddr;

/// A process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// State of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// Who listens on that port in this thread's network namespace, as far as this user may see it.
pub(super) fn of(address: SocketAddr) -> Option<Holder> {
    let port = format!(":{:04X}", address.port());
    let tables = ["tcp", "tcp6"].map(|table| {
        // The thread's own: the main thread may be in another namespace.
        fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default()
    });
    let inodes = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTEN;
            listens.then(|| fields.get(9).copied()).flatten()
        });
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find_map(|pid: u32| {
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        files
            .any(|file| {
                let target = fs::read_link(file.path());
                target.is_ok_and(|target| {
                    sockets
                        .iter()
                        .any(|socket| target.as_os_str() == socket.as_str())
                })
            })
            .then(|| Holder {
                pid,
                name: name(pid),
            })
    })
}

/// What the process calls itself, without what would disturb a terminal.
fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = of(address).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.name.is_empty());
        assert_eq!(
            holder.to_string(),
            format!("{} (pid {})", holder.name, holder.pid)
        );
    }
}
