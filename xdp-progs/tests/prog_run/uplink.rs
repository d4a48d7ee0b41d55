//! The uplink program: what is ours, and what is left to the kernel.

use std::net::Ipv4Addr;

use weft_xdp_progs::{Frontend, Program, Verdict};

use crate::node::*;
use crate::packets::*;

#[test]
fn vxlan_to_us_is_taken_on_every_queue() {
    let node = Node::new(4);
    for queue in 0..4 {
        for frame in both(|v| v.vxlan(VNI)) {
            node.expect(Program::Uplink, queue, &frame, Verdict::UplinkVxlan);
        }
    }
}

#[test]
fn vxlan_behind_ipv4_options_is_taken() {
    let node = Node::new(1);
    for options in [4, 20, 40] {
        let frame = with_options(&V4.vxlan(VNI), options);
        node.expect(Program::Uplink, 0, &frame, Verdict::UplinkVxlan);
    }
}

#[test]
fn vxlan_of_many_buffers_is_taken() {
    let node = Node::new(1);
    for frame in both(|v| {
        v.udp(
            v.peer(),
            v.us(),
            VXLAN_PORT,
            &vxlan_payload(0x0800_0000, VNI, 8900),
        )
    }) {
        node.expect(Program::Uplink, 0, &frame, Verdict::UplinkVxlan);
    }
}

#[test]
fn too_big_errors_that_quote_our_tunnel_are_taken() {
    let node = Node::new(1);
    for frame in both(|v| v.too_big(&v.quote(v.us(), VXLAN_PORT))) {
        node.expect(Program::Uplink, 0, &frame, Verdict::UplinkTooBig);
    }
    let quoted_with_options =
        V4.too_big(&with_options(&V4.quote_frame(V4.us(), VXLAN_PORT), 24)[14..]);
    node.expect(
        Program::Uplink,
        0,
        &quoted_with_options,
        Verdict::UplinkTooBig,
    );
}

#[test]
fn routed_pod_prefixes_are_taken_whatever_the_protocol() {
    let node = Node::new(1);
    for (to4, to6) in [(ROUTED4, ROUTED6), ([10, 64, 255, 1], ROUTED6)] {
        node.expect(
            Program::Uplink,
            0,
            &udp4(STRANGER4, to4, 53, &[]),
            Verdict::UplinkRouted,
        );
        node.expect(
            Program::Uplink,
            0,
            &udp6(STRANGER6, to6, 53, &[]),
            Verdict::UplinkRouted,
        );
    }
    node.expect(
        Program::Uplink,
        0,
        &fragment4(STRANGER4, ROUTED4, 8, false),
        Verdict::UplinkRouted,
    );
    node.expect(
        Program::Uplink,
        0,
        &fragment6(STRANGER6, ROUTED6),
        Verdict::UplinkRouted,
    );
}

/// Service and node port, with the frame's bytes of either family.
fn to_service(family: Family, to_node: bool, protocol: u8, port: u16) -> Vec<u8> {
    let mut frame = match (family, to_node) {
        (V4, true) => udp4(STRANGER4, US4, port, &[0; 64]),
        (V4, false) => udp4(STRANGER4, SERVICE4, port, &[0; 64]),
        (V6, true) => udp6(STRANGER6, US6, port, &[0; 64]),
        (V6, false) => udp6(STRANGER6, SERVICE6, port, &[0; 64]),
    };
    // The ports are in the same place of all three protocols.
    frame[14 + if family == V4 { 9 } else { 6 }] = protocol;
    frame
}

#[test]
fn packets_to_a_service_are_taken_by_address_protocol_and_port() {
    let node = Node::new(1);
    for family in [V4, V6] {
        for protocol in [TCP, UDP, SCTP] {
            let taken = |to_node, port, verdict| {
                let frame = to_service(family, to_node, protocol, port);
                node.expect(Program::Uplink, 0, &frame, verdict);
            };
            taken(false, 80, Verdict::UplinkService);
            taken(true, NODE_PORT, Verdict::UplinkService);
            taken(false, 443, Verdict::PassNotOurs);
            taken(false, NODE_PORT, Verdict::PassNotOurs);
            taken(true, 80, Verdict::PassNode);
            taken(true, 22, Verdict::PassNode);
        }
        // Another protocol has no ports, whatever is in their place.
        let other = to_service(family, true, 47, NODE_PORT);
        node.expect(Program::Uplink, 0, &other, Verdict::PassNode);
    }
}

#[test]
fn fragments_are_taken_where_the_address_is_of_services_alone() {
    let node = Node::new(1);
    for (offset, more) in [(0, true), (185, false)] {
        let frame = fragment4(STRANGER4, SERVICE4, offset, more);
        node.expect(Program::Uplink, 0, &frame, Verdict::UplinkServiceFragment);
        let frame = fragment4(STRANGER4, US4, offset, more);
        node.expect(Program::Uplink, 0, &frame, Verdict::PassFragment);
        let frame = fragment4(STRANGER4, PEER4, offset, more);
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNotOurs);
    }
    let frame = fragment6(STRANGER6, SERVICE6);
    node.expect(Program::Uplink, 0, &frame, Verdict::UplinkServiceFragment);
}

/// Source, destination, offset in eights of bytes, identification and port (of the first).
pub fn fragment(family: Family, from_stranger: bool, offset: u16, id: u16, port: u16) -> Vec<u8> {
    let (from, more) = (usize::from(!from_stranger), offset == 0);
    let mut frame = if family == V4 {
        fragment4([STRANGER4, PEER4][from], US4, offset, more)
    } else {
        fragment6([STRANGER6, PEER6][from], US6)
    };
    let ip = 14 + family.ip_len();
    let upper = if family == V4 {
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        ip
    } else {
        let offset_and_more = offset << 3 | u16::from(more);
        frame[ip + 2..ip + 4].copy_from_slice(&offset_and_more.to_be_bytes());
        frame[ip + 6..ip + 8].copy_from_slice(&id.to_be_bytes());
        ip + 8
    };
    frame[upper + 2..upper + 4].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn fragments_to_a_node_port_follow_their_first() {
    let node = Node::new(1);
    for family in [V4, V6] {
        let expect = |(from_stranger, offset, id, port), verdict| {
            let frame = fragment(family, from_stranger, offset, id, port);
            node.expect(Program::Uplink, 0, &frame, verdict);
        };
        // Ports in a later one are payload.
        expect((true, 185, 7, NODE_PORT), Verdict::PassFragment);
        expect((true, 0, 7, NODE_PORT), Verdict::UplinkServiceFragment);
        expect((true, 185, 7, 9), Verdict::UplinkServiceFragment);
        expect((true, 370, 7, 9), Verdict::UplinkServiceFragment);
        expect((true, 185, 8, NODE_PORT), Verdict::PassFragment);
        expect((false, 185, 7, NODE_PORT), Verdict::PassFragment);
        // The next datagram of that number is the node's own.
        expect((true, 0, 7, 22), Verdict::PassFragment);
        expect((true, 185, 7, 9), Verdict::PassFragment);
        let whole = fragment(family, true, 0, 7, NODE_PORT);
        let upper = 14 + family.ip_len() + if family == V4 { 0 } else { 8 };
        for len in upper - usize::from(family == V6)..upper + 4 {
            node.expect(Program::Uplink, 0, &whole[..len], Verdict::PassShort);
        }
    }
}

/// An ICMP error of this type about what we sent from a port to port 40,000 of the peer.
pub fn about(family: Family, kind: u8, source_port: u16) -> Vec<u8> {
    let mut quote = family.quote(family.us(), 40_000);
    let ports = family.ip_len();
    quote[ports..ports + 2].copy_from_slice(&source_port.to_be_bytes());
    let mut frame = family.too_big(&quote);
    frame[14 + family.ip_len()] = kind;
    frame
}

#[test]
fn errors_about_what_a_service_sent_are_taken_and_others_pass() {
    let node = Node::new(1);
    for family in [V4, V6] {
        let kinds: &[u8] = if family == V4 {
            &[3, 11, 12]
        } else {
            &[1, 2, 3, 4]
        };
        for kind in kinds {
            let expect = |port, verdict| {
                let frame = about(family, *kind, port);
                node.expect(Program::Uplink, 0, &frame, verdict);
            };
            expect(NODE_PORT, Verdict::UplinkServiceError);
            expect(22, Verdict::PassOtherQuote);
        }
    }
    // Addressed to us, but about what somebody else sent.
    let mut quote = V4.quote(V4.peer(), 40_000);
    quote[20..22].copy_from_slice(&NODE_PORT.to_be_bytes());
    let frame = V4.too_big(&quote);
    node.expect(Program::Uplink, 0, &frame, Verdict::PassOtherQuote);
}

#[test]
fn a_ping_of_a_service_passes() {
    let node = Node::new(1);
    let mut frame = V4.echo();
    frame[30..34].copy_from_slice(&SERVICE4);
    node.expect(Program::Uplink, 0, &frame, Verdict::PassNotOurs);
}

#[test]
fn the_tunnel_comes_before_a_service_on_its_port() {
    let mut node = Node::new(1);
    let mut steering = steering();
    steering.frontends.push(Frontend {
        address: Ipv4Addr::from(US4).into(),
        protocol: UDP,
        port: VXLAN_PORT,
    });
    node.programs.steer(&steering).unwrap();
    node.expect(Program::Uplink, 0, &V4.vxlan(VNI), Verdict::UplinkVxlan);
    node.expect(
        Program::Uplink,
        0,
        &V4.vxlan(VNI + 1),
        Verdict::PassForeignVni,
    );
}

// ---- uplink program: left to the kernel

#[test]
fn short_frames_pass() {
    let node = Node::new(1);
    let too_big4 = V4.too_big(&V4.quote(V4.us(), VXLAN_PORT));
    let too_big6 = V6.too_big(&V6.quote(V6.us(), VXLAN_PORT));
    // Every length from the Ethernet header to one byte before the last header that is read.
    for (frame, last) in [
        (V4.vxlan(VNI), 14 + 20 + 8 + 8),
        (V6.vxlan(VNI), 14 + 40 + 8 + 8),
        (too_big4, 14 + 20 + 8 + 20 + 8),
        (too_big6, 14 + 40 + 8 + 40 + 8),
    ] {
        for len in 14..last {
            node.expect(Program::Uplink, 0, &frame[..len], Verdict::PassShort);
        }
        let whole = node.run(Program::Uplink, 0, &frame[..last]);
        assert_ne!(whole, Verdict::PassShort);
    }
    // Options announced, but not there.
    let options = with_options(&V4.vxlan(VNI), 40);
    node.expect(
        Program::Uplink,
        0,
        &options[..14 + 20 + 39],
        Verdict::PassShort,
    );
}

#[test]
fn vlan_tagged_frames_pass() {
    let node = Node::new(1);
    for frame in both(|v| v.vxlan(VNI)) {
        let tagged = vlan(&frame);
        node.expect(Program::Uplink, 0, &tagged, Verdict::PassVlan);
        let mut service_tagged = vlan(&tagged);
        service_tagged[12..14].copy_from_slice(&[0x88, 0xa8]);
        node.expect(Program::Uplink, 0, &service_tagged, Verdict::PassVlan);
    }
}

#[test]
fn other_ethertypes_pass() {
    let node = Node::new(1);
    node.expect(Program::Uplink, 0, &arp(), Verdict::PassNotIp);
    let mut length_field = V4.vxlan(VNI);
    length_field[12..14].copy_from_slice(&[0x00, 0x26]);
    node.expect(Program::Uplink, 0, &length_field, Verdict::PassNotIp);
}

#[test]
fn nonsense_versions_and_lengths_pass() {
    let node = Node::new(1);
    for first_byte in [0x40, 0x44, 0x55, 0x05] {
        let mut frame = V4.vxlan(VNI);
        frame[14] = first_byte;
        node.expect(Program::Uplink, 0, &frame, Verdict::PassBadHeader);
    }
    let mut frame = V6.vxlan(VNI);
    frame[14] = 0x45;
    node.expect(Program::Uplink, 0, &frame, Verdict::PassBadHeader);
    // The same inside the quote of an error.
    let mut quote = V4.too_big(&V4.quote(V4.us(), VXLAN_PORT));
    quote[14 + 20 + 8] = 0x41;
    node.expect(Program::Uplink, 0, &quote, Verdict::PassBadHeader);
    let mut quote = V6.too_big(&V6.quote(V6.us(), VXLAN_PORT));
    quote[14 + 40 + 8] = 0x45;
    node.expect(Program::Uplink, 0, &quote, Verdict::PassBadHeader);
}

#[test]
fn traffic_to_other_addresses_passes() {
    let node = Node::new(1);
    for frame in both(|v| {
        v.udp(
            v.us(),
            v.peer(),
            VXLAN_PORT,
            &vxlan_payload(0x0800_0000, VNI, 60),
        )
    }) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNotOurs);
    }
    // One address beside the routed prefix.
    node.expect(
        Program::Uplink,
        0,
        &udp4(STRANGER4, [10, 65, 0, 0], 53, &[]),
        Verdict::PassNotOurs,
    );
}

#[test]
fn traffic_to_the_node_itself_passes() {
    let node = Node::new(1);
    for frame in both(|v| v.udp(v.peer(), v.us(), 53, &[0; 64])) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNode);
    }
    for frame in both(|v| v.tcp(22)) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNode);
    }
    // ICMP that is no "too big" error: an echo request, and another unreachable.
    for frame in both(Family::echo) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNode);
    }
    for (family, unreachable) in [(V4, [3, 3]), (V6, [1, 4])] {
        let mut frame = family.too_big(&family.quote(family.us(), VXLAN_PORT));
        let icmp = 14 + family.ip_len();
        frame[icmp..icmp + 2].copy_from_slice(&unreachable);
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNode);
    }
}

#[test]
fn vxlan_behind_ipv6_extension_headers_passes() {
    let node = Node::new(1);
    let mut frame = V6.vxlan(VNI);
    // Eight bytes of hop-by-hop options (RFC 8200 section 4.3): next header UDP, PadN.
    frame[14 + 6] = 0;
    frame.splice(14 + 40..14 + 40, [17, 0, 1, 4, 0, 0, 0, 0]);
    node.expect(Program::Uplink, 0, &frame, Verdict::PassNode);
}

#[test]
fn outer_fragments_pass() {
    let node = Node::new(1);
    node.expect(
        Program::Uplink,
        0,
        &fragment4(PEER4, US4, 0, true),
        Verdict::PassFragment,
    );
    node.expect(
        Program::Uplink,
        0,
        &fragment4(PEER4, US4, 185, false),
        Verdict::PassFragment,
    );
    node.expect(
        Program::Uplink,
        0,
        &fragment6(PEER6, US6),
        Verdict::PassFragment,
    );
}

#[test]
fn a_foreign_vni_passes() {
    let node = Node::new(1);
    for vni in [0, VNI + 1, VNI | 0x80_0000, 0xff_ffff] {
        for frame in both(|v| v.vxlan(vni)) {
            node.expect(Program::Uplink, 0, &frame, Verdict::PassForeignVni);
        }
    }
}

#[test]
fn vxlan_without_the_vni_flag_passes() {
    let node = Node::new(1);
    for frame in both(|v| v.udp(v.peer(), v.us(), VXLAN_PORT, &vxlan_payload(0, VNI, 60))) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassForeignVni);
    }
}

#[test]
fn errors_about_other_packets_pass() {
    let node = Node::new(1);
    for family in [V4, V6] {
        for quote in [
            family.quote(family.us(), 53),
            family.quote(family.peer(), VXLAN_PORT),
            family.tcp(VXLAN_PORT)[14..].to_vec(),
        ] {
            let frame = family.too_big(&quote);
            node.expect(Program::Uplink, 0, &frame, Verdict::PassOtherQuote);
        }
    }
    // A later fragment of ours holds no UDP header where one would be read.
    let mut quote = V4.quote(V4.us(), VXLAN_PORT);
    quote[7] = 1;
    node.expect(
        Program::Uplink,
        0,
        &V4.too_big(&quote),
        Verdict::PassOtherQuote,
    );
}

#[test]
fn ours_without_socket_passes() {
    let mut node = Node::new(4);
    node.close(2);
    for frame in both(|v| v.vxlan(VNI)) {
        node.expect(Program::Uplink, 2, &frame, Verdict::PassNoSocket);
        node.expect(Program::Uplink, 3, &frame, Verdict::UplinkVxlan);
    }
}

#[test]
fn ours_on_an_unknown_interface_passes() {
    let node = Node::new(1);
    node.programs.clear_port(node.ifindex).unwrap();
    for frame in both(|v| v.vxlan(VNI)) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassUnknownPort);
    }
}
