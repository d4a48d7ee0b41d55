//! IPv4: every byte of the address is an index.
//!
//! ```text
//!  root (byte 0)      wide (byte 1)       block (byte 2)         tail (byte 3)
//!  [10: value, ─────► [1: value, ───────► [2: value, or ───────► the prefixes longer than /24
//!       wide]              block]               place of tail]
//! ```
//!
//! It is DIR-24-8 (Gupta, Lin, McKeown: Routing Lookups in Hardware at Memory Access Speeds, INFOCOM
//! 1998) whose first table is cut into blocks of a /16, so that versions share them and absent ones take
//! no memory. The two steps above a block are a line each and stay in the second-level cache; the slot
//! in the block is the one access that goes to memory, as the table of the paper does. A /24 with a
//! single longer prefix, as a host route makes it, has no table of its own.
//!
//! A slot says what the prefixes ending in its byte give, and a search carries the best of the bytes
//! before: a change of a short prefix does not touch what lies below it.

use std::array;
use std::sync::Arc;

use super::prefixes::{Prefix, Prefixes, masked, place};
use super::{STEP, Table, VALUE_MAX};

/// Set in a block's slot that holds the place of a tail.
const TAIL: u32 = VALUE_MAX + 1;

/// The table; see the module's text.
#[derive(Clone, Default)]
pub struct Direct {
    root: Arc<Wide<Wide<Block>>>,
}

/// One byte of the address: 4 KiB.
#[derive(Clone)]
struct Wide<C> {
    slots: [Slot<C>; 256],
    prefixes: Prefixes,
    children: u16,
}

struct Slot<C> {
    child: Option<Arc<C>>,
    /// Of the longest prefix ending in this byte, 0 without one.
    value: u32,
}

const _: () = assert!(size_of::<Slot<Block>>() == 16);

/// Byte 2: 1 KiB and the tails.
#[derive(Clone)]
struct Block {
    /// Of the longest prefix ending in this byte, or [`TAIL`] and the place in `tails`.
    slots: [u32; 256],
    tails: Vec<Tail>,
    prefixes: Prefixes,
}

/// What is below one slot of a block.
#[derive(Clone)]
struct Tail {
    /// The slot's own value.
    value: u32,
    /// The slot.
    byte: u8,
    hosts: Hosts,
}

#[derive(Clone)]
enum Hosts {
    One(Prefix),
    Many(Arc<Dense>),
}

/// Byte 3, once there are two prefixes.
#[derive(Clone)]
struct Dense {
    slots: [u32; 256],
    prefixes: Prefixes,
}

#[inline(always)]
const fn longer(value: u32, best: u32) -> u32 {
    if value == 0 { best } else { value }
}

#[inline(always)]
fn split(key: u32) -> [usize; 4] {
    key.to_be_bytes().map(usize::from)
}

impl Table<u32> for Direct {
    #[inline]
    fn lookup(&self, key: u32) -> u32 {
        let [a, b, c, d] = split(key);
        let slot = &self.root.slots[a];
        let best = slot.value;
        let Some(wide) = &slot.child else {
            return best;
        };
        let slot = &wide.slots[b];
        let best = longer(slot.value, best);
        let Some(block) = &slot.child else {
            return best;
        };
        let slot = block.slots[c];
        if slot & TAIL == 0 {
            longer(slot, best)
        } else {
            block.tail_of(slot, d, best)
        }
    }

    /// Byte by byte for all keys, so that the processor waits for all of them at once. No branch depends on
    /// what came from far away before all of it was asked for: one foretold wrongly would wait alone.
    fn lookup_step(&self, keys: &[u32], values: &mut [u32]) {
        let mut blocks = [None; STEP];
        let mut slots = [0; STEP];
        let mut tails = [0_u8; STEP];
        let steps = keys.iter().zip(values.iter_mut());
        for ((key, value), block) in steps.zip(&mut blocks) {
            (*block, *value) = self.block(*key);
        }
        for ((key, block), slot) in keys.iter().zip(&blocks).zip(&mut slots) {
            *slot = block.map_or(0, |block: &Block| block.slots[split(*key)[2]]);
        }
        let mut count = 0;
        for (at, (value, slot)) in values.iter_mut().zip(&slots).enumerate() {
            let is_tail = slot & TAIL != 0;
            let found = if is_tail { 0 } else { *slot };
            *value = longer(found, *value);
            tails[count % STEP] = at as u8;
            count += usize::from(is_tail);
        }
        let tail = |at: u8| {
            let at = usize::from(at) % STEP;
            blocks[at].and_then(|block| block.tails.get((slots[at] & VALUE_MAX) as usize))
        };
        let mut owns = [0; STEP];
        for (own, at) in owns.iter_mut().zip(&tails[..count]) {
            *own = tail(*at).map_or(0, |tail| tail.value);
        }
        for (own, at) in owns.iter().zip(&tails[..count]) {
            let (key, value) = (keys[usize::from(*at)], &mut values[usize::from(*at)]);
            let best = longer(*own, *value);
            *value = tail(*at).map_or(best, |tail| tail.hosts.lookup(split(key)[3], best));
        }
    }

    fn insert(&mut self, key: u32, len: u8, value: u32) -> Option<u32> {
        self.set(key, len, value)
    }

    fn remove(&mut self, key: u32, len: u8) -> Option<u32> {
        self.find(key, len)?;
        self.set(key, len, 0)
    }

    fn memory_bytes(&self) -> usize {
        let wides = self.root.slots.iter().filter_map(|it| it.child.as_deref());
        let of_blocks = |wide: &Wide<Block>| -> usize {
            let blocks = wide.slots.iter().filter_map(|it| it.child.as_deref());
            blocks.map(Block::memory_bytes).sum()
        };
        self.root.memory_bytes()
            + wides
                .map(|wide| wide.memory_bytes() + of_blocks(wide))
                .sum::<usize>()
    }
}

impl Direct {
    /// The block of a key, and what the bytes above it give.
    #[inline(always)]
    fn block(&self, key: u32) -> (Option<&Block>, u32) {
        let [a, b, ..] = split(key);
        let slot = &self.root.slots[a];
        let best = slot.value;
        match &slot.child {
            None => (None, best),
            Some(wide) => {
                let slot = &wide.slots[b];
                (slot.child.as_deref(), longer(slot.value, best))
            }
        }
    }

    /// Sets a prefix, or removes it with the value 0; nodes that hold nothing any more go.
    fn set(&mut self, key: u32, len: u8, value: u32) -> Option<u32> {
        let [a, b, c, _] = split(key);
        let (depth, bits) = place(len);
        let byte = masked(key.to_be_bytes()[usize::from(depth)], bits);
        let prefix = Prefix { value, bits, byte };
        let root = Arc::make_mut(&mut self.root);
        if depth == 0 {
            return root.set_prefix(prefix);
        }
        root.change_child(a, |wide| {
            let old = match depth {
                1 => wide.set_prefix(prefix),
                2 => wide.change_child(b, |block| (block.set_prefix(prefix), block.is_empty())),
                _ => wide.change_child(b, |block| (block.set_host(c, prefix), block.is_empty())),
            };
            (old, wide.is_empty())
        })
    }

    fn find(&self, key: u32, len: u8) -> Option<u32> {
        let [a, b, c, _] = split(key);
        let (depth, bits) = place(len);
        let byte = masked(key.to_be_bytes()[usize::from(depth)], bits);
        if depth == 0 {
            return self.root.prefixes.find(bits, byte);
        }
        let wide = self.root.slots[a].child.as_deref()?;
        if depth == 1 {
            return wide.prefixes.find(bits, byte);
        }
        let block = wide.slots[b].child.as_deref()?;
        if depth == 2 {
            return block.prefixes.find(bits, byte);
        }
        match &block.tail(c)?.hosts {
            Hosts::One(one) => ((one.bits, one.byte) == (bits, byte)).then_some(one.value),
            Hosts::Many(dense) => dense.prefixes.find(bits, byte),
        }
    }
}

impl<C: Clone + Default> Wide<C> {
    fn set_prefix(&mut self, prefix: Prefix) -> Option<u32> {
        let old = self.prefixes.set(prefix);
        let slots = &mut self.slots;
        self.prefixes.fill(prefix, |range, value| {
            slots[range].iter_mut().for_each(|slot| slot.value = value);
        });
        old
    }

    /// Lets `change` change a child, making it if it is not there. It also says whether the child is
    /// empty, which is its end.
    fn change_child<T>(&mut self, byte: usize, change: impl FnOnce(&mut C) -> (T, bool)) -> T {
        let child = &mut self.slots[byte].child;
        self.children += u16::from(child.is_none());
        let (result, is_empty) = change(Arc::make_mut(child.get_or_insert_default()));
        if is_empty {
            *child = None;
            self.children -= 1;
        }
        result
    }
}

impl<C> Wide<C> {
    fn is_empty(&self) -> bool {
        self.children == 0 && self.prefixes.as_slice().is_empty()
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.prefixes.memory_bytes()
    }
}

impl<C> Default for Wide<C> {
    fn default() -> Self {
        Self {
            slots: array::from_fn(|_| Slot {
                child: None,
                value: 0,
            }),
            prefixes: Prefixes::default(),
            children: 0,
        }
    }
}

impl<C> Clone for Slot<C> {
    fn clone(&self) -> Self {
        Self {
            child: self.child.clone(),
            value: self.value,
        }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self {
            slots: [0; 256],
            tails: Vec::new(),
            prefixes: Prefixes::default(),
        }
    }
}

impl Block {
    /// What a slot that names a tail gives for the last byte.
    #[inline]
    fn tail_of(&self, slot: u32, byte: usize, best: u32) -> u32 {
        let Some(tail) = self.tails.get((slot & VALUE_MAX) as usize) else {
            return best;
        };
        tail.hosts.lookup(byte, longer(tail.value, best))
    }

    fn tail(&self, byte: usize) -> Option<&Tail> {
        let slot = self.slots[byte];
        let at = (slot & VALUE_MAX) as usize;
        self.tails.get(at).filter(|_| slot & TAIL != 0)
    }

    fn set_prefix(&mut self, prefix: Prefix) -> Option<u32> {
        let old = self.prefixes.set(prefix);
        let Self {
            slots,
            tails,
            prefixes,
        } = self;
        prefixes.fill(prefix, |range, value| {
            for slot in &mut slots[range] {
                if *slot & TAIL == 0 {
                    *slot = value;
                } else {
                    tails[(*slot & VALUE_MAX) as usize].value = value;
                }
            }
        });
        old
    }

    /// Sets a prefix longer than /24 below `byte`.
    fn set_host(&mut self, byte: usize, prefix: Prefix) -> Option<u32> {
        let slot = self.slots[byte];
        if slot & TAIL == 0 {
            if prefix.value != 0 {
                self.slots[byte] = TAIL | self.tails.len() as u32;
                self.tails.push(Tail {
                    value: slot,
                    byte: byte as u8,
                    hosts: Hosts::One(prefix),
                });
            }
            return None;
        }
        let at = (slot & VALUE_MAX) as usize;
        let (old, is_empty) = self.tails[at].hosts.set(prefix);
        if is_empty {
            self.slots[byte] = self.tails.swap_remove(at).value;
            if let Some(moved) = self.tails.get(at) {
                self.slots[usize::from(moved.byte)] = slot;
            }
        }
        old
    }

    fn is_empty(&self) -> bool {
        self.tails.is_empty() && self.prefixes.as_slice().is_empty()
    }

    fn memory_bytes(&self) -> usize {
        let dense = self.tails.iter().map(|tail| match &tail.hosts {
            Hosts::One(_) => 0,
            Hosts::Many(dense) => size_of::<Dense>() + dense.prefixes.memory_bytes(),
        });
        size_of::<Self>()
            + self.tails.capacity() * size_of::<Tail>()
            + self.prefixes.memory_bytes()
            + dense.sum::<usize>()
    }
}

impl Hosts {
    /// What they give for the last byte, `best` where none of them holds it.
    #[inline]
    fn lookup(&self, byte: usize, best: u32) -> u32 {
        match self {
            Self::One(one) if masked(byte as u8, one.bits) == one.byte => one.value,
            Self::One(_) => best,
            Self::Many(dense) => longer(dense.slots[byte], best),
        }
    }

    /// Sets a prefix; says what it was, and whether there is none any more.
    fn set(&mut self, prefix: Prefix) -> (Option<u32>, bool) {
        let dense = match self {
            Self::One(one) if (one.bits, one.byte) == (prefix.bits, prefix.byte) => {
                let old = std::mem::replace(&mut one.value, prefix.value);
                return (Some(old), prefix.value == 0);
            }
            Self::One(_) if prefix.value == 0 => return (None, false),
            Self::One(one) => {
                let mut dense = Dense::default();
                dense.set(*one);
                dense.set(prefix);
                *self = Self::Many(Arc::new(dense));
                return (None, false);
            }
            Self::Many(dense) => Arc::make_mut(dense),
        };
        let old = dense.set(prefix);
        if let [one] = *dense.prefixes.as_slice() {
            *self = Self::One(one);
        }
        (old, false)
    }
}

impl Default for Dense {
    fn default() -> Self {
        Self {
            slots: [0; 256],
            prefixes: Prefixes::default(),
        }
    }
}

impl Dense {
    fn set(&mut self, prefix: Prefix) -> Option<u32> {
        let old = self.prefixes.set(prefix);
        let slots = &mut self.slots;
        self.prefixes
            .fill(prefix, |range, value| slots[range].fill(value));
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest_shared() {
        let mut table = Direct::default();
        for n in 0..250_u32 {
            table.insert(n << 24 | 1 << 16, 24, 1);
        }
        let old = table.clone();
        table.insert(5 << 24 | 2 << 16, 24, 2);
        table.insert(0, 0, 3);
        let shared = |byte: usize| {
            let child = |table: &Direct| table.root.slots[byte].child.clone();
            child(&table)
                .zip(child(&old))
                .is_some_and(|(a, b)| Arc::ptr_eq(&a, &b))
        };
        assert!(!shared(5) && (0..250).filter(|&byte| byte != 5).all(shared));
        assert_eq!((table.lookup(1), old.lookup(1)), (3, 0));
    }

    #[test]
    fn an_emptied_table_has_no_nodes() {
        let mut table = Direct::default();
        let fresh = table.memory_bytes();
        let prefixes = [(8, 1), (16, 2), (24, 3), (25, 4), (26, 5), (32, 6)];
        for (len, value) in prefixes {
            assert_eq!(table.insert(10 << 24, len, value), None);
        }
        for (len, value) in prefixes {
            assert_eq!(table.remove(10 << 24, len), Some(value));
            assert_eq!(table.remove(10 << 24, len), None);
        }
        assert!(table.root.is_empty());
        // A list of prefixes keeps its room for some.
        assert!(table.memory_bytes() < fresh + 100);
    }
}
