//! What table objects say of a packet, found the plainest way: longest prefix, then the rules from
//! the first to the last.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::object::Object;
use weft_api::policy::{
    EndpointPolicy, IDENTITY_WORLD, Identity, PolicyAddress, PolicyRule, RuleOrigin, RuleVerdict,
};

use super::Packet;

/// Table objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Whom addresses belong to.
    pub addresses: Vec<PolicyAddress>,
    /// What selectors match whom.
    pub identities: Vec<Identity>,
    /// Rules of local pods.
    pub endpoints: Vec<EndpointPolicy>,
}

/// What the rules of one pod say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The connection may be; by a rule, or because none speaks of it.
    Allowed(Option<&'a RuleOrigin>),
    /// It may not.
    Denied(&'a RuleOrigin),
    /// Nobody gave rules for the pod.
    NoRules,
}

impl Tables {
    /// Takes the objects that are about policies.
    pub fn of(objects: impl Iterator<Item = Object>) -> Self {
        let mut tables = Self::default();
        for object in objects {
            match object {
                Object::Identity(identity) => {
                    tables.identities.push(Arc::unwrap_or_clone(identity));
                }
                Object::PolicyAddress(address) => {
                    tables.addresses.push(Arc::unwrap_or_clone(address));
                }
                Object::EndpointPolicy(endpoint) => {
                    tables.endpoints.push(Arc::unwrap_or_clone(endpoint));
                }
                _ => {}
            }
        }
        tables
    }

    /// What the rules of the packet's destination say.
    pub fn ingress(&self, packet: &Packet) -> Verdict<'_> {
        match self.endpoint(packet.destination) {
            Some(endpoint) => self.decide(&endpoint.ingress, packet.source, packet),
            None => Verdict::NoRules,
        }
    }

    /// What the rules of the packet's source say.
    pub fn egress(&self, packet: &Packet) -> Verdict<'_> {
        match self.endpoint(packet.source) {
            Some(endpoint) => self.decide(&endpoint.egress, packet.destination, packet),
            None => Verdict::NoRules,
        }
    }

    /// Whom an address belongs to.
    pub fn identity(&self, address: IpAddr) -> u32 {
        let around = self.addresses.iter();
        let around = around.filter(|known| known.prefix.contains(&address));
        let longest = around.max_by_key(|known| known.prefix.prefix_len());
        longest.map_or(IDENTITY_WORLD, |known| known.identity)
    }

    fn endpoint(&self, address: IpAddr) -> Option<&EndpointPolicy> {
        let identity = self.identity(address);
        let mut endpoints = self.endpoints.iter();
        endpoints.find(|endpoint| endpoint.identity == identity)
    }

    fn decide<'a>(&'a self, rules: &'a [PolicyRule], peer: IpAddr, packet: &Packet) -> Verdict<'a> {
        let peer = self.identity(peer);
        let known = self.identities.iter().find(|identity| identity.id == peer);
        let selectors = known.map_or(&[][..], |identity| &identity.selectors);
        let mut passed = None;
        for rule in rules {
            let matches = passed != Some(rule.tier)
                && rule.peer.is_none_or(|peer| selectors.contains(&peer))
                && rule.protocol.is_none_or(|number| number == packet.protocol)
                && rule
                    .ports
                    .is_none_or(|ports| (ports.first..=ports.last).contains(&packet.port));
            match rule.verdict {
                _ if !matches => {}
                RuleVerdict::Allow => return Verdict::Allowed(Some(&rule.origin)),
                RuleVerdict::Deny => return Verdict::Denied(&rule.origin),
                RuleVerdict::Pass => passed = Some(rule.tier),
            }
        }
        Verdict::Allowed(None)
    }
}
