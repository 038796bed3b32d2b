//! What tells the tool's programs from all others.

use crate::tc::Direction;

/// The program, and the beginning of its twin's name for interfaces without an Ethernet header. The tool
/// is called so too.
pub(super) const STEM: &str = "tokenbucket";

/// Where it is a filter.
pub(super) fn of(direction: Direction) -> String {
    format!("{STEM}/{direction}")
}

/// Where it is a filter that stays.
pub(super) fn of_pinned(direction: Direction) -> String {
    format!("{STEM}/pinned/{direction}")
}

/// The labels of programs that end with their process.
pub fn labels() -> Vec<String> {
    [Direction::Ingress, Direction::Egress].map(of).into()
}

/// The labels of programs that stay.
pub(super) fn pinned_labels() -> Vec<String> {
    [Direction::Ingress, Direction::Egress]
        .map(of_pinned)
        .into()
}
