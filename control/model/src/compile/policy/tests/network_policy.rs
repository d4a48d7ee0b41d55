//! The sentences of the API's documentation of NetworkPolicy, one after the other.

use super::*;

const ALL: [&str; 4] = ["shop/web", "bank/web", "bank/vault", "lab/odd"];

#[test]
fn traffic_is_allowed_where_no_policy_selects_the_pod() {
    let mut scene = Scene::with(&[("bank", "{podSelector: {}}")]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ALL);
    assert_eq!(
        scene.destinations("bank/web", "TCP/80"),
        ["shop/web", "shop/db", "lab/odd"]
    );
}

#[test]
fn every_local_pod_has_rules_though_nothing_selects_it() {
    let mut scene = Scene::with(&[]);
    let objects = scene.objects();
    assert_eq!(objects.endpoints.len(), PODS.len());
    assert!(
        objects
            .endpoints
            .iter()
            .all(|e| e.ingress.is_empty() && e.egress.is_empty())
    );
}

#[test]
fn an_empty_pod_selector_matches_all_pods_in_this_namespace() {
    let mut scene = Scene::with(&[("shop", "{podSelector: {}}")]);
    for pod in ["shop/web", "shop/db"] {
        assert!(scene.sources(pod, "TCP/80").is_empty());
    }
    assert!(scene.allows("shop/web", "bank/web", "TCP/80"));
}

#[test]
fn an_empty_list_of_rules_allows_nothing() {
    for spec in [
        "{podSelector: {}}",
        "{podSelector: {}, ingress: []}",
        "{podSelector: {}, policyTypes: [Ingress]}",
    ] {
        let mut scene = Scene::with(&[("shop", spec)]);
        assert!(scene.sources("shop/db", "TCP/80").is_empty(), "{spec}");
        assert!(scene.sources("shop/db", "ICMP/0").is_empty(), "{spec}");
        assert_eq!(
            scene.destinations("shop/db", "TCP/80"),
            ["bank/web", "bank/vault", "lab/odd"]
        );
    }
}

#[test]
fn policy_types_default_by_the_rules_there_are() {
    let types = |spec: &str| {
        let mut scene = Scene::with(&[("shop", spec)]);
        let ingress = scene.sources("shop/db", "TCP/80").is_empty();
        (ingress, scene.destinations("shop/db", "TCP/80").is_empty())
    };
    assert_eq!(types("{podSelector: {}}"), (true, false));
    assert_eq!(types("{podSelector: {}, policyTypes: []}"), (true, false));
    assert_eq!(types("{podSelector: {}, egress: []}"), (true, false));
    let one = "[{to: [{podSelector: {matchLabels: {app: nobody}}}]}]";
    assert_eq!(
        types(&format!("{{podSelector: {{}}, egress: {one}}}")),
        (true, true)
    );
    assert_eq!(
        types("{podSelector: {}, policyTypes: [Egress]}"),
        (false, true)
    );
    assert_eq!(
        types("{podSelector: {}, policyTypes: [Ingress, Egress]}"),
        (true, true)
    );
    let only_ingress = format!("{{podSelector: {{}}, policyTypes: [Ingress], egress: {one}}}");
    assert_eq!(types(&only_ingress), (true, false));
}

#[test]
fn rules_of_a_direction_the_policy_is_not_about_are_not_looked_at() {
    let spec = "{podSelector: {}, policyTypes: [Egress], ingress: [], egress: [{}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ALL);
    assert_eq!(scene.destinations("shop/db", "TCP/80"), ALL);
}

#[test]
fn missing_or_empty_peers_and_ports_are_all_of_them() {
    for rule in ["{}", "{from: []}", "{ports: []}", "{from: [], ports: []}"] {
        let spec = format!("{{podSelector: {{}}, ingress: [{rule}]}}");
        let mut scene = Scene::with(&[("shop", &spec)]);
        for traffic in ["TCP/80", "UDP/53", "SCTP/9", "ICMP/0"] {
            assert_eq!(scene.sources("shop/db", traffic), ALL, "{rule}");
        }
        assert!(scene.allows("203.0.113.9", "shop/db", "TCP/80"), "{rule}");
    }
}

#[test]
fn traffic_must_match_both_peers_and_ports() {
    let spec = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ["shop/web"]);
    assert!(scene.sources("shop/db", "TCP/81").is_empty());
    assert!(!scene.allows("shop/db", "shop/web", "TCP/80"));
}

#[test]
fn items_of_a_list_are_alternatives() {
    let spec = "{podSelector: {}, ingress: [{from: [{podSelector: {}}, {namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 80}, {port: 53, protocol: UDP}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    for traffic in ["TCP/80", "UDP/53"] {
        let sources = scene.sources("shop/db", traffic);
        assert_eq!(sources, ["shop/web", "bank/web", "bank/vault"]);
    }
    assert!(scene.sources("shop/db", "UDP/80").is_empty());
}

#[test]
fn both_selectors_of_a_peer_must_match() {
    let from = |peer: &str| {
        let spec = format!("{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}");
        Scene::with(&[("shop", &spec)]).sources("shop/db", "TCP/80")
    };
    let (blue, web) = ("{matchLabels: {team: blue}}", "{matchLabels: {app: web}}");
    assert_eq!(
        from(&format!(
            "{{namespaceSelector: {blue}, podSelector: {web}}}"
        )),
        ["bank/web"]
    );
    assert_eq!(
        from(&format!(
            "{{namespaceSelector: {blue}}}, {{podSelector: {web}}}"
        )),
        ["shop/web", "bank/web", "bank/vault"]
    );
    assert_eq!(from(&format!("{{podSelector: {web}}}")), ["shop/web"]);
    assert_eq!(from("{podSelector: {}}"), ["shop/web"]);
    assert_eq!(from("{namespaceSelector: {}}"), ALL);
}

#[test]
fn a_namespace_has_its_name_as_a_label_with_and_without_an_object() {
    for (name, sources) in [
        ("bank", vec!["bank/web", "bank/vault"]),
        ("lab", vec!["lab/odd"]),
    ] {
        let spec = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}]}}]}}"
        );
        assert_eq!(
            Scene::with(&[("shop", &spec)]).sources("shop/db", "TCP/80"),
            sources
        );
    }
}

#[test]
fn expressions_hold_as_the_api_says() {
    let from = |expression: &str| {
        let spec = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{expression}]}}}}]}}]}}"
        );
        Scene::with(&[("shop", &spec)]).sources("shop/db", "TCP/80")
    };
    assert_eq!(
        from("{key: app, operator: In, values: [web, vault]}"),
        ["shop/web", "bank/web", "bank/vault"]
    );
    assert_eq!(
        from("{key: app, operator: NotIn, values: [web]}"),
        ["bank/vault", "lab/odd"]
    );
    assert_eq!(
        from("{key: tier, operator: Exists}"),
        ["shop/web", "bank/web"]
    );
    assert_eq!(
        from("{key: tier, operator: DoesNotExist}"),
        ["bank/vault", "lab/odd"]
    );
    assert_eq!(
        from("{key: app, operator: Exists}, {key: tier, operator: NotIn, values: [back]}"),
        ["shop/web", "bank/vault"]
    );
}

#[test]
fn a_protocol_that_is_not_given_is_tcp() {
    let spec = "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ALL);
    for traffic in ["UDP/80", "SCTP/80", "ICMP/0"] {
        assert!(scene.sources("shop/db", traffic).is_empty());
    }
}

#[test]
fn a_port_that_is_not_given_is_every_port_of_the_protocol() {
    let spec = "{podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert_eq!(scene.sources("shop/db", "SCTP/1"), ALL);
    assert_eq!(scene.sources("shop/db", "SCTP/65535"), ALL);
    assert!(scene.sources("shop/db", "TCP/1").is_empty());
}

#[test]
fn end_port_is_included() {
    let spec = "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90, protocol: UDP}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    for (port, allowed) in [(79, false), (80, true), (85, true), (90, true), (91, false)] {
        let traffic = format!("UDP/{port}");
        assert_eq!(
            scene.allows("lab/odd", "shop/db", &traffic),
            allowed,
            "{port}"
        );
    }
}

#[test]
fn a_named_port_of_ingress_is_the_number_the_pod_gives_it() {
    let spec = "{podSelector: {}, ingress: [{ports: [{port: http}, {port: dns}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    let other =
        pod_text("shop/db", "app: db", "").replace("containerPort: 80", "containerPort: 8080");
    scene.apply("shop/db", &other);
    assert!(scene.allows("lab/odd", "shop/web", "TCP/80"));
    assert!(!scene.allows("lab/odd", "shop/web", "TCP/8080"));
    assert!(scene.allows("lab/odd", "shop/db", "TCP/8080"));
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"));
    // dns is a name of UDP, and the rule is about TCP.
    assert!(!scene.allows("lab/odd", "shop/web", "UDP/53"));
    assert!(!scene.allows("lab/odd", "shop/web", "TCP/53"));
}

#[test]
fn a_named_port_of_egress_is_the_number_each_destination_gives_it() {
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    let other =
        pod_text("bank/web", "app: web", "").replace("containerPort: 80", "containerPort: 8080");
    scene.apply("bank/web", &other);
    assert_eq!(scene.destinations("shop/web", "TCP/80"), ["bank/vault"]);
    assert_eq!(scene.destinations("shop/web", "TCP/8080"), ["bank/web"]);
    assert!(!scene.allows("shop/web", "203.0.113.9", "TCP/80"));
}

#[test]
fn a_named_port_towards_anyone_is_of_pods_only() {
    for to in ["", "to: [{ipBlock: {cidr: 0.0.0.0/0}}], "] {
        let spec = format!(
            "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{{to}ports: [{{port: http}}]}}]}}"
        );
        let mut scene = Scene::with(&[("shop", &spec)]);
        assert_eq!(scene.destinations("shop/db", "TCP/80"), ALL);
        assert!(scene.destinations("shop/db", "TCP/53").is_empty());
        assert!(!scene.allows("shop/db", "203.0.113.9", "TCP/80"));
    }
}

#[test]
fn a_block_is_everything_in_it_but_its_exceptions() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26, 203.0.113.9/32]}}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    for (source, allowed) in [
        ("203.0.113.8", true),
        ("203.0.113.9", false),
        ("203.0.113.63", true),
        ("203.0.113.64", false),
        ("203.0.113.127", false),
        ("203.0.113.128", true),
        ("203.0.114.1", false),
    ] {
        assert_eq!(
            scene.allows(source, "shop/db", "TCP/80"),
            allowed,
            "{source}"
        );
    }
}

#[test]
fn blocks_of_other_policies_do_not_hide_each_other() {
    let from = |cidr: &str| {
        format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}")
    };
    let (wide, narrow) = (from("203.0.113.0/24"), from("203.0.113.0/28"));
    let mut scene = Scene::with(&[("shop", &wide), ("bank", &narrow)]);
    assert!(scene.allows("203.0.113.1", "shop/db", "TCP/80"));
    assert!(scene.allows("203.0.113.1", "bank/web", "TCP/80"));
    assert!(scene.allows("203.0.113.99", "shop/db", "TCP/80"));
    assert!(!scene.allows("203.0.113.99", "bank/web", "TCP/80"));
}

#[test]
fn a_block_means_pods_and_nodes_inside_too() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/29, except: [10.0.0.4/32]}}, {ipBlock: {cidr: 192.0.2.2/32}}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert_eq!(
        scene.sources("shop/db", "TCP/80"),
        ["shop/web", "bank/web", "lab/odd"]
    );
    assert!(scene.allows("192.0.2.2", "shop/db", "TCP/80"));
    assert!(!scene.allows("192.0.2.1", "shop/db", "TCP/80"));
}

#[test]
fn a_block_may_be_written_with_host_bits() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.7/24}}]}]}";
    assert!(Scene::with(&[("shop", spec)]).allows("203.0.113.200", "shop/db", "TCP/80"));
}

#[test]
fn several_policies_add_up() {
    let allow =
        |port: u16| format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}");
    let deny = "{podSelector: {}}".to_owned();
    let mut scene = Scene::with(&[("shop", &allow(80)), ("shop", &deny), ("shop", &allow(81))]);
    for (port, allowed) in [(80, true), (81, true), (82, false)] {
        let traffic = format!("TCP/{port}");
        assert_eq!(scene.allows("lab/odd", "shop/db", &traffic), allowed);
    }
}

#[test]
fn what_is_denied_names_the_policies_that_isolate() {
    let mut scene = Scene::with(&[
        ("shop", "{podSelector: {}}"),
        (
            "shop",
            "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}",
        ),
    ]);
    assert_eq!(
        scene.denial("lab/odd", "shop/db", "TCP/80").unwrap(),
        "NetworkPolicy shop/p0, NetworkPolicy shop/p1 isolates ingress"
    );
    assert_eq!(
        scene.denial("shop/db", "lab/odd", "TCP/80").unwrap(),
        "NetworkPolicy shop/p1 isolates egress"
    );
}

#[test]
fn egress_of_the_one_and_ingress_of_the_other_must_both_allow() {
    let mut scene = Scene::with(&[
        (
            "shop",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}, {port: 81}]}]}",
        ),
        (
            "bank",
            "{podSelector: {}, ingress: [{ports: [{port: 81}, {port: 82}]}]}",
        ),
    ]);
    for (port, allowed) in [(80, false), (81, true), (82, false)] {
        let traffic = format!("TCP/{port}");
        assert_eq!(scene.allows("shop/web", "bank/web", &traffic), allowed);
    }
}

#[test]
fn both_families_are_told_apart() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    let db = |pod: &LocalPod| pod.pod.name == "db";
    let index = scene.local.iter().position(db).unwrap();
    scene.local[index]
        .addresses
        .push("fd00::2".parse().unwrap());
    assert!(scene.allows("2001:db8::9", "fd00::2", "TCP/80"));
    assert!(!scene.allows("2001:db8:1::9", "fd00::2", "TCP/80"));
    assert!(!scene.allows("2001:db9::9", "fd00::2", "TCP/80"));
    assert!(!scene.allows("203.0.113.9", "shop/db", "TCP/80"));
}
