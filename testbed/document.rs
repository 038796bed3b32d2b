//! What a document of docs/ shows, taken out of it: what the reader is told to type, and what he gets.

use crate::step;
use std::fs;

/// The blocks of code in a section of the document, in their order.
pub fn blocks(path: &str, section: &str) -> Vec<String> {
    let document = step(path, fs::read_to_string(path));
    let heading = format!("\n## {section}\n");
    let (_, text) = step(&heading, document.split_once(&heading).ok_or("not there"));
    let text = text.split("\n## ").next().unwrap_or_default();
    // Every second part is between fences; its first line names the language.
    let between = text.split("```").skip(1).step_by(2);
    between
        .map(|block| block.split_once('\n').unwrap_or_default().1.to_owned())
        .collect()
}
