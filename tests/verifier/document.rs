//! docs/verifier.md: a section for each kernel, with a table of programs and one of maps.

use std::fmt::Write;
use std::fs;
use std::io;

use testbed::step;

use super::measured::{Figures, Map, Program};

pub const PATH: &str = "docs/verifier.md";

const HEADING: &str = "\n## Linux ";
const PROGRAMS: [&str; 6] = [
    "tool",
    "program",
    "instructions verified",
    "stack, bytes",
    "instructions",
    "machine code, bytes",
];
/// Behind a number.
const CPUS: &str = " CPUs:";
const MAPS: [&str; 4] = ["tool", "map", "entries", "memory, bytes"];

/// What is said of all kernels, and what of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    head: String,
    sections: Vec<(String, String)>,
}

impl Document {
    pub fn read() -> Document {
        let text = step(PATH, fs::read_to_string(PATH));
        let mut parts = text.split(HEADING);
        let head = parts.next().unwrap_or_default().to_owned();
        let sections = parts.map(|part| {
            let (kernel, tables) = step(part, part.split_once('\n').ok_or("no section"));
            (kernel.to_owned(), tables.to_owned())
        });
        Document {
            head,
            sections: sections.collect(),
        }
    }

    pub fn write(&self) -> io::Result<()> {
        let mut text = self.head.clone();
        for (kernel, tables) in &self.sections {
            text.push_str(&format!("{HEADING}{kernel}\n{tables}"));
        }
        fs::write(PATH, text)
    }

    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|(kernel, _)| kernel.as_str())
    }

    pub fn of(&self, kernel: &str) -> Option<Figures> {
        let mut sections = self.sections.iter();
        let (_, tables) = sections.find(|(of, _)| of == kernel)?;
        let cpus = tables.lines().find_map(|line| line.strip_suffix(CPUS));
        Some(Figures {
            cpus: number(step(CPUS, cpus.ok_or("not there"))),
            programs: rows(tables, PROGRAMS).map(program).collect(),
            maps: rows(tables, MAPS).map(map).collect(),
        })
    }

    /// With these figures in place of the kernel's, or behind all others.
    pub fn with(&self, kernel: &str, figures: &Figures) -> Document {
        let mut document = self.clone();
        let tables = tables(figures);
        let mut sections = document.sections.iter_mut();
        match sections.find(|(of, _)| of == kernel) {
            Some(section) => section.1 = tables,
            None => document.sections.push((kernel.to_owned(), tables)),
        }
        document
    }
}

/// A kernel's section as it would be.
pub fn section(kernel: &str, figures: &Figures) -> String {
    format!("{HEADING}{kernel}\n{}", tables(figures))
}

fn tables(figures: &Figures) -> String {
    let mut text = String::new();
    table(
        &mut text,
        PROGRAMS,
        figures.programs.iter().map(|program| {
            let Program {
                tool,
                name,
                verified,
                stack,
                instructions,
                machine_code,
            } = program;
            let numbers = [verified, stack, instructions, machine_code].map(u64::to_string);
            let [verified, stack, instructions, machine_code] = numbers;
            [
                tool.clone(),
                name.clone(),
                verified,
                stack,
                instructions,
                machine_code,
            ]
        }),
    );
    let _ = write!(text, "\n{}{CPUS}\n", figures.cpus);
    table(
        &mut text,
        MAPS,
        figures.maps.iter().map(|map| {
            let Map {
                tool,
                name,
                entries,
                memory,
            } = map;
            [
                tool.clone(),
                name.clone(),
                entries.to_string(),
                memory.to_string(),
            ]
        }),
    );
    text
}

fn table<const N: usize>(
    text: &mut String,
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    // The first two are words, the rest numbers.
    let rule: Vec<_> = (0..N)
        .map(|at| if at < 2 { "---" } else { "---:" })
        .collect();
    let _ = write!(text, "\n| {} |\n|{}|\n", head.join(" | "), rule.join("|"));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

/// The rows of the table that begins with this head.
fn rows<const N: usize>(tables: &str, head: [&str; N]) -> impl Iterator<Item = [String; N]> {
    let head = format!("| {} |\n", head.join(" | "));
    let (_, table) = step(&head, tables.split_once(&head).ok_or("no such table"));
    let lines = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let rows = lines.map(|line| {
        let cells: Vec<_> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        let whole: Result<[String; N], _> = cells.try_into();
        whole.unwrap_or_else(|_| panic!("{line}: not {N} cells"))
    });
    rows.collect::<Vec<_>>().into_iter()
}

fn number(text: &str) -> u64 {
    step(text, text.parse())
}

fn program([tool, name, verified, stack, instructions, machine_code]: [String; 6]) -> Program {
    Program {
        tool,
        name,
        verified: number(&verified),
        stack: number(&stack),
        instructions: number(&instructions),
        machine_code: number(&machine_code),
    }
}

fn map([tool, name, entries, memory]: [String; 4]) -> Map {
    Map {
        tool,
        name,
        entries: number(&entries),
        memory: number(&memory),
    }
}
