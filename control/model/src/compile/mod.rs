//! Desired state to table objects, as one node sees them.

mod node;
mod policy;
mod route;
mod service;

use ipnet::IpNet;
use weft_api::object::{ClusterRange, LocalNode, Object, RangePurpose, RemoteNode};
use weft_api::{DEFAULT_VNI, VXLAN_PORT};

use crate::state::Store;
use node::Claims;
use policy::PolicyCompiler;
pub use policy::{LocalPod, PolicyObjects};
use service::ServiceCompiler;
pub use service::{HealthCheck, ServiceObjects};

/// What the agent's command line says about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Name of the Node object of the machine we run on.
    pub node: String,
    /// Ranges cluster IPs of services are taken from.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges the nodes' pod CIDRs are cut from, where known; it spares the host one route per node.
    pub cluster_cidrs: Vec<IpNet>,
    /// Cluster VNI.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
}

/// The cluster as it should be in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// This node; none until its Node object is known.
    pub local: Option<LocalNode>,
    /// The other nodes, by name.
    pub remotes: Vec<RemoteNode>,
    /// Ranges of cluster addresses; no prefix twice.
    pub ranges: Vec<ClusterRange>,
    /// Who addresses belong to, and the rules of local pods.
    pub policy: PolicyObjects,
    /// Services and who answers for them.
    pub services: ServiceObjects,
}

/// What compiling gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The cluster as it should be.
    pub desired: Desired,
    /// Objects that contradict each other, a sentence each.
    pub problems: Vec<String>,
}

/// Turns desired state into table objects. It remembers who held a prefix or an address, so that a
/// node that arrives later with the same one cannot take it away, and what it compiled of policies and
/// services.
#[derive(Clone, Debug)]
pub struct Compiler {
    config: ClusterConfig,
    claims: Claims,
    policy: PolicyCompiler,
    services: ServiceCompiler,
}

impl ClusterConfig {
    /// The defaults for the node called `node`.
    pub fn of_node(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            service_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            vni: DEFAULT_VNI,
            vxlan_port: VXLAN_PORT,
        }
    }
}

impl Compiler {
    /// A compiler that has seen nothing.
    pub fn new(config: ClusterConfig) -> Self {
        Self {
            services: ServiceCompiler::of_node(&config.node),
            config,
            claims: Claims::default(),
            policy: PolicyCompiler::default(),
        }
    }

    /// Compiles all of `store`, for a node with these pods.
    pub fn compile(&mut self, store: &Store, local_pods: &[LocalPod]) -> Compiled {
        let mut problems = Vec::new();
        let nodes = self.claims.settle(store, &mut problems);
        let local = node::local(&self.config, &nodes, &mut problems);
        let remotes = node::remotes(&self.config, &nodes, &mut problems);
        let services = self.services.compile(store, local_pods, &mut problems);
        let cluster_ips = self.services.cluster_ips();
        let ranges = route::ranges(&self.config, &nodes, cluster_ips, &mut problems);
        let policy = self.policy.compile(store, local_pods, &mut problems);
        Compiled {
            desired: Desired {
                local,
                remotes,
                ranges,
                policy,
                services,
            },
            problems,
        }
    }
}

impl Desired {
    /// The table objects, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let local = self.local.iter().cloned().map(Object::LocalNode);
        let remotes = self.remotes.iter().cloned().map(Object::RemoteNode);
        let ranges = self.ranges.iter().cloned().map(Object::ClusterRange);
        let policy = self.policy.objects();
        let services = self.services.objects();
        let objects = local.chain(remotes).chain(ranges);
        objects.chain(policy).chain(services)
    }

    /// Ranges of pod addresses of the whole cluster.
    pub fn pod_ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges_of(RangePurpose::Pods)
    }

    /// Ranges of service addresses.
    pub fn service_ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges_of(RangePurpose::Services)
    }

    fn ranges_of(&self, purpose: RangePurpose) -> impl Iterator<Item = IpNet> {
        let of = move |range: &&ClusterRange| range.purpose == purpose;
        self.ranges.iter().filter(of).map(|range| range.prefix)
    }
}

pub(crate) use policy::check as check_policy;
#[cfg(any(test, feature = "testing"))]
pub use policy::testing;
pub(crate) use service::check as check_service;

#[cfg(test)]
mod tests;
