//! Pods: what policies can see of one, and which addresses are whose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weft_api::PodRef;

use super::LocalPod;
use super::number::Numbers;
use super::rule::protocol;
use super::selector::Labels;
use crate::manifest::{Kind, Resource};
use crate::state::Store;

/// What pods have in common that policies cannot tell apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Workload {
    pub namespace: String,
    pub labels: Labels,
    /// Ports by name and protocol. Of two with the same the first counts, as for services.
    pub ports: BTreeMap<(String, u8), u16>,
    /// Whom it runs as; only where some policy asks for it.
    pub account: Option<String>,
}

/// Which of two pods has an address both claim; the greater one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    /// Our own allocator gave it the address.
    local: bool,
    running: bool,
    created: Option<Time>,
}

/// A pod.
#[derive(Clone, Debug)]
pub(super) struct PodFacts {
    pub pod: PodRef,
    pub workload: u32,
    pub kind: Arc<Workload>,
    pub addresses: Vec<IpAddr>,
    pub standing: Standing,
}

#[derive(Clone, Debug)]
struct Entry {
    object: Option<Arc<Pod>>,
    local: Option<Vec<IpAddr>>,
    facts: Arc<PodFacts>,
}

/// A pod as it is wanted now.
struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    object: Option<&'a Arc<Pod>>,
    local: Option<&'a Vec<IpAddr>>,
}

/// Workloads by number, and how many pods each has.
pub(super) type Workloads = BTreeMap<u32, (Arc<Workload>, usize)>;

/// All pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods {
    /// By namespace and name.
    entries: Vec<Entry>,
    claims: BTreeMap<IpAddr, Vec<Arc<PodFacts>>>,
    /// Addresses whose claims changed the last time.
    changed: BTreeSet<IpAddr>,
    workloads: Workloads,
    /// Workloads that were the first or last pod's the last time.
    touched: BTreeSet<u32>,
    numbers: Numbers<Workload>,
    with_accounts: bool,
}

impl Pods {
    /// Takes the pods as they are now.
    pub fn refresh(&mut self, store: &Store, local_pods: &[LocalPod], with_accounts: bool) {
        let local = local_addresses(local_pods);
        let wanted = wanted(store, &local);
        self.changed.clear();
        self.touched.clear();
        let same_kind = self.with_accounts == with_accounts;
        self.with_accounts = with_accounts;
        if !(same_kind && self.refresh_in_place(&wanted)) {
            self.refresh_all(&wanted, same_kind);
        }
        let workloads = &self.workloads;
        if self.numbers.has_many(workloads.len()) {
            let in_use = |number, _: &Workload| workloads.contains_key(&number);
            self.numbers.retain(in_use);
        }
    }

    /// Takes pods that have changed, as long as none came or went.
    fn refresh_in_place(&mut self, wanted: &[Wanted<'_>]) -> bool {
        let pairs = self.entries.iter().zip(wanted).enumerate();
        let other = pairs.filter(|(_, (entry, wanted))| !entry.is(wanted));
        let other: Vec<usize> = other.map(|(index, _)| index).collect();
        let is_same_pod = |index: &usize| self.entries[*index].name() == wanted[*index].name();
        if self.entries.len() != wanted.len() || !other.iter().all(is_same_pod) {
            return false;
        }
        for index in other {
            let facts = Arc::clone(&self.entries[index].facts);
            self.release(&facts);
            self.entries[index] = self.read(&wanted[index]);
        }
        true
    }

    fn refresh_all(&mut self, wanted: &[Wanted<'_>], same_kind: bool) {
        let mut old = std::mem::take(&mut self.entries);
        if !same_kind {
            old.drain(..).for_each(|entry| self.release(&entry.facts));
        }
        let mut old = old.into_iter().peekable();
        self.entries.reserve(wanted.len());
        for wanted in wanted {
            let entry = match old.next_if(|entry| entry.is(wanted)) {
                Some(entry) => entry,
                None => self.replace(&mut old, wanted),
            };
            self.entries.push(entry);
        }
        old.for_each(|gone| self.release(&gone.facts));
    }

    /// The entry of a pod that is not the next of the old ones: some of those are gone.
    fn replace(
        &mut self,
        old: &mut std::iter::Peekable<std::vec::IntoIter<Entry>>,
        wanted: &Wanted<'_>,
    ) -> Entry {
        while let Some(gone) = old.next_if(|entry| entry.name() < wanted.name()) {
            self.release(&gone.facts);
        }
        match old.next_if(|entry| entry.name() == wanted.name()) {
            Some(entry) if entry.is(wanted) => entry,
            known => {
                known.iter().for_each(|entry| self.release(&entry.facts));
                self.read(wanted)
            }
        }
    }

    /// The workloads of all pods.
    pub fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    /// Workloads that came or went the last time, and maybe some that did neither.
    pub fn touched_workloads(&self) -> &BTreeSet<u32> {
        &self.touched
    }

    /// Addresses whose claims changed the last time.
    pub fn changed(&self) -> &BTreeSet<IpAddr> {
        &self.changed
    }

    /// The pod that has an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Arc<PodFacts>> {
        holder(self.claims.get(&address)?)
    }

    /// The pods of this node.
    pub fn local(&self) -> impl Iterator<Item = &Arc<PodFacts>> {
        let local = self.entries.iter().filter(|entry| entry.local.is_some());
        local.map(|entry| &entry.facts)
    }

    /// Each claimed address with the pod that has it, in order.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<PodFacts>)> {
        let claims = self.claims.iter();
        claims.filter_map(|(address, claims)| Some((*address, holder(claims)?)))
    }

    /// Addresses that two running pods claim, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let contested = self.claims.iter().filter(|(_, claims)| claims.len() > 1);
        contested.filter_map(|(address, claims)| {
            let holder = holder(claims)?;
            let rival = |facts: &&Arc<PodFacts>| facts.standing.running && facts.pod != holder.pod;
            let rival = claims.iter().find(rival)?;
            holder.standing.running.then(|| {
                let (pod, other) = (&holder.pod, &rival.pod);
                format!("Pod {other}: address {address} is also that of Pod {pod}, which keeps it")
            })
        })
    }

    fn read(&mut self, wanted: &Wanted<'_>) -> Entry {
        let facts = Arc::new(self.facts(wanted));
        for address in &facts.addresses {
            let claims = self.claims.entry(*address).or_default();
            claims.push(Arc::clone(&facts));
            self.changed.insert(*address);
        }
        let kind = || (Arc::clone(&facts.kind), 0);
        let workload = self.workloads.entry(facts.workload);
        workload.or_insert_with(kind).1 += 1;
        self.touched.insert(facts.workload);
        Entry {
            object: wanted.object.cloned(),
            local: wanted.local.cloned(),
            facts,
        }
    }

    fn facts(&mut self, wanted: &Wanted<'_>) -> PodFacts {
        let mut kind = Workload {
            namespace: wanted.namespace.to_owned(),
            ..Workload::default()
        };
        let mut standing = Standing {
            local: wanted.local.is_some(),
            running: wanted.local.is_some(),
            created: None,
        };
        if let Some(pod) = wanted.object {
            kind.labels = pod.metadata.labels.clone().unwrap_or_default();
            kind.ports = named_ports(pod);
            if self.with_accounts {
                let account = pod
                    .spec
                    .as_ref()
                    .and_then(|s| s.service_account_name.clone());
                kind.account = Some(account.unwrap_or_else(|| "default".to_owned()));
            }
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            standing.running |=
                phase == Some("Running") && pod.metadata.deletion_timestamp.is_none();
            standing.created = pod.metadata.creation_timestamp.clone();
        }
        let addresses = match (wanted.local, wanted.object) {
            (Some(addresses), _) => addresses.clone(),
            (None, Some(pod)) => status_addresses(pod),
            (None, None) => Vec::new(),
        };
        let (workload, kind) = self.numbers.of(kind);
        PodFacts {
            pod: PodRef {
                namespace: wanted.namespace.to_owned(),
                name: wanted.name.to_owned(),
            },
            workload,
            kind,
            addresses,
            standing,
        }
    }

    fn release(&mut self, facts: &Arc<PodFacts>) {
        if let Some((_, count)) = self.workloads.get_mut(&facts.workload) {
            *count -= 1;
            if *count == 0 {
                self.touched.insert(facts.workload);
                self.workloads.remove(&facts.workload);
            }
        }
        for address in &facts.addresses {
            self.changed.insert(*address);
            if let Some(claims) = self.claims.get_mut(address) {
                claims.retain(|claim| !Arc::ptr_eq(claim, facts));
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
    }
}

impl Entry {
    fn name(&self) -> (&str, &str) {
        (&self.facts.pod.namespace, &self.facts.pod.name)
    }

    fn is(&self, wanted: &Wanted<'_>) -> bool {
        let same_pod = match (&self.object, wanted.object) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => self.name() == wanted.name(),
            _ => false,
        };
        same_pod && self.local.as_ref() == wanted.local
    }
}

impl<'a> Wanted<'a> {
    fn name(&self) -> (&'a str, &'a str) {
        (self.namespace, self.name)
    }
}

/// Addresses by namespace and name; a pod that is attached twice has those of both.
fn local_addresses(local_pods: &[LocalPod]) -> BTreeMap<(&str, &str), Vec<IpAddr>> {
    let mut local: BTreeMap<(&str, &str), Vec<IpAddr>> = BTreeMap::new();
    for LocalPod { pod, addresses, .. } in local_pods {
        let known = local.entry((&pod.namespace, &pod.name)).or_default();
        known.extend(addresses);
        known.sort_unstable();
        known.dedup();
    }
    local
}

/// The pods there are objects of, and the local ones, by namespace and name.
fn wanted<'a>(
    store: &'a Store,
    local: &'a BTreeMap<(&'a str, &'a str), Vec<IpAddr>>,
) -> Vec<Wanted<'a>> {
    let mut wanted = Vec::new();
    let mut local = local.iter().peekable();
    let without_object = |(name, addresses): (&(&'a str, &'a str), &'a Vec<IpAddr>)| Wanted {
        namespace: name.0,
        name: name.1,
        object: None,
        local: Some(addresses),
    };
    for (key, resource) in store.of_kind(Kind::Pod) {
        let Resource::Pod(object) = resource else {
            continue;
        };
        let name = (key.namespace.as_str(), key.name.as_str());
        while let Some(before) = local.next_if(|(local, _)| **local < name) {
            wanted.push(without_object(before));
        }
        let same = local.next_if(|(local, _)| **local == name);
        wanted.push(Wanted {
            namespace: name.0,
            name: name.1,
            object: Some(object),
            local: same.map(|(_, addresses)| addresses),
        });
    }
    wanted.extend(local.map(without_object));
    wanted
}

/// Of several pods that claim one address the one that has it.
fn holder(claims: &[Arc<PodFacts>]) -> Option<&Arc<PodFacts>> {
    claims.iter().max_by(|a, b| {
        let order = a.standing.cmp(&b.standing);
        order.then_with(|| b.pod.cmp(&a.pod))
    })
}

/// Ports of a pod's containers, sidecars included.
fn named_ports(pod: &Pod) -> BTreeMap<(String, u8), u16> {
    let mut named = BTreeMap::new();
    let Some(spec) = &pod.spec else {
        return named;
    };
    let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(stays);
    for port in spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
    {
        let number = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => protocol::TCP,
            "UDP" => protocol::UDP,
            "SCTP" => protocol::SCTP,
            _ => continue,
        };
        let (Some(name), Ok(port)) = (&port.name, u16::try_from(port.container_port)) else {
            continue;
        };
        named.entry((name.clone(), number)).or_insert(port);
    }
    named
}

/// Addresses of a pod of another node. One in the host's network has the node's, which are not its
/// own, and one that ended has none.
fn status_addresses(pod: &Pod) -> Vec<IpAddr> {
    let in_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let Some(status) = pod.status.as_ref().filter(|_| !in_host) else {
        return Vec::new();
    };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let listed = status.pod_ips.iter().flatten().map(|entry| &entry.ip);
    let texts = listed.chain(&status.pod_ip);
    let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
