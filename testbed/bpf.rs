//! BPF programs, maps and links: global to the kernel, without a namespace, and freed a moment
//! after their last user is gone.
//!
//! Maps are told by their numbers and never opened here. Who opens a program array by its number while
//! its last user closes it makes the kernel clear it twice at once and lose count of its users (seen on
//! 6.18): the map then stays for ever, and it was we who made it.

use libbpf_rs::query::{LinkInfoIter, ProgInfoIter, ProgInfoQueryOptions};
use libbpf_sys::{bpf_attach_type, bpf_prog_query_opts};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::{Duration, Instant};

/// How long the kernel may take to free what nobody uses any more.
const FREED_WITHIN: Duration = Duration::from_secs(2);

/// Programs, maps and links by id, with the names of programs. The kernel counts ids upwards, so an id seen
/// once is not another object's soon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    programs: BTreeMap<u32, String>,
    maps: BTreeSet<u32>,
    links: BTreeMap<u32, String>,
}

impl Objects {
    /// Everything that is loaded on this machine.
    fn loaded() -> Inventory {
        let with_maps = ProgInfoQueryOptions::default().include_map_ids(true);
        Inventory {
            programs: ProgInfoIter::with_query_opts(with_maps)
                .map(|info| (info.id, (text(&info.name), info.map_ids)))
                .collect(),
            links: LinkInfoIter::default()
                .map(|info| (info.id, info.prog_id))
                .collect(),
        }
    }

    /// Programs with a name that begins with `prefix`, and their links. The kernel keeps 15 bytes of a
    /// name. Other tests' objects are among them.
    pub fn named(prefix: &str) -> Objects {
        let inventory = Objects::loaded();
        let programs = inventory.programs.iter();
        let mut objects = Objects::default();
        for (id, (name, _)) in programs.filter(|(_, (name, _))| name.starts_with(prefix)) {
            objects.programs.insert(*id, name.clone());
        }
        objects.add_links(&inventory);
        objects
    }

    /// What a process holds: by its descriptors, or as the program of such a link, or as a map of
    /// such a program. What only a filter or a pin keeps is not seen.
    pub fn of_process(pid: u32) -> Objects {
        let mut ids = BTreeMap::<&str, Vec<u32>>::new();
        // A process that has just ended has no descriptors.
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for (key, value) in info.lines().filter_map(|line| line.split_once(':')) {
                for kind in ["prog_id", "map_id", "link_id"] {
                    if key == kind {
                        ids.entry(kind)
                            .or_default()
                            .extend(value.trim().parse::<u32>());
                    }
                }
            }
        }
        let mut objects = Objects::default();
        if ids.is_empty() {
            return objects;
        }
        let inventory = Objects::loaded();
        let held = |kind| ids.get(kind).into_iter().flatten().copied();
        for id in held("prog_id")
            .chain(held("link_id").filter_map(|id| inventory.links.get(&id).copied()))
        {
            if let Some((name, maps)) = inventory.programs.get(&id) {
                objects.programs.insert(id, name.clone());
                objects.maps.extend(maps);
            }
        }
        objects.maps.extend(held("map_id"));
        objects.add_links(&inventory);
        objects
    }

    fn add_links(&mut self, inventory: &Inventory) {
        for (id, program) in &inventory.links {
            if let Some(name) = self.programs.get(program) {
                self.links.insert(*id, name.clone());
            }
        }
    }

    /// Adds what `other` has.
    pub fn merge(&mut self, other: Objects) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
    }

    /// Whether nothing is in here.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }

    /// Names of the programs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.programs.values().map(String::as_str)
    }

    /// Those that the kernel still has.
    fn alive(&self) -> Objects {
        let mut alive = self.clone();
        let programs = ids(libbpf_sys::bpf_prog_get_next_id);
        let maps = ids(libbpf_sys::bpf_map_get_next_id);
        let links = ids(libbpf_sys::bpf_link_get_next_id);
        alive.programs.retain(|id, _| programs.contains(id));
        alive.maps.retain(|id| maps.contains(id));
        alive.links.retain(|id, _| links.contains(id));
        alive
    }

    /// Panics when the kernel still has one of them after two seconds.
    pub fn assert_gone(&self) {
        let deadline = Instant::now() + FREED_WITHIN;
        loop {
            if self.is_empty() {
                return;
            }
            let alive = self.alive();
            if alive.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "still in the kernel after {FREED_WITHIN:?}: {alive:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes the folders that `tc` makes in the sandbox's BPF file system for objects with maps, and leaves
/// there.
pub fn remove_folders_of_tc() {
    for link in ["ip", "xdp"] {
        // What stays, the comparison at the end of the sandbox finds.
        let _ = std::fs::remove_file(format!("/sys/fs/bpf/{link}"));
    }
    for folder in ["tc/globals", "tc"] {
        let _ = std::fs::remove_dir(format!("/sys/fs/bpf/{folder}"));
    }
}

struct Inventory {
    /// Name, and ids of the maps it uses.
    programs: BTreeMap<u32, (String, Vec<u32>)>,
    /// Id of the program.
    links: BTreeMap<u32, u32>,
}

/// All numbers of one kind that the kernel has, in its order.
fn ids(next: unsafe extern "C" fn(u32, *mut u32) -> i32) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    // SAFETY: the number after `id` is written to `id`, which outlives the call.
    while unsafe { next(id, &raw mut id) } == 0 {
        ids.insert(id);
    }
    ids
}

fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

/// Ids of the TCX programs of an interface of the caller's network namespace, in the order in
/// which they run; nothing where the kernel (before 6.6) has no TCX.
pub(crate) fn tcx_programs(interface: u32, side: bpf_attach_type) -> Vec<u32> {
    // More than anybody attaches; a full answer is refused below.
    let mut ids = [0u32; 64];
    let mut options = bpf_prog_query_opts {
        sz: size_of::<bpf_prog_query_opts>() as u64,
        prog_ids: ids.as_mut_ptr(),
        ..Default::default()
    };
    options.__bindgen_anon_1.count = ids.len() as u32;
    // SAFETY: the options are initialised, `count` is the room behind `prog_ids`, and both outlive
    // the call.
    let result =
        unsafe { libbpf_sys::bpf_prog_query_opts(interface as i32, side, &raw mut options) };
    // SAFETY: both fields of the union are the same u32; it was set above.
    let count = unsafe { options.__bindgen_anon_1.count } as usize;
    match -result {
        0 => ids.into_iter().take(count).collect(),
        // An interface that has just gone, or has never had a TCX program.
        nix::libc::ENODEV | nix::libc::ENOENT | nix::libc::EINVAL => Vec::new(),
        error => panic!("TCX programs of interface {interface}: error {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::others::{GOES_ON, Program};
    use crate::sandbox;
    use crate::sandbox::tests::run_and_fail;
    use nix::net::if_::if_nametoindex;

    #[test]
    fn programs_are_seen_by_name_by_process_and_on_the_interface() {
        sandbox::run(
            "programs_are_seen_by_name_by_process_and_on_the_interface",
            |_| {
                let lo = if_nametoindex("lo").unwrap();
                let link = Program::answering("tbseen", GOES_ON).attach("lo");
                let seen = Objects::named("tbsee");
                assert_eq!(seen.programs().collect::<Vec<_>>(), ["tbseen"]);
                assert_eq!(seen.links.len(), 1);
                let ids: Vec<u32> = seen.programs.keys().copied().collect();
                assert_eq!(tcx_programs(lo, libbpf_sys::BPF_TCX_INGRESS), ids);
                assert!(tcx_programs(lo, libbpf_sys::BPF_TCX_EGRESS).is_empty());
                let held = Objects::of_process(std::process::id());
                assert!(
                    seen.links
                        .iter()
                        .all(|link| held.links.contains_key(link.0))
                );
                assert!(
                    seen.programs
                        .iter()
                        .all(|program| held.programs.contains_key(program.0))
                );
                drop(link);
                seen.assert_gone();
            },
        );
    }

    #[test]
    fn a_program_that_stays_is_a_failure() {
        run_and_fail(
            "a_program_that_stays_is_a_failure",
            "still in the kernel",
            |_| {
                let _program = Program::answering("tbstays", GOES_ON);
                Objects::named("tbstays").assert_gone();
            },
        );
    }
}
