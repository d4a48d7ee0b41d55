//! Masquerade for pods that talk to the world outside the cluster: one nftables table of our own.
//!
//! The whole table is replaced in one transaction, so there is no moment without it, and nothing of
//! the administrator's is touched. Established connections keep their translation, which lives in
//! connection tracking.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::NODE_PORT;

use super::{HostError, nft};

/// What this is for, in messages.
const WHAT: &str = "masquerade";

/// Puts the table in place.
///
/// # Errors
/// [`HostError::NftMissing`], or [`HostError::Nft`] with what `nft` said.
pub async fn apply(pod_ranges: &[IpNet], node_addresses: &[IpAddr]) -> Result<(), HostError> {
    nft::load(WHAT, &ruleset(pod_ranges, node_addresses)).await
}

/// Takes the table away; none is success.
///
/// # Errors
/// As [`apply`].
pub async fn remove() -> Result<(), HostError> {
    nft::load(WHAT, "table inet weft {}\ndelete table inet weft\n").await
}

/// The table as text. Declaring it before deleting it makes the deletion succeed the first time.
pub fn ruleset(pod_ranges: &[IpNet], node_addresses: &[IpAddr]) -> String {
    let mut rules = String::from("table inet weft {}\ndelete table inet weft\ntable inet weft {\n");
    let ranges = IpNet::aggregate(&pod_ranges.to_vec());
    let nodes: BTreeSet<_> = node_addresses.iter().copied().collect();
    let of_family = |v4: bool| {
        let ranges = ranges.iter().filter(|r| r.addr().is_ipv4() == v4);
        let nodes = nodes.iter().filter(|a| a.is_ipv4() == v4);
        (
            ranges.map(ToString::to_string).collect::<Vec<_>>(),
            nodes.map(ToString::to_string).collect::<Vec<_>>(),
        )
    };
    let mut chain = String::new();
    for (family, kind, v4) in [("ip", "ipv4_addr", true), ("ip6", "ipv6_addr", false)] {
        let (pods, nodes) = of_family(v4);
        if pods.is_empty() {
            continue;
        }
        push_set(&mut rules, &format!("{family}-pods"), kind, &pods);
        push_set(&mut rules, &format!("{family}-nodes"), kind, &nodes);
        // Random ports: two pods that choose the same one towards the same server at the same moment
        // would otherwise race for it and one lose its first packet.
        let _ = writeln!(
            chain,
            "    {family} saddr @{family}-pods {family} daddr != @{family}-pods \
             {family} daddr != @{family}-nodes masquerade fully-random"
        );
    }
    let _ = write!(
        rules,
        "  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
         oifname \"{NODE_PORT}\" return\n{chain}  }}\n}}\n"
    );
    rules
}

fn push_set(rules: &mut String, name: &str, kind: &str, elements: &[String]) {
    let _ = write!(rules, "  set {name} {{\n    type {kind}; flags interval;\n");
    if !elements.is_empty() {
        let _ = writeln!(rules, "    elements = {{ {} }}", elements.join(", "));
    }
    rules.push_str("  }\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_per_family_that_has_pods() {
        let pods: Vec<IpNet> = vec!["10.244.0.0/16".parse().unwrap()];
        let nodes: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let rules = ruleset(&pods, &nodes);
        assert!(rules.contains("ip saddr @ip-pods ip daddr != @ip-pods ip daddr != @ip-nodes"));
        assert!(!rules.contains("ip6"), "{rules}");
        assert!(!ruleset(&[], &nodes).contains("masquerade"));
    }

    #[test]
    fn overlapping_ranges_become_one_element() {
        let pods: Vec<IpNet> = ["10.244.0.0/16", "10.244.3.0/24", "10.245.0.0/16"]
            .map(|p| p.parse().unwrap())
            .to_vec();
        assert!(ruleset(&pods, &[]).contains("elements = { 10.244.0.0/15 }"));
    }
}
