//! Memory of one owner that outlives it: words another process finds as the last one left them.

// UNSAFETY: turns a mapping into a slice.
#![expect(unsafe_code, reason = "a slice over mapped memory")]

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::time::{Duration, Instant};

use crate::memory::Memory;
use crate::sys;

/// How long to wait for the last owner's end: a process killed a moment ago still closes its
/// descriptors. One second is far above that, and a start that fails takes an empty region.
const OWNER_PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two looks for it.
const OWNER_PAUSE: Duration = Duration::from_millis(5);

/// Why a region cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A system call failed.
    #[error("{doing} a region of {bytes} bytes: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Its size.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("another process or thread owns the region")]
    Owned,
    /// The descriptor is that of something else.
    #[error("the region has {actual} bytes of sealed size, not {wanted}")]
    Size {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes of sealed size; 0 when the size is not sealed.
        actual: u64,
    },
}

/// Words that start at a page and are all zero at first. Pages are given when they are touched.
///
/// There is one owner at a time, in this process and any other: the lock of the open file goes with the
/// mapping, so that no two slices of the same words exist.
pub struct Region {
    words: NonNull<u32>,
    count: usize,
    /// Keeps what `words` points into.
    _memory: Memory,
    /// Holds the lock; absent for memory of this process alone.
    _lock: Option<File>,
}

// SAFETY: the words are reached through this owner only, as those of a `Vec`.
unsafe impl Send for Region {}
// SAFETY: as above: `&Region` only reads.
unsafe impl Sync for Region {}

impl Region {
    /// Memory of this process, gone with it.
    ///
    /// # Errors
    /// When the kernel has no address space left.
    pub fn anonymous(bytes: usize) -> Result<Self, RegionError> {
        let memory = Memory::anonymous(bytes).map_err(failed("making", bytes))?;
        Ok(Self::over(memory, bytes, None))
    }

    /// Makes memory that other processes can own after this one, by the descriptor.
    ///
    /// # Errors
    /// What the kernel says to memfd_create and ftruncate.
    pub fn create_memfd(bytes: usize) -> Result<OwnedFd, RegionError> {
        let fd = sys::memfd_create(c"weft-region", false).map_err(failed("creating", bytes))?;
        let file = File::from(fd);
        let sized = file.set_len(bytes as u64);
        sized
            .and_then(|()| sys::seal_size(file.as_fd()))
            .map_err(failed("sizing", bytes))?;
        Ok(file.into())
    }

    /// Takes the memory of [`Region::create_memfd`] over. Waits a moment for an owner that is just dying.
    ///
    /// # Errors
    /// [`RegionError::Owned`]; when it is not of this size, or cannot be mapped.
    pub fn own_memfd(fd: BorrowedFd<'_>, bytes: usize) -> Result<Self, RegionError> {
        // The lock is one of the open file, which a descriptor passed to us shares with whoever passed
        // it; opened anew, it is ours.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut options = File::options();
        let opened = options.read(true).write(true).open(path);
        let file = opened.map_err(failed("opening", bytes))?;
        let sealed = sys::seals(file.as_fd()).is_ok_and(|seals| seals & libc::F_SEAL_SHRINK != 0);
        let actual = match sealed {
            true => file.metadata().map_err(failed("sizing", bytes))?.len(),
            false => 0,
        };
        if actual != bytes as u64 {
            let wanted = bytes;
            return Err(RegionError::Size { wanted, actual });
        }
        lock(&file, bytes)?;
        let memory = Memory::map_on_touch(file.as_fd(), bytes).map_err(failed("mapping", bytes))?;
        Ok(Self::over(memory, bytes, Some(file)))
    }

    fn over(memory: Memory, bytes: usize, lock: Option<File>) -> Self {
        let count = bytes / size_of::<u32>();
        Self {
            words: memory.at(0, count),
            count,
            _memory: memory,
            _lock: lock,
        }
    }
}

fn lock(file: &File, bytes: usize) -> Result<(), RegionError> {
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(OWNER_PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Err(RegionError::Owned),
            Err(TryLockError::Error(source)) => return Err(failed("locking", bytes)(source)),
        }
    }
}

fn failed(doing: &'static str, bytes: usize) -> impl FnOnce(io::Error) -> RegionError {
    move |source| RegionError::Io {
        doing,
        bytes,
        source,
    }
}

impl Deref for Region {
    type Target = [u32];

    #[inline(always)]
    fn deref(&self) -> &[u32] {
        // SAFETY: in bounds and aligned, checked by `at` in `over`; the kernel gives zeroed pages and the size
        // is sealed, so each is there; writers need `&mut self`, and the lock keeps other owners away.
        unsafe { slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl DerefMut for Region {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `deref`; `&mut self` is the only way to the words.
        unsafe { slice::from_raw_parts_mut(self.words.as_ptr(), self.count) }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("words", &self.count)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn the_next_owner_finds_what_the_last_one_left() {
        let fd = Region::create_memfd(10_000).unwrap();
        let mut region = Region::own_memfd(fd.as_fd(), 10_000).unwrap();
        assert_eq!(region.len(), 2_500);
        assert!(region.iter().all(|word| *word == 0));
        region[2_499] = 7;
        drop(region);
        assert_eq!(Region::own_memfd(fd.as_fd(), 10_000).unwrap()[2_499], 7);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn there_is_one_owner() {
        let fd = Region::create_memfd(4096).unwrap();
        let copy = fd.try_clone().unwrap();
        let owner = Region::own_memfd(fd.as_fd(), 4096).unwrap();
        assert!(matches!(
            Region::own_memfd(copy.as_fd(), 4096),
            Err(RegionError::Owned)
        ));
        drop(owner);
        assert!(Region::own_memfd(copy.as_fd(), 4096).is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn another_size_and_an_unsealed_one_are_refused() {
        let fd = Region::create_memfd(4096).unwrap();
        let unsealed = sys::memfd_create(c"x", false).unwrap();
        for (fd, actual) in [(fd, 4096), (unsealed, 0)] {
            let error = Region::own_memfd(fd.as_fd(), 8192).unwrap_err();
            assert!(
                matches!(error, RegionError::Size { wanted: 8192, actual: it } if it == actual),
                "{error}"
            );
        }
    }

    #[test]
    fn memory_of_this_process_begins_at_a_page_and_is_zero() {
        let region = Region::anonymous(100).unwrap();
        assert_eq!((region.len(), region.as_ptr().align_offset(4096)), (25, 0));
        assert!(region.iter().all(|word| *word == 0));
    }
}
