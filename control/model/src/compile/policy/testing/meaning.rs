//! Tables without the numbers that two compilers give in different order: an identity is the addresses it has, a
//! selector the addresses it matches.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_api::PodRef;
use weft_api::policy::{PolicyRule, PortRange, RuleOrigin, RuleVerdict};

use super::interpreter::Tables;

type Prefixes = BTreeSet<IpNet>;

/// A rule whose peer is whom its selector matches.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    tier: u8,
    peer: Option<Prefixes>,
    protocol: Option<u8>,
    ports: Option<PortRange>,
    verdict: RuleVerdict,
    origin: RuleOrigin,
}

/// What table objects mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    addresses: Vec<(IpNet, Option<PodRef>)>,
    /// Names and what the selectors that match it match, by addresses.
    identities: BTreeMap<Prefixes, (String, Vec<Prefixes>)>,
    /// Rules of ingress and egress, by addresses.
    endpoints: BTreeMap<Prefixes, [Vec<Rule>; 2]>,
}

impl Meaning {
    /// Panics where two identities have the same addresses, or none.
    pub fn of(tables: &Tables) -> Self {
        let mut owned: BTreeMap<u32, Prefixes> = BTreeMap::new();
        for address in &tables.addresses {
            let prefixes = owned.entry(address.identity).or_default();
            assert!(prefixes.insert(address.prefix), "a prefix has one identity");
        }
        let mut matched: BTreeMap<u32, Prefixes> = BTreeMap::new();
        for identity in &tables.identities {
            for selector in &identity.selectors {
                let prefixes = matched.entry(*selector).or_default();
                prefixes.extend(&owned[&identity.id]);
            }
        }
        let mut identities = BTreeMap::new();
        for identity in &tables.identities {
            let selectors = identity.selectors.iter();
            let mut selectors: Vec<Prefixes> = selectors.map(|it| matched[it].clone()).collect();
            selectors.sort();
            let meaning = (identity.name.clone(), selectors);
            let other = identities.insert(owned[&identity.id].clone(), meaning);
            assert_eq!(other, None);
        }
        let rules = |rules: &[PolicyRule]| rules.iter().map(|it| Rule::of(it, &matched)).collect();
        let endpoints = tables.endpoints.iter().map(|endpoint| {
            let both = [rules(&endpoint.ingress), rules(&endpoint.egress)];
            (owned[&endpoint.identity].clone(), both)
        });
        let addresses = tables.addresses.iter();
        Self {
            addresses: addresses.map(|it| (it.prefix, it.pod.clone())).collect(),
            identities,
            endpoints: endpoints.collect(),
        }
    }
}

impl Rule {
    fn of(rule: &PolicyRule, matched: &BTreeMap<u32, Prefixes>) -> Self {
        let PolicyRule {
            tier,
            peer,
            protocol,
            ports,
            verdict,
            ref origin,
        } = *rule;
        Self {
            tier,
            peer: peer.map(|selector| matched.get(&selector).cloned().unwrap_or_default()),
            protocol,
            ports,
            verdict,
            origin: origin.clone(),
        }
    }
}
