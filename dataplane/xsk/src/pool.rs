//! A worker's free frames.

use arrayvec::ArrayVec;

use crate::frame::{Frame, FrameChain, FrameId, RX_OFFSET};
use crate::umem::Umem;

/// Frames on their way to another worker's pool. 64 fill 8 cache lines, and are a worker's batch.
pub type FrameBatch = ArrayVec<Frame, 64>;

/// Free frames of one worker: a stack, so that the frame used last, still in the cache, is used next.
///
/// It has room for every frame of its memory from the start, and never allocates again.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<FrameId>,
}

impl FramePool {
    /// A pool without frames, for the memory `umem`.
    pub fn empty(umem: &Umem) -> Self {
        Self {
            free: Vec::with_capacity(umem.frames() as usize),
        }
    }

    /// A pool with every frame of a memory that no ring knows yet; none when the frames were given out before.
    pub fn all(umem: &Umem) -> Option<Self> {
        if !umem.claim_all() {
            return None;
        }
        let mut pool = Self::empty(umem);
        // Backwards: the first frames are handed out first.
        pool.free
            .extend((0..umem.frames()).rev().map(|index| umem.id(index)));
        Some(pool)
    }

    /// An empty frame at the offset of fresh ones; none when the pool is empty. Its bytes are what they were.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        self.free.pop().map(|id| Frame::mint(id, RX_OFFSET, 0))
    }

    /// Takes a frame back.
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        self.put(frame.surrender());
    }

    /// Takes all frames of a packet back and leaves it empty.
    #[inline]
    pub fn free_chain(&mut self, chain: &mut FrameChain) {
        for frame in chain.drain(..) {
            self.free(frame);
        }
    }

    /// Free frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// True when there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Moves up to `n` frames to the pool `to`, and returns how many.
    pub fn give_bulk(&mut self, to: &mut Self, n: usize) -> usize {
        let moved = n.min(self.len());
        to.free.extend(self.free.drain(self.free.len() - moved..));
        moved
    }

    /// Moves up to `n` frames here from the pool `from`, and returns how many.
    pub fn take_bulk(&mut self, from: &mut Self, n: usize) -> usize {
        from.give_bulk(self, n)
    }

    /// Takes out up to `n` frames, at most a batch, to be sent to another thread.
    pub fn take_batch(&mut self, n: usize) -> FrameBatch {
        let mut batch = FrameBatch::new();
        let n = n.min(batch.capacity());
        batch.extend(std::iter::from_fn(|| self.alloc()).take(n));
        batch
    }

    /// Takes in a batch and leaves it empty.
    pub fn put_batch(&mut self, batch: &mut FrameBatch) {
        for frame in batch.drain(..) {
            self.free(frame);
        }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<FrameId> {
        self.free.pop()
    }

    #[inline]
    pub(crate) fn put(&mut self, id: FrameId) {
        debug_assert!(
            self.free.len() < self.free.capacity(),
            "more frames are freed than there are"
        );
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_frames_are_given_out_once() {
        let umem = Umem::heap(5);
        let mut pool = FramePool::all(&umem).unwrap();
        assert!(FramePool::all(&umem).is_none());
        let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(
            frames.iter().map(Frame::index).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert!(pool.is_empty());
        frames.drain(..).for_each(|frame| pool.free(frame));
        assert_eq!(pool.len(), 5);
    }

    #[test]
    fn bulk_moves_never_grow_a_pool() {
        let umem = Umem::heap(100);
        let mut a = FramePool::all(&umem).unwrap();
        let mut b = FramePool::empty(&umem);
        let capacity = b.free.capacity();
        assert_eq!(a.give_bulk(&mut b, 70), 70);
        assert_eq!(b.take_bulk(&mut a, 70), 30);
        assert_eq!((a.len(), b.len(), b.free.capacity()), (0, 100, capacity));
        let mut batch = b.take_batch(1000);
        assert_eq!((batch.len(), b.len()), (64, 36));
        a.put_batch(&mut batch);
        assert_eq!((a.len(), batch.len()), (64, 0));
    }
}
