//! A man page: what clap knows of a command, and what [`Tool`] adds.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::tools::Tool;

/// Of tools for those who look after a machine.
const SECTION: &str = "8";
const MANUAL: &str = "netbpf";

/// Every tool ends with these: netsetup/failure.rs.
const EXIT_STATUS: [(&str, &str); 6] = [
    ("0", "Done."),
    ("1", "Failed while it ran."),
    (
        "2",
        "The command line is wrong, or names what does not exist.",
    ),
    ("3", "A capability is missing; it is named."),
    (
        "4",
        "This kernel, or this kind of interface, cannot do what is needed.",
    ),
    (
        "5",
        "Conflict: something of that name is there and is not ours, or another instance runs.",
    ),
];

/// The name of a command's page; that of `tool inner` is tool-inner.
fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// The file of a command's page.
pub fn file_name(command: &Command) -> String {
    format!("{}.{SECTION}", name(command))
}

/// The page of a command, which is the tool's own or one in it; `date` is its last change's.
pub fn render(tool: &Tool, command: &Command, date: &str) -> Result<Vec<u8>> {
    let is_inner = name(command) != tool.name;
    let mut shown = command.clone();
    if !is_inner {
        shown = shown.override_usage(tool.usage);
    }
    let man = Man::new(shown)
        .section(SECTION)
        .date(date)
        .source(format!("netbpf {}", tool.version()))
        .manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if !is_inner {
        for (heading, paragraphs) in tool.sections {
            section(&mut roff, heading);
            list(&mut roff, paragraphs);
        }
    }
    section(&mut roff, "EXIT STATUS");
    list(&mut roff, &EXIT_STATUS);
    let examples: Vec<_> = tool.examples_of(command).collect();
    if !examples.is_empty() {
        section(&mut roff, "EXAMPLES");
        for (place, (line, says)) in examples.into_iter().enumerate() {
            if place > 0 {
                roff.control("PP", []);
            }
            roff.text([roman(says)]);
            roff.control("PP", []);
            roff.control("RS", ["4"]);
            roff.control("nf", []);
            roff.text([bold(line)]);
            roff.control("fi", []);
            roff.control("RE", []);
        }
    }
    section(&mut roff, "SEE ALSO");
    let pages = if is_inner {
        vec![(tool.name, SECTION)]
    } else {
        tool.see_also.to_vec()
    };
    let mut see_also = Vec::new();
    for (page, section) in pages {
        if !see_also.is_empty() {
            see_also.push(roman(", "));
        }
        see_also.extend([bold(page), roman(format!("({section})"))]);
    }
    roff.text(see_also);
    if !is_inner {
        roff.control("PP", []);
        roff.text([roman(format!(
            "How it works, what it counts and where its limits are: {}, in the folder of netbpf's \
             documentation.",
            tool.document
        ))]);
    }
    roff.to_writer(&mut text)?;
    Ok(text)
}

fn section(roff: &mut Roff, heading: &str) {
    roff.control("SH", [heading]);
}

/// Terms and what they mean.
fn list(roff: &mut Roff, entries: &[(&str, &str)]) {
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}
