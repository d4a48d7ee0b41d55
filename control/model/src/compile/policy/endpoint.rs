//! Rules of local pods, out of all policies that are about them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use weft_api::policy::{EndpointPolicy, PolicyRule, PortRange, RuleOrigin, RuleVerdict};

use super::matching::{InUse, Matched, Resolved};
use super::namespace::Namespaces;
use super::rule::{Clause, Direction, Tier, Traffic};
use super::source::{NumberedPeer, Source, Sources};

/// Longest list of names in a rule's origin, in bytes. A pod may be selected by thousands.
const ORIGIN_MAX: usize = 200;

/// Policies that are about a workload, in order.
#[derive(Clone, Debug)]
pub(super) struct Selecting {
    admin: Vec<Arc<Source>>,
    /// What the workload's groups allow; None where it has none.
    groups: Option<Vec<Arc<Source>>>,
    network: Vec<Arc<Source>>,
    baseline: Vec<Arc<Source>>,
}

/// Port numbers a name stands for, by the peers that have the name.
pub(super) type ResolvedPorts = BTreeMap<u32, BTreeSet<(u16, u32)>>;

/// Rules of local pods, kept as long as nothing changes that they depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    known: BTreeMap<u32, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    made_of: Vec<u64>,
    policy: Arc<EndpointPolicy>,
}

impl Selecting {
    /// Finds the policies that are about `workload`.
    pub fn of(workload: &Matched, sources: &Sources, namespaces: &Namespaces) -> Self {
        let kind = &workload.kind;
        let labels = namespaces.labels(&kind.namespace);
        let selects = |source: &&Arc<Source>| {
            source.policy.subject.as_ref().is_some_and(|query| {
                query.namespaces.matches(&kind.namespace, &labels)
                    && query.pods.matches(&kind.labels)
            })
        };
        let among = |list: &[Arc<Source>]| list.iter().filter(selects).cloned().collect();
        let network = sources.network.get(&kind.namespace);
        let groups = workload.groups.as_ref().map(|groups| {
            let known = groups.ids.iter().filter_map(|id| sources.groups.get(id));
            known.cloned().collect()
        });
        Self {
            admin: among(&sources.admin),
            groups,
            network: network.map_or_else(Vec::new, |list| among(list)),
            baseline: among(&sources.baseline),
        }
    }

    /// Adds the selectors of its rules.
    pub fn add_to(&self, in_use: &mut InUse) {
        for peer in self.sources().flat_map(|source| source.peers()) {
            let thing = || Arc::clone(&peer.thing);
            in_use.entry(peer.number).or_insert_with(thing);
        }
    }

    fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        let before = self.admin.iter().chain(self.groups.iter().flatten());
        before.chain(&self.network).chain(&self.baseline)
    }
}

impl Endpoints {
    /// The rules of the pods of one identity.
    pub fn settle(
        &mut self,
        identity: u32,
        workload: &Matched,
        selecting: &Selecting,
        resolved: &ResolvedPorts,
    ) -> Arc<EndpointPolicy> {
        let made_of = made_of(workload, selecting, resolved);
        if let Some(known) = self.known.get(&identity)
            && known.made_of == made_of
        {
            return Arc::clone(&known.policy);
        }
        let rules = |direction| {
            let mut rules = Rules::new(direction, workload, resolved);
            rules.add_all(selecting);
            rules.rules
        };
        let policy = Arc::new(EndpointPolicy {
            identity,
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
        });
        let known = Known {
            made_of,
            policy: Arc::clone(&policy),
        };
        self.known.insert(identity, known);
        policy
    }

    /// Forgets all but these identities.
    pub fn retain(&mut self, identities: &BTreeSet<u32>) {
        self.known
            .retain(|identity, _| identities.contains(identity));
    }
}

/// Numbers that are the same as long as the rules are.
fn made_of(workload: &Matched, selecting: &Selecting, resolved: &ResolvedPorts) -> Vec<u64> {
    let mut made_of = Vec::new();
    for source in selecting.sources() {
        made_of.push(source.serial);
        for peer in source.peers.egress.iter().flatten() {
            for (port, number) in resolved.get(&peer.number).into_iter().flatten() {
                made_of.extend([u64::from(*port), u64::from(*number)]);
            }
        }
    }
    let members = workload.groups.iter().flat_map(|groups| &groups.policies);
    made_of.extend(members.map(|member| member.serial));
    made_of
}

/// Rules of one direction while they are put together.
struct Rules<'a> {
    direction: Direction,
    workload: &'a Matched,
    resolved: &'a ResolvedPorts,
    rules: Vec<PolicyRule>,
    /// What rules of the tier match already; a second one would never be reached.
    taken: HashSet<(u8, Match)>,
}

/// What a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Match {
    peer: Option<u32>,
    protocol: Option<u8>,
    ports: Option<PortRange>,
}

impl<'a> Rules<'a> {
    fn new(direction: Direction, workload: &'a Matched, resolved: &'a ResolvedPorts) -> Self {
        Self {
            direction,
            workload,
            resolved,
            rules: Vec::new(),
            taken: HashSet::new(),
        }
    }

    fn add_all(&mut self, selecting: &Selecting) {
        self.add_policies(&selecting.admin);
        if let Some(groups) = &selecting.groups {
            self.add_policies(groups);
            let policies = self.workload.groups.iter().flat_map(|g| &g.policies);
            let objects = policies.map(|source| source.membership.object.as_str());
            self.isolate(Tier::Groups, objects);
        }
        let is_about = |source: &&Arc<Source>| *source.policy.isolates.get(self.direction);
        let isolating: Vec<_> = selecting.network.iter().filter(is_about).cloned().collect();
        self.add_policies(&isolating);
        if !isolating.is_empty() {
            let objects = isolating.iter().map(|source| source.policy.object.as_str());
            self.isolate(Tier::Network, objects);
        }
        self.add_policies(&selecting.baseline);
    }

    fn add_policies(&mut self, sources: &[Arc<Source>]) {
        for source in sources {
            let clauses = source.policy.clauses.get(self.direction);
            let peers = source.peers.get(self.direction);
            for (clause, peer) in clauses.iter().zip(peers) {
                self.add_clause(source, clause, peer.as_ref());
            }
        }
    }

    fn add_clause(&mut self, source: &Source, clause: &Clause, peer: Option<&NumberedPeer>) {
        let origin = || RuleOrigin {
            object: source.policy.object.clone(),
            rule: clause.place.clone(),
        };
        let tier = source.policy.tier;
        for matched in self.matches(clause, peer.map(|peer| peer.number)) {
            self.add(tier, matched, clause.verdict, origin);
        }
    }

    /// What a clause matches; a port name gives as many as there are numbers it stands for.
    fn matches(&self, clause: &Clause, peer: Option<u32>) -> Vec<Match> {
        let one = |peer, protocol, ports| {
            vec![Match {
                peer,
                protocol,
                ports,
            }]
        };
        let single = |port: u16| PortRange {
            first: port,
            last: port,
        };
        match &clause.traffic {
            Traffic::Any => one(peer, None, None),
            Traffic::Protocol(protocol) => one(peer, Some(*protocol), None),
            Traffic::Ports(protocol, ports) => one(peer, Some(*protocol), Some(*ports)),
            Traffic::Named(protocol, name) => match self.direction {
                Direction::Ingress => {
                    let ports = &self.workload.kind.ports;
                    let port = ports.get(&(name.clone(), *protocol));
                    port.map_or_else(Vec::new, |port| {
                        one(peer, Some(*protocol), Some(single(*port)))
                    })
                }
                Direction::Egress => {
                    let found = peer.and_then(|peer| self.resolved.get(&peer));
                    let found = found.into_iter().flatten();
                    found
                        .map(|(port, number)| Match {
                            peer: Some(*number),
                            protocol: Some(*protocol),
                            ports: Some(single(*port)),
                        })
                        .collect()
                }
            },
        }
    }

    fn isolate<'o>(&mut self, tier: Tier, objects: impl Iterator<Item = &'o str>) {
        let origin = RuleOrigin {
            object: join(objects),
            rule: format!("isolates {}", self.direction.field()),
        };
        self.add(tier, Match::default(), RuleVerdict::Deny, || origin);
    }

    fn add(
        &mut self,
        tier: Tier,
        matched: Match,
        verdict: RuleVerdict,
        origin: impl FnOnce() -> RuleOrigin,
    ) {
        let tier = tier as u8;
        if self.taken.insert((tier, matched)) {
            self.rules.push(PolicyRule {
                tier,
                peer: matched.peer,
                protocol: matched.protocol,
                ports: matched.ports,
                verdict,
                origin: origin(),
            });
        }
    }
}

/// Names, as many as fit, and how many more there are.
fn join<'o>(objects: impl Iterator<Item = &'o str>) -> String {
    let mut text = String::new();
    let mut left_out = 0;
    for object in objects {
        let fits = text.len() + object.len() <= ORIGIN_MAX;
        match (text.is_empty(), fits && left_out == 0) {
            (true, _) => text.push_str(object),
            (false, true) => {
                text.push_str(", ");
                text.push_str(object);
            }
            (false, false) => left_out += 1,
        }
    }
    if left_out > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {left_out} more");
    }
    text
}

/// Sorts port numbers by the peers that have the names.
pub(super) fn by_peers(resolved: impl Iterator<Item = Resolved>) -> ResolvedPorts {
    let mut all: Vec<Resolved> = resolved.collect();
    all.sort_unstable();
    all.dedup();
    let mut ports = ResolvedPorts::new();
    for resolved in all {
        let found = ports.entry(resolved.peers).or_default();
        found.insert((resolved.port, resolved.number));
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_not_listed() {
        let names: Vec<String> = (0..1_000)
            .map(|n| format!("NetworkPolicy shop/{n}"))
            .collect();
        let text = join(names.iter().map(String::as_str));
        assert!(text.len() < ORIGIN_MAX + 30, "{text}");
        assert!(text.starts_with("NetworkPolicy shop/0, NetworkPolicy shop/1, "));
        assert!(text.ends_with(" more"));
        assert_eq!(
            join(names[..2].iter().map(String::as_str))
                .matches(',')
                .count(),
            1
        );
    }
}
