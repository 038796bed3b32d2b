//! Values of BPF maps as the skeletons' types.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{MapCore, MapFlags};
use nix::libc;
use plain::Plain;

/// Entries that one system call reads at first.
const BATCH: u32 = 1024;

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

/// The value that the bytes begin with.
pub fn read_first<T: Plain + Default>(bytes: &[u8]) -> Result<T> {
    read(bytes.get(..size_of::<T>()).unwrap_or(bytes))
}

/// Sets the values of a per-CPU map to 0, one for each possible CPU.
pub fn clear_each(map: &impl MapCore, key: &[u8]) -> Result<()> {
    let zeros = vec![vec![0; map.value_size() as usize]; libbpf_rs::num_possible_cpus()?];
    Ok(map.update_percpu(key, &zeros, MapFlags::ANY)?)
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

/// Every entry of a hash map, as key and value.
pub fn entries(map: &impl MapCore) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = Vec::new();
    for_each(map, |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    Ok(entries)
}

/// Visits every entry of a hash map, as key and value. (libbpf-rs 0.27 takes a batch that is short of
/// full, because the kernel does not split a bucket, for the last one, and an error for the end.)
pub fn for_each(
    map: &impl MapCore,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let (key_size, value_size) = (map.key_size() as usize, map.value_size() as usize);
    let options = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as _,
        ..Default::default()
    };
    let mut batch = BATCH;
    // Where a hash map's next batch starts, is a number to the kernel.
    let mut position: Option<u32> = None;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    loop {
        keys.resize(batch as usize * key_size, 0_u8);
        values.resize(batch as usize * value_size, 0_u8);
        let mut count = batch;
        let mut next = 0_u32;
        let from = position.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: keys and values have room for `count` entries; `from`, `next`, `count` and the
        // options outlive the call.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_fd().as_raw_fd(),
                from.cast(),
                ptr::from_mut(&mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &mut count,
                &options,
            )
        };
        let last = match -result {
            0 => false,
            libc::ENOENT => true,
            libc::EINTR => continue,
            // One bucket holds more than a whole batch.
            libc::ENOSPC => {
                batch *= 2;
                continue;
            }
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(error).with_context(|| format!("list the map {:?}", map.name()));
            }
        };
        let found = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        for (key, value) in found.take(count as usize) {
            visit(key, value)?;
        }
        if last {
            return Ok(());
        }
        position = Some(next);
    }
}
