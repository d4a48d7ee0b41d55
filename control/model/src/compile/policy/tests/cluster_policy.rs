//! ClusterNetworkPolicy: tiers, priorities, actions and peers.

use super::*;

fn guard(scene: &mut Scene, name: &str, spec: &str) {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    scene.apply(name, &text);
}

fn scene(specs: &[&str]) -> Scene {
    let mut scene = Scene::new();
    for (number, spec) in specs.iter().enumerate() {
        guard(&mut scene, &format!("g{number}"), spec);
    }
    assert_eq!(scene.problems(), [] as [&str; 0]);
    scene
}

/// A policy of all pods of namespace shop with one ingress rule about everyone.
fn ingress(tier: &str, priority: u32, action: &str) -> String {
    format!(
        "{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{matchLabels: {{team: red}}}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}"
    )
}

const DENY_ALL: &str = "{podSelector: {}}";
const ALLOW_ALL: &str = "{podSelector: {}, ingress: [{}]}";

#[test]
fn the_admin_tier_goes_before_network_policies() {
    let mut accepted = scene(&[&ingress("Admin", 5, "Accept")]);
    accepted.policy("p", "shop", DENY_ALL);
    assert!(accepted.allows("lab/odd", "shop/db", "TCP/80"));
    let mut denied = scene(&[&ingress("Admin", 5, "Deny")]);
    denied.policy("p", "shop", ALLOW_ALL);
    assert_eq!(
        denied.denial("lab/odd", "shop/db", "TCP/80").unwrap(),
        "ClusterNetworkPolicy g0 ingress[0]"
    );
}

#[test]
fn the_baseline_tier_goes_after_network_policies() {
    let mut scene = scene(&[&ingress("Baseline", 5, "Deny")]);
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"));
    scene.policy(
        "p",
        "shop",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}",
    );
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    assert!(!scene.allows("lab/odd", "shop/web", "TCP/80"));
}

#[test]
fn pass_leaves_the_tier_and_not_more() {
    let (pass, deny) = (ingress("Admin", 1, "Pass"), ingress("Admin", 2, "Deny"));
    let mut scene = scene(&[&pass, &deny]);
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    guard(&mut scene, "base", &ingress("Baseline", 0, "Deny"));
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"));
}

#[test]
fn lower_priorities_go_first_and_equal_ones_by_name() {
    let (accept, deny) = (ingress("Admin", 10, "Accept"), ingress("Admin", 9, "Deny"));
    assert!(!scene(&[&accept, &deny]).allows("lab/odd", "shop/db", "TCP/80"));
    let equal = ingress("Admin", 10, "Deny");
    assert!(scene(&[&accept, &equal]).allows("lab/odd", "shop/db", "TCP/80"));
    assert!(!scene(&[&equal, &accept]).allows("lab/odd", "shop/db", "TCP/80"));
}

#[test]
fn rules_of_a_policy_are_tried_in_their_order_and_named() {
    let mut scene = scene(&[
        "{tier: Admin, priority: 0, subject: {namespaces: {}}, ingress: [\
         {name: web, action: Accept, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}, \
         {name: rest, action: Deny, from: [{namespaces: {}}]}]}",
    ]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ["shop/web", "bank/web"]);
    assert_eq!(
        scene.denial("lab/odd", "shop/db", "TCP/80").unwrap(),
        "ClusterNetworkPolicy g0 ingress[1] rest"
    );
    // Peers are pods: what is outside is not spoken of.
    assert!(scene.allows("203.0.113.9", "shop/db", "TCP/80"));
}

#[test]
fn subjects_are_pods_by_both_selectors() {
    let deny = |subject: &str| {
        let spec = format!(
            "{{tier: Admin, priority: 0, subject: {subject}, ingress: [{{action: Deny, from: [{{namespaces: {{}}}}]}}]}}"
        );
        let mut scene = scene(&[&spec]);
        let pods = PODS
            .map(|(pod, ..)| pod)
            .into_iter()
            .filter(|pod| *pod != "bank/vault");
        let denied = pods.filter(|pod| !scene.allows("bank/vault", pod, "TCP/80"));
        denied.collect::<Vec<_>>()
    };
    assert_eq!(
        deny("{namespaces: {matchLabels: {team: red}}}"),
        ["shop/web", "shop/db"]
    );
    let web = "podSelector: {matchLabels: {app: web}}";
    assert_eq!(
        deny(&format!("{{pods: {{{web}}}}}")),
        ["shop/web", "bank/web"]
    );
    let blue = "namespaceSelector: {matchLabels: {team: blue}}";
    assert_eq!(deny(&format!("{{pods: {{{blue}, {web}}}}}")), ["bank/web"]);
}

#[test]
fn egress_peers_may_be_networks_and_nodes() {
    let egress = |rule: &str| {
        let spec = format!(
            "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, egress: [{rule}]}}"
        );
        scene(&[&spec])
    };
    let mut networks = egress("{action: Deny, to: [{networks: [203.0.113.0/24, 10.0.0.4/32]}]}");
    assert!(!networks.allows("shop/web", "203.0.113.9", "TCP/80"));
    assert!(!networks.allows("shop/web", "bank/vault", "ICMP/0"));
    assert!(networks.allows("shop/web", "192.0.2.2", "TCP/80"));
    let mut nodes = egress("{action: Deny, to: [{nodes: {matchLabels: {zone: west}}}]}");
    assert!(!nodes.allows("shop/web", "192.0.2.2", "TCP/80"));
    assert!(nodes.allows("shop/web", "192.0.2.1", "TCP/80"));
    assert!(nodes.allows("shop/web", "203.0.113.9", "TCP/80"));
    // The node's own end of the pod network is the node.
    assert!(!nodes.allows("shop/web", "10.0.9.1", "TCP/80"));
}

#[test]
fn protocols_are_ports_ranges_and_names() {
    let deny = |protocols: &str| {
        let spec = format!(
            "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{protocols}]}}]}}"
        );
        let mut scene = scene(&[&spec]);
        let all = ["TCP/53", "TCP/80", "TCP/90", "UDP/53", "SCTP/80", "ICMP/0"];
        let denied = all
            .into_iter()
            .filter(|t| !scene.allows("shop/web", "bank/web", t));
        denied.collect::<Vec<_>>()
    };
    assert_eq!(deny("{tcp: {destinationPort: {number: 80}}}"), ["TCP/80"]);
    assert_eq!(
        deny(
            "{tcp: {destinationPort: {range: {start: 80, end: 90}}}}, {sctp: {destinationPort: {number: 80}}}"
        ),
        ["TCP/80", "TCP/90", "SCTP/80"]
    );
    assert_eq!(deny("{udp: {destinationPort: {number: 53}}}"), ["UDP/53"]);
    assert_eq!(deny("{destinationNamedPort: dns}"), ["UDP/53"]);
    assert_eq!(deny("{destinationNamedPort: http}"), ["TCP/80"]);
}

#[test]
fn a_rule_that_cannot_be_read_fails_closed_by_its_action() {
    let rule = |action: &str, peer: &str| {
        format!(
            "{{tier: Admin, priority: 0, subject: {{namespaces: {{matchLabels: {{team: red}}}}}}, ingress: [{{action: {action}, from: [{peer}]}}]}}"
        )
    };
    // No field of the peer is one we know.
    for (action, allowed) in [
        ("Accept", true),
        ("Deny", false),
        ("Pass", false),
        ("Maybe", false),
    ] {
        let mut scene = Scene::new();
        guard(&mut scene, "g", &rule(action, "{services: {}}"));
        assert_eq!(
            scene.allows("lab/odd", "shop/db", "TCP/80"),
            allowed,
            "{action}"
        );
        assert!(scene.allows("lab/odd", "bank/web", "TCP/80"));
        let problems = scene.problems();
        assert!(
            problems[0].contains("spec.ingress[0].from[0]: must have exactly one"),
            "{problems:?}"
        );
    }
}

#[test]
fn names_of_the_dns_are_told_and_break_no_file() {
    let mut scene = Scene::new();
    let rule = "{action: Accept, to: [{domainNames: [example.com]}]}";
    let spec = format!(
        "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, egress: [{rule}, {{action: Deny, to: [{{networks: [203.0.113.0/24]}}]}}]}}"
    );
    guard(&mut scene, "g", &spec);
    assert_eq!(scene.store.problems(), [] as [&str; 0]);
    assert!(scene.problems()[0].contains("names of the DNS"));
    assert!(!scene.allows("shop/web", "203.0.113.9", "TCP/80"));
}

#[test]
fn a_tier_priority_or_subject_that_cannot_be_read_cuts_off() {
    let rules = "ingress: [{action: Accept, from: [{namespaces: {}}]}]";
    let red = "subject: {namespaces: {matchLabels: {team: red}}}";
    for (spec, bank_open) in [
        (
            format!("{{tier: Middle, priority: 1, {red}, {rules}}}"),
            true,
        ),
        (
            format!("{{tier: Admin, priority: 1001, {red}, {rules}}}"),
            true,
        ),
        (format!("{{tier: Admin, {red}, {rules}}}"), true),
        (
            format!("{{tier: Admin, priority: 1, subject: {{}}, {rules}}}"),
            false,
        ),
    ] {
        let mut scene = Scene::new();
        guard(&mut scene, "g", &spec);
        assert!(!scene.problems().is_empty());
        assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"), "{spec}");
        assert_eq!(
            scene.allows("lab/odd", "bank/web", "TCP/80"),
            bank_open,
            "{spec}"
        );
        // It has no egress rules, and is not about egress.
        assert!(scene.allows("shop/db", "203.0.113.9", "TCP/80"), "{spec}");
    }
}
