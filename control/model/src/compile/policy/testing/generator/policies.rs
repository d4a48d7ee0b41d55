//! Policies that use every field of their APIs.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BLOCKS, GROUPS, NAMESPACES, PORT_NAMES, PORTS, named, namespace_selector, selector};
use crate::compile::policy::testing::Cluster;
use crate::compile::policy::testing::random::Random;
use crate::manifest::cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPeer, ClusterPort, ClusterPortRange,
    ClusterProtocol, ClusterRule, NamespacedPod, ProtocolPorts, Subject,
};
use crate::manifest::security_group::{
    GroupIds, SecurityGroup, SecurityGroupPolicy, SecurityGroupPolicySpec, SecurityGroupRule,
    SecurityGroupSpec,
};

/// Adds policies of all kinds.
pub(super) fn add(random: &mut Random, cluster: &mut Cluster) {
    for number in 0..2 + random.below(7) {
        cluster.policies.push(network_policy(random, number));
    }
    if random.percent(50) {
        for number in 0..random.below(4) {
            let policy = cluster_policy(random, number);
            cluster.cluster_policies.push(policy);
        }
    }
    for group in GROUPS {
        if random.percent(80) {
            cluster.groups.push(security_group(random, group));
        }
    }
    if random.percent(35) {
        for number in 0..=random.below(2) {
            let policy = group_policy(random, number);
            cluster.group_policies.push(policy);
        }
    }
}

/// Writes one policy anew.
pub(super) fn change(random: &mut Random, cluster: &mut Cluster) {
    match random.below(4) {
        0 => {
            let names = cluster.policies.iter().map(|policy| &policy.metadata);
            let policy = network_policy(random, free_number("policy", names));
            cluster.policies.push(policy);
        }
        1 => {
            let index = random.below(cluster.cluster_policies.len() + 1);
            cluster.cluster_policies.truncate(index);
            let policy = cluster_policy(random, index + 10);
            cluster.cluster_policies.push(policy);
        }
        2 => {
            cluster.groups.truncate(1);
            let known = cluster
                .groups
                .first()
                .and_then(|group| group.metadata.name.clone());
            let others = GROUPS.iter().filter(|id| Some(**id) != known.as_deref());
            let new = others.map(|id| security_group(random, id));
            cluster.groups.extend(new);
        }
        _ => {
            cluster.group_policies.truncate(random.below(2));
            if random.percent(50) {
                let names = cluster.group_policies.iter().map(|it| &it.metadata);
                let number = free_number("members", names);
                let policy = group_policy(random, number);
                cluster.group_policies.push(policy);
            }
        }
    }
}

/// A number that no object's name ends with.
fn free_number<'a>(prefix: &str, objects: impl Iterator<Item = &'a ObjectMeta>) -> usize {
    let names: Vec<Option<&str>> = objects.map(|it| it.name.as_deref()).collect();
    let is_free = |number: &usize| !names.contains(&Some(&format!("{prefix}-{number}")));
    (10..).find(is_free).unwrap_or_default()
}

fn network_policy(random: &mut Random, number: usize) -> NetworkPolicy {
    let types = random.one(&[
        None,
        None,
        Some(vec!["Ingress".to_owned()]),
        Some(vec!["Egress".to_owned()]),
        Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
    ]);
    let ingress = random.percent(75).then(|| {
        random.list(2, |random| NetworkPolicyIngressRule {
            from: peers(random),
            ports: ports(random),
        })
    });
    let egress = random.percent(60).then(|| {
        random.list(2, |random| NetworkPolicyEgressRule {
            to: peers(random),
            ports: ports(random),
        })
    });
    NetworkPolicy {
        metadata: named(
            Some(random.one(&NAMESPACES)),
            &format!("policy-{number}"),
            Default::default(),
        ),
        spec: Some(NetworkPolicySpec {
            pod_selector: random.percent(95).then(|| selector(random)),
            policy_types: types,
            ingress,
            egress,
        }),
    }
}

fn peers(random: &mut Random) -> Option<Vec<NetworkPolicyPeer>> {
    random.percent(95).then(|| random.list(3, peer))
}

fn peer(random: &mut Random) -> NetworkPolicyPeer {
    if random.percent(35) {
        return NetworkPolicyPeer {
            ip_block: Some(block(random)),
            ..NetworkPolicyPeer::default()
        };
    }
    let (with_namespaces, with_pods) = random.one(&[(true, true), (true, false), (false, true)]);
    NetworkPolicyPeer {
        namespace_selector: with_namespaces.then(|| namespace_selector(random)),
        pod_selector: with_pods.then(|| selector(random)),
        ..NetworkPolicyPeer::default()
    }
}

fn block(random: &mut Random) -> IPBlock {
    let cidr = random.one(&BLOCKS).to_owned();
    let prefix = |text: &str| text.parse::<IpNet>().ok();
    let is_part = |text: &&&str| match (prefix(&cidr), prefix(text)) {
        (Some(block), Some(part)) => block.contains(&part) && block != part,
        _ => false,
    };
    let parts: Vec<&str> = BLOCKS.iter().filter(is_part).copied().collect();
    let with_except = !parts.is_empty() && random.percent(60);
    let except = with_except.then(|| random.some(2, |random| random.one(&parts).to_owned()));
    IPBlock { cidr, except }
}

fn ports(random: &mut Random) -> Option<Vec<NetworkPolicyPort>> {
    random.percent(65).then(|| random.list(3, port))
}

fn port(random: &mut Random) -> NetworkPolicyPort {
    let protocol = random.one(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    let first = random.one(&PORTS);
    let port = match random.below(6) {
        0 => None,
        1 | 2 => Some(IntOrString::String(random.one(&PORT_NAMES).to_owned())),
        _ => Some(IntOrString::Int(i32::from(first))),
    };
    let ranged = matches!(port, Some(IntOrString::Int(_))) && random.percent(40);
    NetworkPolicyPort {
        protocol: protocol.map(str::to_owned),
        end_port: ranged.then(|| i32::from(first.max(random.one(&PORTS)))),
        port,
    }
}

fn cluster_policy(random: &mut Random, number: usize) -> ClusterNetworkPolicy {
    let subject = match random.percent(50) {
        true => Subject {
            namespaces: Some(namespace_selector(random)),
            pods: None,
        },
        false => Subject {
            namespaces: None,
            pods: Some(namespaced_pod(random)),
        },
    };
    ClusterNetworkPolicy {
        metadata: named(None, &format!("guard-{number}"), Default::default()),
        spec: ClusterNetworkPolicySpec {
            tier: random.one(&["Admin", "Baseline"]).to_owned(),
            priority: Some(random.one(&[0, 1, 1, 500, 1000])),
            subject,
            ingress: random.list(3, |random| cluster_rule(random, false)),
            egress: random.list(3, |random| cluster_rule(random, true)),
        },
    }
}

fn namespaced_pod(random: &mut Random) -> NamespacedPod {
    NamespacedPod {
        namespace_selector: namespace_selector(random),
        pod_selector: Some(selector(random)),
    }
}

fn cluster_rule(random: &mut Random, is_egress: bool) -> ClusterRule {
    let with_protocols = random.percent(60);
    let by_name = with_protocols && random.percent(30);
    let protocols =
        with_protocols.then(|| random.some(2, |random| cluster_protocol(random, by_name)));
    let beyond_pods = is_egress && !by_name;
    let peers = random.some(2, |random| cluster_peer(random, beyond_pods));
    let (from, to) = match is_egress {
        true => (Vec::new(), peers),
        false => (peers, Vec::new()),
    };
    let name = random.percent(30).then(|| "because".to_owned());
    ClusterRule {
        name: name.unwrap_or_default(),
        action: random.one(&["Accept", "Deny", "Pass"]).to_owned(),
        from,
        to,
        protocols,
    }
}

fn cluster_peer(random: &mut Random, beyond_pods: bool) -> ClusterPeer {
    let mut peer = ClusterPeer::default();
    match random.below(if beyond_pods { 4 } else { 2 }) {
        0 => peer.namespaces = Some(namespace_selector(random)),
        1 => peer.pods = Some(namespaced_pod(random)),
        2 => peer.nodes = Some(selector(random)),
        _ => peer.networks = Some(random.some(2, |random| random.one(&BLOCKS).to_owned())),
    }
    peer
}

fn cluster_protocol(random: &mut Random, by_name: bool) -> ClusterProtocol {
    let mut entry = ClusterProtocol::default();
    if by_name && random.percent(60) {
        entry.destination_named_port = Some(random.one(&PORT_NAMES).to_owned());
        return entry;
    }
    let start = i64::from(random.one(&PORTS));
    let port = match random.percent(50) {
        true => ClusterPort {
            number: Some(start),
            range: None,
        },
        false => ClusterPort {
            number: None,
            range: Some(ClusterPortRange {
                start,
                end: start + 1 + i64::from(random.one(&PORTS)),
            }),
        },
    };
    let ports = Some(ProtocolPorts {
        destination_port: Some(port),
    });
    match random.below(3) {
        0 => entry.tcp = ports,
        1 => entry.udp = ports,
        _ => entry.sctp = ports,
    }
    entry
}

fn group_policy(random: &mut Random, number: usize) -> SecurityGroupPolicy {
    let (by_pod, by_account) = random.one(&[(true, false), (false, true), (true, true)]);
    SecurityGroupPolicy {
        metadata: named(
            Some(random.one(&NAMESPACES)),
            &format!("members-{number}"),
            Default::default(),
        ),
        spec: SecurityGroupPolicySpec {
            pod_selector: by_pod.then(|| selector(random)),
            service_account_selector: by_account.then(|| selector(random)),
            security_groups: GroupIds {
                group_ids: random.some(2, |random| random.one(&GROUPS).to_owned()),
            },
        },
    }
}

fn security_group(random: &mut Random, id: &str) -> SecurityGroup {
    SecurityGroup {
        metadata: named(None, id, Default::default()),
        spec: SecurityGroupSpec {
            inbound: random.list(4, group_rule),
            outbound: random.list(4, group_rule),
        },
    }
}

fn group_rule(random: &mut Random) -> SecurityGroupRule {
    let protocol = random.one(&["tcp", "udp", "sctp", "icmp", "all"]);
    let has_ports = !["icmp", "all"].contains(&protocol) && random.percent(70);
    let first = i64::from(random.one(&PORTS));
    let by_address = random.percent(60);
    SecurityGroupRule {
        protocol: protocol.to_owned(),
        from_port: has_ports.then_some(first),
        to_port: (has_ports && random.percent(60)).then_some(first + 30),
        cidr: by_address.then(|| random.one(&BLOCKS).to_owned()),
        group: (!by_address).then(|| random.one(&GROUPS).to_owned()),
    }
}
