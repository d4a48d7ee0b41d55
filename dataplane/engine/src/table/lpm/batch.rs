//! Many searches of the trie at once.
//!
//! What a search waits for is memory: a line or two of each record on its path. The processor has a dozen
//! lines under way at a time, but only for what fits its window of some 200 instructions, and a branch on a
//! line that is far away, foretold wrongly, waits for it alone. So a round first reads what each search will
//! look at, with nothing but loads, and goes on only then, with all of it near.

use std::hint::black_box;

use super::STEP;
use super::node::{
    Below, SPARSE_HEADER, depth, direct_place, is_valued, leads_to, search_bucket, sparse_place,
};
use super::store::{Record, Store};

/// Where one search is: before a record.
#[derive(Clone, Copy)]
struct Search<'a> {
    below: Below,
    record: Record<'a>,
    /// Number of the key.
    number: u8,
    /// The byte a direct node is for.
    depth: u8,
}

/// Longest prefix of each of at most [`STEP`] keys.
#[inline]
pub(super) fn search(store: &Store, root: u32, keys: &[u128], values: &mut [u32]) {
    values.fill(0);
    let below = Below::of(root);
    let Some(record) = below.place().map(|at| store.record(at)) else {
        return;
    };
    let mut open = std::array::from_fn::<_, STEP, _>(|number| Search {
        below,
        record,
        number: number as u8,
        depth: 0,
    });
    let mut near = [[&0; 2]; STEP];
    let mut count = keys.len().min(STEP);
    // Every round goes at least one byte down: at most as many as an address has bytes.
    while count > 0 {
        let mut left = 0;
        for at in 0..count {
            let number = usize::from(open[at].number) % STEP;
            if let Some(next) = open[at].step(store, keys[number], &mut values[number]) {
                near[left] = next.reads(keys[number]);
                open[left] = next;
                left += 1;
            }
        }
        count = left;
        let reads = near[..count].iter().map(|[first, last]| **first ^ **last);
        black_box(reads.fold(0, |all, word| all ^ word));
    }
}

impl<'a> Search<'a> {
    /// Goes one step down, unless that was the end.
    #[inline(always)]
    fn step(self, store: &'a Store, key: u128, best: &mut u32) -> Option<Self> {
        let words = self.record.words();
        let (depth, (entry, value)) = match self.below {
            Below::Direct(_) => (self.depth, direct_place(byte(key, self.depth))),
            Below::Sparse(_) if leads_to(words, key) => {
                let depth = depth(words);
                (depth, sparse_place(words, byte(key, depth)))
            }
            Below::Bucket(_) => {
                *best = search_bucket(words, key).unwrap_or(*best);
                return None;
            }
            Below::Sparse(_) | Below::Value(_) => return None,
        };
        let entry = words[entry];
        if is_valued(entry) {
            *best = words[value];
        }
        let below = Below::of(entry);
        let Some(place) = below.place() else {
            *best = if entry == 0 { *best } else { entry };
            return None;
        };
        Some(Self {
            below,
            record: store.record(place),
            depth: depth + 1,
            ..self
        })
    }

    /// The words at both ends of what its next step reads.
    #[inline(always)]
    fn reads(&self, key: u128) -> [&'a u32; 2] {
        let ends = match self.below {
            Below::Direct(_) => [direct_place(byte(key, self.depth)).0; 2],
            Below::Sparse(_) => [0, SPARSE_HEADER - 1],
            // Of its first prefix, which most have alone.
            Below::Bucket(_) | Below::Value(_) => [0, 3],
        };
        ends.map(|end| self.record.word(end))
    }
}

/// A byte of an address.
#[inline(always)]
fn byte(key: u128, index: u8) -> u8 {
    let half = if index < 8 { key >> 64 } else { key } as u64;
    (half >> (56 - 8 * (index % 8))) as u8
}
