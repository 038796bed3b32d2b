//! What `manual` writes: pages that groff takes without a word and that name every option, completions that
//! bash completes by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::{is_installed, skip, step};

const DAY: &str = "2026-02-03";

/// What was written, gone when dropped.
struct Written(PathBuf);

impl Written {
    fn new(name: &str) -> Written {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let manual = Command::new(env!("CARGO_BIN_EXE_manual"))
            .arg(&folder)
            .arg(DAY)
            .output();
        let manual = step("run manual", manual);
        assert!(manual.status.success(), "{manual:?}");
        Written(folder)
    }

    /// The files of a folder, by name.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = step(folder, fs::read_dir(self.0.join(folder)));
        let mut files: Vec<_> = entries.map(|entry| step(folder, entry).path()).collect();
        files.sort();
        files
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
        self.files(folder).iter().filter_map(name).collect()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // It is below the target folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_tool_has_pages_and_completions() {
    let written = Written::new("every_tool_has_pages_and_completions");
    let pages = written.names("man8");
    for tool in [
        "neighbor_sharing",
        "netsetup",
        "tcp_hold",
        "tokenbucket",
        "tunnel_monitor",
        "vlan_learning",
    ] {
        assert!(pages.contains(&format!("{tool}.8")), "{pages:?}");
        assert!(written.names("bash").contains(&tool.to_owned()));
        assert!(written.names("zsh").contains(&format!("_{tool}")));
        assert!(written.names("fish").contains(&format!("{tool}.fish")));
    }
    for inner in ["tokenbucket-set.8", "tcp_hold-plug-up.8", "netsetup-up.8"] {
        assert!(pages.contains(&inner.to_owned()), "{pages:?}");
    }
}

#[test]
fn groff_has_nothing_to_say_of_any_page() {
    let name = "groff_has_nothing_to_say_of_any_page";
    if !is_installed("groff") {
        return skip(
            name,
            "groff is not there: packaging/install-needs test installs it",
        );
    }
    let written = Written::new(name);
    for page in written.files("man8") {
        let mut groff = Command::new("groff");
        // Each escape sequence of colours would part a word.
        groff.args(["-ww", "-man", "-Tascii", "-P-c"]).arg(&page);
        let shown = step("run groff", groff.output());
        let said = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() && said.is_empty(),
            "{page:?}: {said}"
        );
        let text = String::from_utf8_lossy(&shown.stdout).replace('\u{8}', "");
        assert!(text.contains(DAY), "{page:?}: {text}");
        for heading in ["SYNOPSIS", "EXIT STATUS", "SEE ALSO"] {
            // Bold is the same letter twice.
            let bold: String = heading
                .chars()
                .map(|letter| match letter {
                    ' ' => " ".to_owned(),
                    letter => format!("{letter}{letter}"),
                })
                .collect();
            assert!(text.contains(&bold), "{page:?} has no {heading}: {text}");
        }
    }
}

/// The words that bash proposes behind such a line.
fn proposed(written: &Written, tool: &str, line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').collect();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source '{}/bash/{tool}'\n\
         COMP_WORDS=({}); COMP_CWORD={}\n\
         _{tool} {tool} '{}' '{}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        written.0.display(),
        quoted.join(" "),
        words.len() - 1,
        words.last().unwrap_or(&""),
        words.iter().rev().nth(1).unwrap_or(&""),
    );
    let bash = Command::new("bash").args(["-euc", &script]).output();
    let bash = step("run bash", bash);
    assert!(bash.status.success(), "{line}: {bash:?}");
    let text = String::from_utf8_lossy(&bash.stdout);
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let written = Written::new("bash_completes_commands_options_and_values");
    for (tool, line, expected) in [
        (
            "neighbor_sharing",
            "neighbor_sharing --neighbor-",
            "--neighbor-rate --neighbor-net",
        ),
        (
            "neighbor_sharing",
            "neighbor_sharing --direction d",
            "download",
        ),
        ("tokenbucket", "tokenbucket se", "set"),
        ("tokenbucket", "tokenbucket set --bu", "--burst"),
        ("vlan_learning", "vlan_learning --no", "--no-move"),
        ("tunnel_monitor", "tunnel_monitor top --con", "--connect"),
        ("tcp_hold", "tcp_hold net-", "net-up net-down"),
        ("tcp_hold", "tcp_hold plug n", "next"),
        ("netsetup", "netsetup li", "list"),
    ] {
        let proposed = proposed(&written, tool, line);
        let expected: Vec<_> = expected.split(' ').collect();
        assert_eq!(proposed, expected, "{line}");
    }
}

#[test]
fn without_a_folder_it_writes_nothing() {
    let mut manual = Command::new(env!("CARGO_BIN_EXE_manual"));
    let manual = step("run manual", manual.arg("somewhere").output());
    assert_eq!(manual.status.code(), Some(2), "{manual:?}");
    assert!(!Path::new("somewhere").exists());
}
