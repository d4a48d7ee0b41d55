use std::net::IpAddr;

use super::*;

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> String {
    let addresses: String = addresses
        .iter()
        .map(|a| format!("  - {{type: InternalIP, address: '{a}'}}\n"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: {cidrs:?}}}\n\
         status:\n  addresses:\n  - {{type: Hostname, address: {name}}}\n{addresses}"
    )
}

fn apply(store: &mut Store, name: &str, addresses: &[&str], cidrs: &[&str]) {
    let text = node(name, addresses, cidrs);
    store.apply(&format!("{name}.yaml"), text.as_bytes());
    assert_eq!(store.problems(), [] as [&str; 0]);
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn two_nodes_become_a_local_one_a_remote_one_and_ranges() {
    let mut store = Store::default();
    apply(
        &mut store,
        "a",
        &["192.0.2.1", "2001:db8::1"],
        &["10.1.1.0/24", "fd00:1::/64"],
    );
    apply(
        &mut store,
        "b",
        &["2001:db8::2", "192.0.2.2"],
        &["10.1.2.0/24", "fd00:2::/64"],
    );
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.96.0.9}\n";
    store.apply("s.yaml", service.as_bytes());
    let Compiled { desired, problems } =
        Compiler::new(ClusterConfig::of_node("a")).compile(&store, &[]);
    assert_eq!(problems, [] as [&str; 0]);
    let local = desired.local.as_ref().unwrap();
    assert_eq!(local.node_port_addresses, [ip("10.1.1.1"), ip("fd00:1::1")]);
    assert_eq!(local.addresses, [ip("192.0.2.1"), ip("2001:db8::1")]);
    assert_eq!(desired.remotes.len(), 1);
    assert_eq!(desired.remotes[0].vtep, ip("192.0.2.2"));
    assert_eq!(desired.pod_ranges().count(), 4);
    let services: Vec<_> = desired.service_ranges().map(|r| r.to_string()).collect();
    assert_eq!(services, ["10.96.0.9/32"]);
    // Of four addresses of nodes and four of their weft0s, one identity each node.
    assert_eq!(desired.policy.addresses.len(), 8);
    assert_eq!(desired.policy.identities.len(), 2);
    assert_eq!(desired.objects().count(), 7 + 8 + 2 + 1);
}

#[test]
fn configured_ranges_cover_what_lies_in_them() {
    let mut store = Store::default();
    apply(&mut store, "a", &["192.0.2.1"], &["10.1.1.0/24"]);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd96::9']}\n";
    store.apply("s.yaml", service.as_bytes());
    let mut config = ClusterConfig::of_node("a");
    config.service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
    config.cluster_cidrs = vec!["10.1.0.0/16".parse().unwrap()];
    let desired = Compiler::new(config.clone()).compile(&store, &[]).desired;
    let ranges: Vec<_> = desired
        .ranges
        .iter()
        .map(|r| r.prefix.to_string())
        .collect();
    assert_eq!(ranges, ["10.1.0.0/16", "10.96.0.0/16", "fd96::9/128"]);
    config.service_cidrs = vec!["10.1.128.0/20".parse().unwrap()];
    let problems = Compiler::new(config).compile(&store, &[]).problems;
    assert_eq!(
        problems,
        ["service range 10.1.128.0/20 overlaps pod range 10.1.0.0/16"]
    );
}

#[test]
fn a_contested_prefix_stays_with_its_holder() {
    let mut store = Store::default();
    apply(&mut store, "b", &["192.0.2.2"], &["10.1.0.0/24"]);
    let mut compiler = Compiler::new(ClusterConfig::of_node("b"));
    compiler.compile(&store, &[]);
    apply(&mut store, "a", &["192.0.2.1"], &["10.1.0.0/16"]);
    let compiled = compiler.compile(&store, &[]);
    assert_eq!(compiled.desired.local.unwrap().pod_cidrs.len(), 1);
    assert_eq!(
        compiled.problems,
        ["Node a: pod CIDR 10.1.0.0/16 overlaps 10.1.0.0/24 of Node b, which keeps it"]
    );
    // A compiler that has seen neither goes by name.
    let fresh = Compiler::new(ClusterConfig::of_node("b")).compile(&store, &[]);
    assert!(
        fresh.problems[0].starts_with("Node b: pod CIDR"),
        "{:?}",
        fresh.problems
    );
}

#[test]
fn contested_and_impossible_addresses_are_told() {
    let mut store = Store::default();
    apply(&mut store, "a", &["192.0.2.1"], &["10.1.0.0/24"]);
    apply(&mut store, "b", &["192.0.2.1"], &["10.2.0.0/24"]);
    apply(&mut store, "c", &["10.1.0.7"], &["10.3.0.0/24"]);
    apply(&mut store, "d", &["2001:db8::4"], &["10.4.0.0/24"]);
    let compiled = Compiler::new(ClusterConfig::of_node("a")).compile(&store, &[]);
    assert_eq!(compiled.desired.remotes, []);
    for (problem, part) in compiled.problems.iter().zip([
        "Node b: InternalIP 192.0.2.1 is also that of Node a",
        "Node c: InternalIP 10.1.0.7 lies in pod CIDR 10.1.0.0/24 of Node a",
        "Node b has no usable InternalIP",
        "Node c has no usable InternalIP",
        "Node d has no InternalIP of a family Node a has",
    ]) {
        assert!(problem.starts_with(part), "{problem}");
    }
    assert_eq!(compiled.problems.len(), 5);
}

#[test]
fn without_its_own_node_nothing_is_reachable() {
    let mut store = Store::default();
    apply(&mut store, "b", &["192.0.2.2"], &["10.2.0.0/24"]);
    let compiled = Compiler::new(ClusterConfig::of_node("a")).compile(&store, &[]);
    assert_eq!(
        (compiled.desired.local, compiled.desired.remotes.len()),
        (None, 0)
    );
    assert!(compiled.problems[0].contains("no Node a"));
}

#[test]
fn claims_find_any_overlap_as_a_plain_scan_does() {
    use proptest::prelude::*;
    let prefix = (any::<[u8; 2]>(), 8_u8..=30).prop_map(|([a, b], length)| {
        IpNet::new(IpAddr::from([10 + a % 2, b, a, 0]), length)
            .unwrap()
            .trunc()
    });
    let prefixes = proptest::collection::vec(prefix, 1..40);
    proptest!(|(prefixes in prefixes)| {
        let mut store = Store::default();
        for (i, prefix) in prefixes.iter().enumerate() {
            let text = node(&format!("n{i:02}"), &[], &[&prefix.to_string()]);
            store.apply(&format!("n{i:02}.yaml"), text.as_bytes());
        }
        let mut kept: Vec<IpNet> = Vec::new();
        for prefix in &prefixes {
            if !kept.iter().any(|k| crate::facts::overlap(*k, *prefix)) {
                kept.push(*prefix);
            }
        }
        let mut compiler = Compiler::new(ClusterConfig::of_node("n00"));
        let mut compiled: Vec<IpNet> = compiler.compile(&store, &[]).desired.pod_ranges().collect();
        kept.sort();
        compiled.sort();
        prop_assert_eq!(compiled, kept);
    });
}
