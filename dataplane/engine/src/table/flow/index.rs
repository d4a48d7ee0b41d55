//! Open addressing over the slots of the region: hash to entry number, linear probing.
//!
//! A slot is 0 or says which entry, for which of its tuples, and nine bits of the hash, so that entries
//! of other connections are rarely looked at. Removal shifts what follows back, so that there are no
//! tombstones and a search for nothing ends at the first empty slot.

use super::key::Direction;
use super::memory::{Family, FlowMemory, Number};

/// Bits of a slot with the entry's number plus one.
const NUMBER_MASK: u32 = (1 << 22) - 1;

/// Set when the slot stands for the reply's tuple.
const REPLY: u32 = 1 << 22;

/// Bits of a slot with part of the hash.
const TAG_MASK: u32 = !(NUMBER_MASK | REPLY);

/// Slots looked at before a search gives up: runs are a few slots long, except in a region whose index
/// was written by chance.
const PROBES_MAX: usize = 4096;

/// The slot for an entry's tuple of `side`.
#[inline]
const fn slot(number: Number, side: Direction, hash: u64) -> u32 {
    let side = match side {
        Direction::Original => 0,
        Direction::Reply => REPLY,
    };
    tag(hash) | side | (number.raw() + 1)
}

#[inline]
const fn tag(hash: u64) -> u32 {
    (hash as u32) & TAG_MASK
}

/// First slot looked at for a hash.
#[inline]
const fn home(hash: u64, slots: usize) -> usize {
    (((hash >> 32) * slots as u64) >> 32) as usize
}

/// A search in the index.
pub(super) struct Candidates<'a> {
    memory: &'a FlowMemory,
    slots: &'a [u32],
    tag: u32,
    at: usize,
    probes: usize,
}

impl Candidates<'_> {
    /// The next entry of a family with the same bits of the hash; `None` at the end.
    #[inline(always)]
    pub(super) fn next(&mut self, family: Family) -> Option<Number> {
        while self.probes < PROBES_MAX {
            if self.probes > 0 {
                self.at = next(self.at, self.slots.len());
            }
            self.probes += 1;
            let slot = self.slots[self.at];
            if slot == 0 {
                // Whoever asks again ends here again.
                self.probes = PROBES_MAX;
                return None;
            }
            if slot & TAG_MASK == self.tag
                && let Some(number) = self.memory.number_among(family, entry(slot))
            {
                return Some(number);
            }
        }
        None
    }
}

impl FlowMemory {
    /// The entries that may be under `hash`.
    #[inline(always)]
    pub(super) fn candidates(&self, hash: u64) -> Candidates<'_> {
        let slots = self.slots();
        Candidates {
            memory: self,
            slots,
            tag: tag(hash),
            at: home(hash, slots.len()),
            probes: 0,
        }
    }

    /// Adds an entry under the hash of its tuple of `side`. False when there is no room near by.
    pub(super) fn add_slot(&mut self, hash: u64, number: Number, side: Direction) -> bool {
        let slots = self.slots_mut();
        let mut at = home(hash, slots.len());
        for _ in 0..PROBES_MAX.min(slots.len() - 1) {
            if slots[at] == 0 {
                slots[at] = slot(number, side, hash);
                return true;
            }
            at = next(at, slots.len());
        }
        false
    }

    /// Removes an entry from under the hash of its tuple of `side`; `hash_of` says the hashes of others.
    pub(super) fn remove_slot(
        &mut self,
        hash: u64,
        number: Number,
        side: Direction,
        hash_of: impl Fn(&Self, Number, Direction) -> u64,
    ) {
        let wanted = slot(number, side, hash);
        let len = self.slots().len();
        let mut hole = home(hash, len);
        for _ in 0..PROBES_MAX {
            match self.slots()[hole] {
                0 => return,
                found if found == wanted => break,
                _ => hole = next(hole, len),
            }
        }
        if self.slots()[hole] == wanted {
            self.close(hole, hash_of);
        }
    }

    /// Moves slots behind `hole` into it as far as they may go.
    fn close(&mut self, mut hole: usize, hash_of: impl Fn(&Self, Number, Direction) -> u64) {
        let len = self.slots().len();
        let mut at = hole;
        for _ in 0..len {
            at = next(at, len);
            let slot = self.slots()[at];
            if slot == 0 {
                break;
            }
            let side = match slot & REPLY {
                0 => Direction::Original,
                _ => Direction::Reply,
            };
            let Some(number) = self.number_in(slot) else {
                continue;
            };
            let home = home(hash_of(self, number, side), len);
            // Distances on the ring from where the slot belongs.
            let (to_hole, to_slot) = ((hole + len - home) % len, (at + len - home) % len);
            if to_hole < to_slot {
                self.slots_mut()[hole] = slot;
                hole = at;
            }
        }
        self.slots_mut()[hole] = 0;
    }

    #[inline]
    const fn number_in(&self, slot: u32) -> Option<Number> {
        self.number(entry(slot))
    }
}

/// What a slot has as its entry's number.
#[inline]
const fn entry(slot: u32) -> u32 {
    (slot & NUMBER_MASK).wrapping_sub(1)
}

#[inline]
const fn next(at: usize, slots: usize) -> usize {
    if at + 1 == slots { 0 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct hashes, so that runs are long and wrap around.
    fn hash_of(raw: u32) -> u64 {
        let place = u64::from(raw.wrapping_mul(7) % 5) * 0x3300_0000;
        place << 32 | u64::from(raw % 3) << 23
    }

    proptest! {
        #[test]
        fn entries_are_found_until_they_are_removed(steps in prop::collection::vec((0_u32..16, any::<bool>()), 1..120)) {
            let mut memory = FlowMemory::new(8, 1);
            let mut there = std::collections::BTreeSet::new();
            for (raw, add) in steps {
                let number = memory.number(raw).expect("in range");
                let side = if raw % 2 == 0 { Direction::Original } else { Direction::Reply };
                if add && there.insert(raw) {
                    prop_assert!(memory.add_slot(hash_of(raw), number, side));
                } else if !add && there.remove(&raw) {
                    memory.remove_slot(hash_of(raw), number, side, |_, other, _| hash_of(other.raw()));
                }
                for raw in 0..16 {
                    let mut candidates = memory.candidates(hash_of(raw));
                    let family = memory.family(memory.number(raw).expect("in range"));
                    let found = std::iter::from_fn(|| candidates.next(family)).any(|it| it.raw() == raw);
                    prop_assert_eq!(found, there.contains(&raw));
                }
            }
        }
    }
}
