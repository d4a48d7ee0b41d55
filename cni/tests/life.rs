//! DEL, CHECK, STATUS, GC, VERSION and delegated address management.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod common;

use common::{Node, Pod, sh};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_api::PortName;
use weft_api::agent::{Attachment, Op};

fn attachment(id: &str) -> Attachment {
    Attachment {
        network: "weft".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

#[test]
fn del_removes_everything_and_works_twice_without_namespace_or_previous_result() {
    let (node, pod) = (Node::new(), Pod::new());
    let mut conf = node.conf("1.0.0");
    let result = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    // containerd: at Stop with namespace and result, at Remove with neither.
    conf["prevResult"] = result;
    assert_eq!(node.call("DEL", "c1", Some(&pod)).ok(&conf), Value::Null);
    assert_eq!(node.links(), [""; 0]);
    assert_eq!(pod.links(), ["lo"]);
    assert!(!pod.ok("ip rule; ip -6 rule").contains("tcp"));
    node.call("DEL", "c1", None).ok(&node.conf("1.0.0"));
    assert_eq!(node.agent().released(), 2);
    // The same container again, in the same namespace.
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.0.0"));
}

#[test]
fn del_succeeds_with_namespace_agent_and_pair_gone() {
    let (mut node, pod) = (Node::without_agent(), Pod::new());
    node.call("DEL", "c1", Some(&pod)).ok(&node.conf("0.3.1"));
    let gone = node
        .call("DEL", "c1", None)
        .set("CNI_NETNS", "/run/netns/never-was");
    gone.ok(&node.conf("0.4.0"));
    node.start_agent();
    node.call("ADD", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    // A socket file nobody listens at: the agent was killed.
    node.agent = None;
    let socket = node.run_dir.path().join("agent.sock");
    std::fs::remove_file(&socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    node.call("DEL", "c1", Some(&pod)).ok(&node.conf("1.1.0"));
    assert_eq!(node.links(), [""; 0]);
    // And with the whole run directory gone.
    let mut conf = node.conf("1.1.0");
    conf["runDir"] = json!("/run/weft-never-was");
    node.call("DEL", "c1", Some(&pod)).ok(&conf);
}

#[test]
fn del_ignores_what_only_add_needs() {
    let node = Node::new();
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!("nonsense");
    conf["mtu"] = json!(1);
    let del = node
        .call("DEL", "c1", None)
        .set("CNI_ARGS", "NO_SUCH=1;broken");
    del.ok(&conf);
}

/// CHECK after breaking the pod with `damage` says `says`.
fn check_finds(damage: &str, says: &str) {
    let (node, pod) = (Node::new(), Pod::new());
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    let check = node.call("CHECK", "c1", Some(&pod));
    assert_eq!(check.ok(&conf), Value::Null);
    pod.ok(damage);
    let (code, message) = check.fails(&conf);
    assert_eq!(code, 100, "{message}");
    assert!(message.contains(says), "{damage}: {message}");
}

#[test]
fn check_finds_lost_addresses() {
    check_finds(
        "ip addr del 10.244.1.5/32 dev eth0",
        "lost its address 10.244.1.5",
    );
    check_finds(
        "ip addr del fd00:1::5/128 dev eth0",
        "lost its address fd00:1::5",
    );
}

#[test]
fn check_finds_lost_routes_and_rules() {
    check_finds(
        "ip route del default",
        "default route via 169.254.1.1 is gone from the pod's main",
    );
    check_finds(
        "ip -6 route del default table 101",
        "via fe80::1 is gone from the pod's TCP",
    );
    check_finds(
        "ip route replace default via 169.254.1.1 dev eth0",
        "lost its MTU",
    );
    check_finds("ip rule del pref 100", "rule for TCP over IPv4");
    check_finds("ip rule del pref 99", "rule for TCP over IPv4");
}

#[test]
fn check_finds_changed_neighbours_and_links() {
    check_finds("ip neigh del 169.254.1.1 dev eth0", "neighbour 169.254.1.1");
    let replace = "ip neigh replace fe80::1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent";
    check_finds(replace, "neighbour fe80::1");
    check_finds(
        "ip link set eth0 address 02:00:00:00:00:09",
        "has the MAC 02:00:00:00:00:09",
    );
    check_finds("ip link set eth0 down", "eth0 is down");
    check_finds("ip link del eth0", "eth0 is gone from the pod");
}

#[test]
fn check_reports_the_host_end_and_what_the_agent_knows() {
    let (node, pod) = (Node::new(), Pod::new());
    let mut conf = node.conf("0.4.0");
    conf["prevResult"] = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    let check = node.call("CHECK", "c1", Some(&pod));
    check.ok(&conf);
    let port = PortName::of_attachment("weft", "c1", "eth0");
    sh(&format!("ip link set {port} down"));
    assert!(check.fails(&conf).1.contains("is down"));
    sh(&format!("ip link set {port} up"));
    node.agent()
        .check
        .problems
        .push("the port is not live".into());
    assert!(check.fails(&conf).1.contains("the port is not live"));
    node.agent().check.problems.clear();
    node.agent().check.addresses.clear();
    assert!(check.fails(&conf).1.contains("did not give 10.244.1.5"));
}

#[test]
fn check_needs_a_version_and_a_previous_result() {
    let (node, pod) = (Node::new(), Pod::new());
    let check = node.call("CHECK", "c1", Some(&pod));
    assert_eq!(check.fails(&node.conf("0.3.1")).0, 1);
    assert_eq!(check.fails(&node.conf("0.4.0")).0, 7);
    let mut conf = node.conf("0.4.0");
    conf["prevResult"] = json!({"interfaces": [{"name": "eth1", "sandbox": "/x"}]});
    assert_eq!(check.fails(&conf).0, 7);
}

#[test]
fn status_says_ready_or_why_not() {
    let node = Node::without_agent();
    let status = node.call("STATUS", "", None);
    assert_eq!(status.fails(&node.conf("1.1.0")).0, 50);
    assert_eq!(status.fails(&node.conf("1.0.0")).0, 1);
    let node = Node::new();
    let status = node.call("STATUS", "", None);
    assert_eq!(status.ok(&node.conf("1.1.0")), Value::Null);
    node.agent().ready_problems = vec!["the node is not known yet".into()];
    let (code, message) = status.fails(&node.conf("1.1.0"));
    assert!(
        code == 50 && message.contains("the node is not known yet"),
        "{message}"
    );
    node.agent().dataplane = false;
    assert_eq!(status.fails(&node.conf("1.1.0")).0, 51);
}

#[test]
fn gc_removes_what_the_agent_released() {
    let node = Node::new();
    let pods = [Pod::new(), Pod::new()];
    let mut conf = node.conf("1.1.0");
    for (i, pod) in pods.iter().enumerate() {
        node.call("ADD", &format!("c{i}"), Some(pod)).ok(&conf);
    }
    let gc = node.call("GC", "", None);
    assert_eq!(gc.fails(&node.conf("1.0.0")).0, 1);
    // No list: nothing is collected.
    gc.ok(&conf);
    assert_eq!(node.links().len(), 2);
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "c0", "ifname": "eth0"}]);
    node.agent().collected = vec![attachment("c1")];
    gc.ok(&conf);
    assert_eq!(node.links(), [attachment("c0").port_name().0]);
    let agent = node.agent();
    let collect = Op::Collect {
        network: "weft".into(),
        valid: vec![attachment("c0")],
    };
    assert_eq!(agent.seen.last(), Some(&collect));
}

#[test]
fn version_repeats_the_callers_version_and_lists_all() {
    let node = Node::without_agent();
    let version = node
        .call("VERSION", "dum/my", None)
        .set("CNI_NETNS", "dummy");
    for asked in ["0.4.0", "1.1.0", "9.9.9"] {
        let answer = version.ok(&json!({"cniVersion": asked}));
        assert_eq!(answer["cniVersion"], asked);
        let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        assert_eq!(answer["supportedVersions"], all);
    }
}

#[test]
fn errors_speak_the_callers_version_where_it_is_known() {
    let node = Node::new();
    let (_, document) = node.call("ADD", "c1", None).run(&node.conf("0.4.0"));
    assert_eq!(
        (&document["cniVersion"], &document["code"]),
        (&json!("0.4.0"), &json!(4))
    );
    let pod = Pod::new();
    let (_, document) = node.call("ADD", "c1", Some(&pod)).run(&node.conf("7.0.0"));
    assert_eq!(
        (&document["cniVersion"], &document["code"]),
        (&json!("1.1.0"), &json!(1))
    );
}

/// A configuration that delegates to the host-local plugin of containernetworking-plugins.
fn delegating(node: &Node, state: &TempDir) -> Value {
    let mut conf = node.conf("1.0.0");
    conf["ipam"] = json!({
        "type": "host-local",
        "dataDir": state.path(),
        "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    conf
}

fn leases(state: &TempDir) -> usize {
    let network = state.path().join("weft");
    let files = std::fs::read_dir(network).map(|d| d.flatten().collect::<Vec<_>>());
    let names = files.unwrap_or_default().into_iter().map(|f| f.file_name());
    let leases = names.filter(|n| n.to_string_lossy().starts_with(['1', 'f']));
    leases.count()
}

#[test]
fn addresses_of_a_delegated_plugin_are_used_and_given_back() {
    let (node, pod, state) = (Node::new(), Pod::new(), tempfile::tempdir().unwrap());
    let mut conf = delegating(&node, &state);
    let result = node.call("ADD", "c1", Some(&pod)).ok(&conf);
    let addresses = result["ips"].as_array().unwrap().iter();
    let addresses = addresses
        .map(|ip| ip["address"].as_str().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(addresses, ["10.9.0.2/32", "fd09::2/128"]);
    assert!(pod.ok("ip addr show eth0").contains("10.9.0.2/32"));
    assert_eq!(leases(&state), 2);
    conf["prevResult"] = result;
    node.call("CHECK", "c1", Some(&pod)).ok(&conf);
    node.call("DEL", "c1", Some(&pod)).ok(&conf);
    assert_eq!(leases(&state), 0);
    let check = node.call("CHECK", "c1", Some(&pod)).fails(&conf);
    assert!(check.1.contains("host-local"), "{check:?}");
    node.call("DEL", "c1", None).ok(&conf);
}

#[test]
fn a_failed_add_gives_delegated_addresses_back() {
    let (node, pod, state) = (Node::new(), Pod::new(), tempfile::tempdir().unwrap());
    let conf = delegating(&node, &state);
    node.agent().attach_error = Some(common::failed("no"));
    node.call("ADD", "c1", Some(&pod)).fails(&conf);
    assert_eq!(leases(&state), 0);
    let seen = node.agent().seen.clone();
    let Op::Prepare(prepare) = &seen[0] else {
        panic!("{seen:?}");
    };
    assert_eq!(prepare.delegated.len(), 2);
}

#[test]
fn errors_of_a_delegated_plugin_reach_the_runtime() {
    let (node, pod, state) = (Node::new(), Pod::new(), tempfile::tempdir().unwrap());
    let mut conf = delegating(&node, &state);
    let add = node.call("ADD", "c1", Some(&pod));
    conf["ipam"]["ranges"] = json!([[{"subnet": "nonsense"}]]);
    let (_, message) = add.fails(&conf);
    assert!(message.contains("host-local"), "{message}");
    conf["ipam"]["type"] = json!("no-such-plugin");
    let (code, message) = add.fails(&conf);
    assert!(code == 7 && message.contains("CNI_PATH"), "{message}");
    assert!(node.agent().seen.is_empty());
}

#[test]
fn static_addresses_need_a_delegated_plugin() {
    let (node, pod) = (Node::new(), Pod::new());
    let add = node
        .call("ADD", "c1", Some(&pod))
        .set("CNI_ARGS", "IP=10.0.0.9");
    let (code, message) = add.fails(&node.conf("1.0.0"));
    assert!(code == 2 && message.contains("IP"), "{message}");
}
