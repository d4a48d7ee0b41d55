//! Mistakes a compiler of policies could make. A test that compares verdicts must find each.
//!
//! Some are made in the objects the compiler is given, so that it compiles something else than what
//! stands there; the others in what it makes.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_api::policy::{PolicyRule, RuleVerdict};

use super::Cluster;
use super::interpreter::Tables;
use crate::manifest::cluster_network_policy::ClusterRule;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `ipBlock.except` is not read.
    DropsExcept,
    /// Of a port range only the first port counts.
    IgnoresEndPort,
    /// Ingress rules are taken for egress and the other way round.
    SwapsDirections,
    /// A podSelector without a namespaceSelector selects in all namespaces.
    IgnoresOwnNamespace,
    /// A namespaceSelector beside a podSelector is not read.
    IgnoresNamespaceSelector,
    /// `NotIn` is read as `In`.
    ReadsNotInAsIn,
    /// `Exists` holds always.
    ReadsExistsAsTrue,
    /// `DoesNotExist` is read as `Exists`.
    ReadsDoesNotExistAsExists,
    /// `matchExpressions` beside or without `matchLabels` are not read.
    IgnoresExpressions,
    /// A protocol that is absent is UDP, and not TCP.
    DefaultsToUdp,
    /// A port name matches no port.
    LosesNamedPorts,
    /// A policy without `policyTypes` never isolates egress.
    ForgetsEgressType,
    /// An empty list of peers means nobody.
    ReadsEmptyPeersAsNobody,
    /// A pod selected by a policy is not isolated.
    LosesIsolation,
    /// Priorities are not looked at.
    IgnoresPriority,
    /// `Pass` allows.
    ReadsPassAsAccept,
    /// The Baseline tier goes before all others.
    PutsBaselineFirst,
    /// A pod's IPv6 address is nobody's.
    LosesIpv6,
    /// What security groups do not allow is not denied.
    LosesGroups,
    /// Rules of SCTP count for UDP.
    MistakesSctpForUdp,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::DropsExcept,
        Self::IgnoresEndPort,
        Self::SwapsDirections,
        Self::IgnoresOwnNamespace,
        Self::IgnoresNamespaceSelector,
        Self::ReadsNotInAsIn,
        Self::ReadsExistsAsTrue,
        Self::ReadsDoesNotExistAsExists,
        Self::IgnoresExpressions,
        Self::DefaultsToUdp,
        Self::LosesNamedPorts,
        Self::ForgetsEgressType,
        Self::ReadsEmptyPeersAsNobody,
        Self::LosesIsolation,
        Self::IgnoresPriority,
        Self::ReadsPassAsAccept,
        Self::PutsBaselineFirst,
        Self::LosesIpv6,
        Self::LosesGroups,
        Self::MistakesSctpForUdp,
    ];

    /// Makes the mistake in what the compiler reads.
    pub fn apply_to_cluster(self, cluster: &mut Cluster) {
        let specs = cluster.policies.iter_mut();
        for spec in specs.filter_map(|policy| policy.spec.as_mut()) {
            self.apply_to_spec(spec);
            let selector = spec.pod_selector.iter_mut();
            selector.for_each(|selector| self.apply_to_selector(selector));
            for peer in peers(spec) {
                self.apply_to_peer(peer);
            }
            for port in ports(spec) {
                self.apply_to_port(port);
            }
        }
        for policy in &mut cluster.cluster_policies {
            if self == Self::IgnoresPriority {
                policy.spec.priority = Some(7);
            }
            let rules = policy
                .spec
                .ingress
                .iter_mut()
                .chain(&mut policy.spec.egress);
            rules.for_each(|rule| self.apply_to_rule(rule));
        }
        if self == Self::LosesGroups {
            cluster.group_policies.clear();
        }
    }

    /// Makes the mistake in what the compiler made.
    pub fn apply_to_tables(self, tables: &mut Tables) {
        if self == Self::LosesIpv6 {
            let is_pod_v6 = |prefix: &ipnet::IpNet| {
                prefix.network().is_ipv6() && prefix.prefix_len() == prefix.max_prefix_len()
            };
            tables.addresses.retain(|known| !is_pod_v6(&known.prefix));
        }
        for endpoint in &mut tables.endpoints {
            if self == Self::SwapsDirections {
                std::mem::swap(&mut endpoint.ingress, &mut endpoint.egress);
            }
            self.apply_to_rules(&mut endpoint.ingress);
            self.apply_to_rules(&mut endpoint.egress);
        }
    }

    fn apply_to_rules(self, rules: &mut Vec<PolicyRule>) {
        const LAST_TIER: u8 = 3;
        match self {
            Self::IgnoresEndPort => {
                let ports = rules.iter_mut().filter_map(|rule| rule.ports.as_mut());
                ports.for_each(|ports| ports.last = ports.first);
            }
            Self::LosesIsolation => {
                rules.retain(|rule| !rule.origin.rule.starts_with("isolates"));
            }
            Self::PutsBaselineFirst => rules.sort_by_key(|rule| rule.tier != LAST_TIER),
            Self::MistakesSctpForUdp => {
                let numbers = rules.iter_mut().filter_map(|rule| rule.protocol.as_mut());
                numbers
                    .filter(|number| **number == 132)
                    .for_each(|number| *number = 17);
            }
            Self::ReadsPassAsAccept => {
                let passing = rules
                    .iter_mut()
                    .filter(|rule| rule.verdict == RuleVerdict::Pass);
                passing.for_each(|rule| rule.verdict = RuleVerdict::Allow);
            }
            _ => {}
        }
    }

    fn apply_to_spec(self, spec: &mut NetworkPolicySpec) {
        let rules = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        match self {
            Self::ForgetsEgressType if spec.policy_types.is_none() && rules => {
                spec.policy_types = Some(vec!["Ingress".to_owned()]);
            }
            Self::ReadsEmptyPeersAsNobody => {
                let some = |peers: &Option<Vec<NetworkPolicyPeer>>| {
                    peers.as_ref().is_some_and(|peers| !peers.is_empty())
                };
                let ingress = spec.ingress.iter_mut();
                ingress.for_each(|rules| rules.retain(|rule| some(&rule.from)));
                // The type stays, though the rules it comes from may be gone.
                let types = ["Ingress", "Egress"].map(str::to_owned).to_vec();
                spec.policy_types = spec.policy_types.take().or(rules.then_some(types));
                let egress = spec.egress.iter_mut();
                egress.for_each(|rules| rules.retain(|rule| some(&rule.to)));
            }
            _ => {}
        }
    }

    fn apply_to_peer(self, peer: &mut NetworkPolicyPeer) {
        if let Some(block) = peer.ip_block.as_mut().filter(|_| self == Self::DropsExcept) {
            block.except = None;
        }
        let (namespaces, pods) = (&mut peer.namespace_selector, &mut peer.pod_selector);
        match self {
            Self::IgnoresOwnNamespace if namespaces.is_none() && pods.is_some() => {
                *namespaces = Some(LabelSelector::default());
            }
            Self::IgnoresNamespaceSelector if namespaces.is_some() && pods.is_some() => {
                *namespaces = None;
            }
            _ => {}
        }
        for selector in namespaces.iter_mut().chain(pods) {
            self.apply_to_selector(selector);
        }
    }

    fn apply_to_selector(self, selector: &mut LabelSelector) {
        if self == Self::IgnoresExpressions {
            selector.match_expressions = None;
        }
        let Some(expressions) = &mut selector.match_expressions else {
            return;
        };
        if self == Self::ReadsExistsAsTrue {
            expressions.retain(|expression| expression.operator != "Exists");
        }
        for expression in expressions {
            let operator = match (self, expression.operator.as_str()) {
                (Self::ReadsNotInAsIn, "NotIn") => "In",
                (Self::ReadsDoesNotExistAsExists, "DoesNotExist") => "Exists",
                _ => continue,
            };
            expression.operator = operator.to_owned();
        }
    }

    fn apply_to_port(self, port: &mut NetworkPolicyPort) {
        if self == Self::LosesNamedPorts && matches!(port.port, Some(IntOrString::String(_))) {
            port.port = Some(IntOrString::String("nobody".to_owned()));
        }
        if self == Self::DefaultsToUdp && port.protocol.is_none() {
            port.protocol = Some("UDP".to_owned());
        }
    }

    fn apply_to_rule(self, rule: &mut ClusterRule) {
        let protocols = rule.protocols.iter_mut().flatten();
        let named = protocols.filter_map(|entry| entry.destination_named_port.as_mut());
        if self == Self::LosesNamedPorts {
            named.for_each(|name| *name = "nobody".to_owned());
        }
    }
}

fn peers(spec: &mut NetworkPolicySpec) -> Vec<&mut NetworkPolicyPeer> {
    let ingress = spec.ingress.iter_mut().flatten();
    let sources = ingress.flat_map(|rule| rule.from.iter_mut().flatten());
    let egress = spec.egress.iter_mut().flatten();
    let destinations = egress.flat_map(|rule| rule.to.iter_mut().flatten());
    sources.chain(destinations).collect()
}

fn ports(spec: &mut NetworkPolicySpec) -> Vec<&mut NetworkPolicyPort> {
    let ingress = spec.ingress.iter_mut().flatten();
    let ingress = ingress.flat_map(|rule| rule.ports.iter_mut().flatten());
    let egress = spec.egress.iter_mut().flatten();
    let egress = egress.flat_map(|rule| rule.ports.iter_mut().flatten());
    ingress.chain(egress).collect()
}
