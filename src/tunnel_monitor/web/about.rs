//! What a page says of the monitor itself: where it looks, and how to give it something to see.

use std::env;
use std::time::Duration;

use anyhow::Result;
use netsetup::namespace;

use crate::tunnel_monitor::arguments::Arguments;

/// What stays as it is for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The network namespace of the interfaces, where it has a name.
    pub namespace: Option<String>,
    /// Whether the network was built by tunnel_monitor itself.
    pub simulation: bool,
    /// UDP ports of VXLAN.
    pub ports: Vec<u16>,
    /// What a window is to be long.
    pub interval: Duration,
    /// A line for a shell that makes traffic, where there is one.
    pub traffic: Option<String>,
}

impl About {
    /// The monitor with these arguments; the calling thread is where its interfaces are.
    pub fn of(arguments: &Arguments) -> Result<About> {
        let simulation = arguments.simulated();
        Ok(About {
            namespace: namespace::name_of_current()?,
            simulation,
            ports: arguments.monitoring.port.clone(),
            interval: arguments.window(),
            traffic: simulation.then(|| traffic(env::args().next(), is_by_sudo())),
        })
    }
}

/// The command as this one was called, so that it works in another shell in the same place.
fn traffic(program: Option<String>, is_by_sudo: bool) -> String {
    let program = program.unwrap_or_else(|| "tunnel_monitor".into());
    let sudo = if is_by_sudo { "sudo " } else { "" };
    format!("{sudo}{} traffic", quoted(&program))
}

/// sudo(8) leaves the name of the user who has called it.
fn is_by_sudo() -> bool {
    env::var_os("SUDO_USER").is_some()
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+,@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_one_that_a_shell_takes() {
        for (program, by_sudo, command) in [
            (
                Some("./target/release/tunnel_monitor"),
                true,
                "sudo ./target/release/tunnel_monitor traffic",
            ),
            (Some("tunnel_monitor"), false, "tunnel_monitor traffic"),
            (None, false, "tunnel_monitor traffic"),
            (Some("a b/it's"), false, "'a b/it'\\''s' traffic"),
            (Some("$(x)"), true, "sudo '$(x)' traffic"),
            (Some(""), false, "'' traffic"),
        ] {
            assert_eq!(traffic(program.map(str::to_owned), by_sudo), command);
        }
    }
}
