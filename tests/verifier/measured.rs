//! What is measured, of programs and of maps.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::OpenObject;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, PrintLevel, set_print};
use libbpf_sys::bpf_insn;
use netbpf::load::load as load_object;
use netbpf::tc::program_info;
use nix::sys::utsname::uname;
use testbed::step;

/// BPF_LOG_STATS of linux/bpf_verifier.h: the log has the last lines only, which sum up.
const LOG_STATS: u32 = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub tool: String,
    pub name: String,
    /// Instructions that the verifier went through, each as often as it did; it gives up at a million.
    pub verified: u64,
    /// Bytes; 512 are the most.
    pub stack: u64,
    /// As they were loaded, after the verifier had put in and left out its own.
    pub instructions: u64,
    /// Bytes of machine code.
    pub machine_code: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub tool: String,
    pub name: String,
    pub entries: u64,
    /// Bytes, by the kernel's own count.
    pub memory: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub programs: Vec<Program>,
    /// Of the machine: maps that count on each of them take more where there are more.
    pub cpus: u64,
    pub maps: Vec<Map>,
}

impl Figures {
    /// What is more than `tolerated` times as large as it was, and what only one of them has.
    pub fn larger_than(&self, was: &Figures, tolerated: f64) -> Vec<String> {
        let mut problems = Vec::new();
        compare(&self.sizes(), &was.sizes(), tolerated, &mut problems);
        problems
    }

    /// Of everything that may grow: whose it is, and how large.
    fn sizes(&self) -> Vec<(String, u64)> {
        let mut sizes = Vec::new();
        for program in &self.programs {
            let whose = format!("{} {}", program.tool, program.name);
            sizes.push((format!("{whose}: instructions verified"), program.verified));
        }
        for map in &self.maps {
            sizes.push((format!("{} {}: bytes", map.tool, map.name), map.memory));
        }
        sizes
    }
}

fn compare(now: &[(String, u64)], was: &[(String, u64)], tolerated: f64, to: &mut Vec<String>) {
    let find = |all: &[(String, u64)], whose: &str| {
        let mut all = all.iter();
        all.find(|(name, _)| name == whose).map(|(_, size)| *size)
    };
    for (whose, size) in now {
        match find(was, whose) {
            None => to.push(format!("{whose}: {size}, and not documented")),
            Some(was) if *size as f64 > was as f64 * tolerated => {
                to.push(format!("{whose}: {size}, and it was {was}"));
            }
            Some(_) => {}
        }
    }
    for (whose, _) in was {
        if find(now, whose).is_none() {
            to.push(format!("{whose}: documented, and not there"));
        }
    }
}

/// The running kernel, as "6.18".
pub fn kernel() -> String {
    let name = step("uname", uname());
    let release = name.release().to_string_lossy().into_owned();
    let parts: Vec<_> = release.split(['.', '-']).take(2).collect();
    parts.join(".")
}

/// What libbpf has said, of the one load that this process does at a time.
static SAID: Mutex<String> = Mutex::new(String::new());

fn keep(_level: PrintLevel, line: String) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.push_str(&line);
}

/// The maps of an object, in the order in which they are made.
pub struct Names {
    tool: String,
    maps: Vec<String>,
}

/// Loads a tool's object, with the constants of its source, and frees it.
pub fn load<'obj, Builder>(tool: &str, builder: Builder) -> (Vec<Program>, Names)
where
    Builder: SkelBuilder<'obj>,
{
    // Lives as long as the process, because its skeleton asks for that; it is empty then.
    let object = Box::leak(Box::new(MaybeUninit::<OpenObject>::uninit()));
    let mut open = step(format!("open {tool}"), builder.open(object));
    for mut program in open.open_object_mut().progs_mut() {
        program.set_log_level(LOG_STATS);
    }
    SAID.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let before = set_print(Some((PrintLevel::Debug, keep)));
    let loaded = load_object(open);
    set_print(before);
    let loaded = step(format!("load {tool}"), loaded);
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).clone();

    let object = loaded.object();
    let programs = object.progs().map(|program| {
        let name = program.name().to_string_lossy().into_owned();
        let info = step(&name, program_info(program.as_fd()));
        let instruction = size_of::<bpf_insn>() as u64;
        Program {
            tool: tool.to_owned(),
            verified: info.verified_insns.into(),
            stack: step(&name, stack_of(&said, &name).ok_or("no word of its stack")),
            instructions: u64::from(info.xlated_prog_len) / instruction,
            machine_code: info.jited_prog_len.into(),
            name,
        }
    });
    let programs = programs.collect();
    let maps = object.maps();
    let maps = maps.map(|map| map.name().to_string_lossy().into_owned());
    // Those are only made where the tool is asked to tell of packets.
    let maps = maps.filter(|name| !name.starts_with("trace_"));
    let names = Names {
        tool: tool.to_owned(),
        maps: maps.collect(),
    };
    (programs, names)
}

/// What the verifier has said of this program's stack: one number for each of its functions, "96+0".
fn stack_of(said: &str, program: &str) -> Option<u64> {
    let (_, log) = said.split_once(&format!("prog '{program}': -- BEGIN PROG LOAD LOG --"))?;
    let (log, _) = log.split_once("-- END PROG LOAD LOG --")?;
    let depths = log
        .lines()
        .find_map(|line| line.strip_prefix("stack depth "))?;
    depths
        .split('+')
        .map(|depth| depth.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

impl Names {
    /// What the maps take that this process holds, which has loaded the object once.
    pub fn of_maps(&self, pid: u32) -> Vec<Map> {
        let folder = format!("/proc/{pid}/fdinfo");
        let descriptors = step(&folder, fs::read_dir(&folder));
        let mut maps = BTreeMap::new();
        for descriptor in descriptors {
            let path = step(&folder, descriptor).path();
            // A descriptor that the process has closed since tells nothing.
            let info = fs::read_to_string(&path).unwrap_or_default();
            let number = |key: &str| {
                let mut lines = info.lines().filter_map(|line| line.split_once(':'));
                let value = lines.find(|(name, _)| *name == key)?.1;
                value.trim().parse::<u64>().ok()
            };
            if let (Some(id), Some(entries), Some(memory)) =
                (number("map_id"), number("max_entries"), number("memlock"))
            {
                maps.insert(id, (entries, memory));
            }
        }
        // The kernel counts ids upwards.
        assert_eq!(
            maps.len(),
            self.maps.len(),
            "{}: {maps:?} {:?}",
            self.tool,
            self.maps
        );
        let named = self.maps.iter().zip(maps.into_values());
        let named = named.map(|(name, (entries, memory))| Map {
            tool: self.tool.clone(),
            name: name.clone(),
            entries,
            memory,
        });
        named.collect()
    }
}
