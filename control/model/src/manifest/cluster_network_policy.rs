//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`.
//!
//! Fields keep the API's names. What the API restricts (enumerations, ranges, exactly one of) is
//! not restricted here: a policy that breaks a rule must be read to fail closed for whom it names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// A policy of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicy {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: ClusterNetworkPolicySpec,
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// 0 to 1000; within a tier the lower value goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The pods it applies to.
    pub subject: Subject,
    /// Rules for connections towards them, in order.
    pub ingress: Vec<ClusterRule>,
    /// Rules for connections they open, in order.
    pub egress: Vec<ClusterRule>,
}

/// Pods; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subject {
    /// All pods of the namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Pods by namespace and own labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods with these labels in namespaces with those.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces; all where it is empty or absent.
    pub namespace_selector: LabelSelector,
    /// The pods; all where it is empty. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

/// A rule of either direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterRule {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Sources, of an ingress rule; at least one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<ClusterPeer>,
    /// Destinations, of an egress rule; at least one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<ClusterPeer>,
    /// Protocols and ports; all where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// A peer; exactly one field is set. Of an ingress rule only the first two may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterPeer {
    /// All pods of the namespaces with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Pods by namespace and own labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Addresses of the nodes with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<LabelSelector>,
    /// Address blocks; pods and nodes inside are meant too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Names of the DNS, which weft does not enforce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
}

/// Protocol and port; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterProtocol {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ProtocolPorts>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<ProtocolPorts>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ProtocolPorts>,
    /// The port a destination pod's container calls so, whatever its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProtocolPorts {
    /// Required: the API's entries have at least one property.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterPort>,
}

/// A port or a range; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterPort {
    /// One port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterPortRange>,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterPortRange {
    /// The lowest.
    pub start: i64,
    /// The highest; the API wants it greater than `start`.
    pub end: i64,
}
