//! Identities: whom an address belongs to, and what matches whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use weft_api::PodRef;
use weft_api::policy::{Identity, PolicyAddress};

use super::block::Blocks;
use super::matching::{InUse, Matching, Resolved};
use super::number::Numbers;
use super::pod::{PodFacts, Pods, Workload};
use super::selector::{Labels, Selector};
use super::source::Numbered;
use crate::facts::NodeFacts;
use crate::ipam;

/// Longest name of an identity, in bytes: it is for people, and labels may be long.
const NAME_MAX: usize = 200;

/// When less than this part of all addresses changed they are settled one by one.
const FEW: usize = 8;

/// What tells addresses apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    who: Who,
    /// The longest block around the address.
    block: Option<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Outside,
    Workload(u32),
    Node(String),
}

/// A class some prefix is of.
#[derive(Clone, Debug)]
struct Present {
    class: Arc<Class>,
    /// How many prefixes are of it.
    prefixes: usize,
    /// None until it is put together.
    known: Option<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    identity: Arc<Identity>,
    /// Port names of peers in blocks.
    resolved: Vec<Resolved>,
}

/// Nodes by name, as policies see them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    labels: BTreeMap<String, Labels>,
    addresses: BTreeMap<IpAddr, String>,
}

/// Whose a prefix is.
#[derive(Clone, Debug)]
enum Owner {
    Outside,
    Pod(Arc<PodFacts>),
    Node(String),
}

/// A prefix whose owner was found.
#[derive(Clone, Debug)]
struct Settled {
    owner: Owner,
    /// The longest block around the prefix.
    block: Option<IpNet>,
    address: Arc<PolicyAddress>,
}

/// All identities and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Identities {
    numbers: Numbers<Class>,
    /// By number.
    classes: BTreeMap<u32, Present>,
    settled: BTreeMap<IpNet, Settled>,
    /// What the prefixes were settled by, apart from the pods.
    nodes: BTreeMap<IpAddr, String>,
    blocks: Blocks,
    in_use: Vec<u32>,
}

/// What identities are put together from.
pub(super) struct Parts<'a> {
    pub pods: &'a Pods,
    pub nodes: &'a Nodes,
    pub matching: &'a Matching,
    pub in_use: &'a InUse,
}

impl Nodes {
    /// The nodes, with their own addresses and those of their `weft0`.
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut found = Self::default();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let labels = node.metadata.labels.clone().unwrap_or_default();
            let listed = node.status.as_ref().and_then(|s| s.addresses.as_deref());
            let texts = listed.unwrap_or(&[]).iter().map(|entry| &entry.address);
            let own = texts.filter_map(|text| text.parse().ok());
            let cidrs = NodeFacts::of(node).map_or_else(|_| Vec::new(), |facts| facts.pod_cidrs);
            for address in own.chain(ipam::node_port_addresses(&cidrs)) {
                found
                    .addresses
                    .entry(address)
                    .or_insert_with(|| name.clone());
            }
            found.labels.insert(name, labels);
        }
        found
    }
}

impl Identities {
    /// Settles who each address belongs to.
    pub fn refresh(&mut self, parts: &Parts<'_>, numbers: &mut Numbers<Numbered>) {
        let old_blocks = self.refresh_blocks(parts.in_use);
        let same_blocks = old_blocks.is_none();
        let same_prefixes = old_blocks.is_none_or(|old| self.blocks.same_prefixes(&old));
        let changed = parts.pods.changed();
        let few = changed.len() < self.settled.len() / FEW;
        if same_prefixes && parts.nodes.addresses == self.nodes && few {
            for address in changed {
                self.settle_one(*address, parts);
            }
        } else {
            self.nodes.clone_from(&parts.nodes.addresses);
            self.settle_all(parts);
        }
        let mut classes = std::mem::take(&mut self.classes);
        for (number, present) in &mut classes {
            let is_right = same_blocks
                && match present.class.who {
                    Who::Outside => true,
                    Who::Workload(workload) => !parts.matching.changed().contains(&workload),
                    // Nothing tells whether a node's labels changed; there are few nodes.
                    Who::Node(_) => false,
                };
            if present.known.is_none() || !is_right {
                self.put_together(*number, present, parts, numbers);
            }
        }
        self.classes = classes;
        let classes = &self.classes;
        if self.numbers.has_many(classes.len()) {
            let in_use = |number, _: &Class| classes.contains_key(&number);
            self.numbers.retain(in_use);
        }
    }

    /// Takes the blocks of the selectors in use; tells the old ones if they are not the same.
    fn refresh_blocks(&mut self, in_use: &InUse) -> Option<Blocks> {
        if in_use.keys().eq(&self.in_use) {
            return None;
        }
        self.in_use = in_use.keys().copied().collect();
        let blocks = Blocks::of(in_use);
        (blocks != self.blocks).then(|| std::mem::replace(&mut self.blocks, blocks))
    }

    /// Walks over all prefixes at once, for when blocks or nodes changed.
    fn settle_all(&mut self, parts: &Parts<'_>) {
        let mut old = std::mem::take(&mut self.settled);
        for (prefix, owner, block) in owners(parts, &self.blocks) {
            let known = old.remove(&prefix);
            self.place(prefix, owner, block, known);
        }
        for gone in old.into_values() {
            self.leave(gone.address.identity);
        }
    }

    fn settle_one(&mut self, address: IpAddr, parts: &Parts<'_>) {
        let prefix = IpNet::from(address);
        if self.nodes.contains_key(&address) {
            return;
        }
        let known = self.settled.remove(&prefix);
        let block = self.blocks.longest(address);
        match parts.pods.holder(address) {
            Some(pod) => self.place(prefix, Owner::Pod(Arc::clone(pod)), block, known),
            None if block == Some(prefix) => self.place(prefix, Owner::Outside, block, known),
            None => known
                .iter()
                .for_each(|gone| self.leave(gone.address.identity)),
        }
    }

    /// Gives a prefix its identity; it keeps the one it had where nothing changed.
    fn place(&mut self, prefix: IpNet, owner: Owner, block: Option<IpNet>, known: Option<Settled>) {
        let is_right = |known: &Settled| known.block == block && known.owner.is_same(&owner);
        let known = match known {
            Some(known) if is_right(&known) => {
                self.settled.insert(prefix, known);
                return;
            }
            known => known.map(|known| known.address),
        };
        let class = Class {
            who: owner.who(),
            block,
        };
        let (identity, class) = self.numbers.of(class);
        let present = self.classes.entry(identity).or_insert_with(|| Present {
            class,
            prefixes: 0,
            known: None,
        });
        present.prefixes += 1;
        if let Some(known) = &known {
            self.leave(known.identity);
        }
        let address = PolicyAddress {
            prefix,
            identity,
            pod: owner.pod().cloned(),
        };
        let known = known.filter(|known| **known == address);
        let settled = Settled {
            owner,
            block,
            address: known.unwrap_or_else(|| Arc::new(address)),
        };
        self.settled.insert(prefix, settled);
    }

    /// A prefix no longer has this identity.
    fn leave(&mut self, identity: u32) {
        if let Some(present) = self.classes.get_mut(&identity) {
            present.prefixes -= 1;
            if present.prefixes == 0 {
                self.classes.remove(&identity);
            }
        }
    }

    /// The identities, by number.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.known().map(|known| &known.identity)
    }

    fn known(&self) -> impl Iterator<Item = &Known> {
        self.classes
            .values()
            .filter_map(|present| present.known.as_ref())
    }

    /// The addresses, by prefix.
    pub fn addresses(&self) -> impl Iterator<Item = &Arc<PolicyAddress>> {
        self.settled.values().map(|settled| &settled.address)
    }

    /// Identities of pods, each with its workload.
    pub fn workloads(&self) -> impl Iterator<Item = (u32, u32)> {
        let classes = self.classes.iter();
        classes.filter_map(|(number, present)| match present.class.who {
            Who::Workload(workload) => Some((*number, workload)),
            _ => None,
        })
    }

    /// Port numbers that names stand for, of peers in blocks.
    pub fn resolved(&self) -> impl Iterator<Item = Resolved> {
        self.known()
            .flat_map(|known| known.resolved.iter().copied())
    }

    fn put_together(
        &self,
        number: u32,
        present: &mut Present,
        parts: &Parts<'_>,
        numbers: &mut Numbers<Numbered>,
    ) {
        let (selectors, resolved) = self.match_class(&present.class, parts, numbers);
        let identity = Identity {
            id: number,
            name: name(&present.class, parts.matching),
            selectors,
        };
        let known = present.known.take().map(|known| known.identity);
        let known = known.filter(|known| **known == identity);
        present.known = Some(Known {
            identity: known.unwrap_or_else(|| Arc::new(identity)),
            resolved,
        });
    }

    fn match_class(
        &self,
        class: &Class,
        parts: &Parts<'_>,
        numbers: &mut Numbers<Numbered>,
    ) -> (Vec<u32>, Vec<Resolved>) {
        let mut selectors = Vec::new();
        let mut resolved = Vec::new();
        if let Some(block) = &class.block {
            selectors.extend(self.blocks.selectors(block));
        }
        match &class.who {
            Who::Outside => {}
            Who::Node(name) => {
                if let Some(labels) = parts.nodes.labels.get(name) {
                    selectors.extend(nodes_selectors(parts.in_use, labels));
                }
            }
            Who::Workload(workload) => {
                if let Some(matched) = parts.matching.get(*workload) {
                    selectors.extend(&matched.selectors);
                    selectors.extend(matched.resolved.iter().map(|resolved| resolved.number));
                    resolved = self.resolve(class.block.as_ref(), &matched.kind, numbers);
                    selectors.extend(resolved.iter().map(|resolved| resolved.number));
                }
            }
        }
        selectors.sort_unstable();
        (selectors, resolved)
    }

    fn resolve(
        &self,
        block: Option<&IpNet>,
        kind: &Workload,
        numbers: &mut Numbers<Numbered>,
    ) -> Vec<Resolved> {
        let mut resolved = Vec::new();
        for named in &self.blocks.named {
            let (Some(prefix), Some((block, name))) = (block, named.parts()) else {
                continue;
            };
            let Some(port) = kind.ports.get(name).copied() else {
                continue;
            };
            if block.contains(prefix) {
                let peers = named.number;
                let (number, _) = numbers.of(Numbered::Resolved { peers, port });
                resolved.push(Resolved {
                    peers,
                    port,
                    number,
                });
            }
        }
        resolved
    }
}

impl Owner {
    fn who(&self) -> Who {
        match self {
            Self::Outside => Who::Outside,
            Self::Pod(pod) => Who::Workload(pod.workload),
            Self::Node(name) => Who::Node(name.clone()),
        }
    }

    fn pod(&self) -> Option<&PodRef> {
        match self {
            Self::Pod(pod) => Some(&pod.pod),
            _ => None,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Outside, Self::Outside) => true,
            (Self::Pod(a), Self::Pod(b)) => Arc::ptr_eq(a, b),
            (Self::Node(a), Self::Node(b)) => a == b,
            _ => false,
        }
    }
}

/// Every address and block with its owner and the longest block around it, by prefix. A node's
/// address is the node's, whatever a pod claims; a block that is one address somebody has is that
/// address.
fn owners(parts: &Parts<'_>, blocks: &Blocks) -> Vec<(IpNet, Owner, Option<IpNet>)> {
    let mut nodes = parts.nodes.addresses.iter().peekable();
    let mut found: Vec<(IpAddr, Owner)> = Vec::new();
    let node = |(address, name): (&IpAddr, &String)| (*address, Owner::Node(name.clone()));
    for (address, pod) in parts.pods.addresses() {
        while let Some(entry) = nodes.next_if(|(node, _)| **node < address) {
            found.push(node(entry));
        }
        if nodes.peek().is_none_or(|(node, _)| **node != address) {
            found.push((address, Owner::Pod(Arc::clone(pod))));
        }
    }
    found.extend(nodes.map(node));
    let mut sweep = blocks.sweep();
    let mut owners = Vec::with_capacity(found.len());
    let mut hosts = BTreeSet::new();
    for (address, owner) in found {
        let block = sweep.longest(address);
        let prefix = IpNet::from(address);
        if block == Some(prefix) {
            hosts.insert(prefix);
        }
        owners.push((prefix, owner, block));
    }
    for prefix in blocks.prefixes().filter(|prefix| !hosts.contains(prefix)) {
        owners.push((*prefix, Owner::Outside, Some(*prefix)));
    }
    owners.sort_by_key(|(prefix, ..)| *prefix);
    owners
}

fn nodes_selectors(in_use: &InUse, labels: &Labels) -> Vec<u32> {
    let matches = |thing: &Numbered| match thing {
        Numbered::Peer(peer) => match &peer.selector {
            Some(Selector::Nodes(query)) => query.matches(labels),
            _ => false,
        },
        Numbered::Resolved { .. } => false,
    };
    let matching = in_use.iter().filter(|(_, thing)| matches(thing));
    matching.map(|(number, _)| *number).collect()
}

fn name(class: &Class, matching: &Matching) -> String {
    let mut name = match &class.who {
        Who::Outside => String::new(),
        Who::Node(name) => format!("node {name}"),
        Who::Workload(workload) => matching
            .get(*workload)
            .map_or_else(String::new, |matched| workload_name(&matched.kind)),
    };
    if name.len() > NAME_MAX {
        let end = (0..=NAME_MAX).rev().find(|end| name.is_char_boundary(*end));
        name.truncate(end.unwrap_or(0));
        name.push('…');
    }
    match (&class.block, name.is_empty()) {
        (Some(block), true) => block.to_string(),
        (Some(block), false) => format!("{name} in {block}"),
        (None, _) => name,
    }
}

fn workload_name(kind: &Workload) -> String {
    let labels = kind
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let labels = labels.collect::<Vec<_>>().join(",");
    match labels.is_empty() {
        true => kind.namespace.clone(),
        false => format!("{} {labels}", kind.namespace),
    }
}
