//! The threads of this process, as the kernel sees them.

use crate::step;
use std::collections::BTreeMap;
use std::fs;

/// The effective capabilities of those whose names begin so, by name.
pub fn capabilities(begins: &str) -> BTreeMap<String, String> {
    let tasks = step("read the threads", fs::read_dir("/proc/self/task"));
    // A thread may end while it is looked at.
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_owned()
    };
    statuses
        .map(|status| (field(&status, "Name:"), field(&status, "CapEff:")))
        .filter(|(name, _)| name.starts_with(begins))
        .collect()
}
