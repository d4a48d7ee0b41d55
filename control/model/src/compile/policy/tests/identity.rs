//! Whom addresses belong to.

use std::collections::BTreeMap;

use super::*;

/// Names of identities by prefix.
fn owners(scene: &mut Scene) -> BTreeMap<String, String> {
    let objects = scene.objects();
    let names: BTreeMap<u32, String> = objects
        .identities
        .iter()
        .map(|i| (i.id, i.name.clone()))
        .collect();
    let name = |id: &u32| names[id].clone();
    let addresses = objects.addresses.iter();
    addresses
        .map(|a| (a.prefix.to_string(), name(&a.identity)))
        .collect()
}

fn identity(scene: &mut Scene, prefix: &str) -> u32 {
    let objects = scene.objects();
    let mut addresses = objects.addresses.iter();
    addresses
        .find(|a| a.prefix.to_string() == prefix)
        .unwrap()
        .identity
}

fn remote(scene: &mut Scene, name: &str, extra: &str, status: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: far}}{extra}}}\nspec: {{containers: []}}\nstatus: {status}\n"
    );
    scene.apply(name, &text);
}

#[test]
fn pods_nodes_and_blocks_have_names_for_people() {
    let block = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}, {ipBlock: {cidr: 10.0.0.4/30}}]}]}";
    let mut scene = Scene::with(&[("shop", block)]);
    let owners = owners(&mut scene);
    for (prefix, name) in [
        ("10.0.0.1/32", "shop app=web,tier=front"),
        ("10.0.0.2/32", "shop app=db"),
        ("10.0.0.4/32", "bank app=vault in 10.0.0.4/30"),
        ("10.0.0.5/32", "lab in 10.0.0.4/30"),
        ("192.0.2.2/32", "node b"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("10.0.0.4/30", "10.0.0.4/30"),
    ] {
        assert_eq!(owners[prefix], name, "{prefix}");
    }
    // Five pods, two nodes with a weft0 each, two blocks.
    assert_eq!(owners.len(), 5 + 4 + 2);
}

#[test]
fn a_number_keeps_its_meaning() {
    let mut scene = Scene::with(&[("shop", "{podSelector: {}}")]);
    let mut meanings: BTreeMap<u32, String> = BTreeMap::new();
    let mut look = |scene: &mut Scene| {
        for identity in scene.objects().identities {
            let known = meanings
                .entry(identity.id)
                .or_insert_with(|| identity.name.clone());
            assert_eq!(*known, identity.name);
        }
    };
    look(&mut scene);
    let before = identity(&mut scene, "10.0.0.2/32");
    for labels in ["app: other", "", "app: db, x: y", "app: vault"] {
        scene.apply("shop/db", &pod_text("shop/db", labels, ""));
        look(&mut scene);
        assert_ne!(identity(&mut scene, "10.0.0.2/32"), before);
    }
    scene.apply("shop/db", &pod_text("shop/db", "app: db", ""));
    look(&mut scene);
    assert_eq!(identity(&mut scene, "10.0.0.2/32"), before);
}

#[test]
fn pods_policies_cannot_tell_apart_are_one() {
    let mut scene = Scene::new();
    for number in 1..=3 {
        let status = format!(
            "{{phase: Running, podIPs: [{{ip: 10.0.1.{}}}]}}",
            10 + number
        );
        remote(&mut scene, &format!("far-{number}"), "", &status);
    }
    let first = identity(&mut scene, "10.0.1.11/32");
    assert_eq!(identity(&mut scene, "10.0.1.13/32"), first);
    assert_ne!(identity(&mut scene, "10.0.0.1/32"), first);
}

#[test]
fn only_pods_with_addresses_of_their_own_have_any() {
    let mut scene = Scene::new();
    let ip = "podIPs: [{ip: 10.0.1.9}]";
    remote(&mut scene, "far", "", &format!("{{phase: Pending, {ip}}}"));
    assert!(owners(&mut scene).contains_key("10.0.1.9/32"));
    for phase in ["Succeeded", "Failed"] {
        remote(&mut scene, "far", "", &format!("{{phase: {phase}, {ip}}}"));
        assert!(!owners(&mut scene).contains_key("10.0.1.9/32"));
    }
    remote(&mut scene, "far", "", "{phase: Running}");
    assert!(!owners(&mut scene).contains_key("10.0.1.9/32"));
    let text = pod_text("shop/far", "", "hostNetwork: true, ")
        + "status: {phase: Running, podIPs: [{ip: 192.0.2.2}, {ip: 10.0.1.9}]}\n";
    scene.apply("far", &text);
    let owners = owners(&mut scene);
    assert_eq!(owners["192.0.2.2/32"], "node b");
    assert!(!owners.contains_key("10.0.1.9/32"));
}

#[test]
fn a_local_pod_has_the_addresses_it_was_given() {
    let mut scene = Scene::new();
    let text = pod_text("shop/db", "app: db", "")
        + "status: {phase: Running, podIPs: [{ip: 10.0.0.99}]}\n";
    scene.apply("shop/db", &text);
    let found = owners(&mut scene);
    assert_eq!(found["10.0.0.2/32"], "shop app=db");
    assert!(!found.contains_key("10.0.0.99/32"));
    // The object may come later, or never.
    scene.store.remove("shop/db");
    assert_eq!(owners(&mut scene)["10.0.0.2/32"], "shop");
    scene.policy("p", "shop", "{podSelector: {}}");
    assert!(!scene.allows("bank/web", "shop/db", "TCP/80"));
    scene.policy("p", "shop", "{podSelector: {matchLabels: {app: db}}}");
    assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
}

#[test]
fn of_two_pods_with_one_address_the_newer_running_one_has_it() {
    let mut scene = Scene::new();
    let created = |day: u32| format!(", creationTimestamp: '2026-01-0{day}T00:00:00Z'");
    let running = "{phase: Running, podIPs: [{ip: 10.0.1.9}]}";
    let pending = "{phase: Pending, podIPs: [{ip: 10.0.1.9}]}";
    let holder = |scene: &mut Scene| {
        let objects = scene.objects();
        let held = objects
            .addresses
            .iter()
            .find(|a| a.prefix.to_string() == "10.0.1.9/32");
        held.unwrap().pod.clone().unwrap().name
    };
    remote(&mut scene, "old", &created(1), running);
    remote(&mut scene, "new", &created(2), pending);
    assert_eq!(holder(&mut scene), "old");
    assert_eq!(scene.problems(), [] as [&str; 0]);
    remote(&mut scene, "new", &created(2), running);
    assert_eq!(holder(&mut scene), "new");
    assert_eq!(
        scene.problems(),
        ["Pod shop/old: address 10.0.1.9 is also that of Pod shop/new, which keeps it"]
    );
    scene.local.push(LocalPod {
        host_ports: Vec::new(),
        pod: PodRef {
            namespace: "lab".to_owned(),
            name: "mine".to_owned(),
        },
        addresses: vec!["10.0.1.9".parse().unwrap()],
    });
    assert_eq!(holder(&mut scene), "mine");
}

#[test]
fn selectors_are_those_in_use_by_local_pods() {
    let mut scene = Scene::with(&[
        (
            "shop",
            "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}",
        ),
        (
            "far",
            "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 203.0.113.0/24}}]}]}",
        ),
    ]);
    let objects = scene.objects();
    let most = objects.identities.iter().map(|i| i.selectors.len()).max();
    assert_eq!(most, Some(1));
    assert!(
        !objects
            .addresses
            .iter()
            .any(|a| a.prefix.to_string() == "203.0.113.0/24")
    );
    for identity in &objects.identities {
        assert!(identity.selectors.is_sorted());
        assert_ne!(identity.id, 0);
    }
}

#[test]
fn labels_of_a_namespace_count_as_soon_as_they_change() {
    let spec =
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"));
    let lab = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {team: blue}}\n";
    scene.apply("lab", lab);
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    scene.apply("lab", &lab.replace("blue", "red"));
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/80"));
}

#[test]
fn objects_that_did_not_change_are_the_same_in_memory() {
    let mut scene = Scene::with(&[(
        "shop",
        "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}",
    )]);
    let before = scene.objects();
    scene.apply("bank/web", &pod_text("bank/web", "app: changed", ""));
    let after = scene.objects();
    let shared = |a: &super::super::PolicyObjects| {
        a.endpoints
            .iter()
            .map(std::sync::Arc::as_ptr)
            .collect::<Vec<_>>()
    };
    let kept = shared(&after)
        .iter()
        .filter(|p| shared(&before).contains(p))
        .count();
    assert_eq!(
        (before.endpoints.len(), after.endpoints.len(), kept),
        (5, 5, 4)
    );
}

#[test]
fn an_address_block_of_one_pod_is_that_pod() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.4/32}}]}]}";
    let mut scene = Scene::with(&[("shop", spec)]);
    let objects = scene.objects();
    let at = objects
        .addresses
        .iter()
        .filter(|a| a.prefix.to_string() == "10.0.0.4/32");
    let pods: Vec<_> = at.map(|a| a.pod.clone().unwrap().name).collect();
    assert_eq!(pods, ["vault"]);
    assert_eq!(scene.sources("shop/db", "TCP/80"), ["bank/vault"]);
}
