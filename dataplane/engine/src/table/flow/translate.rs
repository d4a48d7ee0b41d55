//! Connections to services, whose packets go on with other addresses and ports than they came with.
//!
//! An entry's two tuples say it all: a packet of one direction leaves with the mirror of the other direction's.

use super::FlowTable;
use super::entry::{Flags, FlowRef, Pair6};
use super::key::{Direction, FlowKey, Tuple, Tuple4, Tuple6};
use super::memory::Family;
use super::state::Tick;
use super::track::{Seen, Tracked};
use crate::table::service::{BackendCounters, BackendId};
use weft_wire::AddressChange;

/// With which addresses and ports a packet goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onward {
    V4(Tuple4),
    V6(Tuple6, AddressChange),
}

impl FlowTable {
    /// As [`FlowTable::begin`], of a connection whose replies come with the tuple `reply`: nothing is remembered
    /// unless both tuples can be.
    pub fn begin_translated(
        &mut self,
        seen: &Seen,
        reply: Tuple,
        backend: BackendId,
        now: Tick,
    ) -> Tracked {
        if !self.make_way(reply, seen.key.protocol, now) {
            return Tracked::Taken;
        }
        let tracked = self.begin(seen, now);
        let Tracked::Flow {
            flow,
            direction,
            is_new,
            decided,
            ..
        } = tracked
        else {
            return tracked;
        };
        if !self.translate(flow, reply) {
            self.remove(flow);
            return Tracked::Full;
        }
        self.set_backend(flow, backend);
        self.backends.begun(backend);
        Tracked::Flow {
            flow,
            direction,
            is_new,
            translated: true,
            decided,
        }
    }

    /// Whether the packets of one direction of a translated connection come with this tuple.
    pub fn is_of_translated(&self, tuple: Tuple, protocol: u8) -> bool {
        let key = FlowKey { tuple, protocol };
        let found = self.search(&key, key.hash(self.seed));
        found.is_some_and(|(number, _)| self.memory.hot(number).has(Flags::TRANSLATED))
    }

    /// Whether no connection's packets have this tuple, or those that do may be forgotten. A packet that was taken
    /// for the first of an unknown connection while the table was lost is no reason to cut its connection off.
    pub fn make_way(&mut self, tuple: Tuple, protocol: u8, now: Tick) -> bool {
        let key = FlowKey { tuple, protocol };
        let Some((number, _)) = self.search(&key, key.hash(self.seed)) else {
            return true;
        };
        self.absorb(number);
        let hot = self.memory.hot(number);
        let is_guess = hot.has(Flags::PICKED_UP) && !hot.has(Flags::REPLIED | Flags::TRANSLATED);
        let gives_way = is_guess || hot.state().is_over(hot.last_seen(), now);
        if gives_way {
            self.release(number);
        }
        gives_way
    }

    /// Gives the replies of a connection another tuple, that of a translation: a packet of either is
    /// found from now on. False when another connection has that tuple, or it is of the other family.
    pub fn translate(&mut self, flow: FlowRef, reply: Tuple) -> bool {
        let Some(number) = self.resolve(flow) else {
            return false;
        };
        let key = FlowKey {
            tuple: reply,
            protocol: self.memory.hot(number).protocol,
        };
        let hash = key.hash(self.seed);
        let taken = self
            .search(&key, hash)
            .is_some_and(|(other, _)| other != number);
        if taken || !self.set_reply(number, reply) {
            return false;
        }
        self.memory.hot_mut(number).flags |= Flags::TRANSLATED;
        self.reseal(number);
        if !self.memory.add_slot(hash, number, Direction::Reply) {
            self.release(number);
            return false;
        }
        true
    }

    /// Whether the connection's packets are translated.
    pub fn is_translated(&self, flow: FlowRef) -> bool {
        let entry = self.resolve(flow);
        entry.is_some_and(|number| self.memory.hot(number).has(Flags::TRANSLATED))
    }

    /// With which addresses and ports packets of a direction go on. `None` when the connection ended.
    pub fn translation(&self, flow: FlowRef, direction: Direction) -> Option<Tuple> {
        Some(self.arriving(flow, direction.opposite())?.mirrored())
    }

    /// With which addresses and ports packets of a direction come, and with which they go on. `None` when the
    /// connection ended.
    #[inline(always)]
    pub fn passage(&self, flow: FlowRef, direction: Direction) -> Option<(Tuple, Tuple)> {
        let number = self.resolve(flow)?;
        let (came, back) = (direction.index(), direction.opposite().index());
        Some(match self.memory.family(number) {
            Family::V4 => {
                let pair = &self.memory.pair4(number).0;
                (Tuple::V4(pair[came]), Tuple::V4(pair[back].mirrored()))
            }
            Family::V6 => {
                let pair = &self.memory.pair6(number).0;
                (Tuple::V6(pair[came]), Tuple::V6(pair[back].mirrored()))
            }
        })
    }

    /// With what a packet goes on, which came with `came` and whose connection and direction were found just now.
    #[inline(always)]
    pub(crate) fn onward(&self, came: &Tuple, found: (FlowRef, Direction)) -> Onward {
        let (flow, direction) = found;
        let back = direction.opposite().index();
        match came {
            Tuple::V4(_) => Onward::V4(self.memory.pair4(flow.number).0[back].mirrored()),
            Tuple::V6(_) => {
                let Pair6(tuples, change) = self.memory.pair6(flow.number);
                let change = match direction {
                    Direction::Original => *change,
                    Direction::Reply => change.back(),
                };
                Onward::V6(tuples[back].mirrored(), change)
            }
        }
    }

    /// With which addresses and ports packets of a direction come. `None` when the connection ended.
    pub fn arriving(&self, flow: FlowRef, direction: Direction) -> Option<Tuple> {
        let number = self.resolve(flow)?;
        let side = direction.index();
        Some(match self.memory.family(number) {
            Family::V4 => Tuple::V4(self.memory.pair4(number).0[side]),
            Family::V6 => Tuple::V6(self.memory.pair6(number).0[side]),
        })
    }

    /// What names the packets of the direction in which the connection was opened, to policies: who opened it, and
    /// who really answers.
    pub fn opening(&self, flow: FlowRef) -> Option<FlowKey> {
        let number = self.resolve(flow)?;
        let (original, reply) = self.keys(number);
        let hot = self.memory.hot(number);
        if hot.has(Flags::TRANSLATED) {
            let (opener, answerer) = (original.tuple, reply.tuple);
            let ports = (opener.ports().0, answerer.ports().0);
            let tuple = Tuple::new(opener.source(), answerer.source(), ports)?;
            return Some(FlowKey { tuple, ..original });
        }
        Some(if hot.has(Flags::REVERSED) {
            reply
        } else {
            original
        })
    }

    /// Says whose connection it is, for counting.
    pub fn set_backend(&mut self, flow: FlowRef, backend: BackendId) {
        let Some(number) = self.resolve(flow) else {
            return;
        };
        let cold = self.memory.cold_mut(number);
        let old = BackendId(std::mem::replace(&mut cold.backend, backend.0));
        if old != backend {
            self.backends.ended(old);
            self.backends.joined(backend);
        }
    }

    /// Whose connection it is.
    pub fn backend(&self, flow: FlowRef) -> BackendId {
        let number = self.resolve(flow);
        number.map_or(BackendId::NONE, |it| {
            BackendId(self.memory.cold(it).backend)
        })
    }

    /// Connections by backend.
    pub fn backends(&self) -> &BackendCounters {
        &self.backends
    }

    /// To forget what was counted for backends that are no more.
    pub fn backends_mut(&mut self) -> &mut BackendCounters {
        &mut self.backends
    }
}
