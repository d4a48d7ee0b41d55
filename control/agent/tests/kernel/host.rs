//! The host as the agent sets it up from manifests, and what it tells the dataplane about it.

use weft_api::agent::Plan;
use weft_api::dataplane::PortKind;
use weft_api::object::{Object, UnderlayPath};

use crate::namespace::{ip, run, setting};
use crate::node::{Node, attachment, prepare};

const CIDR: &str = "10.244.1.0/24";

fn path(node: &Node) -> Option<UnderlayPath> {
    let told = node.dataplane().told();
    told.objects.values().find_map(|object| match object {
        Object::UnderlayPath(path) => Some(path.clone()),
        _ => None,
    })
}

fn plan(node: &Node) -> Plan {
    prepare(&mut node.connect(), &attachment("probe")).unwrap()
}

#[test]
fn host_is_ready_for_pods_and_the_dataplane_knows_its_port_and_paths() {
    let node = Node::ready(CIDR);
    let mac = node.wire.within(|| {
        ip("link show dev u1")[0]["address"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    node.until("path resolved", || match path(&node) {
        Some(path) if path.next_hop_mac.is_some_and(|m| m.to_string() == mac) => None,
        other => Some(format!("{other:?}")),
    });
    node.until("node port attached", || {
        let told = node.dataplane().told();
        let port = told.ports.get("weft0p");
        let right =
            port.is_some_and(|port| port.kind == PortKind::Node && port.addresses.len() == 2);
        (!right).then(|| format!("{port:?}"))
    });
    let port = node.dataplane().told().ports["weft0p"].clone();
    let weft0 = ip("addr show dev weft0")[0].clone();
    assert_eq!(weft0["address"], port.mac.to_string());
    assert_eq!(
        weft0["addr_info"][0]["local"],
        port.addresses[0].to_string()
    );

    assert_eq!(setting("ipv4/ip_forward"), "1");
    assert_eq!(setting("ipv6/conf/u0/accept_ra"), "2");
    let route = ip("route get 10.244.2.7")[0].clone();
    assert_eq!(route["dev"], "weft0");
    assert_eq!(route["metrics"][0]["mtu"], 1450);
    assert_eq!(ip("-6 route get fd00:2::7")[0]["dev"], "weft0");
    assert!(run("nft list table inet weft").contains("10.244."));
    assert_eq!(plan(&node).path_mtu, 1450);
    assert_eq!(node.status().problems, [""; 0]);
}

#[test]
fn a_narrower_underlay_narrows_new_pods_and_the_hosts_routes() {
    let node = Node::ready(CIDR);
    run("ip link set u0 mtu 1400");
    node.until("path MTU", || {
        let path = path(&node);
        (path.as_ref().map(|p| p.mtu) != Some(1400)).then(|| format!("{path:?}"))
    });
    node.until("route MTU", || {
        let route = ip("route get 10.244.2.7")[0].clone();
        (route["metrics"][0]["mtu"] != 1350).then(|| route.to_string())
    });
    assert_eq!(plan(&node).path_mtu, 1350);
}

#[test]
fn a_node_that_joins_and_leaves_is_followed() {
    let node = Node::ready(CIDR);
    node.wire.run("ip addr add 192.0.2.3/24 dev u1");
    node.write(
        "c",
        "apiVersion: v1\nkind: Node\nmetadata: {name: c}\nspec: {podCIDRs: [10.250.3.0/24]}\n\
         status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}\n",
    );
    let by_weft0 = || ip("route get 10.250.3.7")[0]["dev"] == "weft0";
    node.until("route", || {
        crate::namespace::try_run("ip route get 10.250.3.7")
            .status
            .success()
            .then(by_weft0)
            .is_none_or(|right| !right)
            .then(|| run("ip route"))
    });
    node.until("neighbour", || {
        let shown = run("ip neigh show dev u0");
        (!shown.contains("192.0.2.3")).then_some(shown)
    });
    node.write("c", "apiVersion: v1\nkind: List\nitems: []\n");
    node.until("route gone", || {
        let shown = run("ip route show proto 87");
        shown.contains("10.250.3.0/24").then_some(shown)
    });
    node.until("neighbour gone", || {
        let shown = run("ip neigh show dev u0");
        shown.contains("192.0.2.3").then_some(shown)
    });
}

#[test]
fn a_deleted_node_port_is_made_and_attached_anew() {
    let node = Node::ready(CIDR);
    let attached = || node.dataplane().told().ports.contains_key("weft0p");
    node.until("attached", || (!attached()).then(String::new));
    run("ip link del weft0");
    node.dataplane().told().ports.remove("weft0p");
    // Any change makes the agent look at once instead of after its repair interval.
    node.wire.run("ip addr add 192.0.2.3/24 dev u1");
    node.write(
        "c",
        "apiVersion: v1\nkind: Node\nmetadata: {name: c}\nspec: {podCIDRs: [10.250.3.0/24]}\n\
         status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}\n",
    );
    node.until("attached anew", || (!attached()).then(String::new));
    assert_eq!(ip("link show dev weft0")[0]["mtu"], 65_535);
}
