//! IPv6: a trie of 8-bit strides with compressed paths and compressed nodes.
//!
//! ```text
//!  root ──► node at byte 2            ──► node at byte 5
//!           entries: value │ leaf │ node      entries: …
//! ```
//!
//! A node stands for one byte of the address. Its 256 slots are kept as runs of equal ones: a bit per
//! slot says where a run begins, and the number of such bits up to a slot is the place of its entry
//! (Asai, Ohara: Poptrie, SIGCOMM 2015; the bitmaps are those of Tree Bitmap, Eatherton et al. 2004).
//! The entry holds what the prefixes ending in this byte give, and either nothing more, the only prefix
//! below, or the next node with all bytes in front of it, which are compared before that node is
//! touched. So a step costs two lines, and a path has no more nodes than choices.
//!
//! A node holds at least two prefixes or nodes: one that would be left with less is replaced by what is
//! left, so that a table does not depend on its history.

use std::sync::Arc;

use super::prefixes::{Prefix, Prefixes, masked, place};
use super::{STEP, Table};

const BYTES: u8 = 16;

/// The table; see the module's text.
#[derive(Clone)]
pub struct Trie {
    root: Entry,
}

/// A run of slots: `value` is that of the longest prefix ending in the node's byte, 0 without one.
#[derive(Clone)]
enum Entry {
    Value {
        value: u32,
    },
    /// One prefix lies below.
    Leaf {
        value: u32,
        below: u32,
        len: u8,
        key: u128,
    },
    /// More do, all of which begin with the first `depth` bytes of `head`.
    Node {
        value: u32,
        depth: u8,
        node: Arc<Node>,
        head: u128,
    },
}

const _: () = assert!(size_of::<Entry>() == 32);

#[derive(Clone, Default)]
struct Node {
    /// One bit per slot: a run begins here. That of slot 0 is set.
    starts: [u64; 4],
    /// Runs that begin in the words before.
    before: [u8; 4],
    entries: Box<[Entry]>,
    prefixes: Prefixes,
}

/// Byte `index`, counted from the most significant.
#[inline(always)]
fn byte(key: u128, index: u8) -> u8 {
    (key >> (8 * u32::from(BYTES - 1 - index))) as u8
}

/// The first `bytes` bytes, the rest zero.
#[inline(always)]
fn head(key: u128, bytes: u8) -> u128 {
    match bytes {
        0 => 0,
        bytes => key & (u128::MAX << (8 * u32::from(BYTES - bytes))),
    }
}

/// Bytes at the front that two addresses have in common.
fn common_bytes(a: u128, b: u128) -> u8 {
    ((a ^ b).leading_zeros() / 8) as u8
}

#[inline(always)]
fn masked_key(key: u128, len: u8) -> u128 {
    match len {
        0 => 0,
        len => key & (u128::MAX << (128 - u32::from(len))),
    }
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            root: Entry::Value { value: 0 },
        }
    }
}

impl Table<u128> for Trie {
    #[inline]
    fn lookup(&self, key: u128) -> u32 {
        let mut entry = &self.root;
        let mut best = 0;
        // Every step goes at least one byte down: at most `BYTES` turns.
        while let Some((node, depth)) = entry.enter(key, &mut best) {
            entry = node.entry(byte(key, depth));
        }
        best
    }

    /// Step by step for all keys, so that the processor waits for all of them at once.
    fn lookup_step(&self, keys: &[u128], values: &mut [u32]) {
        let mut entries = [&self.root; STEP];
        let mut open: [u8; STEP] = std::array::from_fn(|at| at as u8);
        let mut count = keys.len().min(values.len()).min(STEP);
        values.fill(0);
        while count > 0 {
            let mut left = 0;
            for turn in 0..count {
                let at = usize::from(open[turn]);
                if let Some((node, depth)) = entries[at].enter(keys[at], &mut values[at]) {
                    entries[at] = node.entry(byte(keys[at], depth));
                    open[left] = at as u8;
                    left += 1;
                }
            }
            count = left;
        }
    }

    fn insert(&mut self, key: u128, len: u8, value: u32) -> Option<u32> {
        let key = masked_key(key, len);
        let (own_depth, bits) = place(len);
        let mut entry = &mut self.root;
        // Each turn ends it, splits the entry once, or goes a byte down: at most 2 * BYTES turns.
        loop {
            entry.split(key, len);
            let (depth, node) = match entry {
                Entry::Value { value: own } => {
                    *entry = Entry::Leaf {
                        value: *own,
                        below: value,
                        len,
                        key,
                    };
                    return None;
                }
                Entry::Leaf { below, .. } => return Some(std::mem::replace(below, value)),
                Entry::Node { depth, node, .. } => (*depth, Arc::make_mut(node)),
            };
            let byte = byte(key, depth);
            if depth == own_depth {
                let byte = masked(byte, bits);
                return node.set_prefix(Prefix { value, bits, byte });
            }
            if let Entry::Value { value: own } = *node.entry(byte) {
                node.set_child(
                    byte,
                    Entry::Leaf {
                        value: own,
                        below: value,
                        len,
                        key,
                    },
                );
                return None;
            }
            entry = node.entry_mut(byte);
        }
    }

    fn remove(&mut self, key: u128, len: u8) -> Option<u32> {
        let key = masked_key(key, len);
        let old = self.find(key, len)?;
        let mut entry = &mut self.root;
        while let Some(byte) = entry.passes_to(key, len) {
            let Entry::Node { node, .. } = entry else {
                break;
            };
            entry = Arc::make_mut(node).entry_mut(byte);
        }
        entry.lose(key, len);
        Some(old)
    }

    fn memory_bytes(&self) -> usize {
        let mut total = size_of::<Entry>();
        // Depth-first with an explicit stack: its height is bounded by 255 siblings per level.
        let mut stack = vec![&self.root];
        while let Some(entry) = stack.pop() {
            if let Entry::Node { node, .. } = entry {
                total += size_of::<Node>() + size_of_val(&*node.entries);
                total += node.prefixes.memory_bytes();
                stack.extend(&node.entries);
            }
        }
        total
    }
}

impl Trie {
    fn find(&self, key: u128, len: u8) -> Option<u32> {
        let (own_depth, bits) = place(len);
        let mut entry = &self.root;
        loop {
            match entry {
                Entry::Value { .. } => return None,
                Entry::Leaf {
                    below,
                    len: its,
                    key: other,
                    ..
                } => return ((*its, *other) == (len, key)).then_some(*below),
                Entry::Node {
                    depth,
                    node,
                    head: other,
                    ..
                } => {
                    if *depth > own_depth || head(key, *depth) != *other {
                        return None;
                    }
                    let byte = byte(key, *depth);
                    if *depth == own_depth {
                        return node.prefixes.find(bits, masked(byte, bits));
                    }
                    entry = node.entry(byte);
                }
            }
        }
    }
}

impl Entry {
    #[inline(always)]
    const fn value(&self) -> u32 {
        match self {
            Self::Value { value } | Self::Leaf { value, .. } | Self::Node { value, .. } => *value,
        }
    }

    /// Improves `best` by what this entry says about `key`, and says where to go on.
    #[inline(always)]
    fn enter(&self, key: u128, best: &mut u32) -> Option<(&Node, u8)> {
        let value = self.value();
        *best = if value == 0 { *best } else { value };
        match self {
            Self::Value { .. } => None,
            Self::Leaf {
                below,
                len,
                key: other,
                ..
            } => {
                if masked_key(key, *len) == *other {
                    *best = *below;
                }
                None
            }
            Self::Node {
                depth,
                node,
                head: other,
                ..
            } => (head(key, *depth) == *other).then_some((node, *depth)),
        }
    }

    /// Puts a node above what is here if a prefix that is not in it leaves its path.
    fn split(&mut self, key: u128, len: u8) {
        let (own_depth, _) = place(len);
        let (other, depth) = match *self {
            Self::Value { .. } => return,
            Self::Leaf {
                key: other,
                len: its,
                ..
            } if (other, its) == (key, len) => return,
            Self::Leaf {
                key: other,
                len: its,
                ..
            } => (other, place(its).0),
            Self::Node { head, depth, .. } => (head, depth),
        };
        let common = common_bytes(key, other).min(own_depth).min(depth);
        if common == depth && matches!(self, Self::Node { .. }) {
            return;
        }
        let value = std::mem::replace(self.value_mut(), 0);
        let below = std::mem::replace(self, Self::Value { value: 0 });
        let node = Arc::new(Node::holding(below, common));
        *self = Self::Node {
            value,
            depth: common,
            node,
            head: head(key, common),
        };
    }

    /// The byte below which the node is that holds a prefix, unless that is this one.
    fn passes_to(&self, key: u128, len: u8) -> Option<u8> {
        let Self::Node { depth, node, .. } = self else {
            return None;
        };
        let byte = byte(key, *depth);
        let further = *depth < place(len).0 && matches!(node.entry(byte), Self::Node { .. });
        further.then_some(byte)
    }

    /// Removes a prefix that is here: the leaf, or in the node or a leaf of it.
    fn lose(&mut self, key: u128, len: u8) {
        let (own_depth, bits) = place(len);
        let own = self.value();
        let Self::Node {
            depth, node, head, ..
        } = self
        else {
            *self = Self::Value { value: own };
            return;
        };
        let node = Arc::make_mut(node);
        let byte = byte(key, *depth);
        if *depth == own_depth {
            node.set_prefix(Prefix {
                value: 0,
                bits,
                byte: masked(byte, bits),
            });
        } else {
            let value = node.entry(byte).value();
            node.set_child(byte, Self::Value { value });
        }
        if let Some(left) = node.left_alone(*head, *depth, own) {
            *self = left;
        }
    }

    fn value_mut(&mut self) -> &mut u32 {
        match self {
            Self::Value { value } | Self::Leaf { value, .. } | Self::Node { value, .. } => value,
        }
    }
}

impl Node {
    /// A node for byte `depth` with a single leaf or node: on the way to having two.
    fn holding(entry: Entry, depth: u8) -> Self {
        let mut node = Self::default();
        node.rebuild(&[0; 256], Vec::new());
        match entry {
            Entry::Leaf {
                below, len, key, ..
            } if place(len).0 == depth => {
                let bits = place(len).1;
                let byte = byte(key, depth);
                let value = below;
                node.set_prefix(Prefix { value, bits, byte });
            }
            Entry::Leaf { key: address, .. } | Entry::Node { head: address, .. } => {
                node.set_child(byte(address, depth), entry);
            }
            Entry::Value { .. } => {}
        }
        node
    }

    #[inline(always)]
    fn place(&self, byte: u8) -> usize {
        let word = usize::from(byte / 64);
        let upto = u64::MAX >> (63 - byte % 64);
        usize::from(self.before[word]) + (self.starts[word] & upto).count_ones() as usize - 1
    }

    #[inline(always)]
    fn entry(&self, byte: u8) -> &Entry {
        &self.entries[self.place(byte)]
    }

    /// The entry of a leaf or node, which is a run of its own.
    fn entry_mut(&mut self, byte: u8) -> &mut Entry {
        &mut self.entries[self.place(byte)]
    }

    fn set_prefix(&mut self, prefix: Prefix) -> Option<u32> {
        let old = self.prefixes.set(prefix);
        let mut values = self.values();
        self.prefixes
            .fill(prefix, |range, value| values[range].fill(value));
        let children = self.take_children();
        self.rebuild(&values, children);
        old
    }

    /// Sets what is below a slot: a leaf or node, or nothing.
    fn set_child(&mut self, byte: u8, entry: Entry) {
        let values = self.values();
        let mut children = self.take_children();
        let at = children.partition_point(|(other, _)| *other < byte);
        if children.get(at).is_some_and(|(other, _)| *other == byte) {
            children.remove(at);
        }
        if !matches!(entry, Entry::Value { .. }) {
            children.insert(at, (byte, entry));
        }
        self.rebuild(&values, children);
    }

    fn values(&self) -> [u32; 256] {
        std::array::from_fn(|byte| match self.entries.is_empty() {
            true => 0,
            false => self.entry(byte as u8).value(),
        })
    }

    fn take_children(&mut self) -> Vec<(u8, Entry)> {
        let starts = self.starts;
        let bytes =
            (0..=u8::MAX).filter(|byte| starts[usize::from(byte / 64)] >> (byte % 64) & 1 != 0);
        let entries = std::mem::take(&mut self.entries).into_vec();
        let children = bytes.zip(entries);
        children
            .filter(|(_, entry)| !matches!(entry, Entry::Value { .. }))
            .collect()
    }

    /// Makes the runs anew.
    fn rebuild(&mut self, values: &[u32; 256], children: Vec<(u8, Entry)>) {
        let mut children = children.into_iter().peekable();
        let mut entries: Vec<Entry> = Vec::with_capacity(2 * children.len() + 1);
        self.starts = [0; 4];
        for (byte, value) in (0..=u8::MAX).zip(values) {
            let child = children.next_if(|(of, _)| *of == byte);
            let goes_on =
                matches!(entries.last(), Some(Entry::Value { value: last }) if last == value);
            if byte % 64 == 0 {
                // Below 256: the last word is preceded by at most 192 runs.
                self.before[usize::from(byte / 64)] = entries.len() as u8;
            }
            if child.is_none() && goes_on {
                continue;
            }
            self.starts[usize::from(byte / 64)] |= 1 << (byte % 64);
            let mut entry = child.map_or(Entry::Value { value: 0 }, |(_, entry)| entry);
            *entry.value_mut() = *value;
            entries.push(entry);
        }
        self.entries = entries.into_boxed_slice();
    }

    /// What takes this node's place if it holds one prefix or node only. `head`, `depth` and `value`
    /// are those of its entry.
    fn left_alone(&self, head: u128, depth: u8, value: u32) -> Option<Entry> {
        let mut children = self
            .entries
            .iter()
            .filter(|it| !matches!(it, Entry::Value { .. }));
        let left = match (self.prefixes.as_slice(), children.next(), children.next()) {
            ([prefix], None, None) => Entry::Leaf {
                value,
                below: prefix.value,
                len: 8 * depth + prefix.bits,
                key: head | u128::from(prefix.byte) << (8 * u32::from(BYTES - 1 - depth)),
            },
            ([], Some(child), None) => {
                let mut child = child.clone();
                *child.value_mut() = value;
                child
            }
            _ => return None,
        };
        Some(left)
    }
}
