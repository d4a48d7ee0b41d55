//! What the Kubernetes API would refuse, and that the last good state stays in force.

use super::*;

#[test]
fn a_broken_service_is_named_with_its_line_and_the_last_good_one_stays() {
    let ports = |port: &str| format!("clusterIP: 10.96.0.1, ports: [{port}]");
    let with = |rest: &str| format!("clusterIP: 10.96.0.1, ports: [{{port: 80}}], {rest}");
    for (spec, reason) in [
        (
            "clusterIP: 10.96.0".to_owned(),
            "spec.clusterIP: '10.96.0' is not an IP address",
        ),
        (
            "clusterIP: 127.0.0.1".to_owned(),
            "spec.clusterIP: 127.0.0.1 is not an address others can reach",
        ),
        (
            "clusterIPs: [10.96.0.1, 10.96.0.2]".to_owned(),
            "spec.clusterIPs: 10.96.0.1 and 10.96.0.2 are of one IP version",
        ),
        (ports("{port: 0}"), "spec.ports[0].port: 0 is not a port"),
        (
            ports("{port: 80, nodePort: 70000}"),
            "spec.ports[0].nodePort: 70000 is not a port",
        ),
        (
            ports("{port: 80, protocol: tcp}"),
            "spec.ports[0].protocol: 'tcp' is none of TCP, UDP, SCTP",
        ),
        (
            ports("{port: 80}, {port: 81}"),
            "spec.ports[0].name: is missing, and there are several ports",
        ),
        (
            ports("{name: a, port: 80}, {name: a, port: 81}"),
            "spec.ports[1].name: a is there twice",
        ),
        (
            ports("{name: a, port: 80}, {name: b, port: 80}"),
            "spec.ports[1].port: 80 is there twice",
        ),
        (
            ports("{name: a, port: 80, nodePort: 30000}, {name: b, port: 81, nodePort: 30000}"),
            "spec.ports[1].nodePort: 30000 is there twice",
        ),
        (
            with("type: Loadbalancer"),
            "spec.type: 'Loadbalancer' is none of ClusterIP",
        ),
        (
            with("externalIPs: [0.0.0.0]"),
            "spec.externalIPs[0]: 0.0.0.0 is not an address others",
        ),
        (
            with("externalIPs: [198.51.100.1, fe80::1]"),
            "spec.externalIPs[1]: fe80::1 is not",
        ),
        (
            with("externalTrafficPolicy: local"),
            "spec.externalTrafficPolicy: 'local' is none of Cluster, Local",
        ),
        (
            with("internalTrafficPolicy: Node"),
            "spec.internalTrafficPolicy: 'Node' is none",
        ),
        (
            with("sessionAffinity: clientIP"),
            "spec.sessionAffinity: 'clientIP' is none of None, ClientIP",
        ),
        (
            with(
                "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            ),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not between 1 and 86400",
        ),
        (
            with("loadBalancerSourceRanges: [10.0.0.0/8, 10.0.0/8]"),
            "spec.loadBalancerSourceRanges[1]: '10.0.0/8' is not a prefix",
        ),
        (
            with("healthCheckNodePort: -1"),
            "spec.healthCheckNodePort: -1 is not a port",
        ),
    ] {
        let mut scene = Scene::with("clusterIP: 10.96.0.7, ports: [{port: 7}]", &[]);
        scene.service("s", &spec);
        let problems = scene.problems();
        let named = format!("Service shop/s: {reason}");
        let of_four = problems.len() == 1 && problems[0].contains(&named);
        assert!(of_four, "{problems:?} {reason}");
        assert!(problems[0].starts_with("s:"), "{problems:?}");
        assert_eq!(scene.lines(), ["ClusterIp 10.96.0.7 6/7: "]);
    }
}

#[test]
fn a_broken_status_breaks_the_service() {
    for (ingress, reason) in [
        (
            "{ip: 203.0.113}",
            "status.loadBalancer.ingress[0].ip: '203.0.113' is not an IP address",
        ),
        (
            "{ip: 203.0.113.1, ipMode: Vip}",
            "status.loadBalancer.ingress[0].ipMode: 'Vip' is none of VIP, Proxy",
        ),
    ] {
        let mut scene = Scene::new();
        let status = format!("loadBalancer: {{ingress: [{ingress}]}}");
        scene.service_with(
            "s",
            "",
            "clusterIP: 10.96.0.1, ports: [{port: 80}]",
            &status,
        );
        assert!(
            scene.problems()[0].contains(reason),
            "{:?}",
            scene.problems()
        );
        assert_eq!(scene.get("s"), None);
    }
}

#[test]
fn a_broken_slice_is_named_and_the_last_good_one_stays() {
    for (slice, reason) in [
        (
            "addressType: IPv5",
            "addressType: 'IPv5' is none of IPv4, IPv6, FQDN",
        ),
        (
            "ports: [{port: 65536}]",
            "ports[0].port: 65536 is not a port",
        ),
        (
            "ports: [{port: 1, protocol: ICMP}]",
            "ports[0].protocol: 'ICMP' is none of",
        ),
        (
            "endpoints: [{addresses: []}]",
            "endpoints[0].addresses: is empty",
        ),
        (
            "endpoints: [{addresses: [10.0.0.1]}, {addresses: [x]}]",
            "endpoints[1].addresses: 'x' is not an IP address",
        ),
        (
            "endpoints: [{addresses: ['fd00::1']}]",
            "endpoints[0].addresses: fd00::1 is not of the slice's addressType",
        ),
        (
            "endpoints: [{addresses: [169.254.0.1]}]",
            "169.254.0.1 is not an address others can reach",
        ),
    ] {
        let good = "ports: [{port: 80}], endpoints: [{addresses: [10.0.0.1]}]";
        let mut scene = Scene::with("clusterIP: 10.96.0.1, ports: [{port: 80}]", &[good]);
        scene.slices("s", &[slice]);
        let problems = scene.problems();
        let named = format!("EndpointSlice shop/s-0: {reason}");
        assert!(
            problems.len() == 1 && problems[0].starts_with("s-slices:2: "),
            "{problems:?}"
        );
        assert!(problems[0].contains(reason), "{problems:?} {named}");
        assert_eq!(scene.behind(FrontendKind::ClusterIp), ["10.0.0.1:80"]);
    }
}
