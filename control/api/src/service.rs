//! Services as the dataplane gets them: where clients knock, and who answers.
//!
//! The agent resolves all that depends on the node before (which endpoints a traffic policy, topology hints or
//! termination leave over here): a [`Service`] names, for each frontend, the list of backends new connections are
//! balanced over. An update of one endpoint is one object.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One Kubernetes Service, or the host ports of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name; that of host ports is `hostport:POD`, which no Kubernetes Service can have.
    pub name: String,
    /// How a backend is chosen.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a client address keeps its backend after its last connection began, in seconds (session affinity
    /// ClientIP); none without affinity. Holds over all ports of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// All backends, of all ports, each once.
    pub backends: Vec<Backend>,
    /// Where clients knock. No (address, protocol, port) twice in all services: the agent settles disputes.
    pub frontends: Vec<Frontend>,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Consistent: by a table of the backends (Eisenbud et al., NSDI 2016) and the connection's hash.
    #[default]
    Maglev,
    /// By chance.
    Random,
    /// The one with the fewest connections this worker knows.
    LeastConnections,
}

/// An endpoint's address and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address: a pod's, a node's, or one outside the cluster.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The pod behind it, `NAMESPACE/NAME`, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// It ends: it keeps the connections it has. It gets new ones only where a frontend lists it.
    #[serde(default)]
    pub terminating: bool,
}

/// An address, protocol and port where clients reach the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// The address; `None`: each address of this node ([`LocalNode::addresses`](crate::object::LocalNode)).
    pub address: Option<IpAddr>,
    /// IP version of a frontend without address, true for IPv6. Meaningless with one.
    #[serde(default)]
    pub ipv6: bool,
    /// IP protocol number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// What kind of frontend it is.
    pub kind: FrontendKind,
    /// Name of the service's port, for people; empty for an unnamed one.
    #[serde(default)]
    pub port_name: String,
    /// The client's address stays, also when it is outside the cluster (traffic policy Local): without this a
    /// connection from outside to a backend on another node is given an address of this node as source.
    #[serde(default)]
    pub keeps_source: bool,
    /// Direct server return: a client outside the cluster is answered by the node of the backend, which it does not
    /// know; its packets cross the tunnel with the service's address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// Only these may connect (loadBalancerSourceRanges); anyone where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<IpNet>>,
    /// Whom new connections go to: places in [`Service::backends`], ascending. None: refused at once with a reset or
    /// an ICMP error.
    pub backends: Vec<u32>,
    /// Whom new connections go to that a pod of this node or the node itself opens, where that is another list: with
    /// external traffic policy Local only clients outside the cluster are kept to this node's backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside_backends: Option<Vec<u32>>,
    /// Refuse silently where there is no backend: traffic policy Local and the endpoints are on other nodes.
    #[serde(default)]
    pub drops: bool,
}

/// What kind of address a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrontendKind {
    /// An address of the service range, for clients inside.
    ClusterIp,
    /// A port of every node.
    NodePort,
    /// An address of `status.loadBalancer.ingress`.
    LoadBalancer,
    /// An address of `spec.externalIPs`.
    ExternalIp,
    /// A pod's `hostPort`.
    HostPort,
}

/// Which services `service_list` asks for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceQuery {
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Answer to `service_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// The services, by namespace and name.
    pub services: Vec<ServiceStatus>,
}

/// A service as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Seconds a client keeps its backend; absent without affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// Where clients knock.
    pub frontends: Vec<Frontend>,
    /// Who answers, in the places that frontends name.
    pub backends: Vec<BackendStatus>,
}

/// A backend with its connections through this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The backend.
    #[serde(flatten)]
    pub backend: Backend,
    /// Connections there are.
    pub connections: u64,
    /// Connections begun since it is there, or since the dataplane started.
    pub begun: u64,
}

impl FrontendKind {
    /// Whether clients outside the cluster use it.
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}
