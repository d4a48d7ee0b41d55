//! What the underlay says about the size of tunnel packets.

use weft_engine::testbed::*;
use weft_engine::{DropReason, PmtuReport, Verdict};
use weft_wire::build::Packet;
use weft_wire::icmp::{v4 as icmp4, v6 as icmp6};

use crate::{dropped, sent};

fn tunnel_packet(bed: &mut Testbed, destination: &str) -> Vec<u8> {
    let out = bed.one(
        A,
        &packet("10.1.1.10", destination).udp(1, 2).payload_len(1000),
    );
    sent(&out, UPLINK)[14..].to_vec()
}

fn needs_fragmentation(mtu: u32, quoted: &[u8]) -> Packet {
    Packet::ip(ip("192.0.2.77"), ip("192.0.2.1"))
        .macs(NEXT_HOP_MAC, UPLINK_MAC)
        .icmp(icmp4::UNREACHABLE, icmp4::CODE_FRAGMENTATION_NEEDED, mtu)
        .payload(&quoted[..quoted.len().min(548)])
}

fn too_big(mtu: u32, quoted: &[u8]) -> Packet {
    Packet::ip(ip("2001:db8:77::1"), ip("2001:db8::1"))
        .macs(NEXT_HOP_MAC, UPLINK_MAC)
        .icmp(icmp6::PACKET_TOO_BIG, 0, mtu)
        .payload(&quoted[..quoted.len().min(1232)])
}

#[test]
fn plausible_errors_about_our_tunnel_are_reported_once_with_the_least_mtu() {
    let mut bed = Testbed::new();
    let (four, six) = (
        tunnel_packet(&mut bed, "10.1.2.20"),
        tunnel_packet(&mut bed, "10.1.3.20"),
    );
    for error in [
        needs_fragmentation(1400, &four),
        needs_fragmentation(1350, &four[..28]),
        needs_fragmentation(1450, &four),
        too_big(1300, &six),
    ] {
        assert_eq!(bed.one(UPLINK, &error).verdict, Verdict::Consumed);
    }
    let reports: Vec<_> = bed.pipeline.take_pmtu_reports().into_iter().collect();
    let report = |vtep, mtu| PmtuReport {
        vtep: ip(vtep),
        mtu,
    };
    assert_eq!(
        reports,
        [report("192.0.2.2", 1350), report("2001:db8::3", 1300)]
    );
    assert!(bed.pipeline.take_pmtu_reports().is_empty());
}

#[test]
fn implausible_and_foreign_errors_change_nothing() {
    let mut bed = Testbed::new();
    let (four, six) = (
        tunnel_packet(&mut bed, "10.1.2.20"),
        tunnel_packet(&mut bed, "10.1.3.20"),
    );
    let unknown = Packet::ip(ip("192.0.2.1"), ip("192.0.2.99"))
        .udp(50_000, 4789)
        .payload_len(40)
        .build_network();
    let foreign = Packet::ip(ip("192.0.2.50"), ip("192.0.2.2"))
        .udp(50_000, 4789)
        .payload_len(40)
        .build_network();
    let other_port = Packet::ip(ip("192.0.2.1"), ip("192.0.2.2"))
        .udp(50_000, 53)
        .payload_len(40)
        .build_network();
    let unreachable = Packet::ip(ip("192.0.2.77"), ip("192.0.2.1"))
        .macs(NEXT_HOP_MAC, UPLINK_MAC)
        .icmp(icmp4::UNREACHABLE, icmp4::CODE_HOST, 1300)
        .payload(&four[..28]);
    for (error, reason) in [
        (
            needs_fragmentation(1500, &four),
            DropReason::PmtuImplausible,
        ),
        (
            needs_fragmentation(9000, &four),
            DropReason::PmtuImplausible,
        ),
        (
            needs_fragmentation(1279, &four),
            DropReason::PmtuImplausible,
        ),
        (needs_fragmentation(0, &four), DropReason::PmtuImplausible),
        (too_big(1200, &six), DropReason::PmtuImplausible),
        (
            needs_fragmentation(1400, &unknown),
            DropReason::PmtuImplausible,
        ),
        (
            needs_fragmentation(1400, &foreign),
            DropReason::UnderlayUnexpected,
        ),
        (
            needs_fragmentation(1400, &other_port),
            DropReason::UnderlayUnexpected,
        ),
        (
            needs_fragmentation(1400, &four[..20]),
            DropReason::UnderlayUnexpected,
        ),
        (
            needs_fragmentation(1400, &[]),
            DropReason::UnderlayUnexpected,
        ),
        (
            needs_fragmentation(1400, &four).wrong_checksum(),
            DropReason::UnderlayUnexpected,
        ),
        (
            too_big(1300, &six).wrong_checksum(),
            DropReason::UnderlayUnexpected,
        ),
        (unreachable, DropReason::UnderlayUnexpected),
    ] {
        assert_eq!(dropped(&bed.one(UPLINK, &error)), reason, "{error:?}");
    }
    assert!(bed.pipeline.take_pmtu_reports().is_empty());
}
