//! Segmentation: TCP packets of local stacks, cut to what path and receiver take.

use proptest::prelude::*;
use weft_engine::testbed::*;
use weft_engine::{BORN_MAX, Checksum, DropReason, NodeTable, PortId, Remote, Verdict};
use weft_wire::build::Packet;
use weft_wire::{ChecksumField, MacAddr, TcpFlags};
use weft_xsk::{CHAIN_MAX, FRAME_BYTES, RX_OFFSET};

use crate::{dropped, fill_checksums, is_intact, kernel_segments, sent};

/// Bytes of a packet in a fresh frame.
const FRAME_ROOM: usize = FRAME_BYTES - RX_OFFSET;

/// Who sends to whom, and what is in front of the packet on its way out.
struct Way {
    source: &'static str,
    destination: &'static str,
    front: usize,
    port: PortId,
    macs: (MacAddr, MacAddr),
}

const fn way(
    source: &'static str,
    destination: &'static str,
    front: usize,
    port: PortId,
    macs: (MacAddr, MacAddr),
) -> Way {
    Way {
        source,
        destination,
        front,
        port,
        macs,
    }
}

const WAYS: [Way; 6] = [
    way("10.1.1.10", "10.1.2.20", 50, UPLINK, (VTEP4_MAC, FOUR_MAC)),
    way(
        "fd00:1:1::10",
        "fd00:1:2::20",
        50,
        UPLINK,
        (VTEP4_MAC, FOUR_MAC),
    ),
    way("10.1.1.10", "10.1.3.20", 70, UPLINK, (VTEP6_MAC, SIX_MAC)),
    way(
        "fd00:1:1::10",
        "fd00:1:3::20",
        70,
        UPLINK,
        (VTEP6_MAC, SIX_MAC),
    ),
    way("10.1.1.10", "10.1.1.11", 0, B, (GATEWAY_MAC, B_MAC)),
    way("fd00:1:1::10", "fd00:1:1::11", 0, B, (GATEWAY_MAC, B_MAC)),
];

/// Options as stacks send them: none, timestamps, timestamps with a SACK block, one nobody knows, all the room.
fn options(kind: usize) -> Vec<u8> {
    let timestamps = [1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
    let sack = [1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    match kind {
        0 => vec![],
        1 => timestamps.to_vec(),
        2 => [timestamps, sack].concat(),
        3 => vec![253, 6, 0xca, 0xfe, 0xba, 0xbe, 1, 0],
        _ => vec![1; 40],
    }
}

/// What a packet is and how the way takes it.
#[derive(Clone, Debug)]
struct Case {
    way: usize,
    len: usize,
    mss: Option<u16>,
    mtu: u32,
    options: usize,
    flags: u8,
    urgent: u16,
    sequence: u32,
    identification: u16,
    dont_fragment: bool,
    class: u8,
    pieces: Vec<usize>,
    gso_port: bool,
}

prop_compose! {
    fn case()(
        way in 0..WAYS.len(),
        len in prop_oneof![1_usize..4000, 1_usize..65_001],
        mss in prop_oneof![
            Just(None),
            (500_u16..1500).prop_map(Some),
            (1_u16..9000).prop_map(Some),
        ],
        mtu in prop_oneof![Just(1450_u32), 1280_u32..9000],
        options in 0_usize..5,
        flags in any::<u8>(),
        urgent in any::<u16>(),
        sequence in prop_oneof![any::<u32>(), (u32::MAX - 70_000)..=u32::MAX],
        identification in any::<u16>(),
        dont_fragment in any::<bool>(),
        class in any::<u8>(),
        pieces in prop::collection::vec(1_usize..FRAME_ROOM, 0..5),
        gso_port in any::<bool>(),
    ) -> Case {
        Case {
            way, len, mss, mtu, options, flags, urgent, sequence, identification, dont_fragment, class, pieces,
            gso_port,
        }
    }
}

impl Case {
    fn way(&self) -> &'static Way {
        &WAYS[self.way]
    }

    /// Flags of a connection under way.
    fn flags(&self) -> TcpFlags {
        let never = TcpFlags::SYN | TcpFlags::RST;
        TcpFlags(self.flags & !never.0) | TcpFlags::ACK
    }

    /// As the pod's stack sends it.
    fn packet(&self, port: u16) -> Packet {
        let urgent = if self.flags().contains(TcpFlags::URG) {
            self.urgent
        } else {
            0
        };
        packet(self.way().source, self.way().destination)
            .tcp(port, 80)
            .sequence(self.sequence, 77)
            .window(512)
            .flags(self.flags())
            .urgent(urgent)
            .tcp_options(&options(self.options))
            .identification(self.identification.into())
            .dont_fragment(self.dont_fragment)
            .traffic_class(self.class)
            .payload(&payload(self.len))
    }

    /// How the kernel could have cut `len` bytes into frames: whole headers in the first, no more than it can say.
    fn frames(&self, len: usize) -> Vec<usize> {
        let mut pieces = self.pieces.clone();
        if let Some(first) = pieces.first_mut() {
            *first = (*first).max(14 + 40 + 60);
        }
        let frames = |pieces: &[usize]| {
            let rest = len.saturating_sub(pieces.iter().sum());
            pieces.len() + rest.div_ceil(FRAME_ROOM)
        };
        while frames(&pieces) > CHAIN_MAX {
            pieces.pop();
        }
        pieces
    }

    /// Payload bytes of a segment.
    fn size(&self) -> usize {
        let tcp_len = 20 + options(self.options).len();
        let ip_len = if self.way().source.contains(':') {
            40
        } else {
            20
        };
        let by_path = match self.way().front {
            0 => usize::MAX,
            _ => self.mtu as usize - ip_len - tcp_len,
        };
        // TCP_MIN_SND_MSS: no sender obeys less.
        let by_receiver = self
            .mss
            .map_or(usize::MAX, |mss| usize::from(mss).max(48) + 20 - tcp_len);
        by_path.min(by_receiver)
    }

    /// The segments as they must be inside the tunnel, from the packet as it was sent.
    fn expected(&self, packet: &Packet) -> Vec<Vec<u8>> {
        let payload = payload(self.len);
        let parts: Vec<&[u8]> = payload.chunks(self.size()).collect();
        let mut segments = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let offset = index * self.size();
            let mut flags = self.flags().0;
            if index + 1 < parts.len() {
                flags &= !(TcpFlags::FIN | TcpFlags::PSH).0;
            }
            if index > 0 {
                flags &= !TcpFlags::CWR.0;
            }
            let urgent = usize::from(self.urgent).checked_sub(offset);
            if urgent.is_none() {
                flags &= !TcpFlags::URG.0;
            }
            let urgent = match urgent {
                Some(urgent) if flags & TcpFlags::URG.0 != 0 => urgent as u16,
                _ => 0,
            };
            let id = self.identification.wrapping_add(index as u16);
            let mut segment = packet
                .clone()
                .macs(self.way().macs.0, self.way().macs.1)
                .hops(63)
                .sequence(self.sequence.wrapping_add(offset as u32), 77)
                .flags(TcpFlags(flags))
                .urgent(urgent)
                .identification(id.into())
                .payload(part)
                .build();
            fill_checksums(&mut segment);
            segments.push(segment);
        }
        segments
    }
}

/// Bytes of which no stretch repeats soon.
fn payload(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// A connection's opening, from the remote end's SYN-ACK on: what it announced is known. Returns nothing; the pod's
/// port names the connection.
fn open(bed: &mut Testbed, way: &Way, port: u16, mss: u16) {
    let syn = packet(way.source, way.destination)
        .tcp(port, 80)
        .flags(TcpFlags::SYN);
    sent(&bed.one(A, &syn), way.port);
    let answer = packet(way.destination, way.source)
        .tcp(80, port)
        .flags(TcpFlags::SYN | TcpFlags::ACK)
        .mss(mss);
    let out = match way.front {
        0 => bed.one(B, &answer),
        50 => bed.one(UPLINK, &from_four(&answer)),
        _ => bed.one(UPLINK, &from_six(&answer)),
    };
    sent(&out, A);
}

fn set_mtu(bed: &mut Testbed, mtu: u32) {
    for id in [FOUR, SIX] {
        let path = bed.tables.remote(id).unwrap().path;
        bed.change(|builder| builder.set_path(id, path, mtu));
    }
}

/// Whether the outer headers in front of a segment are right: lengths, checksums.
fn check_outer(frame: &[u8], front: usize) {
    assert!(is_intact(frame), "outer headers of {} bytes", frame.len());
    let v4 = front == 50;
    let udp = if v4 { 34 } else { 54 };
    let udp_len = usize::from(u16::from_be_bytes([frame[udp + 4], frame[udp + 5]]));
    assert_eq!(udp_len, frame.len() - udp);
    assert_eq!(frame[udp + 6..udp + 8] == [0, 0], v4, "the outer checksum");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn segments_are_those_a_kernel_would_have_sent(case in case()) {
        // One testbed for all cases: connections differ by their port.
        thread_local! {
            static STATE: std::cell::RefCell<(Testbed, u16)> = std::cell::RefCell::new((Testbed::new(), 1000));
        }
        STATE.with_borrow_mut(|(bed, port)| {
            *port += 1;
            check(bed, *port, &case);
        });
    }
}

fn check(bed: &mut Testbed, port: u16, case: &Case) {
    let way = case.way();
    set_mtu(bed, case.mtu);
    bed.change_port(B, |entry| {
        (entry.gso, entry.tx_checksum) = (case.gso_port, case.gso_port);
    });
    bed.pieces.clear();
    if let Some(mss) = case.mss {
        open(bed, way, port, mss);
    }
    let packet = case.packet(port);
    let expected = case.expected(&packet);
    let bytes = packet.checksum(ChecksumField::Partial).build();
    bed.pieces = case.frames(bytes.len());
    let held = bed.pieces.len()
        + bytes
            .len()
            .saturating_sub(bed.pieces.iter().sum())
            .div_ceil(FRAME_ROOM);
    let ran = bed.run(&[(A, bytes)]);
    let whole = &ran.packets[0];
    if way.front == 0 && case.gso_port {
        assert_eq!(whole.verdict, Verdict::Tx(way.port));
        assert!(
            matches!(whole.checksum, Checksum::Partial { .. }),
            "left to the receiver"
        );
        assert_eq!(whole.gso.is_some(), expected.len() > 1);
        // A kernel leaves the urgent pointer as it is.
        if let Some(gso) = whole.gso
            && !case.flags().contains(TcpFlags::URG)
        {
            assert_eq!(usize::from(gso.size), case.size());
            assert!(kernel_segments(&whole.bytes, gso) == expected);
        }
        return;
    }
    let frames = |segment: &Vec<u8>| (segment.len() + way.front).div_ceil(FRAME_ROOM);
    let needed: usize = expected.iter().skip(1).map(frames).sum();
    if expected.len() > BORN_MAX {
        assert_eq!(dropped(whole), DropReason::BurstFull);
        assert!(ran.born.is_empty());
    } else if needed + held > FRAMES as usize {
        assert_eq!(dropped(whole), DropReason::NoFrame);
        assert!(ran.born.is_empty());
    } else {
        assert_eq!(ran.in_order.len(), expected.len());
        for (outcome, expected) in ran.in_order.iter().zip(&expected) {
            let frame = sent(outcome, way.port);
            assert_eq!((outcome.checksum, outcome.gso), (Checksum::None, None));
            assert!(
                frame[way.front..] == *expected,
                "{:02x?} is not {expected:02x?}",
                &frame[way.front..]
            );
            assert!(is_intact(&frame[way.front..]));
            if way.front > 0 {
                check_outer(frame, way.front);
                assert!(frame.len() - way.front - 14 <= case.mtu as usize);
            }
        }
    }
}

#[test]
fn packets_behind_a_segmented_one_do_not_overtake_its_segments() {
    for way in &WAYS[..4] {
        let mut bed = Testbed::new();
        let big = |at: u32, len: usize| {
            packet(way.source, way.destination)
                .tcp(1000, 80)
                .sequence(at, 1)
                .payload(&payload(len))
                .checksum(ChecksumField::Partial)
                .build()
        };
        let batch = [(0, 20_000), (20_000, 1), (20_001, 9000), (29_001, 500)];
        let ran = bed.run(&batch.map(|(at, len)| (A, big(at, len))));
        let tcp = way.front + if way.source.contains(':') { 54 } else { 34 };
        let mut next = 0;
        for outcome in &ran.in_order {
            let frame = sent(outcome, UPLINK);
            let sequence = u32::from_be_bytes(frame[tcp + 4..tcp + 8].try_into().unwrap());
            assert_eq!(sequence, next, "in order");
            next += (frame.len() - tcp - 20) as u32;
        }
        assert_eq!(next, 29_501);
        assert!(ran.in_order.len() > 20);
    }
}

#[test]
fn fragments_follow_their_first_one() {
    let mut bed = Testbed::new();
    let datagram = |port| {
        let whole = packet("10.1.1.10", "10.1.2.20").udp(port, 53);
        (A, whole.payload_len(4000).dont_fragment(false).build())
    };
    let ran = bed.run(&[datagram(1), datagram(2)]);
    let places: Vec<u16> = ran
        .in_order
        .iter()
        .map(|outcome| {
            let ip = crate::v4(&sent(outcome, UPLINK)[50..]);
            ip.fragment().unwrap().offset
        })
        .collect();
    assert_eq!(places.len(), 6);
    assert_eq!(places[..3], places[3..]);
    assert!(places[..3].is_sorted());
}

/// A packet of 65,000 bytes to the remote end.
fn large(way: &Way, port: u16) -> Vec<u8> {
    packet(way.source, way.destination)
        .tcp(port, 80)
        .payload(&payload(65_000))
        .checksum(ChecksumField::Partial)
        .build()
}

#[test]
fn out_of_frames_the_whole_packet_is_dropped_and_the_others_pass() {
    for way in &WAYS[..4] {
        let mut bed = Testbed::new();
        // These leave a part of the frames.
        let mut batch = vec![(A, large(&WAYS[4], 999)); 20];
        for port in 1000..1003 {
            open(&mut bed, way, port, 250);
            batch.push((A, large(way, port)));
        }
        let ran = bed.run(&batch);
        let (local, cut) = ran.packets.split_at(20);
        assert!(local.iter().all(|it| it.verdict == Verdict::Tx(B)));
        assert!(cut[..2].iter().all(|it| it.verdict == Verdict::Tx(UPLINK)));
        assert_eq!(dropped(&cut[2]), DropReason::NoFrame);
        assert_eq!(ran.born.len(), 2 * 259, "nothing is left of the third");
    }
}

#[test]
fn out_of_room_the_whole_packet_is_dropped_and_the_others_pass() {
    for way in &WAYS[..4] {
        let mut bed = Testbed::new();
        open(&mut bed, way, 1000, 60);
        open(&mut bed, way, 1001, 1400);
        let ran = bed.run(&[(A, large(way, 1000)), (A, large(way, 1001))]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::BurstFull);
        sent(&ran.packets[1], UPLINK);
        assert!(ran.born.len() > 45);
    }
}

/// Remote four as a node of its own: what A's node sends it arrives at its pod, on port A.
fn remote_four() -> Testbed {
    let mut bed = Testbed::new();
    let path = bed.tables.remote(FOUR).unwrap().path;
    bed.change(|builder| {
        builder.remove_remote(FOUR);
        builder.set_node(Some(NodeTable {
            addresses: vec![ip("192.0.2.2")],
            vtep4_mac: Some(FOUR_MAC),
            pod_cidrs: vec![
                "10.1.2.0/24".parse().unwrap(),
                "fd00:1:2::/64".parse().unwrap(),
            ],
            ..node()
        }));
        let back = Remote {
            vtep: ip("192.0.2.1"),
            vtep_mac: VTEP4_MAC,
            prefixes: vec![
                "10.1.1.0/24".parse().unwrap(),
                "fd00:1:1::/64".parse().unwrap(),
            ],
            addresses: vec![ip("192.0.2.1")],
            path,
            inner_mtu: FOUR_MTU,
        };
        builder.add_remote(back).unwrap();
    });
    bed.change_port(UPLINK, |port| port.mac = MacAddr::ZERO);
    bed.change_port(B, |port| {
        port.addresses4.clear();
        port.addresses6.clear();
    });
    bed.change_port(A, |port| {
        port.addresses4 = vec!["10.1.2.20".parse().unwrap()];
        port.addresses6 = vec!["fd00:1:2::20".parse().unwrap()];
    });
    bed
}

#[test]
fn what_was_cut_here_is_whole_again_at_the_other_node() {
    let (mut here, mut there) = (Testbed::new(), remote_four());
    for way in &WAYS[..2] {
        for len in [1, 1399, 1400, 1401, 2800, 23_000, 65_000] {
            let before = packet(way.source, way.destination)
                .tcp(1000, 80)
                .flags(TcpFlags::ACK | TcpFlags::PSH)
                .tcp_options(&options(1))
                .payload(&payload(len))
                .checksum(ChecksumField::Partial);
            let cut = here.run(&[(A, before.build())]);
            let wire: Vec<_> = cut
                .in_order
                .into_iter()
                .map(|it| (UPLINK, it.bytes))
                .collect();
            let mut payloads = Vec::new();
            let mut arrived = 0;
            for batch in wire.chunks(64) {
                let merged = there.run(batch);
                for outcome in merged
                    .in_order
                    .iter()
                    .filter(|it| it.verdict != Verdict::Merged)
                {
                    let frame = sent(outcome, A);
                    let headers = if way.source.contains(':') { 86 } else { 66 };
                    payloads.extend_from_slice(&frame[headers..]);
                    arrived += 1;
                    let segments = outcome
                        .gso
                        .map_or(1, |gso| kernel_segments(frame, gso).len());
                    assert!(segments <= CHAIN_MAX);
                    assert_eq!(outcome.gso.is_some(), segments > 1);
                }
            }
            assert!(payloads == payload(len), "{len} bytes");
            assert_eq!(arrived, wire.len().div_ceil(CHAIN_MAX), "{len} bytes");
        }
    }
}
