//! The bytes of a packet that spans frames.

use weft_wire::checksum::{self, Accumulator};
use weft_xsk::{FrameChain, FramePool, Umem};

/// Calls `visit` with each piece of the bytes `from..to` of the packet, in order.
#[inline]
pub(crate) fn for_range(
    umem: &Umem,
    chain: &FrameChain,
    from: usize,
    to: usize,
    mut visit: impl FnMut(&[u8]),
) {
    let mut at = 0;
    for frame in chain {
        let (start, end) = (from.max(at), to.min(at + frame.len()));
        if start < end {
            visit(&umem.bytes(frame)[start - at..end - at]);
        }
        at += frame.len();
    }
}

/// The sum of the bytes `from..to` of the packet, added to `seed`. Frames of odd length are fine.
#[inline]
pub(crate) fn sum(umem: &Umem, chain: &FrameChain, from: usize, to: usize, seed: u32) -> u32 {
    if let [one] = chain.as_slice() {
        let bytes = umem.bytes(one);
        let to = to.min(bytes.len());
        return checksum::sum(&bytes[from.min(to)..to]) + seed;
    }
    let mut accumulator = Accumulator::starting_with(seed);
    for_range(umem, chain, from, to, |bytes| accumulator.add(bytes));
    accumulator.sum()
}

/// Cuts the packet to its first `len` bytes; frames beyond go to `pool`. The first frame stays.
pub(crate) fn trim(chain: &mut FrameChain, len: usize, pool: &mut FramePool) {
    let mut left = len;
    let mut keep = 0;
    for frame in chain.iter_mut() {
        let part = frame.len().min(left);
        if part == 0 && keep > 0 {
            break;
        }
        // Shortening a frame always fits.
        let _ = frame.set_len(part);
        left -= part;
        keep += 1;
    }
    for frame in chain.drain(keep..) {
        pool.free(frame);
    }
}

/// Appends bytes to a new packet, taking frames from the pool as they fill.
pub(crate) struct Writer<'a> {
    pub(crate) umem: &'a Umem,
    pub(crate) pool: &'a mut FramePool,
    pub(crate) chain: FrameChain,
}

impl Writer<'_> {
    /// Appends; false when a frame is missing. What was written is then still in `chain`.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.chain.last().is_none_or(|frame| frame.tailroom() == 0) && !self.extend() {
                return false;
            }
            let Some(frame) = self.chain.last_mut() else {
                return false;
            };
            let (at, part) = (frame.len(), frame.tailroom().min(bytes.len()));
            if frame.set_len(at + part).is_err() {
                return false;
            }
            self.umem.bytes_mut(frame)[at..].copy_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
        }
        true
    }

    fn extend(&mut self) -> bool {
        match self.pool.alloc() {
            Some(frame) if !self.chain.is_full() => {
                self.chain.push(frame);
                true
            }
            Some(frame) => {
                self.pool.free(frame);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::chain_of;
    use proptest::prelude::*;

    fn bytes_of(umem: &Umem, chain: &FrameChain, from: usize, to: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for_range(umem, chain, from, to, |part| all.extend_from_slice(part));
        all
    }

    proptest! {
        #[test]
        fn ranges_sums_and_trims_ignore_where_frames_end(
            pieces in prop::collection::vec(1_usize..60, 1..8),
            from in 0_usize..100,
            len in 0_usize..300,
        ) {
            let umem = Umem::heap(32);
            let mut pool = FramePool::all(&umem).unwrap();
            let total: usize = pieces.iter().sum();
            let bytes: Vec<u8> = (0..total).map(|i| (i * 7 + 3) as u8).collect();
            let mut chain = chain_of(&umem, &mut pool, &bytes, &pieces);
            let (from, to) = (from.min(total), (from + len).min(total));
            prop_assert_eq!(bytes_of(&umem, &chain, from, to), &bytes[from..to]);
            let expected = checksum::fold(checksum::sum(&bytes[from..to]));
            prop_assert_eq!(checksum::fold(sum(&umem, &chain, from, to, 0)), expected);
            let cut = to.max(1);
            trim(&mut chain, cut, &mut pool);
            prop_assert_eq!(bytes_of(&umem, &chain, 0, total), &bytes[..cut]);
            prop_assert!(chain.iter().all(|frame| !frame.is_empty()));
            pool.free_chain(&mut chain);
            prop_assert_eq!(pool.len(), 32);
        }
    }

    #[test]
    fn a_writer_takes_frames_as_they_fill_and_stops_when_there_are_none() {
        let umem = Umem::heap(2);
        let mut pool = FramePool::all(&umem).unwrap();
        let mut writer = Writer {
            umem: &umem,
            pool: &mut pool,
            chain: FrameChain::new(),
        };
        let bytes: Vec<u8> = (0..5000).map(|i| i as u8).collect();
        assert!(writer.put(&bytes[..100]) && writer.put(&bytes[100..]));
        assert!(!writer.put(&[0; 4000]));
        let mut chain = writer.chain;
        assert_eq!(bytes_of(&umem, &chain, 0, 5000), bytes);
        pool.free_chain(&mut chain);
        assert_eq!(pool.len(), 2);
    }
}
