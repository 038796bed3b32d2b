//! `netsetup up|down|list`: keeps a topology up without a tool.
fn main() {}
