//! A script of `web/browser` at work: node, and the browser that it drives.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testbed::process::{Input, Output, Process};
use testbed::sandbox::Sandbox;
use testbed::{is_installed, skip, step};

/// More than any step takes on a busy machine; nothing waits for it to pass.
const WITHIN: Duration = Duration::from_secs(90);
/// Where the browser keeps what it has to write. /run is the sandbox's own.
const HOME: &str = "/run/browser";
/// What the tests of the page need.
const NEEDED: [&str; 3] = ["node", "chromium", "unshare"];

/// The script of one point.
pub struct Browser<'a> {
    process: Process<'a>,
}

/// Whether there is a browser; where not, the test is skipped, which is said.
pub fn is_there(name: &str) -> bool {
    let missing = NEEDED.into_iter().find(|program| !is_installed(program));
    if let Some(program) = missing {
        skip(name, &format!("{program} is not installed"));
    }
    missing.is_none()
}

impl<'a> Browser<'a> {
    /// Starts the script, which gets these words.
    pub fn start(sandbox: &'a Sandbox, script: &str, words: &[&str]) -> Browser<'a> {
        step(HOME, fs::create_dir(HOME));
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("web/browser")
            .join(format!("{script}.mjs"));
        // A process namespace, so that no helper of the browser's outlives the script: it ends with
        // its first process.
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "node"])
            .arg(script)
            .args(words)
            .envs([("HOME", HOME), ("TMPDIR", HOME)]);
        for variable in [
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_RUNTIME_DIR",
            "DISPLAY",
        ] {
            command.env_remove(variable);
        }
        Browser {
            process: sandbox.start_with(command, Input::Open, Output::Read),
        }
    }

    /// Waits until the script says so.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> String {
        self.process.wait_for(words, WITHIN)
    }

    /// The script waits for this line.
    pub fn tell(&mut self, line: &str) {
        self.process.write(&format!("{line}\n"));
    }

    /// The script says so, the test does its part, the script goes on.
    #[track_caller]
    pub fn when(&mut self, words: &str, part: impl FnOnce()) {
        self.wait_for(words);
        part();
        self.tell("done");
    }

    /// The script ends, and has found nothing wrong.
    #[track_caller]
    pub fn passes(self) {
        let ended = self.process.finish(WITHIN);
        ended.assert_code(0);
        let last = ended.stdout.lines().next_back();
        assert_eq!(last, Some("passed"), "{}", ended.stderr);
        step(HOME, fs::remove_dir_all(HOME));
    }
}
