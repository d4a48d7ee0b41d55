//! What weft needs to know of an object, read out of its Kubernetes form and checked.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};

use crate::compile;
use crate::manifest::Resource;

/// A value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadValue {
    /// The value as written.
    pub value: String,
    /// What is wrong with it, naming the field.
    pub reason: String,
}

/// A node as weft knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its InternalIP addresses, in the object's order.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of its pods; none overlaps another.
    pub pod_cidrs: Vec<IpNet>,
}

/// Refuses an object whose values weft would stumble over later, so that its file counts as broken
/// and the last good state of the object stays in force.
///
/// # Errors
/// The first value that makes no sense.
pub fn check(resource: &Resource) -> Result<(), BadValue> {
    match resource {
        Resource::Node(node) => NodeFacts::of(node).map(drop),
        Resource::Service(service) => {
            cluster_ips(service)?;
            compile::check_service(resource)
        }
        Resource::EndpointSlice(_) => compile::check_service(resource),
        other => compile::check_policy(other),
    }
}

impl NodeFacts {
    /// Reads a node.
    ///
    /// # Errors
    /// A prefix or address that is none, or prefixes that overlap.
    pub fn of(node: &Node) -> Result<Self, BadValue> {
        Ok(Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            addresses: internal_ips(node)?,
            pod_cidrs: pod_cidrs(node)?,
        })
    }
}

/// `podCIDRs`, or the older `podCIDR` where only that is given.
fn pod_cidrs(node: &Node) -> Result<Vec<IpNet>, BadValue> {
    let Some(spec) = &node.spec else {
        return Ok(Vec::new());
    };
    let (field, texts) = match (&spec.pod_cidrs, &spec.pod_cidr) {
        (Some(many), _) if !many.is_empty() => ("spec.podCIDRs", many.as_slice()),
        (_, Some(one)) if !one.is_empty() => ("spec.podCIDR", std::slice::from_ref(one)),
        _ => return Ok(Vec::new()),
    };
    let mut prefixes: Vec<IpNet> = Vec::with_capacity(texts.len());
    for text in texts {
        let bad = |why: String| BadValue {
            value: text.clone(),
            reason: format!("{field}: {why}"),
        };
        let prefix: IpNet = text
            .parse()
            .map_err(|_| bad(format!("'{text}' is not a prefix like 10.1.2.0/24")))?;
        let prefix = prefix.trunc();
        if let Some(other) = prefixes.iter().find(|other| overlap(**other, prefix)) {
            return Err(bad(format!("{prefix} overlaps {other}")));
        }
        if prefix.max_prefix_len() - prefix.prefix_len() < 2 {
            return Err(bad(format!("{prefix} has no room for weft0 and a pod")));
        }
        if !is_pod_range(prefix) {
            return Err(bad(format!("{prefix} is not a range of unicast addresses")));
        }
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

fn internal_ips(node: &Node) -> Result<Vec<IpAddr>, BadValue> {
    let status = node.status.as_ref();
    let listed = status.and_then(|s| s.addresses.as_deref()).unwrap_or(&[]);
    let mut addresses = Vec::new();
    for entry in listed.iter().filter(|entry| entry.type_ == "InternalIP") {
        let text = &entry.address;
        let bad = |why: &str| BadValue {
            value: text.clone(),
            reason: format!("status.addresses: InternalIP '{text}' {why}"),
        };
        let address: IpAddr = text.parse().map_err(|_| bad("is not an IP address"))?;
        if !is_host_address(address) {
            return Err(bad("is not an address a node can be reached at"));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Cluster IPs of a service; none for a headless or external one.
///
/// # Errors
/// A cluster IP that is no address.
pub fn cluster_ips(service: &Service) -> Result<Vec<IpAddr>, BadValue> {
    let Some(spec) = &service.spec else {
        return Ok(Vec::new());
    };
    let many = spec.cluster_ips.as_deref().unwrap_or(&[]);
    let mut addresses = Vec::new();
    for text in many.iter().chain(&spec.cluster_ip) {
        if text.is_empty() || text == "None" {
            continue;
        }
        let address: IpAddr = text.parse().map_err(|_| BadValue {
            value: text.clone(),
            reason: format!("spec.clusterIP: '{text}' is not an IP address"),
        })?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Whether two prefixes share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Link-local, loopback, multicast and unspecified addresses cannot be routed to a pod; 169.254/16
/// would hide the pods' gateway. A prefix so short that it holds one of them is a slip of the hand.
fn is_pod_range(prefix: IpNet) -> bool {
    let reserved = [
        "0.0.0.0/8",
        "::/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "fe80::/10",
        "ff00::/8",
    ];
    let clash = |text: &&str| text.parse().is_ok_and(|r: IpNet| overlap(r, prefix));
    !reserved.iter().any(clash)
}

fn is_host_address(address: IpAddr) -> bool {
    let unusable = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    !unusable && address != IpAddr::from([255, 255, 255, 255])
}
