//! ADD against real network namespaces and a stub agent.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod common;

use common::{Node, Pod, failed, ip_json, sh, try_again};
use serde_json::{Value, json};
use weft_api::agent::Op;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::{GATEWAY_MAC, PodRef, PortName};

fn find<'a>(list: &'a Value, key: &str, value: &str) -> Option<&'a Value> {
    list.as_array()
        .unwrap()
        .iter()
        .find(|entry| entry[key] == value)
}

#[test]
fn pod_holds_what_the_plan_says() {
    let (node, pod) = (Node::new(), Pod::new());
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));

    let eth0 = &pod.json("ip -j addr show eth0")[0];
    assert_eq!(eth0["mtu"], 65_535);
    assert_eq!(eth0["address"], "02:50:0a:f4:01:05");
    let held = eth0["addr_info"].as_array().unwrap();
    let held = held.iter().map(|a| {
        (
            a["local"].as_str().unwrap(),
            a["prefixlen"].as_u64().unwrap(),
        )
    });
    let held = held.collect::<Vec<_>>();
    assert_eq!(held, [("10.244.1.5", 32), ("fd00:1::5", 128)]);
    assert!(eth0["addr_info"][1].get("tentative").is_none(), "{eth0}");
    assert_eq!(pod.json("ip -j link show lo")[0]["flags"][1], "UP");

    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let neighbours = pod.json(&format!("ip -j {family} neigh show dev eth0 nud permanent"));
        let entry = find(&neighbours, "dst", gateway).expect("a permanent neighbour");
        assert_eq!(entry["lladdr"], GATEWAY_MAC.to_string());
        for (table, mtu) in [("main", 1450), ("101", 65_000)] {
            let routes = pod.json(&format!("ip -j {family} route show table {table}"));
            let default = find(&routes, "dst", "default").expect("a default route");
            assert_eq!(default["gateway"], gateway);
            assert_eq!(default["metrics"][0]["mtu"], mtu, "{default}");
        }
        let rules = pod.json(&format!("ip -j {family} rule"));
        assert_eq!(rules[0]["table"], "local", "{rules}");
        assert_eq!(rules[1]["priority"], 99, "{rules}");
        assert_eq!(rules[1]["ipproto"], "tcp");
        assert_eq!(rules[1]["table"], "main");
        assert_eq!(rules[1]["suppress_prefixlen"], 0);
        assert_eq!(rules[2]["priority"], 100, "{rules}");
        assert_eq!(rules[2]["ipproto"], "tcp");
        assert_eq!(rules[2]["table"], "101");
    }
    let link_route = pod.json("ip -j route show 169.254.1.1");
    assert_eq!(link_route[0]["scope"], "link");

    // What a packet would really take.
    let tcp = pod.ok("ip route get 10.244.9.9 ipproto tcp; ip -6 route get fd00:9::9 ipproto tcp");
    assert_eq!(tcp.matches("mtu 65000").count(), 2, "{tcp}");
    let udp = pod.ok("ip route get 10.244.9.9 ipproto udp; ip -6 route get fd00:9::9 ipproto udp");
    assert_eq!(udp.matches("mtu 1450").count(), 2, "{udp}");

    let features = pod.ok("ethtool -k eth0");
    for state in [
        "tx-tcp-segmentation: on",
        "tx-udp-segmentation: off",
        "tx-checksum-sctp: off",
        "tx-checksum-ip-generic: on",
    ] {
        assert!(features.contains(state), "{state}");
    }
}

#[test]
fn host_end_is_a_mere_port() {
    let (node, pod) = (Node::new(), Pod::new());
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let result = node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    let port = PortName::of_attachment("weft", "c1", "eth0").0;
    assert_eq!(node.links(), std::slice::from_ref(&port));

    let link = &ip_json(&format!("ip -j -d link show {port}"))[0];
    assert_eq!(link["mtu"], 65_535);
    assert_eq!(
        (&link["num_tx_queues"], &link["num_rx_queues"]),
        (&json!(1), &json!(1))
    );
    let flags = link["flags"].as_array().unwrap();
    assert!(
        flags.contains(&json!("UP")) && flags.contains(&json!("LOWER_UP")),
        "{link}"
    );
    assert_ne!(link["address"], GATEWAY_MAC.to_string());
    assert_eq!(link["address"], result["interfaces"][0]["mac"]);
    for (setting, value) in [
        ("ipv6/conf/PORT/disable_ipv6", "1"),
        ("ipv6/conf/PORT/forwarding", "0"),
        ("ipv4/conf/PORT/forwarding", "0"),
        ("ipv4/conf/PORT/rp_filter", "1"),
        ("ipv4/conf/PORT/arp_ignore", "8"),
    ] {
        let path = format!("/proc/sys/net/{}", setting.replace("PORT", &port));
        assert_eq!(sh(&format!("cat {path}")).trim(), value, "{path}");
    }
    assert_eq!(
        sh(&format!("ip addr show {port}")).matches("inet").count(),
        0
    );
}

#[test]
fn result_has_the_shape_of_each_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::new(), Pod::new());
        let result = node.call("ADD", "c1", Some(&pod)).ok(&node.conf(version));
        let port = PortName::of_attachment("weft", "c1", "eth0").0;
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        assert_eq!(interfaces[0]["name"], port);
        assert!(interfaces[0].get("sandbox").is_none());
        assert_eq!(interfaces[1]["name"], "eth0");
        assert_eq!(interfaces[1]["sandbox"], pod.path());
        assert_eq!(interfaces[1].get("mtu").is_some(), version == "1.1.0");
        let ips = result["ips"].as_array().unwrap();
        for (ip, (address, gateway, family)) in ips.iter().zip([
            ("10.244.1.5/32", "169.254.1.1", "4"),
            ("fd00:1::5/128", "fe80::1", "6"),
        ]) {
            assert_eq!(
                (&ip["address"], &ip["gateway"]),
                (&json!(address), &json!(gateway))
            );
            assert_eq!(ip["interface"], 1);
            let expected = (version < "1.0.0").then(|| json!(family));
            assert_eq!(ip.get("version"), expected.as_ref());
        }
        let routes = result["routes"].as_array().unwrap();
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[1]["dst"], "::/0");
        assert_eq!(routes[0].get("mtu").is_some(), version == "1.1.0");
        assert_eq!(result["dns"], json!({}));
    }
}

#[test]
fn agent_is_told_about_the_pod_and_the_configuration() {
    let (node, pod) = (Node::new(), Pod::new());
    let mut conf = node.conf("1.0.0");
    conf["MTU"] = json!(1400);
    conf["dns"] = json!({"nameservers": ["10.96.0.10"], "search": ["cluster.local"]});
    let result = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    assert_eq!(result["dns"]["nameservers"][0], "10.96.0.10");
    let agent = node.agent();
    let [Op::Prepare(prepare), Op::Attach { attachment }] = agent.seen.as_slice() else {
        panic!("{:?}", agent.seen);
    };
    assert_eq!(prepare.mtu, Some(1400));
    let pod_ref = PodRef {
        namespace: "web".into(),
        name: "a".into(),
    };
    assert_eq!(prepare.pod, Some(pod_ref));
    assert_eq!(&prepare.attachment, attachment);
    assert_eq!(attachment.container_id, "c1");
}

#[test]
fn results_of_plugins_before_are_kept() {
    let (node, pod) = (Node::new(), Pod::new());
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": pod.path()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
    });
    let result = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
    assert_eq!(result["ips"][1]["interface"], 2);
}

#[test]
fn ipv4_only_pod_is_fine_where_ipv6_is_switched_off() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ok("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
    node.agent().v4_only = true;
    let result = node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    assert_eq!(result["ips"].as_array().unwrap().len(), 1);
    assert_eq!(pod.ok("ip -6 addr show eth0"), "");
}

#[test]
fn dual_stack_pod_switches_ipv6_on_again() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ok("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    assert!(pod.ok("ip -6 addr show eth0").contains("fd00:1::5/128"));
}

#[test]
fn first_ping_after_add_is_answered_over_both_families() {
    let (node, pod) = (Node::new(), Pod::new());
    // The kernel plays the pipeline: the host end becomes the gateway while `attach` is answered.
    let script = format!(
        "ip link set $PORT address {GATEWAY_MAC}
         sysctl -qw net.ipv6.conf.$PORT.disable_ipv6=0
         ip addr add 10.244.1.1/32 dev $PORT; ip addr add fd00:1::1/128 dev $PORT nodad
         ip route add 10.244.1.5 dev $PORT; ip route add fd00:1::5 dev $PORT
         ip neigh replace 10.244.1.5 lladdr 02:50:0a:f4:01:05 dev $PORT
         ip neigh replace fd00:1::5 lladdr 02:50:0a:f4:01:05 dev $PORT"
    );
    node.agent().attach_script = Some(script);
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    for address in ["10.244.1.1", "fd00:1::1"] {
        let output = pod.ok(&format!("ping -c 1 -W 1 {address}"));
        assert!(output.contains(" 0% packet loss"), "{output}");
    }
}

fn assert_nothing_is_left(node: &Node, pod: &Pod) {
    assert_eq!(node.links(), [""; 0]);
    assert_eq!(pod.links(), ["lo"]);
    assert!(!pod.ok("ip rule; ip -6 rule").contains("tcp"));
    assert_eq!(node.agent().released(), 1);
}

#[test]
fn a_refused_attach_leaves_nothing() {
    let (node, pod) = (Node::new(), Pod::new());
    node.agent().attach_error = Some(failed("no frame is left"));
    let add = node.call("ADD", "c1", Some(&pod));
    assert_eq!(
        add.fails(&node.conf("1.1.0")),
        (103, "no frame is left".into())
    );
    assert_nothing_is_left(&node, &pod);
    // And the same container can be attached afterwards.
    node.agent().attach_error = None;
    add.ok(&node.conf("1.1.0"));
}

#[test]
fn a_failure_inside_the_pod_leaves_nothing() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ok("ip link add d0 type veth peer name d1; ip link set d0 up");
    pod.ok("ip route add default dev d0");
    let (code, message) = node
        .call("ADD", "c1", Some(&pod))
        .fails(&node.conf("1.1.0"));
    assert_eq!(code, 104, "{message}");
    assert!(
        message.contains("add route default via 169.254.1.1"),
        "{message}"
    );
    pod.ok("ip link del d0");
    assert_nothing_is_left(&node, &pod);
}

#[test]
fn an_agent_that_dies_in_attach_leaves_nothing_on_the_node() {
    let (node, pod) = (Node::new(), Pod::new());
    node.agent().attach_dies = true;
    let (code, _) = node
        .call("ADD", "c1", Some(&pod))
        .fails(&node.conf("1.1.0"));
    assert_eq!(code, 11);
    assert_eq!(node.links(), [""; 0]);
    assert_eq!(pod.links(), ["lo"]);
}

#[test]
fn without_agent_or_with_an_unknown_pod_the_runtime_shall_try_again() {
    let (node, pod) = (Node::without_agent(), Pod::new());
    let (code, message) = node
        .call("ADD", "c1", Some(&pod))
        .fails(&node.conf("1.0.0"));
    assert_eq!(code, 11);
    assert!(
        message.contains("weft-agent") && message.contains("agent.sock"),
        "{message}"
    );
    let node = Node::new();
    node.agent().prepare_error = Some(try_again("pod web/a is not known yet"));
    let add = node.call("ADD", "c1", Some(&pod));
    assert_eq!(add.fails(&node.conf("1.0.0")).0, 11);
    assert_eq!(node.links(), [""; 0]);
}

#[test]
fn a_second_add_of_a_live_attachment_does_not_touch_it() {
    let (node, pod) = (Node::new(), Pod::new());
    let add = node.call("ADD", "c1", Some(&pod));
    add.ok(&node.conf("1.1.0"));
    node.agent().prepare_error = Some(ApiError::new(ErrorKind::Conflict, "attached already"));
    assert_eq!(add.fails(&node.conf("1.1.0")).0, 102);
    // An agent that plans it again is stopped by what is in the pod.
    node.agent().prepare_error = None;
    assert_eq!(add.fails(&node.conf("1.1.0")).0, 4);
    assert_eq!(node.agent().released(), 0);
    assert_eq!(node.links().len(), 1);
    assert_eq!(pod.links(), ["lo", "eth0"]);
}

#[test]
fn bad_namespaces_are_refused_with_the_right_code() {
    let (node, pod) = (Node::new(), Pod::new());
    let conf = node.conf("1.1.0");
    let with = |path: &str| {
        node.call("ADD", "c1", Some(&pod))
            .set("CNI_NETNS", path)
            .fails(&conf)
    };
    assert_eq!(with("/proc/self/ns/absent").0, 3);
    assert_eq!(with("/etc/hostname").0, 4);
    assert_eq!(with("").0, 4);
    let mount = format!("/proc/{}/ns/mnt", std::process::id());
    assert_eq!(with(&mount).0, 4);
    let own = with("/proc/self/ns/net");
    assert!(own.0 == 4 && own.1.contains("own"), "{own:?}");
    assert_eq!(node.links(), [""; 0]);
}

#[test]
fn a_taken_interface_name_is_refused_and_a_stale_host_end_replaced() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ok("ip link add eth0 type veth peer name other");
    let (code, message) = node
        .call("ADD", "c1", Some(&pod))
        .fails(&node.conf("1.1.0"));
    assert!(
        code == 4 && message.contains("eth0 exists"),
        "{code} {message}"
    );
    pod.ok("ip link del eth0");
    let port = PortName::of_attachment("weft", "c1", "eth0").0;
    sh(&format!("ip link add {port} type veth peer name stale"));
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    assert_eq!(node.links(), [port]);
}

#[test]
fn parallel_adds_and_dels_do_not_disturb_each_other() {
    let node = Node::new();
    let pods = (0..24).map(|_| Pod::new()).collect::<Vec<_>>();
    let conf = node.conf("1.1.0");
    // A scoped thread starts in its parent's network namespace.
    let all = |command: &str| {
        std::thread::scope(|scope| {
            let start = |(i, pod)| {
                let call = node.call(command, &format!("c{i}"), Some(pod));
                let conf = &conf;
                scope.spawn(move || call.ok(conf))
            };
            let calls = pods.iter().enumerate().map(start).collect::<Vec<_>>();
            let results = calls.into_iter().map(|c| c.join().unwrap());
            results
                .map(|r| r["ips"][0]["address"].clone())
                .collect::<Vec<_>>()
        })
    };
    let mut addresses = all("ADD")
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), pods.len());
    assert_eq!(node.links().len(), pods.len());
    all("DEL");
    assert_eq!(node.links(), [""; 0]);
}
