//! Longest prefix match for IPv4 and IPv6.
//!
//! Addresses of four bytes can be indexed (`lpm/direct.rs`), those of sixteen cannot (`lpm/trie.rs`). What
//! both wait for in a large table is memory, once or twice a search. So many keys are looked up together
//! ([`Lpm::lookup_batch`]): each step is done for all of them, and the processor waits for all at once.
//!
//! Versions share structure: cloning copies a pointer, or one for each of the trie's pages, and a change
//! copies the nodes or pages it writes while a clone still holds them. Each node keeps the prefixes that
//! end in it, so that removing one uncovers the next shorter without asking anybody.

mod address;
mod batch;
mod direct;
mod node;
mod prefixes;
mod store;
#[cfg(test)]
mod tests;
mod trie;

/// Largest value a prefix can have; 0 says "no prefix".
pub const VALUE_MAX: u32 = (1 << 30) - 1;

/// Keys that are looked up together. A core has about a dozen misses in flight, and a step of one key
/// takes as long as a fraction of a miss: 32 keys fill the time, more only take registers.
const STEP: usize = 32;

/// An address as bits: `u32` or `u128`.
pub trait Key: Copy + Eq + Ord {
    /// Bits of an address.
    const BITS: u8;
    /// What holds its prefixes.
    type Table: Table<Self>;
}

impl Key for u32 {
    const BITS: u8 = 32;
    type Table = direct::Direct;
}

impl Key for u128 {
    const BITS: u8 = 128;
    type Table = trie::Trie;
}

/// What a structure of prefixes does. Lengths and values were checked.
pub trait Table<K>: Clone + Default {
    /// See [`Lpm::lookup`].
    fn lookup(&self, key: K) -> u32;
    /// See [`Lpm::lookup_batch`]; as many values as keys, and at most 32.
    fn lookup_step(&self, keys: &[K], values: &mut [u32]);
    /// See [`Lpm::insert`].
    fn insert(&mut self, key: K, len: u8, value: u32) -> Option<u32>;
    /// See [`Lpm::remove`].
    fn remove(&mut self, key: K, len: u8) -> Option<u32>;
    /// See [`Lpm::memory_bytes`].
    fn memory_bytes(&self) -> usize;
}

/// A prefix table; see the module's text. Values are 1 to [`VALUE_MAX`].
#[derive(Clone)]
pub struct Lpm<K: Key> {
    table: K::Table,
    len: usize,
}

impl<K: Key> Lpm<K> {
    /// A table without prefixes.
    pub fn new() -> Self {
        Self {
            table: K::Table::default(),
            len: 0,
        }
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Value of the longest prefix that holds `key`, 0 when none does.
    #[inline]
    pub fn lookup(&self, key: K) -> u32 {
        self.table.lookup(key)
    }

    /// Looks up many keys at once, which in a large table costs a fraction of one after the other.
    /// `values[i]` becomes what [`Lpm::lookup`] says of `keys[i]`.
    ///
    /// # Panics
    /// When there are more keys than values, or less.
    pub fn lookup_batch(&self, keys: &[K], values: &mut [u32]) {
        assert!(keys.len() == values.len(), "a value for every key");
        for (keys, values) in keys.chunks(STEP).zip(values.chunks_mut(STEP)) {
            self.table.lookup_step(keys, values);
        }
    }

    /// Adds or replaces the prefix of `len` bits of `key` and returns the value it had.
    ///
    /// # Panics
    /// When `len` is longer than an address or `value` is 0 or above [`VALUE_MAX`].
    pub fn insert(&mut self, key: K, len: u8, value: u32) -> Option<u32> {
        assert!(len <= K::BITS, "a prefix is no longer than an address");
        assert!(
            (1..=VALUE_MAX).contains(&value),
            "the value of a prefix fits its slot"
        );
        let old = self.table.insert(key, len, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a prefix and returns the value it had.
    ///
    /// # Panics
    /// When `len` is longer than an address.
    pub fn remove(&mut self, key: K, len: u8) -> Option<u32> {
        assert!(len <= K::BITS, "a prefix is no longer than an address");
        let old = self.table.remove(key, len);
        self.len -= usize::from(old.is_some());
        if self.len == 0 {
            self.table = K::Table::default();
        }
        old
    }

    /// Bytes of all nodes or pages, shared ones too.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }
}

impl<K: Key> Default for Lpm<K> {
    fn default() -> Self {
        Self::new()
    }
}
