//! Ranges of cluster addresses: what never ends in the node's own stack.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::object::{ClusterRange, RangePurpose};

use super::ClusterConfig;
use crate::facts::{self, NodeFacts};

/// The ranges of pods and of services, by prefix. A prefix inside a configured range of the same
/// purpose adds nothing and is left out.
pub(super) fn ranges(
    config: &ClusterConfig,
    nodes: &[NodeFacts],
    cluster_ips: impl Iterator<Item = IpAddr>,
    problems: &mut Vec<String>,
) -> Vec<ClusterRange> {
    let mut ranges = BTreeMap::new();
    let pods = nodes.iter().flat_map(|node| node.pod_cidrs.iter().copied());
    collect(&mut ranges, &config.cluster_cidrs, pods, RangePurpose::Pods);
    report_overlaps(config, &ranges, problems);
    // Service addresses come second: where a prefix is both, a service nobody serves must not be
    // taken for a pod.
    let services = cluster_ips.map(IpNet::from);
    collect(
        &mut ranges,
        &config.service_cidrs,
        services,
        RangePurpose::Services,
    );
    ranges
        .into_iter()
        .map(|(prefix, purpose)| ClusterRange { prefix, purpose })
        .collect()
}

fn collect(
    ranges: &mut BTreeMap<IpNet, RangePurpose>,
    configured: &[IpNet],
    found: impl Iterator<Item = IpNet>,
    purpose: RangePurpose,
) {
    let configured: Vec<IpNet> = configured.iter().map(IpNet::trunc).collect();
    let found = found.filter(|prefix| !configured.iter().any(|range| range.contains(prefix)));
    ranges.extend(found.map(|prefix| (prefix, purpose)));
    ranges.extend(configured.iter().map(|prefix| (*prefix, purpose)));
}

fn report_overlaps(
    config: &ClusterConfig,
    pods: &BTreeMap<IpNet, RangePurpose>,
    problems: &mut Vec<String>,
) {
    for service in &config.service_cidrs {
        for pod in pods.keys().filter(|pod| facts::overlap(**pod, *service)) {
            problems.push(format!("service range {service} overlaps pod range {pod}"));
        }
    }
}
