//! Two hosts and a table; the rules of UDP, ICMP, SCTP and other protocols, timeouts and eviction.

use weft_wire::{Protocol, TcpFlags};

use super::{
    Chunk, ChunkKind, Direction, FlowFilter, FlowInfo, FlowKey, FlowRef, FlowTable, Seen, Segment,
    State, Tick, Tracked, Tuple, Upper,
};

/// A host of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Opens connections.
    A = 0,
    /// Is called.
    B = 1,
}

/// A table and the time.
pub(super) struct Bed {
    pub(super) table: FlowTable,
    pub(super) now: Tick,
}

impl Bed {
    pub(super) fn new(flows: u32) -> Self {
        Self {
            table: FlowTable::new(flows, 99),
            now: Tick(5000),
        }
    }

    /// The key of a packet that a side sends.
    pub(super) fn key(side: Side, protocol: u8) -> FlowKey {
        Self::numbered(side, protocol, 0)
    }

    /// The same of one of many pairs of hosts; odd ones speak IPv6.
    pub(super) fn numbered(side: Side, protocol: u8, number: u32) -> FlowKey {
        let (a, b) = if number.is_multiple_of(2) {
            let address = |bits: u32| std::net::IpAddr::V4(bits.into());
            (address(0x0a00_0000 + number), address(0x0b00_0001))
        } else {
            let address = |bits: u128| std::net::IpAddr::V6(bits.into());
            (
                address((0xfd00 << 112) + u128::from(number)),
                address((0xfd01 << 112) + 1),
            )
        };
        let tuple = Tuple::new(a, b, (4000, 80)).expect("one family");
        let key = FlowKey { tuple, protocol };
        match side {
            Side::A => key,
            Side::B => key.mirrored(),
        }
    }

    pub(super) fn track(&mut self, key: FlowKey, upper: Upper) -> Tracked {
        let seen = Seen {
            key,
            hash: key.hash(self.table.seed()),
            len_bytes: 100,
            upper,
        };
        self.table.track(&seen, self.now)
    }

    pub(super) fn tcp(&mut self, side: Side, segment: Segment) -> Tracked {
        self.track(Self::key(side, 6), Upper::Tcp(segment))
    }

    fn send(&mut self, side: Side, protocol: Protocol, upper: Upper) -> State {
        self.track(Self::key(side, protocol.0), upper);
        self.only().map_or(State::Free, |flow| flow.state)
    }

    pub(super) fn pass(&mut self, seconds: u32) {
        self.now = Tick(self.now.0.wrapping_add(Tick::count(seconds)));
    }

    /// The only connection.
    pub(super) fn only(&self) -> Option<FlowInfo> {
        let mut all = self.table.iter(self.now);
        let first = all.next();
        assert_eq!(all.next(), None, "at most one flow");
        first
    }

    /// The only connection, of TCP.
    pub(super) fn flow(&self) -> FlowRef {
        self.find(0)
    }

    /// The numbered connection, of TCP.
    pub(super) fn find(&self, number: u32) -> FlowRef {
        let key = Self::numbered(Side::A, 6, number);
        let found = self.table.find(&key, key.hash(self.table.seed()), self.now);
        found.expect("a flow").0
    }

    /// Opens the numbered connection and brings it to `Established`.
    pub(super) fn establish(&mut self, number: u32) {
        for (side, flags, sequence, acknowledgement) in [
            (Side::A, TcpFlags::SYN, 10, 0),
            (Side::B, TcpFlags::SYN | TcpFlags::ACK, 20, 11),
            (Side::A, TcpFlags::ACK, 11, 21),
        ] {
            let segment = Segment {
                flags,
                sequence,
                acknowledgement,
                payload_len: 0,
            };
            let key = Self::numbered(side, 6, number);
            let tracked = self.track(key, Upper::Tcp(segment));
            assert!(matches!(tracked, Tracked::Flow { .. }), "{tracked:?}");
        }
    }

    fn syn(&mut self, number: u32) -> Tracked {
        let segment = Segment {
            flags: TcpFlags::SYN,
            ..Segment::default()
        };
        self.track(Self::numbered(Side::A, 6, number), Upper::Tcp(segment))
    }
}

fn is_full(tracked: Tracked) -> bool {
    tracked == Tracked::Full
}

#[test]
fn datagrams_are_a_stream_when_they_go_on() {
    let mut bed = Bed::new(8);
    let send = |bed: &mut Bed, side| bed.send(side, Protocol::UDP, Upper::Udp);
    assert_eq!(send(&mut bed, Side::A), State::UdpNew);
    bed.pass(10);
    assert_eq!(send(&mut bed, Side::A), State::UdpNew);
    assert_eq!(send(&mut bed, Side::B), State::UdpReplied);
    assert_eq!(send(&mut bed, Side::A), State::UdpStream);
    bed.pass(119);
    assert_eq!(send(&mut bed, Side::B), State::UdpStream);
    bed.pass(121);
    assert_eq!(
        send(&mut bed, Side::B),
        State::UdpNew,
        "silent for too long"
    );
    let flow = bed.only().expect("a flow");
    assert_eq!(flow.original, Bed::key(Side::B, Protocol::UDP.0));
    assert_eq!((flow.packets, flow.bytes), ([1, 0], [100, 0]));
}

#[test]
fn only_a_query_begins_and_only_an_answer_replies() {
    let mut bed = Bed::new(8);
    let query = |answer| Upper::Query { answer };
    let send = |bed: &mut Bed, side, answer| bed.send(side, Protocol::ICMP, query(answer));
    assert_eq!(send(&mut bed, Side::B, true), State::Free);
    assert_eq!(send(&mut bed, Side::A, false), State::QueryNew);
    assert_eq!(send(&mut bed, Side::B, true), State::QueryReplied);
    bed.pass(29);
    assert_eq!(send(&mut bed, Side::A, false), State::QueryReplied);
}

#[test]
fn other_protocols_are_pairs_of_addresses() {
    let mut bed = Bed::new(8);
    let send = |bed: &mut Bed, side| bed.send(side, Protocol::GRE, Upper::Other);
    assert_eq!(send(&mut bed, Side::A), State::OtherNew);
    assert_eq!(send(&mut bed, Side::B), State::OtherReplied);
}

fn chunk(kind: ChunkKind, tag: u32) -> Upper {
    Upper::Sctp(Chunk {
        kind,
        tag,
        reflected: false,
    })
}

#[test]
fn an_association_opens_and_closes() {
    let mut bed = Bed::new(8);
    for (side, kind, tag, state) in [
        (Side::A, ChunkKind::Init(5), 0, State::SctpCookieWait),
        (Side::B, ChunkKind::InitAck(6), 5, State::SctpCookieWait),
        (Side::A, ChunkKind::CookieEcho, 6, State::SctpCookieEchoed),
        (Side::B, ChunkKind::CookieAck, 5, State::SctpEstablished),
        (Side::A, ChunkKind::Other, 6, State::SctpEstablished),
        (Side::B, ChunkKind::Abort, 99, State::SctpEstablished),
        (Side::B, ChunkKind::Shutdown, 5, State::SctpShutdownReceived),
        (
            Side::A,
            ChunkKind::ShutdownAck,
            6,
            State::SctpShutdownAckSent,
        ),
        (Side::B, ChunkKind::ShutdownComplete, 5, State::SctpClosed),
        (Side::A, ChunkKind::Init(7), 0, State::SctpCookieWait),
    ] {
        assert_eq!(
            bed.send(side, Protocol::SCTP, chunk(kind, tag)),
            state,
            "{kind:?}"
        );
    }
}

#[test]
fn an_association_is_aborted_picked_up_and_shut_down() {
    let mut bed = Bed::new(8);
    for (side, kind, tag, state) in [
        (Side::A, ChunkKind::Shutdown, 1, State::Free),
        (Side::A, ChunkKind::Other, 1, State::SctpHeartbeatSent),
        (Side::B, ChunkKind::Other, 1, State::SctpEstablished),
        (Side::A, ChunkKind::Shutdown, 1, State::SctpShutdownSent),
        (Side::B, ChunkKind::Abort, 1, State::SctpClosed),
    ] {
        assert_eq!(
            bed.send(side, Protocol::SCTP, chunk(kind, tag)),
            state,
            "{kind:?}"
        );
    }
    assert!(bed.only().is_some_and(|flow| flow.picked_up && flow.reset));
}

#[test]
fn every_state_ends_with_its_timeout() {
    for (state, number) in [(State::TcpSynSent, 1), (State::TcpEstablished, 2)] {
        let mut bed = Bed::new(8);
        match state {
            State::TcpSynSent => {
                bed.syn(number);
            }
            _ => bed.establish(number),
        }
        bed.pass(state.timeout_seconds() - 1);
        assert_eq!(bed.table.expire(bed.now, 8), 0);
        bed.pass(2);
        assert_eq!(bed.table.expire(bed.now, 8), 1);
        assert_eq!((bed.table.len(), bed.table.counters().expired), (0, 1));
    }
}

#[test]
fn expiring_does_no_more_than_it_is_asked_to() {
    let mut bed = Bed::new(100);
    for number in 0..50 {
        bed.syn(number);
    }
    bed.pass(200);
    assert_eq!(bed.table.expire(bed.now, 20), 20);
    assert_eq!(bed.table.expire(bed.now, 20), 20);
    assert_eq!(bed.table.expire(bed.now, 20), 10);
}

#[test]
fn a_packet_now_and_then_keeps_a_connection_in_its_queue() {
    let mut bed = Bed::new(100);
    bed.establish(0);
    bed.establish(2);
    for _ in 0..10 {
        bed.pass(400_000);
        let ack = Upper::Tcp(Segment {
            flags: TcpFlags::ACK,
            ..Segment::default()
        });
        bed.track(Bed::numbered(Side::B, 6, 2), ack);
        bed.table.expire(bed.now, 100);
    }
    let left: Vec<_> = bed.table.iter(bed.now).map(|flow| flow.original).collect();
    assert_eq!(left, [Bed::numbered(Side::A, 6, 2)]);
}

#[test]
fn the_longest_silent_embryo_gives_way() {
    let mut bed = Bed::new(4);
    bed.establish(0);
    for number in 1..4 {
        bed.syn(number);
        bed.pass(1);
    }
    // The first one tries again and is the youngest now.
    bed.syn(1);
    assert!(!is_full(bed.syn(9)));
    let left: Vec<_> = bed.table.iter(bed.now).map(|flow| flow.original).collect();
    assert!(!left.contains(&Bed::numbered(Side::A, 6, 2)), "{left:?}");
    assert_eq!((left.len(), bed.table.counters().evicted), (4, 1));
}

#[test]
fn the_finished_give_way_before_embryos() {
    let mut bed = Bed::new(2);
    bed.syn(0);
    bed.pass(5);
    bed.establish(1);
    let reset = Segment {
        flags: TcpFlags::RST,
        sequence: 11,
        ..Segment::default()
    };
    bed.track(Bed::numbered(Side::A, 6, 1), Upper::Tcp(reset));
    bed.syn(2);
    let left: Vec<_> = bed.table.iter(bed.now).map(|flow| flow.original).collect();
    assert!(left.contains(&Bed::numbered(Side::A, 6, 0)), "{left:?}");
    assert!(left.contains(&Bed::numbered(Side::A, 6, 2)), "{left:?}");
}

#[test]
fn a_table_of_established_connections_refuses_new_ones() {
    let mut bed = Bed::new(4);
    (0..4).for_each(|number| bed.establish(number));
    assert!(is_full(bed.syn(9)));
    assert_eq!(bed.table.counters().refused, 1);
    for number in 0..4 {
        let key = Bed::numbered(Side::B, 6, number);
        assert!(
            bed.table
                .find(&key, key.hash(bed.table.seed()), bed.now)
                .is_some()
        );
    }
}

#[test]
fn a_flood_of_new_flows_never_breaks_an_established_one() {
    let mut bed = Bed::new(256);
    (0..100).for_each(|number| bed.establish(number));
    for number in 1000..200_000 {
        assert!(!is_full(bed.syn(number)));
        if number % 1000 == 0 {
            bed.pass(7);
            bed.table.expire(bed.now, 64);
        }
    }
    for number in 0..100 {
        let key = Bed::numbered(Side::B, 6, number);
        let found = bed.table.find(&key, key.hash(bed.table.seed()), bed.now);
        assert!(found.is_some_and(|(_, direction)| direction == Direction::Reply));
    }
    assert!(bed.table.len() <= 256);
}

#[test]
fn a_reference_outlives_no_connection() {
    let mut bed = Bed::new(1);
    let Tracked::Flow { flow, .. } = bed.syn(0) else {
        panic!("there is room");
    };
    assert!(
        !is_full(bed.syn(2)),
        "the first one gives way, to the same entry"
    );
    assert_eq!(bed.table.describe(flow, bed.now), None);
    bed.table.decide(flow, Direction::Original, 1, 7);
    bed.table.learn(flow, Direction::Original, 7, None);
    bed.table.remove(flow);
    assert_eq!(bed.table.decision(flow, Direction::Original, 1), 0);
    assert!(bed.only().is_some_and(|it| it.mss == [None; 2]));
}

#[test]
fn decisions_hold_for_their_direction_and_epoch() {
    let mut bed = Bed::new(1);
    let Tracked::Flow { flow, .. } = bed.syn(0) else {
        panic!("there is room");
    };
    let table = &mut bed.table;
    table.decide(flow, Direction::Original, 1, 7);
    table.decide(flow, Direction::Reply, 1, 8);
    let both = |table: &FlowTable, epoch| {
        [Direction::Original, Direction::Reply].map(|it| table.decision(flow, it, epoch))
    };
    assert_eq!((both(table, 1), both(table, 2)), ([7, 8], [0, 0]));
    table.decide(flow, Direction::Reply, 2, 9);
    assert_eq!((both(table, 1), both(table, 2)), ([0, 0], [0, 9]));
}

#[test]
fn a_translated_connection_is_found_by_both_tuples() {
    let mut bed = Bed::new(4);
    let Tracked::Flow { flow, .. } = bed.syn(0) else {
        panic!("there is room");
    };
    let backend = Bed::numbered(Side::B, 6, 4);
    assert!(
        !bed.table
            .translate(flow, Bed::numbered(Side::B, 6, 1).tuple),
        "IPv6"
    );
    bed.syn(2);
    assert!(
        !bed.table
            .translate(flow, Bed::numbered(Side::B, 6, 2).tuple),
        "taken"
    );
    assert!(bed.table.translate(flow, backend.tuple));
    let find = |bed: &Bed, key: FlowKey| {
        let found = bed.table.find(&key, key.hash(bed.table.seed()), bed.now);
        found.map(|(_, direction)| direction)
    };
    assert_eq!(
        find(&bed, Bed::numbered(Side::A, 6, 0)),
        Some(Direction::Original)
    );
    assert_eq!(find(&bed, backend), Some(Direction::Reply));
    assert_eq!(
        find(&bed, Bed::numbered(Side::B, 6, 0)),
        None,
        "not translated back"
    );
    bed.table.remove(flow);
    assert_eq!((find(&bed, backend), bed.table.len()), (None, 1));
}

#[test]
fn lists_what_is_asked_for() {
    let mut bed = Bed::new(8);
    for number in 0..4 {
        bed.syn(number);
    }
    let count = |filter| bed.table.list(filter, bed.now).count();
    let filter = FlowFilter::default();
    assert_eq!(count(filter), 4);
    let address = Some("10.0.0.2".parse().expect("an address"));
    assert_eq!(count(FlowFilter { address, ..filter }), 1);
    assert_eq!(
        count(FlowFilter {
            port: Some(80),
            ..filter
        }),
        4
    );
    assert_eq!(
        count(FlowFilter {
            protocol: Some(17),
            ..filter
        }),
        0
    );
    let state = Some(State::TcpSynSent);
    assert_eq!(count(FlowFilter { state, ..filter }), 4);
}
