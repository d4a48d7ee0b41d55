//! What the stages see at once.

use arrayvec::ArrayVec;
use weft_xsk::FramePool;

use crate::packet::Packet;

/// Packets of one batch: what a burst of a ring gives. Larger batches leave the L1 cache (a packet's
/// metadata is some 270 bytes), smaller ones spread the cost of a kick over fewer packets.
pub const BATCH_MAX: usize = 64;

/// Frames of one batch: seven TCP packets of 64 KiB. They become 320 segments of 1,448 bytes; more in one batch
/// would leave the L2 cache before they are sent.
pub const BATCH_FRAMES_MAX: usize = 128;

/// Packets one batch can make beside itself: segments, fragments cut or released, ICMP errors. Seven packets of
/// 64 KiB at an MSS of 536 bytes need 854; beyond the bound packets are dropped as `burst-full` instead of
/// allocating.
pub const BORN_MAX: usize = 1024;

/// Received packets, and those the pipeline made of them.
pub struct Batch {
    /// What was received; each keeps its place, so that a capture can tell them apart.
    pub packets: ArrayVec<Packet, BATCH_MAX>,
    /// ICMP errors, fragments released or cut: they have verdicts like the others. Capacity
    /// [`BORN_MAX`], never exceeded.
    pub born: Vec<Packet>,
}

impl Batch {
    /// An empty batch with all the room it will ever need.
    pub fn new() -> Self {
        Self {
            packets: ArrayVec::new(),
            born: Vec::with_capacity(BORN_MAX),
        }
    }

    /// All packets, received ones first.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Packet> {
        self.packets.iter_mut().chain(self.born.iter_mut())
    }

    /// Forgets all packets and gives the frames they still hold to `pool`.
    pub fn recycle(&mut self, pool: &mut FramePool) {
        for packet in self.packets.iter_mut().chain(self.born.iter_mut()) {
            pool.free_chain(&mut packet.frames);
        }
        self.packets.clear();
        self.born.clear();
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
