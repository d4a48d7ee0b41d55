//! Policies for people: what is in force with its counters, and what it says about one connection.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::PodRef;
use weft_api::dataplane::{Counter, PortKind};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::explain::{
    PeerStatus, PolicyEndpoint, PolicyExplained, PolicyList, PolicyOutcome, PolicyParty,
    PolicyQuestion, PolicySide, RuleStatus,
};
use weft_api::object::{Key, Object};
use weft_api::policy::PolicyRule;
use weft_engine::table::policy::has_ports;
use weft_engine::{Connection, DropReason, FrontendKey, PolicyCounters, Side, Tables, Traffic};
use weft_wire::Protocol;

use crate::compile::{Compiler, Policies, Services};
use crate::control::Control;
use crate::objects::ObjectStore;
use crate::ports::Ports;
use crate::worker_counters::WorkerReading;

/// Names of a rule's peers shown before it is only said how many there are.
const NAMES_SHOWN: usize = 3;

/// All drops that policies cause.
const DENIALS: [DropReason; 4] = [
    DropReason::NoPolicy,
    DropReason::PolicyEgress,
    DropReason::PolicyIngress,
    DropReason::PolicyRevoked,
];

/// How many of what there is, and packets denied.
pub fn counters(control: &Control, workers: &[(Option<usize>, WorkerReading)]) -> Vec<Counter> {
    let counter = |name: &str, count, description: &str| Counter {
        name: name.to_owned(),
        count,
        description: description.to_owned(),
    };
    let sizes = control.compiler.policies().sizes();
    let drops = workers.iter().map(|(_, reading)| &reading.drops);
    let denied = drops
        .map(|drops| DENIALS.iter().map(|it| drops[it.index()]).sum::<u64>())
        .sum();
    sizes
        .into_iter()
        .map(|(name, count)| counter(name, count as u64, ""))
        .chain([counter("denied", denied, "packets that no policy allowed")])
        .collect()
}

/// The policies of the node's pods.
///
/// # Errors
/// Failed when a worker does not answer.
pub fn list(control: &Control) -> Result<PolicyList, ApiError> {
    let counters = control.workers.policy_counters()?;
    Ok(View::of(control).list(&counters))
}

/// Whether a connection may be.
///
/// # Errors
/// See [`View::explain`].
pub fn explain(control: &Control, question: &PolicyQuestion) -> Result<PolicyExplained, ApiError> {
    View::of(control).explain(question)
}

fn nobody(identity: u32, name: &str) -> PolicyEndpoint {
    PolicyEndpoint {
        identity,
        name: name.to_owned(),
        pods: Vec::new(),
        addresses: Vec::new(),
        known: false,
        ingress: Vec::new(),
        egress: Vec::new(),
    }
}

fn rule_statuses(
    rules: &[PolicyRule],
    policies: &Policies,
    counters: &PolicyCounters,
) -> Vec<RuleStatus> {
    let status = |rule: &PolicyRule| {
        let (allowed, denied) = counters.of(policies.rule_id(&rule.origin));
        RuleStatus {
            tier: rule.tier,
            peer: rule.peer.map(|selector| peer(selector, policies)),
            protocol: rule.protocol,
            ports: rule.ports,
            verdict: rule.verdict,
            origin: rule.origin.clone(),
            allowed,
            denied,
        }
    };
    rules.iter().map(status).collect()
}

fn peer(selector: u32, policies: &Policies) -> PeerStatus {
    let names = policies.matched_by(selector).take(NAMES_SHOWN);
    PeerStatus {
        selector,
        names: names.map(|it| it.name.clone()).collect(),
        identities: policies.matched_by(selector).count() as u32,
    }
}

/// The policies in force as answers need them.
pub struct View<'a> {
    objects: &'a ObjectStore,
    ports: &'a Ports,
    tables: &'a Tables,
    policies: &'a Policies,
    services: &'a Services,
}

impl<'a> View<'a> {
    /// What is in force now.
    pub fn of(control: &'a Control) -> Self {
        let tables = &control.publisher.current().tables;
        Self::new(&control.objects, &control.ports, tables, &control.compiler)
    }

    /// What these are.
    pub fn new(
        objects: &'a ObjectStore,
        ports: &'a Ports,
        tables: &'a Tables,
        compiler: &'a Compiler,
    ) -> Self {
        let (policies, services) = (compiler.policies(), compiler.services());
        Self {
            objects,
            ports,
            tables,
            policies,
            services,
        }
    }

    /// Every identity with rules or with pods on this node.
    fn list(&self, counters: &PolicyCounters) -> PolicyList {
        let policies = self.policies;
        let mut endpoints: BTreeMap<u32, PolicyEndpoint> = BTreeMap::new();
        for policy in policies.endpoints() {
            let rules = |rules: &[PolicyRule]| rule_statuses(rules, policies, counters);
            let endpoint = PolicyEndpoint {
                known: true,
                ingress: rules(&policy.ingress),
                egress: rules(&policy.egress),
                ..nobody(policy.identity, policies.identity(policy.identity).1)
            };
            endpoints.insert(policy.identity, endpoint);
        }
        let pods = self.ports.iter().filter(|it| it.spec.kind == PortKind::Pod);
        for port in pods {
            for address in &port.spec.addresses {
                let (identity, name) = policies.identity_of(*address);
                let endpoint = endpoints
                    .entry(identity)
                    .or_insert_with(|| nobody(identity, name));
                endpoint.addresses.push(*address);
                let pod = port.spec.pod.iter();
                let new = pod.filter(|pod| !endpoint.pods.contains(pod));
                let new: Vec<PodRef> = new.cloned().collect();
                endpoint.pods.extend(new);
            }
        }
        PolicyList {
            endpoints: endpoints.into_values().collect(),
        }
    }

    /// Whether a connection may be, answered by what the workers ask.
    ///
    /// # Errors
    /// NotFound for a pod without address; BadRequest for a port that is missing, or for ends of two families.
    pub fn explain(&self, question: &PolicyQuestion) -> Result<PolicyExplained, ApiError> {
        let mut protocol = Protocol(question.protocol);
        if has_ports(protocol) && question.port.is_none() {
            let message = format!(
                "protocol {} has ports: say which, as in 80/tcp",
                question.protocol
            );
            return Err(ApiError::new(ErrorKind::BadRequest, message));
        }
        let port = question.port.filter(|_| has_ports(protocol)).unwrap_or(0);
        let (source, destination) = self.ends(question)?;
        if protocol == Protocol::ICMP && source.is_ipv6() {
            protocol = Protocol::ICMPV6;
        }
        let (egress, ingress) = self.sides(source, destination, Traffic::new(protocol, port));
        let refuses = |side: &PolicySide| {
            matches!(
                side.outcome,
                PolicyOutcome::Denied | PolicyOutcome::NoPolicy
            )
        };
        Ok(PolicyExplained {
            source: self.party(source),
            destination: self.party(destination),
            protocol: protocol.0,
            port,
            allowed: !refuses(&egress) && !refuses(&ingress),
            egress,
            ingress,
        })
    }

    /// Addresses of both ends, of one family.
    fn ends(&self, question: &PolicyQuestion) -> Result<(IpAddr, IpAddr), ApiError> {
        let sources = self.addresses(&question.source)?;
        let destinations = self.addresses(&question.destination)?;
        let mut pairs = sources.iter().flat_map(|source| {
            let same = |it: &&IpAddr| it.is_ipv4() == source.is_ipv4();
            destinations.iter().filter(same).map(|it| (*source, *it))
        });
        pairs.next().ok_or_else(|| {
            let message = format!(
                "{} and {} have no addresses of the same family",
                question.source, question.destination
            );
            ApiError::new(ErrorKind::BadRequest, message)
        })
    }

    /// The addresses an end is known by: its own, or those of the pod of this name, IPv4 first.
    ///
    /// # Errors
    /// NotFound when there are none.
    pub fn addresses(&self, end: &str) -> Result<Vec<IpAddr>, ApiError> {
        if let Ok(address) = end.parse() {
            return Ok(vec![address]);
        }
        let is_it = |pod: Option<&PodRef>| pod.is_some_and(|pod| pod.to_string() == end);
        let of_objects = self.objects.objects().filter_map(|object| match object {
            Object::PolicyAddress(it) if is_it(it.pod.as_ref()) => Some(it.prefix.addr()),
            _ => None,
        });
        let of_ports = self.ports.iter().filter(|it| is_it(it.spec.pod.as_ref()));
        let of_ports = of_ports.flat_map(|it| it.spec.addresses.iter().copied());
        let mut all: Vec<IpAddr> = of_objects.chain(of_ports).collect();
        all.sort_unstable();
        all.dedup();
        if all.is_empty() {
            let message = format!("{end} is neither an address nor a pod (NAMESPACE/POD) with one");
            return Err(ApiError::new(ErrorKind::NotFound, message));
        }
        Ok(all)
    }

    /// One end of a connection.
    pub fn party(&self, address: IpAddr) -> PolicyParty {
        let (identity, name) = self.policies.identity_of(address);
        PolicyParty {
            address,
            pod: self.pod(address).cloned(),
            identity,
            name: name.to_owned(),
        }
    }

    /// The pod that has an address.
    fn pod(&self, address: IpAddr) -> Option<&PodRef> {
        let mut ports = self.ports.iter();
        let port = ports.find(|port| port.spec.addresses.contains(&address));
        let prefix = IpNet::from(address);
        port.and_then(|port| port.spec.pod.as_ref()).or_else(|| {
            match self.objects.get(&Key::PolicyAddress { prefix }) {
                Some(Object::PolicyAddress(it)) => it.pod.as_ref(),
                _ => None,
            }
        })
    }

    /// Version of the policies in force.
    pub fn policy_epoch(&self) -> u32 {
        self.tables.policy().epoch()
    }

    /// `NAMESPACE/NAME` of the service at this frontend.
    pub fn service_at(&self, key: &FrontendKey) -> Option<String> {
        let frontend = self.tables.frontend(key)?;
        let (namespace, name) = self.services.name(frontend.service)?;
        Some(format!("{namespace}/{name}"))
    }

    /// What the sender's and the receiver's policies say.
    pub fn sides(
        &self,
        source: IpAddr,
        destination: IpAddr,
        traffic: Traffic,
    ) -> (PolicySide, PolicySide) {
        let judgement = self.tables.judge(&Connection {
            source,
            destination,
            traffic,
            from_node: self.tables.node().is_some_and(|node| node.owns(source)),
        });
        (self.side(judgement.egress), self.side(judgement.ingress))
    }

    /// What one end's policy says, with the rule's name.
    pub fn side(&self, side: Side) -> PolicySide {
        let (outcome, rule) = match side {
            Side::Elsewhere => (PolicyOutcome::Elsewhere, None),
            Side::Exempt => (PolicyOutcome::Exempt, None),
            Side::Unknown => (PolicyOutcome::NoPolicy, None),
            Side::Decided(decision) if decision.is_allowed() => {
                (PolicyOutcome::Allowed, Some(decision.rule()))
            }
            Side::Decided(decision) => (PolicyOutcome::Denied, Some(decision.rule())),
        };
        PolicySide {
            outcome,
            origin: rule.and_then(|rule| self.policies.origin(rule)).cloned(),
        }
    }
}

#[cfg(test)]
mod tests;
