//! ICMP errors: what they say, to whom, and when not.

use weft_engine::testbed::*;
use weft_engine::{DropReason, Verdict};
use weft_wire::build::Packet;
use weft_wire::icmp::{v4 as icmp4, v6 as icmp6};
use weft_wire::{IcmpHeader, TcpFlags};

use crate::{dropped, is_intact, macs, v4, v6};

/// Runs one packet that is dropped for `reason` and answered; returns the answer's port and frame.
fn answered(
    bed: &mut Testbed,
    port: weft_engine::PortId,
    packet: &Packet,
    reason: DropReason,
) -> (weft_engine::PortId, Vec<u8>) {
    let mut ran = bed.run(&[(port, packet.build())]);
    assert_eq!(dropped(&ran.packets[0]), reason);
    assert_eq!(ran.born.len(), 1, "one answer to {packet:?}");
    let answer = ran.born.remove(0);
    match answer.verdict {
        Verdict::Tx(port) => (port, answer.bytes),
        other => panic!("the answer ends as {other:?}"),
    }
}

/// Type, code and last word of the header's ICMP message.
fn message(frame: &[u8]) -> (u8, u8, u32) {
    assert!(is_intact(frame));
    let (icmp, _) = IcmpHeader::parse(&frame[usize::from(crate::layers(frame).l4)..]).unwrap();
    (icmp.kind(), icmp.code(), icmp.mtu_v6())
}

#[test]
fn an_expired_ttl_is_told_by_weft0_to_a_local_and_a_remote_pod() {
    let mut bed = Testbed::new();
    let probe = packet("10.1.1.10", "10.1.1.11")
        .udp(1, 33_434)
        .payload_len(32)
        .hops(1);
    let (port, frame) = answered(&mut bed, A, &probe, DropReason::TtlExpired);
    assert_eq!((port, macs(&frame)), (A, (GATEWAY_MAC, A_MAC)));
    assert_eq!(
        (
            v4(&frame).source().to_string(),
            v4(&frame).destination().to_string()
        ),
        ("10.1.1.254".into(), "10.1.1.10".into())
    );
    assert_eq!(message(&frame), (icmp4::TIME_EXCEEDED, 0, 0));
    assert_eq!(
        frame[42..],
        probe.build_network(),
        "quotes the packet as it came"
    );

    let probe = packet("fd00:1:2::20", "fd00:1:1::10")
        .udp(1, 33_434)
        .hops(1);
    let (port, frame) = answered(&mut bed, UPLINK, &from_four(&probe), DropReason::TtlExpired);
    assert_eq!((port, macs(&frame)), (UPLINK, (UPLINK_MAC, NEXT_HOP_MAC)));
    let inner = &frame[50..];
    assert_eq!(macs(inner), (VTEP4_MAC, FOUR_MAC));
    assert_eq!(
        (v6(inner).source().to_string(), v6(inner).hop_limit()),
        ("fd00:1:1::fe".into(), 64)
    );
    assert_eq!(message(inner), (icmp6::TIME_EXCEEDED, 0, 0));
}

#[test]
fn the_node_itself_is_no_hop() {
    let mut bed = Testbed::new();
    for (port, source, destination) in [
        (A, "10.1.1.10", "192.0.2.1"),
        (A, "10.1.1.10", "198.51.100.7"),
        (NODE, "10.1.1.254", "10.1.1.10"),
    ] {
        let out = bed.one(port, &packet(source, destination).udp(1, 2).hops(1));
        assert!(matches!(out.verdict, Verdict::Tx(_)), "{destination}");
        assert_eq!(v4(&out.bytes).ttl(), 1);
    }
}

#[test]
fn too_big_says_the_mtu_of_the_tunnel_and_of_a_pod() {
    let mut bed = Testbed::new();
    for (destination, mtu) in [("10.1.2.20", FOUR_MTU), ("10.1.3.20", SIX_MTU)] {
        let fits = packet("10.1.1.10", destination)
            .udp(1, 2)
            .payload_len(mtu as usize - 28);
        assert_eq!(bed.one(A, &fits).verdict, Verdict::Tx(UPLINK));
        let big = packet("10.1.1.10", destination)
            .udp(1, 2)
            .payload_len(mtu as usize - 27);
        let (port, frame) = answered(&mut bed, A, &big, DropReason::TooBig);
        assert_eq!(port, A);
        assert_eq!(
            message(&frame),
            (icmp4::UNREACHABLE, icmp4::CODE_FRAGMENTATION_NEEDED, mtu)
        );
        assert_eq!(frame.len(), 14 + 576);
    }
    for (destination, mtu) in [("fd00:1:2::20", FOUR_MTU), ("fd00:1:3::20", SIX_MTU)] {
        let big = packet("fd00:1:1::10", destination)
            .tcp(1, 2)
            .payload_len(mtu as usize - 59);
        let (port, frame) = answered(&mut bed, A, &big, DropReason::TooBig);
        assert_eq!(
            (port, message(&frame)),
            (A, (icmp6::PACKET_TOO_BIG, 0, mtu))
        );
        assert_eq!(frame.len(), 14 + 1280);
    }
    bed.change_port(A, |port| port.mtu = 1400);
    let big = packet("10.1.2.20", "10.1.1.10").udp(1, 2).payload_len(1380);
    let (port, frame) = answered(&mut bed, UPLINK, &from_four(&big), DropReason::TooBig);
    assert_eq!(
        (port, message(&frame[50..])),
        (
            UPLINK,
            (icmp4::UNREACHABLE, icmp4::CODE_FRAGMENTATION_NEEDED, 1400)
        )
    );
}

#[test]
fn unclaimed_cluster_addresses_are_unreachable() {
    let mut bed = Testbed::new();
    for (source, destination, reason) in [
        ("10.1.1.10", "10.1.1.99", DropReason::NoEndpoint),
        ("10.1.1.10", "10.1.77.1", DropReason::NoEndpoint),
        ("10.1.1.10", "10.96.0.1", DropReason::NoService),
    ] {
        let (port, frame) = answered(
            &mut bed,
            A,
            &packet(source, destination).tcp(1, 2).flags(TcpFlags::SYN),
            reason,
        );
        assert_eq!(
            (port, message(&frame)),
            (A, (icmp4::UNREACHABLE, icmp4::CODE_HOST, 0))
        );
    }
    for (destination, reason) in [
        ("fd00:1:1::99", DropReason::NoEndpoint),
        ("fd00:96::1", DropReason::NoService),
    ] {
        let (port, frame) = answered(
            &mut bed,
            A,
            &packet("fd00:1:1::10", destination).tcp(1, 2),
            reason,
        );
        assert_eq!(
            (port, message(&frame)),
            (A, (icmp6::UNREACHABLE, icmp6::CODE_ADDRESS, 0))
        );
    }
    // A pod that went away, asked for through the tunnel.
    let (port, _) = answered(
        &mut bed,
        UPLINK,
        &from_four(&packet("10.1.2.20", "10.1.1.99").tcp(1, 2)),
        DropReason::NoEndpoint,
    );
    assert_eq!(port, UPLINK);
}

#[test]
fn the_nodes_stack_hears_from_the_address_it_sent_to() {
    let mut bed = Testbed::new();
    for source in ["10.1.1.254", "198.51.100.7"] {
        let (port, frame) = answered(
            &mut bed,
            NODE,
            &packet(source, "10.1.1.99").tcp(1, 2),
            DropReason::NoEndpoint,
        );
        assert_eq!((port, macs(&frame)), (NODE, (GATEWAY_MAC, NODE_MAC)));
        assert_eq!(
            (
                v4(&frame).source().to_string(),
                v4(&frame).destination().to_string()
            ),
            ("10.1.1.99".into(), source.into())
        );
    }
}

#[test]
fn errors_are_never_about_errors_later_fragments_or_unknown_senders() {
    let mut bed = Testbed::new();
    let error = packet("10.1.1.10", "10.1.1.99")
        .icmp(icmp4::UNREACHABLE, 1, 0)
        .payload_len(28);
    assert_eq!(dropped(&bed.one(A, &error)), DropReason::NoEndpoint);
    let error = packet("fd00:1:1::10", "fd00:1:1::99")
        .icmp(icmp6::PACKET_TOO_BIG, 0, 1280)
        .payload_len(48);
    assert_eq!(dropped(&bed.one(A, &error)), DropReason::NoEndpoint);
    let pieces = packet("10.1.1.10", "10.1.1.99")
        .udp(1, 2)
        .payload_len(3000)
        .build_fragments(1400);
    let ran = bed.run(
        &pieces
            .into_iter()
            .map(|piece| (A, piece))
            .collect::<Vec<_>>(),
    );
    assert!(
        ran.packets
            .iter()
            .all(|outcome| dropped(outcome) == DropReason::NoEndpoint)
    );
    assert_eq!(ran.born.len(), 1, "one answer, about the first");
    // A ping is no error.
    let (_, frame) = answered(
        &mut bed,
        A,
        &packet("10.1.1.10", "10.1.1.99").echo_request(1, 1),
        DropReason::NoEndpoint,
    );
    assert_eq!(message(&frame).0, icmp4::UNREACHABLE);
}

#[test]
fn answers_are_limited_per_port() {
    let mut bed = Testbed::new();
    let answers = |bed: &mut Testbed, port, from: &str| {
        let probe = packet(from, "10.1.1.99").udp(1, 2).build();
        (0..10)
            .map(|_| bed.run(&vec![(port, probe.clone()); 32]).born.len())
            .sum::<usize>()
    };
    assert_eq!(answers(&mut bed, A, "10.1.1.10"), 50);
    assert_eq!(answers(&mut bed, A, "10.1.1.10"), 0);
    assert_eq!(bed.pipeline.counters().icmp_limited, 640 - 50);
    assert_eq!(
        answers(&mut bed, B, "10.1.1.11"),
        50,
        "another port has its own"
    );
    bed.now_ns += 10_000_000;
    assert_eq!(answers(&mut bed, A, "10.1.1.10"), 10, "1000 a second");
    let (pool, held) = (bed.pool.len(), bed.pipeline.held());
    assert_eq!(pool + held, FRAMES as usize);
}

#[test]
fn a_node_without_an_address_of_the_family_stays_silent() {
    let mut bed = Testbed::new();
    bed.change(|builder| {
        builder.set_node(Some(weft_engine::NodeTable {
            node_port6: None,
            ..node()
        }));
    });
    let out = bed.one(A, &packet("fd00:1:1::10", "fd00:1:1::99").udp(1, 2));
    assert_eq!(dropped(&out), DropReason::NoEndpoint);
}
