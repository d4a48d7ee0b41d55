//! Who holds each frame, one word per frame in the memory that survives a dataplane.
//!
//! A word is written at every move between the process and the kernel, always *after* the ring's slot and
//! *before* the ring's index, so that whoever maps the rings after a SIGKILL at any instruction can tell a frame
//! that was lent from one that was about to be:
//!
//! ```text
//! lend:  slot = address   owner = Fill(port, position)   producer += 1
//! take:  read slot        owner = Worker                 consumer += 1
//! ```
//!
//! The position is the ring's free-running index, so an entry says not only which ring but where, and the
//! question "was the index published?" has one answer. 14 bits of it are enough: rings have at most
//! [`RING_MAX`] entries, so two laps of any ring can be told apart.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::frame::FrameId;

/// Largest ring: half the positions an owner word can tell apart.
pub const RING_MAX: u32 = 1 << (POSITION_BITS - 1);

const POSITION_BITS: u32 = 14;
const POSITION_MASK: u32 = (1 << POSITION_BITS) - 1;
const PORT_SHIFT: u32 = POSITION_BITS;
const KIND_SHIFT: u32 = 30;

/// Who holds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process: in a pool, or as a token somewhere in a worker.
    Worker,
    /// Lent to the kernel for receiving, by the port's fill ring.
    Fill {
        /// The port, as in [`crate::Socket::set_port`].
        port: u16,
        /// Low bits of the fill ring's index it was put at.
        position: u16,
    },
    /// Lent to the kernel for sending, by the port's transmit ring.
    Tx {
        /// The port, as in [`crate::Socket::set_port`].
        port: u16,
        /// Low bits of the transmit ring's index it was put at.
        position: u16,
    },
    /// Received as a part of a packet nobody can use; the port's next refill lends it again.
    Spare {
        /// The port, as in [`crate::Socket::set_port`].
        port: u16,
    },
}

impl Owner {
    pub(crate) fn fill(port: u16, position: u32) -> Self {
        Self::Fill {
            port,
            position: (position & POSITION_MASK) as u16,
        }
    }

    pub(crate) fn tx(port: u16, position: u32) -> Self {
        Self::Tx {
            port,
            position: (position & POSITION_MASK) as u16,
        }
    }

    #[inline]
    fn encode(self) -> u32 {
        let word = |kind: u32, port: u16, position: u16| {
            kind << KIND_SHIFT | u32::from(port) << PORT_SHIFT | u32::from(position)
        };
        match self {
            Self::Worker => 0,
            Self::Fill { port, position } => word(1, port, position),
            Self::Tx { port, position } => word(2, port, position),
            Self::Spare { port } => word(3, port, 0),
        }
    }

    #[inline]
    fn decode(word: u32) -> Self {
        let port = (word >> PORT_SHIFT & 0xffff) as u16;
        let position = (word & POSITION_MASK) as u16;
        match word >> KIND_SHIFT {
            0 => Self::Worker,
            1 => Self::Fill { port, position },
            2 => Self::Tx { port, position },
            _ => Self::Spare { port },
        }
    }

    /// The port that holds it, if one does.
    pub(crate) fn port(self) -> Option<u16> {
        match self {
            Self::Worker => None,
            Self::Fill { port, .. } | Self::Tx { port, .. } | Self::Spare { port } => Some(port),
        }
    }
}

/// Distance of `position` ahead of a ring's `producer`, in the positions an owner word can tell apart.
pub(crate) fn ahead(position: u16, producer: u32) -> u32 {
    u32::from(position).wrapping_sub(producer) & POSITION_MASK
}

/// Frames by holder, see [`Owner`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerCounts {
    /// In pools and workers.
    pub worker: u32,
    /// Lent for receiving.
    pub fill: u32,
    /// Lent for sending.
    pub tx: u32,
}

/// The owner words of a UMEM.
///
/// Writers: the worker that holds the frame, or takes it from its own ring. Readers: the same, and a successor
/// process. Two workers never write one word at once, because a frame has one holder.
#[derive(Clone, Copy)]
pub(crate) struct Owners<'a>(&'a [AtomicU32]);

impl<'a> Owners<'a> {
    pub(crate) fn new(words: &'a [AtomicU32]) -> Self {
        Self(words)
    }

    #[inline]
    pub(crate) fn get(self, id: FrameId) -> Owner {
        Owner::decode(self.0[id.index() as usize].load(Ordering::Relaxed))
    }

    /// Release: the slot written before it is in memory when the word is, for the order told above.
    /// No Acquire pairs with it in this process; a successor reads both long after.
    #[inline]
    pub(crate) fn set(self, id: FrameId, owner: Owner) {
        self.0[id.index() as usize].store(owner.encode(), Ordering::Release);
    }

    pub(crate) fn counts(self) -> OwnerCounts {
        let mut counts = OwnerCounts::default();
        for word in self.0 {
            match Owner::decode(word.load(Ordering::Relaxed)) {
                Owner::Worker | Owner::Spare { .. } => counts.worker += 1,
                Owner::Fill { .. } => counts.fill += 1,
                Owner::Tx { .. } => counts.tx += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_encoding() {
        for owner in [
            Owner::Worker,
            Owner::Fill {
                port: 0,
                position: 0,
            },
            Owner::Fill {
                port: u16::MAX,
                position: POSITION_MASK as u16,
            },
            Owner::Tx {
                port: 0x1234,
                position: 1,
            },
            Owner::Tx {
                port: u16::MAX,
                position: POSITION_MASK as u16,
            },
            Owner::Spare { port: u16::MAX },
        ] {
            assert_eq!(Owner::decode(owner.encode()), owner);
        }
    }

    #[test]
    fn zeroed_memory_belongs_to_the_worker() {
        assert_eq!(Owner::decode(0), Owner::Worker);
    }

    #[test]
    fn distance_wraps_with_the_index() {
        let producer = u32::MAX - 1;
        let Owner::Fill { position, .. } = Owner::fill(1, producer.wrapping_add(3)) else {
            unreachable!()
        };
        assert_eq!(ahead(position, producer), 3);
        let Owner::Fill { position, .. } = Owner::fill(1, producer.wrapping_sub(1)) else {
            unreachable!()
        };
        assert!(ahead(position, producer) >= RING_MAX);
    }
}
