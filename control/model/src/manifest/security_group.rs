//! Security groups of pods: `SecurityGroupPolicy` of `vpcresources.k8s.aws/v1beta1` says which pods
//! have which groups, and weft's own `SecurityGroup` of `weft.dev/v1alpha1` what a group allows.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Which pods of its namespace have which groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupPolicy {
    /// Namespace and name.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: SecurityGroupPolicySpec,
}

/// Pods and groups. At least one selector is set; with both a pod must match both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityGroupPolicySpec {
    /// By the pod's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// By the labels of the pod's service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_selector: Option<LabelSelector>,
    /// The groups.
    pub security_groups: GroupIds,
}

/// Ids of groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupIds {
    /// At least one.
    pub group_ids: Vec<String>,
}

/// What a group allows; `metadata.name` is its id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroup {
    /// Its name; it has no namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: SecurityGroupSpec,
}

/// What a group allows; what no rule of a pod's groups allows is denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityGroupSpec {
    /// Connections towards the pod.
    pub inbound: Vec<SecurityGroupRule>,
    /// Connections the pod opens.
    pub outbound: Vec<SecurityGroupRule>,
}

/// One thing a group allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecurityGroupRule {
    /// `tcp`, `udp`, `sctp`, `icmp` (of both families) or `all`.
    pub protocol: String,
    /// The lowest destination port; all ports where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_port: Option<i64>,
    /// The highest; `fromPort` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_port: Option<i64>,
    /// Peers by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// Peers that have this group. Exactly one of `cidr` and `group` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}
