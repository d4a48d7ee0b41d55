//! Host ports of local pods.

use weft_api::PodRef;
use weft_api::agent::HostPort;

use super::*;
use crate::compile::LocalPod;

fn pod(name: &str, host_ports: &[(u16, Option<&str>)]) -> LocalPod {
    let port = |(number, address): &(u16, Option<&str>)| HostPort {
        protocol: 6,
        host_port: *number,
        container_port: 80,
        host_ip: address.map(|address| address.parse().unwrap()),
    };
    LocalPod {
        pod: PodRef {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        addresses: vec!["10.0.8.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        host_ports: host_ports.iter().map(port).collect(),
    }
}

fn compiled(scene: &mut Scene, pods: &[LocalPod]) -> Vec<Vec<String>> {
    let compiled = scene.compiler.compile(&scene.store, pods);
    let services = compiled.desired.services.services;
    services.iter().map(|service| lines(service)).collect()
}

#[test]
fn host_ports_lead_to_their_pod_from_the_addresses_they_name() {
    let mut scene = Scene::new();
    let ports = [
        (8080, None),
        (8081, Some("192.0.2.1")),
        (8082, Some("::")),
        (8080, Some("0.0.0.0")),
    ];
    let services = compiled(&mut scene, &[pod("web", &ports), pod("other", &[])]);
    assert_eq!(
        services,
        [[
            "HostPort v4 6/8080: 10.0.8.5:80",
            "HostPort 192.0.2.1 6/8081: 10.0.8.5:80",
            "HostPort v6 6/8080: fd00::5:80",
            "HostPort v6 6/8082: fd00::5:80",
        ]]
    );
}

#[test]
fn host_ports_come_change_and_go_with_their_pod() {
    let mut scene = Scene::new();
    assert_eq!(
        compiled(&mut scene, &[pod("web", &[(8080, None)])])[0].len(),
        2
    );
    let changed = compiled(&mut scene, &[pod("web", &[(9090, Some("0.0.0.0"))])]);
    assert_eq!(changed, [["HostPort v4 6/9090: 10.0.8.5:80"]]);
    assert!(compiled(&mut scene, &[]).is_empty());
}

#[test]
fn a_node_port_of_a_service_with_an_age_comes_before_a_host_port() {
    let mut scene = Scene::new();
    let age = "creationTimestamp: '2025-01-01T00:00:00Z'";
    let spec = "clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    scene.service_with("s", age, spec, "");
    let pods = [pod("web", &[(30_080, Some("0.0.0.0"))])];
    assert_eq!(compiled(&mut scene, &pods)[0], [] as [&str; 0]);
    assert_eq!(
        scene.compiler.compile(&scene.store, &pods).problems,
        [
            "Service shop/hostport:web: host port 30080/TCP is also that of Service shop/s, which keeps it"
        ]
    );
}
