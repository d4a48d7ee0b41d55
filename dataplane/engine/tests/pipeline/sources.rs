//! No spoofing, from any side.

use weft_engine::DropReason;
use weft_engine::testbed::*;
use weft_wire::MacAddr;

use crate::{dropped, sent};

#[test]
fn a_pod_speaks_with_its_own_addresses_only() {
    let mut bed = Testbed::new();
    for (source, destination) in [
        ("10.1.1.11", "10.1.1.11"),
        ("10.1.1.254", "10.1.1.11"),
        ("192.0.2.1", "10.1.1.11"),
        ("198.51.100.7", "10.1.1.11"),
        ("169.254.1.1", "10.1.1.11"),
        ("fd00:1:1::11", "fd00:1:1::11"),
        ("fe80::52:1", "fd00:1:1::11"),
        ("fe80::1", "fe80::1"),
    ] {
        let out = bed.one(
            A,
            &packet(source, destination)
                .macs(A_MAC, GATEWAY_MAC)
                .udp(1, 2),
        );
        assert_eq!(dropped(&out), DropReason::SourceAddress, "{source}");
    }
}

#[test]
fn foreign_macs_are_dropped_on_both_ends() {
    let mut bed = Testbed::new();
    let honest = packet("10.1.1.10", "10.1.1.11").udp(1, 2);
    let out = bed.one(A, &honest.clone().macs(B_MAC, GATEWAY_MAC));
    assert_eq!(dropped(&out), DropReason::SourceMac);
    let out = bed.one(A, &honest.clone().macs(A_MAC, B_MAC));
    assert_eq!(dropped(&out), DropReason::DestinationMac);
    let out = bed.one(A, &honest.clone().macs(A_MAC, MacAddr::BROADCAST));
    assert_eq!(dropped(&out), DropReason::Broadcast);
    let out = bed.one(A, &honest.macs(A_MAC, MacAddr([1, 0, 0x5e, 0, 0, 1])));
    assert_eq!(dropped(&out), DropReason::Multicast);
    let out = bed.one(
        NODE,
        &packet("10.1.1.254", "10.1.1.10")
            .udp(1, 2)
            .macs(A_MAC, GATEWAY_MAC),
    );
    assert_eq!(dropped(&out), DropReason::SourceMac);
}

#[test]
fn the_nodes_stack_never_speaks_for_a_pod() {
    let mut bed = Testbed::new();
    for source in [
        "10.1.1.11",
        "10.1.1.77",
        "10.1.2.20",
        "10.1.200.1",
        "10.96.0.1",
        "fd00:1:1::11",
        "fd00:1:2::1",
    ] {
        let destination = if source.contains(':') {
            "fd00:1:1::10"
        } else {
            "10.1.1.10"
        };
        let out = bed.one(
            NODE,
            &packet(source, destination)
                .macs(NODE_MAC, GATEWAY_MAC)
                .udp(1, 2),
        );
        assert_eq!(dropped(&out), DropReason::NodeSource, "{source}");
    }
    // Another node's own address is no pod's: it may come by the host network.
    sent(
        &bed.one(NODE, &packet("192.0.2.2", "10.1.1.10").udp(1, 2)),
        A,
    );
}

#[test]
fn a_tunnel_packet_comes_from_pods_and_addresses_of_its_node() {
    let mut bed = Testbed::new();
    for source in ["10.1.2.20", "192.0.2.2"] {
        sent(
            &bed.one(UPLINK, &from_four(&packet(source, "10.1.1.10").udp(1, 2))),
            A,
        );
    }
    sent(
        &bed.one(
            UPLINK,
            &from_four(&packet("fd00:1:2::20", "fd00:1:1::10").udp(1, 2)),
        ),
        A,
    );
    for source in [
        "10.1.1.11",
        "10.1.3.20",
        "10.1.1.254",
        "192.0.2.1",
        "198.51.100.7",
    ] {
        let out = bed.one(UPLINK, &from_four(&packet(source, "10.1.1.10").udp(1, 2)));
        assert_eq!(dropped(&out), DropReason::InnerSource, "{source}");
    }
    let out = bed.one(
        UPLINK,
        &from_six(&packet("10.1.2.20", "10.1.1.10").udp(1, 2)),
    );
    assert_eq!(dropped(&out), DropReason::InnerSource);
}

#[test]
fn pods_cannot_forge_tunnel_packets() {
    let mut bed = Testbed::new();
    for destination in ["192.0.2.1", "192.0.2.2"] {
        let out = bed.one(A, &packet("10.1.1.10", destination).udp(4000, 4789));
        assert_eq!(dropped(&out), DropReason::VtepPort);
    }
    for destination in ["2001:db8::1", "2001:db8::3"] {
        let out = bed.one(A, &packet("fd00:1:1::10", destination).udp(4000, 4789));
        assert_eq!(dropped(&out), DropReason::VtepPort);
    }
    // Nor in pieces.
    let whole = packet("10.1.1.10", "192.0.2.1")
        .udp(4000, 4789)
        .payload_len(3000)
        .identification(5);
    let pieces: Vec<_> = whole
        .build_fragments(1400)
        .into_iter()
        .map(|piece| (A, piece))
        .collect();
    for outcome in bed.run(&pieces).packets {
        assert_eq!(dropped(&outcome), DropReason::VtepPort);
    }
    // To the same port of others it is an ordinary datagram, and TCP is no VXLAN.
    sent(
        &bed.one(A, &packet("10.1.1.10", "198.51.100.7").udp(4000, 4789)),
        NODE,
    );
    sent(
        &bed.one(A, &packet("10.1.1.10", "192.0.2.1").tcp(4000, 4789)),
        NODE,
    );
}

#[test]
fn martians_and_groups_go_nowhere() {
    let mut bed = Testbed::new();
    for (source, destination, reason) in [
        ("10.1.1.10", "127.0.0.1", DropReason::Martian),
        ("127.0.0.1", "10.1.1.11", DropReason::Martian),
        ("0.0.0.0", "10.1.1.11", DropReason::Martian),
        ("10.1.1.10", "0.1.2.3", DropReason::Martian),
        ("240.0.0.1", "10.1.1.11", DropReason::Martian),
        ("10.1.1.10", "250.0.0.1", DropReason::Martian),
        ("224.0.0.5", "10.1.1.11", DropReason::Martian),
        ("10.1.1.10", "224.0.0.5", DropReason::Multicast),
        ("10.1.1.10", "255.255.255.255", DropReason::Broadcast),
        ("::1", "fd00:1:1::11", DropReason::Martian),
        ("::", "fd00:1:1::11", DropReason::Martian),
        ("fd00:1:1::10", "::1", DropReason::Martian),
        ("fd00:1:1::10", "::ffff:10.1.1.11", DropReason::Martian),
        ("ff02::1", "fd00:1:1::11", DropReason::Martian),
        ("fd00:1:1::10", "ff02::16", DropReason::Multicast),
        ("fd00:1:1::10", "fe80::99", DropReason::LinkLocal),
    ] {
        let out = bed.one(
            A,
            &packet(source, destination)
                .macs(A_MAC, GATEWAY_MAC)
                .udp(1, 2),
        );
        assert_eq!(dropped(&out), reason, "{source} to {destination}");
    }
}
