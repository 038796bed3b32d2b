//! What can go wrong, as the exit code that a script sees.
//!
//! Every binary of this workspace ends with the same codes: 0 done, 1 run-time failure (any
//! error without a [`Failure`] in its chain), 2 usage, 3 privilege missing, 4 kernel feature
//! missing, 5 conflict.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// An error whose kind the caller of the program can act on.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong, or names something that does not exist.
    Usage(String),
    /// A capability is missing.
    Privilege(String),
    /// This kernel, or this kind of interface, cannot do what is needed.
    Kernel(String),
    /// Something of that name is there and is not ours, or another instance runs.
    Conflict(String),
}

impl Failure {
    /// The exit code of this kind of failure.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Privilege(_) => 3,
            Failure::Kernel(_) => 4,
            Failure::Conflict(_) => 5,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text)
            | Failure::Privilege(text)
            | Failure::Kernel(text)
            | Failure::Conflict(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// A line on stderr. That nobody reads it any more, or that its disk is full, is no reason to end what
/// runs: `eprintln!` would panic.
pub fn say(line: fmt::Arguments<'_>) {
    // In one piece: lines of several processes do not mix.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Turns the result of a program into its exit code; an error becomes one line on stderr.
pub fn conclude(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{program}: {error:#}"));
            ExitCode::from(code_of(&error))
        }
    }
}

/// The command line as `T`. Where it is wrong: one line on stderr; where help was asked for: the help;
/// then the exit code to end with.
pub fn parse<T: clap::Parser>(program: &str) -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Help and version; that nobody reads them is no failure.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let _ = error.print();
        } else {
            say(format_args!(
                "{program}: {}; try --help",
                first_line(&error)
            ));
        }
        ExitCode::from(Failure::Usage(String::new()).code())
    })
}

/// What is wrong, without the usage and the hints that follow it over several lines.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let words = text.trim_start_matches("error: ").split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn code_of(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(1, Failure::code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_is_found_below_any_context() {
        let refused: anyhow::Result<()> = Err(Failure::Conflict("busy".into()).into());
        let error = refused.context("build the network").unwrap_err();
        assert_eq!(code_of(&error), 5);
        assert_eq!(format!("{error:#}"), "build the network: busy");
    }

    #[test]
    fn a_wrong_command_line_is_one_line() {
        let command = || clap::Command::new("tool").arg(clap::arg!(--rate <RATE>).required(true));
        let error = command()
            .try_get_matches_from(["tool", "--bogus"])
            .unwrap_err();
        assert_eq!(first_line(&error), "unexpected argument '--bogus' found");
        let error = command().try_get_matches_from(["tool"]).unwrap_err();
        assert_eq!(
            first_line(&error),
            "the following required arguments were not provided: --rate <RATE>"
        );
    }

    #[test]
    fn any_other_error_is_a_run_time_failure() {
        assert_eq!(code_of(&anyhow::anyhow!("no such luck")), 1);
    }
}
