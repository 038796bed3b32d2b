//! BPF array maps as memory: read and written without system calls, while BPF programs do the same.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use libbpf_rs::MapCore;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// What a map's value may be seen as while others write it.
///
/// # Safety
///
/// It consists of atomic integers only, has no padding, and eight bytes are as much as it is aligned to.
pub unsafe trait Shared {}

/// All values of an array map (`BPF_F_MMAPABLE`).
#[derive(Debug)]
pub struct Mapped<T> {
    first: NonNull<T>,
    count: usize,
    bytes: NonZeroUsize,
    values: PhantomData<T>,
}

impl<T: Shared> Mapped<T> {
    /// Maps it into memory.
    pub fn open(map: &impl MapCore) -> Result<Mapped<T>> {
        let name = map.name().to_string_lossy().into_owned();
        let count = map.max_entries() as usize;
        ensure!(
            map.value_size() as usize == size_of::<T>() && size_of::<T>().is_multiple_of(8),
            "a value of {name} has {} bytes, {} were expected",
            map.value_size(),
            size_of::<T>()
        );
        let bytes = NonZeroUsize::new(count * size_of::<T>());
        let bytes = bytes.with_context(|| format!("{name} is empty"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let memory = unsafe {
            mmap(
                None,
                bytes,
                protection,
                MapFlags::MAP_SHARED,
                map.as_fd(),
                0,
            )
        };
        Ok(Mapped {
            first: memory
                .with_context(|| format!("map {name} into memory"))?
                .cast(),
            count,
            bytes,
            values: PhantomData,
        })
    }

    /// The value of this key, if there is one.
    pub fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        // SAFETY: below `count` it is within the mapping, which lasts as long as `self`; mappings begin
        // at a page, so it is aligned, and what is `Shared` may be written by anybody.
        (index < self.count).then(|| unsafe { self.first.add(index).as_ref() })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count as u32
    }
}

// SAFETY: the mapping is there from any thread, and what is `Shared` may be read and written by all at once.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: this mapping, whole; no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast::<c_void>(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
