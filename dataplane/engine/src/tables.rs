//! Everything the stages look up: one immutable version of the tables.
//!
//! The publisher's thread makes versions with [`crate::TablesBuilder`]; workers only read. Versions
//! share what did not change, so making one costs what changed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use weft_wire::{MacAddr, Vni};

use crate::drop_reason::DropReason;
use crate::packet::{PortId, PortKind, RemoteId};
use crate::table::fib::{Fib, Route};
use crate::table::policy::{Decision, PolicyDirection, PolicyTables, RuleId, Traffic};
use crate::table::service::{Frontend, FrontendKey, ServiceTables, any_of_node};

/// Tunnel endpoints by address. Its keys come from the cluster's objects, not from the network, so the
/// hash needs no secret seed.
pub(crate) type VtepMap = HashMap<IpAddr, RemoteId, FixedState>;

/// One version of the tables.
#[derive(Clone, Default)]
pub struct Tables {
    pub(crate) epoch: u64,
    pub(crate) node: Option<Arc<NodeTable>>,
    pub(crate) ports: Arc<Vec<Option<Arc<PortEntry>>>>,
    pub(crate) remotes: Arc<Vec<Option<Arc<Remote>>>>,
    pub(crate) vteps: Arc<VtepMap>,
    pub(crate) fib: Fib,
    pub(crate) policy: PolicyTables,
    pub(crate) services: ServiceTables,
    pub(crate) connections_epoch: u32,
    pub(crate) shortcut_epoch: u32,
    /// Number of what is routed where, local pods apart.
    pub(crate) routes_epoch: u32,
}

impl Tables {
    /// Tables that know nothing: every packet is dropped as `no-tables`.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Number of the version; grows with each one built.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// This node, once known.
    #[inline]
    pub fn node(&self) -> Option<&NodeTable> {
        self.node.as_deref()
    }

    /// A port, while it is attached.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(id.index())?.as_deref()
    }

    /// All ports, by id.
    pub fn ports(&self) -> impl Iterator<Item = &PortEntry> {
        self.ports.iter().filter_map(Option::as_deref)
    }

    /// A remote node.
    #[inline]
    pub fn remote(&self, id: RemoteId) -> Option<&Remote> {
        self.remotes.get(id.index())?.as_deref()
    }

    /// All remote nodes with their ids.
    pub fn remotes(&self) -> impl Iterator<Item = (RemoteId, &Remote)> {
        let all = self.remotes.iter().enumerate();
        all.filter_map(|(index, remote)| Some((RemoteId(index as u16), remote.as_deref()?)))
    }

    /// The node that sends tunnel packets from this address.
    #[inline]
    pub fn remote_by_address(&self, outer: IpAddr) -> Option<RemoteId> {
        self.vteps.get(&outer).copied()
    }

    /// The forwarding table.
    #[inline]
    pub fn fib(&self) -> &Fib {
        &self.fib
    }

    /// The policies.
    #[inline]
    pub fn policy(&self) -> &PolicyTables {
        &self.policy
    }

    /// The services.
    #[inline]
    pub fn services(&self) -> &ServiceTables {
        &self.services
    }

    /// The frontend a packet is addressed to, if it is one.
    #[inline]
    pub fn frontend(&self, key: &FrontendKey) -> Option<&Frontend> {
        self.services.get(key).or_else(|| {
            let of_node = self.node()?.addresses.contains(&key.address);
            of_node.then(|| self.services.get(&key.of_node()))?
        })
    }

    /// The frontend of a service whose backends answer clients themselves: also at a port of another node's address.
    pub fn direct_frontend(&self, key: &FrontendKey) -> Option<&Frontend> {
        let exact = self.services.get(key);
        let of_node = || {
            let is_node = self.is_node_address(key.address);
            is_node.then(|| self.services.get(&key.of_node()))?
        };
        exact.or_else(of_node).filter(|it| it.direct)
    }

    /// Whether [`Self::direct_frontend`] knows some port of this address.
    pub(crate) fn is_direct(&self, address: IpAddr) -> bool {
        let of_node =
            || self.is_node_address(address) && self.services.is_direct(any_of_node(address));
        self.services.is_direct(address) || of_node()
    }

    /// Number of what is said about running connections: changes only when a policy may deny one or a service's
    /// backend is gone. 0 is no version.
    #[inline]
    pub fn connections_epoch(&self) -> u32 {
        self.connections_epoch
    }

    /// Number of what shortcuts depend on: what is said about running connections, the way to each of the pods, to the
    /// other nodes and to the rest of the world, and what their frames look like. 0: there are to be none.
    #[inline]
    pub fn shortcut_epoch(&self) -> u32 {
        self.shortcut_epoch
    }

    /// Whether shortcuts decided under `before` are right under these tables too.
    pub(crate) fn keep_shortcuts_of(&self, before: &Self) -> bool {
        let same_node = match (self.node(), before.node()) {
            (Some(node), Some(before)) => node.looks_like(before),
            (now, before) => now.is_none() && before.is_none(),
        };
        let same_remote = |(now, before): (&Option<Arc<Remote>>, &Option<Arc<Remote>>)| {
            now.as_ref().map(Arc::as_ptr) == before.as_ref().map(Arc::as_ptr) || now == before
        };
        let same_way = |port: &PortEntry| {
            let to4 = port.addresses4.iter().map(|it| IpAddr::V4(*it));
            let mut to = to4.chain(port.addresses6.iter().map(|it| IpAddr::V6(*it)));
            self.port(port.id) == Some(port)
                && to.all(|it| self.fib.lookup(it) == before.fib.lookup(it))
        };
        self.connections_epoch == before.connections_epoch
            && self.routes_epoch == before.routes_epoch
            && same_node
            && self.remotes.len() == before.remotes.len()
            && self.remotes.iter().zip(&**before.remotes).all(same_remote)
            && before.ports().all(same_way)
    }

    /// What the policies of this node say about a connection: the sender's and the receiver's, each where
    /// it is a pod of this node. The packet path asks the same as `weft policy explain`.
    pub fn judge(&self, connection: &Connection) -> Judgement {
        let Connection {
            source,
            destination,
            traffic,
            from_node,
        } = *connection;
        if source == destination {
            // "A pod cannot block access to itself" (Kubernetes, Network Policies); it gets there by a service.
            return Judgement {
                egress: Side::Exempt,
                ingress: Side::Exempt,
            };
        }
        let (from_pod, to_pod) = (self.is_local_pod(source), self.is_local_pod(destination));
        if !from_pod && !to_pod {
            return Judgement {
                egress: Side::Elsewhere,
                ingress: Side::Elsewhere,
            };
        }
        let policy = &self.policy;
        let (from, to) = (policy.identity(source), policy.identity(destination));
        let side = |is_here: bool, subject, direction, peer| {
            if !is_here {
                return Side::Elsewhere;
            }
            match policy.decide_between(subject, direction, peer, traffic) {
                Some(decision) => Side::Decided(decision),
                None => Side::Unknown,
            }
        };
        Judgement {
            egress: side(from_pod, from, PolicyDirection::Egress, to),
            // The kubelet's probes, and whatever else the node itself wants of its own pods.
            ingress: if to_pod && from_node {
                Side::Exempt
            } else {
                side(to_pod, to, PolicyDirection::Ingress, from)
            },
        }
    }

    /// Whether this is the address of a pod of this node.
    #[inline]
    pub fn is_local_pod(&self, address: IpAddr) -> bool {
        matches!(self.fib.lookup(address), Route::Local(_))
    }

    /// Whether this is an address of any node, this one included.
    pub fn is_node_address(&self, address: IpAddr) -> bool {
        let own = self
            .node()
            .is_some_and(|node| node.addresses.contains(&address));
        own || self.vteps.contains_key(&address)
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("epoch", &self.epoch)
            .field("node", &self.node)
            .field("ports", &self.ports().count())
            .field("remotes", &self.remotes().count())
            .field("prefixes", &self.fib.len())
            .finish()
    }
}

/// A connection as policies see it: of its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opens it.
    pub source: IpAddr,
    /// With whom.
    pub destination: IpAddr,
    /// Its protocol and destination port.
    pub traffic: Traffic,
    /// The node's own stack opens it, from one of its own addresses.
    pub from_node: bool,
}

/// What one side's policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing: it is no pod of this node.
    Elsewhere,
    /// Nothing: a node may always connect to its own pods, and a pod to itself.
    Exempt,
    /// A pod of this node whose policy is not known, which therefore is cut off.
    Unknown,
    /// This.
    Decided(Decision),
}

/// What both sides' policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The sender's.
    pub egress: Side,
    /// The receiver's.
    pub ingress: Side,
}

impl Judgement {
    /// Why the connection may not be, and the rule that says so; `None` when it may.
    pub fn refusal(&self) -> Option<(DropReason, RuleId)> {
        let refused = |side: Side, reason| match side {
            Side::Elsewhere | Side::Exempt => None,
            Side::Unknown => Some((DropReason::NoPolicy, RuleId::NONE)),
            Side::Decided(decision) => {
                (!decision.is_allowed()).then_some((reason, decision.rule()))
            }
        };
        refused(self.egress, DropReason::PolicyEgress)
            .or_else(|| refused(self.ingress, DropReason::PolicyIngress))
    }

    /// The rules that decided.
    pub fn rules(&self) -> impl Iterator<Item = RuleId> {
        [self.egress, self.ingress]
            .into_iter()
            .filter_map(|side| match side {
                Side::Decided(decision) => Some(decision.rule()),
                _ => None,
            })
    }
}

/// One attached port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// Its place in the tables.
    pub id: PortId,
    /// What it is.
    pub kind: PortKind,
    /// Pod and node ports: MAC of the far end, destination of what is sent and the only source taken.
    /// Uplinks: their own MAC, the only destination taken; zero if it is not known.
    pub mac: MacAddr,
    /// IPv4 addresses of a pod, the only sources taken from it. Empty for other kinds.
    pub addresses4: Vec<Ipv4Addr>,
    /// IPv6 addresses of a pod.
    pub addresses6: Vec<Ipv6Addr>,
    /// Largest IP packet the far end takes, in bytes.
    pub mtu: u32,
    /// Largest IP packet of a local TCP connection, in bytes: bound of the MSS between this port and
    /// another port of the node.
    pub tcp_mtu: u32,
    /// The far end completes transport checksums (TX metadata usable on its socket).
    pub tx_checksum: bool,
    /// Worker that serves it, or the first of its queues. Connections belong to the worker of a port: see
    /// the owner stage.
    pub worker: u16,
    /// It takes GSO packets: the worker has a packet socket for it, and a local stack is behind it.
    pub gso: bool,
    /// Packets may go by it past the pipeline ([`crate::table::flow::Shortcuts`]).
    pub shortcuts: bool,
}

impl PortEntry {
    /// Whether the pod may use this address as its source.
    #[inline]
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.addresses4.contains(&address),
            IpAddr::V6(address) => self.addresses6.contains(&address),
        }
    }
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTable {
    /// The dataplane's end of `weft0`, once attached: way to the node's own stack.
    pub node_port: Option<PortId>,
    /// IPv4 address of `weft0`: source of ICMP errors.
    pub node_port4: Option<Ipv4Addr>,
    /// IPv6 address of `weft0`.
    pub node_port6: Option<Ipv6Addr>,
    /// The node's own addresses (InternalIPs), outer destinations taken from the underlay.
    pub addresses: Vec<IpAddr>,
    /// MAC of this node's tunnel endpoint of IPv4, the inner destination others use.
    pub vtep4_mac: Option<MacAddr>,
    /// MAC of this node's tunnel endpoint of IPv6.
    pub vtep6_mac: Option<MacAddr>,
    /// Prefixes this node's pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
    /// The cluster's network identifier.
    pub vni: Vni,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// MAC of the pods' gateway: source of all frames to pods and to the node.
    pub gateway_mac: MacAddr,
    /// The pods' IPv4 gateway, which answers ARP and ping.
    pub gateway4: Ipv4Addr,
    /// The pods' IPv6 gateway.
    pub gateway6: Ipv6Addr,
    /// MTU towards the outside of the cluster, in bytes: bound of the MSS with peers there.
    pub outside_mtu: u32,
}

impl NodeTable {
    /// Whether packets for this address end in the node's own stack.
    #[inline]
    pub fn owns(&self, address: IpAddr) -> bool {
        let weft0 = match address {
            IpAddr::V4(address) => self.node_port4 == Some(address),
            IpAddr::V6(address) => self.node_port6 == Some(address),
        };
        weft0 || self.addresses.contains(&address)
    }

    /// Whether frames to its pods and into its tunnels are the same as with `other`.
    fn looks_like(&self, other: &Self) -> bool {
        let of = |node: &Self| {
            let vteps = (node.vtep4_mac, node.vtep6_mac);
            (node.gateway_mac, vteps, node.vni, node.vxlan_port)
        };
        of(self) == of(other)
    }

    /// MAC of this node's tunnel endpoint of the family of `outer`.
    #[inline]
    pub fn vtep_mac(&self, outer: IpAddr) -> Option<MacAddr> {
        match outer {
            IpAddr::V4(_) => self.vtep4_mac,
            IpAddr::V6(_) => self.vtep6_mac,
        }
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its tunnel endpoint.
    pub vtep: IpAddr,
    /// MAC of its tunnel endpoint: inner destination.
    pub vtep_mac: MacAddr,
    /// Prefixes of its pods.
    pub prefixes: Vec<IpNet>,
    /// Its InternalIPs: outer sources taken from it, and inner sources of its own stack.
    pub addresses: Vec<IpAddr>,
    /// The underlay's way there; absent while there is none or its next hop is not resolved.
    pub path: Option<OuterPath>,
    /// Largest inner IP packet, in bytes: path MTU minus [`crate::encap::vxlan::overhead`].
    pub inner_mtu: u32,
}

impl Remote {
    /// Whether this node may be the source of an inner packet from `address`.
    #[inline]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
            || self.addresses.contains(&address)
    }
}

/// The underlay's way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterPath {
    /// Port the packets leave by.
    pub uplink: PortId,
    /// Outer source, of the family of the remote tunnel endpoint.
    pub source: IpAddr,
    /// MAC of the uplink.
    pub source_mac: MacAddr,
    /// MAC of the next hop.
    pub next_hop_mac: MacAddr,
}
