//! Packets of a node with two pods, a node's own port and an uplink, from words to words.

use serde_json::json;
use weft_api::dataplane::PortSpec;
use weft_api::trace::{PacketDescription, TraceVerdict, TraceWay};
use weft_api::{MacAddr, PodRef};
use weft_keeper::protocol::{PortRecord, XdpMode};
use weft_wire::build;

use super::*;
use crate::objects::ObjectStore;

/// `shop/web` takes TCP port 80 from `shop/cart` only; both are here. The node `far` is behind the uplink `u0`.
struct Rig {
    objects: ObjectStore,
    ports: Ports,
    compiler: Compiler,
    tables: Tables,
    bench: Bench,
}

const CART_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn port(id: u16, kind: PortKind, name: &str, addresses: &[&str]) -> AttachedPort {
    let pod = PodRef {
        namespace: "shop".into(),
        name: name.into(),
    };
    AttachedPort {
        record: PortRecord {
            id,
            ifname: name.into(),
            ifindex: u32::from(id),
            kind,
            queues: Vec::new(),
            packet_socket: false,
            shortcuts: false,
            xdp_mode: XdpMode::Generic,
            config: serde_json::Value::Null,
        },
        spec: PortSpec {
            name: PortName(name.into()),
            kind,
            mac: MacAddr([2, 0, 0, 0, 0, id as u8]),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            mtu: 65_535,
            pod: (kind == PortKind::Pod).then_some(pod),
            netns: None,
        },
        homes: Vec::new(),
        counters: Vec::new(),
    }
}

fn objects() -> serde_json::Value {
    let rule = |peer: Option<u32>, port: Option<u16>, verdict, rule| {
        let ports = port.map(|it| json!({"first": it, "last": it}));
        json!({"tier": 2, "peer": peer, "protocol": port.map(|_| 6), "ports": ports, "verdict": verdict,
            "origin": {"object": "NetworkPolicy shop/web", "rule": rule}})
    };
    let address = |prefix, identity| json!({"kind": "policy_address", "prefix": prefix, "identity": identity});
    json!([
        {"kind": "local_node", "name": "n", "addresses": ["192.0.2.1"], "pod_cidrs": ["10.1.1.0/24"],
            "node_port_addresses": ["10.1.1.254"], "node_port_mac": "02:00:00:00:00:09", "vni": 7, "vxlan_port": 8472},
        {"kind": "remote_node", "name": "far", "addresses": ["192.0.2.2"], "vtep": "192.0.2.2",
            "pod_cidrs": ["10.1.2.0/24"]},
        {"kind": "underlay_path", "vtep": "192.0.2.2", "ifname": "u0", "source": "192.0.2.1",
            "source_mac": "52:00:00:00:00:01", "next_hop_mac": "52:00:00:00:00:02", "mtu": 1500},
        {"kind": "cluster_range", "prefix": "10.1.0.0/16", "purpose": "pods"},
        {"kind": "identity", "id": 1, "name": "web", "selectors": []},
        {"kind": "identity", "id": 2, "name": "cart", "selectors": [9]},
        address("10.1.1.10/32", 1),
        address("fd00::10/128", 1),
        address("10.1.1.11/32", 2),
        {"kind": "endpoint_policy", "identity": 1, "egress": [], "ingress": [
            rule(Some(9), Some(80), "allow", "ingress[0]"),
            rule(None, None, "deny", "isolates ingress"),
        ]},
        {"kind": "endpoint_policy", "identity": 2, "egress": [], "ingress": []},
        {"kind": "service", "namespace": "shop", "name": "front",
            "backends": [
                {"address": "10.1.1.10", "port": 80, "pod": "shop/web"},
                {"address": "10.1.1.11", "port": 80, "pod": "shop/cart"}],
            "frontends": [
                {"address": "10.96.0.9", "protocol": 6, "port": 8000, "kind": "cluster-ip", "backends": [0]},
                {"address": "10.96.0.9", "protocol": 6, "port": 8001, "kind": "cluster-ip", "backends": []},
                {"address": null, "protocol": 6, "port": 30080, "kind": "node-port", "backends": [1]}]},
    ])
}

impl Rig {
    fn new() -> Self {
        let mut store = ObjectStore::default();
        let objects = serde_json::from_value(objects()).unwrap();
        store.upsert(1, objects).unwrap();
        let mut ports = Ports::default();
        ports.insert(port(0, PortKind::Pod, "web", &["10.1.1.10", "fd00::10"]));
        ports.insert(port(1, PortKind::Pod, "cart", &["10.1.1.11"]));
        ports.insert(port(2, PortKind::Node, "weft0p", &[]));
        ports.insert(port(3, PortKind::Uplink, "u0", &[]));
        let mut compiler = Compiler::default();
        let tables = compiler.tables(store.objects(), &ports);
        Self {
            objects: store,
            ports,
            compiler,
            tables,
            bench: Bench::new(BENCH_FRAMES).unwrap(),
        }
    }

    fn ask(&mut self, port: &str, packet: TracePacket) -> Result<Trace, ApiError> {
        let place = Place {
            ports: &self.ports,
            compiler: &self.compiler,
            tables: &self.tables,
            view: View::new(&self.objects, &self.ports, &self.tables, &self.compiler),
        };
        let question = TraceQuestion {
            port: port.into(),
            packet,
        };
        let traced = place.trace(&mut self.bench, &question, 1_000_000_000);
        assert_eq!(self.bench.free(), BENCH_FRAMES as usize, "no frame stays");
        traced.map(|(trace, _)| trace)
    }

    fn tcp(&mut self, port: &str, to: &str, to_port: u16) -> Trace {
        self.ask(port, TracePacket::Described(syn(to, to_port)))
            .unwrap()
    }
}

fn syn(destination: &str, destination_port: u16) -> PacketDescription {
    PacketDescription {
        protocol: 6,
        destination: destination.into(),
        source_port: 4000,
        destination_port,
        tcp_flags: 0x02,
        ..PacketDescription::default()
    }
}

fn text<'a>(way: &'a TraceWay, stage: &str) -> &'a str {
    let mut steps = way.steps.iter();
    let step = steps.find(|step| step.stage == stage);
    &step.unwrap_or_else(|| panic!("no {stage} in {way:?}")).text
}

#[test]
fn an_allowed_packet_is_told_from_port_to_port() {
    let way = Rig::new().tcp("shop/cart", "shop/web", 80).way;
    assert_eq!(way.verdict, TraceVerdict::Tx);
    assert_eq!(way.port, Some(PortName("web".into())));
    assert_eq!(
        text(&way, "parse"),
        "tcp 10.1.1.11:4000 > 10.1.1.10:80 [S], 54 bytes"
    );
    let says = "egress allowed, ingress allowed by NetworkPolicy shop/web ingress[0]";
    assert_eq!(text(&way, "policy"), says);
    assert_eq!(text(&way, "route"), "to local port web of shop/web");
    let says = "ttl 64 to 63, 02:77:65:66:74:01 > 02:00:00:00:00:00";
    assert_eq!(text(&way, "rewrite"), says);
    assert_eq!(way.text, "sent by web of shop/web");
}

#[test]
fn a_denied_packet_is_told_with_the_rule_and_goes_no_further() {
    let way = Rig::new().tcp("shop/cart", "10.1.1.10", 81).way;
    assert_eq!(way.reason.as_deref(), Some("policy-ingress"));
    assert_eq!(way.verdict, TraceVerdict::Drop);
    let says = "egress allowed, ingress denied by NetworkPolicy shop/web isolates ingress";
    assert_eq!(text(&way, "policy"), says);
    assert_eq!(way.steps.last().unwrap().stage, "policy");
}

#[test]
fn a_packet_for_a_service_is_told_with_its_backend() {
    let mut rig = Rig::new();
    let way = rig.tcp("shop/cart", "10.96.0.9", 8000).way;
    let says = "shop/front: tcp 10.1.1.11:4000 > 10.96.0.9:8000 [S] becomes tcp 10.1.1.11:4000 > 10.1.1.10:80 [S]";
    assert_eq!(text(&way, "service"), says);
    let says = "egress allowed, ingress allowed by NetworkPolicy shop/web ingress[0]";
    assert_eq!(text(&way, "policy"), says);
    assert_eq!(way.text, "sent by web of shop/web");
    let trace = rig.tcp("shop/cart", "10.96.0.9", 8001);
    assert_eq!(text(&trace.way, "service"), "dropped: no-backend");
    let says = "made tcp 10.96.0.9:8001 > 10.1.1.11:4000 [R.]: sent by cart of shop/cart";
    assert_eq!(trace.born[0].text, says);
}

#[test]
fn a_packet_for_nobody_is_told_with_its_icmp_error() {
    let trace = Rig::new().tcp("cart", "10.1.9.9", 80);
    assert_eq!(trace.way.reason.as_deref(), Some("no-endpoint"));
    assert_eq!(text(&trace.way, "route"), "dropped: no-endpoint");
    let [error] = &trace.born[..] else {
        panic!("{trace:?}")
    };
    assert_eq!(error.port, Some(PortName("cart".into())));
    let says = "made icmp 10.1.1.254 > 10.1.1.11: sent by cart of shop/cart";
    assert_eq!(error.text, says);
}

#[test]
fn the_way_to_another_node_and_back_is_told_with_the_tunnel() {
    let mut rig = Rig::new();
    let mut large = syn("10.1.2.5", 80);
    (large.tcp_flags, large.payload_bytes) = (0x18, 30_000);
    let way = rig.ask("cart", TracePacket::Described(large)).unwrap().way;
    assert_eq!(way.port, Some(PortName("u0".into())));
    assert_eq!(
        text(&way, "route"),
        "to node far, in packets of at most 1450 bytes"
    );
    let encap = text(&way, "encap");
    assert!(
        encap.starts_with("VXLAN vni 7, 192.0.2.1 > 192.0.2.2 by u0 to 52:00:"),
        "{encap}"
    );
    assert!(
        text(&way, "offload").contains(" packets, the first of "),
        "{way:?}"
    );
    let back = PacketDescription {
        source: Some("10.1.2.5".into()),
        from_node: Some("far".into()),
        ..syn("shop/cart", 80)
    };
    let way = rig.ask("u0", TracePacket::Described(back)).unwrap().way;
    let says = "from far through the tunnel: tcp 10.1.2.5:4000 > 10.1.1.11:80 [S], 54 bytes";
    assert_eq!(text(&way, "decap"), says);
    assert_eq!(way.verdict, TraceVerdict::Tx);
}

#[test]
fn a_client_outside_needs_no_node_to_send_it() {
    let mut rig = Rig::new();
    let asked = PacketDescription {
        source: Some("203.0.113.9".into()),
        ..syn("192.0.2.1", 30_080)
    };
    let way = rig.ask("u0", TracePacket::Described(asked)).unwrap().way;
    assert_eq!(text(&way, "decap"), "from outside the cluster to a service");
    let service = text(&way, "service");
    assert!(
        service.ends_with("becomes tcp 203.0.113.9:4000 > 10.1.1.11:80 [S]"),
        "{service}"
    );
    assert_eq!(way.port, Some(PortName("cart".into())));
}

#[test]
fn the_node_own_stack_is_told_apart() {
    let mut rig = Rig::new();
    let out = rig.tcp("cart", "198.51.100.7", 443).way;
    assert_eq!(out.verdict, TraceVerdict::Host);
    assert_eq!(
        text(&out, "route"),
        "out of the cluster, by the node's own stack"
    );
    let probe = rig.tcp("weft0", "shop/web", 81).way;
    assert_eq!(probe.verdict, TraceVerdict::Tx, "a node reaches its pods");
    assert!(text(&probe, "policy").ends_with("allowed: from the node itself"));
}

#[test]
fn every_protocol_that_can_be_described_is_a_packet_without_fault() {
    let mut rig = Rig::new();
    for (protocol, says) in [
        (17, "udp 10.1.1.10:4000 > 10.1.1.11:80, 42 bytes"),
        (132, "sctp 10.1.1.10:4000 > 10.1.1.11:80, 66 bytes"),
        (1, "icmp 10.1.1.10 > 10.1.1.11, 42 bytes"),
    ] {
        let packet = PacketDescription {
            protocol,
            ..syn("shop/cart", 80)
        };
        let way = rig.ask("web", TracePacket::Described(packet)).unwrap().way;
        assert_eq!(text(&way, "parse"), says);
        assert_eq!(way.verdict, TraceVerdict::Tx, "{way:?}");
    }
    let ping = PacketDescription {
        protocol: 1,
        ..syn("169.254.1.1", 0)
    };
    let trace = rig.ask("web", TracePacket::Described(ping)).unwrap();
    assert_eq!(
        text(&trace.way, "gateway"),
        "answered in the gateway's name"
    );
    assert_eq!(trace.way.port, Some(PortName("web".into())));
}

#[test]
fn a_frame_is_taken_as_it_is() {
    let mut rig = Rig::new();
    let frame = build::Packet::ip("10.1.1.99".parse().unwrap(), "10.1.1.10".parse().unwrap())
        .macs(
            weft_wire::MacAddr(CART_MAC.0),
            weft_wire::MacAddr(weft_api::GATEWAY_MAC.0),
        )
        .udp(1, 2)
        .build();
    let digits: Vec<String> = frame.iter().map(|it| format!("{it:02x}")).collect();
    let hex = digits.join(":");
    let way = rig.ask("cart", TracePacket::Frame { hex }).unwrap().way;
    assert_eq!(way.verdict, TraceVerdict::Drop, "it is not its address");
    assert_eq!(way.steps.last().unwrap().stage, "source");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut rig = Rig::new();
    let described = |change: &dyn Fn(&mut PacketDescription)| {
        let mut packet = syn("shop/web", 80);
        change(&mut packet);
        TracePacket::Described(packet)
    };
    let hex = |hex: &str| TracePacket::Frame { hex: hex.into() };
    for (port, packet, kind, says) in [
        (
            "none",
            described(&|_| ()),
            ErrorKind::NotFound,
            "no port none",
        ),
        (
            "cart",
            described(&|it| it.destination = "x/y".into()),
            ErrorKind::NotFound,
            "x/y",
        ),
        (
            "cart",
            described(&|it| it.destination = "fd00::10".into()),
            ErrorKind::BadRequest,
            "family",
        ),
        (
            "cart",
            described(&|it| it.protocol = 47),
            ErrorKind::BadRequest,
            "protocol 47",
        ),
        (
            "cart",
            described(&|it| it.payload_bytes = 70_000),
            ErrorKind::BadRequest,
            "65000",
        ),
        (
            "cart",
            described(&|it| it.from_node = Some("far".into())),
            ErrorKind::BadRequest,
            "no uplink",
        ),
        (
            "u0",
            described(&|it| it.source = Some("10.1.2.5".into())),
            ErrorKind::BadRequest,
            "which node",
        ),
        (
            "cart",
            hex("0277a"),
            ErrorKind::BadRequest,
            "5 hexadecimal digits",
        ),
        ("cart", hex("0x77"), ErrorKind::BadRequest, "'x'"),
        ("cart", hex(""), ErrorKind::BadRequest, "0 bytes"),
    ] {
        let refused = rig.ask(port, packet).unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
        assert!(refused.message.contains(says), "{says}: {refused}");
    }
}
