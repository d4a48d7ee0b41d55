//! NetworkPolicy of `networking.k8s.io/v1`.
//!
//! A policy isolates the pods it selects in the directions it is about; its rules then allow. A rule
//! with something wrong in it is left out, the pods stay isolated. A `podSelector` that cannot be
//! read selects every pod of the namespace, and `policyTypes` that cannot be read are both.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_api::policy::{PortRange, RuleVerdict};

use super::rule::{Both, Clause, Direction, Policy, Tier, Traffic, protocol};
use super::selector::{Block, LabelQuery, NamespaceQuery, PodQuery, Selector, SelectorFault};
use crate::facts::BadValue;

const RULE_LEFT_OUT: &str = "the rule is left out, the pods stay isolated";
const WHOLE_NAMESPACE: &str = "every pod of the namespace is isolated";
const BOTH_DIRECTIONS: &str = "the pods are isolated in both directions";

/// Longest name of a port (RFC 6335, 5.1, as the Kubernetes API checks it).
const PORT_NAME_MAX: usize = 15;

/// Reads a policy of `namespace`.
pub(super) fn read(object: String, namespace: &str, policy: &NetworkPolicy) -> Policy {
    let mut read = Policy::new(object, Tier::Network);
    let default = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&default);
    read.isolates = directions(spec, &mut read);
    read.subject = Some(subject(namespace, spec, &mut read));
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let (peers, ports) = (rule.from.as_deref(), rule.ports.as_deref());
        let parts = Parts {
            peers: ("from", peers.unwrap_or(&[])),
            ports: ports.unwrap_or(&[]),
        };
        parts.add_to(&mut read, namespace, Direction::Ingress, index);
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let (peers, ports) = (rule.to.as_deref(), rule.ports.as_deref());
        let parts = Parts {
            peers: ("to", peers.unwrap_or(&[])),
            ports: ports.unwrap_or(&[]),
        };
        parts.add_to(&mut read, namespace, Direction::Egress, index);
    }
    for direction in Direction::BOTH {
        if !read.isolates.get(direction) {
            read.clauses.get_mut(direction).clear();
        }
    }
    read
}

/// A policy nothing but the name is known of.
pub(super) fn unreadable(object: String, namespace: &str) -> Policy {
    let mut policy = Policy::new(object, Tier::Network);
    policy.subject = Some(PodQuery::in_namespace(namespace));
    policy.isolates = Both {
        ingress: true,
        egress: true,
    };
    let bad = BadValue {
        value: String::new(),
        reason: "cannot be read".to_owned(),
    };
    policy.fault(bad, WHOLE_NAMESPACE);
    policy
}

/// `policyTypes`; without it a policy is about ingress, and about egress if it has egress rules.
fn directions(spec: &NetworkPolicySpec, read: &mut Policy) -> Both<bool> {
    let types = spec.policy_types.as_deref().unwrap_or(&[]);
    if types.is_empty() {
        return Both {
            ingress: true,
            egress: spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        };
    }
    let mut isolates = Both::default();
    for (index, text) in types.iter().enumerate() {
        match text.as_str() {
            "Ingress" => isolates.ingress = true,
            "Egress" => isolates.egress = true,
            _ => {
                let bad = BadValue {
                    value: text.clone(),
                    reason: format!(
                        "spec.policyTypes[{index}]: '{text}' is neither Ingress nor Egress"
                    ),
                };
                read.fault(bad, BOTH_DIRECTIONS);
                (isolates.ingress, isolates.egress) = (true, true);
            }
        }
    }
    isolates
}

fn subject(namespace: &str, spec: &NetworkPolicySpec, read: &mut Policy) -> PodQuery {
    let mut query = PodQuery::in_namespace(namespace);
    match LabelQuery::of(&spec.pod_selector.clone().unwrap_or_default()) {
        Ok(pods) => query.pods = pods,
        Err(fault) => read.fault(fault.at("spec.podSelector").into(), WHOLE_NAMESPACE),
    }
    query
}

/// The two halves of a rule of either direction.
struct Parts<'a> {
    /// The field's name and its peers.
    peers: (&'static str, &'a [NetworkPolicyPeer]),
    ports: &'a [NetworkPolicyPort],
}

impl Parts<'_> {
    fn add_to(&self, read: &mut Policy, namespace: &str, direction: Direction, index: usize) {
        let place = format!("{}[{index}]", direction.field());
        match self.clauses(namespace, &place) {
            Ok(clauses) => read.clauses.get_mut(direction).extend(clauses),
            Err(fault) => read.fault(fault.at(&format!("spec.{place}")).into(), RULE_LEFT_OUT),
        }
    }

    /// No peers at all are all peers, and no ports at all are all of them.
    fn clauses(&self, namespace: &str, place: &str) -> Result<Vec<Clause>, SelectorFault> {
        let (field, list) = self.peers;
        let mut peers = Vec::new();
        for (index, peer) in list.iter().enumerate() {
            let at = |fault: SelectorFault| fault.at(&format!(".{field}[{index}]"));
            peers.push(Some(read_peer(namespace, peer).map_err(at)?));
        }
        let mut traffic = Vec::new();
        for (index, port) in self.ports.iter().enumerate() {
            let at = |fault: SelectorFault| fault.at(&format!(".ports[{index}]"));
            traffic.push(read_port(port).map_err(at)?);
        }
        if peers.is_empty() {
            peers.push(None);
        }
        if traffic.is_empty() {
            traffic.push(Traffic::Any);
        }
        Ok(Clause::product(&peers, &traffic, RuleVerdict::Allow, place))
    }
}

fn read_peer(namespace: &str, peer: &NetworkPolicyPeer) -> Result<Selector, SelectorFault> {
    let (namespaces, pods) = (&peer.namespace_selector, &peer.pod_selector);
    if let Some(block) = &peer.ip_block {
        if namespaces.is_some() || pods.is_some() {
            let reason = "ipBlock stands beside a selector".to_owned();
            return Err(SelectorFault::new(&block.cidr, reason));
        }
        let except = block.except.as_deref().unwrap_or(&[]);
        let block = Block::of(&block.cidr, except).map_err(|fault| fault.at(".ipBlock"))?;
        return Ok(Selector::Block(block));
    }
    let mut query = PodQuery::in_namespace(namespace);
    match (namespaces, pods) {
        (None, None) => {
            let reason = "has none of ipBlock, namespaceSelector and podSelector".to_owned();
            return Err(SelectorFault::new("", reason));
        }
        (Some(selector), _) => {
            let labels = LabelQuery::of(selector).map_err(|f| f.at(".namespaceSelector"))?;
            query.namespaces = NamespaceQuery::Labelled(labels);
        }
        (None, Some(_)) => {}
    }
    if let Some(selector) = pods {
        query.pods = LabelQuery::of(selector).map_err(|fault| fault.at(".podSelector"))?;
    }
    Ok(Selector::Pods(query))
}

fn read_port(port: &NetworkPolicyPort) -> Result<Traffic, SelectorFault> {
    let text = port.protocol.as_deref().unwrap_or("TCP");
    let number = match text {
        "TCP" => protocol::TCP,
        "UDP" => protocol::UDP,
        "SCTP" => protocol::SCTP,
        _ => {
            let reason = format!("'{text}' is none of TCP, UDP and SCTP");
            return Err(SelectorFault::new(text, reason).at(".protocol"));
        }
    };
    let end = port.end_port;
    let bad_end = |reason: String| {
        let value = end.map_or_else(String::new, |end| end.to_string());
        Err(SelectorFault::new(&value, reason).at(".endPort"))
    };
    match (&port.port, end) {
        (None, None) => Ok(Traffic::Protocol(number)),
        (None, Some(_)) => bad_end("stands without a port".to_owned()),
        (Some(IntOrString::String(_)), Some(_)) => bad_end("stands with a named port".to_owned()),
        (Some(IntOrString::String(name)), None) => match is_port_name(name) {
            true => Ok(Traffic::Named(number, name.clone())),
            false => {
                let reason = format!("'{name}' is not the name of a port");
                Err(SelectorFault::new(name, reason).at(".port"))
            }
        },
        (Some(IntOrString::Int(first)), end) => {
            let first = port_number(i64::from(*first)).map_err(|fault| fault.at(".port"))?;
            let last = match end {
                None => first,
                Some(end) => port_number(i64::from(end)).map_err(|fault| fault.at(".endPort"))?,
            };
            match last < first {
                true => bad_end(format!("{last} is lower than the port {first}")),
                false => Ok(Traffic::Ports(number, PortRange { first, last })),
            }
        }
    }
}

/// A port number of a policy: 1 to 65,535.
pub(super) fn port_number(number: i64) -> Result<u16, SelectorFault> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    let reason = || format!("{number} is not a port");
    port.ok_or_else(|| SelectorFault::new(&number.to_string(), reason()))
}

fn is_port_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let has_letter = name.bytes().any(|b| b.is_ascii_lowercase());
    name.len() <= PORT_NAME_MAX && has_letter && name.bytes().all(fits)
}

impl From<SelectorFault> for BadValue {
    fn from(fault: SelectorFault) -> Self {
        Self {
            reason: fault.to_string(),
            value: fault.value,
        }
    }
}
