//! Policies to table objects: who each address belongs to, and what each local pod's rules say.
//!
//! Pods that policies cannot tell apart are one workload; a workload, a node or the outside, seen
//! through the longest block some policy names, is an identity. Selectors have numbers, and an
//! identity lists the numbers of those that match it. Rules speak of selectors only.
//!
//! # Order
//! Tiers are tried in this order: ClusterNetworkPolicies of the Admin tier, security groups,
//! NetworkPolicies, ClusterNetworkPolicies of the Baseline tier; what none of them decides is
//! allowed. What a security group allows, and what `Pass` says, leaves the tier. NetworkPolicies and
//! security groups decide everything for the pods they select.
//!
//! # What is wrong with a policy
//! Everything the Kubernetes API would refuse in one object makes its file a broken one (see
//! [`crate::facts::check`]), so that the last good state of the object stays in force. An object that
//! never was good is read as far as it can be and fails closed: see the module of its kind. What
//! depends on other objects (a group nobody defines), and what weft does not do (names of the DNS), is
//! told but breaks no file.
//!
//! # Cost
//! Everything is kept from one compilation to the next. A changed pod is compared with the selectors
//! in use, a changed policy's selectors with the workloads, and nothing else is.

mod block;
mod cluster_policy;
mod endpoint;
mod identity;
mod matching;
mod namespace;
mod network_policy;
mod number;
mod pod;
mod rule;
mod security_group;
mod selector;
mod source;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_api::PodRef;
use weft_api::agent::HostPort;
use weft_api::object::Object;
use weft_api::policy::{EndpointPolicy, Identity, PolicyAddress};

use crate::facts::BadValue;
use crate::manifest::Resource;
use crate::state::Store;
use endpoint::{Endpoints, Selecting};
use identity::{Identities, Nodes, Parts};
use matching::{InUse, Matching};
use namespace::Namespaces;
use number::Numbers;
use pod::Pods;
use source::{Numbered, Sources};

/// A pod of this node. Its addresses are known when it is attached, long before the Pod object has
/// them; there need not even be such an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Its name.
    pub pod: PodRef,
    /// Addresses from our own allocator.
    pub addresses: Vec<IpAddr>,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// Table objects of policies. Those that did not change are the same in memory from one compilation
/// to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyObjects {
    /// Identities, by number.
    pub identities: Vec<Arc<Identity>>,
    /// Addresses of pods and nodes, and blocks, by prefix.
    pub addresses: Vec<Arc<PolicyAddress>>,
    /// Rules of local pods, by identity.
    pub endpoints: Vec<Arc<EndpointPolicy>>,
}

/// Compiles policies, and remembers what it needs to do little the next time.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyCompiler {
    numbers: Numbers<Numbered>,
    sources: Sources,
    namespaces: Namespaces,
    pods: Pods,
    matching: Matching,
    identities: Identities,
    endpoints: Endpoints,
}

impl PolicyObjects {
    /// The table objects.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let identities = self.identities.iter().cloned().map(Object::Identity);
        let addresses = self.addresses.iter().cloned().map(Object::PolicyAddress);
        let endpoints = self.endpoints.iter().cloned().map(Object::EndpointPolicy);
        identities.chain(addresses).chain(endpoints)
    }
}

impl PolicyCompiler {
    /// Compiles what is there now.
    pub fn compile(
        &mut self,
        store: &Store,
        local_pods: &[LocalPod],
        problems: &mut Vec<String>,
    ) -> PolicyObjects {
        self.sources.refresh(store, &mut self.numbers);
        let changed = self.namespaces.refresh(store);
        let mut members = self.sources.members.values().flatten();
        let with_accounts = members.any(|source| source.membership.accounts.is_some());
        self.pods.refresh(store, local_pods, with_accounts);
        let accounts = match with_accounts {
            true => namespace::accounts(store),
            false => BTreeMap::new(),
        };
        self.matching
            .refresh(&self.pods, &changed, &self.sources, accounts);
        let selecting = self.selecting();
        let mut in_use = InUse::new();
        selecting.values().for_each(|s| s.add_to(&mut in_use));
        self.matching
            .select(in_use.clone(), &self.namespaces, &mut self.numbers);
        let parts = Parts {
            pods: &self.pods,
            nodes: &Nodes::of(store.nodes()),
            matching: &self.matching,
            in_use: &in_use,
        };
        self.identities.refresh(&parts, &mut self.numbers);
        problems.extend(self.sources.problems());
        problems.extend(self.pods.problems());
        PolicyObjects {
            identities: self.identities.identities().cloned().collect(),
            addresses: self.identities.addresses().cloned().collect(),
            endpoints: self.settle_endpoints(&selecting),
        }
    }

    /// The policies that are about each workload of local pods.
    fn selecting(&self) -> BTreeMap<u32, Selecting> {
        let mut selecting = BTreeMap::new();
        for pod in self.pods.local() {
            if let Some(matched) = self.matching.get(pod.workload) {
                let find = || Selecting::of(matched, &self.sources, &self.namespaces);
                selecting.entry(pod.workload).or_insert_with(find);
            }
        }
        selecting
    }

    fn settle_endpoints(
        &mut self,
        selecting: &BTreeMap<u32, Selecting>,
    ) -> Vec<Arc<EndpointPolicy>> {
        let resolved = self.matching.resolved().chain(self.identities.resolved());
        let resolved = endpoint::by_peers(resolved);
        let mut endpoints = Vec::new();
        for (identity, workload) in self.identities.workloads() {
            let (Some(selecting), Some(matched)) =
                (selecting.get(&workload), self.matching.get(workload))
            else {
                continue;
            };
            let settled = self
                .endpoints
                .settle(identity, matched, selecting, &resolved);
            endpoints.push(settled);
        }
        let kept: BTreeSet<u32> = endpoints.iter().map(|endpoint| endpoint.identity).collect();
        self.endpoints.retain(&kept);
        endpoints
    }
}

/// Refuses a policy the Kubernetes API would refuse.
///
/// # Errors
/// The first value that is wrong.
pub(crate) fn check(resource: &Resource) -> Result<(), BadValue> {
    let policy = match resource {
        Resource::NetworkPolicy(policy) => network_policy::read(String::new(), "", policy),
        Resource::ClusterNetworkPolicy(policy) => cluster_policy::read(String::new(), policy),
        Resource::SecurityGroup(group) => security_group::read(String::new(), group),
        Resource::SecurityGroupPolicy(policy) => {
            let read = security_group::Membership::read(String::new(), "", policy);
            return read.faults.into_iter().next().map_or(Ok(()), Err);
        }
        _ => return Ok(()),
    };
    policy.first_broken().cloned().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
