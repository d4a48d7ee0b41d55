//! Verdict tables somebody else computed; see `tests/data/README.md`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Namespace, Pod, PodSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use weft_api::PodRef;

use super::{Cluster, Packet};
use crate::compile::LocalPod;

const TABLES: &str = include_str!("../../../../tests/data/networkpolicy.json");

/// A set of policies and what it allows.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// All pods are of this node.
    pub cluster: Cluster,
    /// Packets between all pods, and whether they may pass both.
    pub packets: Vec<(Packet, bool)>,
}

#[derive(Deserialize)]
struct File {
    pods: Vec<(String, IpAddr, BTreeMap<String, String>)>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    container_ports: Vec<ContainerPort>,
    traffic: Vec<(u8, u16)>,
    cases: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    name: String,
    policies: Vec<NetworkPolicy>,
    /// By source, a word for each destination.
    expected: Vec<String>,
}

/// All sets of policies.
///
/// # Errors
/// When the data is not what its description says.
pub fn cases() -> serde_json::Result<Vec<Case>> {
    let file: File = serde_json::from_str(TABLES)?;
    let cluster = cluster(&file);
    let case = |table: &Table| Case {
        name: table.name.clone(),
        cluster: Cluster {
            policies: table.policies.clone(),
            ..cluster.clone()
        },
        packets: packets(&file, table),
    };
    Ok(file.cases.iter().map(case).collect())
}

fn packets(file: &File, table: &Table) -> Vec<(Packet, bool)> {
    let mut packets = Vec::new();
    for ((_, source, _), row) in file.pods.iter().zip(&table.expected) {
        for ((_, destination, _), word) in file.pods.iter().zip(row.split(' ')) {
            for ((protocol, port), letter) in file.traffic.iter().zip(word.bytes()) {
                let packet = Packet {
                    source: *source,
                    destination: *destination,
                    protocol: *protocol,
                    port: *port,
                };
                packets.push((packet, letter == b'.'));
            }
        }
    }
    packets
}

fn cluster(file: &File) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, labels) in &file.namespaces {
        cluster.namespaces.push(Namespace {
            metadata: metadata(None, name, labels),
            ..Namespace::default()
        });
    }
    for (path, address, labels) in &file.pods {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        cluster.local.push(LocalPod {
            host_ports: Vec::new(),
            pod: PodRef {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            addresses: vec![*address],
        });
        let container = Container {
            name: "serve".to_owned(),
            ports: Some(file.container_ports.clone()),
            ..Container::default()
        };
        cluster.pods.push(Pod {
            metadata: metadata(Some(namespace), name, labels),
            spec: Some(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            status: None,
        });
    }
    cluster
}

fn metadata(namespace: Option<&str>, name: &str, labels: &BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    }
}
