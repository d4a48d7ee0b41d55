//! VXLAN both ways, over both families.

use weft_engine::testbed::*;
use weft_engine::{DropReason, Tables};
use weft_wire::build::Packet;
use weft_wire::{EtherType, MacAddr, UdpHeader, VxlanHeader};

use crate::{dropped, is_intact, layers, macs, sent, v4, v6};

fn encapsulated(bed: &mut Testbed, inner: &Packet) -> Vec<u8> {
    let out = bed.one(A, inner);
    sent(&out, UPLINK).to_vec()
}

#[test]
fn a_packet_to_another_node_over_ipv4_carries_its_headers() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.1.10", "10.1.2.20"), ("fd00:1:1::10", "fd00:1:2::20")] {
        let inner = packet(source, destination)
            .tcp(4000, 80)
            .payload_len(100)
            .traffic_class(0xb8);
        let frame = encapsulated(&mut bed, &inner);
        assert_eq!(macs(&frame), (UPLINK_MAC, NEXT_HOP_MAC));
        let outer = v4(&frame);
        assert_eq!(
            (outer.source().to_string(), outer.destination().to_string()),
            ("192.0.2.1".into(), "192.0.2.2".into())
        );
        assert!(
            outer.dont_fragment() && outer.tos() == 0xb8 && outer.ttl() == 64 && is_intact(&frame)
        );
        assert_eq!(usize::from(outer.total_len()), frame.len() - 14);
        let (udp, _) = UdpHeader::parse(&frame[34..]).unwrap();
        assert_eq!((udp.destination_port(), udp.checksum()), (4789, 0));
        assert!(udp.source_port() >= 49_152 && usize::from(udp.total_len()) == frame.len() - 34);
        let (tunnel, _) = VxlanHeader::parse(&frame[42..]).unwrap();
        assert_eq!(tunnel.vni().get(), VNI);
        assert_eq!(
            frame[50..],
            inner.macs(VTEP4_MAC, FOUR_MAC).hops(63).build()
        );
    }
}

#[test]
fn a_packet_to_another_node_over_ipv6_has_a_right_outer_checksum() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.1.10", "10.1.3.20"), ("fd00:1:1::10", "fd00:1:3::20")] {
        for len in [0, 1, 100, 1301] {
            let inner = packet(source, destination)
                .udp(4000, 80)
                .payload_len(len)
                .traffic_class(0x03);
            let frame = encapsulated(&mut bed, &inner);
            let outer = v6(&frame);
            assert_eq!(
                (outer.source().to_string(), outer.destination().to_string()),
                ("2001:db8::1".into(), "2001:db8::3".into())
            );
            assert_eq!(
                (outer.traffic_class(), outer.total_len()),
                (0x03, frame.len() - 14)
            );
            assert_ne!(outer.flow_label(), 0);
            assert_eq!(layers(&frame).transport_is_valid(&frame), Some(true));
            assert_ne!(UdpHeader::parse(&frame[54..]).unwrap().0.checksum(), 0);
            assert_eq!(frame[70..], inner.macs(VTEP6_MAC, SIX_MAC).hops(63).build());
        }
    }
}

#[test]
fn the_outer_source_port_follows_the_flow() {
    let mut bed = Testbed::new();
    let mut port = |inner: Packet| {
        UdpHeader::parse(&encapsulated(&mut bed, &inner)[34..])
            .unwrap()
            .0
            .source_port()
    };
    let flow = |port| packet("10.1.1.10", "10.1.2.20").udp(port, 80);
    let first = port(flow(4000));
    assert_eq!(port(flow(4000).payload_len(700)), first);
    let others: std::collections::HashSet<_> = (4001..4033).map(|p| port(flow(p))).collect();
    assert!(others.len() > 28, "{}", others.len());
}

#[test]
fn a_node_without_a_way_is_not_reached() {
    let mut bed = Testbed::new();
    bed.change(|builder| builder.set_path(FOUR, None, FOUR_MTU));
    let out = bed.one(A, &packet("10.1.1.10", "10.1.2.20").udp(1, 2));
    assert_eq!(dropped(&out), DropReason::NoNeighbour);
    bed.change(|builder| builder.remove_remote(FOUR));
    let ran = bed.run(&[(A, packet("10.1.1.10", "10.1.2.20").udp(1, 2).build())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::NoEndpoint);
}

#[test]
fn tunnelled_packets_arrive_as_they_were_sent() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.2.20", "10.1.1.10"), ("fd00:1:2::20", "fd00:1:1::10")] {
        let inner = packet(source, destination).tcp(80, 4000).payload_len(1000);
        let out = bed.one(UPLINK, &from_four(&inner));
        assert_eq!(
            sent(&out, A),
            inner.clone().macs(GATEWAY_MAC, A_MAC).hops(63).build()
        );
    }
    for (source, destination) in [("10.1.3.20", "10.1.1.10"), ("fd00:1:3::20", "fd00:1:1::10")] {
        let inner = packet(source, destination).tcp(80, 4000).payload_len(1000);
        let out = bed.one(UPLINK, &from_six(&inner));
        assert_eq!(
            sent(&out, A),
            inner.clone().macs(GATEWAY_MAC, A_MAC).hops(63).build()
        );
    }
    // A node and the pods of another: both ways through the tunnel, no hop at the node itself.
    let inner = packet("10.1.2.20", "192.0.2.1").tcp(80, 4000);
    let out = bed.one(UPLINK, &from_four(&inner));
    assert_eq!(sent(&out, NODE), inner.macs(GATEWAY_MAC, NODE_MAC).build());
    let inner = packet("10.1.1.10", "192.0.2.2").tcp(80, 4000);
    assert_eq!(
        encapsulated(&mut bed, &inner)[50..],
        inner.macs(VTEP4_MAC, FOUR_MAC).hops(63).build()
    );
    let inner = packet("192.0.2.1", "10.1.2.20")
        .macs(NODE_MAC, GATEWAY_MAC)
        .tcp(80, 4000);
    let out = bed.one(NODE, &inner);
    assert_eq!(
        sent(&out, UPLINK)[50..],
        inner.macs(VTEP4_MAC, FOUR_MAC).build()
    );
}

#[test]
fn a_tunnel_packet_in_many_frames_arrives_whole() {
    let mut bed = Testbed::new();
    bed.change(|builder| builder.set_path(SIX, bed_path(), 8930));
    let inner = packet("fd00:1:3::20", "fd00:1:1::10")
        .tcp(80, 4000)
        .payload_len(8801);
    for pieces in [vec![], vec![200, 101, 333], vec![160]] {
        bed.pieces = pieces;
        let out = bed.one(UPLINK, &from_six(&inner));
        assert_eq!(
            sent(&out, A),
            inner.clone().macs(GATEWAY_MAC, A_MAC).hops(63).build()
        );
    }
    bed.pieces = vec![100];
    assert_eq!(
        dropped(&bed.one(UPLINK, &from_six(&inner))),
        DropReason::HeadersSplit
    );
    bed.pieces = vec![70];
    assert_eq!(
        dropped(&bed.one(UPLINK, &from_six(&inner))),
        DropReason::VxlanMalformed
    );
}

fn bed_path() -> Option<weft_engine::OuterPath> {
    let tables: Tables = Testbed::tables_of_topology();
    tables.remote(SIX).unwrap().path
}

#[test]
fn ecn_follows_rfc_6040_on_the_way_out_of_the_tunnel() {
    let mut bed = Testbed::new();
    for (inner, outer, merged) in [
        (0, 0, Some(0)),
        (0, 1, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (1, 0, Some(1)),
        (1, 1, Some(1)),
        (1, 2, Some(1)),
        (1, 3, Some(3)),
        (2, 0, Some(2)),
        (2, 1, Some(1)),
        (2, 2, Some(2)),
        (2, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ] {
        for (source, destination) in [("10.1.2.20", "10.1.1.10"), ("fd00:1:2::20", "fd00:1:1::10")]
        {
            let packet = packet(source, destination)
                .udp(1, 2)
                .traffic_class(0x28 | inner);
            let out = bed.one(UPLINK, &from_four(&packet).traffic_class(0xb8 | outer));
            match merged {
                Some(ecn) => {
                    let expected = packet
                        .macs(GATEWAY_MAC, A_MAC)
                        .hops(63)
                        .traffic_class(0x28 | ecn)
                        .build();
                    assert_eq!(sent(&out, A), expected);
                }
                None => assert_eq!(dropped(&out), DropReason::EcnIllegal),
            }
        }
    }
}

#[test]
fn only_our_clusters_intact_vxlan_is_taken() {
    let mut bed = Testbed::new();
    let inner = packet("10.1.2.20", "10.1.1.10").udp(1, 2);
    let inner6 = packet("10.1.3.20", "10.1.1.10").udp(1, 2);
    let to_us = inner.clone().macs(FOUR_MAC, VTEP4_MAC).build();
    let outer = |source: &str, destination: &str| {
        Packet::ip(ip(source), ip(destination)).macs(NEXT_HOP_MAC, UPLINK_MAC)
    };
    let foreign_mac = inner.clone().macs(FOUR_MAC, VTEP6_MAC).build();
    let tagged = inner.clone().macs(FOUR_MAC, VTEP4_MAC).vlan(7).build();
    let arp = Packet::arp(
        weft_wire::ArpOperation::REPLY,
        (FOUR_MAC, [10, 1, 2, 20].into()),
        (VTEP4_MAC, [10, 1, 1, 10].into()),
    );
    for (packet, reason) in [
        (
            outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI + 1), &to_us),
            DropReason::VniForeign,
        ),
        (
            outer("192.0.2.9", "192.0.2.1").vxlan(50_000, vni(VNI), &to_us),
            DropReason::VtepUnknown,
        ),
        (
            outer("192.0.2.2", "192.0.2.8").vxlan(50_000, vni(VNI), &to_us),
            DropReason::UnderlayUnexpected,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI), &foreign_mac),
            DropReason::InnerMac,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI), &tagged),
            DropReason::VlanTagged,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI), &arp.build()),
            DropReason::EtherType,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI), &[]),
            DropReason::VxlanMalformed,
        ),
        (
            outer("192.0.2.2", "192.0.2.1")
                .udp(1, 4789)
                .payload(&[0; 60]),
            DropReason::VxlanMalformed,
        ),
        (
            outer("192.0.2.2", "192.0.2.1")
                .udp(1, 4789)
                .payload(&[8; 3]),
            DropReason::VxlanMalformed,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").udp(1, 53),
            DropReason::UnderlayUnexpected,
        ),
        (
            outer("192.0.2.2", "192.0.2.1").tcp(1, 4789),
            DropReason::UnderlayUnexpected,
        ),
        (
            from_four(&inner).wrong_checksum(),
            DropReason::OuterChecksum,
        ),
        (from_six(&inner6).no_checksum(), DropReason::OuterChecksum),
        (
            from_six(&inner6).wrong_checksum(),
            DropReason::OuterChecksum,
        ),
        (
            from_four(&inner).macs(NEXT_HOP_MAC, A_MAC),
            DropReason::DestinationMac,
        ),
        (
            Packet::other(EtherType(0x88cc)).macs(NEXT_HOP_MAC, UPLINK_MAC),
            DropReason::EtherType,
        ),
    ] {
        assert_eq!(dropped(&bed.one(UPLINK, &packet)), reason, "{packet:?}");
    }
    let with_checksum = outer("192.0.2.2", "192.0.2.1").vxlan(50_000, vni(VNI), &to_us);
    sent(&bed.one(UPLINK, &with_checksum), A);
    // The XDP program leaves those behind it to the kernel.
    let first = from_four(&inner.clone().payload_len(900)).build_fragments(600);
    let out = bed.bytes(UPLINK, first[0].clone());
    assert_eq!(dropped(&out), DropReason::OuterFragment);
}

#[test]
fn a_flipped_bit_of_the_wire_never_counts_as_a_partial_checksum() {
    let mut bed = Testbed::new();
    // A datagram whose checksum field equals the pseudo-header's sum, as corruption could make it.
    let inner = packet("10.1.2.20", "10.1.1.10")
        .udp(1, 2)
        .payload_len(32)
        .checksum(weft_wire::ChecksumField::Partial);
    let out = bed.one(UPLINK, &from_four(&inner));
    assert_eq!(out.checksum, weft_engine::Checksum::None);
    assert_eq!(
        sent(&out, A),
        inner.macs(GATEWAY_MAC, A_MAC).hops(63).build()
    );
}

#[test]
fn tunnel_packets_for_elsewhere_are_not_passed_on() {
    let mut bed = Testbed::new();
    for destination in ["10.1.3.20", "10.1.2.21", "198.51.100.7", "192.0.2.2"] {
        let out = bed.one(
            UPLINK,
            &from_four(&packet("10.1.2.20", destination).udp(1, 2)),
        );
        assert_eq!(dropped(&out), DropReason::Transit, "{destination}");
    }
    let out = bed.one(
        UPLINK,
        &from_four(&packet("fd00:1:2::20", "2001:db8:99::1").udp(1, 2)),
    );
    assert_eq!(dropped(&out), DropReason::Transit);
}

#[test]
fn uplinks_of_unknown_mac_take_every_unicast_frame() {
    let mut bed = Testbed::new();
    bed.change_port(UPLINK, |port| port.mac = MacAddr::ZERO);
    let inner = packet("10.1.2.20", "10.1.1.10").udp(1, 2);
    sent(
        &bed.one(UPLINK, &from_four(&inner).macs(NEXT_HOP_MAC, A_MAC)),
        A,
    );
}
