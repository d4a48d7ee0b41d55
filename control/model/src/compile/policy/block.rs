//! Address blocks policies name. Of the blocks that contain an address the longest says which those
//! are, so it alone tells addresses apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::matching::InUse;
use super::selector::{Block, Selector};
use super::source::{Numbered, Peer};

/// A selector of addresses in a block that also asks for a port name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedBlock {
    pub number: u32,
    pub thing: Arc<Numbered>,
}

/// All blocks in use and what matches each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    prefixes: BTreeSet<IpNet>,
    /// Selectors that match addresses whose longest block is this one, ascending.
    matches: BTreeMap<IpNet, Vec<u32>>,
    pub named: Vec<NamedBlock>,
}

/// Finds the longest block of one address after the other, in ascending order.
pub(super) struct Sweep<'a> {
    rest: std::iter::Peekable<std::collections::btree_set::Iter<'a, IpNet>>,
    /// Blocks around the place we are at, the longest last.
    open: Vec<IpNet>,
}

impl Blocks {
    /// The blocks selectors speak of, and their exceptions.
    pub fn of(in_use: &InUse) -> Self {
        let mut blocks = Self::default();
        let mut plain = Vec::new();
        for (number, thing) in in_use {
            let Some((block, peer)) = block_of(thing) else {
                continue;
            };
            blocks.prefixes.insert(block.cidr);
            blocks.prefixes.extend(&block.except);
            match &peer.port {
                None => plain.push((*number, block)),
                Some(_) => blocks.named.push(NamedBlock {
                    number: *number,
                    thing: Arc::clone(thing),
                }),
            }
        }
        for (number, block) in plain {
            let inside = blocks.prefixes.range(block.cidr..);
            let inside = inside.take_while(|prefix| block.cidr.contains(*prefix));
            for prefix in inside.filter(|prefix| block.contains(prefix)) {
                let numbers = blocks.matches.entry(*prefix).or_default();
                numbers.push(number);
            }
        }
        blocks
    }

    /// All blocks, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.prefixes.iter()
    }

    /// Selectors that match addresses whose longest block is `prefix`.
    pub fn selectors(&self, prefix: &IpNet) -> &[u32] {
        self.matches.get(prefix).map_or(&[], Vec::as_slice)
    }

    /// Whether both are of the same blocks, whoever names them.
    pub fn same_prefixes(&self, other: &Self) -> bool {
        self.prefixes == other.prefixes
    }

    /// The longest block of one address. For many, [`Self::sweep`] is faster.
    pub fn longest(&self, address: IpAddr) -> Option<IpNet> {
        let host = IpNet::from(address);
        let lengths = (0..=host.prefix_len()).rev();
        let mut around = lengths.filter_map(|length| IpNet::new(address, length).ok());
        around.find_map(|prefix| self.prefixes.get(&prefix.trunc()).copied())
    }

    /// Starts at the lowest address.
    pub fn sweep(&self) -> Sweep<'_> {
        Sweep {
            rest: self.prefixes.iter().peekable(),
            open: Vec::new(),
        }
    }
}

impl NamedBlock {
    /// Block and port name.
    pub fn parts(&self) -> Option<(&Block, &(String, u8))> {
        let (block, peer) = block_of(&self.thing)?;
        Some((block, peer.port.as_ref()?))
    }
}

impl Sweep<'_> {
    /// The longest block of `address`, which is not below the one before.
    pub fn longest(&mut self, address: IpAddr) -> Option<IpNet> {
        while let Some(block) = self.rest.next_if(|block| block.network() <= address) {
            self.close(|open| open.contains(block));
            self.open.push(*block);
        }
        self.close(|open| open.contains(&address));
        self.open.last().copied()
    }

    fn close(&mut self, still_open: impl Fn(&IpNet) -> bool) {
        while self.open.last().is_some_and(|open| !still_open(open)) {
            self.open.pop();
        }
    }
}

fn block_of(thing: &Numbered) -> Option<(&Block, &Peer)> {
    match thing {
        Numbered::Peer(peer) => match &peer.selector {
            Some(Selector::Block(block)) => Some((block, peer)),
            _ => None,
        },
        Numbered::Resolved { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixes() -> impl Strategy<Value = BTreeSet<IpNet>> {
        let prefix = (any::<bool>(), any::<u8>(), 0_u8..=8).prop_map(|(v6, byte, length)| {
            let address = match v6 {
                true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(byte)]),
                false => IpAddr::from([10, 0, 0, byte]),
            };
            let host = if v6 { 128 } else { 32 };
            IpNet::new(address, host - length).unwrap().trunc()
        });
        prop::collection::btree_set(prefix, 0..20)
    }

    proptest! {
        #[test]
        fn the_longest_block_is_the_one_a_scan_finds(prefixes in prefixes()) {
            let blocks = Blocks { prefixes: prefixes.clone(), ..Blocks::default() };
            let mut sweep = blocks.sweep();
            let v4 = (0..=255).map(|byte| IpAddr::from([10, 0, 0, byte]));
            let v6 = (0..=255).map(|byte| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, byte]));
            for address in v4.chain(v6) {
                let around = prefixes.iter().filter(|prefix| prefix.contains(&address));
                let longest = around.max_by_key(|prefix| prefix.prefix_len());
                prop_assert_eq!(sweep.longest(address), longest.copied());
                prop_assert_eq!(blocks.longest(address), longest.copied());
            }
        }
    }
}
