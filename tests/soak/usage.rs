//! What a process takes of the machine, and whether that grows.

use std::fs;
use std::ops::Range;

use testbed::step;

/// What is taken at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its resident memory.
    pub memory_kib: u64,
    /// Its open files.
    pub files: u64,
    /// Its threads.
    pub threads: u64,
    /// What the kernel has for the BPF objects that it has open, entries of maps too (6.4 and later count them).
    pub bpf_kib: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Usage {
        let path = format!("/proc/{pid}/status");
        let status = step(&path, fs::read_to_string(&path));
        let (files, bpf) = open_files(pid);
        Usage {
            memory_kib: number(&status, "VmRSS"),
            files,
            threads: number(&status, "Threads"),
            bpf_kib: bpf / 1024,
        }
    }

    fn figures(&self) -> [u64; 4] {
        [self.memory_kib, self.files, self.threads, self.bpf_kib]
    }
}

/// How many there are, and the bytes of those that are BPF objects.
fn open_files(pid: u32) -> (u64, u64) {
    let path = format!("/proc/{pid}/fdinfo");
    let infos = step(&path, fs::read_dir(&path));
    // One may be closed before it is read.
    let infos = infos.map(|entry| fs::read_to_string(step("list", entry).path()).ok());
    infos.fold((0, 0), |(files, bytes), info| {
        let info = info.unwrap_or_default();
        let memory = if info.contains("memlock:") {
            number(&info, "memlock")
        } else {
            0
        };
        (files + 1, bytes + memory)
    })
}

/// The number that stands there behind this name.
fn number(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(key, _)| *key == name);
    let (_, value) = step(name, value.ok_or("is not there"));
    let first = value.split_whitespace().next().unwrap_or_default();
    step(name, first.parse())
}

/// What each may be more after the last quarter than after the second: pages that the allocator gives back later,
/// connections of who looks at the tool just then, and nothing for threads and maps, which were full.
const MORE: [u64; 4] = [512, 2, 0, 0];

/// The most that was taken in the second quarter of the samples, when tables are full, and in the last one.
/// An error says what has grown.
pub fn settled(samples: &[Usage]) -> Result<[Usage; 2], String> {
    let quarter = samples.len() / 4;
    let [then, now] = [quarter..2 * quarter, 3 * quarter..samples.len()];
    let most = |range: Range<usize>| {
        let figures = samples[range].iter().map(Usage::figures);
        figures.fold([0; 4], |most, one| {
            std::array::from_fn(|at| most[at].max(one[at]))
        })
    };
    let (then, now) = (most(then), most(now));
    let names = ["KiB of memory", "files", "threads", "KiB of BPF objects"];
    let grown = (0..4).find(|&at| now[at] > then[at] + MORE[at]);
    if let Some(at) = grown {
        return Err(format!(
            "{}: {} have become {}",
            names[at], then[at], now[at]
        ));
    }
    Ok(
        [then, now].map(|[memory_kib, files, threads, bpf_kib]| Usage {
            memory_kib,
            files,
            threads,
            bpf_kib,
        }),
    )
}
