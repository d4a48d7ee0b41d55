//! Which endpoints are backends, and which of them new connections go to.

use super::*;

const SPEC: &str = "clusterIP: 10.96.0.1, ports: [{port: 80}]";

/// One slice with these endpoints: last number of the address and what else there is.
fn slice(endpoints: &[(u8, &str)]) -> String {
    let endpoint =
        |(number, rest): &(u8, &str)| format!("{{addresses: [10.0.0.{number}], {rest}}}");
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    format!(
        "ports: [{{port: 80}}], endpoints: [{}]",
        endpoints.join(", ")
    )
}

/// Last numbers of the addresses new connections to the cluster IP go to.
fn chosen(endpoints: &[(u8, &str)]) -> Vec<String> {
    let mut scene = Scene::with(SPEC, &[&slice(endpoints)]);
    let chosen = scene.behind(FrontendKind::ClusterIp);
    let number = |name: &String| name["10.0.0.".len()..name.len() - ":80".len()].to_owned();
    chosen.iter().map(number).collect()
}

#[test]
fn a_missing_condition_means_ready_serving_and_staying() {
    let endpoints = [
        (1, ""),
        (2, "conditions: {}"),
        (3, "conditions: {ready: true}"),
        (4, "conditions: {ready: false}"),
        (5, "conditions: {ready: false, terminating: true}"),
    ];
    assert_eq!(chosen(&endpoints), ["1", "2", "3"]);
    // Without ready ones: the fifth does not say that it stopped serving.
    assert_eq!(chosen(&endpoints[3..]), ["5"]);
}

#[test]
fn terminating_endpoints_that_serve_are_the_last_resort() {
    const ENDS: &str = "conditions: {ready: false, serving: true, terminating: true}";
    const GONE: &str = "conditions: {ready: false, serving: false, terminating: true}";
    assert_eq!(chosen(&[(1, ""), (2, ENDS), (3, GONE)]), ["1"]);
    assert_eq!(chosen(&[(2, ENDS), (3, GONE)]), ["2"]);
    assert_eq!(chosen(&[(3, GONE)]), [] as [&str; 0]);
}

#[test]
fn addresses_published_before_they_are_ready_count() {
    let published = "conditions: {ready: true, serving: false, terminating: true}";
    assert_eq!(chosen(&[(1, published), (2, "")]), ["1", "2"]);
}

#[test]
fn whoever_is_there_keeps_connections() {
    let endpoints = slice(&[
        (1, ""),
        (
            2,
            "conditions: {ready: false, serving: false, terminating: true}",
        ),
        (3, "conditions: {ready: false, serving: false}"),
    ]);
    let mut scene = Scene::with(SPEC, &[&endpoints]);
    let ends = |service: Service| -> Vec<bool> {
        service.backends.iter().map(|b| b.terminating).collect()
    };
    assert_eq!(ends(scene.s()), [false, true, false]);
    // Not so for UDP, where an endpoint that does not serve has nobody to part from.
    scene.service(
        "s",
        "clusterIP: 10.96.0.1, ports: [{port: 80, protocol: UDP}]",
    );
    scene.slices(
        "s",
        &[&endpoints.replace("port: 80", "port: 80, protocol: UDP")],
    );
    assert_eq!(ends(scene.s()), [false, true]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_backend() {
    let here = slice(&[(1, "nodeName: a"), (2, "")]);
    let there = slice(&[(1, "nodeName: b, conditions: {ready: false}")]);
    for slices in [[&*here, &there], [&there, &here]] {
        let mut scene = Scene::with(&format!("{SPEC}, internalTrafficPolicy: Local"), &slices);
        assert_eq!(scene.behind(FrontendKind::ClusterIp), ["10.0.0.1:80"]);
        assert_eq!(scene.s().backends.len(), 2);
    }
}

#[test]
fn one_port_may_lead_to_different_ports_of_endpoints() {
    let slices = [
        "ports: [{port: 80}], endpoints: [{addresses: [10.0.0.2]}]",
        "ports: [{port: 81}], endpoints: [{addresses: [10.0.0.1]}]",
    ];
    let mut scene = Scene::with(SPEC, &slices);
    assert_eq!(
        scene.behind(FrontendKind::ClusterIp),
        ["10.0.0.1:81", "10.0.0.2:80"]
    );
}

#[test]
fn backends_name_their_pods_and_slices_of_names_are_passed_over() {
    let slices = [
        "ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: p}}, \
         {addresses: [10.0.0.2], targetRef: {kind: Pod, name: p, namespace: bank}}, \
         {addresses: [10.0.0.3], targetRef: {kind: VirtualMachine, name: p}}]",
        "addressType: FQDN, ports: [{port: 80}], endpoints: [{addresses: [example.org]}]",
    ];
    let backends = Scene::with(SPEC, &slices).s().backends;
    let pods: Vec<_> = backends
        .iter()
        .map(|backend| backend.pod.as_deref())
        .collect();
    assert_eq!(pods, [Some("shop/p"), Some("bank/p"), None]);
}

#[test]
fn slices_of_no_service_and_of_others_lead_nowhere() {
    let mut scene = Scene::with(SPEC, &[]);
    scene.slices("other", &[&slice(&[(1, "")])]);
    let text = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, namespace: shop}, \
                addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1]}]}";
    scene.apply("x", text);
    let foreign = "metadata: {name: x, namespace: bank, labels: {kubernetes.io/service-name: s}}";
    scene.apply(
        "y",
        &text.replace("metadata: {name: x, namespace: shop}", foreign),
    );
    assert_eq!(scene.problems(), [] as [&str; 0]);
    assert_eq!(scene.s().backends, []);
}

#[test]
fn hints_keep_traffic_in_the_zone_or_the_node() {
    const EAST: &str = "hints: {forZones: [{name: west}, {name: east}]}";
    const WEST: &str = "hints: {forZones: [{name: west}]}";
    assert_eq!(chosen(&[(1, EAST), (2, WEST)]), ["1"]);
    // Not when one has no hint, or none points here.
    assert_eq!(chosen(&[(1, EAST), (2, WEST), (3, "")]), ["1", "2", "3"]);
    assert_eq!(chosen(&[(2, WEST), (3, WEST)]), ["2", "3"]);
    // Those that are not ready are not asked.
    let ends = "conditions: {ready: false, serving: true, terminating: true}";
    assert_eq!(chosen(&[(1, EAST), (2, WEST), (3, ends)]), ["1"]);
    let ends = format!("{WEST}, {ends}");
    assert_eq!(chosen(&[(1, &ends)]), ["1"]);
    let here = "hints: {forZones: [{name: east}], forNodes: [{name: a}]}";
    let there = "hints: {forZones: [{name: east}], forNodes: [{name: b}]}";
    assert_eq!(chosen(&[(1, here), (2, there), (3, there)]), ["1"]);
    // No node's hint points here: the zone's count.
    let nowhere = "hints: {forNodes: [{name: b}], forZones: [{name: west}]}";
    assert_eq!(chosen(&[(2, there), (3, nowhere)]), ["2"]);
    assert_eq!(chosen(&[(1, here), (2, EAST)]), ["1", "2"]);
}

#[test]
fn a_node_without_zone_takes_endpoints_of_all_zones() {
    let east = slice(&[
        (1, "hints: {forZones: [{name: east}]}"),
        (2, "hints: {forZones: [{name: west}]}"),
    ]);
    let mut scene = Scene::with(SPEC, &[&east]);
    assert_eq!(scene.behind(FrontendKind::ClusterIp).len(), 1);
    scene.apply(
        "node",
        &NODE.replace("topology.kubernetes.io/zone", "other"),
    );
    assert_eq!(scene.behind(FrontendKind::ClusterIp).len(), 2);
}
