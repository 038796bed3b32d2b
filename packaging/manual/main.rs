//! `manual FOLDER DATE`: writes the man pages and the shell completions of all tools below that folder, from the
//! command lines that the tools themselves are built with.

mod page;
mod tools;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use netsetup::failure::{self, Failure};
use tools::Tool;

fn main() -> ExitCode {
    failure::conclude("manual", run())
}

fn run() -> Result<()> {
    let mut words = env::args().skip(1);
    let (Some(folder), Some(date)) = (words.next(), words.next()) else {
        let text = "say where to, and of which day the pages are: manual FOLDER YYYY-MM-DD";
        return Err(Failure::Usage(text.into()).into());
    };
    let folder = PathBuf::from(folder);
    for tool in tools::all() {
        let mut command = tool.command();
        write_pages(&tool, &command, &date, &folder.join("man8"))?;
        for (shell, file) in [
            (Shell::Bash, format!("bash/{}", tool.name)),
            (Shell::Zsh, format!("zsh/_{}", tool.name)),
            (Shell::Fish, format!("fish/{}.fish", tool.name)),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, tool.name, &mut text);
            write(&folder.join(file), text)?;
        }
    }
    Ok(())
}

/// The page of a command, and those of the commands in it.
fn write_pages(tool: &Tool, command: &Command, date: &str, folder: &Path) -> Result<()> {
    write(
        &folder.join(page::file_name(command)),
        page::render(tool, command, date)?,
    )?;
    let inner = command.get_subcommands();
    inner
        .filter(|inner| !inner.is_hide_set())
        .try_for_each(|inner| write_pages(tool, inner, date, folder))
}

/// A file, and the folder that it is in.
fn write(path: &Path, text: Vec<u8>) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
