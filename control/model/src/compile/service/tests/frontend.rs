//! Where clients reach a service.

use weft_api::service::Algorithm;

use super::*;

const ENDPOINT: &str = "ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}]";
const ENDPOINT6: &str =
    "addressType: IPv6, ports: [{port: 8080}], endpoints: [{addresses: ['fd00::1']}]";

#[test]
fn a_dual_stack_service_is_served_in_both_ip_versions() {
    let spec =
        "clusterIPs: [10.96.0.1, 'fd96::1'], type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    let mut scene = Scene::with(spec, &[ENDPOINT, ENDPOINT6]);
    assert_eq!(
        scene.lines(),
        [
            "ClusterIp 10.96.0.1 6/80: 10.0.0.1:8080",
            "NodePort v4 6/30080: 10.0.0.1:8080",
            "ClusterIp fd96::1 6/80: fd00::1:8080",
            "NodePort v6 6/30080: fd00::1:8080",
        ]
    );
}

#[test]
fn an_ip_version_without_cluster_ip_is_not_served() {
    let spec =
        "clusterIP: 'fd96::1', externalIPs: [198.51.100.1], ports: [{port: 80, nodePort: 30080}]";
    let mut scene = Scene::new();
    scene.service("s", spec);
    scene.slices("s", &[ENDPOINT, ENDPOINT6]);
    assert_eq!(scene.lines().len(), 2);
    assert_eq!(
        scene.problems(),
        [
            "Service shop/s: spec.externalIPs: 198.51.100.1 is not served: the service has no cluster IP of that IP version"
        ]
    );
}

#[test]
fn headless_external_and_foreign_services_are_left_alone() {
    let mut scene = Scene::new();
    scene.service("headless", "clusterIP: None, ports: [{port: 80}]");
    scene.service("name", "type: ExternalName, externalName: example.org");
    scene.service("unassigned", "ports: [{port: 80}]");
    let label = "labels: {service.kubernetes.io/service-proxy-name: other}";
    scene.service_with(
        "foreign",
        label,
        "clusterIP: 10.96.0.4, ports: [{port: 80}]",
        "",
    );
    let compiled = scene.compiled();
    assert_eq!(compiled.problems, [] as [&str; 0]);
    assert_eq!(compiled.desired.services.services, []);
    assert_eq!(compiled.desired.service_ranges().count(), 0);
}

#[test]
fn ports_are_found_by_name_and_protocol() {
    let spec = "clusterIP: 10.96.0.1, ports: [{name: dns, port: 53, protocol: UDP}, \
                {name: dns-tcp, port: 53}, {name: sctp, port: 9, protocol: SCTP}, {name: lone, port: 7}]";
    let slices = [
        "ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}, \
         {name: sctp, port: 9, protocol: SCTP}, {name: lone, port: 7, protocol: UDP}, {name: other, port: 1}, {name: any}], \
         endpoints: [{addresses: [10.0.0.1]}]",
        "ports: [{name: dns, port: 5355, protocol: UDP}], endpoints: [{addresses: [10.0.0.2]}]",
    ];
    let mut scene = Scene::with(spec, &slices);
    assert_eq!(
        scene.lines(),
        [
            "ClusterIp 10.96.0.1 17/53: 10.0.0.1:5353 10.0.0.2:5355",
            "ClusterIp 10.96.0.1 6/53: 10.0.0.1:5354",
            "ClusterIp 10.96.0.1 132/9: 10.0.0.1:9",
            "ClusterIp 10.96.0.1 6/7: ",
        ]
    );
    let names: Vec<_> = scene
        .s()
        .frontends
        .into_iter()
        .map(|f| f.port_name)
        .collect();
    assert_eq!(names, ["dns", "dns-tcp", "sctp", "lone"]);
    assert!(scene.s().frontends.iter().all(|f| !f.drops));
}

#[test]
fn a_load_balancers_addresses_are_served_unless_it_is_a_proxy() {
    let spec = "clusterIP: 10.96.0.1, type: LoadBalancer, externalIPs: [198.51.100.9, 203.0.113.1], \
                ports: [{port: 80}], loadBalancerSourceRanges: [' 192.0.2.0/24', 'fd00::/8']";
    let status = "loadBalancer: {ingress: [{ip: 203.0.113.1, ipMode: VIP}, {ip: 203.0.113.2, ipMode: Proxy}, \
                  {ip: 203.0.113.3}, {hostname: lb.example.org}]}";
    let mut scene = Scene::new();
    scene.service_with("s", "", spec, status);
    scene.slices("s", &[ENDPOINT]);
    assert_eq!(scene.problems(), [] as [&str; 0]);
    assert_eq!(
        scene.lines(),
        [
            "ClusterIp 10.96.0.1 6/80: 10.0.0.1:8080",
            "LoadBalancer 203.0.113.1 6/80: 10.0.0.1:8080",
            "LoadBalancer 203.0.113.3 6/80: 10.0.0.1:8080",
            "ExternalIp 198.51.100.9 6/80: 10.0.0.1:8080",
        ]
    );
    for frontend in scene.s().frontends {
        let expected = (frontend.kind == FrontendKind::LoadBalancer)
            .then(|| vec!["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(frontend.sources, expected);
    }
}

#[test]
fn source_ranges_of_one_ip_version_leave_the_other_open() {
    let spec = "clusterIP: 10.96.0.1, type: LoadBalancer, ports: [{port: 80}], loadBalancerSourceRanges: ['fd00::/8']";
    let mut scene = Scene::new();
    scene.service_with(
        "s",
        "",
        spec,
        "loadBalancer: {ingress: [{ip: 203.0.113.1}]}",
    );
    assert_eq!(scene.s().frontends[1].sources, None);
}

#[test]
fn session_affinity_lasts_three_hours_unless_it_says() {
    let port = "clusterIP: 10.96.0.1, ports: [{port: 80}]";
    for (affinity, seconds) in [
        ("", None),
        (", sessionAffinity: None", None),
        (", sessionAffinity: ClientIP", Some(10_800)),
        (
            ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}",
            Some(60),
        ),
    ] {
        let mut scene = Scene::with(&format!("{port}{affinity}"), &[]);
        assert_eq!(scene.s().affinity_seconds, seconds, "{affinity}");
    }
}

#[test]
fn an_annotation_chooses_the_algorithm() {
    let mut scene = Scene::new();
    for (name, algorithm) in [
        ("maglev", Algorithm::Maglev),
        ("random", Algorithm::Random),
        ("least-connections", Algorithm::LeastConnections),
        ("roulette", Algorithm::Maglev),
    ] {
        let annotation = format!("annotations: {{weft.dev/lb-algorithm: {name}}}");
        scene.service_with(
            "s",
            &annotation,
            "clusterIP: 10.96.0.1, ports: [{port: 80}]",
            "",
        );
        assert_eq!(scene.s().algorithm, algorithm);
    }
    assert_eq!(
        scene.problems(),
        [
            "Service shop/s: annotation weft.dev/lb-algorithm: 'roulette' is none of maglev, random, least-connections; maglev it is"
        ]
    );
}

#[test]
fn an_annotation_asks_for_direct_server_return() {
    let mut scene = Scene::new();
    for (mode, direct) in [("dsr", true), ("snat", false), ("ipip", false)] {
        let annotation = format!("annotations: {{weft.dev/forwarding: {mode}}}");
        let spec = "clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}]";
        scene.service_with("s", &annotation, spec, "");
        for frontend in &scene.s().frontends {
            let of_outside = frontend.kind != FrontendKind::ClusterIp;
            assert_eq!(frontend.direct, direct && of_outside, "{mode}");
        }
    }
    assert_eq!(
        scene.problems(),
        ["Service shop/s: annotation weft.dev/forwarding: 'ipip' is none of snat, dsr; snat it is"]
    );
}

#[test]
fn what_two_services_claim_has_the_older_one() {
    let mut scene = Scene::new();
    let spec = "clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    scene.service("young", spec);
    let age = "creationTimestamp: '2025-01-01T00:00:00Z'";
    let other = "clusterIP: 10.96.0.2, type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    scene.service_with("zold", age, other, "");
    let problem =
        "Service shop/young: node port 30080/TCP is also that of Service shop/zold, which keeps it";
    assert_eq!(scene.problems(), [problem]);
    assert_eq!(
        lines(&scene.get("young").unwrap()),
        ["ClusterIp 10.96.0.1 6/80: "]
    );
    assert_eq!(lines(&scene.get("zold").unwrap()).len(), 2);
    // Of one age the first by name has it.
    scene.service_with("young", age, spec, "");
    assert_eq!(lines(&scene.get("young").unwrap()).len(), 2);
    assert_eq!(
        scene.problems(),
        [
            "Service shop/zold: node port 30080/TCP is also that of Service shop/young, which keeps it"
        ]
    );
    scene.store.remove("young");
    assert_eq!(scene.problems(), [] as [&str; 0]);
    assert_eq!(lines(&scene.get("zold").unwrap()).len(), 2);
}

#[test]
fn a_disputed_cluster_ip_and_external_address_are_named() {
    let mut scene = Scene::new();
    let spec =
        "clusterIP: 10.96.0.1, externalIPs: [198.51.100.1], ports: [{port: 53, protocol: UDP}]";
    scene.service("a", spec);
    scene.service("b", spec);
    assert_eq!(
        scene.problems(),
        [
            "Service shop/b: cluster IP 10.96.0.1 port 53/UDP is also that of Service shop/a, which keeps it",
            "Service shop/b: external IP 198.51.100.1 port 53/UDP is also that of Service shop/a, which keeps it",
        ]
    );
    assert_eq!(scene.get("b").unwrap().frontends, []);
}
