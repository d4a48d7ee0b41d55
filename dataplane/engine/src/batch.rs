//! What the stages see at once.

use std::ops::Range;

use arrayvec::ArrayVec;
use weft_xsk::FramePool;

use crate::packet::{Origin, Packet};

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

    /// Shows every packet once, in the order in which to send them: what was cut off a packet comes right behind
    /// it, so that no packet of a connection overtakes another.
    pub fn for_each_in_order(&mut self, mut visit: impl FnMut(&mut Packet)) {
        for packet in &mut self.packets {
            visit(packet);
            for piece in pieces_of(packet.pieces.clone(), &mut self.born) {
                visit(piece);
            }
        }
        for index in 0..self.born.len() {
            if self.born[index].origin == Origin::Cut {
                continue;
            }
            visit(&mut self.born[index]);
            let pieces = self.born[index].pieces.clone();
            for piece in pieces_of(pieces, &mut self.born) {
                visit(piece);
            }
        }
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

fn pieces_of(pieces: Range<u16>, born: &mut [Packet]) -> &mut [Packet] {
    born.get_mut(usize::from(pieces.start)..usize::from(pieces.end))
        .unwrap_or_default()
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
