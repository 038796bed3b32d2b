//! docs/reliability.md: what it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use testbed::step;

const DOCUMENT: &str = "docs/reliability.md";
/// Where tests stand.
const FOLDERS: [&str; 3] = ["tests", "src", "netsetup"];

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = step(folder.display(), fs::read_dir(folder));
    for entry in entries {
        let path = step(folder.display(), entry).path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions behind `#[test]`.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(Path::new(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = step(file.display(), fs::read_to_string(&file));
        for (_, behind) in text
            .split("#[test]")
            .skip(1)
            .filter_map(|part| part.split_once("fn "))
        {
            let end = behind.find('(').unwrap_or(behind.len());
            names.insert(behind[..end].to_owned());
        }
    }
    names
}

/// The rows of a table of faults; what else there is has none.
fn faults(paragraph: &str) -> impl Iterator<Item = &str> {
    let mut lines = paragraph.lines();
    let is_table = lines
        .next()
        .is_some_and(|head| head.starts_with("| fault |"));
    // Behind the line below the head.
    lines.skip(1).filter(move |_| is_table)
}

#[test]
fn every_fault_names_tests_that_are_there() {
    let document = step(DOCUMENT, fs::read_to_string(DOCUMENT));
    let tests = tests();
    let rows: Vec<_> = document.split("\n\n").flat_map(faults).collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [_, _, named] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let named: Vec<_> = named.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for test in named {
            assert!(tests.contains(test), "there is no test `{test}`: {row}");
        }
    }
}
