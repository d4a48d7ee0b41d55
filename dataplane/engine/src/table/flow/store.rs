//! How entries come and go: free numbers, eviction, timeouts.

use zerocopy::transmute_ref;

use super::FlowTable;
use super::entry::{self, Cold, Flags, Hot, Pair4, Pair6};
use super::key::{Direction, FlowKey, Tuple};
use super::memory::{Family, FlowMemory, Number};
use super::state::{Standing, State, Tick};
use crate::table::service::BackendId;

/// Overdue connections removed for each new one, so that a table under load does not depend on
/// [`FlowTable::expire`] alone. Two: it gains on the arrivals.
const REAPED_PER_NEW: usize = 2;

/// The standings that give way, in this order.
const GIVING_WAY: [Standing; 3] = [Standing::Finished, Standing::Embryonic, Standing::Brief];

impl FlowTable {
    /// Adds a connection the table does not have. `None` when none gives way for it.
    pub(super) fn insert(
        &mut self,
        key: &FlowKey,
        hash: u64,
        state: State,
        now: Tick,
    ) -> Option<Number> {
        self.reap(now);
        if self.len() >= self.capacity() && !self.evict() {
            self.counters.refused += 1;
            return None;
        }
        let number = self.take_free(match key.tuple {
            Tuple::V4(_) => Family::V4,
            Tuple::V6(_) => Family::V6,
        })?;
        self.write(number, key, state, now);
        if !self.memory.add_slot(hash, number, Direction::Original) {
            self.counters.refused += 1;
            self.give_free(number);
            return None;
        }
        self.queues.append(&mut self.memory, state, number);
        self.counters.new += 1;
        self.counters.current += 1;
        Some(number)
    }

    pub(super) fn write(&mut self, number: Number, key: &FlowKey, state: State, now: Tick) {
        let reply = key.tuple.mirrored();
        match (key.tuple, reply) {
            (Tuple::V4(original), Tuple::V4(reply)) => {
                *self.memory.pair4_mut(number) = Pair4([original, reply]);
            }
            (Tuple::V6(original), Tuple::V6(reply)) => {
                *self.memory.pair6_mut(number) = Pair6::new([original, reply]);
            }
            _ => unreachable!("the mirror of a tuple is of its family"),
        }
        let cold = self.memory.cold_mut(number);
        *cold = Cold {
            created: now.0,
            ..Cold::default()
        };
        let hot = self.memory.hot_mut(number);
        *hot = Hot {
            last_seen: now.0,
            generation: hot.generation.checked_add(1).unwrap_or(1),
            state: state as u8,
            protocol: key.protocol,
            ..Hot::default()
        };
        self.reseal(number);
    }

    pub(super) fn set_reply(&mut self, number: Number, reply: Tuple) -> bool {
        match (self.memory.family(number), reply) {
            (Family::V4, Tuple::V4(reply)) => self.memory.pair4_mut(number).0[1] = reply,
            (Family::V6, Tuple::V6(reply)) => {
                let pair = self.memory.pair6_mut(number);
                *pair = Pair6::new([pair.0[0], reply]);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn reseal(&mut self, number: Number) {
        self.memory.cold_mut(number).seal = self.seal(number);
    }

    pub(super) fn seal(&self, number: Number) -> u16 {
        let hot = self.memory.hot(number);
        let (protocol, generation) = (hot.protocol, hot.generation);
        match self.memory.family(number) {
            Family::V4 => {
                let words: &[u32; 6] = transmute_ref!(self.memory.pair4(number));
                entry::seal(words, protocol, generation)
            }
            Family::V6 => {
                let words: &[u32; 19] = transmute_ref!(self.memory.pair6(number));
                entry::seal(words, protocol, generation)
            }
        }
    }

    /// Changes the state of an entry, and with it its timeout.
    pub(super) fn set_state(&mut self, number: Number, to: State) {
        let from = self.memory.hot(number).state();
        if from != to {
            self.queues.unlink(&mut self.memory, from, number);
            self.memory.hot_mut(number).state = to as u8;
            self.queues.append(&mut self.memory, to, number);
        }
    }

    /// Forgets a connection.
    pub(super) fn release(&mut self, number: Number) {
        self.lengthen(number);
        let (original, reply) = self.keys(number);
        let translated = self.memory.hot(number).has(Flags::TRANSLATED);
        let sides = [(original, Direction::Original), (reply, Direction::Reply)];
        for (key, side) in sides.into_iter().take(1 + usize::from(translated)) {
            let seed = self.seed;
            self.memory
                .remove_slot(key.hash(seed), number, side, |memory, other, side| {
                    let (original, reply) = keys(memory, other);
                    match side {
                        Direction::Original => original.hash(seed),
                        Direction::Reply => reply.hash(seed),
                    }
                });
        }
        let backend = std::mem::take(&mut self.memory.cold_mut(number).backend);
        self.backends.ended(BackendId(backend));
        let state = self.memory.hot(number).state();
        self.queues.unlink(&mut self.memory, state, number);
        self.give_free(number);
        self.counters.current = self.counters.current.saturating_sub(1);
    }

    pub(super) fn keys(&self, number: Number) -> (FlowKey, FlowKey) {
        keys(&self.memory, number)
    }

    pub(super) fn take_free(&mut self, family: Family) -> Option<Number> {
        if let Some(number) = self.memory.number(self.free[family as usize]) {
            self.free[family as usize] = self.memory.cold(number).next;
            return Some(number);
        }
        let used = self.memory.header().used[family as usize];
        let number = self.memory.number_of(family, used)?;
        self.memory.header_mut().used[family as usize] = used + 1;
        Some(number)
    }

    pub(super) fn give_free(&mut self, number: Number) {
        let free = &mut self.free[self.memory.family(number) as usize];
        self.memory.hot_mut(number).state = State::Free as u8;
        self.memory.cold_mut(number).next = *free;
        *free = number.raw();
    }

    /// Looks at some queues' heads, in turns.
    fn reap(&mut self, now: Tick) {
        for _ in 0..REAPED_PER_NEW {
            self.reaped = (self.reaped + 1) % State::COUNT;
            self.reap_oldest(State::ALL[self.reaped], now);
        }
    }

    pub(super) fn reap_oldest(&mut self, state: State, now: Tick) -> bool {
        let Some(number) = self.queues.oldest(&self.memory, state) else {
            return false;
        };
        self.absorb(number);
        let due = state.is_over(self.memory.hot(number).last_seen(), now);
        if due {
            self.release(number);
            self.counters.expired += 1;
        }
        due
    }

    /// Removes the connection that gives way first, if any does.
    fn evict(&mut self) -> bool {
        for standing in GIVING_WAY {
            let of_standing = State::ALL.iter().filter(|it| it.standing() == standing);
            let heads = of_standing.filter_map(|it| self.queues.oldest(&self.memory, *it));
            // Oldest as seen from the oldest so far: ticks wrap.
            let oldest = heads.reduce(|a, b| {
                let (of_a, of_b) = (self.memory.hot(a), self.memory.hot(b));
                if of_a.last_seen().since(of_b.last_seen()) > 0 {
                    b
                } else {
                    a
                }
            });
            if let Some(number) = oldest {
                self.release(number);
                self.counters.evicted += 1;
                return true;
            }
        }
        false
    }
}

/// The keys of an entry's directions.
fn keys(memory: &FlowMemory, number: Number) -> (FlowKey, FlowKey) {
    let protocol = memory.hot(number).protocol;
    let key = |tuple| FlowKey { tuple, protocol };
    match memory.family(number) {
        Family::V4 => {
            let Pair4([original, reply]) = *memory.pair4(number);
            (key(Tuple::V4(original)), key(Tuple::V4(reply)))
        }
        Family::V6 => {
            let Pair6([original, reply], _) = *memory.pair6(number);
            (key(Tuple::V6(original)), key(Tuple::V6(reply)))
        }
    }
}
