//! The records of the trie: what their words mean, and how they are made.
//!
//! An entry is one word: a value, or what lies below and where. What lies below is one of
//!
//! ```text
//!  bucket  few prefixes, longest first: (value, length and whether it is the last, the half of the key
//!          that holds the length, or all of it) each
//!  sparse  depth, runs │ place of prefixes │ head │ a bit per slot: a run begins │ runs before each 32
//!          slots │ an entry per run │ a value per run, if any has one and something below
//!  direct  depth, runs │ place of prefixes │ head │ an entry per slot │ a value per slot, if …
//! ```
//!
//! `head` is all that lies in front of the byte `depth`. The prefixes that end in that byte have a record
//! of their own in another store, since no search reads them.

use super::address::{Address, WORDS};
use super::prefixes::{Prefix, Prefixes, place};
use super::store::Store;

/// Prefixes in a bucket. More and a search looks at many, less and there are more nodes; 4 was fastest
/// of 2 to 8 in the table of a million prefixes.
pub(super) const BUCKET_MAX: usize = 4;

/// Runs from which on a node has an entry per slot. Below, half of it would be repetition, and small is
/// fast; above, the bits save nothing.
const DIRECT_MIN: usize = 96;

const KIND: u32 = 3 << 30;
const BUCKET: u32 = 1 << 30;
const SPARSE: u32 = 2 << 30;
const DIRECT: u32 = 3 << 30;

/// Set in an entry of something below if the slot also has a value.
const VALUED: u32 = 1 << 29;

/// Place of the record in an entry.
const PLACE: u32 = VALUED - 1;

/// Set in an item of a bucket behind which there is none.
const LAST: u32 = 1 << 8;

/// Set in the first word of a node with values.
const HAS_VALUES: u32 = 1 << 8;

/// Where the head is in a node.
const HEAD_AT: usize = 2;

/// Words of the bits and counts of a sparse node.
const BITS_WORDS: usize = 8;
const COUNTS_WORDS: usize = 2;

/// Words in front of a sparse node's entries: a line.
pub(super) const SPARSE_HEADER: usize = HEAD_AT + WORDS + BITS_WORDS + COUNTS_WORDS;

/// What an entry says.
#[derive(Clone, Copy)]
pub(super) enum Below {
    /// Nothing is below.
    Value(u32),
    Bucket(u32),
    Sparse(u32),
    Direct(u32),
}

impl Below {
    #[inline(always)]
    pub(super) const fn of(entry: u32) -> Self {
        let at = entry & PLACE;
        match entry & KIND {
            BUCKET => Self::Bucket(at),
            SPARSE => Self::Sparse(at),
            DIRECT => Self::Direct(at),
            _ => Self::Value(entry),
        }
    }

    /// Place of the record, if there is one.
    #[inline(always)]
    pub(super) const fn place(self) -> Option<u32> {
        match self {
            Self::Value(_) => None,
            Self::Bucket(at) | Self::Sparse(at) | Self::Direct(at) => Some(at),
        }
    }
}

#[inline(always)]
pub(super) const fn is_valued(entry: u32) -> bool {
    entry & VALUED != 0 && entry & KIND != 0
}

/// An entry of something below for a slot with a value or without.
pub(super) const fn valued(entry: u32, valued: bool) -> u32 {
    if valued { entry | VALUED } else { entry }
}

/// One prefix of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) value: u32,
    pub(super) len: u8,
    /// Zero behind `len`.
    pub(super) key: u128,
}

/// Value of the longest prefix of a bucket that holds `key`.
#[inline(always)]
pub(super) fn search_bucket(words: &[u32], key: u128) -> Option<u32> {
    let mut rest = words;
    // As many turns as the bucket has items.
    loop {
        let (&[value, about], keys) = rest.split_first_chunk()?;
        let len = about & 0xff;
        if key.begins_with(keys, len) {
            return Some(value);
        }
        if about & LAST != 0 {
            return None;
        }
        rest = keys.get(key_words(len)..)?;
    }
}

/// Half an address or all of it: most prefixes are no longer than a half, and a comparison is one word's.
const fn key_words(len: u32) -> usize {
    if len <= 64 { 2 } else { 4 }
}

pub(super) fn read_bucket(words: &[u32]) -> Vec<Item> {
    let mut items = Vec::with_capacity(BUCKET_MAX + 1);
    let mut rest = words;
    while let Some((&[value, about], keys)) = rest.split_first_chunk() {
        let len = about & 0xff;
        let (own, behind) = keys.split_at(key_words(len));
        let key = u128::of_words(own);
        items.push(Item {
            value,
            len: len as u8,
            key,
        });
        if about & LAST != 0 {
            break;
        }
        rest = behind;
    }
    items
}

/// Makes a bucket and its entry. There is at least one item.
pub(super) fn add_bucket(store: &mut Store, items: &mut [Item]) -> u32 {
    items.sort_by_key(|item| std::cmp::Reverse(item.len));
    let mut words = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let last = if index + 1 == items.len() { LAST } else { 0 };
        words.extend([item.value, u32::from(item.len) | last]);
        words.extend(
            item.key
                .words()
                .into_iter()
                .take(key_words(item.len.into())),
        );
    }
    BUCKET | store.add(&words)
}

/// Place of byte `byte`'s entry in a sparse node, and of its value.
#[inline(always)]
pub(super) fn sparse_place(words: &[u32], byte: u8) -> (usize, usize) {
    let bits = HEAD_AT + WORDS;
    let group = usize::from(byte / 32);
    let upto = u32::MAX >> (31 - byte % 32);
    let before = words[bits + BITS_WORDS + group / 4] >> (8 * (group % 4)) & 0xff;
    let run = before + (words[bits + group] & upto).count_ones() - 1;
    let at = SPARSE_HEADER + run as usize;
    (at, at + (words[0] >> 16) as usize)
}

/// Whether what lies in front of a node's byte is what `key` begins with.
#[inline(always)]
pub(super) fn leads_to(words: &[u32], key: u128) -> bool {
    let Some(header) = words.first_chunk::<{ HEAD_AT + WORDS }>() else {
        return false;
    };
    let [first, second] = MASKS[usize::from(depth(header)) % MASKS.len()];
    let half = |at: usize| u64::from(header[at + 1]) << 32 | u64::from(header[at]);
    let differs = ((key >> 64) as u64 ^ half(HEAD_AT)) & first;
    (differs | (key as u64 ^ half(HEAD_AT + 2)) & second) == 0
}

/// The first so many bytes of an address, in halves. Shifts of a whole one are many instructions.
static MASKS: [[u64; 2]; 16] = {
    let mut masks = [[0; 2]; 16];
    let mut bytes = 1;
    while bytes < 16 {
        let mask = u128::MAX << (128 - 8 * bytes);
        masks[bytes] = [(mask >> 64) as u64, mask as u64];
        bytes += 1;
    }
    masks
};

/// The same in a direct node.
#[inline(always)]
pub(super) const fn direct_place(byte: u8) -> (usize, usize) {
    let at = HEAD_AT + WORDS + byte as usize;
    (at, at + 256)
}

/// The byte a node stands for.
#[inline(always)]
pub(super) const fn depth(words: &[u32]) -> u8 {
    words[0] as u8
}

/// What lies in front of it.
#[inline(always)]
pub(super) fn head(words: &[u32]) -> u128 {
    u128::of_words(&words[HEAD_AT..HEAD_AT + WORDS])
}

/// A node taken apart, to be changed.
pub(super) struct Node {
    pub(super) depth: u8,
    pub(super) head: u128,
    pub(super) prefixes: Prefixes,
    /// What is below, by byte.
    pub(super) children: Vec<(u8, u32)>,
}

impl Node {
    /// Sets what is below a byte, or that nothing is.
    pub(super) fn set_child(&mut self, byte: u8, entry: Option<u32>) {
        let at = self.children.partition_point(|(other, _)| *other < byte);
        if self
            .children
            .get(at)
            .is_some_and(|(other, _)| *other == byte)
        {
            self.children.remove(at);
        }
        if let Some(entry) = entry {
            self.children.insert(at, (byte, entry));
        }
    }
}

/// Both kinds of records, those of searches and those of changes.
#[derive(Clone, Default)]
pub(super) struct Records {
    pub(super) hot: Store,
    pub(super) cold: Store,
}

impl Records {
    /// Takes a record out of the store.
    pub(super) fn take_node(&mut self, below: Below) -> Option<Node> {
        let (at, is_direct) = match below {
            Below::Sparse(at) => (at, false),
            Below::Direct(at) => (at, true),
            Below::Value(_) | Below::Bucket(_) => return None,
        };
        let words = self.hot.words(at);
        let runs = (words[0] >> 16) as usize;
        let node = Node {
            depth: depth(words),
            head: head(words),
            prefixes: self.prefixes(words[1]),
            children: children(words, is_direct),
        };
        let extent = extent(runs, words[0] & HAS_VALUES != 0, is_direct);
        let prefixes = words[1];
        self.hot.remove(at, extent);
        if prefixes != 0 {
            let count = node.prefixes.as_slice().len();
            self.cold.remove(prefixes - 1, 1 + 2 * count);
        }
        Some(node)
    }

    /// Makes a node's record and its entry. `above` is the depth of the node it will be below.
    pub(super) fn add_node(&mut self, node: &Node, above: Option<u8>) -> u32 {
        let slots = Slots::of(node);
        let is_next = node.depth == above.map_or(0, |above| above + 1);
        let is_direct = is_next && slots.entries.len() >= DIRECT_MIN;
        let has_values = slots.values.iter().any(|value| *value != 0);
        let runs = if is_direct { 256 } else { slots.entries.len() };
        let flag = if has_values { HAS_VALUES } else { 0 };
        let mut words = Vec::with_capacity(extent(runs, has_values, is_direct));
        words.push(u32::from(node.depth) | flag | (runs as u32) << 16);
        words.push(self.add_prefixes(&node.prefixes));
        words.extend(node.head.words());
        if is_direct {
            words.extend(slots.each(&slots.entries));
            if has_values {
                words.extend(slots.each(&slots.values));
            }
            return DIRECT | self.hot.add(&words);
        }
        words.extend(slots.starts);
        words.extend(slots.before.map(u32::from_le_bytes));
        words.extend(&slots.entries);
        if has_values {
            words.extend(&slots.values);
        }
        SPARSE | self.hot.add(&words)
    }

    /// Value a node has for a prefix ending in its byte.
    pub(super) fn find_prefix(&self, node: &[u32], bits: u8, byte: u8) -> Option<u32> {
        self.prefixes(node[1]).find(bits, byte)
    }

    fn prefixes(&self, place: u32) -> Prefixes {
        if place == 0 {
            return Prefixes::default();
        }
        let words = self.cold.words(place - 1);
        let pairs = words[1..].chunks_exact(2).take(words[0] as usize);
        let prefixes = pairs.map(|pair| Prefix {
            value: pair[1],
            bits: (pair[0] >> 8) as u8,
            byte: pair[0] as u8,
        });
        Prefixes::of(prefixes.collect())
    }

    fn add_prefixes(&mut self, prefixes: &Prefixes) -> u32 {
        let prefixes = prefixes.as_slice();
        if prefixes.is_empty() {
            return 0;
        }
        let mut words = vec![prefixes.len() as u32];
        for prefix in prefixes {
            let place = u32::from(prefix.bits) << 8 | u32::from(prefix.byte);
            words.extend([place, prefix.value]);
        }
        self.cold.add(&words) + 1
    }
}

/// Words of a node.
const fn extent(runs: usize, has_values: bool, is_direct: bool) -> usize {
    let bits = if is_direct {
        0
    } else {
        BITS_WORDS + COUNTS_WORDS
    };
    let each = if has_values { 2 } else { 1 };
    HEAD_AT + WORDS + bits + each * runs
}

fn children(words: &[u32], is_direct: bool) -> Vec<(u8, u32)> {
    let entry = |byte: u8| {
        let (at, _) = match is_direct {
            true => direct_place(byte),
            false => sparse_place(words, byte),
        };
        (byte, words[at] & !VALUED)
    };
    let entries = (0..=u8::MAX).map(entry);
    // An entry of something below is a run of one slot.
    entries.filter(|(_, entry)| entry & KIND != 0).collect()
}

/// The 256 slots of a node as runs.
struct Slots {
    starts: [u32; BITS_WORDS],
    before: [[u8; 4]; COUNTS_WORDS],
    entries: Vec<u32>,
    /// Of the runs with something below; 0 for the others.
    values: Vec<u32>,
}

impl Slots {
    fn of(node: &Node) -> Self {
        let mut values = [0; 256];
        for prefix in node.prefixes.as_slice() {
            values[prefix.slots()].fill(prefix.value);
        }
        let mut slots = Self {
            starts: [0; BITS_WORDS],
            before: [[0; 4]; COUNTS_WORDS],
            entries: Vec::with_capacity(256),
            values: Vec::with_capacity(256),
        };
        let mut children = node.children.iter().peekable();
        for (byte, value) in (0..=u8::MAX).zip(values) {
            let group = usize::from(byte / 32);
            if byte % 32 == 0 {
                // The last group is preceded by at most 224 runs.
                slots.before[group / 4][group % 4] = slots.entries.len() as u8;
            }
            let child = children.next_if(|(of, _)| *of == byte);
            let (entry, value) = match child {
                Some((_, child)) if value != 0 => (child | VALUED, value),
                Some((_, child)) => (*child, 0),
                None if slots.entries.last() == Some(&value) => continue,
                None => (value, 0),
            };
            slots.starts[group] |= 1 << (byte % 32);
            slots.entries.push(entry);
            slots.values.push(value);
        }
        slots
    }

    /// What each slot has of `runs`.
    fn each<'a>(&self, runs: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let starts = self.starts;
        let mut next = 0;
        (0..256_usize).map(move |byte| {
            next += (starts[byte / 32] >> (byte % 32) & 1) as usize;
            runs[next - 1]
        })
    }
}

/// A node that holds the items of a bucket which has too many. Those that end further on are in
/// `children` of buckets.
pub(super) fn node_of(store: &mut Store, items: &[Item]) -> Option<Node> {
    let first = items.first()?;
    let depth = items
        .iter()
        .map(|item| place(item.len).0.min(item.key.common_bytes(first.key)))
        .min()?;
    let mut node = Node {
        depth,
        head: first.key.head(depth),
        prefixes: Prefixes::default(),
        children: Vec::new(),
    };
    let mut below: Vec<Item> = Vec::new();
    for item in items {
        let (own_depth, bits) = place(item.len);
        if own_depth == depth {
            let (value, byte) = (item.value, item.key.byte(depth));
            node.prefixes.set(Prefix { value, bits, byte });
        } else {
            below.push(*item);
        }
    }
    below.sort_by_key(|item| item.key.byte(depth));
    for same in below.chunk_by_mut(|a, b| a.key.byte(depth) == b.key.byte(depth)) {
        let byte = same[0].key.byte(depth);
        node.children.push((byte, add_bucket(store, same)));
    }
    Some(node)
}

/// The prefixes of a node as items of a bucket.
pub(super) fn items_of(node: &Node) -> Vec<Item> {
    let item = |prefix: &Prefix| Item {
        value: prefix.value,
        len: 8 * node.depth + prefix.bits,
        key: node.head.with_byte(node.depth, prefix.byte),
    };
    node.prefixes.as_slice().iter().map(item).collect()
}

/// Words of a bucket.
pub(super) fn bucket_words(items: &[Item]) -> usize {
    items
        .iter()
        .map(|item| 2 + key_words(item.len.into()))
        .sum()
}
