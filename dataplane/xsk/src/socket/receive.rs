//! From descriptors of the receive ring to packets.

use crate::fault;
use crate::frame::{CHAIN_MAX, FRAME_BYTES, Frame, FrameChain, FrameId, count_leaked};
use crate::owner::{Owner, Owners};
use crate::ring::{Descriptor, Pass};
use crate::socket::SocketCounters;
use crate::umem::Umem;

/// The next packet of the ring.
pub(super) enum Span {
    Whole(u32),
    TooLong,
    Incomplete,
}

/// How many descriptors the next packet has.
#[inline]
pub(super) fn span(pass: &Pass<'_, Descriptor>, left: u32, ring_size: u32) -> Span {
    for ahead in 0..left {
        if !pass.peek(ahead).continues() {
            return Span::Whole(ahead + 1);
        }
        // A full ring without an end would wait for ever.
        if ahead + 1 == CHAIN_MAX as u32 || ahead + 1 == ring_size {
            return Span::TooLong;
        }
    }
    Span::Incomplete
}

/// Turns received descriptors into tokens.
pub(super) struct Taker<'a> {
    pub(super) umem: &'a Umem,
    pub(super) owners: Owners<'a>,
    pub(super) port: u16,
    pub(super) spare: &'a mut Vec<FrameId>,
    pub(super) counters: &'a mut SocketCounters,
}

impl Taker<'_> {
    /// The packet in the next `frames` descriptors; none when one of them is not ours.
    #[inline]
    pub(super) fn take(
        &mut self,
        pass: &mut Pass<'_, Descriptor>,
        frames: u32,
    ) -> Option<FrameChain> {
        let mut chain = FrameChain::new();
        let mut whole = true;
        for _ in 0..frames {
            match self.claim(pass.next()) {
                Some(frame) => chain.push(frame),
                None => whole = false,
            }
            fault::point();
        }
        if whole {
            return Some(chain);
        }
        for frame in chain.drain(..) {
            self.put_aside(frame.surrender());
        }
        None
    }

    #[inline]
    fn claim(&mut self, descriptor: Descriptor) -> Option<Frame> {
        let id = self.lent(descriptor)?;
        let offset = (descriptor.address % FRAME_BYTES as u64) as usize;
        let len = descriptor.len as usize;
        if len > FRAME_BYTES - offset {
            self.counters.rx_foreign += 1;
            self.put_aside(id);
            return None;
        }
        self.owners.set(id, Owner::Worker);
        Some(Frame::mint(id, offset, len))
    }

    /// The frame of `descriptor`, if this port lent it: see the crate's safety argument, 2.
    #[inline]
    fn lent(&mut self, descriptor: Descriptor) -> Option<FrameId> {
        let id = self.umem.id_of(descriptor.address).filter(
            |id| matches!(self.owners.get(*id), Owner::Fill { port, .. } if port == self.port),
        );
        if id.is_none() {
            self.counters.rx_foreign += 1;
        }
        id
    }

    pub(super) fn discard(&mut self, descriptor: Descriptor) {
        if let Some(id) = self.lent(descriptor) {
            self.put_aside(id);
        }
    }

    fn put_aside(&mut self, id: FrameId) {
        self.owners.set(id, Owner::Spare { port: self.port });
        fault::point();
        // Its capacity is what a fill and a receive ring can hold; a pusher that never refills finds no more.
        if self.spare.len() < self.spare.capacity() {
            self.spare.push(id);
        } else {
            count_leaked(1);
        }
    }
}
