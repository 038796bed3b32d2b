//! The way out of a network through an interface of the host: forwarding, and the host's address in front
//! of the network's own. By `nft` where it is installed, else by `iptables`; undone by what proves it ours.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::child;
use crate::failure::Failure;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// How a network gets out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// What it was built with.
    pub by: By,
    /// The interface that leads outside.
    pub uplink: String,
    /// The bridge that the network is behind.
    pub bridge: String,
    /// IPv4 addresses of the network, as 192.0.2.0/24.
    pub network: String,
}

/// What rules are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A table of our own (nftables).
    Nft,
    /// Rules in the tables that everybody has, with a comment.
    Iptables,
}

impl By {
    /// The one that is installed.
    pub fn find() -> Result<By> {
        for by in [By::Nft, By::Iptables] {
            match by.command().arg("--version").output() {
                Ok(output) if output.status.success() => return Ok(by),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("run {}", by.program())),
            }
        }
        bail!("neither nft nor iptables is in PATH; install nftables")
    }

    fn program(self) -> &'static str {
        match self {
            By::Nft => "nft",
            By::Iptables => "iptables",
        }
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.program());
        command.env("LC_ALL", "C");
        child::tie_to_this_thread(&mut command);
        command
    }

    fn run(self, words: &[String], lock: BorrowedFd<'_>) -> Result<(), Complaint> {
        let mut command = self.command();
        child::hand_over(&mut command, lock);
        let output = command.args(words).output();
        let output = output.map_err(|error| Complaint(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.split_whitespace().collect();
        Err(Complaint(said.join(" ")))
    }
}

/// What a program has said, in one line.
struct Complaint(String);

impl Complaint {
    /// There is nothing of that to be deleted.
    fn is_absence(&self) -> bool {
        [
            "No such file",
            "does a matching rule exist",
            "does not exist",
            "No chain/target/match",
        ]
        .iter()
        .any(|words| self.0.contains(words))
    }
}

impl Nat {
    /// Makes the rules; `token` marks them as ours.
    pub(crate) fn make(&self, token: &str, lock: BorrowedFd<'_>) -> Result<()> {
        for words in self.calls("-A", token) {
            self.by
                .run(&words, lock)
                .map_err(|complaint| self.error(&words, &complaint))?;
        }
        Ok(())
    }

    /// Removes what there is of them.
    pub(crate) fn remove(&self, token: &str, lock: BorrowedFd<'_>) -> Result<()> {
        let calls = match self.by {
            By::Nft => vec![words(&format!("delete table ip {}", table(token)))],
            By::Iptables => self.calls("-D", token),
        };
        for words in calls {
            match self.by.run(&words, lock) {
                Err(complaint) if !complaint.is_absence() => {
                    return Err(self.error(&words, &complaint));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn error(&self, words: &[String], complaint: &Complaint) -> anyhow::Error {
        let call = format!("{} {}", self.by.program(), words.join(" "));
        let said = &complaint.0;
        // What nft says where the kernel has no tables, or no masquerading.
        if said.contains("Operation not supported") || said.contains("No such file or directory") {
            let text = format!("this kernel has no NAT (CONFIG_NFT_MASQ): {call}: {said}");
            return Failure::Kernel(text).into();
        }
        anyhow!("{call}: {said}")
    }

    /// The calls that make the rules.
    fn calls(&self, action: &str, token: &str) -> Vec<Vec<String>> {
        let Nat {
            uplink,
            bridge,
            network,
            ..
        } = self;
        match self.by {
            By::Nft => {
                let table = table(token);
                let chain = "type nat hook postrouting priority 100;";
                let rule = format!("ip saddr {network} oifname \"{uplink}\" masquerade;");
                vec![vec![format!(
                    "table ip {table} {{ chain out {{ {chain} {rule} }}; }}"
                )]]
            }
            By::Iptables => {
                let comment = format!("-m comment --comment netbpf-{token}");
                let established = "-m conntrack --ctstate RELATED,ESTABLISHED";
                [
                    format!(
                        "-t nat {action} POSTROUTING -s {network} -o {uplink} {comment} -j MASQUERADE"
                    ),
                    format!("{action} FORWARD -i {bridge} -o {uplink} {comment} -j ACCEPT"),
                    format!(
                        "{action} FORWARD -i {uplink} -o {bridge} {established} {comment} -j ACCEPT"
                    ),
                ]
                .map(|line| words(&format!("-w 5 {line}")))
                .into()
            }
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn table(token: &str) -> String {
    format!("netbpf_{token}")
}

/// Whether the host forwards IPv4 packets between its interfaces.
pub(crate) fn is_forwarding() -> Result<bool> {
    let value = fs::read_to_string(FORWARDING).with_context(|| format!("read {FORWARDING}"))?;
    Ok(value.trim() != "0")
}

/// Lets it do so, or not.
pub(crate) fn forward(on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    fs::write(FORWARDING, value).with_context(|| format!("write {value} to {FORWARDING}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(by: By) -> Nat {
        Nat {
            by,
            uplink: "eth9".into(),
            bridge: "br0".into(),
            network: "192.168.100.0/24".into(),
        }
    }

    #[test]
    fn a_table_is_named_by_its_token() {
        let calls = nat(By::Nft).calls("-A", "0123");
        assert_eq!(
            calls.concat().join(" "),
            "table ip netbpf_0123 { chain out { type nat hook postrouting priority 100; \
             ip saddr 192.168.100.0/24 oifname \"eth9\" masquerade; }; }"
        );
    }

    #[test]
    fn what_is_deleted_is_what_was_added() {
        let nat = nat(By::Iptables);
        let added = nat.calls("-A", "0123");
        let deleted = nat.calls("-D", "0123");
        assert_eq!(added.len(), 3);
        for (added, deleted) in added.iter().zip(&deleted) {
            assert!(added.contains(&"netbpf-0123".to_owned()), "{added:?}");
            let other = |word: &String| {
                if word == "-D" {
                    "-A".into()
                } else {
                    word.clone()
                }
            };
            assert_eq!(*added, deleted.iter().map(other).collect::<Vec<_>>());
        }
    }
}
