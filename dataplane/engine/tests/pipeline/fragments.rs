//! Fragments on their way through, and packets cut into some.

use std::collections::BTreeMap;

use weft_engine::testbed::*;
use weft_engine::{DropReason, PortId, Verdict};
use weft_wire::build::Packet;
use weft_wire::{ChecksumField, Layers, Network, Protocol};

use crate::{dropped, is_intact, layers, sent};

fn datagram(source: &str, destination: &str, len: usize) -> Packet {
    packet(source, destination)
        .udp(4000, 5000)
        .payload_len(len)
        .identification(77)
}

fn from(port: PortId, pieces: Vec<Vec<u8>>) -> Vec<(PortId, Vec<u8>)> {
    pieces.into_iter().map(|piece| (port, piece)).collect()
}

/// What the frames' fragments hold together; checks that they leave no gap and do not overlap.
fn reassembled(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = BTreeMap::new();
    let mut end = None;
    for frame in frames {
        let layers = layers(frame);
        let (offset, more) = layers
            .fragment
            .map_or((0, false), |f| (usize::from(f.offset), f.more));
        let at = match layers.network {
            Network::V6 if layers.fragment.is_some() => 14 + 48,
            _ => usize::from(layers.l4),
        };
        let part = frame[at..].to_vec();
        if !more {
            end = Some(offset + part.len());
        }
        assert!(
            parts.insert(offset, part).is_none(),
            "two fragments at {offset}"
        );
    }
    let mut whole = Vec::new();
    for (offset, part) in parts {
        assert_eq!(offset, whole.len(), "a gap or an overlap");
        whole.extend(part);
    }
    assert_eq!(Some(whole.len()), end);
    whole
}

#[test]
fn a_20_kb_datagram_crosses_in_one_burst_in_any_order() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let whole = datagram(source, destination, 20_000);
        let pieces = whole.build_fragments(1500);
        let mut orders = vec![
            pieces.clone(),
            pieces.iter().rev().cloned().collect(),
            pieces.clone(),
        ];
        orders[2].rotate_left(5);
        for order in orders {
            let ran = bed.run(&from(A, order));
            let out: Vec<_> = ran
                .packets
                .iter()
                .chain(&ran.born)
                .filter(|o| o.verdict != Verdict::Consumed)
                .collect();
            assert_eq!(out.len(), pieces.len());
            let frames: Vec<_> = out
                .iter()
                .map(|outcome| sent(outcome, B).to_vec())
                .collect();
            assert_eq!(
                reassembled(&frames),
                whole.build()[if source.contains(':') { 54 } else { 34 }..]
            );
            assert!(frames.iter().all(|frame| is_intact(frame)));
            assert_eq!(bed.pipeline.held(), 0);
        }
    }
}

#[test]
fn fragments_cross_the_tunnel_both_ways_as_one_flow() {
    let mut bed = Testbed::new();
    let ran = bed.run(&from(
        A,
        datagram("10.1.1.10", "10.1.2.20", 4000).build_fragments(1400),
    ));
    let ports: Vec<_> = ran
        .packets
        .iter()
        .map(|o| sent(o, UPLINK)[34..36].to_vec())
        .collect();
    assert!(ports.len() == 3 && ports.iter().all(|port| *port == ports[0]));
    let inner = datagram("10.1.2.20", "10.1.1.10", 4000);
    let tunnelled = |piece: &Vec<u8>| {
        let mut piece = piece.clone();
        piece[..6].copy_from_slice(&VTEP4_MAC.0);
        Packet::ip(ip("192.0.2.2"), ip("192.0.2.1"))
            .macs(NEXT_HOP_MAC, UPLINK_MAC)
            .vxlan(1, vni(VNI), &piece)
            .build()
    };
    let pieces: Vec<_> = inner.build_fragments(1400).iter().map(tunnelled).collect();
    let ran = bed.run(&from(UPLINK, pieces));
    let frames: Vec<_> = ran.packets.iter().map(|o| sent(o, A).to_vec()).collect();
    assert_eq!(reassembled(&frames), inner.build()[34..]);
}

#[test]
fn early_fragments_wait_a_second_and_no_longer() {
    let mut bed = Testbed::new();
    let pieces = datagram("10.1.1.10", "10.1.1.11", 4000).build_fragments(1400);
    let ran = bed.run(&from(A, pieces[1..].to_vec()));
    assert!(
        ran.packets
            .iter()
            .all(|outcome| outcome.verdict == Verdict::Consumed)
    );
    assert_eq!(bed.pipeline.held(), 2);
    bed.now_ns += 900_000_000;
    assert!(bed.expire().born.is_empty());
    let ran = bed.run(&from(A, pieces[..1].to_vec()));
    assert_eq!(
        (sent(&ran.packets[0], B).len(), ran.born.len()),
        (pieces[0].len(), 2)
    );
    assert_eq!(sent(&ran.born[1], B).len(), pieces[2].len());

    bed.run(&from(A, pieces[1..].to_vec()));
    bed.now_ns += 1_000_000_000;
    let out = bed.expire();
    assert_eq!(out.born.len(), 2);
    assert!(
        out.born
            .iter()
            .all(|outcome| dropped(outcome) == DropReason::FragmentTimeout)
    );
    assert_eq!(bed.pipeline.held(), 0);
}

#[test]
fn at_most_32_frames_are_held_for_a_port() {
    let mut bed = Testbed::new();
    let late = |port: PortId, source: &str, id: u32| {
        (
            port,
            datagram(source, "10.1.1.254", 3000)
                .identification(id)
                .build_fragments(1400)
                .remove(1),
        )
    };
    let batch: Vec<_> = (0..40).map(|id| late(A, "10.1.1.10", id)).collect();
    let ran = bed.run(&batch);
    assert!(
        ran.packets[..32]
            .iter()
            .all(|outcome| outcome.verdict == Verdict::Consumed)
    );
    assert!(
        ran.packets[32..]
            .iter()
            .all(|outcome| dropped(outcome) == DropReason::FragmentHoldFull)
    );
    let ran = bed.run(&[late(B, "10.1.1.11", 1)]);
    assert_eq!(ran.packets[0].verdict, Verdict::Consumed);
    let Testbed { pipeline, pool, .. } = &mut bed;
    pipeline.port_removed(A, pool);
    assert_eq!((bed.pipeline.held(), bed.accounted()), (1, FRAMES as usize));
}

#[test]
fn a_port_has_64_unfinished_datagrams() {
    let mut bed = Testbed::new();
    let first = |id| {
        (
            A,
            datagram("10.1.1.10", "10.1.1.11", 3000)
                .identification(id)
                .build_fragments(1400)
                .remove(0),
        )
    };
    for id in 0..64 {
        sent(&bed.run(&[first(id)]).packets[0], B);
    }
    assert_eq!(
        dropped(&bed.run(&[first(64)]).packets[0]),
        DropReason::FragmentTableFull
    );
    bed.now_ns += 1_100_000_000;
    bed.expire();
    sent(&bed.run(&[first(64)]).packets[0], B);
}

#[test]
fn overlapping_fragments_poison_their_datagram() {
    let mut bed = Testbed::new();
    for (source, destination) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let piece = |offset, more, len| {
            packet(source, destination)
                .identification(9)
                .raw(Protocol::UDP)
                .fragment(offset, more)
                .payload_len(len)
        };
        let first = datagram(source, destination, 2000)
            .identification(9)
            .build_fragments(1400)
            .remove(0);
        let end = layers(&first).end as usize - if source.contains(':') { 62 } else { 34 };
        let ran = bed.run(&[
            (A, first.clone()),
            (A, first),
            (A, piece(end as u16 - 8, true, 400).build()),
            (A, piece(end as u16, false, 600).build()),
        ]);
        sent(&ran.packets[0], B);
        assert_eq!(dropped(&ran.packets[1]), DropReason::FragmentDuplicate);
        assert_eq!(dropped(&ran.packets[2]), DropReason::FragmentOverlap);
        assert_eq!(dropped(&ran.packets[3]), DropReason::FragmentOverlap);
    }
}

#[test]
fn held_fragments_of_a_poisoned_datagram_are_dropped() {
    let mut bed = Testbed::new();
    let piece = |offset, more| {
        packet("10.1.1.10", "10.1.1.11")
            .identification(9)
            .raw(Protocol::UDP)
            .fragment(offset, more)
            .payload_len(400)
            .build()
    };
    let ran = bed.run(&[
        (A, piece(800, true)),
        (A, piece(1200, true)),
        (A, piece(1504, true)),
    ]);
    assert_eq!(dropped(&ran.packets[2]), DropReason::FragmentOverlap);
    assert_eq!(ran.born.len(), 2);
    assert!(
        ran.born
            .iter()
            .all(|outcome| dropped(outcome) == DropReason::FragmentOverlap)
    );
}

#[test]
fn a_spoofed_first_fragment_decides_nothing_for_the_honest_one() {
    let mut bed = Testbed::new();
    let pieces = datagram("10.1.1.10", "10.1.1.254", 2000).build_fragments(1400);
    let mut forged = pieces[0].clone();
    forged[6..12].copy_from_slice(&B_MAC.0);
    let ran = bed.run(&[(B, forged), (A, pieces[0].clone()), (A, pieces[1].clone())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::SourceAddress);
    sent(&ran.packets[1], NODE);
    sent(&ran.packets[2], NODE);
}

#[test]
fn ipv4_packets_too_long_for_the_tunnel_are_cut() {
    let mut bed = Testbed::new();
    for (destination, front, mtu) in [("10.1.2.20", 50, FOUR_MTU), ("10.1.3.20", 70, SIX_MTU)] {
        for len in [1423, 1500, 5000, 30_000] {
            for pieces in [vec![], vec![200, 77, 1001]] {
                bed.pieces = pieces;
                let whole = datagram("10.1.1.10", destination, len)
                    .dont_fragment(false)
                    .traffic_class(2);
                let mut ran =
                    bed.run(&[(A, whole.clone().checksum(ChecksumField::Partial).build())]);
                ran.packets.append(&mut ran.born);
                let mut inner = Vec::new();
                for outcome in &ran.packets {
                    let frame = sent(outcome, UPLINK);
                    assert!(is_intact(frame) && frame.len() - 14 - front <= mtu as usize + 14);
                    assert_eq!(
                        frame.len(),
                        Layers::parse(frame, frame.len()).unwrap().end as usize
                    );
                    assert_eq!(crate::v4(&frame[front..]).ttl(), 63);
                    assert_eq!(crate::v4(&frame[front..]).identification(), 77);
                    inner.push(frame[front..].to_vec());
                }
                assert_eq!(reassembled(&inner), whole.build()[34..]);
                assert_eq!(inner.len(), (len + 8).div_ceil((mtu as usize - 20) & !7));
            }
        }
    }
}

#[test]
fn outer_identifications_of_cut_packets_differ() {
    let mut bed = Testbed::new();
    let whole = datagram("10.1.1.10", "10.1.2.20", 5000).dont_fragment(false);
    let ran = bed.run(&[(A, whole.build())]);
    let all = ran.packets.iter().chain(&ran.born);
    let ids: std::collections::HashSet<_> =
        all.map(|o| crate::v4(&o.bytes).identification()).collect();
    assert_eq!(ids.len(), 1 + ran.born.len());
}

#[test]
fn a_fragment_can_be_cut_again_and_options_are_copied_as_they_say() {
    let mut bed = Testbed::new();
    let whole = datagram("10.1.1.10", "10.1.2.20", 5000).dont_fragment(false);
    let mut inner = Vec::new();
    for piece in whole.build_fragments(2500) {
        let ran = bed.run(&[(A, piece)]);
        inner.extend(
            ran.packets
                .iter()
                .chain(&ran.born)
                .map(|o| sent(o, UPLINK)[50..].to_vec()),
        );
    }
    assert_eq!(reassembled(&inner), whole.build()[34..]);

    // Router alert has the copied flag, a timestamp has not.
    let options = [148, 4, 0, 0, 68, 4, 5, 0];
    let ran = bed.run(&[(A, whole.clone().ipv4_options(&options).build())]);
    let first = sent(&ran.packets[0], UPLINK);
    assert_eq!(first[50 + 34..50 + 42], options);
    for outcome in &ran.born {
        let frame = sent(outcome, UPLINK);
        assert_eq!(frame[50 + 14], 0x46);
        assert_eq!(frame[50 + 34..50 + 38], options[..4]);
        assert!(is_intact(&frame[50..]));
    }
}

#[test]
fn a_smaller_pod_gets_fragments_from_a_local_one() {
    let mut bed = Testbed::new();
    bed.change_port(B, |port| port.mtu = 576);
    let whole = datagram("10.1.1.10", "10.1.1.11", 9000)
        .dont_fragment(false)
        .checksum(ChecksumField::Partial);
    let ran = bed.run(&[(A, whole.build())]);
    let frames: Vec<_> = ran
        .packets
        .iter()
        .chain(&ran.born)
        .map(|o| sent(o, B).to_vec())
        .collect();
    assert!(
        frames
            .iter()
            .all(|frame| frame.len() <= 14 + 576 && is_intact(frame))
    );
    assert_eq!(
        reassembled(&frames),
        whole.checksum(ChecksumField::Full).build()[34..]
    );
}

#[test]
fn cutting_without_free_frames_or_room_drops_the_packet_whole() {
    let mut bed = Testbed::new();
    let whole = datagram("10.1.1.10", "10.1.2.20", 20_000).dont_fragment(false);
    let mut taken: Vec<_> = (0..FRAMES - 10)
        .map(|_| bed.pool.alloc().unwrap())
        .collect();
    let before = bed.pool.len();
    let frames = chain_of(&bed.umem, &mut bed.pool, &whole.build(), &[]);
    let mut batch = weft_engine::Batch::new();
    batch.packets.push(weft_engine::Packet::received(
        frames,
        A,
        weft_engine::PortKind::Pod,
    ));
    let Testbed {
        pipeline,
        tables,
        umem,
        pool,
        now_ns,
        ..
    } = &mut bed;
    pipeline.run(
        &mut batch,
        &mut weft_engine::Env {
            tables,
            umem,
            pool,
            now_ns: *now_ns,
        },
    );
    assert_eq!(batch.packets[0].verdict, Verdict::Drop(DropReason::NoFrame));
    assert!(batch.born.is_empty());
    batch.recycle(&mut bed.pool);
    assert_eq!(bed.pool.len(), before);
    taken.drain(..).for_each(|frame| bed.pool.free(frame));

    bed.change_port(B, |port| port.mtu = 68);
    let whole = datagram("10.1.1.10", "10.1.1.11", 60_000).dont_fragment(false);
    let out = bed.one(A, &whole);
    assert_eq!(dropped(&out), DropReason::BurstFull);
}
