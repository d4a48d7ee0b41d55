use std::net::IpAddr;

use serde_json::Value;
use weft_agent::host::{HostError, Netlink, weft0};
use weft_api::{GATEWAY_MAC, MacAddr};

use crate::namespace::{Namespace, block_on, enter, ip, run, set, setting};

const MAC: MacAddr = MacAddr([2, 0x50, 10, 244, 1, 1]);

fn own() -> Vec<IpAddr> {
    ["10.244.1.1", "fd00:1::1"]
        .map(|a| a.parse().unwrap())
        .to_vec()
}

async fn apply() -> Result<u32, HostError> {
    weft0::apply(&Netlink::open().unwrap(), MAC, &own()).await
}

fn link(name: &str) -> Value {
    ip(&format!("-d link show dev {name}"))[0].clone()
}

fn addresses(name: &str) -> Vec<String> {
    let shown = ip(&format!("addr show dev {name}"));
    let list = shown[0]["addr_info"].as_array().unwrap();
    let text = |a: &Value| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]);
    list.iter().map(text).collect()
}

fn assert_in_order() {
    let (node, peer) = (link("weft0"), link("weft0p"));
    assert_eq!(node["address"], MAC.to_string());
    assert_ne!(peer["address"], GATEWAY_MAC.to_string());
    for end in [&node, &peer] {
        assert_eq!(end["mtu"], 65_535);
        assert_eq!(end["num_rx_queues"], 1);
        assert!(end["flags"].as_array().unwrap().contains(&"UP".into()));
    }
    assert_eq!(node["link"], "weft0p");
    assert_eq!(addresses("weft0"), ["10.244.1.1/32", "fd00:1::1/128"]);
    assert_eq!(addresses("weft0p"), [""; 0]);
    let shown = run("ip -6 addr show dev weft0");
    assert!(!shown.contains("tentative"), "{shown}");
    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let neighbours = ip(&format!("{family} neigh show dev weft0"));
        assert_eq!(neighbours.as_array().unwrap().len(), 1, "{neighbours}");
        assert_eq!(neighbours[0]["dst"], gateway);
        assert_eq!(neighbours[0]["lladdr"], GATEWAY_MAC.to_string());
        assert_eq!(neighbours[0]["state"][0], "PERMANENT");
    }
    assert_eq!(setting("ipv6/conf/weft0p/disable_ipv6"), "1");
    assert_eq!(setting("ipv4/conf/weft0p/forwarding"), "0");
    assert_eq!(setting("ipv4/conf/weft0p/arp_ignore"), "8");
    assert_eq!(setting("ipv4/conf/weft0/forwarding"), "1");
    let features = run("ethtool -k weft0");
    for line in [
        "tx-tcp-segmentation: on",
        "tx-udp-segmentation: off",
        "tx-checksum-ip-generic: on",
    ] {
        assert!(features.contains(line), "{line}: {features}");
    }
}

#[test]
fn pair_is_made_once_and_a_second_run_changes_nothing() {
    enter();
    block_on(async {
        let index = apply().await.unwrap();
        assert_in_order();
        let before = (run("ip -d link"), run("ip addr"));
        assert_eq!(apply().await.unwrap(), index);
        assert_eq!((run("ip -d link"), run("ip addr")), before);
        assert_in_order();
    });
}

#[test]
fn drift_is_repaired_in_place() {
    enter();
    block_on(async {
        let index = apply().await.unwrap();
        for drift in [
            "ip link set weft0 mtu 1500 address 02:00:00:00:00:99 down",
            "ip link set weft0p down",
            "ip addr add 10.9.9.9/24 dev weft0",
            "ip addr add 10.8.8.8/24 dev weft0p",
            "ip addr del 10.244.1.1/32 dev weft0",
            "ip addr add 10.244.1.1/24 dev weft0",
            "ethtool -K weft0 tso on",
        ] {
            run(drift);
        }
        run("ip neigh replace 169.254.1.1 lladdr 02:00:00:00:00:99 dev weft0 nud permanent");
        set("ipv4/conf/weft0p/forwarding", "1");
        set("ipv6/conf/weft0p/disable_ipv6", "0");
        assert_eq!(apply().await.unwrap(), index);
        assert_in_order();
    });
}

#[test]
fn a_pair_that_lost_its_other_end_is_made_anew() {
    enter();
    block_on(async {
        apply().await.unwrap();
        let elsewhere = Namespace::new();
        elsewhere.take("weft0p");
        apply().await.unwrap();
        assert_in_order();
    });
}

#[test]
fn an_interface_that_is_not_ours_is_left_alone() {
    enter();
    block_on(async {
        run("ip link add weft0 type bridge");
        let error = apply().await.unwrap_err();
        assert!(matches!(error, HostError::InTheWay(_)), "{error}");
        assert_eq!(link("weft0")["linkinfo"]["info_kind"], "bridge");
    });
}

#[test]
fn one_family_alone_has_one_gateway() {
    enter();
    block_on(async {
        let netlink = Netlink::open().unwrap();
        let own = ["fd00:1::1".parse().unwrap()];
        weft0::apply(&netlink, MAC, &own).await.unwrap();
        assert_eq!(addresses("weft0"), ["fd00:1::1/128"]);
        assert_eq!(ip("-4 neigh show dev weft0").as_array().unwrap().len(), 0);
    });
}
