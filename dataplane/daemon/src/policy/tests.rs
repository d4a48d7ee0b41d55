//! What is listed and explained, from objects to sentences.

use serde_json::json;
use weft_api::PortName;
use weft_api::dataplane::PortSpec;
use weft_api::policy::RuleVerdict;
use weft_engine::RuleId;
use weft_keeper::protocol::{PortRecord, XdpMode};

use super::*;
use crate::compile::Compiler;
use crate::ports::AttachedPort;

/// Two pods of this node: `shop/web`, which takes TCP port 80 from `shop/cart` only, and `shop/late`, whose
/// policy has not arrived. `shop/cart` is another node's.
struct Rig {
    objects: ObjectStore,
    ports: Ports,
    compiler: Compiler,
    tables: Tables,
}

fn pod(name: &str) -> PodRef {
    PodRef {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn port(id: u16, name: &str, addresses: &[&str]) -> AttachedPort {
    AttachedPort {
        record: PortRecord {
            id,
            ifname: format!("weft{id}"),
            ifindex: u32::from(id),
            kind: PortKind::Pod,
            queues: Vec::new(),
            packet_socket: false,
            shortcuts: false,
            xdp_mode: XdpMode::Generic,
            config: serde_json::Value::Null,
        },
        spec: PortSpec {
            name: PortName(format!("weft{id}")),
            kind: PortKind::Pod,
            mac: weft_api::MacAddr::default(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            mtu: 65_535,
            pod: Some(pod(name)),
            netns: None,
        },
        homes: Vec::new(),
        counters: Vec::new(),
    }
}

impl Rig {
    fn new() -> Self {
        let rule = |peer: Option<u32>, port: Option<u16>, verdict, rule| {
            let ports = port.map(|it| json!({"first": it, "last": it}));
            let protocol = port.map(|_| 6);
            json!({"tier": 2, "peer": peer, "protocol": protocol, "ports": ports, "verdict": verdict,
                "origin": {"object": "NetworkPolicy shop/web", "rule": rule}})
        };
        let address = |prefix, identity, pod: &str| {
            json!({"kind": "policy_address", "prefix": prefix, "identity": identity,
                "pod": {"namespace": "shop", "name": pod}})
        };
        let objects = json!([
            {"kind": "local_node", "name": "n", "addresses": ["192.0.2.1"], "pod_cidrs": ["10.1.1.0/24"],
                "node_port_addresses": ["10.1.1.254"], "node_port_mac": "02:00:00:00:00:01", "vni": 7,
                "vxlan_port": 4789},
            {"kind": "identity", "id": 1, "name": "shop app=web", "selectors": []},
            {"kind": "identity", "id": 2, "name": "shop app=cart", "selectors": [9]},
            address("10.1.1.10/32", 1, "web"),
            address("fd00::10/128", 1, "web"),
            address("10.1.2.5/32", 2, "cart"),
            {"kind": "endpoint_policy", "identity": 1, "egress": [], "ingress": [
                rule(Some(9), Some(80), "allow", "ingress[0]"),
                rule(None, None, "deny", "isolates ingress"),
            ]},
        ]);
        let mut store = ObjectStore::default();
        let objects = serde_json::from_value(objects).unwrap();
        store.upsert(1, objects).unwrap();
        let mut ports = Ports::default();
        ports.insert(port(0, "web", &["10.1.1.10", "fd00::10"]));
        ports.insert(port(1, "late", &["10.1.1.11"]));
        let mut compiler = Compiler::default();
        let tables = compiler.tables(store.objects(), &ports);
        Self {
            objects: store,
            ports,
            compiler,
            tables,
        }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.objects, &self.ports, &self.tables, &self.compiler)
    }

    fn explain(&self, from: &str, to: &str, port: u16) -> PolicyExplained {
        self.view()
            .explain(&question(from, to, Some(port)))
            .unwrap()
    }
}

fn question(from: &str, to: &str, port: Option<u16>) -> PolicyQuestion {
    PolicyQuestion {
        source: from.into(),
        destination: to.into(),
        protocol: 6,
        port,
    }
}

#[test]
fn a_question_by_names_is_answered_with_rule_and_place() {
    let rig = Rig::new();
    let origin = |side: &PolicySide| side.origin.as_ref().map(|it| it.rule.clone());
    let allowed = rig.explain("shop/cart", "shop/web", 80);
    assert!(allowed.allowed);
    assert_eq!(allowed.egress.outcome, PolicyOutcome::Elsewhere);
    assert_eq!(allowed.ingress.outcome, PolicyOutcome::Allowed);
    assert_eq!(origin(&allowed.ingress).as_deref(), Some("ingress[0]"));
    assert_eq!(
        (allowed.source.identity, allowed.source.name.as_str()),
        (2, "shop app=cart")
    );
    assert_eq!(allowed.destination.pod, Some(pod("web")));
    for (from, to, port, rule) in [
        ("shop/cart", "10.1.1.10", 81, "isolates ingress"),
        ("198.51.100.7", "shop/web", 80, "isolates ingress"),
        ("2001:db8::9", "shop/web", 80, "isolates ingress"),
    ] {
        let denied = rig.explain(from, to, port);
        assert!(!denied.allowed);
        assert_eq!(origin(&denied.ingress).as_deref(), Some(rule));
    }
    assert!(
        rig.explain("192.0.2.1", "shop/web", 81).allowed,
        "the node may"
    );
    assert_eq!(
        rig.explain("192.0.2.1", "shop/web", 81).ingress.outcome,
        PolicyOutcome::Exempt
    );
    let late = rig.explain("shop/late", "198.51.100.7", 80);
    assert_eq!(
        (late.egress.outcome, late.allowed),
        (PolicyOutcome::NoPolicy, false)
    );
    assert_eq!(late.source.name, "world");
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_the_reason() {
    let rig = Rig::new();
    for (question, kind, says) in [
        (
            question("shop/none", "shop/web", Some(80)),
            ErrorKind::NotFound,
            "shop/none",
        ),
        (
            question("shop/cart", "shop/web", None),
            ErrorKind::BadRequest,
            "80/tcp",
        ),
        (
            question("shop/cart", "fd00::10", Some(1)),
            ErrorKind::BadRequest,
            "family",
        ),
    ] {
        let refused = rig.view().explain(&question).unwrap_err();
        assert_eq!(refused.kind, kind);
        assert!(refused.message.contains(says), "{refused}");
    }
    let ping = PolicyQuestion {
        protocol: 1,
        ..question("2001:db8::9", "shop/web", None)
    };
    assert_eq!(rig.view().explain(&ping).unwrap().protocol, 58);
}

#[test]
fn endpoints_are_listed_with_their_pods_and_those_without_policy_too() {
    let rig = Rig::new();
    let list = rig.view().list(&PolicyCounters::new());
    let [late, web] = &list.endpoints[..] else {
        panic!("{list:?}");
    };
    assert_eq!(
        (late.identity, late.known, &late.pods[..]),
        (0, false, &[pod("late")][..])
    );
    assert_eq!(
        (web.identity, web.known, &web.pods[..]),
        (1, true, &[pod("web")][..])
    );
    assert_eq!(web.addresses.len(), 2);
    let [allow, deny] = &web.ingress[..] else {
        panic!("{web:?}");
    };
    assert_eq!(
        (allow.verdict, deny.verdict),
        (RuleVerdict::Allow, RuleVerdict::Deny)
    );
    let peer = allow.peer.as_ref().unwrap();
    assert_eq!(
        (peer.identities, &peer.names[..]),
        (1, &["shop app=cart".to_owned()][..])
    );
    assert_ne!(rig.compiler.policies().rule_id(&deny.origin), RuleId::NONE);
}
