//! Everything that a tool could leave behind, as lines of text that can be compared.

use crate::bpf::tcx_programs;
use crate::namespace::{Place, wait_for_addresses};
use crate::step;
use libbpf_sys::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Links, addresses, routes, rules, qdiscs, filters, TCX programs and sysctls of the sandbox and of
/// every namespace named in it; its namespaces, mounts, files under /run and /sys/fs/bpf; its
/// processes. What changes by itself (timers, lifetimes, neighbours, counters) is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How often each line is there.
    lines: BTreeMap<String, usize>,
    /// Values by the place and path of the sysctl.
    sysctls: BTreeMap<String, String>,
}

impl Snapshot {
    /// The state of the sandbox that the caller runs in; `processes` are its own.
    pub(crate) fn take(processes: impl IntoIterator<Item = String>) -> Snapshot {
        let mut snapshot = Snapshot {
            lines: BTreeMap::new(),
            sysctls: BTreeMap::new(),
        };
        for place in Place::all() {
            let (lines, sysctls) = place.run(|| (network(), sysctls()));
            snapshot.add(&format!("[{place}] "), lines);
            let key = |path| format!("[{place}] sysctl {path}");
            snapshot
                .sysctls
                .extend(sysctls.into_iter().map(|(path, value)| (key(path), value)));
        }
        snapshot.add("mount ", mounts());
        snapshot.add("file ", files(Path::new("/run")));
        snapshot.add("file ", files(Path::new("/sys/fs/bpf")));
        snapshot.add("process ", processes);
        snapshot
    }

    fn add(&mut self, prefix: &str, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            *self.lines.entry(format!("{prefix}{line}")).or_default() += 1;
        }
    }

    /// What differs, a line each: `-` is gone, `+` has come. Empty when nothing does. The sysctls
    /// that come and go with an interface or a namespace are not repeated beside it.
    pub fn changes(&self, after: &Snapshot) -> String {
        let mut changes = String::new();
        let mut list = |sign: char, of: &Snapshot, than: &Snapshot| {
            for (line, count) in &of.lines {
                let more = count.saturating_sub(than.lines.get(line).copied().unwrap_or(0));
                for _ in 0..more {
                    // Writing into a String cannot fail.
                    let _ = writeln!(changes, "{sign} {line}");
                }
            }
        };
        list('-', self, after);
        list('+', after, self);
        for (key, value) in &self.sysctls {
            if let Some(now) = after.sysctls.get(key).filter(|now| *now != value) {
                // As above.
                let _ = writeln!(changes, "- {key} {value}\n+ {key} {now}");
            }
        }
        changes
    }

    /// Panics with what differs.
    #[track_caller]
    pub fn assert_same(&self, after: &Snapshot, when: &str) {
        let changes = self.changes(after);
        assert!(
            changes.is_empty(),
            "{when}, this is not as it was before:\n{changes}"
        );
    }
}

/// What the caller's network namespace has.
fn network() -> Vec<String> {
    wait_for_addresses();
    let here = Place::here();
    let mut lines = Vec::new();
    let mut list = |what: &str, output: &str| {
        lines.extend(
            output
                .lines()
                .map(|line| format!("{what}{}", settled(line))),
        );
    };
    let links = here.ip("-d -o link show");
    list("link ", &links);
    list("address ", &here.ip("-o address show"));
    for (family, name) in [("-4", "ipv4"), ("-6", "ipv6")] {
        list(
            &format!("{name} route "),
            &here.ip(&format!("{family} route show table all")),
        );
        list(
            &format!("{name} rule "),
            &here.ip(&format!("{family} rule show")),
        );
    }
    let qdiscs = here.tc("qdisc show");
    list("", &qdiscs);
    for (interface, sides) in qdiscs.lines().filter_map(filtered_interface) {
        for side in sides {
            let filters = here.tc(&format!("filter show dev {interface} {side}"));
            list(&format!("filter {interface} {side} "), &filters);
        }
    }
    for (index, name) in links.lines().filter_map(index_and_name) {
        for (side, number) in [("ingress", BPF_TCX_INGRESS), ("egress", BPF_TCX_EGRESS)] {
            for program in tcx_programs(index, number) {
                lines.push(format!("tcx {name} {side}: program {program}"));
            }
        }
    }
    lines
}

/// `qdisc clsact ffff: dev eth0 …`: where filters are that are not a classful qdisc's own.
fn filtered_interface(qdisc: &str) -> Option<(&str, Vec<&str>)> {
    let mut words = qdisc.split_whitespace().skip(1);
    let kind = words.next()?;
    let interface = words.skip_while(|word| *word != "dev").nth(1)?;
    let sides = match kind {
        "clsact" => vec!["ingress", "egress"],
        "ingress" => vec!["ingress"],
        "noqueue" => vec![],
        _ => vec!["root"],
    };
    Some((interface, sides))
}

/// `3: eth0@if2: <BROADCAST…`
fn index_and_name(link: &str) -> Option<(u32, &str)> {
    let (index, rest) = link.split_once(": ")?;
    let (name, _) = rest.split_once(": ")?;
    Some((index.trim().parse().ok()?, name.split('@').next()?))
}

/// The line without what changes by itself.
fn settled(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split_whitespace();
    while let Some(word) = rest.next() {
        match word {
            "valid_lft" | "preferred_lft" | "expires" | "fdb_n_learned" => {
                rest.next();
            }
            _ if word.ends_with("_timer") => {
                rest.next();
            }
            _ => words.push(word),
        }
    }
    words.join(" ")
}

/// Mount point, root, type, source and options; without the numbers that count up.
fn mounts() -> Vec<String> {
    let path = "/proc/thread-self/mountinfo";
    let info = step(path, fs::read_to_string(path));
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ").unwrap_or((line, ""));
        let fields: Vec<&str> = place.split(' ').skip(3).take(3).collect();
        format!("{} {kind}", fields.join(" "))
    };
    info.lines().map(mount).collect()
}

/// Every file below `folder`; not what is inside a namespace file or another file system's root.
fn files(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let entries = step(folder.display(), fs::read_dir(folder));
    for entry in entries {
        let path = step(folder.display(), entry).path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            // Removed since the folder was read: as good as never seen.
            continue;
        };
        let size = if metadata.is_file() {
            metadata.size()
        } else {
            0
        };
        lines.push(format!(
            "{} mode {:o} size {size}",
            path.display(),
            metadata.mode()
        ));
        if metadata.is_dir() {
            lines.extend(files(&path));
        }
    }
    lines
}

/// Every readable IPv4 and IPv6 value of the caller's network namespace.
fn sysctls() -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut folders = vec![
        PathBuf::from("/proc/sys/net/ipv4"),
        PathBuf::from("/proc/sys/net/ipv6"),
    ];
    while let Some(folder) = folders.pop() {
        // A kernel without IPv6 has no such folder; an interface may take its own along.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(value) = fs::read_to_string(&path) {
                // Some cannot be read (they are switches, or not set): those say nothing.
                values.insert(path.display().to_string(), value.trim_end().to_owned());
            }
        }
    }
    values
}
