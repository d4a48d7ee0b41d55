//! Merging: segments from the wire that go to a local stack as one packet.

use proptest::prelude::*;
use weft_engine::testbed::*;
use weft_engine::{Checksum, PortId, Verdict};
use weft_wire::build::Packet;
use weft_wire::{TcpFlags, checksum};
use weft_xsk::{CHAIN_MAX, GsoKind};

use crate::{Gso, kernel_segments, sent};

/// Addresses of the connections: two of one pair of hosts, one of each other kind.
const CONNECTIONS: [(&str, &str, PortId, u16); 5] = [
    ("10.1.2.20", "10.1.1.10", A, 1000),
    ("10.1.2.20", "10.1.1.10", A, 1001),
    ("fd00:1:2::20", "fd00:1:1::10", A, 1000),
    ("10.1.2.20", "10.1.1.11", B, 1000),
    ("fd00:1:2::20", "fd00:1:1::11", B, 1000),
];

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    connection: usize,
    udp: bool,
    sequence: u32,
    len: usize,
    acknowledgement: u32,
    window: u16,
    flags: u8,
    class: u8,
    hops: u8,
    dont_fragment: bool,
    identification: u16,
    options: usize,
    /// A bit of its payload was flipped on the way.
    flipped: bool,
}

impl Segment {
    fn packet(&self) -> Packet {
        let (source, destination, _, port) = CONNECTIONS[self.connection];
        let packet = packet(source, destination)
            .hops(self.hops)
            .traffic_class(self.class)
            .dont_fragment(self.dont_fragment)
            .identification(self.identification.into());
        let payload: Vec<u8> = (0..self.len as u32)
            .map(|at| self.sequence.wrapping_add(at) as u8 ^ port as u8)
            .collect();
        if self.udp {
            return packet.udp(port, 80).payload(&payload);
        }
        packet
            .tcp(port, 80)
            .sequence(self.sequence, self.acknowledgement)
            .window(self.window)
            .flags(TcpFlags(self.flags))
            .tcp_options(OPTIONS[self.options])
            .payload(&payload)
    }

    /// As it arrives at the uplink.
    fn wire(&self) -> Vec<u8> {
        self.flip(from_four(&self.packet()).build())
    }

    /// As a pod must see it when it comes alone.
    fn delivered(&self) -> Vec<u8> {
        let mac = match CONNECTIONS[self.connection].2 {
            A => A_MAC,
            _ => B_MAC,
        };
        let packet = self.packet().macs(GATEWAY_MAC, mac).hops(self.hops - 1);
        self.flip(packet.build())
    }

    fn flip(&self, mut frame: Vec<u8>) -> Vec<u8> {
        if self.flipped && self.len > 0 {
            *frame.last_mut().unwrap() ^= 4;
        }
        frame
    }

    /// Whether it may be part of a row at all.
    fn is_plain(&self) -> bool {
        let plain = TcpFlags::ACK | TcpFlags::PSH | TcpFlags::ECE;
        !self.udp && self.len > 0 && self.flags & !plain.0 == 0 && self.flags & TcpFlags::ACK.0 != 0
    }

    fn pushes(&self) -> bool {
        self.flags & TcpFlags::PSH.0 != 0
    }
}

const OPTIONS: [&[u8]; 3] = [
    &[],
    &[1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7],
    &[1, 1, 8, 10, 0, 1, 2, 4, 4, 5, 6, 7],
];

/// Rows of segments that one packet each must be made of, by place; the plain model.
fn rows(segments: &[Segment]) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        // The latest row of the connection is the only one that may grow.
        let last = rows.iter_mut().rev().find(|row| {
            let first = &segments[row[0]];
            first.connection == segment.connection && first.udp == segment.udp
        });
        match last {
            Some(row) if continues(segments, row, segment) => row.push(index),
            _ => rows.push(vec![index]),
        }
    }
    rows
}

fn continues(segments: &[Segment], row: &[usize], next: &Segment) -> bool {
    let first = &segments[row[0]];
    let last = &segments[row[row.len() - 1]];
    let v6 = CONNECTIONS[next.connection].0.contains(':');
    let same = Segment {
        sequence: first.sequence,
        len: first.len,
        flags: first.flags | TcpFlags::PSH.0,
        identification: first.identification,
        // IPv6 has no such flag.
        dont_fragment: if v6 {
            first.dont_fragment
        } else {
            next.dont_fragment
        },
        ..next.clone()
    } == Segment {
        flags: first.flags | TcpFlags::PSH.0,
        ..first.clone()
    };
    let identified = v6
        || next.dont_fragment
        || next.identification == first.identification.wrapping_add(row.len() as u16);
    same && identified
        && first.is_plain()
        && next.is_plain()
        && (first.flags | TcpFlags::PSH.0) == (next.flags | TcpFlags::PSH.0)
        && !first.flipped
        && !last.pushes()
        && last.len == first.len
        && next.len <= first.len
        && next.sequence == last.sequence.wrapping_add(last.len as u32)
        && row.len() < CHAIN_MAX
}

/// What a sender does next, or the network does to it.
#[derive(Clone, Debug)]
enum Event {
    /// One more segment of full size.
    Send,
    /// One of another length.
    Len(usize),
    /// A pure acknowledgement.
    Ack,
    /// A segment with other flags.
    Flags(u8),
    /// From now on other values.
    Window(u16),
    Acknowledge,
    Options(usize),
    Hops(u8),
    DontFragment(bool),
    /// Marked by a router.
    Congestion,
    /// The bytes before the last are sent again.
    Retransmit,
    /// Sent and lost.
    Lose,
    /// Arrives twice.
    Duplicate,
    /// Arrives before the one in front of it.
    Swap,
    /// A bit flips.
    Flip,
    /// A datagram with the same addresses and ports.
    Datagram,
    /// Identifications jump.
    Identification(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        60 => Just(Event::Send),
        2 => (1_usize..1401).prop_map(Event::Len),
        2 => Just(Event::Ack),
        2 => Just(Event::Flags(TcpFlags::PSH.0)),
        2 => prop::sample::select(vec![0x01_u8, 0x02, 0x04, 0x20, 0x40, 0x80]).prop_map(Event::Flags),
        1 => any::<u16>().prop_map(Event::Window),
        1 => Just(Event::Acknowledge),
        2 => (0_usize..3).prop_map(Event::Options),
        1 => (2_u8..255).prop_map(Event::Hops),
        1 => any::<bool>().prop_map(Event::DontFragment),
        2 => Just(Event::Congestion),
        1 => Just(Event::Retransmit),
        1 => Just(Event::Lose),
        1 => Just(Event::Duplicate),
        1 => Just(Event::Swap),
        2 => Just(Event::Flip),
        1 => Just(Event::Datagram),
        1 => any::<u16>().prop_map(Event::Identification),
    ]
}

/// Plays events of interleaved connections.
fn play(sizes: &[usize], start: u32, events: &[(usize, Event)]) -> Vec<Segment> {
    let mut wire: Vec<Segment> = Vec::new();
    let mut senders: Vec<Segment> = (0..CONNECTIONS.len())
        .map(|connection| Segment {
            connection,
            udp: false,
            sequence: start,
            len: sizes[connection],
            acknowledgement: 1,
            window: 500,
            flags: TcpFlags::ACK.0,
            class: 2,
            hops: 64,
            dont_fragment: true,
            identification: 7,
            options: 1,
            flipped: false,
        })
        .collect();
    for (connection, event) in events {
        let sender = &mut senders[*connection];
        let mut one = sender.clone();
        match event {
            Event::Len(len) => one.len = *len,
            Event::Ack => one.len = 0,
            Event::Flags(flags) => one.flags |= flags,
            Event::Window(window) => one.window = *window,
            Event::Acknowledge => one.acknowledgement += 1000,
            Event::Options(options) => one.options = *options,
            Event::Hops(hops) => one.hops = *hops,
            Event::DontFragment(on) => one.dont_fragment = *on,
            Event::Congestion => one.class = 3,
            Event::Retransmit => one.sequence = one.sequence.wrapping_sub(one.len as u32),
            Event::Flip => one.flipped = true,
            Event::Datagram => one.udp = true,
            Event::Identification(id) => one.identification = *id,
            Event::Send | Event::Lose | Event::Duplicate | Event::Swap => {}
        }
        *sender = Segment {
            len: sender.len,
            flags: sender.flags,
            class: sender.class,
            udp: false,
            flipped: false,
            identification: one.identification.wrapping_add(1),
            sequence: if one.udp {
                one.sequence
            } else {
                one.sequence.wrapping_add(one.len as u32)
            },
            ..one.clone()
        };
        match event {
            Event::Lose => {}
            Event::Swap if !wire.is_empty() => {
                let at = wire.len() - 1;
                wire.insert(at, one);
            }
            Event::Duplicate => wire.extend([one.clone(), one]),
            _ => wire.push(one),
        }
    }
    wire
}

/// With "don't fragment" the identification means nothing (RFC 6864 section 4.1), and a row keeps one only.
fn without_identification(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] && frame[20] & 0x40 != 0 {
        frame[18..20].fill(0);
        weft_wire::ipv4::fill_checksum(&mut frame[14..]).unwrap();
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_arrives_is_what_was_sent_in_rows(
        sizes in prop::collection::vec(prop_oneof![Just(1398_usize), 1_usize..1400], CONNECTIONS.len()),
        start in prop_oneof![any::<u32>(), (u32::MAX - 20_000)..=u32::MAX],
        events in prop_oneof![
            prop::collection::vec((0..CONNECTIONS.len(), event()), 2..60),
            prop::collection::vec((0_usize..2, event()), 2..60),
        ],
    ) {
        thread_local! {
            static BED: std::cell::RefCell<Testbed> = std::cell::RefCell::new(Testbed::new());
        }
        let mut wire = play(&sizes, start, &events);
        wire.truncate(64);
        BED.with_borrow_mut(|bed| check(bed, &wire));
    }
}

fn check(bed: &mut Testbed, wire: &[Segment]) {
    let batch: Vec<_> = wire.iter().map(|it| (UPLINK, it.wire())).collect();
    let ran = bed.run(&batch);
    assert!(ran.born.is_empty());
    let rows = rows(wire);
    let arrived: Vec<_> = ran
        .in_order
        .iter()
        .filter(|it| it.verdict != Verdict::Merged)
        .collect();
    assert_eq!(arrived.len(), rows.len(), "as many packets as rows");
    for (outcome, row) in arrived.into_iter().zip(&rows) {
        let frame = sent(outcome, CONNECTIONS[wire[row[0]].connection].2);
        let segments = match outcome.gso {
            None => vec![frame.to_vec()],
            Some(gso) => {
                check_whole(frame, gso, outcome.checksum);
                kernel_segments(frame, gso)
            }
        };
        assert_eq!(segments.len(), row.len(), "row {row:?}");
        for (segment, index) in segments.into_iter().zip(row) {
            let expected = without_identification(wire[*index].delivered());
            assert!(
                without_identification(segment) == expected,
                "segment {index}"
            );
        }
    }
}

/// Lengths and the partial checksum of a merged packet, as a receiving stack trusts them.
fn check_whole(frame: &[u8], gso: Gso, field: Checksum) {
    let layers = crate::layers(frame);
    let v4 = gso.kind == GsoKind::TcpV4;
    assert_eq!(v4, frame[12..14] == [8, 0]);
    let l4 = if v4 { 34 } else { 54 };
    assert_eq!(
        field,
        Checksum::Partial {
            start: l4,
            offset: 16
        }
    );
    assert!(!v4 || weft_wire::ipv4::checksum_is_valid(&frame[14..]));
    assert_eq!(
        layers.end as usize,
        frame.len(),
        "the IP header says the whole length"
    );
    assert!(usize::from(gso.size) < frame.len() - usize::from(gso.header_len));
    let pseudo = checksum::fold(layers.pseudo_sum(frame).unwrap());
    let at = usize::from(l4) + 16;
    assert_eq!(u16::from_be_bytes([frame[at], frame[at + 1]]), pseudo);
    // Completed as a device would, it holds.
    let mut whole = frame.to_vec();
    let value = checksum::of(&frame[usize::from(l4)..]);
    whole[at..at + 2].copy_from_slice(&value.to_be_bytes());
    assert!(crate::is_intact(&whole));
}

/// Segments of one connection, alike and in order.
fn train(connection: usize, count: usize) -> Vec<Segment> {
    let events = vec![(connection, Event::Send); count];
    play(&[1000; CONNECTIONS.len()], 1, &events)
}

fn run(bed: &mut Testbed, wire: &[Segment]) -> Vec<(Vec<u8>, Option<Gso>)> {
    let batch: Vec<_> = wire.iter().map(|it| (UPLINK, it.wire())).collect();
    let ran = bed.run(&batch);
    ran.in_order
        .into_iter()
        .filter(|it| it.verdict != Verdict::Merged)
        .map(|it| (it.bytes, it.gso))
        .collect()
}

#[test]
fn a_train_is_one_packet() {
    let mut bed = Testbed::new();
    for connection in 0..CONNECTIONS.len() {
        let arrived = run(&mut bed, &train(connection, CHAIN_MAX));
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].1.unwrap().size, 1000);
        let merged = bed.pipeline.counters().outcomes[4];
        assert_eq!(merged as usize, (connection + 1) * (CHAIN_MAX - 1));
    }
}

#[test]
fn a_flipped_bit_is_never_vouched_for() {
    let mut bed = Testbed::new();
    let good = train(0, 6);
    for place in 0..good.len() {
        let len = good[place].wire().len();
        // Every byte behind the outer headers, the inner addresses and lengths, which are checked before.
        for at in (50 + 14 + 20)..len {
            let mut batch: Vec<_> = good.iter().map(|it| (UPLINK, it.wire())).collect();
            batch[place].1[at] ^= 1 << (at % 8);
            let wrong = batch[place].1[50 + 14 + 20..].to_vec();
            let ran = bed.run(&batch);
            let alone = ran
                .in_order
                .iter()
                .any(|it| it.gso.is_none() && it.bytes.get(34..) == Some(&wrong[..]));
            let dropped = ran
                .packets
                .iter()
                .any(|it| matches!(it.verdict, Verdict::Drop(_)));
            assert!(
                alone || dropped,
                "bit {at} of segment {place} went into a row"
            );
        }
        bed.now_ns += 1_000_000_000;
    }
}

#[test]
fn ports_that_take_no_gso_get_every_segment() {
    let mut bed = Testbed::new();
    bed.change_port(A, |port| port.gso = false);
    let arrived = run(&mut bed, &train(0, 5));
    assert_eq!(arrived.len(), 5);
    assert!(arrived.iter().all(|(_, gso)| gso.is_none()));
}

#[test]
fn datagrams_and_local_segments_stay_alone() {
    let mut bed = Testbed::new();
    let datagrams: Vec<_> = (0..5)
        .map(|_| {
            let datagram = packet("10.1.2.20", "10.1.1.10").udp(1, 2).payload_len(1000);
            (UPLINK, from_four(&datagram).build())
        })
        .collect();
    let local: Vec<_> = (0..5)
        .map(|index| {
            let segment = packet("10.1.1.11", "10.1.1.10").tcp(1, 2);
            (
                B,
                segment.sequence(index * 1000, 1).payload_len(1000).build(),
            )
        })
        .collect();
    for batch in [datagrams, local] {
        let ran = bed.run(&batch);
        assert!(ran.packets.iter().all(|it| it.gso.is_none()));
        assert!(ran.packets.iter().all(|it| it.verdict == Verdict::Tx(A)));
    }
}

#[test]
fn more_connections_than_can_be_merged_at_once_pass_unharmed() {
    let mut bed = Testbed::new();
    let batch: Vec<_> = (0..60_u32)
        .map(|index| {
            let (port, at) = (1000 + (index % 20) as u16, index / 20);
            let segment = packet("10.1.2.20", "10.1.1.10").tcp(port, 80);
            let segment = segment.sequence(at * 700, 1).payload_len(700);
            (UPLINK, from_four(&segment).build())
        })
        .collect();
    let ran = bed.run(&batch);
    let mut next = [0; 20];
    for outcome in ran
        .in_order
        .iter()
        .filter(|it| it.verdict != Verdict::Merged)
    {
        let frame = sent(outcome, A);
        let port = usize::from(u16::from_be_bytes([frame[34], frame[35]])) - 1000;
        let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        assert_eq!(sequence, next[port], "in order");
        next[port] += (frame.len() - 54) as u32;
    }
    assert_eq!(next, [2100; 20]);
}
