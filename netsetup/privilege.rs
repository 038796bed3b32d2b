//! What building a network needs to be allowed.

use std::fs;

use anyhow::{Context, Result};

use crate::failure::Failure;

/// Bits of linux/capability.h.
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// [`Failure::Privilege`] unless this thread may make links and namespaces.
pub(crate) fn require() -> Result<()> {
    let path = "/proc/thread-self/status";
    let status = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let missing = missing(&status).with_context(|| format!("no capabilities in {path}"))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Privilege(format!(
        "namespaces and links need {}; run this as root (sudo)",
        missing.join(" and ")
    ))
    .into())
}

fn missing(status: &str) -> Option<Vec<&'static str>> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(
        NEEDED
            .iter()
            .filter(|(bit, _)| effective & (1 << bit) == 0)
            .map(|(_, name)| *name)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let net_only = "Name:\tx\nCapEff:\t0000000000001000\n";
        let none = "Name:\tx\nCapEff:\t0000000000000000\n";
        assert_eq!(missing(all).unwrap(), [""; 0]);
        assert_eq!(missing(net_only).unwrap(), ["CAP_SYS_ADMIN"]);
        assert_eq!(missing(none).unwrap(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(missing("Name:\tx\n"), None);
    }
}
