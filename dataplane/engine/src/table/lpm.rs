//! Longest prefix match for IPv4 and IPv6.
//!
//! A path-compressed trie of 8-bit strides. A node stands for one byte of the address; its 256 slots
//! say at once which value the prefixes ending in that byte give and whether a longer match may lie
//! below. Runs of bytes without a choice have no node: each node knows the whole prefix it stands
//! for and compares it once when entered, so a /128 below a /64 costs two nodes, not sixteen.
//!
//! ```text
//!  root (byte 0)      node 10.1 (byte 2)          node 10.1.2 (byte 3)
//!  [ .. 10 ─────────► [ 2: value=/24, child ────► [ 7: value=/32 ]
//! ```
//!
//! Nodes are shared between versions: cloning an [`Lpm`] copies one pointer, and a change copies only
//! the nodes on its path that a clone still holds. Each node keeps the prefixes that end in it, so
//! that removing one uncovers the next shorter without asking anybody.

use std::sync::Arc;

/// An address as bits.
pub trait Key: Copy + Eq + Ord {
    /// Bytes of an address.
    const BYTES: u8;

    /// Byte `index`, counted from the most significant.
    fn byte(self, index: u8) -> u8;

    /// The first `bytes` bytes, the rest zero.
    fn head(self, bytes: u8) -> Self;

    /// Bytes at the front that `self` and `other` have in common.
    fn common_bytes(self, other: Self) -> u8;
}

macro_rules! impl_key {
    ($int:ty, $bytes:literal) => {
        impl Key for $int {
            const BYTES: u8 = $bytes;

            #[inline(always)]
            fn byte(self, index: u8) -> u8 {
                (self >> (8 * ($bytes - 1 - u32::from(index)))) as u8
            }

            #[inline(always)]
            fn head(self, bytes: u8) -> Self {
                match bytes {
                    0 => 0,
                    n => self & (<$int>::MAX << (8 * ($bytes - u32::from(n)))),
                }
            }

            #[inline(always)]
            fn common_bytes(self, other: Self) -> u8 {
                ((self ^ other).leading_zeros() / 8) as u8
            }
        }
    };
}

impl_key!(u32, 4);
impl_key!(u128, 16);

/// Set in a slot below which there is a child.
const CHILD: u32 = 1 << 31;

/// Largest value a prefix can have; 0 says "no prefix".
pub const VALUE_MAX: u32 = CHILD - 1;

type Children<K> = [Option<Arc<Node<K>>>; 256];

#[derive(Clone)]
struct Node<K: Key> {
    /// The bytes in front of the one this node stands for.
    head: K,
    /// How many they are.
    depth: u8,
    /// Value of the longest prefix ending here that covers the slot, and [`CHILD`].
    slots: [u32; 256],
    /// Absent while no slot has a child: most nodes of a large table are leaves.
    children: Option<Box<Children<K>>>,
    /// The prefixes that end in this byte, by (bits of this byte, byte): sorted, shortest first.
    prefixes: Vec<(u8, u8, u32)>,
}

impl<K: Key> Node<K> {
    fn new(head: K, depth: u8) -> Self {
        Self {
            head,
            depth,
            slots: [0; 256],
            children: None,
            prefixes: Vec::new(),
        }
    }

    #[inline(always)]
    fn holds(&self, key: K) -> bool {
        key.head(self.depth) == self.head
    }

    fn child_mut(&mut self, byte: u8) -> &mut Option<Arc<Self>> {
        let children = self
            .children
            .get_or_insert_with(|| Box::new([const { None }; 256]));
        &mut children[usize::from(byte)]
    }

    fn set_child(&mut self, byte: u8, child: Option<Arc<Self>>) {
        let slot = &mut self.slots[usize::from(byte)];
        let there = child.is_some();
        *slot = if there { *slot | CHILD } else { *slot & !CHILD };
        *self.child_mut(byte) = child;
        if !there && self.slots.iter().all(|slot| slot & CHILD == 0) {
            self.children = None;
        }
    }

    fn set_prefix(&mut self, bits: u8, byte: u8, value: u32) -> Option<u32> {
        let at = self
            .prefixes
            .binary_search_by_key(&(bits, byte), |p| (p.0, p.1));
        let old = match (at, value) {
            (Ok(at), 0) => Some(self.prefixes.remove(at).2),
            (Ok(at), _) => Some(std::mem::replace(&mut self.prefixes[at].2, value)),
            (Err(_), 0) => None,
            (Err(at), _) => {
                self.prefixes.insert(at, (bits, byte, value));
                None
            }
        };
        self.fill(bits, byte);
        old
    }

    /// Computes the slots that the prefix of `bits` bits at `byte` covers. Shortest first, so that
    /// longer ones overwrite.
    fn fill(&mut self, bits: u8, byte: u8) {
        let span = Span::of(bits, byte);
        for slot in &mut self.slots[span.range()] {
            *slot &= CHILD;
        }
        for &(bits, byte, value) in &self.prefixes {
            let covered = Span::of(bits, byte).common(span);
            for slot in &mut self.slots[covered.range()] {
                *slot = *slot & CHILD | value;
            }
        }
    }
}

/// Slots a prefix covers within a node.
#[derive(Clone, Copy)]
struct Span {
    first: u16,
    end: u16,
}

impl Span {
    fn of(bits: u8, byte: u8) -> Self {
        let first = u16::from(byte);
        Self {
            first,
            end: first + (256 >> bits),
        }
    }

    fn common(self, other: Self) -> Self {
        let first = self.first.max(other.first);
        Self {
            first,
            end: self.end.min(other.end).max(first),
        }
    }

    fn range(self) -> std::ops::Range<usize> {
        usize::from(self.first)..usize::from(self.end)
    }
}

/// A prefix table; see the module's text. Values are 1 to [`VALUE_MAX`].
#[derive(Clone)]
pub struct Lpm<K: Key> {
    root: Arc<Node<K>>,
    len: usize,
}

impl<K: Key> Lpm<K> {
    /// A table without prefixes. The root stands for the first byte, so that /0 to /8 end in it.
    pub fn new() -> Self
    where
        K: Default,
    {
        Self {
            root: Arc::new(Node::new(K::default(), 0)),
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
        let mut node = &*self.root;
        let mut best = 0;
        // Every step goes at least one byte down: at most K::BYTES turns.
        loop {
            let byte = key.byte(node.depth);
            let slot = node.slots[usize::from(byte)];
            if slot & VALUE_MAX != 0 {
                best = slot & VALUE_MAX;
            }
            if slot & CHILD == 0 {
                return best;
            }
            match node
                .children
                .as_deref()
                .map(|children| &children[usize::from(byte)])
            {
                Some(Some(child)) if child.holds(key) => node = child,
                _ => return best,
            }
        }
    }

    /// Adds or replaces the prefix of `len` bits of `key` and returns the value it had.
    ///
    /// # Panics
    /// When `len` is longer than an address or `value` is 0 or above [`VALUE_MAX`].
    pub fn insert(&mut self, key: K, len: u8, value: u32) -> Option<u32> {
        assert!(
            (1..=VALUE_MAX).contains(&value),
            "the value of a prefix fits its slot"
        );
        let place = Place::of(key, len);
        let old = place.insert(&mut self.root, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a prefix and returns the value it had.
    ///
    /// # Panics
    /// When `len` is longer than an address.
    pub fn remove(&mut self, key: K, len: u8) -> Option<u32> {
        let place = Place::of(key, len);
        if !place.is_in(&self.root) {
            return None;
        }
        let old = place.remove(&mut self.root);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Bytes all nodes take, shared ones counted once per table.
    pub fn memory_bytes(&self) -> usize {
        let mut total = 0;
        // Depth-first with an explicit stack: its height is bounded by 255 siblings per level.
        let mut stack = vec![&self.root];
        while let Some(node) = stack.pop() {
            total += size_of::<Node<K>>() + node.prefixes.capacity() * size_of::<(u8, u8, u32)>();
            if let Some(children) = &node.children {
                total += size_of::<Children<K>>();
                stack.extend(children.iter().flatten());
            }
        }
        total
    }
}

impl<K: Key + Default> Default for Lpm<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a prefix lives: in the node of `depth` on its path, in the slots of `byte`.
struct Place<K> {
    head: K,
    depth: u8,
    bits: u8,
    byte: u8,
}

impl<K: Key> Place<K> {
    fn of(key: K, len: u8) -> Self {
        assert!(len <= 8 * K::BYTES, "a prefix is no longer than an address");
        // /8 ends in byte 0, /9 in byte 1; /0 in byte 0 with no bit of it.
        let depth = len.saturating_sub(1) / 8;
        let bits = len - 8 * depth;
        let mask = (0xff00_u16 >> bits) as u8;
        Self {
            head: key.head(depth),
            depth,
            bits,
            byte: key.byte(depth) & mask,
        }
    }

    /// Walks down, making the nodes that are missing.
    fn insert(&self, root: &mut Arc<Node<K>>, value: u32) -> Option<u32> {
        let mut node = Arc::make_mut(root);
        while node.depth < self.depth {
            let byte = self.head.byte(node.depth);
            let child = match node.child_mut(byte).take() {
                None => Arc::new(Node::new(self.head, self.depth)),
                Some(child) => self.split(child),
            };
            node.set_child(byte, Some(child));
            node = match node.child_mut(byte) {
                Some(child) => Arc::make_mut(child),
                None => unreachable!("the child was set above"),
            };
        }
        node.set_prefix(self.bits, self.byte, value)
    }

    /// `child`, or a new node above it where this prefix leaves its path.
    fn split(&self, child: Arc<Node<K>>) -> Arc<Node<K>> {
        let common = self
            .head
            .common_bytes(child.head)
            .min(self.depth)
            .min(child.depth);
        if common == child.depth {
            return child;
        }
        let mut above = Node::new(self.head.head(common), common);
        above.set_child(child.head.byte(common), Some(child));
        Arc::new(above)
    }

    fn is_in(&self, root: &Node<K>) -> bool {
        let mut node = root;
        while node.depth < self.depth {
            let byte = usize::from(self.head.byte(node.depth));
            match node.children.as_deref().map(|children| &children[byte]) {
                Some(Some(child)) => node = child,
                _ => return false,
            }
        }
        node.depth == self.depth
            && node.head == self.head
            && node
                .prefixes
                .iter()
                .any(|p| (p.0, p.1) == (self.bits, self.byte))
    }

    /// The prefix is there. Nodes it alone needed go. A node made by a split may stay with a single
    /// child: harmless, and gone with its last prefix.
    fn remove(&self, root: &mut Arc<Node<K>>) -> Option<u32> {
        let keep = self.deepest_kept(root);
        let mut node = Arc::make_mut(root);
        while node.depth < self.depth {
            let byte = self.head.byte(node.depth);
            if node.depth == keep {
                let value = self.value_below(node, byte);
                node.set_child(byte, None);
                return value;
            }
            node = match node.child_mut(byte) {
                Some(child) => Arc::make_mut(child),
                None => unreachable!("is_in() found the path"),
            };
        }
        node.set_prefix(self.bits, self.byte, 0)
    }

    /// Depth of the last node on the path that holds something besides this prefix's own path.
    fn deepest_kept(&self, root: &Node<K>) -> u8 {
        let (mut node, mut keep) = (root, 0);
        loop {
            let children = node
                .children
                .as_deref()
                .map_or(0, |c| c.iter().flatten().count());
            let own = usize::from(node.depth == self.depth);
            let path = 1 - own;
            if node.prefixes.len() > own || children > path {
                keep = node.depth;
            }
            if own == 1 {
                return keep;
            }
            let byte = usize::from(self.head.byte(node.depth));
            match node.children.as_deref().map(|children| &children[byte]) {
                Some(Some(child)) => node = child,
                _ => unreachable!("is_in() found the path"),
            }
        }
    }

    fn value_below(&self, node: &Node<K>, byte: u8) -> Option<u32> {
        let mut next = node.children.as_deref()?[usize::from(byte)].as_deref()?;
        while next.depth < self.depth {
            next = next.children.as_deref()?[usize::from(self.head.byte(next.depth))].as_deref()?;
        }
        next.prefixes
            .iter()
            .find(|p| (p.0, p.1) == (self.bits, self.byte))
            .map(|p| p.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{Ipv4Net, Ipv6Net};
    use prefix_trie::PrefixMap;
    use proptest::prelude::*;

    fn v4(text: &str) -> (u32, u8) {
        let net: Ipv4Net = text.parse().unwrap();
        (net.addr().to_bits(), net.prefix_len())
    }

    fn at(table: &Lpm<u32>, text: &str) -> u32 {
        table.lookup(text.parse::<std::net::Ipv4Addr>().unwrap().to_bits())
    }

    #[test]
    fn the_longest_prefix_wins_and_removal_uncovers_the_next() {
        let mut table = Lpm::<u32>::new();
        for (value, text) in (1..).zip([
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/23",
            "10.1.2.7/32",
        ]) {
            let (key, len) = v4(text);
            assert_eq!(table.insert(key, len, value), None);
        }
        let old = table.clone();
        assert_eq!(
            ["9.9.9.9", "10.9.9.9", "10.1.9.9", "10.1.3.7", "10.1.2.7"].map(|t| at(&table, t)),
            [1, 2, 3, 4, 5]
        );
        let (key, len) = v4("10.1.2.7/32");
        assert_eq!(table.remove(key, len), Some(5));
        assert_eq!(table.remove(key, len), None);
        assert_eq!((at(&table, "10.1.2.7"), at(&old, "10.1.2.7")), (4, 5));
        assert_eq!((table.len(), old.len()), (4, 5));
    }

    #[test]
    fn a_small_table_is_small_and_an_emptied_one_as_a_fresh_one() {
        let mut table = Lpm::<u128>::new();
        let fresh = table.memory_bytes();
        let nets: Vec<Ipv6Net> = (0..100)
            .map(|i| format!("fd00:0:0:{i:x}::{i:x}/128").parse().unwrap())
            .collect();
        for net in &nets {
            table.insert(net.addr().to_bits(), 128, 7);
        }
        assert!(table.memory_bytes() < 400 << 10, "{}", table.memory_bytes());
        for net in &nets {
            assert_eq!(table.remove(net.addr().to_bits(), 128), Some(7));
        }
        assert!(table.is_empty());
        assert!(
            table.memory_bytes() <= fresh + 3000,
            "{}",
            table.memory_bytes()
        );
    }

    #[test]
    fn a_change_leaves_the_rest_shared() {
        let mut table = Lpm::<u32>::new();
        for i in 0..250_u32 {
            table.insert(i << 24 | 1 << 16, 24, 1);
        }
        let old = table.clone();
        table.insert(5 << 24 | 2 << 16, 24, 2);
        let shared = |byte: usize| {
            let child = |t: &Lpm<u32>| t.root.children.as_ref().unwrap()[byte].clone().unwrap();
            Arc::ptr_eq(&child(&table), &child(&old))
        };
        assert!(!shared(5) && (0..250).filter(|&b| b != 5).all(shared));
    }

    /// Few distinct bytes, so that prefixes nest, share paths and split them.
    fn clustered_v6() -> impl Strategy<Value = u128> {
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 0x80, 0xff]), 16)
            .prop_map(|bytes| u128::from_be_bytes(bytes.try_into().unwrap()))
    }

    fn clustered_v4() -> impl Strategy<Value = u32> {
        prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 0x80, 0xff]), 4)
            .prop_map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
    }

    proptest! {
        #[test]
        fn v6_equals_the_model(
            ops in prop::collection::vec((clustered_v6(), 0_u8..=128, any::<bool>(), 1_u32..1000), 1..80),
            probes in prop::collection::vec(clustered_v6(), 40),
        ) {
            let mut table = Lpm::<u128>::new();
            let mut model = PrefixMap::<Ipv6Net, u32>::new();
            let mut versions = Vec::new();
            for (key, len, add, value) in ops {
                let net = Ipv6Net::new(key.into(), len).unwrap().trunc();
                if add {
                    prop_assert_eq!(table.insert(key, len, value), model.insert(net, value));
                } else {
                    prop_assert_eq!(table.remove(key, len), model.remove(&net));
                }
                prop_assert_eq!(table.len(), model.len());
                versions.push((table.clone(), model.clone()));
            }
            for (table, model) in &versions {
                for &probe in &probes {
                    let expected = model.get_lpm(&Ipv6Net::new(probe.into(), 128).unwrap());
                    prop_assert_eq!(table.lookup(probe), expected.map_or(0, |(_, &v)| v));
                }
            }
        }

        #[test]
        fn v4_equals_the_model(
            ops in prop::collection::vec((clustered_v4(), 0_u8..=32, 0_u8..3, 1_u32..1000), 1..200),
            probes in prop::collection::vec(clustered_v4(), 100),
        ) {
            let mut table = Lpm::<u32>::new();
            let mut model = PrefixMap::<Ipv4Net, u32>::new();
            for (key, len, action, value) in ops {
                let net = Ipv4Net::new(key.into(), len).unwrap().trunc();
                if action > 0 {
                    prop_assert_eq!(table.insert(key, len, value), model.insert(net, value));
                } else {
                    prop_assert_eq!(table.remove(key, len), model.remove(&net));
                }
            }
            for probe in probes {
                let expected = model.get_lpm(&Ipv4Net::new(probe.into(), 32).unwrap());
                prop_assert_eq!(table.lookup(probe), expected.map_or(0, |(_, &v)| v));
            }
        }
    }
}
