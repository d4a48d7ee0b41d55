//! A second opinion on policies, for the tests of this crate and of those that enforce what it
//! compiles: clusters to try ([`generator`]), what the Kubernetes API says of a packet in one
//! ([`evaluator`]), what the table objects say of it ([`interpreter`]), and mistakes a compiler could
//! make ([`fault`]). Evaluator and compiler share nothing but the types of the API.

pub mod conformance;
pub mod evaluator;
pub mod fault;
pub mod generator;
pub mod interpreter;
mod random;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::LocalPod;
use crate::manifest::cluster_network_policy::ClusterNetworkPolicy;
use crate::manifest::security_group::{SecurityGroup, SecurityGroupPolicy};
use crate::state::Store;

#[cfg(test)]
mod meaning;
#[cfg(test)]
mod tests;

/// A cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Machines.
    pub nodes: Vec<Node>,
    /// Namespaces there are objects of.
    pub namespaces: Vec<Namespace>,
    /// Service accounts.
    pub accounts: Vec<ServiceAccount>,
    /// Pods there are objects of.
    pub pods: Vec<Pod>,
    /// Pods of the node itself.
    pub local: Vec<LocalPod>,
    /// Policies of namespaces.
    pub policies: Vec<NetworkPolicy>,
    /// Policies of the cluster.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// Which pods have which groups.
    pub group_policies: Vec<SecurityGroupPolicy>,
    /// What groups allow.
    pub groups: Vec<SecurityGroup>,
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who opens it.
    pub source: IpAddr,
    /// Towards whom.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

impl Cluster {
    /// All objects as one list, as `kubectl get -o json` prints it.
    pub fn manifest(&self) -> String {
        let mut items: Vec<Value> = Vec::new();
        let mut add = |api_version: &str, kind: &str, object: serde_json::Result<Value>| {
            let mut object = object.unwrap_or_default();
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            items.push(object);
        };
        for object in &self.nodes {
            add("v1", "Node", serde_json::to_value(object));
        }
        for object in &self.namespaces {
            add("v1", "Namespace", serde_json::to_value(object));
        }
        for object in &self.accounts {
            add("v1", "ServiceAccount", serde_json::to_value(object));
        }
        for object in &self.pods {
            add("v1", "Pod", serde_json::to_value(object));
        }
        for object in &self.policies {
            let value = serde_json::to_value(object);
            add("networking.k8s.io/v1", "NetworkPolicy", value);
        }
        for object in &self.cluster_policies {
            let value = serde_json::to_value(object);
            add(
                "policy.networking.k8s.io/v1alpha2",
                "ClusterNetworkPolicy",
                value,
            );
        }
        for object in &self.group_policies {
            let value = serde_json::to_value(object);
            add("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy", value);
        }
        for object in &self.groups {
            add(
                "weft.dev/v1alpha1",
                "SecurityGroup",
                serde_json::to_value(object),
            );
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    /// Puts the objects into a store, in place of those that were there.
    pub fn apply_to(&self, store: &mut Store) {
        store.apply("cluster.json", self.manifest().as_bytes());
    }
}
