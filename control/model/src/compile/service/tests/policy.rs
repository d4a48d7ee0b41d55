//! Traffic policies, and what load balancers ask.

use super::*;

/// Two ready endpoints here and one elsewhere, and one of each kind that ends.
const MIXED: &str = "ports: [{port: 80}], endpoints: [\
    {addresses: [10.0.0.1], nodeName: a}, {addresses: [10.0.0.2], nodeName: b}, \
    {addresses: [10.0.0.3], nodeName: a, conditions: {ready: false, serving: true, terminating: true}}]";

const ELSEWHERE: &str = "ports: [{port: 80}], endpoints: [{addresses: [10.0.0.2], nodeName: b}]";

const ENDING: &str = "ports: [{port: 80}], endpoints: [\
    {addresses: [10.0.0.2], nodeName: b}, \
    {addresses: [10.0.0.3], nodeName: a, conditions: {ready: false, serving: true, terminating: true}}]";

const EXTERNAL: &str = "clusterIP: 10.96.0.1, type: NodePort, externalTrafficPolicy: Local, \
                        ports: [{port: 80, nodePort: 30080}]";

fn node_port(service: &Service) -> &Frontend {
    let mut frontends = service.frontends.iter();
    frontends
        .find(|f| f.kind == FrontendKind::NodePort)
        .unwrap()
}

#[test]
fn internal_policy_local_keeps_clients_on_the_node() {
    let spec = "clusterIP: 10.96.0.1, internalTrafficPolicy: Local, type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    let mut scene = Scene::with(spec, &[MIXED]);
    assert_eq!(scene.behind(FrontendKind::ClusterIp), ["10.0.0.1:80"]);
    assert_eq!(
        scene.behind(FrontendKind::NodePort),
        ["10.0.0.1:80", "10.0.0.2:80"]
    );
    assert!(!scene.s().frontends[0].drops);
    scene.slices("s", &[ENDING]);
    assert_eq!(scene.behind(FrontendKind::ClusterIp), ["10.0.0.3:80"]);
    scene.slices("s", &[ELSEWHERE]);
    assert_eq!(scene.behind(FrontendKind::ClusterIp), [] as [&str; 0]);
    assert!(scene.s().frontends[0].drops);
    scene.slices("s", &["ports: [{port: 80}]"]);
    assert!(
        !scene.s().frontends[0].drops,
        "nobody anywhere: refused aloud"
    );
}

#[test]
fn external_policy_local_keeps_the_source_and_the_node() {
    let mut scene = Scene::with(EXTERNAL, &[MIXED]);
    let service = scene.s();
    let frontend = node_port(&service);
    assert!(frontend.keeps_source && !frontend.drops);
    assert_eq!(names(&service, &frontend.backends), ["10.0.0.1:80"]);
    let inside = frontend.inside_backends.as_ref().unwrap();
    assert_eq!(names(&service, inside), ["10.0.0.1:80", "10.0.0.2:80"]);
    // The cluster IP has a policy of its own.
    assert_eq!(scene.behind(FrontendKind::ClusterIp).len(), 2);
    assert!(!scene.s().frontends[0].keeps_source);
}

#[test]
fn external_policy_local_drops_where_others_have_endpoints() {
    let mut scene = Scene::with(EXTERNAL, &[ELSEWHERE]);
    let service = scene.s();
    let frontend = node_port(&service);
    assert!(frontend.drops);
    assert!(frontend.backends.is_empty());
    assert_eq!(frontend.inside_backends, Some(vec![0]));
    scene.slices("s", &["ports: [{port: 80}]"]);
    let service = scene.s();
    assert!(!node_port(&service).drops);
    assert_eq!(node_port(&service).inside_backends, None);
}

#[test]
fn external_policy_local_falls_back_to_what_ends_here() {
    let mut scene = Scene::with(EXTERNAL, &[ENDING]);
    assert_eq!(scene.behind(FrontendKind::NodePort), ["10.0.0.3:80"]);
}

#[test]
fn external_policy_cluster_leads_everywhere_and_hides_the_source() {
    let spec = EXTERNAL.replace(
        "externalTrafficPolicy: Local",
        "externalTrafficPolicy: Cluster",
    );
    let mut scene = Scene::with(&spec, &[MIXED]);
    let service = scene.s();
    let frontend = node_port(&service);
    assert!(!frontend.keeps_source);
    assert_eq!(
        (frontend.backends.len(), &frontend.inside_backends),
        (2, &None)
    );
}

#[test]
fn external_policy_means_nothing_to_a_service_nobody_outside_reaches() {
    let spec = "clusterIP: 10.96.0.1, externalTrafficPolicy: Local, ports: [{port: 80}]";
    let mut scene = Scene::with(spec, &[MIXED]);
    assert!(!scene.s().frontends[0].keeps_source);
    let spec = format!("{spec}, externalIPs: [198.51.100.1]");
    scene.service("s", &spec);
    assert!(scene.s().frontends[1].keeps_source);
    assert_eq!(scene.behind(FrontendKind::ExternalIp), ["10.0.0.1:80"]);
}

#[test]
fn load_balancers_are_told_how_many_are_ready_here() {
    let spec = "clusterIP: 10.96.0.1, type: LoadBalancer, externalTrafficPolicy: Local, \
                healthCheckNodePort: 31000, ports: [{name: a, port: 80}, {name: b, port: 81}]";
    let slice = MIXED.replace("{port: 80}", "{name: a, port: 80}, {name: b, port: 81}");
    let six = "addressType: IPv6, ports: [{name: a, port: 80}], endpoints: [{addresses: ['fd00::1'], nodeName: a}]";
    let mut scene = Scene::with(spec, &[&slice, six]);
    let check = HealthCheck {
        namespace: "shop".to_owned(),
        name: "s".to_owned(),
        port: 31_000,
        local_endpoints: 1,
    };
    assert_eq!(scene.health_checks(), [check]);
    scene.slices("s", &[&ENDING.replace("{port: 80}", "{name: a, port: 80}")]);
    assert_eq!(scene.health_checks()[0].local_endpoints, 0);
    scene.service("s", &spec.replace("Local", "Cluster"));
    assert_eq!(scene.health_checks(), []);
    scene.service("s", &spec.replace("LoadBalancer", "NodePort"));
    assert_eq!(scene.health_checks(), []);
}
