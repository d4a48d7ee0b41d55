//! Shortcuts by the tunnel: into it at the pod's port, out of it at the uplink.

use std::net::IpAddr;

use weft_xdp_progs::{Steering, TunnelFrame};

use super::*;

const VNI: u32 = 0x00ab_cdef;
const VXLAN_PORT: u16 = 4789;
const SOURCE_PORT: u16 = 50_001;
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const UPLINK: [u8; 6] = [2, 0, 0, 0, 2, 1];
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 2, 2];
const OWN_VTEP: [u8; 6] = [2, 0, 0, 0, 3, 1];
const OTHER_VTEP: [u8; 6] = [2, 0, 0, 0, 3, 2];
/// Of the tunnel packet: what is in front of the inner frame.
const FRONT: usize = 50;

fn node() -> Node {
    let mut node = Node::new();
    let steering = Steering {
        local_addresses: vec![OWN.into()],
        vni: VNI,
        vxlan_port: VXLAN_PORT,
        ..Steering::default()
    };
    node.programs.steer(&steering).unwrap();
    node
}

const fn frame_to(source: Ipv4Addr, destination: Ipv4Addr) -> TunnelFrame {
    TunnelFrame {
        source_mac: UPLINK,
        destination_mac: NEXT_HOP,
        source,
        destination,
        source_port: SOURCE_PORT,
        vxlan_port: VXLAN_PORT,
        vni: VNI,
    }
}

fn into_tunnel(node: &Node) -> Shortcut {
    Shortcut {
        to: Behind::Tunnel,
        tunnel: Some(frame_to(OWN, OTHER)),
        sender_mac: OWN_VTEP,
        peer_mac: OTHER_VTEP,
        ..node.shortcut()
    }
}

fn out_of_tunnel(node: &Node) -> Shortcut {
    Shortcut {
        tunnel: Some(frame_to(OTHER, OWN)),
        pod_mac: OTHER_VTEP,
        gateway_mac: OWN_VTEP,
        ..node.shortcut()
    }
}

/// Both families and protocols, as they come and as they go on: once as they are, once translated.
fn ways(node: &Node) -> Vec<(Way, Way)> {
    let mut all = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (way, (source, destination)) in [node.way4(), node.way6()].into_iter().zip(TRANSLATED) {
            let way = Way { protocol, ..way };
            let other = Way {
                protocol,
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            };
            all.extend([(way, way), (way, other)]);
        }
    }
    all
}

fn translated(way: &Way, there: &Way, shortcut: Shortcut) -> Shortcut {
    Shortcut {
        translation: (way != there).then_some((there.source, there.destination)),
        ..shortcut
    }
}

/// A frame in the tunnel.
fn tunnelled(frame: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0];
    payload.extend((VNI << 8).to_be_bytes());
    payload.extend(frame);
    let mut outer = Vec::new();
    PacketBuilder::ethernet2(UPLINK, NEXT_HOP)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(SOURCE_PORT, VXLAN_PORT)
        .write(&mut outer, &payload)
        .unwrap();
    outer[40..42].fill(0);
    outer
}

/// What the uplink sends into the pod; none of what is left to the dataplane.
fn received(node: &Node, frame: &[u8]) -> Option<Vec<u8>> {
    let result = node.run(Program::Uplink, frame);
    let verdict = result.verdict.unwrap();
    assert_eq!(result.action, Some(verdict.action()));
    if verdict == Verdict::UplinkShortcut {
        return Some(result.packet);
    }
    // It has no socket here.
    assert_eq!(verdict, Verdict::PassUnknownPort);
    assert_eq!(result.packet, frame);
    None
}

#[test]
fn what_goes_into_the_tunnel_is_as_the_dataplane_sends_it() {
    let node = node();
    for (way, there) in ways(&node) {
        let shortcut = translated(&way, &there, into_tunnel(&node));
        node.maps.set(&way, &shortcut).unwrap();
        for payload in [1, 7, PAYLOAD] {
            let frame = frame_of(&way, POD, GATEWAY, 64, payload);
            let inner = frame_of(&there, OWN_VTEP, OTHER_VTEP, 63, payload);
            let expected = tunnelled(&inner, OWN, OTHER);
            assert_eq!(node.sent(&frame).unwrap(), expected, "{way:?}");
        }
    }
}

#[test]
fn the_tunnel_packet_has_the_class_of_what_is_in_it() {
    let node = node();
    for way in [node.way4(), node.way6()] {
        node.maps.set(&way, &into_tunnel(&node)).unwrap();
        let mut frame = frame_of(&way, POD, GATEWAY, 64, 10);
        let class = 0xb6;
        match way.source.ip() {
            IpAddr::V4(_) => frame[15] = class,
            IpAddr::V6(_) => (frame[14], frame[15]) = (0x60 | class >> 4, class << 4),
        }
        assert_eq!(node.sent(&frame).unwrap()[15], class);
    }
}

#[test]
fn what_comes_by_the_tunnel_goes_into_the_pod() {
    let node = node();
    for (way, there) in ways(&node) {
        let shortcut = translated(&way, &there, out_of_tunnel(&node));
        node.maps.set(&way, &shortcut).unwrap();
        for payload in [1, 7, PAYLOAD] {
            let inner = frame_of(&way, OTHER_VTEP, OWN_VTEP, 64, payload);
            let expected = frame_of(&there, GATEWAY, PEER, 63, payload);
            let frame = tunnelled(&inner, OTHER, OWN);
            assert_eq!(received(&node, &frame).unwrap(), expected, "{way:?}");
        }
    }
    let taken = node.maps.take(PLACE);
    assert_eq!(taken.packets, ways(&node).len() as u64 * 3);
}

#[test]
fn a_datagram_without_checksum_comes_out_without() {
    let node = node();
    let (way, there) = ways(&node)
        .into_iter()
        .find(|(way, there)| way.protocol == Protocol::Udp && way != there)
        .unwrap();
    let shortcut = translated(&way, &there, out_of_tunnel(&node));
    node.maps.set(&way, &shortcut).unwrap();
    let mut inner = frame_of(&way, OTHER_VTEP, OWN_VTEP, 64, 10);
    inner[40..42].fill(0);
    let pod = received(&node, &tunnelled(&inner, OTHER, OWN)).unwrap();
    assert_eq!(pod[40..42], [0, 0]);
}

#[test]
fn all_else_from_the_tunnel_is_the_dataplanes() {
    let node = node();
    for way in [node.way4(), node.way6()] {
        node.maps.set(&way, &out_of_tunnel(&node)).unwrap();
        let inner = frame_of(&way, OTHER_VTEP, OWN_VTEP, 64, PAYLOAD);
        let frame = tunnelled(&inner, OTHER, OWN);
        assert!(received(&node, &frame).is_some());
        let transport = FRONT + if inner[14] >> 4 == 4 { 34 } else { 54 };
        // ECN and checksum of the outer packet, both inner MAC addresses, EtherType, addresses and ports,
        // the flags of TCP.
        let bytes = [
            15,
            40,
            55,
            61,
            63,
            transport - 1,
            transport + 1,
            transport + 3,
        ];
        for byte in bytes.into_iter().chain([transport + 13]) {
            let mut other = frame.clone();
            other[byte] ^= 1;
            assert_eq!(received(&node, &other), None, "byte {byte}");
        }
        let from_elsewhere = tunnelled(&inner, Ipv4Addr::new(192, 0, 2, 3), OWN);
        assert_eq!(received(&node, &from_elsewhere), None);
        let last_hop = frame_of(&way, OTHER_VTEP, OWN_VTEP, 1, PAYLOAD);
        assert_eq!(received(&node, &tunnelled(&last_hop, OTHER, OWN)), None);
        let mut padded = frame.clone();
        padded.push(0);
        assert_eq!(received(&node, &padded), None, "more than the headers say");
        let mut padded = inner.clone();
        padded.push(0);
        let padded = tunnelled(&padded, OTHER, OWN);
        assert_eq!(
            received(&node, &padded),
            None,
            "more than the inner ones say"
        );
    }
}

#[test]
fn a_shortcut_for_the_tunnel_holds_as_long_as_any() {
    let node = node();
    let way = node.way4();
    let frame = tunnelled(&frame_of(&way, OTHER_VTEP, OWN_VTEP, 64, 10), OTHER, OWN);
    let arrives = |shortcut: Shortcut| {
        node.maps.set(&way, &shortcut).unwrap();
        received(&node, &frame).is_some()
    };
    let good = out_of_tunnel(&node);
    assert!(arrives(good));
    assert!(!arrives(Shortcut { mtu: 49, ..good }));
    assert!(!arrives(Shortcut {
        ticket: TICKET + 1,
        ..good
    }));
    assert!(!arrives(Shortcut {
        rx_ifindex: common::index("up1"),
        ..good
    }));
    assert!(!arrives(into_tunnel(&node)), "that of the other direction");
    assert!(!arrives(node.shortcut()), "one without a tunnel");
    node.hold(EPOCH + 1, FOREVER);
    assert!(!arrives(good), "another version");
    node.hold(EPOCH, 1);
    assert!(!arrives(good), "the dataplane is gone");
}

#[test]
fn a_tunnel_is_said_where_it_is_needed_alone() {
    let node = node();
    for (to, tunnel) in [
        (Behind::Tunnel, None),
        (Behind::Node, Some(frame_to(OTHER, OWN))),
    ] {
        let shortcut = Shortcut {
            to,
            tunnel,
            ..node.shortcut()
        };
        assert!(node.maps.set(&node.way4(), &shortcut).is_err());
    }
}
