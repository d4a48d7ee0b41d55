//! Records of words in pages that versions share.
//!
//! A table of a million prefixes has to be small to be fast: what a search waits for is not the number
//! of its steps but memory, and page tables of memory, that do not fit the caches. So records are words
//! without headers, packed side by side, and a place in the store is a word too. Cloning the store copies
//! a pointer per page; a change copies the pages it writes, at most a handful, while a clone holds them.

use std::sync::Arc;

/// Words of a page: 16 KiB. A smaller one makes the list of pages long, which every access reads and
/// every clone copies; a larger one makes a change copy more.
const PAGE_WORDS: usize = 4096;

/// Words of a unit, which places count in.
const UNIT_WORDS: usize = 4;

const PAGE_UNITS: u32 = (PAGE_WORDS / UNIT_WORDS) as u32;

/// Longest record, in units: the list of the 510 prefixes that can end in one byte, two words each and a
/// count. A node has 256 slots, each with a word below and a value, and a header.
const UNITS_MAX: usize = 256;

/// Says "no record" in lists of free ones.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
#[repr(align(64))]
struct Page([u32; PAGE_WORDS]);

/// See the module's text.
#[derive(Clone)]
pub(super) struct Store {
    pages: Vec<Arc<Page>>,
    /// First unit never used.
    end: u32,
    /// First free record of each length in units; each begins with the place of the next.
    free: [u32; UNITS_MAX + 1],
}

impl Default for Store {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            end: 0,
            free: [NONE; UNITS_MAX + 1],
        }
    }
}

/// Where a record is, for who reads it later.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    page: &'a [u32; PAGE_WORDS],
    start: u16,
}

impl<'a> Record<'a> {
    /// The words from its first one on; more than its own may follow.
    #[inline(always)]
    pub(super) fn words(self) -> &'a [u32] {
        &self.page[usize::from(self.start) % PAGE_WORDS..]
    }

    /// One of its words.
    #[inline(always)]
    pub(super) fn word(self, index: usize) -> &'a u32 {
        &self.page[(usize::from(self.start) + index) % PAGE_WORDS]
    }
}

impl Store {
    /// The record at a place.
    #[inline(always)]
    pub(super) fn record(&self, at: u32) -> Record<'_> {
        Record {
            page: &self.pages[(at / PAGE_UNITS) as usize].0,
            start: (at % PAGE_UNITS * UNIT_WORDS as u32) as u16,
        }
    }

    /// The words from a record's first one on; more than the record's may follow.
    #[inline(always)]
    pub(super) fn words(&self, at: u32) -> &[u32] {
        self.record(at).words()
    }

    /// Adds a record and says where it is.
    pub(super) fn add(&mut self, words: &[u32]) -> u32 {
        let at = self.take(units(words.len()));
        self.words_mut(at)[..words.len()].copy_from_slice(words);
        at
    }

    /// Changes one word of a record.
    pub(super) fn set(&mut self, at: u32, index: usize, word: u32) {
        self.words_mut(at)[index] = word;
    }

    /// Removes a record of so many words.
    pub(super) fn remove(&mut self, at: u32, words: usize) {
        self.give(at, units(words));
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.pages.len() * size_of::<Page>()
    }

    /// Pages it has in common with another.
    #[cfg(test)]
    pub(super) fn shared_pages(&self, other: &Self) -> (usize, usize) {
        let pairs = self.pages.iter().zip(&other.pages);
        let shared = pairs.filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        (shared, self.pages.len())
    }

    fn words_mut(&mut self, at: u32) -> &mut [u32] {
        let page = Arc::make_mut(&mut self.pages[(at / PAGE_UNITS) as usize]);
        &mut page.0[(at % PAGE_UNITS) as usize * UNIT_WORDS..]
    }

    fn take(&mut self, units: usize) -> u32 {
        let free = self.free[units];
        if free != NONE {
            self.free[units] = self.words(free)[0];
            return free;
        }
        let left = (PAGE_UNITS - self.end % PAGE_UNITS) % PAGE_UNITS;
        if (left as usize) < units {
            // No record crosses pages; the rest of this one is for smaller ones.
            if left > 0 {
                self.give(self.end, left as usize);
            }
            self.end = self.pages.len() as u32 * PAGE_UNITS;
            self.pages.push(Arc::new(Page([0; PAGE_WORDS])));
        }
        let at = self.end;
        self.end += units as u32;
        at
    }

    fn give(&mut self, at: u32, units: usize) {
        let next = std::mem::replace(&mut self.free[units], at);
        self.words_mut(at)[0] = next;
    }
}

fn units(words: usize) -> usize {
    words.div_ceil(UNIT_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_apart_and_their_places_are_used_again() {
        let mut store = Store::default();
        let record = |n: u32| vec![n; 1 + (n as usize * 37) % 520];
        let mut places: Vec<u32> = (0..200).map(|n| store.add(&record(n))).collect();
        let pages = store.memory_bytes();
        for round in 0..5 {
            for n in (round..200).step_by(3) {
                store.remove(places[n as usize], record(n).len());
                places[n as usize] = store.add(&record(n));
            }
        }
        for (n, at) in (0..).zip(&places) {
            assert_eq!(store.words(*at)[..record(n).len()], record(n));
        }
        assert_eq!(store.memory_bytes(), pages);
    }
}
