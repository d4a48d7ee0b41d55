//! What is compiled again, and what is not.

use std::sync::Arc;

use super::*;

const SPEC: &str = "ports: [{port: 80}], clusterIP: 10.96.0.";

fn endpoint(number: u8) -> String {
    format!("ports: [{{port: 80}}], endpoints: [{{addresses: [10.0.0.{number}]}}]")
}

#[test]
fn what_did_not_change_is_the_same_in_memory() {
    let mut scene = Scene::new();
    for (name, number) in [("a", 1), ("b", 2)] {
        scene.service(name, &format!("{SPEC}{number}"));
        scene.slices(name, &[&endpoint(number)]);
    }
    let before = scene.compiled().desired.services.services;
    scene.slices("b", &[&endpoint(9)]);
    let after = scene.compiled().desired.services.services;
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert!(!Arc::ptr_eq(&before[1], &after[1]));
}

#[test]
fn slices_come_go_and_move_to_another_service() {
    let mut scene = Scene::with(&format!("{SPEC}1"), &[&endpoint(1), &endpoint(2)]);
    scene.service("t", &format!("{SPEC}2"));
    assert_eq!(scene.s().backends.len(), 2);
    scene.slices("s", &[&endpoint(1)]);
    assert_eq!(scene.s().backends.len(), 1);
    let moved = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-0, namespace: shop, \
                 labels: {kubernetes.io/service-name: t}}, addressType: IPv4, ports: [{port: 80}], \
                 endpoints: [{addresses: [10.0.0.1]}]}";
    scene.apply("s-slices", moved);
    assert_eq!(scene.s().backends, []);
    assert_eq!(scene.get("t").unwrap().backends.len(), 1);
    scene.store.remove("s-slices");
    assert_eq!(scene.get("t").unwrap().backends, []);
    scene.store.remove("s");
    assert_eq!(scene.get("s"), None);
}

#[test]
fn a_slice_may_come_before_its_service() {
    let mut scene = Scene::new();
    scene.slices("s", &[&endpoint(1)]);
    assert_eq!(scene.get("s"), None);
    scene.service("s", &format!("{SPEC}1"));
    assert_eq!(scene.s().backends.len(), 1);
}

#[test]
fn cluster_ips_are_ranges_until_the_service_is_gone() {
    let mut scene = Scene::with(&format!("{SPEC}1"), &[]);
    let ranges = |scene: &mut Scene| -> Vec<String> {
        let desired = scene.compiled().desired;
        desired
            .service_ranges()
            .map(|range| range.to_string())
            .collect()
    };
    assert_eq!(ranges(&mut scene), ["10.96.0.1/32"]);
    scene.service("s", "clusterIP: None, ports: [{port: 80}]");
    assert_eq!(ranges(&mut scene), [] as [&str; 0]);
}
