//! IPv6: a trie of 8-bit strides with compressed paths and compressed nodes.
//!
//! ```text
//!  root ──► node at byte 0  ──►  node at byte 3  ──►  bucket: fd00:1:2::/64, fd00:1:2::7/128
//!           entries: value │ below     entries: …
//! ```
//!
//! A node stands for one byte of the address. Its 256 slots are kept as runs of equal ones: a bit per
//! slot says where a run begins, and the number of such bits up to a slot is the place of its entry
//! (Asai, Ohara: Poptrie, SIGCOMM 2015; bitmaps as in Tree Bitmap, Eatherton et al. 2004). Nodes of many
//! runs have an entry per slot, as the tables of DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998). Runs of
//! bytes without a choice have no node, and up to four prefixes that are alone below a slot lie in one
//! bucket. A million prefixes take 27 MB, and a search touches two lines that are not in the second-level
//! cache.
//!
//! A slot's value is that of the prefixes ending in the node's byte, and a search carries the best of the
//! bytes before: a change of a short prefix does not touch what lies below it.

use super::Table;
use super::address::Address;
use super::batch::search;
use super::node::{
    BUCKET_MAX, Below, Item, Node, Records, add_bucket, bucket_words, depth, direct_place, head,
    is_valued, items_of, leads_to, node_of, read_bucket, search_bucket, sparse_place, valued,
};
use super::prefixes::{Prefix, masked, place};

/// The table; see the module's text.
#[derive(Clone, Default)]
pub struct Trie {
    root: u32,
    records: Records,
}

/// Bytes of records that are near anyway: half of a usual second-level cache. Up to here it takes longer to
/// ask for records than to wait for them.
const NEAR_BYTES: usize = 512 << 10;

/// Where an entry is: in a record, or the root.
#[derive(Clone, Copy)]
struct Place {
    record: Option<u32>,
    index: usize,
}

const ROOT: Place = Place {
    record: None,
    index: 0,
};

/// Where a search is.
#[derive(Clone, Copy)]
struct Search {
    entry: u32,
    best: u32,
}

impl Table<u128> for Trie {
    #[inline]
    fn lookup(&self, key: u128) -> u32 {
        let mut search = Search {
            entry: self.root,
            best: 0,
        };
        // Every step goes at least one byte down: at most as many turns as an address has bytes.
        while self.step(key, &mut search) {}
        search.best
    }

    #[inline]
    fn lookup_step(&self, keys: &[u128], values: &mut [u32]) {
        if self.records.hot.memory_bytes() <= NEAR_BYTES {
            for (key, value) in keys.iter().zip(values) {
                *value = self.lookup(*key);
            }
        } else {
            self.lookup_far(keys, values);
        }
    }

    fn insert(&mut self, key: u128, len: u8, value: u32) -> Option<u32> {
        let key = key.truncated(len);
        let (own_depth, bits) = place(len);
        let item = Item { value, len, key };
        // The entry, and the one of the node it is in with that node's depth and that of the one above.
        let (mut at, mut of_node, mut above) = (ROOT, None, [None; 2]);
        // Each turn ends it, splits a path once, or goes a byte down.
        loop {
            let below = Below::of(self.entry(at));
            let (record, node) = match below {
                Below::Value(_) => {
                    let entry = add_bucket(&mut self.records.hot, &mut [item]);
                    match of_node {
                        None => self.root = entry,
                        Some(place) => {
                            self.change(place, above[0], |node| {
                                node.set_child(key.byte(node.depth), Some(entry));
                                None
                            });
                        }
                    }
                    return None;
                }
                Below::Bucket(record) => return self.add_item(at, record, item, above[1]),
                Below::Sparse(record) | Below::Direct(record) => {
                    (record, self.records.hot.words(record))
                }
            };
            let (depth, head) = (depth(node), head(node));
            let common = key.common_bytes(head).min(own_depth).min(depth);
            if common < depth {
                self.split(at, key.head(common), common, above[1]);
                continue;
            }
            if depth == own_depth {
                let byte = masked(key.byte(depth), bits);
                return self.change(at, above[1], |node| {
                    node.prefixes.set(Prefix { value, bits, byte })
                });
            }
            let index = place_in(below, node, key.byte(depth));
            (of_node, above) = (Some(at), [above[1], Some(depth)]);
            at = Place {
                record: Some(record),
                index,
            };
        }
    }

    fn remove(&mut self, key: u128, len: u8) -> Option<u32> {
        let key = key.truncated(len);
        let old = self.find(key, len)?;
        let (own_depth, bits) = place(len);
        let (mut at, mut of_node, mut above) = (ROOT, None, [None; 2]);
        // find() says that the path is there.
        loop {
            let below = Below::of(self.entry(at));
            let (record, node) = match below {
                Below::Value(_) => return Some(old),
                Below::Bucket(record) => {
                    let emptied = self.remove_item(at, record, key, len);
                    match of_node {
                        _ if !emptied => {}
                        None => self.root = 0,
                        Some(place) => {
                            self.change(place, above[0], |node| {
                                node.set_child(key.byte(node.depth), None);
                                None
                            });
                        }
                    }
                    return Some(old);
                }
                Below::Sparse(record) | Below::Direct(record) => {
                    (record, self.records.hot.words(record))
                }
            };
            let depth = depth(node);
            if depth == own_depth {
                let byte = masked(key.byte(depth), bits);
                let value = 0;
                self.change(at, above[1], |node| {
                    node.prefixes.set(Prefix { value, bits, byte })
                });
                return Some(old);
            }
            let index = place_in(below, node, key.byte(depth));
            (of_node, above) = (Some(at), [above[1], Some(depth)]);
            at = Place {
                record: Some(record),
                index,
            };
        }
    }

    fn memory_bytes(&self) -> usize {
        self.records.hot.memory_bytes() + self.records.cold.memory_bytes()
    }
}

impl Trie {
    /// The same for records that are far away.
    #[inline]
    pub(super) fn lookup_far(&self, keys: &[u128], values: &mut [u32]) {
        search(&self.records.hot, self.root, keys, values);
    }

    #[cfg(test)]
    pub(super) fn shared_pages(&self, other: &Self) -> (usize, usize) {
        self.records.hot.shared_pages(&other.records.hot)
    }

    /// Goes one step down. False at the end.
    #[inline(always)]
    fn step(&self, key: u128, search: &mut Search) -> bool {
        let (words, (entry, value)) = match Below::of(search.entry) {
            Below::Value(value) => {
                search.best = if value == 0 { search.best } else { value };
                return false;
            }
            Below::Bucket(at) => {
                let found = search_bucket(self.records.hot.words(at), key);
                search.best = found.unwrap_or(search.best);
                return false;
            }
            Below::Sparse(at) => {
                let words = self.records.hot.words(at);
                if !leads_to(words, key) {
                    return false;
                }
                (words, sparse_place(words, key.byte(depth(words))))
            }
            Below::Direct(at) => {
                let words = self.records.hot.words(at);
                (words, direct_place(key.byte(depth(words))))
            }
        };
        search.entry = words[entry];
        if is_valued(search.entry) {
            search.best = words[value];
        }
        true
    }

    /// Value of exactly this prefix.
    fn find(&self, key: u128, len: u8) -> Option<u32> {
        let (own_depth, bits) = place(len);
        let mut entry = self.root;
        loop {
            let below = Below::of(entry);
            let node = match below {
                Below::Value(_) => return None,
                Below::Bucket(at) => {
                    let items = read_bucket(self.records.hot.words(at));
                    let found = items.iter().find(|it| (it.len, it.key) == (len, key));
                    return found.map(|it| it.value);
                }
                Below::Sparse(at) | Below::Direct(at) => self.records.hot.words(at),
            };
            let depth = depth(node);
            if depth > own_depth || !leads_to(node, key) {
                return None;
            }
            let byte = key.byte(depth);
            if depth == own_depth {
                return self.records.find_prefix(node, bits, masked(byte, bits));
            }
            entry = node[place_in(below, node, byte)];
        }
    }

    fn entry(&self, at: Place) -> u32 {
        match at.record {
            Some(record) => self.records.hot.words(record)[at.index],
            None => self.root,
        }
    }

    /// Sets what is below a slot; whether the slot also has a value stays.
    fn set_entry(&mut self, at: Place, entry: u32) {
        let valued_entry = valued(entry, is_valued(self.entry(at)));
        match at.record {
            Some(record) => self.records.hot.set(record, at.index, valued_entry),
            None => self.root = entry,
        }
    }

    /// Changes a node, or what is left of it. `above` is the depth of the node above.
    fn change(
        &mut self,
        at: Place,
        above: Option<u8>,
        change: impl FnOnce(&mut Node) -> Option<u32>,
    ) -> Option<u32> {
        let mut node = self.records.take_node(Below::of(self.entry(at)))?;
        let old = change(&mut node);
        let prefixes = node.prefixes.as_slice().len();
        debug_assert!(
            prefixes + node.children.len() > 0,
            "a node that held two things holds one"
        );
        let entry = match *node.children {
            [] if prefixes <= BUCKET_MAX / 2 => {
                add_bucket(&mut self.records.hot, &mut items_of(&node))
            }
            // Its path is compared further down.
            [(_, child)] if prefixes == 0 => match self.records.take_node(Below::of(child)) {
                Some(child) => self.records.add_node(&child, above),
                None => child,
            },
            _ => self.records.add_node(&node, above),
        };
        self.set_entry(at, entry);
        old
    }

    /// Puts a node for byte `depth` above the one at `at`.
    fn split(&mut self, at: Place, path: u128, depth: u8, above: Option<u8>) {
        let Some(below) = self.records.take_node(Below::of(self.entry(at))) else {
            return;
        };
        let byte = below.head.byte(depth);
        let child = self.records.add_node(&below, Some(depth));
        let node = Node {
            depth,
            head: path,
            prefixes: Default::default(),
            children: vec![(byte, child)],
        };
        let entry = self.records.add_node(&node, above);
        self.set_entry(at, entry);
    }

    fn add_item(&mut self, at: Place, record: u32, item: Item, above: Option<u8>) -> Option<u32> {
        let hot = &mut self.records.hot;
        let mut items = read_bucket(hot.words(record));
        hot.remove(record, bucket_words(&items));
        let same = |it: &&mut Item| (it.len, it.key) == (item.len, item.key);
        let old = match items.iter_mut().find(same) {
            Some(it) => Some(std::mem::replace(&mut it.value, item.value)),
            None => {
                items.push(item);
                None
            }
        };
        let node = match items.len() > BUCKET_MAX {
            true => node_of(hot, &items),
            false => None,
        };
        let entry = match node {
            Some(node) => self.records.add_node(&node, above),
            None => add_bucket(hot, &mut items),
        };
        self.set_entry(at, entry);
        old
    }

    /// Removes a prefix from a bucket. True when it was the last; then the entry is still to be changed.
    fn remove_item(&mut self, at: Place, record: u32, key: u128, len: u8) -> bool {
        let hot = &mut self.records.hot;
        let mut items = read_bucket(hot.words(record));
        hot.remove(record, bucket_words(&items));
        items.retain(|it| (it.len, it.key) != (len, key));
        if items.is_empty() {
            return true;
        }
        let entry = add_bucket(hot, &mut items);
        self.set_entry(at, entry);
        false
    }
}

/// Place of a byte's entry in a node.
fn place_in(below: Below, node: &[u32], byte: u8) -> usize {
    match below {
        Below::Direct(_) => direct_place(byte).0,
        _ => sparse_place(node, byte).0,
    }
}
