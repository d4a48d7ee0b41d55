//! What the Kubernetes API says of a packet, read from the objects anew for each, sentence by
//! sentence of the API's documentation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_api::PodRef;

use super::{Cluster, Packet};
use crate::manifest::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterPeer, ClusterProtocol, ClusterRule, NamespacedPod, ProtocolPorts,
};
use crate::manifest::security_group::SecurityGroupRule;

type Labels = BTreeMap<String, String>;

/// Who is at an address.
struct End<'a> {
    address: IpAddr,
    pod: Option<Seen<'a>>,
    node: Option<&'a Node>,
}

/// A pod; for one without an object only its name is known.
#[derive(Clone)]
struct Seen<'a> {
    name: PodRef,
    object: Option<&'a Pod>,
}

/// Which list of a policy is meant.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ingress,
    Egress,
}

/// What a tier says.
enum Tier {
    Accept,
    Deny,
    /// Nothing, so the next is asked.
    Next,
}

impl Cluster {
    /// Whether the rules of the packet's destination allow it; None if that is no pod of this node.
    pub fn allows_ingress(&self, packet: &Packet) -> Option<bool> {
        self.allows(packet, packet.destination, packet.source, Side::Ingress)
    }

    /// Whether the rules of the packet's source allow it; None if that is no pod of this node.
    pub fn allows_egress(&self, packet: &Packet) -> Option<bool> {
        self.allows(packet, packet.source, packet.destination, Side::Egress)
    }

    fn allows(&self, packet: &Packet, own: IpAddr, peer: IpAddr, side: Side) -> Option<bool> {
        let is_local = self.local.iter().any(|pod| pod.addresses.contains(&own));
        let subject = self.end(own).pod.filter(|_| is_local)?;
        let peer = self.end(peer);
        let target = self.end(packet.destination);
        let question = Question {
            cluster: self,
            packet,
            subject,
            peer,
            target,
            side,
        };
        let verdicts = [
            question.cluster_tier("Admin"),
            question.groups(),
            question.network(),
            question.cluster_tier("Baseline"),
        ];
        for verdict in verdicts {
            match verdict {
                Tier::Accept => return Some(true),
                Tier::Deny => return Some(false),
                Tier::Next => {}
            }
        }
        Some(true)
    }

    fn end(&self, address: IpAddr) -> End<'_> {
        let node = self.nodes.iter().find(|node| {
            let status = node.status.as_ref().and_then(|s| s.addresses.as_ref());
            let mut listed = status.into_iter().flatten();
            listed.any(|entry| entry.address.parse() == Ok(address))
        });
        let pod = match node {
            Some(_) => None,
            None => self.local_pod(address).or_else(|| self.other_pod(address)),
        };
        End { address, pod, node }
    }

    fn local_pod(&self, address: IpAddr) -> Option<Seen<'_>> {
        let mut local = self.local.iter();
        let local = local.find(|pod| pod.addresses.contains(&address))?;
        let object = self.pods.iter().find(|pod| name(pod) == local.pod);
        Some(Seen {
            name: local.pod.clone(),
            object,
        })
    }

    /// A pod in the host's network has the node's addresses, and one that ended has none.
    fn other_pod(&self, address: IpAddr) -> Option<Seen<'_>> {
        let object = self.pods.iter().find(|pod| {
            let in_host = pod.spec.as_ref().and_then(|spec| spec.host_network);
            let status = pod.status.clone().unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            let listed = status.pod_ips.unwrap_or_default();
            in_host != Some(true)
                && phase != "Succeeded"
                && phase != "Failed"
                && !self.local.iter().any(|local| local.pod == name(pod))
                && listed.iter().any(|ip| ip.ip.parse() == Ok(address))
        })?;
        Some(Seen {
            name: name(object),
            object: Some(object),
        })
    }

    fn namespace_labels(&self, namespace: &str) -> Labels {
        let mut objects = self.namespaces.iter();
        let object = objects.find(|object| object.metadata.name.as_deref() == Some(namespace));
        let labels = object.and_then(|object| object.metadata.labels.clone());
        let mut labels = labels.unwrap_or_default();
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            namespace.to_owned(),
        );
        labels
    }

    /// Groups of a pod; None where no policy selects it.
    fn groups_of(&self, pod: &Seen<'_>) -> Option<Vec<&str>> {
        let account = pod.object.map(|object| {
            let spec = object.spec.as_ref();
            spec.and_then(|spec| spec.service_account_name.as_deref())
                .unwrap_or("default")
        });
        let account = self.accounts.iter().find(|object| {
            let metadata = &object.metadata;
            metadata.namespace.as_deref() == Some(&pod.name.namespace)
                && account.is_some()
                && metadata.name.as_deref() == account
        });
        let account_labels = account.and_then(|object| object.metadata.labels.clone());
        let account_labels = account_labels.unwrap_or_default();
        let selecting = self.group_policies.iter().filter(|policy| {
            let (spec, namespace) = (&policy.spec, policy.metadata.namespace.as_deref());
            let pods = spec.pod_selector.as_ref();
            let accounts = spec.service_account_selector.as_ref();
            namespace == Some(&pod.name.namespace)
                && pods.is_none_or(|selector| selects(selector, &pod.labels()))
                && accounts.is_none_or(|selector| selects(selector, &account_labels))
        });
        let ids: Vec<&Vec<String>> = selecting
            .map(|policy| &policy.spec.security_groups.group_ids)
            .collect();
        let all = ids.iter().flat_map(|ids| ids.iter().map(String::as_str));
        (!ids.is_empty()).then(|| all.collect())
    }
}

/// One packet and the pod whose rules are asked.
struct Question<'a> {
    cluster: &'a Cluster,
    packet: &'a Packet,
    subject: Seen<'a>,
    peer: End<'a>,
    /// Where the packet goes: who names ports.
    target: End<'a>,
    side: Side,
}

impl Question<'_> {
    /// Policies of a tier, lower priority first, ties by name; rules as they are written. The first
    /// that matches decides.
    fn cluster_tier(&self, tier: &str) -> Tier {
        let policies = self.cluster.cluster_policies.iter();
        let mut policies: Vec<&ClusterNetworkPolicy> =
            policies.filter(|policy| policy.spec.tier == tier).collect();
        policies.sort_by_key(|policy| (policy.spec.priority, policy.metadata.name.clone()));
        for policy in policies {
            let (subject, spec) = (&policy.spec.subject, &policy.spec);
            let selected = match (&subject.namespaces, &subject.pods) {
                (Some(namespaces), _) => self.in_namespaces(&self.subject, namespaces),
                (_, Some(pods)) => self.is_namespaced_pod(&self.subject, pods),
                _ => false,
            };
            let rules = match self.side {
                Side::Ingress => &spec.ingress,
                Side::Egress => &spec.egress,
            };
            let mut rules = rules.iter().filter(|_| selected);
            match rules.find(|rule| self.cluster_rule(rule)) {
                None => {}
                Some(rule) if rule.action == "Accept" => return Tier::Accept,
                Some(rule) if rule.action == "Deny" => return Tier::Deny,
                // Pass: the rest of the tier is skipped.
                Some(_) => return Tier::Next,
            }
        }
        Tier::Next
    }

    fn cluster_rule(&self, rule: &ClusterRule) -> bool {
        let peers = match self.side {
            Side::Ingress => &rule.from,
            Side::Egress => &rule.to,
        };
        let protocols = rule.protocols.as_deref();
        peers.iter().any(|peer| self.cluster_peer(peer))
            && protocols.is_none_or(|list| list.iter().any(|entry| self.cluster_protocol(entry)))
    }

    fn cluster_peer(&self, peer: &ClusterPeer) -> bool {
        let pod = self.peer.pod.as_ref();
        if let Some(namespaces) = &peer.namespaces {
            return pod.is_some_and(|pod| self.in_namespaces(pod, namespaces));
        }
        if let Some(pods) = &peer.pods {
            return pod.is_some_and(|pod| self.is_namespaced_pod(pod, pods));
        }
        if let Some(nodes) = &peer.nodes {
            let labels = |node: &Node| node.metadata.labels.clone().unwrap_or_default();
            return self
                .peer
                .node
                .is_some_and(|node| selects(nodes, &labels(node)));
        }
        let networks = peer.networks.iter().flatten();
        networks
            .into_iter()
            .any(|text| holds(text, self.peer.address))
    }

    fn cluster_protocol(&self, entry: &ClusterProtocol) -> bool {
        let port_fits = |ports: &ProtocolPorts| {
            let Some(port) = &ports.destination_port else {
                return true;
            };
            let number = i64::from(self.packet.port);
            let in_range = |range: &_| {
                let crate::manifest::cluster_network_policy::ClusterPortRange { start, end } =
                    range;
                (*start..=*end).contains(&number)
            };
            port.number == Some(number) || port.range.as_ref().is_some_and(in_range)
        };
        let of = |number: u8, ports: &Option<ProtocolPorts>| {
            self.packet.protocol == number && ports.as_ref().is_some_and(port_fits)
        };
        let named = entry.destination_named_port.as_deref();
        of(6, &entry.tcp)
            || of(17, &entry.udp)
            || of(132, &entry.sctp)
            || named.is_some_and(|name| self.target_names(name))
    }

    /// A pod with groups may do what some rule of one of them allows; what goes on is not decided.
    fn groups(&self) -> Tier {
        let Some(ids) = self.cluster.groups_of(&self.subject) else {
            return Tier::Next;
        };
        let mut groups = self.cluster.groups.iter().filter(|group| {
            let id = group.metadata.name.as_deref();
            id.is_some_and(|id| ids.contains(&id))
        });
        let allowed = groups.any(|group| {
            let rules = match self.side {
                Side::Ingress => &group.spec.inbound,
                Side::Egress => &group.spec.outbound,
            };
            rules.iter().any(|rule| self.group_rule(rule))
        });
        match allowed {
            true => Tier::Next,
            false => Tier::Deny,
        }
    }

    fn group_rule(&self, rule: &SecurityGroupRule) -> bool {
        let cidr = rule.cidr.as_deref();
        let by_address = cidr.is_some_and(|cidr| holds(cidr, self.peer.address));
        let by_group = rule.group.as_deref().is_some_and(|wanted| {
            let peer = self.peer.pod.as_ref();
            let groups = peer.and_then(|pod| self.cluster.groups_of(pod));
            groups.is_some_and(|groups| groups.contains(&wanted))
        });
        let first = rule.from_port.unwrap_or(0);
        let last = rule.to_port.or(rule.from_port).unwrap_or(65_535);
        let port_fits = (first..=last).contains(&i64::from(self.packet.port));
        let protocol_fits = match rule.protocol.as_str() {
            "tcp" => self.packet.protocol == 6 && port_fits,
            "udp" => self.packet.protocol == 17 && port_fits,
            "sctp" => self.packet.protocol == 132 && port_fits,
            "icmp" => [1, 58].contains(&self.packet.protocol),
            _ => true,
        };
        (by_address || by_group) && protocol_fits
    }

    /// "Traffic is allowed if there are no NetworkPolicies selecting the pod OR if the traffic
    /// matches at least one rule across all of the NetworkPolicy objects whose podSelector matches
    /// the pod." Those that select it always decide.
    fn network(&self) -> Tier {
        let isolating: Vec<&NetworkPolicy> = self
            .cluster
            .policies
            .iter()
            .filter(|policy| self.isolates(policy))
            .collect();
        let allowed = isolating.iter().any(|policy| self.policy_allows(policy));
        match (isolating.is_empty(), allowed) {
            (true, _) => Tier::Next,
            (false, true) => Tier::Accept,
            (false, false) => Tier::Deny,
        }
    }

    fn isolates(&self, policy: &NetworkPolicy) -> bool {
        let spec = policy.spec.clone().unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        let has_egress = spec.egress.is_some_and(|rules| !rules.is_empty());
        let about = match (self.side, types.is_empty()) {
            (Side::Ingress, true) => true,
            (Side::Egress, true) => has_egress,
            (Side::Ingress, false) => types.contains(&"Ingress".to_owned()),
            (Side::Egress, false) => types.contains(&"Egress".to_owned()),
        };
        let namespace = policy.metadata.namespace.as_deref();
        let selector = spec.pod_selector.unwrap_or_default();
        about
            && namespace == Some(&self.subject.name.namespace)
            && selects(&selector, &self.subject.labels())
    }

    fn policy_allows(&self, policy: &NetworkPolicy) -> bool {
        let Some(spec) = &policy.spec else {
            return false;
        };
        match self.side {
            Side::Ingress => spec.ingress.iter().flatten().any(|rule| {
                self.network_peers(policy, rule.from.as_deref())
                    && self.network_ports(rule.ports.as_deref())
            }),
            Side::Egress => spec.egress.iter().flatten().any(|rule| {
                self.network_peers(policy, rule.to.as_deref())
                    && self.network_ports(rule.ports.as_deref())
            }),
        }
    }

    /// "If this field is empty or missing, this rule matches all."
    fn network_peers(&self, policy: &NetworkPolicy, peers: Option<&[NetworkPolicyPeer]>) -> bool {
        let peers = peers.unwrap_or(&[]);
        peers.is_empty() || peers.iter().any(|peer| self.network_peer(policy, peer))
    }

    fn network_peer(&self, policy: &NetworkPolicy, peer: &NetworkPolicyPeer) -> bool {
        if let Some(block) = &peer.ip_block {
            let mut except = block.except.iter().flatten();
            let address = self.peer.address;
            return holds(&block.cidr, address) && !except.any(|part| holds(part, address));
        }
        let Some(pod) = &self.peer.pod else {
            return false;
        };
        let own = policy.metadata.namespace.as_deref() == Some(&pod.name.namespace);
        let namespace_fits = match &peer.namespace_selector {
            Some(selector) => self.in_namespaces(pod, selector),
            None => own,
        };
        let pods = peer.pod_selector.as_ref();
        namespace_fits && pods.is_none_or(|selector| selects(selector, &pod.labels()))
    }

    fn network_ports(&self, ports: Option<&[NetworkPolicyPort]>) -> bool {
        let ports = ports.unwrap_or(&[]);
        ports.is_empty() || ports.iter().any(|port| self.network_port(port))
    }

    fn network_port(&self, port: &NetworkPolicyPort) -> bool {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => 6,
            Some("UDP") => 17,
            _ => 132,
        };
        let number = i32::from(self.packet.port);
        self.packet.protocol == protocol
            && match (&port.port, port.end_port) {
                (None, _) => true,
                (Some(IntOrString::Int(port)), None) => *port == number,
                (Some(IntOrString::Int(port)), Some(end)) => (*port..=end).contains(&number),
                (Some(IntOrString::String(name)), _) => self.target_names(name),
            }
    }

    /// Whether the pod the packet goes to calls the port it goes to so.
    fn target_names(&self, name: &str) -> bool {
        let object = self.target.pod.as_ref().and_then(|pod| pod.object);
        let spec = object.and_then(|object| object.spec.as_ref());
        let containers = spec.into_iter().flat_map(|spec| &spec.containers);
        let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
        let wanted = match self.packet.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => return false,
        };
        let first = ports.find(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            port.name.as_deref() == Some(name) && protocol == wanted
        });
        first.is_some_and(|port| port.container_port == i32::from(self.packet.port))
    }

    fn in_namespaces(&self, pod: &Seen<'_>, selector: &LabelSelector) -> bool {
        selects(
            selector,
            &self.cluster.namespace_labels(&pod.name.namespace),
        )
    }

    fn is_namespaced_pod(&self, pod: &Seen<'_>, wanted: &NamespacedPod) -> bool {
        let selector = wanted.pod_selector.clone().unwrap_or_default();
        self.in_namespaces(pod, &wanted.namespace_selector) && selects(&selector, &pod.labels())
    }
}

impl Seen<'_> {
    fn labels(&self) -> Labels {
        let labels = self
            .object
            .and_then(|object| object.metadata.labels.clone());
        labels.unwrap_or_default()
    }
}

fn name(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

fn holds(cidr: &str, address: IpAddr) -> bool {
    let cidr: Result<IpNet, _> = cidr.parse();
    cidr.is_ok_and(|cidr| cidr.contains(&address))
}

/// "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all
/// objects."
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let equal = equal
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector.match_expressions.iter().flatten();
    equal
        && expressions.all(|expression| {
            let value = labels.get(&expression.key);
            let values = expression.values.clone().unwrap_or_default();
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}
