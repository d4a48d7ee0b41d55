//! Table objects: what the agent tells the dataplane about the cluster.
//!
//! Objects are upserted and deleted by [`Key`]. Later kinds are added as variants;
//! nothing here is ever renamed.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mac::MacAddr;
use crate::policy::{EndpointPolicy, Identity, PolicyAddress};
use crate::service::Service;

/// One table object. Those there may be ten thousands of are shared: a copy of the list is cheap, and what did
/// not change is told by its place in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// This node. Exactly one; without it nothing is forwarded.
    LocalNode(LocalNode),
    /// Another node of the cluster.
    RemoteNode(RemoteNode),
    /// How this node reaches another node's tunnel endpoint over the underlay.
    UnderlayPath(UnderlayPath),
    /// A range of the cluster's own addresses.
    ClusterRange(ClusterRange),
    /// What policies tell apart.
    Identity(#[serde(with = "shared")] Arc<Identity>),
    /// Whose an address is.
    PolicyAddress(#[serde(with = "shared")] Arc<PolicyAddress>),
    /// Rules of local pods.
    EndpointPolicy(#[serde(with = "shared")] Arc<EndpointPolicy>),
    /// A service.
    Service(#[serde(with = "shared")] Arc<Service>),
}

/// What names an object. The order of kinds is the order in which changes are sent: identities
/// before the addresses that have them, and before the rules that speak of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Key {
    /// The one [`LocalNode`].
    LocalNode,
    /// A [`RemoteNode`] by name.
    RemoteNode {
        /// Node name.
        name: String,
    },
    /// An [`UnderlayPath`] by tunnel endpoint.
    UnderlayPath {
        /// The remote tunnel endpoint.
        vtep: IpAddr,
    },
    /// A [`ClusterRange`] by prefix.
    ClusterRange {
        /// The prefix.
        prefix: IpNet,
    },
    /// An [`Identity`] by number.
    Identity {
        /// The number.
        id: u32,
    },
    /// A [`PolicyAddress`] by prefix.
    PolicyAddress {
        /// The prefix.
        prefix: IpNet,
    },
    /// An [`EndpointPolicy`] by the identity of its pods.
    EndpointPolicy {
        /// The identity's number.
        identity: u32,
    },
    /// A [`Service`] by name.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// This node, as the dataplane must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalNode {
    /// Node name.
    pub name: String,
    /// The node's InternalIP addresses; the first of each family is its tunnel endpoint.
    pub addresses: Vec<IpAddr>,
    /// Prefixes pods of this node get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of `weft0`, one per family, out of the pod prefixes.
    pub node_port_addresses: Vec<IpAddr>,
    /// MAC of `weft0` (the node stack's end).
    pub node_port_mac: MacAddr,
    /// Cluster VNI.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// Largest IP packet towards addresses outside the cluster, in bytes: the smallest MTU of the
    /// node's underlay. Bounds the MSS of connections that leave the cluster.
    #[serde(default = "default_outside_mtu")]
    pub outside_mtu: u32,
}

/// Ethernet's.
fn default_outside_mtu() -> u32 {
    1_500
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteNode {
    /// Node name.
    pub name: String,
    /// Its InternalIP addresses; they ride the overlay when a pod talks to them.
    pub addresses: Vec<IpAddr>,
    /// Its tunnel endpoint: the InternalIP of the family both nodes have (IPv4 first).
    pub vtep: IpAddr,
    /// Prefixes of its pods.
    pub pod_cidrs: Vec<IpNet>,
}

/// The underlay's way to a tunnel endpoint, from the kernel's routing and neighbour tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderlayPath {
    /// The remote tunnel endpoint.
    pub vtep: IpAddr,
    /// Uplink the packets leave by (one of the dataplane's `--underlay`).
    pub ifname: String,
    /// Outer source address.
    pub source: IpAddr,
    /// Outer source MAC: the uplink's own.
    pub source_mac: MacAddr,
    /// Outer destination MAC: the next hop's; absent while the neighbour is not resolved.
    pub next_hop_mac: Option<MacAddr>,
    /// MTU of the path, in bytes of the outer IP packet: link, route and learned path MTU, whichever
    /// is smallest.
    pub mtu: u32,
}

/// A range of cluster addresses that never ends in the node's stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRange {
    /// The prefix.
    pub prefix: IpNet,
    /// Whose addresses they are.
    pub purpose: RangePurpose,
}

/// What a cluster range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangePurpose {
    /// Pod addresses: an address no node or port claims is Drop(NoEndpoint).
    Pods,
    /// Service addresses: an address no service claims is Drop(NoService).
    Services,
}

impl Object {
    /// The key of this object.
    pub fn key(&self) -> Key {
        match self {
            Self::LocalNode(_) => Key::LocalNode,
            Self::RemoteNode(node) => Key::RemoteNode {
                name: node.name.clone(),
            },
            Self::UnderlayPath(path) => Key::UnderlayPath { vtep: path.vtep },
            Self::ClusterRange(range) => Key::ClusterRange {
                prefix: range.prefix,
            },
            Self::Identity(identity) => Key::Identity { id: identity.id },
            Self::PolicyAddress(address) => Key::PolicyAddress {
                prefix: address.prefix,
            },
            Self::EndpointPolicy(policy) => Key::EndpointPolicy {
                identity: policy.identity,
            },
            Self::Service(service) => Key::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            },
        }
    }
}

/// What is shared here is whole in a message.
mod shared {
    use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(it: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        (**it).serialize(to)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }
}
