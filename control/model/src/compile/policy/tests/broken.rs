//! What is wrong with a policy, and that nobody gets in by it.

use super::*;

const GOOD: &str = "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}";

#[test]
fn a_broken_rule_is_named_and_left_out_and_the_rest_stands() {
    let cidr = "from: [{ipBlock: {cidr: 10.0.0/8}}]";
    for (rule, place) in [
        (
            cidr,
            "spec.ingress[0].from[0].ipBlock.cidr: '10.0.0/8' is not a prefix",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.1}}]",
            ".ipBlock.cidr: '10.0.0.1' is not a prefix",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]",
            ".except[0]: 10.0.0.0/8 is not a part of 10.0.0.0/8",
        ),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, '::/0']}}]",
            ".except[1]: ::/0 is not a part of 10.0.0.0/8",
        ),
        ("from: [{}]", "spec.ingress[0].from[0]: has none of"),
        (
            "from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]",
            "from[0]: ipBlock stands beside",
        ),
        (
            "ports: [{port: 90, endPort: 89}]",
            "ports[0].endPort: 89 is lower than the port 90",
        ),
        (
            "ports: [{port: http, endPort: 89}]",
            "ports[0].endPort: stands with a named port",
        ),
        (
            "ports: [{endPort: 89}]",
            "ports[0].endPort: stands without a port",
        ),
        ("ports: [{port: 0}]", "ports[0].port: 0 is not a port"),
        (
            "ports: [{port: 70000}]",
            "ports[0].port: 70000 is not a port",
        ),
        (
            "ports: [{port: '80'}]",
            "ports[0].port: '80' is not the name of a port",
        ),
        (
            "ports: [{port: 80, protocol: ICMP}]",
            "ports[0].protocol: 'ICMP' is none of",
        ),
        (
            "from: [{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}]",
            "from[0].podSelector.matchExpressions[0]: 'Gt' is not an operator",
        ),
        (
            "from: [{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}]",
            "namespaceSelector.matchExpressions[0]: In needs values",
        ),
        (
            "from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]",
            "Exists takes no values",
        ),
    ] {
        let mut scene = Scene::new();
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{{rule}}}, {{ports: [{{port: 99}}]}}]}}"
        );
        scene.policy("p", "shop", &spec);
        let problems = scene.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        // What is missing stands in no line; then it is the object's.
        let line = if rule == "from: [{}]" { 1 } else { 4 };
        assert!(
            problems[0].starts_with(&format!("p:{line}: NetworkPolicy shop/p: spec.")),
            "{problems:?}"
        );
        assert!(
            problems.iter().all(|p| p.contains(place)),
            "{problems:?} {place}"
        );
        assert!(problems[1].ends_with("the rule is left out, the pods stay isolated"));
        assert!(!scene.allows("10.9.9.9", "shop/db", "TCP/80"), "{rule}");
        assert!(!scene.allows("bank/web", "shop/db", "TCP/90"), "{rule}");
        assert!(scene.allows("bank/web", "shop/db", "TCP/99"), "{rule}");
        assert!(scene.allows("bank/web", "shop/web", "TCP/80"), "{rule}");
    }
}

#[test]
fn an_unreadable_subject_isolates_the_namespace_in_the_directions_it_is_about() {
    let subject = "podSelector: {matchExpressions: [{key: app, operator: Near}]}";
    let mut scene = Scene::new();
    scene.policy(
        "p",
        "shop",
        &format!("{{{subject}, policyTypes: [Egress]}}"),
    );
    assert!(scene.destinations("shop/web", "TCP/80").is_empty());
    assert!(scene.allows("bank/web", "shop/web", "TCP/80"));
    assert!(scene.problems()[1].ends_with("every pod of the namespace is isolated"));
    scene.policy(
        "p",
        "shop",
        &format!("{{{subject}, ingress: [{{ports: [{{port: 80}}]}}]}}"),
    );
    assert!(scene.allows("bank/web", "shop/web", "TCP/80"));
    assert!(!scene.allows("bank/web", "shop/web", "TCP/81"));
}

#[test]
fn unknown_policy_types_are_both() {
    let mut scene = Scene::new();
    scene.policy("p", "shop", "{podSelector: {}, policyTypes: [ingress]}");
    assert!(scene.sources("shop/web", "TCP/80").is_empty());
    assert!(scene.destinations("shop/web", "TCP/80").is_empty());
}

#[test]
fn the_last_good_state_stays_in_force() {
    let mut scene = Scene::with(&[("shop", GOOD)]);
    scene.policy("p0", "shop", &GOOD.replace("port: 80", "port: 80000"));
    let problems = scene.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("80000 is not a port"));
    assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
    assert!(!scene.allows("bank/web", "shop/db", "TCP/81"));
}

#[test]
fn a_policy_that_never_could_be_decoded_isolates_its_namespace() {
    for text in [
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: 7}\n",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec: {podSelector: {}\n",
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: {}}\n",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {ingress: 1}}\n",
    ] {
        let mut scene = Scene::new();
        scene.apply("p", text);
        let revision = scene.store.revision();
        assert!(scene.sources("shop/db", "TCP/80").is_empty(), "{text}");
        assert!(scene.destinations("shop/db", "TCP/80").is_empty(), "{text}");
        assert!(scene.allows("bank/web", "lab/odd", "TCP/80"), "{text}");
        let told = "NetworkPolicy shop/p: cannot be read; every pod of the namespace is isolated";
        assert!(
            scene.problems().iter().any(|problem| problem == told),
            "{text}"
        );
        scene.store.remove("p");
        assert!(scene.store.revision() > revision);
        assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
    }
}

#[test]
fn good_policies_of_a_file_that_never_was_good_are_in_force() {
    let mut scene = Scene::new();
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
        )
    };
    let bad = "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: -1}]}]}";
    scene.apply("both", &(policy("good", GOOD) + &policy("bad", bad)));
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/81"));
    assert!(scene.sources("shop/web", "TCP/80").is_empty());
    scene.apply("both", &policy("good", GOOD));
    assert_eq!(scene.sources("shop/web", "TCP/80").len(), 4);
    assert_eq!(scene.problems(), [] as [&str; 0]);
}

#[test]
fn a_policy_that_is_good_elsewhere_is_in_force_as_it_is_there() {
    let mut scene = Scene::with(&[("shop", GOOD)]);
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p0, namespace: shop}\nspec: {podSelector: 7}\n";
    scene.apply("copy", text);
    assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
    assert!(scene.allows("bank/web", "shop/web", "TCP/80"));
}

#[test]
fn a_cluster_policy_that_never_could_be_decoded_cuts_off_every_pod() {
    let mut scene = Scene::new();
    let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: g}\nspec: {tier: [Admin]}\n";
    scene.apply("g", text);
    assert!(!scene.allows("bank/web", "shop/db", "TCP/80"));
    scene.apply(
        "g",
        &text.replace("[Admin]", "Admin, priority: 1, subject: {namespaces: {}}"),
    );
    assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
}
