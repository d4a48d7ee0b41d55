//! Policy objects in, the engine's policies out.
//!
//! All objects are looked at each time, but only those that differ from what is in force are handed on, and
//! the engine's builder touches what depends on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_api::policy::{
    EndpointPolicy, IDENTITY_WORLD, Identity, PolicyAddress, PolicyRule, RuleOrigin,
    RuleVerdict as ApiVerdict,
};
use weft_engine::table::policy::has_ports;
use weft_engine::{PolicyBuilder, Rule, RuleId, RuleVerdict};
use weft_wire::Protocol;

/// The policy objects among the table objects.
#[derive(Default)]
pub struct PolicyObjects<'a> {
    pub(super) identities: Vec<&'a Arc<Identity>>,
    pub(super) addresses: Vec<&'a PolicyAddress>,
    pub(super) endpoints: Vec<&'a Arc<EndpointPolicy>>,
}

/// The policies in force, and what their rules are called.
#[derive(Default)]
pub struct Policies {
    identities: BTreeMap<u32, Arc<Identity>>,
    addresses: BTreeMap<IpNet, u32>,
    endpoints: BTreeMap<u32, Arc<EndpointPolicy>>,
    names: RuleNames,
}

impl Policies {
    /// Makes the builder's policies those of the objects.
    pub(super) fn apply(&mut self, objects: &PolicyObjects<'_>, builder: &mut PolicyBuilder) {
        self.set_identities(&objects.identities, builder);
        self.set_addresses(&objects.addresses, builder);
        self.set_endpoints(&objects.endpoints, builder);
    }

    /// Numbers that went from a rule that is no more to another since the last call.
    pub fn take_renamed(&mut self) -> Vec<RuleId> {
        std::mem::take(&mut self.names.renamed)
    }

    /// How the engine calls rules of this origin.
    pub fn rule_id(&self, origin: &RuleOrigin) -> RuleId {
        let known = self.names.by_origin.get(origin);
        known.map_or(RuleId::NONE, |(id, _)| *id)
    }

    /// Where a rule comes from.
    pub fn origin(&self, rule: RuleId) -> Option<&RuleOrigin> {
        self.names.by_id.get(&rule.0)
    }

    /// The identity of an address: its number and name. World's when it has none, or an unknown one.
    pub fn identity_of(&self, address: IpAddr) -> (u32, &str) {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let number = (0..=bits).rev().find_map(|len| {
            let net = IpNet::new(address, len).ok()?;
            self.addresses.get(&net.trunc()).copied()
        });
        self.identity(number.unwrap_or(IDENTITY_WORLD))
    }

    /// Number and name of an identity; world's when it is unknown.
    pub fn identity(&self, number: u32) -> (u32, &str) {
        let known = self.identities.get(&number);
        known.map_or((IDENTITY_WORLD, "world"), |it| (it.id, it.name.as_str()))
    }

    /// Identities a selector matches.
    pub fn matched_by(&self, selector: u32) -> impl Iterator<Item = &Identity> {
        let all = self.identities.values().map(|it| &**it);
        all.filter(move |it| it.selectors.binary_search(&selector).is_ok())
    }

    /// Rules by identity of their pods.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointPolicy> {
        self.endpoints.values().map(|it| &**it)
    }

    /// How many rules, endpoints, identities and addresses there are.
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        let rules = self.endpoints.values();
        [
            (
                "rules",
                rules.map(|it| it.ingress.len() + it.egress.len()).sum(),
            ),
            ("endpoints", self.endpoints.len()),
            ("identities", self.identities.len()),
            ("addresses", self.addresses.len()),
        ]
    }

    fn set_identities(&mut self, wanted: &[&Arc<Identity>], builder: &mut PolicyBuilder) {
        let wanted = wanted.iter().map(|it| (it.id, *it));
        let is_good = |it: &Arc<Identity>| check_identity(it).is_ok();
        let difference = difference(&self.identities, wanted, |a, b| a == b, is_good);
        for gone in difference.gone {
            self.identities.remove(&gone);
            builder.set_identity(gone, None);
        }
        for identity in difference.changed {
            builder.set_identity(identity.id, Some(identity.selectors.clone()));
            self.identities.insert(identity.id, Arc::clone(identity));
        }
    }

    fn set_addresses(&mut self, wanted: &[&PolicyAddress], builder: &mut PolicyBuilder) {
        let wanted = wanted.iter().map(|it| (it.prefix, *it));
        let same = |identity: &u32, it: &PolicyAddress| *identity == it.identity;
        let is_good = |it: &PolicyAddress| check_address(it).is_ok();
        let difference = difference(&self.addresses, wanted, same, is_good);
        for gone in difference.gone {
            self.addresses.remove(&gone);
            builder.set_address(gone, None);
        }
        for address in difference.changed {
            builder.set_address(address.prefix, Some(address.identity));
            self.addresses.insert(address.prefix, address.identity);
        }
    }

    fn set_endpoints(&mut self, wanted: &[&Arc<EndpointPolicy>], builder: &mut PolicyBuilder) {
        let wanted = wanted.iter().map(|it| (it.identity, *it));
        let is_good = |it: &Arc<EndpointPolicy>| check_endpoint(it).is_ok();
        let difference = difference(&self.endpoints, wanted, |a, b| a == b, is_good);
        for gone in difference.gone {
            builder.remove_rules(gone);
            if let Some(old) = self.endpoints.remove(&gone) {
                self.names.release(&old);
            }
        }
        for policy in difference.changed {
            // Before the old ones are given back, so that rules which stay keep their numbers.
            let ingress = self.names.rules(&policy.ingress);
            let egress = self.names.rules(&policy.egress);
            builder.set_rules(policy.identity, ingress, egress);
            let old = self.endpoints.insert(policy.identity, Arc::clone(policy));
            if let Some(old) = old {
                self.names.release(&old);
            }
        }
    }
}

/// What to do to what is present so that it becomes what is wanted.
struct Difference<'a, K, T> {
    /// To be removed, first.
    gone: Vec<K>,
    /// To be added or replaced.
    changed: Vec<&'a T>,
}

/// Compares in one walk through both, since table objects come in the order of their keys. One out of order would
/// be removed and added again. Those that contradict themselves are passed over: what was kept on disk was not checked
/// when it was read.
fn difference<'a, K: Ord + Copy, V, T>(
    present: &BTreeMap<K, V>,
    wanted: impl Iterator<Item = (K, &'a T)>,
    same: impl Fn(&V, &T) -> bool,
    is_good: impl Fn(&T) -> bool,
) -> Difference<'a, K, T> {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut old = present.iter().peekable();
    for (key, object) in wanted {
        while let Some((before, _)) = old.next_if(|(it, _)| **it < key) {
            gone.push(*before);
        }
        let before = old.next_if(|(it, _)| **it == key);
        if before.is_some_and(|(_, present)| same(present, object)) {
            continue;
        }
        if is_good(object) {
            changed.push(object);
        } else {
            gone.extend(before.map(|(key, _)| *key));
        }
    }
    gone.extend(old.map(|(key, _)| *key));
    Difference { gone, changed }
}

/// Numbers of rules by where they come from: rules of one origin share one.
#[derive(Default)]
struct RuleNames {
    /// With how many rules have it.
    by_origin: HashMap<RuleOrigin, (RuleId, u32)>,
    by_id: BTreeMap<u32, RuleOrigin>,
    /// Numbers given back.
    free: BTreeSet<u32>,
    renamed: Vec<RuleId>,
}

impl RuleNames {
    fn rules(&mut self, rules: &[PolicyRule]) -> Vec<Rule> {
        rules.iter().map(|rule| self.rule(rule)).collect()
    }

    fn rule(&mut self, rule: &PolicyRule) -> Rule {
        Rule {
            tier: rule.tier,
            peer: rule.peer,
            protocol: rule.protocol,
            ports: rule.ports.map(|ports| (ports.first, ports.last)),
            verdict: match rule.verdict {
                ApiVerdict::Allow => RuleVerdict::Allow,
                ApiVerdict::Deny => RuleVerdict::Deny,
                ApiVerdict::Pass => RuleVerdict::Pass,
            },
            id: self.acquire(&rule.origin),
        }
    }

    fn acquire(&mut self, origin: &RuleOrigin) -> RuleId {
        if let Some((id, uses)) = self.by_origin.get_mut(origin) {
            *uses += 1;
            return *id;
        }
        let id = match self.free.pop_first() {
            Some(number) => {
                self.renamed.push(RuleId(number));
                RuleId(number)
            }
            // 0 is no rule.
            None => RuleId(self.by_id.len() as u32 + 1),
        };
        self.by_origin.insert(origin.clone(), (id, 1));
        self.by_id.insert(id.0, origin.clone());
        id
    }

    fn release(&mut self, policy: &EndpointPolicy) {
        for rule in policy.ingress.iter().chain(&policy.egress) {
            let Some((id, uses)) = self.by_origin.get_mut(&rule.origin) else {
                continue;
            };
            *uses -= 1;
            if *uses == 0 {
                let number = id.0;
                self.by_origin.remove(&rule.origin);
                self.by_id.remove(&number);
                self.free.insert(number);
            }
        }
    }
}

/// Refuses an identity that contradicts itself.
///
/// # Errors
/// What is wrong with it, with its name.
pub(super) fn check_identity(identity: &Identity) -> Result<(), String> {
    let Identity {
        id,
        name,
        selectors,
    } = identity;
    if *id == IDENTITY_WORLD {
        return Err(format!("identity {name:?}: number {id} is the world's"));
    }
    if !selectors.is_sorted_by(|a, b| a < b) {
        return Err(format!(
            "identity {id} ({name}): its selectors are not ascending: {selectors:?}"
        ));
    }
    Ok(())
}

/// Refuses an address with bits behind its prefix: two of them could mean the same.
///
/// # Errors
/// As [`check_identity`].
pub(super) fn check_address(address: &PolicyAddress) -> Result<(), String> {
    let prefix = address.prefix;
    if prefix.trunc() != prefix {
        let meant = prefix.trunc();
        return Err(format!(
            "policy address {prefix}: bits are set behind the prefix; is it {meant}?"
        ));
    }
    Ok(())
}

/// Refuses rules that cannot mean anything.
///
/// # Errors
/// As [`check_identity`], with the rule's place and origin.
pub(super) fn check_endpoint(policy: &EndpointPolicy) -> Result<(), String> {
    let identity = policy.identity;
    if identity == IDENTITY_WORLD {
        return Err(format!(
            "endpoint policy of identity {identity}: that is the world's, which has no pods"
        ));
    }
    for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        let mut tier = 0;
        for (place, rule) in rules.iter().enumerate() {
            let wrong = if rule.tier < tier {
                Some(format!("tier {} stands behind tier {tier}", rule.tier))
            } else {
                check_ports(rule).err()
            };
            if let Some(wrong) = wrong {
                let RuleOrigin { object, rule } = &rule.origin;
                return Err(format!(
                    "endpoint policy of identity {identity}: {direction} rule {place} ({object}, {rule}): {wrong}"
                ));
            }
            tier = rule.tier;
        }
    }
    Ok(())
}

fn check_ports(rule: &PolicyRule) -> Result<(), String> {
    let Some(ports) = rule.ports else {
        return Ok(());
    };
    if !rule.protocol.is_some_and(|it| has_ports(Protocol(it))) {
        return Err(match rule.protocol {
            Some(protocol) => format!("protocol {protocol} has no ports"),
            None => "it names ports but no protocol".to_owned(),
        });
    }
    if ports.first > ports.last {
        return Err(format!("ports {} to {} are none", ports.first, ports.last));
    }
    Ok(())
}

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod generated_tests;
#[cfg(test)]
mod tests;
