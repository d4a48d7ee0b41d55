//! The table against a plain map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::track_tests::{Bed, Side};
use super::{Direction, FlowKey, State, Tick, Tracked, Upper};

const FLOWS: u32 = 24;

/// A connection as the model knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    state: State,
    last_seen: Tick,
    packets: [u64; 2],
}

#[derive(Clone, Debug)]
enum Do {
    /// A side of a pair of hosts sends a datagram, or a packet of an unknown protocol.
    Send(u32, bool, bool),
    Pass(u32),
    Expire(usize),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        8 => (0_u32..40, any::<bool>(), any::<bool>()).prop_map(|(n, b, udp)| Do::Send(n, b, udp)),
        2 => (0_u32..40).prop_map(Do::Pass),
        1 => (0_usize..10).prop_map(Do::Expire),
        1 => (0_u32..40).prop_map(Do::Remove),
    ];
    prop::collection::vec(step, 1..300)
}

fn key_of(number: u32, udp: bool) -> FlowKey {
    Bed::numbered(Side::A, if udp { 17 } else { 47 }, number)
}

/// What the model expects of a packet, as far as it is not about who gives way.
fn advance(known: &mut Known, direction: Direction, now: Tick, age: u32) {
    known.packets[direction.index()] += 1;
    known.last_seen = now;
    known.state = match (known.state, direction) {
        (State::UdpNew, Direction::Reply) => State::UdpReplied,
        (State::UdpReplied, _) if age > Tick::count(2) => State::UdpStream,
        (State::OtherNew, Direction::Reply) => State::OtherReplied,
        (state, _) => state,
    };
}

#[derive(Default)]
struct Model {
    known: HashMap<FlowKey, (Known, Tick)>,
}

impl Model {
    fn send(&mut self, bed: &mut Bed, key: FlowKey, upper: Upper) {
        let now = bed.now;
        self.known
            .retain(|_, (known, _)| !known.state.is_over(known.last_seen, now));
        let before = bed.table.counters();
        let tracked = bed.track(key, upper);
        let sides = [
            (key, Direction::Original),
            (key.mirrored(), Direction::Reply),
        ];
        let found = sides
            .into_iter()
            .find(|(key, _)| self.known.contains_key(key));
        let Some((named, direction)) = found else {
            let evicted = bed.table.counters().evicted - before.evicted;
            assert!(evicted <= 1);
            if tracked == Tracked::Full {
                assert!(bed.table.len() == FLOWS as usize);
                return;
            }
            if evicted == 1 {
                self.forget_what_gave_way(bed);
            }
            let state = match upper {
                Upper::Udp => State::UdpNew,
                _ => State::OtherNew,
            };
            let known = Known {
                state,
                last_seen: now,
                packets: [1, 0],
            };
            self.known.insert(key, (known, now));
            assert!(
                matches!(tracked, Tracked::Flow { is_new: true, .. }),
                "{tracked:?}"
            );
            return;
        };
        let (known, created) = self.known.get_mut(&named).expect("found above");
        advance(known, direction, now, now.since(*created));
        match tracked {
            Tracked::Flow {
                is_new,
                direction: way,
                ..
            } => assert_eq!((is_new, way), (false, direction)),
            other => panic!("a known connection is {other:?}"),
        }
    }

    /// Exactly one connection is gone: none that is assured, and of its state the longest silent.
    fn forget_what_gave_way(&mut self, bed: &Bed) {
        let there = |key: &FlowKey| {
            bed.table
                .find(key, key.hash(bed.table.seed()), bed.now)
                .is_some()
        };
        let gone: Vec<_> = self
            .known
            .keys()
            .copied()
            .filter(|key| !there(key))
            .collect();
        assert!(
            gone.len() <= 1,
            "overdue ones were forgotten before: {gone:?}"
        );
        for key in gone {
            let (gone, _) = self.known.remove(&key).expect("just listed");
            assert_ne!(gone.state.standing(), super::Standing::Assured);
            let grain = gone.state.grain();
            for (known, _) in self.known.values().filter(|(it, _)| it.state == gone.state) {
                assert!(gone.last_seen.0 >> grain <= known.last_seen.0 >> grain);
            }
        }
    }

    fn compare(&self, bed: &Bed) {
        for (key, (known, _)) in &self.known {
            let alive = !known.state.is_over(known.last_seen, bed.now);
            for (key, direction) in [
                (*key, Direction::Original),
                (key.mirrored(), Direction::Reply),
            ] {
                let found = bed.table.find(&key, key.hash(bed.table.seed()), bed.now);
                assert_eq!(found.map(|it| it.1), alive.then_some(direction), "{key:?}");
                if let Some((flow, _)) = found {
                    let info = bed.table.describe(flow, bed.now).expect("just found");
                    assert_eq!((info.state, info.packets), (known.state, known.packets));
                }
            }
        }
        let listed = bed.table.iter(bed.now).count();
        assert_eq!(listed, bed.table.len());
        assert!(listed <= FLOWS as usize);
    }
}

proptest! {
    #[test]
    fn the_table_is_a_map_of_both_directions(steps in steps()) {
        let mut bed = Bed::new(FLOWS);
        let mut model = Model::default();
        for step in steps {
            match step {
                Do::Send(number, back, udp) => {
                    let key = key_of(number, udp);
                    let key = if back { key.mirrored() } else { key };
                    model.send(&mut bed, key, if udp { Upper::Udp } else { Upper::Other });
                }
                Do::Pass(seconds) => bed.pass(seconds),
                Do::Expire(most) => prop_assert!(bed.table.expire(bed.now, most) <= most),
                Do::Remove(number) => {
                    let key = key_of(number, true);
                    if let Some((flow, _)) = bed.table.find(&key, key.hash(bed.table.seed()), bed.now) {
                        bed.table.remove(flow);
                        model.known.remove(&key);
                        model.known.remove(&key.mirrored());
                    }
                }
            }
            model.compare(&bed);
        }
    }
}
