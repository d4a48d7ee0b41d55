//! Bytes nobody would send: the committed corpus, random bytes, and valid packets changed at random.

use std::path::Path;

use proptest::prelude::*;
use weft_engine::fuzz::{pipeline_no_leak, record};
use weft_engine::testbed::*;
use weft_engine::{DropReason, PortId, Verdict};
use weft_wire::build::Packet;
use weft_wire::{ArpOperation, ChecksumField, Protocol, TcpFlags};

use crate::dropped;

/// One packet of each kind the pipeline tells apart, by name.
fn seeds() -> Vec<(&'static str, PortId, Vec<Vec<u8>>)> {
    let v4 = || packet("10.1.1.10", "10.1.1.11");
    let v6 = || packet("fd00:1:1::10", "fd00:1:1::11");
    let arp = Packet::arp(
        ArpOperation::REQUEST,
        (A_MAC, [10, 1, 1, 10].into()),
        (A_MAC, [169, 254, 1, 1].into()),
    );
    let ns = packet("fd00:1:1::10", "fe80::1").neighbour_solicitation(ip_v6("fe80::1"));
    let inner = packet("10.1.2.20", "10.1.1.10").tcp(1, 2).payload_len(40);
    let inner6 = packet("fd00:1:3::20", "fd00:1:1::10")
        .udp(1, 2)
        .payload_len(40);
    let big = |destination| packet("10.1.1.10", destination).udp(1, 2).payload_len(3000);
    let mut late = big("10.1.1.11").build_fragments(1400);
    late.rotate_left(1);
    vec![
        ("v4_udp", A, vec![v4().udp(1, 2).payload_len(30).build()]),
        (
            "v4_tcp_syn_partial",
            A,
            vec![
                v4().tcp(1, 2)
                    .flags(TcpFlags::SYN)
                    .mss(65_495)
                    .checksum(ChecksumField::Partial)
                    .build(),
            ],
        ),
        ("v4_fragments", A, big("10.1.1.11").build_fragments(1400)),
        ("v4_fragments_late", A, late),
        (
            "v4_cut_for_tunnel",
            A,
            vec![big("10.1.2.20").dont_fragment(false).build()],
        ),
        ("v4_too_big", A, vec![big("10.1.3.20").build()]),
        (
            "v4_no_endpoint",
            A,
            vec![packet("10.1.1.10", "10.1.1.99").udp(1, 2).build()],
        ),
        ("v4_service", A, to_service("10.1.1.10", "10.96.0.10")),
        (
            "v6_service_fragments",
            A,
            packet("fd00:1:1::10", "fd00:96::10")
                .udp(1, 80)
                .payload_len(2000)
                .build_fragments(1280),
        ),
        ("v4_ttl", A, vec![v4().udp(1, 2).hops(1).build()]),
        (
            "v4_gateway_ping",
            A,
            vec![
                packet("10.1.1.10", "169.254.1.1")
                    .echo_request(1, 2)
                    .payload_len(20)
                    .build(),
            ],
        ),
        (
            "v6_extension",
            A,
            vec![
                v6().extension(Protocol::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
                    .tcp(1, 2)
                    .build(),
            ],
        ),
        (
            "v6_fragments",
            A,
            packet("fd00:1:1::10", "fd00:1:2::20")
                .udp(1, 2)
                .payload_len(3000)
                .build_fragments(1300),
        ),
        (
            "v6_sctp",
            A,
            vec![v6().sctp(1, 2, 3).payload_len(16).build()],
        ),
        (
            "v6_gateway_ping",
            A,
            vec![packet("fd00:1:1::10", "fe80::1").echo_request(1, 2).build()],
        ),
        ("arp", A, vec![arp.build()]),
        ("solicitation", A, vec![ns.build()]),
        (
            "node_to_pod",
            NODE,
            vec![packet("198.51.100.7", "10.1.1.10").tcp(1, 2).build()],
        ),
        ("vxlan_v4", UPLINK, vec![from_four(&inner).build()]),
        ("vxlan_v6", UPLINK, vec![from_six(&inner6).build()]),
        ("vxlan_ttl", UPLINK, vec![from_four(&inner.hops(1)).build()]),
        ("v4_segmented", A, vec![large("10.1.1.10", "10.1.2.20")]),
        (
            "v6_segmented",
            A,
            vec![large("fd00:1:1::10", "fd00:1:3::20")],
        ),
        (
            "v4_merged",
            UPLINK,
            train("10.1.2.20", "10.1.1.10")
                .map(|it| from_four(&it).build())
                .to_vec(),
        ),
        (
            "v6_merged",
            UPLINK,
            train("fd00:1:3::20", "fd00:1:1::10")
                .map(|it| from_six(&it).build())
                .to_vec(),
        ),
        (
            "v4_icmp_error",
            A,
            quoting("10.1.1.10", "10.1.1.11", (3, 3)),
        ),
        (
            "v6_icmp_error",
            A,
            quoting("fd00:1:1::10", "fd00:1:1::11", (1, 4)),
        ),
        ("vlan", A, vec![v4().vlan(5).udp(1, 2).build()]),
        ("runt", A, vec![vec![2, 0x77, 0x65]]),
    ]
}

/// Packets of a connection, and behind their batch an error about a reply to them.
fn quoting(source: &str, destination: &str, (kind, code): (u8, u8)) -> Vec<Vec<u8>> {
    let there = packet(source, destination).udp(1, 2).build();
    let back = packet(destination, source).udp(2, 1).build();
    let error = packet(source, destination).icmp(kind, code, 0);
    let mut packets = vec![there; 4];
    packets.push(error.payload(&back[14..]).build());
    packets
}

/// A TCP packet that is to be segmented.
fn large(source: &str, destination: &str) -> Vec<u8> {
    let packet = packet(source, destination).tcp(1, 2).payload_len(3000);
    packet.checksum(ChecksumField::Partial).build()
}

/// Packets of all protocols, and an error about what the service answered.
fn to_service(client: &str, service: &str) -> Vec<Vec<u8>> {
    let answer = packet(service, client).udp(80, 1).payload_len(8).build();
    let error = packet(client, service).icmp(3, 3, 0).payload(&answer[14..]);
    let there = || packet(client, service);
    vec![
        there().udp(1, 80).payload_len(8).build(),
        there().tcp(1, 80).flags(TcpFlags::SYN).mss(1400).build(),
        there().sctp(1, 80, 0).payload_len(20).build(),
        error.build(),
    ]
}

/// TCP segments that can be merged.
fn train(source: &str, destination: &str) -> [Packet; 3] {
    [0, 1, 2].map(|index| {
        let segment = packet(source, destination).tcp(1, 2);
        segment.sequence(index * 50, 1).payload_len(50)
    })
}

fn ip_v6(text: &str) -> std::net::Ipv6Addr {
    text.parse().unwrap()
}

fn input((_, port, packets): &(&'static str, PortId, Vec<Vec<u8>>)) -> Vec<u8> {
    packets
        .iter()
        .flat_map(|packet| record(*port, packet))
        .collect()
}

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The corpus files are the seeds as they were when written, and whatever fuzzing found since. Set
/// `WEFT_WRITE_CORPUS=1` to write the seeds again.
#[test]
fn the_corpus_loses_no_frame() {
    if std::env::var_os("WEFT_WRITE_CORPUS").is_some() {
        for seed in seeds() {
            std::fs::write(corpus().join(seed.0), input(&seed)).unwrap();
        }
    }
    let mut files = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        pipeline_no_leak(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= seeds().len(), "only {files} files");
}

#[test]
fn seeds_reach_what_they_are_named_for() {
    let mut bed = Testbed::new();
    for (name, port, packets) in seeds() {
        let ran = bed.run(
            &packets
                .into_iter()
                .map(|packet| (port, packet))
                .collect::<Vec<_>>(),
        );
        let drop = ran
            .packets
            .iter()
            .find_map(|outcome| match outcome.verdict {
                Verdict::Drop(reason) => Some(reason),
                _ => None,
            });
        let expected = match name {
            "v4_too_big" => Some(DropReason::TooBig),
            "v4_no_endpoint" => Some(DropReason::NoEndpoint),
            // The corpus is run with services, this is not.
            "v4_service" | "v6_service_fragments" => Some(DropReason::NoService),
            "v4_ttl" | "vxlan_ttl" => Some(DropReason::TtlExpired),
            "vlan" => Some(DropReason::VlanTagged),
            "runt" => Some(DropReason::Truncated),
            _ => None,
        };
        assert_eq!(drop, expected, "{name}");
        if name.ends_with("_segmented") {
            assert_eq!(ran.born.len(), 2, "{name}");
        }
        if name.ends_with("_merged") {
            let merged = ran
                .packets
                .iter()
                .filter(|it| it.verdict == Verdict::Merged);
            assert_eq!(merged.count(), 2, "{name}");
        }
    }
}

#[test]
fn ten_thousand_random_frames_of_a_pod_are_dropped_each_with_a_reason() {
    let mut bed = Testbed::new();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..10_000 {
        let len = 14 + random() as usize % 200;
        let mut frame: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        if random() % 2 == 0 {
            frame[..6].copy_from_slice(&GATEWAY_MAC.0);
            frame[6..12].copy_from_slice(&A_MAC.0);
            frame[12..14].copy_from_slice(if random() % 2 == 0 {
                &[0x08, 0x00]
            } else {
                &[0x86, 0xdd]
            });
        }
        dropped(&bed.bytes(A, frame));
    }
    let counters = bed.pipeline.counters();
    assert_eq!(counters.drops.iter().sum::<u64>(), 10_000);
    assert_eq!(counters.outcomes, [0, 0, 10_000, 0, 0]);
}

/// One change of a packet's bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Flip(usize, u8),
    Cut(usize),
    Grow(usize),
    Repeat(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0_usize..120;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        (at(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at().prop_map(Change::Cut),
        (0_usize..5000).prop_map(Change::Grow),
        (0_usize..8).prop_map(Change::Repeat),
    ]
}

fn mutated(packets: &[Vec<u8>], changes: &[(usize, Change)]) -> Vec<Vec<u8>> {
    let mut packets = packets.to_vec();
    for (which, change) in changes {
        let which = which % packets.len();
        let packet = &mut packets[which];
        let len = packet.len();
        match *change {
            Change::Set(at, value) => packet[at % len] = value,
            Change::Flip(at, bit) => packet[at % len] ^= 1 << bit,
            Change::Cut(at) => packet.truncate((at % len).max(1)),
            Change::Grow(by) => packet.resize(len + by, 0x5a),
            Change::Repeat(at) => {
                let again = packet.clone();
                let at = at % (packets.len() + 1);
                packets.insert(at, again);
            }
        }
        // Most changes should not end at the IPv4 checksum.
        for packet in &mut packets {
            repair(packet);
        }
    }
    packets
}

fn repair(packet: &mut [u8]) {
    if packet.len() > 34 && packet[12..14] == [8, 0] {
        let _ = weft_wire::ipv4::fill_checksum(&mut packet[14..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_lose_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        pipeline_no_leak(&bytes);
    }

    #[test]
    fn changed_packets_lose_no_frame(
        which in 0_usize..seeds().len(),
        port in prop::option::weighted(0.1, 0_u16..4),
        cut in 0_u8..64,
        changes in prop::collection::vec((0_usize..8, change()), 0..6),
    ) {
        let (_, from, packets) = seeds().swap_remove(which);
        let port = port.map_or(from, PortId);
        let mut input = Vec::new();
        for packet in mutated(&packets, &changes) {
            let mut bytes = record(port, &packet);
            bytes[0] |= cut << 2;
            input.extend(bytes);
        }
        pipeline_no_leak(&input);
    }
}
