//! Services to table objects, as one node sees them: what kube-proxy makes of them.
//!
//! # What is served
//! Every Service with a cluster IP, in the IP versions it has one of. Headless services, external names
//! and services of another proxy (label `service.kubernetes.io/service-proxy-name`) are left alone, and
//! so are load balancers' addresses with `ipMode: Proxy`. Endpoints come from EndpointSlices only: a
//! `targetPort` is resolved in them, and with publishNotReadyAddresses every endpoint in them is ready.
//!
//! # What depends on the node
//! Traffic policy Local, hints, and which endpoints terminate: see [`choice`]. A backend no frontend
//! leads to keeps the connections it has.
//!
//! # What is wrong with a service
//! What the Kubernetes API would refuse in one object makes its file a broken one (see
//! [`crate::facts::check`]), so that the last good state of the object stays in force. What two services
//! both claim goes to the older one, and the other goes on without.
//!
//! # Cost
//! A service is built again when it, one of its slices or the node's zone changed, and looked through
//! again when a service that claims what it claims changed.

mod build;
mod changes;
mod choice;
mod dispute;
mod host_port;
mod slice;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use weft_api::object::Object;
use weft_api::service::{Frontend, Service};

use super::LocalPod;
use crate::facts::BadValue;
use crate::manifest::{Kind, ObjectKey, Resource};
use crate::state::Store;
use build::Built;
use changes::Seen;
use choice::Here;
use dispute::{Claim, Claimant, Claims};
use slice::Slice;
use spec::Spec;

/// The label of a Node that says which zone it is in.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What services come down to. What did not change is the same in memory from one compilation to the
/// next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceObjects {
    /// The services, by namespace and name.
    pub services: Vec<Arc<Service>>,
    /// What load balancers ask this node for, likewise.
    pub health_checks: Vec<HealthCheck>,
}

/// A port where load balancers ask whether this node has backends of a service
/// (`healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The TCP port.
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Compiles services, and remembers what it needs to do little the next time.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceCompiler {
    node: String,
    zone: String,
    services: Seen,
    slices: Seen,
    /// Local pods with host ports, by the key of their service.
    host_ports: BTreeMap<ObjectKey, LocalPod>,
    /// Keys of slices by that of their service.
    slices_of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    entries: BTreeMap<ObjectKey, Entry>,
    claims: Claims,
}

/// A service that is served.
#[derive(Clone, Debug)]
struct Entry {
    claimant: Arc<Claimant>,
    built: Built,
    /// What is wrong with it and its slices.
    problems: Vec<String>,
    /// Without what others have.
    settled: Arc<Service>,
    disputes: Vec<String>,
}

impl ServiceObjects {
    /// The table objects.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        self.services.iter().cloned().map(Object::Service)
    }
}

impl ServiceCompiler {
    /// A compiler for the node called so.
    pub fn of_node(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// Compiles what is there now.
    pub fn compile(
        &mut self,
        store: &Store,
        local_pods: &[LocalPod],
        problems: &mut Vec<String>,
    ) -> ServiceObjects {
        let mut stale = self.refresh(store);
        stale.extend(self.refresh_host_ports(local_pods));
        for key in stale.clone() {
            self.rebuild(&key, &mut stale);
        }
        for key in &stale {
            self.settle(key);
        }
        let entries = self.entries.values();
        let told = entries
            .clone()
            .flat_map(|e| e.problems.iter().chain(&e.disputes));
        problems.extend(told.cloned());
        let checks = entries
            .clone()
            .filter_map(|entry| entry.built.health_check.clone());
        ServiceObjects {
            services: entries.map(|entry| Arc::clone(&entry.settled)).collect(),
            health_checks: checks.collect(),
        }
    }

    /// Cluster IPs of all services.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> {
        let entries = self.entries.values();
        entries.flat_map(|entry| entry.built.cluster_ips.iter().copied())
    }

    /// Takes the objects as they are now; answers which services must be built again.
    fn refresh(&mut self, store: &Store) -> BTreeSet<ObjectKey> {
        let mut stale = BTreeSet::new();
        for (key, slice) in self.slices.refresh(store, Kind::EndpointSlice) {
            let service = |resource: Option<&Resource>| match resource {
                Some(Resource::EndpointSlice(slice)) => {
                    let name = slice::service_name(slice)?;
                    ObjectKey::new(Kind::Service, Some(&key.namespace), name)
                }
                _ => None,
            };
            if let Some(before) = service(slice.before.as_ref()) {
                if let Some(slices) = self.slices_of.get_mut(&before) {
                    slices.remove(&key);
                }
                stale.insert(before);
            }
            if let Some(now) = service(slice.now.as_ref()) {
                let slices = self.slices_of.entry(now.clone()).or_default();
                slices.insert(key.clone());
                stale.insert(now);
            }
        }
        self.slices_of.retain(|_, slices| !slices.is_empty());
        let changes = self.services.refresh(store, Kind::Service);
        stale.extend(changes.into_iter().map(|(key, _)| key));
        let zone = zone(store, &self.node);
        if self.zone != zone {
            self.zone = zone;
            stale.extend(self.services.keys().cloned());
        }
        stale
    }

    /// Takes the pods of this node as they are now; answers whose host ports changed.
    fn refresh_host_ports(&mut self, local_pods: &[LocalPod]) -> Vec<ObjectKey> {
        let with = local_pods.iter().filter(|pod| !pod.host_ports.is_empty());
        let now: BTreeMap<_, _> = with.map(|pod| (host_port::key(pod), pod.clone())).collect();
        let before = std::mem::replace(&mut self.host_ports, now);
        let now = &self.host_ports;
        let keys = before
            .keys()
            .chain(now.keys().filter(|key| !before.contains_key(*key)));
        let changed = keys.filter(|key| before.get(*key) != now.get(*key));
        changed.cloned().collect()
    }

    /// Builds a service again. Those who claim what it claims or claimed are added to `stale`.
    fn rebuild(&mut self, key: &ObjectKey, stale: &mut BTreeSet<ObjectKey>) {
        if let Some(old) = self.entries.remove(key) {
            for frontend in &old.built.service.frontends {
                let claim = Claim::of(frontend);
                self.claims.remove(claim, &old.claimant, stale);
            }
        }
        let mut problems = Vec::new();
        let (built, created) = match (self.host_ports.get(key), self.services.get(key)) {
            (Some(pod), _) => (Some(host_port::build(key, pod)), None),
            (_, Some(Resource::Service(service))) => {
                let created = service.metadata.creation_timestamp.clone();
                (self.build(key, service, &mut problems), created)
            }
            _ => return,
        };
        let Some(built) = built else {
            return;
        };
        let claimant = Arc::new(Claimant::new(key.clone(), created));
        for frontend in &built.service.frontends {
            self.claims.add(Claim::of(frontend), &claimant, stale);
        }
        let entry = Entry {
            settled: Arc::clone(&built.service),
            claimant,
            built,
            problems,
            disputes: Vec::new(),
        };
        self.entries.insert(key.clone(), entry);
    }

    fn build(
        &self,
        key: &ObjectKey,
        service: &v1::Service,
        problems: &mut Vec<String>,
    ) -> Option<Built> {
        let spec = Spec::read(service);
        let spec = spec.unwrap_or_else(|bad| {
            problems.push(format!("{key}: {bad}"));
            None
        })?;
        let mut slices = Vec::new();
        for key in self.slices_of.get(key).into_iter().flatten() {
            let Some(Resource::EndpointSlice(slice)) = self.slices.get(key) else {
                continue;
            };
            match Slice::read(slice) {
                Ok(slice) => slices.extend(slice),
                Err(bad) => problems.push(format!("{key}: {bad}")),
            }
        }
        let here = Here {
            node: &self.node,
            zone: &self.zone,
        };
        Some(build::build(key, service, spec, &slices, here, problems))
    }

    /// Leaves out of a service what others have.
    fn settle(&mut self, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.disputes.clear();
        let mut is_ours = |frontend: &Frontend| {
            let holder = self.claims.holder(&Claim::of(frontend), key);
            let dispute = holder.map(|holder| dispute::problem(key, frontend, holder));
            let is_ours = dispute.is_none();
            entry.disputes.extend(dispute);
            is_ours
        };
        let whole = &entry.built.service;
        let ours: Vec<bool> = whole.frontends.iter().map(&mut is_ours).collect();
        if entry.disputes.is_empty() {
            entry.settled = Arc::clone(whole);
            return;
        }
        let mut settled = (**whole).clone();
        let mut ours = ours.into_iter();
        settled.frontends.retain(|_| ours.next().unwrap_or(true));
        if settled != *entry.settled {
            entry.settled = Arc::new(settled);
        }
    }
}

/// The zone a node is in; empty where it does not say.
fn zone(store: &Store, node: &str) -> String {
    let mut nodes = store.nodes();
    let node = nodes.find(|object| object.metadata.name.as_deref() == Some(node));
    let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE));
    zone.cloned().unwrap_or_default()
}

/// Refuses a Service or EndpointSlice the Kubernetes API would refuse.
///
/// # Errors
/// The first value that is wrong.
pub(crate) fn check(resource: &Resource) -> Result<(), BadValue> {
    match resource {
        Resource::Service(service) => Spec::read(service).map(drop),
        Resource::EndpointSlice(slice) => Slice::read(slice).map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
