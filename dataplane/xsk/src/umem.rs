//! The memory frames live in, mapped. The only way to the bytes of a frame.

// UNSAFETY: turns frame tokens into slices of memory shared with the kernel.
#![expect(unsafe_code, reason = "slices over shared memory")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use zerocopy::IntoBytes;

use crate::frame::{FRAME_BYTES, Frame, FrameId, TAGS_MAX};
use crate::layout::{CHUNK_ALIGN, Header, Layout, LayoutError};
use crate::memory::Memory;
use crate::owner::{Owner, OwnerCounts, Owners};
use crate::pool::FramePool;
use crate::sys;

/// Tags given out; never reused, see [`TAGS_MAX`].
static TAGS: AtomicU32 = AtomicU32::new(0);

/// Why a memory cannot be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// A system call failed.
    #[error("{doing} the frame memory: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The descriptor is not that of a frame memory.
    #[error("the descriptor is not a frame memory: {0}")]
    Layout(#[from] LayoutError),
    /// Its size could still be changed, which would turn an access into a SIGBUS.
    #[error("the descriptor is not a frame memory: its size is not sealed")]
    NotSealed,
}

/// A mapped memory of frames.
///
/// Shared by all workers of a process behind an `Arc`. Several processes may map one memory; the tokens of each
/// are its own, and the keeper sees to it that only one of them has any.
pub struct Umem {
    /// Keeps what the pointers below point into.
    _memory: Arc<Memory>,
    layout: Layout,
    chunks: NonNull<u8>,
    owners: NonNull<AtomicU32>,
    tag: u32,
    huge_pages: bool,
    minted: AtomicBool,
}

// SAFETY: bytes of a chunk are reached only through its one token, and owner words are atomics.
unsafe impl Send for Umem {}
// SAFETY: as above: `&Umem` alone reaches no chunk.
unsafe impl Sync for Umem {}

impl Umem {
    /// A memory of this process, for tests and simulated sockets.
    ///
    /// # Panics
    /// When `frames` is 0 or above [`crate::FRAMES_MAX`]; when the process made 4096 memories before.
    pub fn heap(frames: u32) -> Self {
        #[expect(clippy::expect_used, reason = "documented: for tests")]
        let layout = Layout::plan(frames, FRAME_BYTES as u64).expect("a valid number of frames");
        let memory = Memory::heap(layout.total_bytes as usize);
        write_header(&memory, &layout.header());
        Self::over(Arc::new(memory), layout, false)
    }

    /// Makes a memory that other processes can map by the descriptor; huge pages back it if wanted and present.
    ///
    /// # Errors
    /// What the kernel says to memfd_create, ftruncate, mmap; [`UmemError::Layout`] for a wrong number of frames.
    pub fn create_memfd(frames: u32, huge_pages: bool) -> Result<(Self, OwnedFd), UmemError> {
        let layout = Layout::plan(frames, CHUNK_ALIGN)?;
        // No huge page free, none configured, or no such file system: each ends in an error here, and small
        // pages are always there.
        let huge = if huge_pages {
            create(&layout, true).ok()
        } else {
            None
        };
        let is_huge = huge.is_some();
        let (memory, fd) = match huge {
            Some(made) => made,
            None => create(&layout, false)?,
        };
        Ok((Self::over(Arc::new(memory), layout, is_huge), fd))
    }

    /// Maps a memory made by [`Umem::create_memfd`], here or in another process.
    ///
    /// # Errors
    /// When the descriptor is something else, or cannot be mapped.
    pub fn map_memfd(fd: BorrowedFd<'_>) -> Result<Self, UmemError> {
        let io_error = |doing| move |source| UmemError::Io { doing, source };
        let sealed = sys::seals(fd).is_ok_and(|seals| seals & libc::F_SEAL_SHRINK != 0);
        if !sealed {
            return Err(UmemError::NotSealed);
        }
        let file = File::from(fd.try_clone_to_owned().map_err(io_error("duplicating"))?);
        let metadata = file.metadata().map_err(io_error("sizing"))?;
        let actual = metadata.len();
        if actual < size_of::<Header>() as u64 {
            return Err(LayoutError::TooShort(actual).into());
        }
        let memory = Memory::map(fd, actual as usize, 0).map_err(io_error("mapping"))?;
        let layout = Layout::read(&read_header(&memory), actual)?;
        let huge_pages = sys::is_hugetlbfs(fd);
        Ok(Self::over(Arc::new(memory), layout, huge_pages))
    }

    fn over(memory: Arc<Memory>, layout: Layout, huge_pages: bool) -> Self {
        let tag = TAGS.fetch_add(1, Ordering::Relaxed);
        assert!(
            tag < TAGS_MAX,
            "a process makes at most {TAGS_MAX} frame memories in its life"
        );
        let chunks = memory.at(
            layout.chunks_offset as usize,
            layout.frames as usize * FRAME_BYTES,
        );
        let owners = memory.at(layout.owners_offset as usize, layout.frames as usize);
        Self {
            _memory: memory,
            layout,
            chunks,
            owners,
            tag,
            huge_pages,
            minted: AtomicBool::new(false),
        }
    }

    /// A second process' view of the same memory, with tokens of its own.
    #[cfg(test)]
    pub(crate) fn successor(&self) -> Self {
        Self::over(Arc::clone(&self._memory), self.layout, self.huge_pages)
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.layout.frames
    }

    /// True when huge pages back it.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The packet's bytes in `frame`.
    ///
    /// # Panics
    /// When `frame` is of another memory.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let start = self.byte_at(frame.id(), frame.offset());
        // SAFETY: a frame ends inside its chunk (kept by every method of `Frame`); the token is borrowed, so
        // nobody writes these bytes meanwhile (crate docs, 1 and 2); the memory was initialised when made.
        unsafe { slice::from_raw_parts(start.as_ptr(), frame.len()) }
    }

    /// The packet's bytes in `frame`, to be changed.
    ///
    /// # Panics
    /// When `frame` is of another memory.
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let start = self.byte_at(frame.id(), frame.offset());
        // SAFETY: as in `bytes`; the token is borrowed mutably, so this is the only slice of the chunk.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), frame.len()) }
    }

    /// The `N` bytes in front of the packet's bytes in `frame`: where the kernel looks for TX metadata.
    #[inline]
    pub(crate) fn front_mut<'a, const N: usize>(&'a self, frame: &'a mut Frame) -> &'a mut [u8; N] {
        assert!(frame.offset() >= N, "metadata starts inside its chunk");
        let start = self.byte_at(frame.id(), frame.offset() - N);
        // SAFETY: N bytes before the offset are inside the chunk, asserted above; exclusive as in `bytes_mut`;
        // an array of bytes has no alignment.
        unsafe { start.cast::<[u8; N]>().as_mut() }
    }

    /// Frames by holder, as the owner table says: one pass over all of it.
    pub fn ownership(&self) -> OwnerCounts {
        self.owners().counts()
    }

    /// Takes back what the closed socket of `port` left lent, and returns how many frames that was.
    ///
    /// To be called when the kernel's last reference to the socket is gone: dropped here, and closed by the
    /// keeper. The frames of a living socket would be written by the kernel while a packet is in them.
    pub fn reclaim(&self, port: u16, pool: &mut FramePool) -> usize {
        let owners = self.owners();
        let mut taken = 0;
        for index in 0..self.frames() {
            let id = FrameId::new(self.tag, index);
            if owners.get(id).port() == Some(port) {
                owners.set(id, Owner::Worker);
                pool.put(id);
                taken += 1;
            }
        }
        taken
    }

    #[inline]
    pub(crate) fn owners(&self) -> Owners<'_> {
        // SAFETY: in bounds and aligned, checked by `at` in `over`; initialised; all accesses everywhere are atomic;
        // the slice borrows `self`, which holds the memory.
        Owners::new(unsafe { slice::from_raw_parts(self.owners.as_ptr(), self.frames() as usize) })
    }

    /// The id of the chunk that `address` (from the first chunk on, as rings have it) lies in.
    #[inline]
    pub(crate) fn id_of(&self, address: u64) -> Option<FrameId> {
        let index = address / FRAME_BYTES as u64;
        (index < u64::from(self.frames())).then(|| FrameId::new(self.tag, index as u32))
    }

    /// Where in the memory the byte at `offset` of the chunk `id` is, as rings have it.
    #[inline]
    pub(crate) fn address(&self, id: FrameId, offset: usize) -> u64 {
        assert!(
            id.tag() == self.tag,
            "a frame is used with the memory it is of"
        );
        u64::from(id.index()) * FRAME_BYTES as u64 + offset as u64
    }

    pub(crate) fn id(&self, index: u32) -> FrameId {
        assert!(index < self.frames(), "a frame of this memory");
        FrameId::new(self.tag, index)
    }

    /// True for exactly one caller: the one that may mint every frame.
    pub(crate) fn claim_all(&self) -> bool {
        !self.minted.swap(true, Ordering::Relaxed)
    }

    /// Address range to register with the kernel.
    pub(crate) fn registration(&self) -> (u64, u64) {
        (
            self.chunks.as_ptr() as u64,
            u64::from(self.frames()) * FRAME_BYTES as u64,
        )
    }

    /// Copies `bytes` into a chunk the process has lent, as the kernel does: only for the simulated kernel, which
    /// calls it for frames it took from a fill ring.
    pub(crate) fn kernel_write(&self, id: FrameId, offset: usize, bytes: &[u8]) {
        assert!(
            offset + bytes.len() <= FRAME_BYTES,
            "received data ends inside its chunk"
        );
        let start = self.byte_at(id, offset);
        // SAFETY: inside the chunk, asserted above. The chunk has no token: it was lent through a ring, and the
        // ring's Release/Acquire pair orders the lender's accesses before this one.
        unsafe {
            start
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        };
    }

    /// Copies from a chunk the process has lent for sending, metadata in front included; see `kernel_write`.
    pub(crate) fn kernel_read(&self, id: FrameId, offset: usize, len: usize) -> Vec<u8> {
        assert!(
            offset + len <= FRAME_BYTES,
            "sent data ends inside its chunk"
        );
        let start = self.byte_at(id, offset);
        // SAFETY: as in `kernel_write`.
        unsafe { slice::from_raw_parts(start.as_ptr(), len) }.to_vec()
    }

    #[inline]
    fn byte_at(&self, id: FrameId, offset: usize) -> NonNull<u8> {
        assert!(
            id.tag() == self.tag,
            "a frame is used with the memory it is of"
        );
        debug_assert!(id.index() < self.frames() && offset <= FRAME_BYTES);
        // SAFETY: an id with this tag was made by `id` or `id_of` with an index below the number of frames, and
        // offsets are at most a chunk: inside the memory, or one past its end for an empty slice.
        unsafe { self.chunks.add(id.index() as usize * FRAME_BYTES + offset) }
    }
}

fn create(layout: &Layout, huge: bool) -> Result<(Memory, OwnedFd), UmemError> {
    let io_error = |doing| move |source| UmemError::Io { doing, source };
    let fd = sys::memfd_create(c"weft-umem", huge).map_err(io_error("creating"))?;
    let file = File::from(fd);
    file.set_len(layout.total_bytes)
        .map_err(io_error("sizing"))?;
    let memory =
        Memory::map(file.as_fd(), layout.total_bytes as usize, 0).map_err(io_error("mapping"))?;
    write_header(&memory, &layout.header());
    sys::seal_size(file.as_fd()).map_err(io_error("sealing"))?;
    Ok((memory, file.into()))
}

fn write_header(memory: &Memory, header: &Header) {
    let bytes = header.as_bytes();
    // SAFETY: in bounds, checked by `at`; the memory is new, so nobody else refers to it.
    unsafe {
        memory
            .at::<u8>(0, bytes.len())
            .as_ptr()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    };
}

fn read_header(memory: &Memory) -> Vec<u8> {
    let len = size_of::<Header>();
    // SAFETY: in bounds, checked by `at`; headers are written before the descriptor is handed out, never later.
    unsafe { slice::from_raw_parts(memory.at::<u8>(0, len).as_ptr(), len) }.to_vec()
}

impl std::fmt::Debug for Umem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Umem")
            .field("frames", &self.frames())
            .field("huge_pages", &self.huge_pages)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_are_read_and_stay_in_their_frame() {
        let umem = Umem::heap(4);
        let mut pool = FramePool::all(&umem).unwrap();
        let (mut a, mut b) = (pool.alloc().unwrap(), pool.alloc().unwrap());
        a.set_len(FRAME_BYTES - a.offset()).unwrap();
        b.set_len(3).unwrap();
        umem.bytes_mut(&mut a).fill(0xaa);
        umem.bytes_mut(&mut b).copy_from_slice(b"xyz");
        assert!(umem.bytes(&a).iter().all(|byte| *byte == 0xaa));
        assert_eq!(umem.bytes(&b), b"xyz");
        pool.free(a);
        pool.free(b);
    }

    #[test]
    #[should_panic(expected = "the memory it is of")]
    fn a_frame_of_another_memory_is_refused() {
        let (umem, other) = (Umem::heap(2), Umem::heap(2));
        let frame = FramePool::all(&other).unwrap().alloc().unwrap();
        umem.bytes(&frame);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn a_second_mapping_sees_the_same_bytes() {
        let (umem, fd) = Umem::create_memfd(16, false).unwrap();
        let mut pool = FramePool::all(&umem).unwrap();
        let mut frame = pool.alloc().unwrap();
        frame.set_len(5).unwrap();
        umem.bytes_mut(&mut frame).copy_from_slice(b"hello");
        let second = Umem::map_memfd(fd.as_fd()).unwrap();
        assert_eq!(second.frames(), 16);
        let same = Frame::mint(second.id(frame.index()), frame.offset(), frame.len());
        assert_eq!(second.bytes(&same), b"hello");
        same.surrender();
        pool.free(frame);
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn huge_pages_are_a_wish() {
        let (umem, fd) = Umem::create_memfd(600, true).unwrap();
        assert_eq!(
            Umem::map_memfd(fd.as_fd()).unwrap().huge_pages(),
            umem.huge_pages()
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "memfd")]
    fn what_is_not_a_frame_memory_is_refused() {
        let unsealed = sys::memfd_create(c"x", false).unwrap();
        assert!(matches!(
            Umem::map_memfd(unsealed.as_fd()),
            Err(UmemError::NotSealed)
        ));
        let file = File::from(unsealed);
        file.set_len(8192).unwrap();
        sys::seal_size(file.as_fd()).unwrap();
        let error = Umem::map_memfd(file.as_fd()).unwrap_err();
        assert!(
            matches!(error, UmemError::Layout(LayoutError::Magic(0))),
            "{error}"
        );
    }

    #[test]
    fn reclaim_takes_what_one_port_held() {
        let umem = Umem::heap(8);
        let mut pool = FramePool::all(&umem).unwrap();
        for port in [3, 3, 4] {
            let id = pool.take().unwrap();
            umem.owners().set(id, Owner::fill(port, 0));
        }
        let id = pool.take().unwrap();
        umem.owners().set(id, Owner::tx(3, 9));
        assert_eq!(umem.reclaim(3, &mut pool), 3);
        assert_eq!(pool.len(), 7);
        assert_eq!(
            umem.ownership(),
            OwnerCounts {
                worker: 7,
                fill: 1,
                tx: 0
            }
        );
    }
}
