//! Pods of one node and the node's own stack.

use weft_engine::testbed::*;
use weft_engine::{Checksum, DropReason, RangeKind, Verdict};
use weft_wire::{TcpFlags, tcp};

use crate::{dropped, is_intact, sent, v4, v6};

#[test]
fn pod_to_pod_takes_one_hop_and_changes_macs_only() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let before = packet(source, destination).udp(1000, 2000).payload_len(77);
        let out = bed.one(A, &before);
        let expected = before.macs(GATEWAY_MAC, B_MAC).hops(63).build();
        assert_eq!(sent(&out, B), expected);
    }
}

#[test]
fn padding_behind_the_packet_is_cut_off() {
    let mut bed = Testbed::new();
    let mut bytes = packet("10.1.1.10", "10.1.1.11")
        .udp(1, 2)
        .payload(b"x")
        .build();
    let len = bytes.len();
    bytes.resize(5000, 0xee);
    let out = bed.bytes(A, bytes);
    assert_eq!(sent(&out, B).len(), len);
}

#[test]
fn the_outside_and_the_node_itself_are_reached_by_the_nodes_stack() {
    let mut bed = Testbed::new();
    for (source, destination) in [
        ("10.1.1.10", "198.51.100.7"),
        ("10.1.1.10", "192.0.2.1"),
        ("10.1.1.10", "10.1.1.254"),
        ("fd00:1:1::10", "2001:db8:99::1"),
        ("fd00:1:1::10", "2001:db8::1"),
        ("fd00:1:1::10", "fd00:1:1::fe"),
    ] {
        let before = packet(source, destination).tcp(4000, 80).payload_len(10);
        let out = bed.one(A, &before);
        // The node's stack counts the hop when it forwards.
        assert_eq!(
            sent(&out, NODE),
            before.macs(GATEWAY_MAC, NODE_MAC).build(),
            "{destination}"
        );
    }
    assert_eq!(
        bed.pipeline.counters().outcomes[1],
        6,
        "all counted as host"
    );
}

#[test]
fn the_nodes_stack_reaches_pods_but_not_itself() {
    let mut bed = Testbed::new();
    for (source, destination) in [
        ("10.1.1.254", "10.1.1.10"),
        ("198.51.100.7", "10.1.1.10"),
        ("2001:db8::1", "fd00:1:1::10"),
    ] {
        let before = packet(source, destination).tcp(80, 4000);
        let out = bed.one(NODE, &before);
        assert_eq!(sent(&out, A), before.macs(GATEWAY_MAC, A_MAC).build());
    }
    for (source, destination) in [
        ("10.1.1.254", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::77"),
    ] {
        let out = bed.one(NODE, &packet(source, destination).udp(1, 2));
        assert_eq!(dropped(&out), DropReason::HostLoop);
    }
}

fn syn(source: &str, destination: &str, mss: u16, flags: TcpFlags) -> weft_wire::build::Packet {
    packet(source, destination)
        .tcp(4000, 80)
        .flags(flags)
        .mss(mss)
}

fn mss_of(frame: &[u8]) -> u16 {
    tcp::mss(&frame[usize::from(crate::layers(frame).l4)..]).unwrap()
}

#[test]
fn the_mss_of_syn_and_syn_ack_fits_the_way_back() {
    let mut bed = Testbed::new();
    let cases = [
        ("10.1.1.10", "10.1.1.11", LOCAL_MTU - 40),
        ("fd00:1:1::10", "fd00:1:1::11", LOCAL_MTU - 60),
        ("10.1.1.10", "198.51.100.7", OUTSIDE_MTU - 40),
        ("fd00:1:1::10", "2001:db8:99::1", OUTSIDE_MTU - 60),
        ("10.1.1.10", "192.0.2.1", LOCAL_MTU - 40),
        ("10.1.1.10", "10.1.2.20", FOUR_MTU - 40),
        ("fd00:1:1::10", "fd00:1:2::20", FOUR_MTU - 60),
        ("10.1.1.10", "10.1.3.20", SIX_MTU - 40),
        ("fd00:1:1::10", "fd00:1:3::20", SIX_MTU - 60),
    ];
    for flags in [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK] {
        for (source, destination, expected) in cases {
            let out = bed
                .run(&[(A, syn(source, destination, 65_495, flags).build())])
                .packets
                .remove(0);
            let inner = match out.verdict {
                Verdict::Tx(UPLINK) if out.bytes[12] == 8 => &out.bytes[50..],
                Verdict::Tx(UPLINK) => &out.bytes[70..],
                _ => &out.bytes,
            };
            assert_eq!(
                u32::from(mss_of(inner)),
                expected,
                "{source} to {destination}"
            );
            assert!(is_intact(inner), "{source} to {destination}");
        }
    }
}

#[test]
fn a_small_mss_and_segments_that_open_nothing_stay_as_they_are() {
    let mut bed = Testbed::new();
    let out = bed.one(A, &syn("10.1.1.10", "198.51.100.7", 536, TcpFlags::SYN));
    assert_eq!(mss_of(sent(&out, NODE)), 536);
    let out = bed.one(A, &syn("10.1.1.10", "198.51.100.7", 9000, TcpFlags::ACK));
    assert_eq!(mss_of(sent(&out, NODE)), 9000);
}

#[test]
fn connections_from_the_outside_are_bounded_by_the_outside_path() {
    let mut bed = Testbed::new();
    let out = bed.one(NODE, &syn("198.51.100.7", "10.1.1.10", 8960, TcpFlags::SYN));
    assert_eq!(u32::from(mss_of(sent(&out, A))), OUTSIDE_MTU - 40);
    let out = bed.one(NODE, &syn("10.1.1.254", "10.1.1.10", 65_495, TcpFlags::SYN));
    assert_eq!(u32::from(mss_of(sent(&out, A))), LOCAL_MTU - 40);
}

#[test]
fn a_partial_checksum_survives_the_clamp_untouched() {
    let mut bed = Testbed::new();
    let before = syn("10.1.1.10", "10.1.1.11", 65_495, TcpFlags::SYN)
        .checksum(weft_wire::ChecksumField::Partial);
    let out = bed.one(A, &before);
    assert!(matches!(
        out.checksum,
        Checksum::Partial {
            start: 34,
            offset: 16
        }
    ));
    let field = |frame: &[u8]| frame[50..52].to_vec();
    assert_eq!(field(&out.bytes), field(&before.build()));
    assert_eq!(u32::from(mss_of(&out.bytes)), LOCAL_MTU - 40);
}

#[test]
fn a_whole_segment_of_18_frames_crosses_the_node() {
    let mut bed = Testbed::new();
    let before = packet("10.1.1.10", "10.1.1.11")
        .tcp(1, 2)
        .payload_len(65_535 - 40);
    let out = bed.one(A, &before);
    assert_eq!(
        sent(&out, B),
        before.macs(GATEWAY_MAC, B_MAC).hops(63).build()
    );
    let before = packet("fd00:1:1::10", "fd00:1:1::11")
        .tcp(1, 2)
        .payload_len(65_535 - 60);
    let out = bed.one(A, &before);
    assert_eq!(
        sent(&out, B),
        before.macs(GATEWAY_MAC, B_MAC).hops(63).build()
    );
}

#[test]
fn sctp_and_unknown_protocols_are_forwarded_as_they_are() {
    let mut bed = Testbed::new();
    for before in [
        packet("10.1.1.10", "10.1.1.11")
            .sctp(1, 2, 3)
            .payload_len(16),
        packet("10.1.1.10", "10.1.1.11").payload_len(5),
        packet("fd00:1:1::10", "fd00:1:1::11").payload_len(0),
        packet("fd00:1:1::10", "fd00:1:1::11").echo_request(1, 2),
    ] {
        let out = bed.one(A, &before);
        assert_eq!(
            sent(&out, B),
            before.macs(GATEWAY_MAC, B_MAC).hops(63).build()
        );
    }
}

#[test]
fn ttl_is_decremented_with_a_right_checksum() {
    let mut bed = Testbed::new();
    for ttl in [2, 64, 128, 255] {
        let out = bed.one(A, &packet("10.1.1.10", "10.1.1.11").udp(1, 2).hops(ttl));
        assert_eq!(v4(sent(&out, B)).ttl(), ttl - 1);
        assert!(is_intact(&out.bytes));
        let out = bed.one(
            A,
            &packet("fd00:1:1::10", "fd00:1:1::11").udp(1, 2).hops(ttl),
        );
        assert_eq!(v6(sent(&out, B)).hop_limit(), ttl - 1);
    }
}

#[test]
fn without_tables_nothing_passes_and_a_detached_port_neither_sends_nor_receives() {
    let mut bed = Testbed::new();
    let to_b = packet("10.1.1.10", "10.1.1.11").udp(1, 2);
    bed.change(|builder| builder.set_node(None));
    assert_eq!(dropped(&bed.one(A, &to_b)), DropReason::NoTables);
    bed.change(|builder| builder.set_node(Some(node())));
    bed.change(|builder| builder.remove_port(A));
    assert_eq!(dropped(&bed.one(A, &to_b)), DropReason::PortUnknown);
    bed.change(|builder| builder.remove_port(NODE));
    let out = bed.one(B, &packet("10.1.1.11", "198.51.100.7").udp(1, 2));
    assert_eq!(dropped(&out), DropReason::PortGone);
}

#[test]
fn a_claimed_address_wins_over_its_range_and_returns_to_it() {
    let mut bed = Testbed::new();
    let to_b = packet("10.1.1.10", "10.1.1.11").udp(1, 2).build();
    bed.change(|builder| builder.remove_port(B));
    let ran = bed.run(&[(A, to_b.clone())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::NoEndpoint);
    bed.change(|builder| {
        builder.set_node(Some(weft_engine::NodeTable {
            pod_cidrs: Vec::new(),
            ..node()
        }));
        builder.remove_range("10.1.0.0/16".parse().unwrap(), RangeKind::Pods);
    });
    let out = bed.bytes(A, to_b);
    sent(&out, NODE);
}
