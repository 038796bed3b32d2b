//! Capabilities: which of them matter here, which this thread has, and what to do where one is
//! missing. The kernel keeps them per thread.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};

use crate::failure::Failure;

/// A capability that some tool here needs; the number is that of linux/capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cap {
    /// Signal processes of other users.
    Kill = 5,
    /// Take capabilities out of the bounding set.
    SetPcap = 8,
    /// Change links, addresses, qdiscs; attach BPF programs to them.
    NetAdmin = 12,
    /// Open packet sockets.
    NetRaw = 13,
    /// Make namespaces and mounts.
    SysAdmin = 21,
    /// Let BPF programs use pointers as the verifier allows them with it.
    Perfmon = 38,
    /// Make BPF maps and load BPF programs.
    Bpf = 39,
}

impl Cap {
    /// Its name in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Cap::Kill => "CAP_KILL",
            Cap::SetPcap => "CAP_SETPCAP",
            Cap::NetAdmin => "CAP_NET_ADMIN",
            Cap::NetRaw => "CAP_NET_RAW",
            Cap::SysAdmin => "CAP_SYS_ADMIN",
            Cap::Perfmon => "CAP_PERFMON",
            Cap::Bpf => "CAP_BPF",
        }
    }

    /// Its bit in each of [`Sets`].
    pub const fn bit(self) -> u64 {
        1 << self as u64
    }

    /// The kernel takes CAP_SYS_ADMIN for these as well, as it did before they existed (5.8).
    const fn satisfied_by(self, held: u64) -> bool {
        let or_admin = match self {
            Cap::Bpf | Cap::Perfmon => Cap::SysAdmin.bit(),
            _ => 0,
        };
        held & (self.bit() | or_admin) != 0
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The capability sets of a thread, a bit per capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// What the kernel asks for.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What programs of the right kind keep.
    pub inheritable: u64,
}

impl Sets {
    /// Those of the calling thread.
    pub fn read() -> Result<Sets> {
        let path = "/proc/thread-self/status";
        let status = fs::read(path).with_context(|| format!("read {path}"))?;
        let status = String::from_utf8_lossy(&status);
        Sets::parse(&status).with_context(|| format!("no capabilities in {path}"))
    }

    fn parse(status: &str) -> Option<Sets> {
        let set = |name| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        };
        Some(Sets {
            effective: set("CapEff:")?,
            permitted: set("CapPrm:")?,
            inheritable: set("CapInh:")?,
        })
    }
}

/// [`Failure::Privilege`] naming what is missing, unless this thread has all of `caps` in effect.
pub fn require(caps: &[Cap]) -> Result<()> {
    match refusal(caps, Sets::read()?.effective) {
        Some(refusal) => Err(Failure::Privilege(refusal).into()),
        None => Ok(()),
    }
}

fn refusal(caps: &[Cap], held: u64) -> Option<String> {
    let missing: Vec<_> = caps
        .iter()
        .filter(|cap| !cap.satisfied_by(held))
        .map(|cap| cap.name())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(", ");
    // Who makes namespaces runs `ip` in them, and what a file grants does not reach the programs that
    // it runs.
    if caps.contains(&Cap::SysAdmin) {
        return Some(format!("{missing} missing: run this as root (sudo)"));
    }
    let all: Vec<_> = caps.iter().map(|cap| cap.name().to_lowercase()).collect();
    let program =
        std::env::current_exe().map_or("PROGRAM".into(), |path| path.display().to_string());
    Some(format!(
        "{missing} missing: run this with sudo, or grant what it needs: setcap {}+ep {program}",
        all.join(","),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_way_out() {
        let needs = [Cap::Bpf, Cap::NetAdmin];
        let text = refusal(&needs, 0).unwrap();
        assert!(text.starts_with("CAP_BPF, CAP_NET_ADMIN missing"), "{text}");
        assert!(text.contains("setcap cap_bpf,cap_net_admin+ep /"), "{text}");
        let text = refusal(&needs, Cap::Bpf.bit()).unwrap();
        assert!(text.starts_with("CAP_NET_ADMIN missing"), "{text}");
        assert_eq!(refusal(&needs, Cap::Bpf.bit() | Cap::NetAdmin.bit()), None);
    }

    #[test]
    fn where_a_grant_would_not_do_none_is_proposed() {
        let needs = [Cap::NetAdmin, Cap::SysAdmin];
        assert_eq!(
            refusal(&needs, Cap::NetAdmin.bit()).unwrap(),
            "CAP_SYS_ADMIN missing: run this as root (sudo)"
        );
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_only() {
        let admin = Cap::SysAdmin.bit();
        assert_eq!(refusal(&[Cap::Bpf, Cap::Perfmon], admin), None);
        assert!(refusal(&[Cap::NetAdmin], admin).is_some());
        assert!(refusal(&[Cap::SysAdmin], Cap::Bpf.bit()).is_some());
    }

    #[test]
    fn the_sets_are_read_from_status() {
        let status = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t000001ffffffffff\n\
                      CapEff:\t0000000000001000\nCapBnd:\t000001ffffffffff\n";
        let sets = Sets {
            effective: Cap::NetAdmin.bit(),
            permitted: (1 << 41) - 1,
            inheritable: 1,
        };
        assert_eq!(Sets::parse(status), Some(sets));
        assert_eq!(Sets::parse("Name:\tx\n"), None);
        Sets::read().unwrap();
    }
}
