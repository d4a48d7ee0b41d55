//! Partial transport checksums: left to local stacks that complete them, completed for all others.

use weft_engine::testbed::*;
use weft_engine::{Checksum, Verdict};
use weft_wire::ChecksumField;
use weft_wire::build::Packet;

use crate::{is_intact, sent};

fn partial(source: &str, destination: &str, tcp: bool, len: usize) -> Packet {
    let packet = packet(source, destination);
    let packet = if tcp {
        packet.tcp(4000, 80)
    } else {
        packet.udp(4000, 80)
    };
    packet.payload_len(len).checksum(ChecksumField::Partial)
}

const PAIRS: [(&str, &str); 2] = [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")];

#[test]
fn a_port_that_completes_checksums_gets_them_partial() {
    let mut bed = Testbed::new();
    for (source, destination) in PAIRS {
        for tcp in [true, false] {
            let before = partial(source, destination, tcp, 1000);
            let out = bed.one(A, &before);
            let start = if source.contains(':') { 54 } else { 34 };
            assert_eq!(
                out.checksum,
                Checksum::Partial {
                    start,
                    offset: if tcp { 16 } else { 6 }
                }
            );
            assert_eq!(
                sent(&out, B),
                before.macs(GATEWAY_MAC, B_MAC).hops(63).build()
            );
        }
    }
    let out = bed.one(A, &partial("10.1.1.10", "198.51.100.7", true, 10));
    assert!(
        matches!(out.checksum, Checksum::Partial { .. }),
        "the node's stack is a local one"
    );
    let out = bed.one(NODE, &partial("10.1.1.254", "10.1.1.10", true, 10));
    assert!(matches!(out.checksum, Checksum::Partial { .. }));
}

#[test]
fn for_a_port_that_does_not_they_are_completed_whatever_the_frames_lengths() {
    let mut bed = Testbed::new();
    bed.change_port(B, |port| port.tx_checksum = false);
    for (source, destination) in PAIRS {
        for tcp in [true, false] {
            for (len, pieces) in [
                (0, vec![]),
                (1, vec![]),
                (1461, vec![80, 33, 1, 700]),
                (20_001, vec![]),
                (20_000, vec![101, 3, 3839]),
            ] {
                bed.pieces = pieces;
                let before = partial(source, destination, tcp, len);
                let out = bed.one(A, &before);
                assert_eq!(out.checksum, Checksum::None);
                let expected = before
                    .macs(GATEWAY_MAC, B_MAC)
                    .hops(63)
                    .checksum(ChecksumField::Full)
                    .build();
                assert_eq!(sent(&out, B), expected);
                assert!(is_intact(&out.bytes));
            }
        }
    }
}

#[test]
fn towards_the_wire_they_are_completed_inside_the_tunnel() {
    let mut bed = Testbed::new();
    for (destination, front) in [("10.1.2.20", 50), ("10.1.3.20", 70)] {
        for tcp in [true, false] {
            let out = bed.one(A, &partial("10.1.1.10", destination, tcp, 777));
            assert_eq!(
                (out.verdict, out.checksum),
                (Verdict::Tx(UPLINK), Checksum::None)
            );
            assert!(
                is_intact(&out.bytes) && is_intact(&out.bytes[front..]),
                "{destination}"
            );
        }
    }
    for (destination, front) in [("fd00:1:2::20", 50), ("fd00:1:3::20", 70)] {
        let out = bed.one(A, &partial("fd00:1:1::10", destination, true, 778));
        assert!(
            is_intact(&out.bytes) && is_intact(&out.bytes[front..]),
            "{destination}"
        );
    }
}

#[test]
fn complete_absent_and_other_checksums_are_left_alone() {
    let mut bed = Testbed::new();
    bed.change_port(B, |port| port.tx_checksum = false);
    let to_b = || packet("10.1.1.10", "10.1.1.11");
    for before in [
        to_b().udp(1, 2).payload_len(99).no_checksum(),
        to_b().udp(1, 2).payload_len(99),
        to_b().udp(1, 2).payload_len(99).wrong_checksum(),
        to_b().tcp(1, 2).payload_len(99).wrong_checksum(),
        to_b().sctp(1, 2, 3).payload_len(16).wrong_checksum(),
        to_b().echo_request(1, 2).payload_len(16).wrong_checksum(),
    ] {
        let out = bed.one(A, &before);
        assert_eq!(out.checksum, Checksum::None);
        assert_eq!(
            sent(&out, B),
            before.macs(GATEWAY_MAC, B_MAC).hops(63).build()
        );
    }
    // A fragment's field is never touched, whatever it holds.
    let pieces = to_b()
        .udp(1, 2)
        .payload_len(3000)
        .checksum(ChecksumField::Partial)
        .build_fragments(1400);
    for piece in pieces {
        let out = bed.bytes(A, piece.clone());
        assert_eq!(out.checksum, Checksum::None);
        assert_eq!(sent(&out, B)[34..], piece[34..]);
    }
}
