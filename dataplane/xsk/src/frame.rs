//! The unique token of one chunk of the UMEM, and packets as chains of them.

use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

/// Bytes of a chunk. The kernel accepts 2048 or 4096 in aligned mode, and never more than a page; 4096 lets a
/// 64 KiB packet fit 18 chunks.
pub const FRAME_BYTES: usize = 4096;

/// Where received data starts in a chunk: XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h), UMEM headroom being 0.
/// It is also where fresh frames start, so that an encapsulation fits in front.
pub const RX_OFFSET: usize = 256;

/// Bytes in front of each transmitted frame that belong to `struct xsk_tx_metadata`: 24 since Linux 6.13
/// (launch time), and larger than what 6.8 needs.
pub const TX_METADATA_BYTES: usize = 24;

/// Descriptors of one packet: MAX_SKB_FRAGS + 1. The kernel drops longer transmit chains, and never builds them.
pub const CHAIN_MAX: usize = 18;

/// Frames of one UMEM: the width of a frame's index. 2^20 chunks are 4 GiB; pods' memory is to stay below 64 MiB.
pub const FRAMES_MAX: u32 = 1 << INDEX_BITS;

const INDEX_BITS: u32 = 20;

/// Umems a process can make in its life: what is left of the 32 bits. A dataplane makes one; tags are not used
/// again, so that a token can never reach the bytes of a memory other than its own.
pub(crate) const TAGS_MAX: u32 = 1 << (32 - INDEX_BITS);

/// Tokens dropped without having been given back, process-wide.
static LEAKED: AtomicU64 = AtomicU64::new(0);

/// Frames whose token was dropped instead of being given to a pool or a ring. Anything but zero is a bug.
pub fn leaked_frames() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

pub(crate) fn count_leaked(frames: usize) {
    LEAKED.fetch_add(frames as u64, Ordering::Relaxed);
}

/// The frames of one packet, in order.
pub type FrameChain = ArrayVec<Frame, CHAIN_MAX>;

/// The bytes asked for are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in the frame")]
pub struct NoRoom;

/// Which chunk of which memory: a plain number, as rings and free lists store it. Holding one means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameId(u32);

impl FrameId {
    pub(crate) fn new(tag: u32, index: u32) -> Self {
        debug_assert!(tag < TAGS_MAX && index < FRAMES_MAX);
        Self(tag << INDEX_BITS | index)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.0 & (FRAMES_MAX - 1)
    }

    #[inline]
    pub(crate) fn tag(self) -> u32 {
        self.0 >> INDEX_BITS
    }
}

/// The right to one chunk, and where in it the packet's bytes are.
///
/// Neither `Clone` nor `Copy`: it moves from pool to packet to ring. Dropping one loses the chunk until the next
/// start and is counted, see [`leaked_frames`].
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    id: FrameId,
    offset: u16,
    len: u16,
}

// Packets move by value through batches: 18 frames of 8 bytes are 2 1/4 cache lines.
const _: () = assert!(size_of::<Frame>() == 8);

impl Frame {
    /// Mints the token of `id`. Callers are those named in the crate's safety argument.
    pub(crate) fn mint(id: FrameId, offset: usize, len: usize) -> Self {
        assert!(offset + len <= FRAME_BYTES, "a frame ends inside its chunk");
        Self {
            id,
            offset: offset as u16,
            len: len as u16,
        }
    }

    /// Gives up the token: the caller records the chunk elsewhere.
    #[inline]
    pub(crate) fn surrender(self) -> FrameId {
        let id = self.id;
        std::mem::forget(self);
        id
    }

    #[inline]
    pub(crate) fn id(&self) -> FrameId {
        self.id
    }

    /// Number of the chunk in its UMEM.
    #[inline]
    pub fn index(&self) -> u32 {
        self.id.index()
    }

    /// Bytes of the packet in this frame.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True when it holds no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where in the chunk the bytes start.
    #[inline]
    pub fn offset(&self) -> usize {
        usize::from(self.offset)
    }

    /// Bytes that can still be put in front; room for the TX metadata is already left.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.offset().saturating_sub(TX_METADATA_BYTES)
    }

    /// Bytes that can still be put behind.
    #[inline]
    pub fn tailroom(&self) -> usize {
        FRAME_BYTES - self.offset() - self.len()
    }

    /// Moves the start `n` bytes towards the chunk's start; the bytes won hold what was there.
    ///
    /// # Errors
    /// [`NoRoom`] when less headroom is left.
    #[inline]
    pub fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.headroom() {
            return Err(NoRoom);
        }
        self.offset -= n as u16;
        self.len += n as u16;
        Ok(())
    }

    /// Cuts `n` bytes off the front.
    ///
    /// # Errors
    /// [`NoRoom`] when the frame is shorter.
    #[inline]
    pub fn shrink_front(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.len() {
            return Err(NoRoom);
        }
        self.offset += n as u16;
        self.len -= n as u16;
        Ok(())
    }

    /// Sets the length; bytes won at the end hold what was there.
    ///
    /// # Errors
    /// [`NoRoom`] when the chunk ends before.
    #[inline]
    pub fn set_len(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > FRAME_BYTES - self.offset() {
            return Err(NoRoom);
        }
        self.len = n as u16;
        Ok(())
    }

    /// Empty again, at the offset of a fresh frame.
    #[inline]
    pub fn reset(&mut self) {
        self.offset = RX_OFFSET as u16;
        self.len = 0;
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        count_leaked(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Frame {
        Frame::mint(FrameId::new(7, 5), RX_OFFSET, 0)
    }

    #[test]
    fn an_id_keeps_tag_and_index_apart() {
        let id = FrameId::new(TAGS_MAX - 1, FRAMES_MAX - 1);
        assert_eq!((id.tag(), id.index()), (TAGS_MAX - 1, FRAMES_MAX - 1));
    }

    #[test]
    fn growing_stops_before_the_metadata() {
        let mut frame = fresh();
        assert_eq!(frame.headroom(), RX_OFFSET - TX_METADATA_BYTES);
        assert_eq!(frame.grow_front(frame.headroom() + 1), Err(NoRoom));
        assert_eq!(frame.grow_front(frame.headroom()), Ok(()));
        assert_eq!((frame.offset(), frame.headroom()), (TX_METADATA_BYTES, 0));
        frame.surrender();
    }

    #[test]
    fn a_frame_never_leaves_its_chunk() {
        let mut frame = fresh();
        assert_eq!(frame.set_len(FRAME_BYTES - RX_OFFSET + 1), Err(NoRoom));
        assert_eq!(frame.set_len(FRAME_BYTES - RX_OFFSET), Ok(()));
        assert_eq!(frame.tailroom(), 0);
        assert_eq!(frame.shrink_front(FRAME_BYTES), Err(NoRoom));
        assert_eq!(frame.shrink_front(FRAME_BYTES - RX_OFFSET), Ok(()));
        assert_eq!(
            (frame.offset(), frame.len(), frame.tailroom()),
            (FRAME_BYTES, 0, 0)
        );
        frame.reset();
        assert_eq!(frame.offset(), RX_OFFSET);
        frame.surrender();
    }

    #[test]
    fn a_dropped_token_is_counted() {
        let before = leaked_frames();
        drop(fresh());
        assert!(leaked_frames() > before);
    }
}
