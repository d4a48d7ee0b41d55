//! Nodes: who holds which prefix and address, the local node, and the others as tunnel endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::MacAddr;
use weft_api::object::{LocalNode, RemoteNode};

use super::ClusterConfig;
use crate::facts::{self, NodeFacts};
use crate::ipam;
use crate::state::Store;

/// Bound of the MSS towards the outside until the underlay's MTU is known: Ethernet's.
const OUTSIDE_MTU_UNKNOWN: u32 = 1_500;

/// Who held what when the state was last compiled.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    prefixes: BTreeMap<IpNet, String>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Claims {
    /// The nodes of `store` with the prefixes and addresses that are theirs alone. A contested one
    /// stays with the node that held it, else it goes to the first by name; the others are told.
    pub(super) fn settle(&mut self, store: &Store, problems: &mut Vec<String>) -> Vec<NodeFacts> {
        let mut nodes = Vec::new();
        for node in store.nodes() {
            match NodeFacts::of(node) {
                Ok(facts) => nodes.push(facts),
                Err(bad) => problems.push(format!("Node: {bad}")),
            }
        }
        let held = std::mem::take(self);
        self.renew(&held, &nodes);
        for node in &mut nodes {
            self.settle_prefixes(node, problems);
        }
        for node in &mut nodes {
            self.settle_addresses(node, problems);
        }
        nodes
    }

    /// Claims what its holder still has.
    fn renew(&mut self, held: &Self, nodes: &[NodeFacts]) {
        for node in nodes {
            let name = &node.name;
            for prefix in &node.pod_cidrs {
                if held.prefixes.get(prefix) == Some(name) {
                    self.prefixes.insert(*prefix, name.clone());
                }
            }
            for address in &node.addresses {
                if held.addresses.get(address) == Some(name) {
                    self.addresses.insert(*address, name.clone());
                }
            }
        }
    }

    fn settle_prefixes(&mut self, node: &mut NodeFacts, problems: &mut Vec<String>) {
        let name = node.name.clone();
        node.pod_cidrs.retain(|prefix| match self.overlapping(*prefix) {
            Some((other, holder)) if *holder != name => {
                problems.push(format!(
                    "Node {name}: pod CIDR {prefix} overlaps {other} of Node {holder}, which keeps it"
                ));
                false
            }
            _ => {
                self.prefixes.insert(*prefix, name.clone());
                true
            }
        });
    }

    fn settle_addresses(&mut self, node: &mut NodeFacts, problems: &mut Vec<String>) {
        let name = node.name.clone();
        node.addresses.retain(|address| {
            if let Some((prefix, holder)) = self.overlapping(IpNet::from(*address)) {
                problems.push(format!(
                    "Node {name}: InternalIP {address} lies in pod CIDR {prefix} of Node {holder}; not used"
                ));
                return false;
            }
            let holder = self.addresses.entry(*address).or_insert_with(|| name.clone());
            if *holder != name {
                problems.push(format!(
                    "Node {name}: InternalIP {address} is also that of Node {holder}, which keeps it"
                ));
            }
            *holder == name
        });
    }

    /// The claimed prefix that shares an address with `prefix`. Claimed ones never overlap, so only
    /// the neighbours in address order can.
    fn overlapping(&self, prefix: IpNet) -> Option<(&IpNet, &String)> {
        let start = prefix.network();
        let widest = IpNet::new(start, 0).unwrap_or(prefix);
        let narrowest = IpNet::from(start);
        let before = self.prefixes.range(..=narrowest).next_back();
        let after = self.prefixes.range(widest..).next();
        [before, after]
            .into_iter()
            .flatten()
            .find(|(claimed, _)| facts::overlap(**claimed, prefix))
    }
}

/// This node.
pub(super) fn local(
    config: &ClusterConfig,
    nodes: &[NodeFacts],
    problems: &mut Vec<String>,
) -> Option<LocalNode> {
    let name = &config.node;
    let Some(node) = nodes.iter().find(|node| node.name == *name) else {
        problems.push(format!(
            "there is no Node {name}, the one this agent runs on (--node): pods cannot be attached"
        ));
        return None;
    };
    if node.pod_cidrs.is_empty() {
        problems.push(format!(
            "Node {name} has no usable spec.podCIDRs: pods get no addresses"
        ));
    }
    if node.addresses.is_empty() {
        problems.push(format!(
            "Node {name} has no usable InternalIP: other nodes cannot be reached"
        ));
    }
    let node_port_addresses = ipam::node_port_addresses(&node.pod_cidrs);
    let mac_seed = node_port_addresses.first().or(node.addresses.first());
    Some(LocalNode {
        name: name.clone(),
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        node_port_mac: mac_seed.map_or_else(MacAddr::default, |seed| MacAddr::of_pod(*seed)),
        node_port_addresses,
        vni: config.vni,
        vxlan_port: config.vxlan_port,
        outside_mtu: OUTSIDE_MTU_UNKNOWN,
    })
}

/// The other nodes that have an address of a family this node has too.
pub(super) fn remotes(
    config: &ClusterConfig,
    nodes: &[NodeFacts],
    problems: &mut Vec<String>,
) -> Vec<RemoteNode> {
    let is_local = |node: &&NodeFacts| node.name == config.node;
    let Some(local) = nodes.iter().find(is_local) else {
        return Vec::new();
    };
    let families: BTreeSet<bool> = local.addresses.iter().map(IpAddr::is_ipv6).collect();
    let mut remotes = Vec::with_capacity(nodes.len());
    for node in nodes.iter().filter(|node| !is_local(node)) {
        // false sorts first: IPv4 where both nodes have it, for its smaller overhead.
        let vtep = families.iter().find_map(|ipv6| {
            let of_family = |address: &&IpAddr| address.is_ipv6() == *ipv6;
            node.addresses.iter().find(of_family)
        });
        match vtep {
            Some(vtep) => remotes.push(RemoteNode {
                name: node.name.clone(),
                addresses: node.addresses.clone(),
                vtep: *vtep,
                pod_cidrs: node.pod_cidrs.clone(),
            }),
            None if node.addresses.is_empty() => {
                problems.push(format!(
                    "Node {} has no usable InternalIP: not reachable",
                    node.name
                ));
            }
            None => problems.push(format!(
                "Node {} has no InternalIP of a family Node {} has: not reachable",
                node.name, local.name
            )),
        }
    }
    remotes
}
