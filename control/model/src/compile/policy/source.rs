//! The policy objects in force, each read once and again only when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::number::Numbers;
use super::rule::{Both, Direction, Policy, Tier, Traffic};
use super::security_group::Membership;
use super::selector::Selector;
use super::{cluster_policy, network_policy, security_group};
use crate::manifest::{Kind, ObjectKey, Resource};
use crate::state::Store;

/// What a selector number stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Numbered {
    /// A peer as rules name it.
    Peer(Peer),
    /// The peers among those of another number that call the port it names so.
    Resolved { peers: u32, port: u16 },
}

/// A peer as rules name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// Who; anyone where absent.
    pub selector: Option<Selector>,
    /// It also has a port of this protocol called so. Which one is different from pod to pod, so
    /// rules speak of [`Numbered::Resolved`].
    pub port: Option<(String, u8)>,
}

/// A peer and its number.
#[derive(Clone, Debug)]
pub(super) struct NumberedPeer {
    pub number: u32,
    pub thing: Arc<Numbered>,
}

/// A policy with the numbers of its peers.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Of this reading of this object; no other ever has it.
    pub serial: u64,
    pub policy: Policy,
    /// For each of the clauses.
    pub peers: Both<Vec<Option<NumberedPeer>>>,
}

/// Which pods have which groups, likewise.
#[derive(Clone, Debug)]
pub(super) struct MemberSource {
    pub serial: u64,
    pub membership: Membership,
}

#[derive(Clone, Debug)]
enum Read {
    Policy(Arc<Source>),
    Membership(Arc<MemberSource>),
}

#[derive(Clone, Debug)]
struct Entry {
    /// None where the object cannot be read at all.
    resource: Option<Resource>,
    read: Read,
}

/// All policies.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    entries: BTreeMap<ObjectKey, Entry>,
    serial: u64,
    /// ClusterNetworkPolicies of the Admin tier, in order.
    pub admin: Vec<Arc<Source>>,
    /// NetworkPolicies by namespace, by name.
    pub network: BTreeMap<String, Vec<Arc<Source>>>,
    /// ClusterNetworkPolicies of the Baseline tier, in order.
    pub baseline: Vec<Arc<Source>>,
    /// SecurityGroupPolicies by namespace, by name.
    pub members: BTreeMap<String, Vec<Arc<MemberSource>>>,
    /// SecurityGroups by id.
    pub groups: BTreeMap<String, Arc<Source>>,
}

impl Sources {
    /// Takes the objects as they are now.
    pub fn refresh(&mut self, store: &Store, numbers: &mut Numbers<Numbered>) {
        let wanted = store.policies();
        let pairs = self.entries.iter().zip(&wanted);
        let mut same = pairs.map(|((known, entry), (key, resource))| {
            is_same(entry.resource.as_ref(), *resource) && known == *key
        });
        if self.entries.len() == wanted.len() && same.all(|same| same) {
            return;
        }
        drop(same);
        let mut old = std::mem::take(&mut self.entries);
        for (key, resource) in wanted {
            let known = old.remove_entry(key);
            let entry = match known {
                Some((key, entry)) if is_same(entry.resource.as_ref(), resource) => (key, entry),
                _ => (key.clone(), self.read(key, resource, numbers)),
            };
            self.entries.insert(entry.0, entry.1);
        }
        self.arrange();
        self.forget(numbers);
    }

    /// What is wrong with them, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for entry in self.entries.values() {
            match &entry.read {
                Read::Policy(source) => problems.extend(source.policy.problems()),
                Read::Membership(source) => problems.extend(source.membership.problems()),
            }
        }
        for source in self.members.values().flatten() {
            let membership = &source.membership;
            let known = |group: &&String| self.groups.contains_key(*group);
            let unknown = membership.groups.iter().filter(|group| !known(group));
            problems.extend(unknown.map(|group| {
                let object = &membership.object;
                format!("{object}: there is no SecurityGroup {group}; it allows nothing")
            }));
        }
        problems
    }

    fn read(
        &mut self,
        key: &ObjectKey,
        resource: Option<&Resource>,
        numbers: &mut Numbers<Numbered>,
    ) -> Entry {
        self.serial += 1;
        let (object, namespace) = (key.to_string(), key.namespace.as_str());
        let serial = self.serial;
        let read = match (key.kind, resource) {
            (_, Some(Resource::NetworkPolicy(policy))) => policy_source(
                serial,
                network_policy::read(object, namespace, policy),
                numbers,
            ),
            (_, Some(Resource::ClusterNetworkPolicy(policy))) => {
                policy_source(serial, cluster_policy::read(object, policy), numbers)
            }
            (_, Some(Resource::SecurityGroup(group))) => {
                policy_source(serial, security_group::read(object, group), numbers)
            }
            (_, Some(Resource::SecurityGroupPolicy(policy))) => {
                member_source(serial, Membership::read(object, namespace, policy))
            }
            (Kind::ClusterNetworkPolicy, _) => {
                policy_source(serial, cluster_policy::unreadable(object), numbers)
            }
            (Kind::SecurityGroup, _) => {
                policy_source(serial, security_group::unreadable(object), numbers)
            }
            (Kind::SecurityGroupPolicy, _) => {
                member_source(serial, Membership::unreadable(object, namespace))
            }
            _ => policy_source(
                serial,
                network_policy::unreadable(object, namespace),
                numbers,
            ),
        };
        Entry {
            resource: resource.cloned(),
            read,
        }
    }

    fn arrange(&mut self) {
        self.admin.clear();
        self.network.clear();
        self.baseline.clear();
        self.members.clear();
        self.groups.clear();
        for (key, entry) in &self.entries {
            match &entry.read {
                Read::Membership(source) => {
                    let members = self.members.entry(key.namespace.clone()).or_default();
                    members.push(Arc::clone(source));
                }
                Read::Policy(source) => {
                    let source = Arc::clone(source);
                    match source.policy.tier {
                        Tier::Admin => self.admin.push(source),
                        Tier::Baseline => self.baseline.push(source),
                        Tier::Groups => drop(self.groups.insert(key.name.clone(), source)),
                        Tier::Network => {
                            let policies = self.network.entry(key.namespace.clone());
                            policies.or_default().push(source);
                        }
                    }
                }
            }
        }
        // Entries are in the order of names, and sorting keeps it among equal priorities.
        self.admin.sort_by_key(|source| source.policy.priority);
        self.baseline.sort_by_key(|source| source.policy.priority);
    }

    fn forget(&self, numbers: &mut Numbers<Numbered>) {
        let mut in_use = BTreeSet::new();
        for entry in self.entries.values() {
            if let Read::Policy(source) = &entry.read {
                in_use.extend(source.peers().map(|peer| peer.number));
            }
        }
        if numbers.has_many(in_use.len()) {
            numbers.retain(|number, thing| match thing {
                Numbered::Peer(_) => in_use.contains(&number),
                Numbered::Resolved { peers, .. } => in_use.contains(peers),
            });
        }
    }
}

impl Source {
    /// All of its peers that have a number.
    pub fn peers(&self) -> impl Iterator<Item = &NumberedPeer> {
        let both = self.peers.ingress.iter().chain(&self.peers.egress);
        both.filter_map(Option::as_ref)
    }
}

fn is_same(a: Option<&Resource>, b: Option<&Resource>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_same(b),
        (None, None) => true,
        _ => false,
    }
}

fn member_source(serial: u64, membership: Membership) -> Read {
    Read::Membership(Arc::new(MemberSource { serial, membership }))
}

fn policy_source(serial: u64, policy: Policy, numbers: &mut Numbers<Numbered>) -> Read {
    let mut peers = Both::default();
    for direction in Direction::BOTH {
        let clauses = policy.clauses.get(direction).iter();
        *peers.get_mut(direction) = clauses
            .map(|clause| {
                // The destination names the port: of ingress that is the policy's own pod.
                let port = match &clause.traffic {
                    Traffic::Named(protocol, name) if direction == Direction::Egress => {
                        Some((name.clone(), *protocol))
                    }
                    _ => None,
                };
                let selector = clause.peer.clone();
                (selector.is_some() || port.is_some()).then(|| {
                    let (number, thing) = numbers.of(Numbered::Peer(Peer { selector, port }));
                    NumberedPeer { number, thing }
                })
            })
            .collect();
    }
    Read::Policy(Arc::new(Source {
        serial,
        policy,
        peers,
    }))
}
