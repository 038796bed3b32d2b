//! Values of BPF maps as the skeletons' types.

use anyhow::{Result, anyhow};
use plain::Plain;

/// The value that a map look-up returned.
pub fn read<T: Plain + Default>(bytes: &[u8]) -> Result<T> {
    let mut value = T::default();
    plain::copy_from_bytes(&mut value, bytes).map_err(|_| {
        anyhow!(
            "a map's value has {} bytes, {} were expected",
            bytes.len(),
            size_of::<T>()
        )
    })?;
    Ok(value)
}

/// The values that a per-CPU look-up returned, one for each possible CPU.
pub fn read_each<T: Plain + Default>(values: &[Vec<u8>]) -> Result<Vec<T>> {
    values.iter().map(|bytes| read(bytes)).collect()
}

/// A value as the bytes that a map takes.
pub fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: Plain types have no invalid bytes, and the skeletons pad explicitly.
    unsafe { plain::as_bytes(value) }
}
