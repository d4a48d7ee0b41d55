//! The pods' gateway: ARP, neighbour discovery, ping.

use weft_engine::DropReason;
use weft_engine::testbed::*;
use weft_wire::build::Packet;
use weft_wire::icmp::{v4 as icmp4, v6 as icmp6};
use weft_wire::neighbour::solicited_node;
use weft_wire::{ArpOperation, ArpPacket, IcmpHeader, MacAddr, NeighbourAdvertisement, Protocol};

use crate::{dropped, is_intact, layers, macs, sent, v4, v6};

const GATEWAY4: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

fn who_has(sender: &str, target: &str) -> Packet {
    let (sender, target) = (sender.parse().unwrap(), target.parse().unwrap());
    Packet::arp(
        ArpOperation::REQUEST,
        (A_MAC, sender),
        (MacAddr::ZERO, target),
    )
}

#[test]
fn arp_for_the_gateway_is_answered_from_broadcast_and_unicast() {
    let mut bed = Testbed::new();
    for asked in [
        who_has("10.1.1.10", GATEWAY4),
        who_has("0.0.0.0", GATEWAY4),
        who_has("10.1.1.10", GATEWAY4).macs(A_MAC, GATEWAY_MAC),
    ] {
        let mut padded = asked.build();
        padded.resize(60, 0);
        let out = bed.bytes(A, padded);
        assert_eq!(macs(sent(&out, A)), (GATEWAY_MAC, A_MAC));
        let (reply, _) = ArpPacket::parse(&out.bytes[14..]).unwrap();
        assert_eq!(reply.operation(), ArpOperation::REPLY);
        assert_eq!(
            (reply.sender_mac(), reply.sender_ip().to_string()),
            (GATEWAY_MAC, GATEWAY4.into())
        );
        assert_eq!(reply.target_mac(), A_MAC);
    }
}

#[test]
fn all_other_arp_is_dropped() {
    let mut bed = Testbed::new();
    let gratuitous = Packet::arp(
        ArpOperation::REPLY,
        (A_MAC, [169, 254, 1, 1].into()),
        (MacAddr::BROADCAST, [169, 254, 1, 1].into()),
    );
    for (packet, reason) in [
        (who_has("10.1.1.10", "10.1.1.11"), DropReason::ArpUnanswered),
        (gratuitous, DropReason::ArpUnanswered),
        (who_has("10.1.1.11", GATEWAY4), DropReason::SourceAddress),
        (
            who_has("10.1.1.10", GATEWAY4).macs(B_MAC, MacAddr::BROADCAST),
            DropReason::SourceMac,
        ),
    ] {
        assert_eq!(dropped(&bed.one(A, &packet)), reason);
    }
    let out = bed.one(UPLINK, &who_has("10.1.1.10", GATEWAY4));
    assert_eq!(dropped(&out), DropReason::UnderlayUnexpected);
}

fn solicit(source: &str, target: &str) -> Packet {
    let target = target.parse().unwrap();
    let group = solicited_node(target);
    Packet::ipv6(source.parse().unwrap(), group)
        .macs(A_MAC, MacAddr::of_ipv6_multicast(group))
        .neighbour_solicitation(target)
}

#[test]
fn solicitations_of_the_gateway_are_answered() {
    let mut bed = Testbed::new();
    let unicast =
        packet("fd00:1:1::10", GATEWAY6).neighbour_solicitation(GATEWAY6.parse().unwrap());
    for (asked, to) in [
        (solicit("fd00:1:1::10", GATEWAY6), Some("fd00:1:1::10")),
        (solicit("fe80::52:1", GATEWAY6), Some("fe80::52:1")),
        (unicast, Some("fd00:1:1::10")),
        (solicit("::", GATEWAY6), None),
    ] {
        let out = bed.one(A, &asked);
        let frame = sent(&out, A);
        let ip6 = v6(frame);
        assert_eq!(ip6.destination().to_string(), to.unwrap_or("ff02::1"));
        assert_eq!(
            (ip6.source().to_string(), ip6.hop_limit()),
            (GATEWAY6.into(), 255)
        );
        let (answer, _) = NeighbourAdvertisement::parse(&frame[54..]).unwrap();
        assert_eq!(answer.target().to_string(), GATEWAY6);
        assert_eq!(answer.flags().solicited, to.is_some());
        assert!(frame.ends_with(&GATEWAY_MAC.0) && is_intact(frame));
    }
}

#[test]
fn other_and_invalid_neighbour_discovery_is_dropped() {
    let mut bed = Testbed::new();
    let reason = DropReason::NeighbourUnanswered;
    for packet in [
        solicit("fd00:1:1::10", "fd00:1:1::11"),
        solicit("fe80::52:1", "fe80::52:1"),
        solicit("fd00:1:1::10", GATEWAY6).hops(254),
        solicit("fd00:1:1::10", GATEWAY6).wrong_checksum(),
        packet("fd00:1:1::10", "fd00:1:1::11")
            .icmp(icmp6::ROUTER_ADVERTISEMENT, 0, 0)
            .payload_len(8)
            .hops(255),
        packet("fd00:1:1::10", "fd00:1:1::11")
            .icmp(icmp6::REDIRECT, 0, 0)
            .payload_len(32)
            .hops(255),
        packet("fd00:1:1::10", GATEWAY6)
            .icmp(icmp6::NEIGHBOUR_ADVERTISEMENT, 0, 0)
            .payload_len(16),
    ] {
        assert_eq!(dropped(&bed.one(A, &packet)), reason, "{packet:?}");
    }
    // A duplicate check that names a link-layer address.
    let mut forged = solicit("fd00:1:1::10", GATEWAY6).build();
    forged[22..38].fill(0);
    assert_eq!(dropped(&bed.bytes(A, forged)), reason);
}

#[test]
fn pings_of_the_gateway_are_answered_in_place() {
    let mut bed = Testbed::new();
    for len in [0, 56, 3000, 9001] {
        let out = bed.one(
            A,
            &packet("10.1.1.10", GATEWAY4)
                .echo_request(7, 9)
                .payload_len(len)
                .hops(1),
        );
        let frame = sent(&out, A);
        assert_eq!(macs(frame), (GATEWAY_MAC, A_MAC));
        assert_eq!(
            (v4(frame).source().to_string(), v4(frame).ttl()),
            (GATEWAY4.into(), 64)
        );
        let (icmp, _) = IcmpHeader::parse(&frame[34..]).unwrap();
        assert_eq!(
            (icmp.kind(), icmp.echo_id(), icmp.echo_sequence()),
            (icmp4::ECHO_REPLY, 7, 9)
        );
        assert!(is_intact(frame), "{len} bytes");
    }
    for source in ["fd00:1:1::10", "fe80::52:1"] {
        let out = bed.one(
            A,
            &packet(source, GATEWAY6)
                .macs(A_MAC, GATEWAY_MAC)
                .echo_request(7, 9)
                .payload_len(56),
        );
        let frame = sent(&out, A);
        assert_eq!(
            (
                v6(frame).source().to_string(),
                v6(frame).destination().to_string()
            ),
            (GATEWAY6.into(), source.into())
        );
        assert_eq!(frame[54], icmp6::ECHO_REPLY);
        assert!(is_intact(frame));
    }
    let out = bed.one(NODE, &packet("10.1.1.254", GATEWAY4).echo_request(1, 1));
    assert_eq!(layers(sent(&out, NODE)).protocol, Protocol::ICMP);
}

#[test]
fn anything_else_to_the_gateway_is_dropped() {
    let mut bed = Testbed::new();
    for packet in [
        packet("10.1.1.10", GATEWAY4).tcp(1, 22),
        packet("10.1.1.10", GATEWAY4).echo_reply(1, 1),
        packet("10.1.1.10", GATEWAY4)
            .echo_request(1, 1)
            .wrong_checksum(),
        packet("fd00:1:1::10", GATEWAY6).udp(1, 53),
        packet("fd00:1:1::10", GATEWAY6)
            .echo_request(1, 1)
            .wrong_checksum(),
    ] {
        assert_eq!(dropped(&bed.one(A, &packet)), DropReason::GatewayTraffic);
    }
    for fragment in packet("10.1.1.10", GATEWAY4)
        .echo_request(1, 1)
        .payload_len(3000)
        .build_fragments(1500)
    {
        assert_eq!(dropped(&bed.bytes(A, fragment)), DropReason::GatewayTraffic);
    }
    // Through the tunnel it is nobody's.
    let out = bed.one(
        UPLINK,
        &from_four(&packet("10.1.2.20", GATEWAY4).echo_request(1, 1)),
    );
    assert_eq!(dropped(&out), DropReason::Transit);
}
