//! Names in a machine's file.

/// As it can stand in a condition and head a column: ASCII, one word, no number.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where the name is among those that are known; or what is wrong with who wants it.
pub(super) fn find<'a>(
    name: &str,
    what: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Result<usize, String> {
    let place = known.clone().position(|known| known == name);
    place.ok_or_else(|| format!("wants the {what} '{name}', {what}s are: {}", list(known)))
}

/// As an error lists them.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".into();
    }
    names.join(", ")
}
