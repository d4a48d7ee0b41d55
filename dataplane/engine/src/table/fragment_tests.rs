use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Table = FragmentTable<u8, (u16, u16)>;

fn key(identification: u32) -> FragmentKey {
    FragmentKey {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
        protocol: 17,
        identification,
    }
}

fn arrival(id: u32, start: u16, end: u16, last: bool) -> Arrival {
    Arrival {
        key: key(id),
        start,
        end,
        last,
        port: 0,
        port_entries_max: 8,
    }
}

/// Brings one fragment and does what the stage does; says what happened to it and what was let go.
fn bring(table: &mut Table, fragment: &Arrival, decision: u8, now: u64) -> (Fate, Vec<(u16, u16)>) {
    let mut released = Vec::new();
    let mut release = |table: &mut Table, entry| {
        while let Some(item) = table.release(entry) {
            released.push(item);
        }
    };
    let fate = match table.arrive(fragment, now) {
        Arrived::First(entry) => {
            table.decide(entry, decision);
            release(table, entry);
            table.settle(entry);
            Fate::Passed(decision)
        }
        Arrived::Follow(decision) => Fate::Passed(decision),
        Arrived::Early(entry) => match table.hold(entry, (fragment.start, fragment.end), 1) {
            Ok(()) => Fate::Held,
            Err(_) => Fate::HoldFull,
        },
        Arrived::Duplicate => Fate::Duplicate,
        Arrived::Overlap(entry) => {
            release(table, entry);
            Fate::Overlap
        }
        Arrived::Full => Fate::Full,
    };
    (fate, released)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed(u8),
    Held,
    HoldFull,
    Duplicate,
    Overlap,
    Full,
}

#[test]
fn in_order_fragments_follow_and_leave_nothing_behind() {
    let mut table = Table::new(4, 1);
    for (at, last) in [(0, false), (8, false), (16, true)] {
        let (fate, released) = bring(&mut table, &arrival(1, at, at + 8, last), 7, 0);
        assert_eq!((fate, released.len()), (Fate::Passed(7), 0));
    }
    assert!(table.is_empty());
}

#[test]
fn early_fragments_wait_and_come_out_in_order() {
    let mut table = Table::new(4, 1);
    assert_eq!(
        bring(&mut table, &arrival(1, 16, 20, true), 7, 0).0,
        Fate::Held
    );
    assert_eq!(
        bring(&mut table, &arrival(1, 8, 16, false), 7, 0).0,
        Fate::Held
    );
    assert_eq!(table.held_cost(), 2);
    let (fate, released) = bring(&mut table, &arrival(1, 0, 8, false), 7, 0);
    assert_eq!((fate, released), (Fate::Passed(7), vec![(16, 20), (8, 16)]));
    assert!(table.is_empty() && table.held_cost() == 0);
}

#[test]
fn an_overlap_poisons_the_datagram_until_it_times_out() {
    let mut table = Table::new(4, 1);
    for (start, end, last, fate) in [
        (0, 16, false, Fate::Passed(7)),
        (0, 16, false, Fate::Duplicate),
        (8, 16, false, Fate::Duplicate),
        (8, 24, false, Fate::Overlap),
        (16, 24, true, Fate::Overlap),
    ] {
        assert_eq!(
            bring(&mut table, &arrival(1, start, end, last), 7, 0).0,
            fate,
            "{start}..{end}"
        );
    }
    table.expire(TIMEOUT_NS, |_| {});
    assert_eq!(
        bring(&mut table, &arrival(1, 0, 16, false), 7, TIMEOUT_NS).0,
        Fate::Passed(7)
    );
}

#[test]
fn two_ends_or_bytes_beyond_the_end_are_overlaps() {
    for second in [
        arrival(1, 16, 32, true),
        arrival(1, 32, 40, false),
        arrival(1, 16, 24, false),
        arrival(1, 8, 16, true),
    ] {
        let mut table = Table::new(4, 1);
        bring(&mut table, &arrival(1, 0, 8, false), 7, 0);
        assert_eq!(
            bring(&mut table, &arrival(1, 16, 24, true), 7, 0).0,
            Fate::Passed(7)
        );
        assert_eq!(
            bring(&mut table, &second, 7, 0).0,
            Fate::Overlap,
            "{second:?}"
        );
    }
}

#[test]
fn a_port_has_so_many_datagrams_and_held_frames_and_others_have_theirs() {
    let mut table = Table::new(4, 1);
    for id in 0..8 {
        assert_eq!(
            bring(&mut table, &arrival(id, 8, 16, false), 7, 0).0,
            Fate::Held
        );
    }
    assert_eq!(
        bring(&mut table, &arrival(99, 8, 16, false), 7, 0).0,
        Fate::Full
    );
    let other = Arrival {
        port: 1,
        ..arrival(99, 8, 16, false)
    };
    assert_eq!(bring(&mut table, &other, 7, 0).0, Fate::Held);
    for n in 0..40_u16 {
        let start = 100 + 16 * n;
        let fate = bring(&mut table, &arrival(0, start, start + 8, false), 7, 0).0;
        let expected = match n {
            ..24 => Fate::Held,
            // One run of the 32 is the first fragment brought above.
            24..31 => Fate::HoldFull,
            _ => Fate::Overlap,
        };
        assert_eq!(fate, expected, "fragment {n}");
        if expected == Fate::Overlap {
            break;
        }
    }
    let mut out = 0;
    table.remove_port(0, |_| out += 1);
    assert_eq!((out, table.len(), table.held_cost()), (7, 1, 1));
}

#[test]
fn what_waits_too_long_comes_out_by_age() {
    let mut table = Table::new(4, 1);
    for id in 0..4 {
        bring(
            &mut table,
            &arrival(id, 8, 16, false),
            7,
            u64::from(id) * 100,
        );
    }
    let mut out = 0;
    table.expire(TIMEOUT_NS + 100, |_| out += 1);
    assert_eq!((out, table.len()), (2, 2));
    table.expire(TIMEOUT_NS + 1000, |_| out += 1);
    assert_eq!((out, table.len(), table.held_cost()), (4, 0, 0));
}

/// The plain model: every byte of every datagram on its own.
#[derive(Default)]
struct Model {
    datagrams: BTreeMap<u32, Datagram>,
    held: usize,
}

#[derive(Default)]
struct Datagram {
    bytes: BTreeSet<u16>,
    end: Option<u16>,
    /// Ends of fragments that were not last.
    decided: Option<u8>,
    poisoned: bool,
    held: Vec<(u16, u16)>,
}

impl Model {
    fn bring(
        &mut self,
        id: u32,
        (start, end, last): (u16, u16, bool),
        decision: u8,
    ) -> (Fate, Vec<(u16, u16)>) {
        let datagram = self.datagrams.entry(id).or_default();
        let seen = (start..end)
            .filter(|byte| datagram.bytes.contains(byte))
            .count();
        let highest = datagram.bytes.last().map_or(0, |byte| byte + 1);
        let contradicts = match (last, datagram.end) {
            (true, Some(total)) => total != end,
            (true, None) => highest > end || seen == usize::from(end - start),
            (false, Some(total)) => end >= total,
            (false, None) => false,
        };
        let partial = seen > 0 && seen < usize::from(end - start);
        if datagram.poisoned || contradicts || partial {
            datagram.poisoned = true;
            self.held -= datagram.held.len();
            return (Fate::Overlap, std::mem::take(&mut datagram.held));
        }
        if seen > 0 {
            return (Fate::Duplicate, Vec::new());
        }
        datagram.bytes.extend(start..end);
        if last {
            datagram.end = Some(end);
        }
        let (fate, released) = if start == 0 {
            datagram.decided = Some(decision);
            self.held -= datagram.held.len();
            (Fate::Passed(decision), std::mem::take(&mut datagram.held))
        } else if let Some(decided) = datagram.decided {
            (Fate::Passed(decided), Vec::new())
        } else if self.held < usize::from(HELD_PER_PORT_MAX) {
            self.held += 1;
            datagram.held.push((start, end));
            (Fate::Held, Vec::new())
        } else {
            (Fate::HoldFull, Vec::new())
        };
        let complete = datagram.decided.is_some()
            && datagram
                .end
                .is_some_and(|end| datagram.bytes.len() == usize::from(end));
        if complete {
            self.datagrams.remove(&id);
        }
        (fate, released)
    }
}

proptest! {
    #[test]
    fn any_fragments_end_as_in_the_plain_model(
        fragments in prop::collection::vec((0_u32..4, 0_u16..12, 1_u16..4, prop::bool::weighted(0.15)), 1..150),
    ) {
        let mut table = Table::new(4, 1);
        let mut model = Model::default();
        for (index, (id, start, len, last)) in fragments.into_iter().enumerate() {
            let place = (start * 8, (start + len) * 8, last);
            let decision = index as u8;
            let expected = model.bring(id, place, decision);
            let fragment = arrival(id, place.0, place.1, place.2);
            prop_assert_eq!(bring(&mut table, &fragment, decision, 0), expected);
            prop_assert_eq!(table.held_cost(), model.held);
            prop_assert_eq!(table.len(), model.datagrams.len());
        }
    }
}
