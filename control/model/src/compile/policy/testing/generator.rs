//! Clusters to try, small enough that everything meets everything: three namespaces, few labels, few
//! ports, and blocks that end in the middle of the pods' addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Node, NodeAddress, NodeStatus, Pod, PodIP, PodSpec,
    PodStatus, ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use weft_api::PodRef;

use super::random::Random;
use super::{Cluster, Packet};
use crate::compile::LocalPod;

mod policies;

const NAMESPACES: [&str; 3] = ["shop", "bank", "lab"];
const KEYS: [&str; 3] = ["app", "tier", "env"];
const VALUES: [&str; 3] = ["a", "b", "c"];
const PORT_NAMES: [&str; 3] = ["http", "dns", "sig"];
const PORTS: [u16; 5] = [53, 80, 81, 443, 8080];
const GROUPS: [&str; 3] = ["sg-1", "sg-2", "sg-3"];
const ACCOUNTS: [&str; 2] = ["default", "robot"];
/// Pods of a new cluster.
const PODS_MIN: usize = 5;
const PODS_MAX: usize = 10;
/// Addresses of nobody.
const OUTSIDE: [&str; 4] = ["203.0.113.9", "198.51.100.7", "2001:db8:f::9", "10.0.0.200"];
const BLOCKS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/28",
    "10.0.0.4/30",
    "10.0.0.5/32",
    "192.0.2.0/24",
    "203.0.113.0/24",
    "198.51.100.7/32",
    "::/0",
    "fd00::/64",
    "fd00::4/126",
    "2001:db8::/32",
];

/// A cluster; the same for the same seed.
pub fn cluster(seed: u64) -> Cluster {
    let mut random = Random::new(seed);
    let mut cluster = Cluster {
        nodes: (1..=2).map(|n| node(&mut random, n)).collect(),
        ..Cluster::default()
    };
    add_namespaces(&mut random, &mut cluster);
    let count = random.below(PODS_MAX - PODS_MIN + 1) + PODS_MIN;
    for number in 1..=count {
        add_pod(&mut random, &mut cluster, number);
    }
    policies::add(&mut random, &mut cluster);
    cluster
}

/// A cluster of these pods of the generator's namespaces, all of one node; but for that the same for the same seed.
pub fn cluster_of(pods: &[LocalPod], seed: u64) -> Cluster {
    let mut random = Random::new(seed);
    let mut cluster = Cluster {
        local: pods.to_vec(),
        ..Cluster::default()
    };
    add_namespaces(&mut random, &mut cluster);
    for local in pods {
        let listed = local.addresses.iter().map(IpAddr::to_string).collect();
        let pod = pod(&mut random, &local.pod, ("Running", false), listed);
        cluster.pods.push(pod);
    }
    policies::add(&mut random, &mut cluster);
    cluster
}

fn add_namespaces(random: &mut Random, cluster: &mut Cluster) {
    for name in NAMESPACES {
        if random.percent(85) {
            cluster.namespaces.push(Namespace {
                metadata: named(None, name, labels(random)),
                ..Namespace::default()
            });
        }
        for account in ACCOUNTS {
            if random.percent(70) {
                cluster.accounts.push(ServiceAccount {
                    metadata: named(Some(name), account, labels(random)),
                    ..ServiceAccount::default()
                });
            }
        }
    }
}

/// The cluster after something in it changed.
pub fn change(cluster: &mut Cluster, seed: u64) {
    let random = &mut Random::new(seed);
    match random.below(9) {
        0 => {
            if let Some(pod) = pick(random, &mut cluster.pods) {
                pod.metadata.labels = Some(labels(random));
            }
        }
        1 => {
            if let Some(namespace) = pick(random, &mut cluster.namespaces) {
                namespace.metadata.labels = Some(labels(random));
            }
        }
        2 => {
            if let Some(account) = pick(random, &mut cluster.accounts) {
                account.metadata.labels = Some(labels(random));
            }
        }
        3 => {
            if let Some(node) = pick(random, &mut cluster.nodes) {
                node.metadata.labels = Some(labels(random));
            }
        }
        4 => {
            let index = random.below(cluster.policies.len() + 1);
            if index < cluster.policies.len() {
                cluster.policies.remove(index);
            }
        }
        5 => policies::change(random, cluster),
        6 => {
            let index = random.below(cluster.pods.len() + 1);
            if index < cluster.pods.len() {
                cluster.pods.remove(index);
            }
        }
        7 => add_new_pod(random, cluster),
        _ => {
            if let Some(pod) = pick(random, &mut cluster.pods)
                && let Some(spec) = &mut pod.spec
            {
                spec.containers = containers(random);
            }
        }
    }
}

/// Packets between all kinds of ends.
pub fn packets(cluster: &Cluster, seed: u64, count: usize) -> Vec<Packet> {
    let random = &mut Random::new(seed);
    let pods = cluster.local.iter().flat_map(|pod| pod.addresses.clone());
    let pods: Vec<IpAddr> = pods.collect();
    let statuses = cluster.pods.iter().filter_map(|pod| pod.status.as_ref());
    let listed = statuses.flat_map(|status| status.pod_ips.iter().flatten());
    let others = listed.filter_map(|ip| ip.ip.parse().ok());
    let nodes = cluster.nodes.iter().filter_map(|node| node.status.as_ref());
    let nodes = nodes.flat_map(|status| status.addresses.iter().flatten());
    let nodes = nodes.filter_map(|entry| entry.address.parse().ok());
    let outside = OUTSIDE.iter().filter_map(|text| text.parse().ok());
    let all: Vec<IpAddr> = others.chain(nodes).chain(outside).collect();
    let mut packets = Vec::with_capacity(count);
    while packets.len() < count {
        let (mut source, mut destination) = match (pods.is_empty(), random.percent(60)) {
            (false, true) => (random.one(&pods), random.one(&pods)),
            (false, false) => (random.one(&pods), random.one(&all)),
            (true, _) => break,
        };
        if random.percent(50) {
            std::mem::swap(&mut source, &mut destination);
        }
        if source.is_ipv4() != destination.is_ipv4() {
            continue;
        }
        let icmp = if source.is_ipv4() { 1 } else { 58 };
        let protocol = random.one(&[6, 6, 17, 17, 132, 132, icmp]);
        packets.push(Packet {
            source,
            destination,
            protocol,
            port: if protocol == icmp {
                0
            } else {
                random.one(&PORTS)
            },
        });
    }
    packets
}

fn pick<'a, T>(random: &mut Random, of: &'a mut [T]) -> Option<&'a mut T> {
    let index = random.below(of.len());
    of.get_mut(index)
}

fn named(namespace: Option<&str>, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        labels: (!labels.is_empty()).then_some(labels),
        ..ObjectMeta::default()
    }
}

fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for key in KEYS {
        if random.percent(60) {
            labels.insert(key.to_owned(), random.one(&VALUES).to_owned());
        }
    }
    labels
}

fn node(random: &mut Random, number: usize) -> Node {
    let address = |type_: &str, address: String| NodeAddress {
        address,
        type_: type_.to_owned(),
    };
    let addresses = vec![
        address("Hostname", format!("node-{number}")),
        address("InternalIP", format!("192.0.2.{number}")),
        address("InternalIP", format!("2001:db8::{number}")),
        address("ExternalIP", format!("203.0.113.{number}")),
    ];
    Node {
        metadata: named(None, &format!("node-{number}"), labels(random)),
        status: Some(NodeStatus {
            addresses: Some(addresses),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

fn containers(random: &mut Random) -> Vec<Container> {
    random.some(2, |random| {
        let ports = random.list(3, |random| {
            let protocol = random.one(&[None, Some("TCP"), Some("UDP"), Some("SCTP")]);
            ContainerPort {
                name: random
                    .percent(90)
                    .then(|| random.one(&PORT_NAMES).to_owned()),
                container_port: i32::from(random.one(&PORTS)),
                protocol: protocol.map(str::to_owned),
                ..ContainerPort::default()
            }
        });
        Container {
            name: format!("c{}", random.below(100)),
            ports: (!ports.is_empty()).then_some(ports),
            ..Container::default()
        }
    })
}

/// Adds a pod with a name and addresses no other has.
fn add_new_pod(random: &mut Random, cluster: &mut Cluster) {
    let number = PODS_MAX + 1 + random.below(8);
    let name = format!("pod-{number}");
    let known = |pod: &Pod| pod.metadata.name.as_ref() == Some(&name);
    let is_local = cluster.local.iter().any(|pod| pod.pod.name == name);
    if !is_local && !cluster.pods.iter().any(known) {
        add_pod(random, cluster, number);
    }
}

/// Most pods are local; of those some have no object yet, and the objects of others say nothing of
/// addresses.
fn add_pod(random: &mut Random, cluster: &mut Cluster, number: usize) {
    let name = PodRef {
        namespace: random.one(&NAMESPACES).to_owned(),
        name: format!("pod-{number}"),
    };
    let texts = [format!("10.0.0.{number}"), format!("fd00::{number:x}")];
    let is_local = random.percent(75);
    if is_local {
        cluster.local.push(LocalPod {
            host_ports: Vec::new(),
            pod: name.clone(),
            addresses: texts.iter().filter_map(|text| text.parse().ok()).collect(),
        });
    }
    if is_local && random.percent(8) {
        return;
    }
    let in_host = !is_local && random.percent(15);
    let phase = match is_local {
        true => random.one(&["Pending", "Running"]),
        false => random.one(&["Running", "Running", "Running", "Succeeded", "Failed"]),
    };
    let listed = match (is_local && random.percent(50), in_host) {
        (true, _) => Vec::new(),
        (_, true) => vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
        (_, false) => texts.to_vec(),
    };
    let pod = pod(random, &name, (phase, in_host), listed);
    cluster.pods.push(pod);
}

fn pod(
    random: &mut Random,
    name: &PodRef,
    (phase, in_host): (&str, bool),
    listed: Vec<String>,
) -> Pod {
    Pod {
        metadata: named(Some(&name.namespace), &name.name, labels(random)),
        spec: Some(PodSpec {
            containers: containers(random),
            host_network: in_host.then_some(true),
            service_account_name: random.percent(50).then(|| "robot".to_owned()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some(phase.to_owned()),
            pod_ip: listed.first().cloned(),
            pod_ips: Some(listed.into_iter().map(|ip| PodIP { ip }).collect()),
            ..PodStatus::default()
        }),
    }
}

fn selector(random: &mut Random) -> LabelSelector {
    let mut labels = BTreeMap::new();
    if random.percent(35) {
        labels.insert(random.one(&KEYS).to_owned(), random.one(&VALUES).to_owned());
    }
    let expressions = match random.percent(35) {
        true => random.some(2, requirement),
        false => Vec::new(),
    };
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    }
}

fn requirement(random: &mut Random) -> LabelSelectorRequirement {
    let operator = random.one(&["In", "NotIn", "Exists", "DoesNotExist"]);
    let has_values = ["In", "NotIn"].contains(&operator);
    let values = random.some(2, |random| random.one(&VALUES).to_owned());
    LabelSelectorRequirement {
        key: random.one(&KEYS).to_owned(),
        operator: operator.to_owned(),
        values: has_values.then_some(values),
    }
}

/// Namespaces are chosen by their own labels or by their names.
fn namespace_selector(random: &mut Random) -> LabelSelector {
    if random.percent(70) {
        return selector(random);
    }
    let name = random.one(&NAMESPACES).to_owned();
    LabelSelector {
        match_labels: Some(BTreeMap::from([(
            "kubernetes.io/metadata.name".to_owned(),
            name,
        )])),
        match_expressions: None,
    }
}
