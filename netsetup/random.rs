//! Numbers that nobody else has chosen: identities that prove an object to be ours.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};

/// `N` bytes of the kernel's random generator.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes)
}
