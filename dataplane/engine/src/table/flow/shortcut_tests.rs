//! What goes by a shortcut is the connection's, and its end is seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use weft_wire::TcpFlags;

use super::track_tests::{Bed, Side};
use super::{
    Candidate, Direction, FlowInfo, FlowTable, Segment, ShortcutRoute, Shortcuts, State, Tick, Used,
};
use crate::packet::PortId;

const ROUTE: ShortcutRoute = ShortcutRoute {
    ports: [PortId(3), PortId(4)],
    directions: [true; 2],
    tunnel: None,
};
const EPOCH: u32 = 5;

/// Remembers what it is told, and says what it is given.
#[derive(Default)]
struct Notes {
    asked: Vec<Candidate>,
    ended: Vec<u32>,
    used: HashMap<(u32, u32, Direction), Used>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Notes>>);

impl Shortcuts for Fake {
    fn seats(&self) -> u32 {
        6
    }

    fn ask(&mut self, candidate: &Candidate) {
        self.0.lock().unwrap().asked.push(*candidate);
    }

    fn take(&mut self, seat: u32, ticket: u32, direction: Direction) -> Used {
        let used = &mut self.0.lock().unwrap().used;
        used.remove(&(seat, ticket, direction)).unwrap_or_default()
    }

    fn end(&mut self, seat: u32) {
        self.0.lock().unwrap().ended.push(seat);
    }
}

/// A table with one connection that asked for a shortcut.
struct Talk {
    bed: Bed,
    fake: Fake,
}

impl Talk {
    fn new() -> Self {
        let mut bed = Bed::new(8);
        let fake = Fake::default();
        bed.table.use_shortcuts(Box::new(fake.clone()));
        bed.establish(0);
        let mut talk = Self { bed, fake };
        for direction in [Direction::Original, Direction::Reply] {
            let flow = talk.bed.flow();
            talk.bed.table.decide(flow, direction, EPOCH, 9);
        }
        talk.shorten();
        talk
    }

    fn shorten(&mut self) {
        let flow = self.bed.flow();
        self.bed.table.shorten(flow, ROUTE, EPOCH);
    }

    /// Opens the numbered connection, or sends once more by it, and asks.
    fn begin(&mut self, number: u32) {
        self.bed.establish(number);
        let flow = self.bed.find(number);
        self.bed.table.shorten(flow, ROUTE, EPOCH);
    }

    fn asked(&self) -> Vec<Candidate> {
        self.fake.0.lock().unwrap().asked.clone()
    }

    fn ended(&self) -> Vec<u32> {
        self.fake.0.lock().unwrap().ended.clone()
    }

    /// So much goes by the shortcut from A.
    fn goes_by(&self, packets: u64, end: u32, now: Tick) {
        let asked = self.asked().pop().unwrap();
        self.goes_by_of(&asked, packets, end, now);
    }

    fn used_now(&self, candidate: &Candidate, packets: u64) {
        self.goes_by_of(candidate, packets, 500, self.bed.now);
    }

    fn goes_by_of(&self, candidate: &Candidate, packets: u64, end: u32, now: Tick) {
        let used = Used {
            packets,
            bytes: packets * 1_000,
            last_ns: u64::from(now.0) << 27,
            end,
        };
        let key = (candidate.seat, candidate.ticket, Direction::Original);
        self.fake.0.lock().unwrap().used.insert(key, used);
    }

    fn send(&mut self, side: Side, flags: TcpFlags, numbers: (u32, u32)) -> Option<FlowInfo> {
        let segment = Segment {
            flags: flags | TcpFlags::ACK,
            sequence: numbers.0,
            acknowledgement: numbers.1,
            payload_len: 0,
        };
        self.bed.tcp(side, segment);
        self.bed.only()
    }

    fn state(&self) -> State {
        self.bed.only().map_or(State::Free, |flow| flow.state)
    }
}

#[test]
fn a_connection_says_who_it_is_and_where_it_stands() {
    let talk = Talk::new();
    let [candidate] = talk.asked()[..] else {
        panic!("one asked");
    };
    assert_eq!((candidate.route, candidate.epoch), (ROUTE, EPOCH));
    assert_eq!(candidate.ends, [11, 21]);
    assert_eq!(candidate.keys[1], candidate.keys[0].mirrored());
    assert_ne!(candidate.ticket, 0);
    assert!(talk.bed.only().unwrap().shortcut);
}

#[test]
fn only_connections_with_a_seat_ask() {
    let mut talk = Talk::new();
    (1..8).for_each(|number| talk.begin(number));
    let mut seats: Vec<u32> = talk.asked().iter().map(|it| it.seat).collect();
    seats.sort_unstable();
    assert_eq!(seats, [0, 1, 2, 3, 4, 5], "both families', each its own");
    assert_eq!(talk.ended(), [], "all are young");
}

#[test]
fn a_seat_is_left_by_who_ends_and_by_who_is_silent() {
    let mut talk = Talk::new();
    (1..6).for_each(|number| talk.begin(number));
    let owner = talk.asked()[0];
    // The fourth of a family has the seat of the first.
    let next = |talk: &mut Talk| {
        talk.begin(6);
        talk.asked()[6..].to_vec()
    };
    talk.bed.pass(3);
    talk.used_now(&owner, 5);
    assert_eq!(next(&mut talk), [], "the owner is busy");
    talk.bed.pass(3);
    let [heir] = next(&mut talk)[..] else {
        panic!("the owner was silent");
    };
    assert_eq!((heir.seat, talk.ended()), (owner.seat, vec![owner.seat]));
    talk.used_now(&heir, 7);
    assert_eq!(talk.bed.table.absorb_some(0, 6), None);
    let flows: Vec<FlowInfo> = talk.bed.table.iter(talk.bed.now).collect();
    let used = flows.iter().map(|it| (it.packets[0], it.shortcut));
    assert!(used.clone().any(|it| it == (2 + 5, false)), "the owner's");
    assert!(used.clone().any(|it| it == (2 + 2 + 7, true)), "the heir's");
    let flow = talk.bed.find(6);
    talk.bed.table.remove(flow);
    assert_eq!(talk.ended(), [owner.seat, heir.seat]);
    talk.bed.pass(3);
    talk.begin(0);
    assert_eq!(talk.asked()[7].seat, owner.seat, "it is free again");
}

#[test]
fn a_connection_is_due_once_it_had_some_packets_and_both_ways_are_decided() {
    let mut talk = Talk::new();
    let flow = talk.bed.flow();
    let table = &mut talk.bed.table;
    assert!((0..63).all(|_| table.is_due(flow, EPOCH).is_none()));
    assert_eq!(table.is_due(flow, EPOCH), Some([9, 9]));
    assert_eq!(table.is_due(flow, EPOCH + 1), None, "other tables");
    table.shorten(flow, ROUTE, EPOCH);
    assert_eq!(table.is_due(flow, EPOCH), None, "it asked");
    table.decide(flow, Direction::Original, EPOCH + 1, 9);
    assert!(
        (0..200).all(|_| table.is_due(flow, EPOCH + 1).is_none()),
        "one way only"
    );
}

#[test]
fn what_goes_by_is_counted_and_keeps_the_connection_alive() {
    let mut talk = Talk::new();
    let day = 24 * 3600;
    talk.bed.pass(4 * day);
    talk.goes_by(7, 7_011, talk.bed.now);
    talk.bed.pass(4 * day);
    // As long silent as it may be by the pipeline alone, and half as long as it was.
    assert_eq!(talk.bed.table.expire(talk.bed.now, 10), 0);
    let flow = talk.bed.only().unwrap();
    assert_eq!((flow.packets, flow.bytes), ([9, 1], [7_200, 100]));
    assert_eq!(talk.bed.table.counters().hits, 9);
    assert_eq!(
        flow.idle_ns >> 40,
        (4 * u64::from(day) * 1_000_000_000) >> 40
    );
    talk.goes_by(1, 7_020, talk.bed.now);
    assert_eq!(talk.bed.table.absorb_some(0, 1), Some(1));
    assert_eq!(talk.bed.table.absorb_some(1, 8), None);
    assert_eq!(talk.bed.only().unwrap().packets, [10, 1]);
    talk.bed.pass(6 * day);
    assert_eq!(talk.bed.table.expire(talk.bed.now, 10), 1);
    assert_eq!(talk.ended(), [0]);
}

#[test]
fn the_end_is_believed_at_the_sequence_number_the_shortcut_came_to() {
    for flag in [TcpFlags::FIN, TcpFlags::RST] {
        let mut talk = Talk::new();
        let far = 3_000_000_000;
        talk.send(Side::A, flag, (far, 21));
        assert_eq!(talk.state(), State::TcpEstablished, "out of the blue");
        talk.goes_by(50_000, far, talk.bed.now);
        talk.send(Side::A, flag, (far, 21));
        assert_ne!(talk.state(), State::TcpEstablished);
        assert_eq!(talk.ended(), [0], "the rest is seen");
        assert!(!talk.bed.only().unwrap().shortcut);
    }
}

#[test]
fn a_connection_that_is_removed_gives_its_shortcut_back() {
    let mut talk = Talk::new();
    let flow = talk.bed.flow();
    talk.bed.table.remove(flow);
    assert_eq!(talk.ended(), [0]);
}

#[test]
fn the_next_process_takes_down_what_went_by_and_asks_again() {
    let mut talk = Talk::new();
    talk.goes_by(5, 5_011, talk.bed.now);
    let memory = talk.bed.table.into_memory();
    let (table, _) = FlowTable::recover(memory, talk.bed.now).unwrap();
    talk.bed.table = table;
    talk.bed.table.use_shortcuts(Box::new(talk.fake.clone()));
    let flow = talk.bed.only().unwrap();
    assert_eq!((flow.packets, flow.shortcut), ([7, 1], false));
    assert_eq!(talk.ended(), [0]);
    talk.shorten();
    assert_eq!(talk.asked()[1].ends, [5_011, 21]);
}

#[test]
fn the_next_process_believes_what_went_by_for_longer_than_a_timeout() {
    let mut talk = Talk::new();
    talk.bed.pass(6 * 24 * 3600);
    talk.goes_by(5, 5_011, talk.bed.now);
    let memory = talk.bed.table.into_memory();
    let (table, recovery) = FlowTable::recover(memory, talk.bed.now).unwrap();
    assert_eq!((recovery.kept, recovery.expired), (1, 0));
    talk.bed.table = table;
    talk.bed.table.use_shortcuts(Box::new(talk.fake.clone()));
    assert_eq!(talk.bed.table.expire(talk.bed.now, 10), 0);
    assert_eq!(talk.bed.only().unwrap().packets, [7, 1]);
}
