use serde_json::Value;
use weft_agent::host::{HostSpec, Netlink, RT_PROTOCOL, apply, remove};
use weft_api::MacAddr;

use crate::namespace::{block_on, enter, ip, run};

fn spec(ranges: &[&str]) -> HostSpec {
    HostSpec {
        mac: MacAddr([2, 0x50, 10, 244, 1, 1]),
        addresses: ["10.244.1.1", "fd00:1::1"]
            .map(|a| a.parse().unwrap())
            .to_vec(),
        pod_ranges: ranges.iter().map(|r| r.parse().unwrap()).collect(),
        service_ranges: Vec::new(),
        service_access: Default::default(),
        node_addresses: vec!["192.0.2.1".parse().unwrap()],
        underlay: Vec::new(),
        path_mtu: 1450,
    }
}

fn ours(family: &str) -> Vec<Value> {
    let shown = ip(&format!("{family} route show proto {RT_PROTOCOL}"));
    shown.as_array().unwrap().clone()
}

#[test]
fn ranges_are_routed_by_weft0_with_source_and_mtu() {
    enter();
    block_on(async {
        let netlink = Netlink::open().unwrap();
        let mut spec = spec(&["10.244.0.0/16", "10.99.0.0/24", "fd00::/16"]);
        spec.service_ranges = ["10.96.0.0/16", "10.100.0.9/32"]
            .map(|range| range.parse().unwrap())
            .to_vec();
        apply(&netlink, &spec).await.unwrap();
        let before = run("ip route") + &run("ip -6 route");
        apply(&netlink, &spec).await.unwrap();
        assert_eq!(run("ip route") + &run("ip -6 route"), before);

        // With services also the gateway, in whose name the node asks itself.
        assert_eq!((ours("-4").len(), ours("-6").len()), (5, 2));
        for (family, to, gateway, source) in [
            ("-4", "10.244.7.7", "169.254.1.1", "10.244.1.1"),
            ("-4", "10.99.0.7", "169.254.1.1", "10.244.1.1"),
            ("-4", "10.96.7.7", "169.254.1.1", "10.244.1.1"),
            ("-4", "10.100.0.9", "169.254.1.1", "10.244.1.1"),
            ("-4", "169.254.1.1", "169.254.1.1", "10.244.1.1"),
            ("-6", "fd00:7::7", "fe80::1", "fd00:1::1"),
        ] {
            let route = ip(&format!("{family} route get {to}"))[0].clone();
            assert_eq!(route["gateway"], gateway);
            assert_eq!(route["dev"], "weft0");
            assert_eq!(route["prefsrc"], source);
            let shown = ours(family);
            assert!(
                shown.iter().all(|r| r["metrics"][0]["mtu"] == 1450),
                "{shown:?}"
            );
        }
    });
}

#[test]
fn changed_ranges_and_mtu_are_followed_and_stale_routes_go() {
    enter();
    block_on(async {
        let netlink = Netlink::open().unwrap();
        apply(
            &netlink,
            &spec(&["10.244.0.0/16", "10.99.0.0/24", "fd00::/16"]),
        )
        .await
        .unwrap();
        let mut spec = spec(&["10.244.0.0/16", "fd00::/16"]);
        spec.path_mtu = 1400;
        apply(&netlink, &spec).await.unwrap();
        for family in ["-4", "-6"] {
            let shown = ours(family);
            assert_eq!(shown.len(), 1, "{shown:?}");
            assert_eq!(shown[0]["metrics"][0]["mtu"], 1400);
        }
        spec.addresses.pop();
        apply(&netlink, &spec).await.unwrap();
        assert_eq!((ours("-4").len(), ours("-6").len()), (1, 0));

        remove(&netlink).await.unwrap();
        remove(&netlink).await.unwrap();
        assert_eq!(ours("-4").len(), 0);
        assert_eq!(run("nft list tables"), "");
    });
}

#[test]
fn a_foreign_route_is_reported_and_everything_else_done() {
    enter();
    block_on(async {
        run("ip link add br0 type bridge");
        run("ip link set br0 up");
        run("ip route add 10.99.0.0/24 dev br0");
        let netlink = Netlink::open().unwrap();
        let spec = spec(&["10.99.0.0/24", "10.244.0.0/16"]);
        let errors = apply(&netlink, &spec).await.unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].to_string().contains("10.99.0.0/24"), "{errors:?}");
        assert_eq!(ip("route show 10.99.0.0/24")[0]["dev"], "br0");
        assert_eq!(ip("route show 10.244.0.0/16")[0]["dev"], "weft0");
        assert!(run("nft list tables").contains("inet weft"));
    });
}
