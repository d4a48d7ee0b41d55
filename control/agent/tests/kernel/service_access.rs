use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use weft_agent::host::service_access::{self, ServiceAccess};
use weft_api::service::{Algorithm, Backend, Frontend, FrontendKind, Service};

use crate::namespace::{Namespace, block_on, enter, run, set};

/// A node whose `weft0` leads to somebody who has all cluster IPs.
fn node() -> Namespace {
    enter();
    let cluster = Namespace::new();
    cluster.wire("weft0", "far");
    cluster.wire("eth0", "wire");
    for command in [
        "ip addr add 192.0.2.1/24 dev eth0",
        "ip addr add 2001:db8::1/64 dev eth0 nodad",
        "ip route add default dev eth0",
        "ip -6 route add default dev eth0",
        "ip addr add 10.244.1.1/32 dev weft0",
        "ip addr add fd00:1::1/128 dev weft0 nodad",
        "ip route add 10.96.0.0/16 dev weft0 src 10.244.1.1",
        "ip route add fd96::/16 dev weft0 src fd00:1::1",
    ] {
        run(command);
    }
    for command in [
        "ip addr add 10.96.0.1/32 dev far",
        "ip addr add fd96::1/128 dev far nodad",
        "ip route add 10.244.1.1 dev far",
        "ip route add fd00:1::1 dev far",
    ] {
        cluster.run(command);
    }
    set("ipv4/conf/all/rp_filter", "1");
    cluster
}

fn frontend(kind: FrontendKind, address: Option<&str>, ipv6: bool, port: u16) -> Frontend {
    Frontend {
        address: address.map(|address| address.parse().unwrap()),
        ipv6,
        protocol: 6,
        port,
        kind,
        port_name: "http".to_owned(),
        keeps_source: false,
        direct: false,
        sources: None,
        backends: Vec::new(),
        inside_backends: None,
        drops: false,
    }
}

fn service() -> Arc<Service> {
    let tcp = [
        frontend(FrontendKind::ClusterIp, Some("10.96.0.1"), false, 80),
        frontend(FrontendKind::NodePort, None, false, 30_080),
        frontend(FrontendKind::ExternalIp, Some("198.51.100.1"), false, 80),
        frontend(FrontendKind::ClusterIp, Some("fd96::1"), true, 80),
        frontend(FrontendKind::NodePort, None, true, 30_080),
        frontend(FrontendKind::LoadBalancer, Some("2001:db8:1::1"), true, 80),
    ];
    let udp = tcp.clone().map(|frontend| Frontend {
        protocol: 17,
        port: frontend.port + 1,
        ..frontend
    });
    Arc::new(Service {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        algorithm: Algorithm::Maglev,
        affinity_seconds: None,
        backends: Vec::new(),
        frontends: tcp.into_iter().chain(udp).collect(),
    })
}

fn apply(services: &[Arc<Service>]) {
    let nodes: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    block_on(service_access::apply(&ServiceAccess::of(services, &nodes))).unwrap();
}

/// Connects to `to`; whom does the one with the cluster IP see?
fn seen_over_tcp(cluster: &Namespace, cluster_ip: &str, to: &str) -> String {
    let at: SocketAddr = cluster_ip.parse().unwrap();
    let listener = cluster.within(move || TcpListener::bind(at).unwrap());
    let accepted = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        from.ip().to_string()
    });
    let to = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello");
    assert_eq!(stream.peer_addr().unwrap(), to);
    accepted.join().unwrap()
}

fn seen_over_udp(cluster: &Namespace, cluster_ip: &str, to: &str) -> String {
    let at: SocketAddr = cluster_ip.parse().unwrap();
    let server = cluster.within(move || UdpSocket::bind(at).unwrap());
    let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = UdpSocket::bind(any).unwrap();
    for socket in [&server, &client] {
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).unwrap();
    }
    client.send_to(b"ping", to).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"pong", from).unwrap();
    let (_, answered) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(answered, to.parse().unwrap());
    from.ip().to_string()
}

#[test]
fn the_nodes_own_processes_reach_node_ports_and_external_addresses() {
    let cluster = node();
    apply(&[service()]);
    for to in ["192.0.2.1:30080", "198.51.100.1:80", "10.96.0.1:80"] {
        assert_eq!(
            seen_over_tcp(&cluster, "10.96.0.1:80", to),
            "10.244.1.1",
            "{to}"
        );
    }
    for to in ["[2001:db8::1]:30080", "[2001:db8:1::1]:80"] {
        assert_eq!(
            seen_over_tcp(&cluster, "[fd96::1]:80", to),
            "fd00:1::1",
            "{to}"
        );
    }
    for to in ["192.0.2.1:30081", "198.51.100.1:81"] {
        assert_eq!(
            seen_over_udp(&cluster, "10.96.0.1:81", to),
            "10.244.1.1",
            "{to}"
        );
    }
    let to = "[2001:db8::1]:30081";
    assert_eq!(seen_over_udp(&cluster, "[fd96::1]:81", to), "fd00:1::1");
}

#[test]
fn a_host_port_leads_to_its_pod() {
    let cluster = node();
    let mut port = frontend(FrontendKind::HostPort, None, false, 8080);
    port.backends = vec![0];
    let mut service = (*service()).clone();
    service.frontends = vec![port];
    service.backends = vec![Backend {
        address: "10.96.0.1".parse().unwrap(),
        port: 80,
        pod: None,
        terminating: false,
    }];
    apply(&[Arc::new(service)]);
    let seen = seen_over_tcp(&cluster, "10.96.0.1:80", "192.0.2.1:8080");
    assert_eq!(seen, "10.244.1.1");
}

#[test]
fn other_ports_of_the_node_are_its_own() {
    let _cluster = node();
    apply(&[service()]);
    let listener = TcpListener::bind("192.0.2.1:80").unwrap();
    let stream = TcpStream::connect("192.0.2.1:80").unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from, stream.local_addr().unwrap());
    assert_eq!(from.ip().to_string(), "192.0.2.1");
}

#[test]
fn the_table_is_there_while_it_is_needed_and_comes_back_after_a_flush() {
    enter();
    apply(&[service()]);
    let before = run("nft list ruleset");
    apply(&[service()]);
    assert_eq!(run("nft list ruleset"), before);
    run("nft flush ruleset");
    apply(&[service()]);
    assert_eq!(run("nft list ruleset"), before);
    let mut inside = (*service()).clone();
    inside
        .frontends
        .retain(|f| f.kind == FrontendKind::ClusterIp);
    apply(&[Arc::new(inside)]);
    assert_eq!(run("nft list ruleset"), "");
    apply(&[service()]);
    block_on(service_access::remove()).unwrap();
    block_on(service_access::remove()).unwrap();
    assert_eq!(run("nft list ruleset"), "");
}

#[test]
fn ten_thousand_node_ports_load() {
    enter();
    let services = (0..10_000_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        let cluster_ip = format!("10.97.{high}.{low}");
        let mut service = (*service()).clone();
        service.frontends = vec![
            frontend(FrontendKind::ClusterIp, Some(&cluster_ip), false, 80),
            frontend(FrontendKind::NodePort, None, false, 20_000 + n),
        ];
        Arc::new(service)
    });
    apply(&services.collect::<Vec<_>>());
    let listed = run("nft list map inet weft-services ip-node-ports");
    assert_eq!(listed.matches("tcp . ").count(), 10_000);
}
