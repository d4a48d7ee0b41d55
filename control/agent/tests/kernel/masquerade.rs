use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use weft_agent::host::{HostError, masquerade};

use crate::namespace::{Namespace, block_on, enter, run, set, try_run};

/// A node with a pod behind one interface and the world behind another.
struct Node {
    pod: Namespace,
    world: Namespace,
}

fn node() -> Node {
    enter();
    let (pod, world) = (Namespace::new(), Namespace::new());
    pod.wire("p0", "eth0");
    world.wire("u0", "w0");
    for address in ["10.244.1.254/24", "fd00:1::fe/64"] {
        run(&format!("ip addr add {address} dev p0 nodad"));
    }
    for address in ["192.0.2.1/24", "2001:db8::1/64"] {
        run(&format!("ip addr add {address} dev u0 nodad"));
    }
    for address in ["10.244.1.5/24", "fd00:1::5/64"] {
        pod.run(&format!("ip addr add {address} dev eth0 nodad"));
    }
    pod.run("ip route add default via 10.244.1.254");
    pod.run("ip route add default via fd00:1::fe");
    // .2 is a node, .9 is not; both, and a pod elsewhere, are behind the same wire.
    for address in [
        "192.0.2.2/24",
        "192.0.2.9/24",
        "10.244.2.5/32",
        "2001:db8::2/64",
        "2001:db8::9/64",
        "fd00:2::5/128",
    ] {
        world.run(&format!("ip addr add {address} dev w0 nodad"));
    }
    world.run("ip route add 10.244.1.0/24 via 192.0.2.1");
    world.run("ip route add fd00:1::/64 via 2001:db8::1");
    run("ip route add 10.244.2.0/24 dev u0");
    run("ip route add fd00:2::/64 dev u0");
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/forwarding", "1");
    Node { pod, world }
}

fn apply() -> Result<(), HostError> {
    let pods: Vec<IpNet> = ["10.244.0.0/16", "fd00::/16"]
        .map(|p| p.parse().unwrap())
        .to_vec();
    let nodes = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
    block_on(masquerade::apply(&pods, &nodes.map(|n| n.parse().unwrap())))
}

impl Node {
    /// Sends a datagram from the pod to `to`, and an answer back; who did the receiver see?
    fn seen_from(&self, to: &str) -> String {
        let to: SocketAddr = format!("{to}:7").parse().unwrap();
        let server = self.world.within(move || UdpSocket::bind(to).unwrap());
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = self.pod.within(move || UdpSocket::bind(any).unwrap());
        for socket in [&server, &client] {
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
        }
        client.send_to(b"ping", to).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"pong", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        from.ip().to_string()
    }
}

#[test]
fn pods_leave_the_cluster_with_the_nodes_address_and_reach_pods_and_nodes_with_their_own() {
    let node = node();
    apply().unwrap();
    assert_eq!(node.seen_from("192.0.2.9"), "192.0.2.1");
    assert_eq!(node.seen_from("192.0.2.2"), "10.244.1.5");
    assert_eq!(node.seen_from("10.244.2.5"), "10.244.1.5");
    assert_eq!(node.seen_from("[2001:db8::9]"), "2001:db8::1");
    assert_eq!(node.seen_from("[2001:db8::2]"), "fd00:1::5");
    assert_eq!(node.seen_from("[fd00:2::5]"), "fd00:1::5");
}

#[test]
fn masquerade_holds_with_strict_reverse_path_filtering_and_invalid_dropped() {
    let node = node();
    set("ipv4/conf/all/rp_filter", "1");
    run("nft add table inet admin");
    run("nft add chain inet admin forward { type filter hook forward priority 0 ; }");
    run("nft add rule inet admin forward ct state invalid drop");
    apply().unwrap();
    assert_eq!(node.seen_from("192.0.2.9"), "192.0.2.1");
    assert_eq!(node.seen_from("[2001:db8::9]"), "2001:db8::1");
    assert!(run("nft list tables").contains("inet admin"));
}

#[test]
fn table_is_replaced_whole_and_comes_back_after_a_flush() {
    enter();
    apply().unwrap();
    let before = run("nft list ruleset");
    apply().unwrap();
    assert_eq!(run("nft list ruleset"), before);
    run("nft flush ruleset");
    apply().unwrap();
    assert_eq!(run("nft list ruleset"), before);
    block_on(masquerade::remove()).unwrap();
    block_on(masquerade::remove()).unwrap();
    assert_eq!(run("nft list ruleset"), "");
}

#[test]
fn missing_nft_names_the_package() {
    enter();
    for directory in std::env::var("PATH").unwrap().split(':') {
        if std::path::Path::new(directory).join("nft").exists() {
            let mounted = try_run(&format!("mount -t tmpfs none {directory}"));
            assert!(mounted.status.success(), "{directory}");
        }
    }
    let error = apply().unwrap_err();
    assert!(error.to_string().contains("package nftables"), "{error}");
}
