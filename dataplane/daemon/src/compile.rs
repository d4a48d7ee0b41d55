//! Table objects and attached ports in, the engine's tables out. No IO.
//!
//! What is wanted is computed anew from the objects each time; only what differs from the tables in
//! force is changed in the builder, so that a change costs its own size.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_api::dataplane::PortKind as ApiPortKind;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::object::{LocalNode, Object, RangePurpose, RemoteNode, UnderlayPath};
use weft_api::service::Service;
use weft_api::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, LOCAL_MTU, MacAddr};
use weft_engine::encap::vxlan;
use weft_engine::{
    Backend, BackendId, NodeTable, OuterPath, PmtuReport, PortEntry, PortId, PortKind, RangeKind,
    Remote, RemoteId, ServiceId, Tables, TablesBuilder, Vni,
};

use crate::ports::{AttachedPort, Ports};

use policy::PolicyObjects;

pub mod policy;
pub mod service;

pub use policy::Policies;
pub use service::Services;

/// Inner MTU of a remote whose path is not known yet; it is unreachable anyway.
const UNKNOWN_INNER_MTU: u32 = 1_280;

/// How long a path MTU learned from ICMP is believed (RFC 1191 section 6.3, RFC 8201 section 5.3).
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// The engine's word for a port's kind.
pub fn kind(kind: ApiPortKind) -> PortKind {
    match kind {
        ApiPortKind::Pod => PortKind::Pod,
        ApiPortKind::Node => PortKind::Node,
        ApiPortKind::Uplink => PortKind::Uplink,
    }
}

/// Refuses an object that contradicts itself, before anything is changed.
///
/// # Errors
/// BadRequest naming the object and what is wrong with it.
pub fn check(object: &Object) -> Result<(), ApiError> {
    let wrong = |what: String| Err(ApiError::new(ErrorKind::BadRequest, what));
    match object {
        Object::LocalNode(node) if node.addresses.is_empty() => {
            wrong(format!("node {} has no address", node.name))
        }
        Object::LocalNode(node) if Vni::new(node.vni).is_none() => wrong(format!(
            "node {}: VNI {} has more than 24 bits",
            node.name, node.vni
        )),
        Object::UnderlayPath(path) if path.source.is_ipv4() != path.vtep.is_ipv4() => {
            wrong(format!(
                "underlay path to {}: its source {} is of the other family",
                path.vtep, path.source
            ))
        }
        Object::RemoteNode(node) if !node.addresses.contains(&node.vtep) => wrong(format!(
            "node {}: its tunnel endpoint {} is not one of its addresses",
            node.name, node.vtep
        )),
        Object::Identity(identity) => policy::check_identity(identity).or_else(&wrong),
        Object::PolicyAddress(address) => policy::check_address(address).or_else(&wrong),
        Object::EndpointPolicy(policy) => policy::check_endpoint(policy).or_else(&wrong),
        Object::Service(service) => service::check(service).or_else(&wrong),
        _ => Ok(()),
    }
}

/// The tables in the making, and what they were made of.
#[derive(Default)]
pub struct Compiler {
    builder: TablesBuilder,
    node: Option<NodeTable>,
    ports: BTreeMap<u16, PortEntry>,
    remotes: BTreeMap<String, (RemoteId, Remote)>,
    ranges: BTreeSet<(IpNet, bool)>,
    learned: BTreeMap<IpAddr, (u32, Instant)>,
    policy: Policies,
    services: Services,
}

impl Compiler {
    /// Remembers what ICMP said about a tunnel; true when the tables must be built anew.
    pub fn learn(&mut self, report: PmtuReport) -> bool {
        let known = self.learned.get(&report.vtep).map(|(mtu, _)| *mtu);
        self.learned
            .insert(report.vtep, (report.mtu, Instant::now()));
        known != Some(report.mtu)
    }

    /// Forgets path MTUs learned too long ago; true when the tables must be built anew.
    pub fn unlearn(&mut self) -> bool {
        let before = self.learned.len();
        self.learned
            .retain(|_, (_, when)| when.elapsed() < LEARNED_FOR);
        self.learned.len() != before
    }

    /// The tables for these objects and ports.
    pub fn tables<'a>(
        &mut self,
        objects: impl Iterator<Item = &'a Object>,
        ports: &Ports,
    ) -> Tables {
        let sorted = Sorted::of(objects);
        self.set_ports(ports);
        self.set_node(sorted.node.and_then(|node| node_table(node, ports)));
        self.set_ranges(&sorted.ranges);
        self.set_remotes(&sorted, ports);
        self.policy.apply(&sorted.policy, self.builder.policy());
        self.services
            .apply(&sorted.services, self.builder.services());
        self.builder.build()
    }

    /// See [`TablesBuilder::allow_shortcuts`].
    pub fn allow_shortcuts(&mut self, allowed: bool) {
        self.builder.allow_shortcuts(allowed);
    }

    /// The policies as they are in the tables.
    pub fn policies(&self) -> &Policies {
        &self.policy
    }

    /// The services as they are in the tables.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// A service's backends as they are counted.
    pub fn backends(&mut self, service: ServiceId) -> &[Backend] {
        self.builder.services().backends(service)
    }

    /// Numbers that went from a backend that is gone to another since the last call.
    pub fn take_renumbered_backends(&mut self) -> Vec<BackendId> {
        self.builder.services().take_renumbered()
    }

    /// See [`Policies::take_renamed`].
    pub fn take_renamed_rules(&mut self) -> Vec<weft_engine::RuleId> {
        self.policy.take_renamed()
    }

    /// A remote node as it is in the tables.
    pub fn remote(&self, name: &str) -> Option<&Remote> {
        self.remotes.get(name).map(|(_, remote)| remote)
    }

    /// A remote node's name.
    pub fn remote_name(&self, id: RemoteId) -> Option<&str> {
        let mut all = self.remotes.iter();
        all.find(|(_, (it, _))| *it == id)
            .map(|(name, _)| name.as_str())
    }

    fn set_ports(&mut self, ports: &Ports) {
        let wanted: BTreeMap<u16, PortEntry> = ports
            .iter()
            .map(|port| (port.record.id, entry(port)))
            .collect();
        for id in self.ports.keys().filter(|id| !wanted.contains_key(id)) {
            self.builder.remove_port(PortId(*id));
        }
        for (id, entry) in wanted
            .iter()
            .filter(|(id, entry)| self.ports.get(id) != Some(entry))
        {
            if let Err(error) = self.builder.set_port(entry.clone()) {
                tracing::error!(port = id, %error, "cannot forward for this port");
            }
        }
        self.ports = wanted;
    }

    fn set_node(&mut self, node: Option<NodeTable>) {
        if self.node != node {
            self.builder.set_node(node.clone());
            self.node = node;
        }
    }

    fn set_ranges(&mut self, wanted: &BTreeSet<(IpNet, bool)>) {
        let kind = |services: bool| {
            if services {
                RangeKind::Services
            } else {
                RangeKind::Pods
            }
        };
        for (prefix, services) in self.ranges.difference(wanted) {
            self.builder.remove_range(*prefix, kind(*services));
        }
        for (prefix, services) in wanted.difference(&self.ranges) {
            self.builder.add_range(*prefix, kind(*services));
        }
        self.ranges.clone_from(wanted);
    }

    fn set_remotes(&mut self, sorted: &Sorted<'_>, ports: &Ports) {
        let gone: Vec<String> = self
            .remotes
            .keys()
            .filter(|name| !sorted.remotes.contains_key(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            if let Some((id, _)) = self.remotes.remove(&name) {
                self.builder.remove_remote(id);
            }
        }
        for (name, node) in &sorted.remotes {
            let path = sorted.paths.get(&node.vtep).copied();
            let learned = self.learned.get(&node.vtep).map(|(mtu, _)| *mtu);
            self.set_remote(name, remote(node, path, learned, ports));
        }
    }

    fn set_remote(&mut self, name: &str, wanted: Remote) {
        match self.remotes.get_mut(name) {
            Some((_, present)) if *present == wanted => {}
            Some((id, present))
                if present.vtep == wanted.vtep
                    && present.prefixes == wanted.prefixes
                    && present.addresses == wanted.addresses =>
            {
                self.builder.set_path(*id, wanted.path, wanted.inner_mtu);
                *present = wanted;
            }
            Some((id, present)) => {
                self.builder.replace_remote(*id, wanted.clone());
                *present = wanted;
            }
            None => match self.builder.add_remote(wanted.clone()) {
                Ok(id) => {
                    self.remotes.insert(name.to_owned(), (id, wanted));
                }
                Err(error) => tracing::error!(node = name, %error, "cannot reach this node"),
            },
        }
    }
}

/// The objects by kind.
#[derive(Default)]
struct Sorted<'a> {
    node: Option<&'a LocalNode>,
    remotes: BTreeMap<&'a str, &'a RemoteNode>,
    paths: BTreeMap<IpAddr, &'a UnderlayPath>,
    ranges: BTreeSet<(IpNet, bool)>,
    policy: PolicyObjects<'a>,
    services: Vec<&'a Arc<Service>>,
}

impl<'a> Sorted<'a> {
    fn of(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut sorted = Self::default();
        for object in objects {
            match object {
                Object::LocalNode(node) => sorted.node = Some(node),
                Object::RemoteNode(node) => {
                    sorted.remotes.insert(&node.name, node);
                }
                Object::UnderlayPath(path) => {
                    sorted.paths.insert(path.vtep, path);
                }
                Object::ClusterRange(range) => {
                    sorted
                        .ranges
                        .insert((range.prefix, range.purpose == RangePurpose::Services));
                }
                Object::Identity(identity) => sorted.policy.identities.push(identity),
                Object::PolicyAddress(address) => sorted.policy.addresses.push(address),
                Object::EndpointPolicy(policy) => sorted.policy.endpoints.push(policy),
                Object::Service(service) => sorted.services.push(service),
            }
        }
        sorted
    }
}

fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    }
}

fn mac(mac: MacAddr) -> weft_engine::MacAddr {
    weft_engine::MacAddr(mac.0)
}

fn entry(port: &AttachedPort) -> PortEntry {
    let addresses = || {
        port.spec
            .addresses
            .iter()
            .filter(|_| port.spec.kind == ApiPortKind::Pod)
    };
    PortEntry {
        id: PortId(port.record.id),
        kind: kind(port.spec.kind),
        mac: mac(port.spec.mac),
        addresses4: addresses().filter_map(as_v4).collect(),
        addresses6: addresses().filter_map(as_v6).collect(),
        mtu: port.spec.mtu,
        tcp_mtu: LOCAL_MTU.min(port.spec.mtu),
        worker: port.homes.first().map_or(0, |home| home.worker),
        tx_checksum: port.record.queues.iter().all(|queue| queue.tx_metadata),
        gso: port.record.packet_socket && port.spec.kind != ApiPortKind::Uplink,
        shortcuts: port.record.shortcuts,
    }
}

fn node_table(node: &LocalNode, ports: &Ports) -> Option<NodeTable> {
    let vtep_mac = |v4: bool| {
        let address = node
            .addresses
            .iter()
            .find(|address| address.is_ipv4() == v4)?;
        Some(mac(MacAddr::of_vtep(*address)))
    };
    Some(NodeTable {
        node_port: ports.node_port(),
        node_port4: node.node_port_addresses.iter().find_map(as_v4),
        node_port6: node.node_port_addresses.iter().find_map(as_v6),
        addresses: node.addresses.clone(),
        vtep4_mac: vtep_mac(true),
        vtep6_mac: vtep_mac(false),
        pod_cidrs: node.pod_cidrs.clone(),
        vni: Vni::new(node.vni)?,
        vxlan_port: node.vxlan_port,
        gateway_mac: mac(GATEWAY_MAC),
        gateway4: GATEWAY_V4,
        gateway6: GATEWAY_V6,
        outside_mtu: node.outside_mtu,
    })
}

fn remote(
    node: &RemoteNode,
    path: Option<&UnderlayPath>,
    learned: Option<u32>,
    ports: &Ports,
) -> Remote {
    let uplink = |path: &UnderlayPath| {
        let port = ports
            .iter()
            .find(|port| port.spec.kind == ApiPortKind::Uplink && port.spec.name.0 == path.ifname);
        port.map(|port| PortId(port.record.id))
    };
    let outer = path.and_then(|path| {
        Some(OuterPath {
            uplink: uplink(path)?,
            source: path.source,
            source_mac: mac(path.source_mac),
            next_hop_mac: mac(path.next_hop_mac?),
        })
    });
    let outer_mtu = path.map(|path| path.mtu.min(learned.unwrap_or(u32::MAX)));
    Remote {
        vtep: node.vtep,
        vtep_mac: mac(MacAddr::of_vtep(node.vtep)),
        prefixes: node.pod_cidrs.clone(),
        addresses: node.addresses.clone(),
        path: outer,
        inner_mtu: outer_mtu.map_or(UNKNOWN_INNER_MTU, |mtu| {
            mtu.saturating_sub(vxlan::overhead(node.vtep))
        }),
    }
}

#[cfg(test)]
mod tests;
