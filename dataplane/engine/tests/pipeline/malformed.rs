//! Frames that are not what they claim to be.

use weft_engine::DropReason;
use weft_engine::testbed::*;
use weft_wire::build::Packet;
use weft_wire::{EtherType, Protocol};

use crate::{dropped, sent};

fn reason(bed: &mut Testbed, bytes: Vec<u8>) -> DropReason {
    dropped(&bed.bytes(A, bytes))
}

#[test]
fn tags_other_types_and_short_frames() {
    let mut bed = Testbed::new();
    let to_b = || packet("10.1.1.10", "10.1.1.11").udp(1, 2).payload_len(20);
    assert_eq!(
        reason(&mut bed, to_b().vlan(5).build()),
        DropReason::VlanTagged
    );
    assert_eq!(
        reason(&mut bed, to_b().vlan(5).vlan(6).build()),
        DropReason::VlanTagged
    );
    let mut service = to_b().vlan(5).build();
    service[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(reason(&mut bed, service), DropReason::VlanTagged);
    let other = |ether_type| {
        Packet::other(EtherType(ether_type))
            .macs(A_MAC, GATEWAY_MAC)
            .payload_len(50)
            .build()
    };
    for ether_type in [0x88cc, 0x0026, 0x86de, 0] {
        assert_eq!(reason(&mut bed, other(ether_type)), DropReason::EtherType);
    }
    for len in 1..14 {
        assert_eq!(
            reason(&mut bed, to_b().build()[..len].to_vec()),
            DropReason::Truncated
        );
    }
}

#[test]
fn every_cut_of_a_packet_is_noticed() {
    let mut bed = Testbed::new();
    for whole in [
        packet("10.1.1.10", "10.1.1.11")
            .tcp(1, 2)
            .mss(1000)
            .payload_len(20)
            .build(),
        packet("10.1.1.10", "10.1.1.11")
            .udp(1, 2)
            .payload_len(20)
            .build(),
        packet("fd00:1:1::10", "fd00:1:1::11")
            .sctp(1, 2, 3)
            .payload_len(20)
            .build(),
        packet("fd00:1:1::10", "fd00:1:1::11")
            .echo_request(1, 2)
            .build(),
        Packet::arp(
            weft_wire::ArpOperation::REQUEST,
            (A_MAC, [10, 1, 1, 10].into()),
            (A_MAC, [169, 254, 1, 1].into()),
        )
        .build(),
    ] {
        for len in 1..whole.len() {
            assert_eq!(
                reason(&mut bed, whole[..len].to_vec()),
                DropReason::Truncated,
                "{len} of {}",
                whole.len()
            );
        }
    }
}

#[test]
fn headers_must_be_in_the_first_frame() {
    let mut bed = Testbed::new();
    for (whole, headers) in [
        (
            packet("10.1.1.10", "10.1.1.11")
                .tcp(1, 2)
                .mss(1000)
                .payload_len(90),
            58,
        ),
        (
            packet("fd00:1:1::10", "fd00:1:1::11")
                .udp(1, 2)
                .payload_len(90),
            62,
        ),
        (
            packet("fd00:1:1::10", "fd00:1:1::11")
                .extension(Protocol::DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0])
                .udp(1, 2),
            70,
        ),
    ] {
        for len in 14..headers {
            bed.pieces = vec![len];
            assert_eq!(
                reason(&mut bed, whole.build()),
                DropReason::HeadersSplit,
                "{len} of {headers}"
            );
        }
        bed.pieces = vec![headers];
        let out = bed.one(A, &whole);
        assert_eq!(sent(&out, B).len(), whole.build().len());
    }
}

#[test]
fn ipv4_headers() {
    let mut bed = Testbed::new();
    let good = packet("10.1.1.10", "10.1.1.11")
        .udp(1, 2)
        .payload_len(20)
        .build();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let valid = weft_wire::ipv4::fill_checksum(&mut bytes[14..]).is_ok();
        (bytes, valid)
    };
    for (change, expected) in [
        (
            &(|b: &mut Vec<u8>| b[14] = 0x65) as &dyn Fn(&mut Vec<u8>),
            DropReason::Ipv4Malformed,
        ),
        (&|b: &mut Vec<u8>| b[14] = 0x44, DropReason::Ipv4Malformed),
        (
            &|b: &mut Vec<u8>| b[16..18].copy_from_slice(&[0, 19]),
            DropReason::Ipv4Malformed,
        ),
        (
            &|b: &mut Vec<u8>| b[16..18].copy_from_slice(&[0xff, 0xff]),
            DropReason::Truncated,
        ),
        (
            &|b: &mut Vec<u8>| b[16..18].copy_from_slice(&[0, 27]),
            DropReason::TransportMalformed,
        ),
        (
            &|b: &mut Vec<u8>| b[38..40].copy_from_slice(&[0, 7]),
            DropReason::TransportMalformed,
        ),
        (
            &|b: &mut Vec<u8>| b[38..40].copy_from_slice(&[0xff, 0]),
            DropReason::TransportMalformed,
        ),
    ] {
        let (bytes, _) = with(change);
        assert_eq!(reason(&mut bed, bytes), expected);
    }
    let mut wrong = good.clone();
    wrong[24] ^= 1;
    assert_eq!(reason(&mut bed, wrong), DropReason::Ipv4Checksum);
    for (options, expected) in [
        (&[131, 7, 4, 1, 2, 3, 4][..], DropReason::SourceRouted),
        (&[1, 1, 137, 3, 4][..], DropReason::SourceRouted),
        (&[7, 40, 4][..], DropReason::Ipv4Malformed),
        (&[7, 1, 4][..], DropReason::Ipv4Malformed),
    ] {
        let packet = packet("10.1.1.10", "10.1.1.11")
            .ipv4_options(options)
            .udp(1, 2);
        assert_eq!(reason(&mut bed, packet.build()), expected);
    }
    let alert = packet("10.1.1.10", "10.1.1.11")
        .ipv4_options(&[148, 4, 0, 0])
        .udp(1, 2);
    sent(&bed.one(A, &alert), B);
}

#[test]
fn ipv6_headers_and_extensions() {
    let mut bed = Testbed::new();
    let to_b = || packet("fd00:1:1::10", "fd00:1:1::11");
    let options = [1, 4, 0, 0, 0, 0];
    for fine in [
        to_b().extension(Protocol::HOP_BY_HOP, &options).udp(1, 2),
        to_b()
            .extension(Protocol::DESTINATION_OPTIONS, &options)
            .tcp(1, 2),
        to_b().fragment(0, false).udp(1, 2),
    ] {
        sent(&bed.one(A, &fine), B);
    }
    let mut deep = to_b().udp(1, 2);
    for _ in 0..9 {
        deep = deep.extension(Protocol::DESTINATION_OPTIONS, &options);
    }
    let mut version = to_b().udp(1, 2).build();
    version[14] = 0x50;
    for (bytes, expected) in [
        (deep.build(), DropReason::Ipv6Malformed),
        (version, DropReason::Ipv6Malformed),
        (
            to_b()
                .extension(Protocol::DESTINATION_OPTIONS, &options)
                .extension(Protocol::HOP_BY_HOP, &options)
                .udp(1, 2)
                .build(),
            DropReason::Ipv6Malformed,
        ),
        (
            to_b()
                .extension(Protocol::ROUTING, &[0, 1, 0, 0, 0, 0])
                .udp(1, 2)
                .build(),
            DropReason::SourceRouted,
        ),
        (
            to_b()
                .extension(Protocol::ROUTING, &[4, 1, 0, 0, 0, 0])
                .udp(1, 2)
                .build(),
            DropReason::SourceRouted,
        ),
    ] {
        assert_eq!(reason(&mut bed, bytes), expected);
    }
}

#[test]
fn fragments_that_cannot_be() {
    let mut bed = Testbed::new();
    let v4 = || packet("10.1.1.10", "10.1.1.11");
    let v6 = || packet("fd00:1:1::10", "fd00:1:1::11");
    for (packet, expected) in [
        (
            v4().fragment(65_528, false).payload_len(8),
            DropReason::FragmentMalformed,
        ),
        (
            v4().fragment(8, true).payload_len(13),
            DropReason::FragmentMalformed,
        ),
        (v4().fragment(8, false), DropReason::FragmentMalformed),
        (
            v6().fragment(65_528, false).payload_len(8),
            DropReason::FragmentMalformed,
        ),
        (
            v6().fragment(8, true).payload_len(13),
            DropReason::FragmentMalformed,
        ),
        (v6().fragment(8, false), DropReason::FragmentMalformed),
    ] {
        assert_eq!(reason(&mut bed, packet.build()), expected, "{packet:?}");
    }
    // A first fragment that leaves part of the TCP header to the next (RFC 7112, RFC 1858).
    for whole in [
        v4().tcp(1, 2).mss(900).payload_len(50),
        v6().tcp(1, 2).mss(900).payload_len(50),
    ] {
        let header = if whole.build()[12] == 8 { 20 } else { 48 };
        let first = whole
            .identification(3)
            .build_fragments(header + 16)
            .remove(0);
        assert_eq!(reason(&mut bed, first), DropReason::FirstFragmentShort);
    }
    // The same with an extension header cut.
    let chain = v6()
        .extension(
            Protocol::DESTINATION_OPTIONS,
            &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .udp(1, 2);
    let mut bytes = chain.build();
    // Fragment header in front of the options, which claim more than is there.
    bytes[20] = Protocol::FRAGMENT.0;
    let fragment = [Protocol::DESTINATION_OPTIONS.0, 0, 0, 1, 0, 0, 0, 9];
    let options = bytes[54..62].to_vec();
    bytes.truncate(54);
    bytes.extend_from_slice(&fragment);
    bytes.extend_from_slice(&options);
    bytes[18..20].copy_from_slice(&[0, 16]);
    assert_eq!(reason(&mut bed, bytes), DropReason::FirstFragmentShort);
}
