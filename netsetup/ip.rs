//! The `ip` command of iproute2: one function, one call or one batch.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;

use crate::child;

/// Where a batch runs, and what it has to hold while it does.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Name and file of the network namespace; `None` is that of the caller.
    pub namespace: Option<(&'a str, &'a File)>,
    /// The instance lock. The child keeps a copy, so that after our death nobody takes the lock
    /// while an `ip` of ours may still be making something.
    pub lock: BorrowedFd<'a>,
}

/// A batch that `ip` refused.
#[derive(Debug)]
pub struct Refused {
    /// The line that failed, without the leading `ip`; the whole batch where `ip` names none.
    pub command: String,
    /// What `ip` wrote on stderr, in one line.
    pub stderr: String,
    place: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ip {}{}: {}", self.command, self.place, self.stderr)
    }
}

impl std::error::Error for Refused {}

/// Runs the lines in one `ip -batch`, up to the first that fails.
pub fn batch(lines: &[String], place: Place<'_>) -> Result<()> {
    run_batch(&["-batch", "-"], lines, place)
}

/// Runs all lines in one `ip -batch`, also those after one that fails.
pub fn batch_to_the_end(lines: &[String], place: Place<'_>) -> Result<()> {
    run_batch(&["-force", "-batch", "-"], lines, place)
}

fn run_batch(arguments: &[&str], lines: &[String], place: Place<'_>) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = ip(arguments);
    command.stdin(anonymous_file(lines).context("write the batch for ip")?);
    child::hand_over(&mut command, place.lock);
    if let Some((_, file)) = place.namespace {
        child::put_into(&mut command, file)?;
    }
    let output = finish(&mut command, arguments)?;
    if output.status.success() {
        return Ok(());
    }
    let place = match place.namespace {
        Some((name, _)) => format!(" (in namespace {name})"),
        None => String::new(),
    };
    Err(refused(lines, &output, place).into())
}

/// One link, as `ip -details -json link show` tells it.
#[derive(Debug, Deserialize)]
pub struct LinkState {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub ifname: String,
    /// Further names, none of which a new link may take.
    #[serde(default)]
    pub altnames: Vec<String>,
    /// Link-layer address, as text; not every kind of link has one.
    pub address: Option<String>,
    /// RFC 2863 state: `UP`, `DOWN`, `LOWERLAYERDOWN`, `UNKNOWN`, ...
    #[serde(default)]
    pub operstate: String,
    #[serde(default)]
    linkinfo: LinkInfo,
}

#[derive(Debug, Default, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    #[serde(default)]
    info_slave_data: PortInfo,
}

#[derive(Debug, Default, Deserialize)]
struct PortInfo {
    state: Option<String>,
}

impl LinkState {
    /// Whether packets pass: the link is up, and forwards if it is the port of a bridge.
    pub fn carries_packets(&self) -> bool {
        let port = self.linkinfo.info_slave_data.state.as_deref();
        let is_up = match self.linkinfo.info_kind.as_deref() {
            // It has no carrier to be up or down: once it is set up, that is all there is to know.
            Some("vxlan") => self.operstate == "UNKNOWN",
            _ => self.operstate == "UP",
        };
        is_up && port.is_none_or(|state| state == "forwarding")
    }
}

/// All links of the caller's network namespace.
pub fn links() -> Result<Vec<LinkState>> {
    let arguments = ["-details", "-json", "link", "show"];
    let output = finish(ip(&arguments).stdin(Stdio::null()), &arguments)?;
    if !output.status.success() {
        let line = [arguments.join(" ")];
        return Err(refused(&line, &output, String::new()).into());
    }
    serde_json::from_slice(&output.stdout)
        .context("read the output of `ip -details -json link show`")
}

/// The line that gives `device` an address. IPv6 addresses are usable at once: `nodad` leaves out
/// duplicate address detection (RFC 4862, 5.4), which would hold them back for a second.
pub fn address_line(device: &str, address: IpAddr, prefix: u8) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("address add {address}/{prefix} dev {device}{nodad}")
}

/// The line that sets a link up.
pub fn up_line(device: &str) -> String {
    format!("link set dev {device} up")
}

fn ip(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    // Messages are part of what we report and test.
    command.args(arguments).env("LC_ALL", "C");
    child::tie_to_this_thread(&mut command);
    command
}

fn finish(command: &mut Command, arguments: &[&str]) -> Result<Output> {
    command.output().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            anyhow!("the command `ip` is not in PATH; install iproute2")
        } else {
            anyhow!(error).context(format!("run ip {}", arguments.join(" ")))
        }
    })
}

/// A file rather than a pipe: neither a child that ends early nor one that writes much can block
/// or signal us.
fn anonymous_file(lines: &[String]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"ip-batch", MFdFlags::MFD_CLOEXEC)?);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.rewind()?;
    Ok(file)
}

/// `ip` closes its complaint with `Command failed -:N`, N being the line of the batch.
fn refused(lines: &[String], output: &Output, place: String) -> Refused {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut failed: Option<&String> = None;
    let mut complaint = Vec::new();
    for line in stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        match line.strip_prefix("Command failed -:") {
            Some(number) => {
                failed = failed.or(number
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| lines.get(number.checked_sub(1)?)));
            }
            None => complaint.push(line),
        }
    }
    if complaint.is_empty() {
        return Refused {
            command: lines.join("; "),
            stderr: output.status.to_string(),
            place,
        };
    }
    Refused {
        command: failed.cloned().unwrap_or_else(|| lines.join("; ")),
        stderr: complaint.join("; "),
        place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn output(stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(1 << 8),
            stdout: Vec::new(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn a_refusal_names_the_line_that_failed() {
        let lines = [
            "link add a type bridge".into(),
            "link add b type veth".into(),
        ];
        let output = output("RTNETLINK answers: File exists\nCommand failed -:2\n");
        let text = refused(&lines, &output, " (in namespace wan0)".into()).to_string();
        assert_eq!(
            text,
            "ip link add b type veth (in namespace wan0): RTNETLINK answers: File exists"
        );
    }

    #[test]
    fn a_refusal_without_words_shows_all_lines_and_the_status() {
        let lines = [
            "link add a type bridge".into(),
            "link add b type veth".into(),
        ];
        let text = refused(&lines, &output(""), String::new()).to_string();
        assert_eq!(
            text,
            "ip link add a type bridge; link add b type veth: exit status: 1"
        );
    }

    #[test]
    fn only_ipv6_addresses_skip_duplicate_address_detection() {
        assert_eq!(
            address_line("eth0", "172.16.1.5".parse().unwrap(), 24),
            "address add 172.16.1.5/24 dev eth0"
        );
        assert_eq!(
            address_line("eth0", "fd00::5".parse().unwrap(), 64),
            "address add fd00::5/64 dev eth0 nodad"
        );
    }

    #[test]
    fn a_port_carries_packets_once_it_forwards() {
        let state = |state: &str| -> LinkState {
            let json = format!(
                r#"{{"ifindex":5,"ifname":"a","operstate":"UP","linkinfo":
                    {{"info_slave_kind":"bridge","info_slave_data":{{"state":"{state}"}}}}}}"#
            );
            serde_json::from_str(&json).unwrap()
        };
        assert!(state("forwarding").carries_packets());
        assert!(!state("learning").carries_packets());
        let plain: LinkState =
            serde_json::from_str(r#"{"ifindex":5,"ifname":"a","operstate":"DOWN"}"#).unwrap();
        assert!(!plain.carries_packets());
    }

    #[test]
    fn only_a_tunnel_carries_packets_without_a_carrier() {
        for (kind, operstate, carries) in [
            ("vxlan", "UNKNOWN", true),
            ("vxlan", "DOWN", false),
            ("veth", "UNKNOWN", false),
            ("veth", "UP", true),
        ] {
            let json = format!(
                r#"{{"ifindex":5,"ifname":"a","operstate":"{operstate}",
                    "linkinfo":{{"info_kind":"{kind}"}}}}"#
            );
            let link: LinkState = serde_json::from_str(&json).unwrap();
            assert_eq!(link.carries_packets(), carries, "{json}");
        }
    }
}
