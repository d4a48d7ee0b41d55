//! Memory shared with the kernel or another process, and its stand-in on the heap.

// UNSAFETY: mapping, unmapping and offsetting into memory that Rust did not allocate.
#![expect(unsafe_code, reason = "mmap and raw allocation")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;

const PAGE: usize = 4096;

/// Page-aligned, initialised memory that stays where it is until dropped.
pub(crate) struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    origin: Origin,
}

enum Origin {
    Mapped,
    Heap(Layout),
}

// SAFETY: `Memory` only hands out pointers; it reads and writes nothing itself.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeroed memory of this process.
    pub(crate) fn heap(bytes: usize) -> Self {
        assert!(
            bytes > 0 && bytes <= isize::MAX as usize - PAGE,
            "heap memory of a sensible size"
        );
        #[expect(
            clippy::expect_used,
            reason = "the size was checked, the alignment is a power of two"
        )]
        let layout = Layout::from_size_align(bytes, PAGE).expect("a valid layout");
        // SAFETY: the layout has a size, asserted above.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self {
            start,
            bytes,
            origin: Origin::Heap(layout),
        }
    }

    /// `bytes` of `fd` from `offset` on, shared and writable, its pages present.
    pub(crate) fn map(fd: BorrowedFd<'_>, bytes: usize, offset: u64) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::mmap(fd.as_raw_fd(), bytes, offset, flags)
    }

    /// The first `bytes` of `fd`, shared and writable; pages come when they are touched.
    pub(crate) fn map_on_touch(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::mmap(fd.as_raw_fd(), bytes, 0, libc::MAP_SHARED)
    }

    /// Zeroed memory of this process; pages come when they are touched.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::mmap(-1, bytes, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    fn mmap(fd: RawFd, bytes: usize, offset: libc::off_t, flags: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            start,
            bytes,
            origin: Origin::Mapped,
        })
    }

    /// Pointer to `count` elements at `offset`. It is in bounds, aligned, and valid while `self` lives.
    pub(crate) fn at<T>(&self, offset: usize, count: usize) -> NonNull<T> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(offset));
        assert!(
            bytes.is_some_and(|end| end <= self.bytes),
            "elements end inside their memory"
        );
        assert!(
            align_of::<T>() <= PAGE && offset.is_multiple_of(align_of::<T>()),
            "elements are aligned"
        );
        // SAFETY: the offset is inside the allocation, checked above; the memory is page-aligned.
        unsafe { self.start.add(offset) }.cast()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.origin {
            Origin::Mapped => {
                // SAFETY: start and length are those of the mapping made in `map`, and nobody uses it any more.
                unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
            }
            Origin::Heap(layout) => {
                // SAFETY: allocated in `heap` with this layout.
                unsafe { dealloc(self.start.as_ptr(), layout) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "inside their memory")]
    fn pointers_stay_inside() {
        Memory::heap(64).at::<u64>(0, 9);
    }

    #[test]
    #[should_panic(expected = "aligned")]
    fn pointers_are_aligned() {
        Memory::heap(64).at::<u64>(4, 1);
    }
}
