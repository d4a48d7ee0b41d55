//! Numbers one thread writes and others read.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU64, Ordering};

/// Counters of a cache line.
const LINE: usize = 8;

/// A block of counters on cache lines of its own. One thread writes, any number read.
///
/// A writer keeps its counts in plain integers and stores them here once per burst; an ordinary store is all it costs,
/// and a reader that looks at the same time finds each number whole, though not all of the same instant.
pub struct SharedCounters {
    /// writer: wo, readers: ro.
    lines: Box<[CachePadded<[AtomicU64; LINE]>]>,
    len: usize,
}

impl SharedCounters {
    /// `len` counters, all zero.
    pub fn new(len: usize) -> Self {
        let line = || CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self {
            lines: (0..len.div_ceil(LINE)).map(|_| line()).collect(),
            len,
        }
    }

    /// Number of counters.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The counter `index`.
    ///
    /// # Panics
    /// When there is no such counter.
    #[inline]
    pub fn load(&self, index: usize) -> u64 {
        self.at(index).load(Ordering::Relaxed)
    }

    /// Sets the counter `index`; by the one writer.
    ///
    /// # Panics
    /// When there is no such counter.
    #[inline]
    pub fn store(&self, index: usize, value: u64) {
        self.at(index).store(value, Ordering::Relaxed);
    }

    /// Sets the first counters to `values`; by the one writer.
    ///
    /// # Panics
    /// When there are fewer counters than values.
    #[inline]
    pub fn store_all(&self, values: &[u64]) {
        for (index, value) in values.iter().enumerate() {
            self.store(index, *value);
        }
    }

    /// All counters, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len).map(|index| self.load(index))
    }

    #[inline]
    fn at(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "a counter of this block");
        &self.lines[index / LINE][index % LINE]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counters_are_apart_and_start_at_zero() {
        let counters = SharedCounters::new(11);
        assert!(counters.iter().all(|value| value == 0));
        counters.store_all(&[5, 6]);
        counters.store(10, 7);
        assert_eq!(
            (counters.len(), counters.iter().collect::<Vec<_>>()),
            (11, vec![5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 7])
        );
    }

    #[test]
    #[should_panic(expected = "a counter of this block")]
    fn padding_is_no_counter() {
        SharedCounters::new(11).load(11);
    }

    #[test]
    fn a_block_shares_no_cache_line() {
        let counters = SharedCounters::new(1);
        assert_eq!(std::ptr::from_ref(&counters.lines[0]) as usize % 64, 0);
        assert!(size_of_val(&counters.lines[0]) >= 64);
    }

    #[test]
    fn readers_see_whole_numbers_that_only_grow() {
        const LAST: u64 = if cfg!(miri) { 1_000 } else { 1_000_000 };
        let counters = std::sync::Arc::new(SharedCounters::new(1));
        let writer = std::sync::Arc::clone(&counters);
        let thread =
            std::thread::spawn(move || (1..=LAST).for_each(|value| writer.store(0, value)));
        let mut last = 0;
        while last < LAST {
            let value = counters.load(0);
            assert!(value >= last);
            last = value;
        }
        thread.join().unwrap();
    }
}
