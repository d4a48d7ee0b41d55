//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
//!
//! The API says how a rule that cannot be read fails closed: one that accepts matches nothing, any
//! other denies everything. The same is done for every other mistake in a rule. Where tier, priority
//! or subject are wrong nobody knows what comes before what or whom it is about: then the subject
//! (all pods, where it is the subject) is denied, behind all readable policies of the Admin tier, in
//! the directions the policy has rules for.

use weft_api::policy::{PortRange, RuleVerdict};

use super::network_policy::port_number;
use super::rule::{Clause, Direction, Fault, Policy, Tier, Traffic, protocol};
use super::selector::{Block, LabelQuery, NamespaceQuery, PodQuery, Selector, SelectorFault};
use crate::facts::BadValue;
use crate::manifest::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterPeer, ClusterPort, ClusterProtocol, ClusterRule, NamespacedPod,
    Subject,
};

/// Highest priority value of the API.
const PRIORITY_MAX: i64 = 1_000;

const RULE_MATCHES_NOTHING: &str = "the rule is left out";
const RULE_DENIES: &str = "the rule denies everything";
const SUBJECT_DENIED: &str = "its pods are cut off in the directions it has rules for";
const ALL_DENIED: &str = "every pod is cut off in the directions it has rules for";
const CLUSTER_DENIED: &str = "every pod is cut off";

/// Traffic a destination's port name can be of.
const NAMED_PROTOCOLS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];

/// Why a rule cannot be used.
struct RuleFault {
    fault: SelectorFault,
    broken: bool,
}

/// Reads a policy.
pub(super) fn read(object: String, policy: &ClusterNetworkPolicy) -> Policy {
    let spec = &policy.spec;
    let mut read = Policy::new(object, Tier::Admin);
    match spec.tier.as_str() {
        "Admin" => {}
        "Baseline" => read.tier = Tier::Baseline,
        text => {
            let bad = bad(
                text,
                format!("spec.tier: '{text}' is neither Admin nor Baseline"),
            );
            read.fault(bad, SUBJECT_DENIED);
        }
    }
    match spec.priority {
        Some(priority) if (0..=PRIORITY_MAX).contains(&priority) => read.priority = priority,
        other => {
            let text = other.map_or_else(|| "nothing".to_owned(), |number| number.to_string());
            let bad = bad(
                &text,
                format!("spec.priority: {text} is not one of 0 to 1000"),
            );
            read.fault(bad, SUBJECT_DENIED);
        }
    }
    match read_subject(&spec.subject) {
        Ok(subject) => read.subject = Some(subject),
        Err(fault) => {
            read.subject = Some(PodQuery::all());
            read.fault(fault.at("spec.subject").into(), ALL_DENIED);
        }
    }
    let cut_off = !read.faults.is_empty();
    for direction in Direction::BOTH {
        let rules = match direction {
            Direction::Ingress => &spec.ingress,
            Direction::Egress => &spec.egress,
        };
        for (index, rule) in rules.iter().enumerate() {
            add_rule(&mut read, direction, index, rule);
        }
        if cut_off {
            let any = !rules.is_empty();
            read.clauses.get_mut(direction).clear();
            read.clauses
                .get_mut(direction)
                .extend(any.then(deny_everything));
        }
    }
    if cut_off {
        (read.tier, read.priority) = (Tier::Admin, PRIORITY_MAX + 1);
    }
    read
}

/// A policy nothing but the name is known of.
pub(super) fn unreadable(object: String) -> Policy {
    let mut policy = Policy::new(object, Tier::Admin);
    policy.subject = Some(PodQuery::all());
    policy.priority = PRIORITY_MAX + 1;
    for direction in Direction::BOTH {
        policy.clauses.get_mut(direction).push(deny_everything());
    }
    policy.fault(bad("", "cannot be read".to_owned()), CLUSTER_DENIED);
    policy
}

fn deny_everything() -> Clause {
    Clause {
        peer: None,
        traffic: Traffic::Any,
        verdict: RuleVerdict::Deny,
        place: "cannot be read".to_owned(),
    }
}

fn bad(value: &str, reason: String) -> BadValue {
    BadValue {
        value: value.to_owned(),
        reason,
    }
}

fn read_subject(subject: &Subject) -> Result<PodQuery, SelectorFault> {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => {
            let labels = LabelQuery::of(namespaces).map_err(|fault| fault.at(".namespaces"))?;
            Ok(of_namespaces(labels))
        }
        (None, Some(pods)) => read_pods(pods).map_err(|fault| fault.at(".pods")),
        _ => Err(SelectorFault::new(
            "",
            "must have one of namespaces and pods".to_owned(),
        )),
    }
}

fn of_namespaces(labels: LabelQuery) -> PodQuery {
    PodQuery {
        namespaces: NamespaceQuery::Labelled(labels),
        pods: LabelQuery::default(),
    }
}

fn read_pods(pods: &NamespacedPod) -> Result<PodQuery, SelectorFault> {
    let namespaces =
        LabelQuery::of(&pods.namespace_selector).map_err(|f| f.at(".namespaceSelector"))?;
    let Some(selector) = &pods.pod_selector else {
        let reason = "is required".to_owned();
        return Err(SelectorFault::new("", reason).at(".podSelector"));
    };
    let pods = LabelQuery::of(selector).map_err(|fault| fault.at(".podSelector"))?;
    Ok(PodQuery {
        namespaces: NamespaceQuery::Labelled(namespaces),
        pods,
    })
}

fn add_rule(read: &mut Policy, direction: Direction, index: usize, rule: &ClusterRule) {
    let field = direction.field();
    let mut place = format!("{field}[{index}]");
    if !rule.name.is_empty() {
        place = format!("{place} {}", rule.name);
    }
    let verdict = match rule.action.as_str() {
        "Accept" => Some(RuleVerdict::Allow),
        "Deny" => Some(RuleVerdict::Deny),
        "Pass" => Some(RuleVerdict::Pass),
        _ => None,
    };
    let RuleFault { fault, broken } = match (read_rule(direction, rule), verdict) {
        (Ok((peers, traffic)), Some(verdict)) => {
            let clauses = Clause::product(&peers, &traffic, verdict, &place);
            return read.clauses.get_mut(direction).extend(clauses);
        }
        (Ok(_), None) => {
            let reason = format!("'{}' is none of Accept, Deny and Pass", rule.action);
            SelectorFault::new(&rule.action, reason)
                .at(".action")
                .into()
        }
        (Err(fault), _) => fault,
    };
    let accepts = verdict == Some(RuleVerdict::Allow);
    if !accepts {
        let denies = deny_everything();
        read.clauses
            .get_mut(direction)
            .push(Clause { place, ..denies });
    }
    read.faults.push(Fault {
        bad: fault.at(&format!("spec.{field}[{index}]")).into(),
        consequence: if accepts {
            RULE_MATCHES_NOTHING
        } else {
            RULE_DENIES
        },
        broken,
    });
}

type Halves = (Vec<Option<Selector>>, Vec<Traffic>);

fn read_rule(direction: Direction, rule: &ClusterRule) -> Result<Halves, RuleFault> {
    let (field, list, other) = match direction {
        Direction::Ingress => ("from", &rule.from, &rule.to),
        Direction::Egress => ("to", &rule.to, &rule.from),
    };
    if list.is_empty() || !other.is_empty() {
        let reason = format!("must have {field}, with at least one peer, and no other peers");
        return Err(SelectorFault::new("", reason).into());
    }
    let mut traffic = Vec::new();
    for (index, entry) in rule.protocols.iter().flatten().enumerate() {
        let at = |fault: SelectorFault| fault.at(&format!(".protocols[{index}]"));
        traffic.extend(read_protocol(entry).map_err(at)?);
    }
    let mut peers = Vec::new();
    for (index, peer) in list.iter().enumerate() {
        let found = read_peer(direction, peer).map_err(|mut fault| {
            fault.fault = fault.fault.at(&format!(".{field}[{index}]"));
            fault
        })?;
        peers.extend(found.into_iter().map(Some));
    }
    let named = traffic.iter().any(|t| matches!(t, Traffic::Named(..)));
    let has_names = |peer: &Option<Selector>| matches!(peer, Some(Selector::Pods(_)));
    if named && !peers.iter().all(has_names) {
        let reason = "a named port stands with networks or nodes, which have none".to_owned();
        return Err(SelectorFault::new("", reason).at(".protocols").into());
    }
    match &rule.protocols {
        None => traffic.push(Traffic::Any),
        Some(list) if list.is_empty() => {
            let reason = "must have an entry, or be absent".to_owned();
            return Err(SelectorFault::new("", reason).at(".protocols").into());
        }
        Some(_) => {}
    }
    Ok((peers, traffic))
}

fn read_peer(direction: Direction, peer: &ClusterPeer) -> Result<Vec<Selector>, RuleFault> {
    let set = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        peer.networks.is_some(),
        peer.domain_names.is_some(),
    ];
    let egress_only = set[2..].contains(&true);
    if set.iter().filter(|is_set| **is_set).count() != 1
        || egress_only && direction == Direction::Ingress
    {
        let reason = "must have exactly one of the fields a peer can have here".to_owned();
        return Err(SelectorFault::new("", reason).into());
    }
    if let Some(namespaces) = &peer.namespaces {
        let labels = LabelQuery::of(namespaces).map_err(|fault| fault.at(".namespaces"))?;
        return Ok(vec![Selector::Pods(of_namespaces(labels))]);
    }
    if let Some(pods) = &peer.pods {
        let query = read_pods(pods).map_err(|fault| fault.at(".pods"))?;
        return Ok(vec![Selector::Pods(query)]);
    }
    if let Some(nodes) = &peer.nodes {
        let labels = LabelQuery::of(nodes).map_err(|fault| fault.at(".nodes"))?;
        return Ok(vec![Selector::Nodes(labels)]);
    }
    let networks = peer.networks.as_deref().unwrap_or(&[]);
    if peer.domain_names.is_some() {
        let reason = "weft does not enforce names of the DNS".to_owned();
        return Err(RuleFault {
            fault: SelectorFault::new("", reason).at(".domainNames"),
            broken: false,
        });
    }
    if networks.is_empty() {
        let reason = "must have at least one block".to_owned();
        return Err(SelectorFault::new("", reason).at(".networks").into());
    }
    let block = |(index, text): (usize, &String)| {
        let mut fault_place = format!(".networks[{index}]");
        Block::of(text, &[])
            .map(Selector::Block)
            .map_err(|mut fault| {
                fault.place = std::mem::take(&mut fault_place);
                fault
            })
    };
    let blocks: Result<Vec<_>, _> = networks.iter().enumerate().map(block).collect();
    Ok(blocks?)
}

fn read_protocol(entry: &ClusterProtocol) -> Result<Vec<Traffic>, SelectorFault> {
    let ports = [
        ("tcp", protocol::TCP, &entry.tcp),
        ("udp", protocol::UDP, &entry.udp),
        ("sctp", protocol::SCTP, &entry.sctp),
    ];
    let mut set = ports
        .iter()
        .filter_map(|(field, number, ports)| Some((*field, *number, ports.as_ref()?)));
    match (set.next(), set.next(), &entry.destination_named_port) {
        (Some((field, number, ports)), None, None) => {
            let at = |fault: SelectorFault| fault.at(&format!(".{field}.destinationPort"));
            let missing = || SelectorFault::new("", "is required".to_owned());
            let port = ports.destination_port.as_ref().ok_or_else(missing);
            let range = port.and_then(read_port).map_err(at)?;
            Ok(vec![Traffic::Ports(number, range)])
        }
        (None, None, Some(name)) if !name.is_empty() => {
            let named = |number: u8| Traffic::Named(number, name.clone());
            Ok(NAMED_PROTOCOLS.into_iter().map(named).collect())
        }
        _ => {
            let reason = "must have exactly one of tcp, udp, sctp and destinationNamedPort";
            Err(SelectorFault::new("", reason.to_owned()))
        }
    }
}

fn read_port(port: &ClusterPort) -> Result<PortRange, SelectorFault> {
    match (port.number, &port.range) {
        (Some(number), None) => {
            let number = port_number(number).map_err(|fault| fault.at(".number"))?;
            Ok(PortRange {
                first: number,
                last: number,
            })
        }
        (None, Some(range)) => {
            let first = port_number(range.start).map_err(|fault| fault.at(".range.start"))?;
            let last = port_number(range.end).map_err(|fault| fault.at(".range.end"))?;
            match first < last {
                true => Ok(PortRange { first, last }),
                false => {
                    let reason = format!("the end {last} is not higher than the start {first}");
                    Err(SelectorFault::new(&range.end.to_string(), reason).at(".range"))
                }
            }
        }
        _ => Err(SelectorFault::new(
            "",
            "must have one of number and range".to_owned(),
        )),
    }
}

impl From<SelectorFault> for RuleFault {
    fn from(fault: SelectorFault) -> Self {
        Self {
            fault,
            broken: true,
        }
    }
}
