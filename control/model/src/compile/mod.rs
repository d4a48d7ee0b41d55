//! Desired state to table objects.

use ipnet::IpNet;
use weft_api::{DEFAULT_VNI, VXLAN_PORT};

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
