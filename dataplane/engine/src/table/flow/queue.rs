//! The timers: one queue per state, the longest silent connection first.
//!
//! All connections of a state have the same timeout, so a queue in order of the last packet is in order
//! of the deadlines too: looking at its head says whether anything is due, and the head is what gives way
//! when the table is full. A packet moves its connection to the tail only when a [`State::grain`] went by
//! since the last one, so that a busy connection costs nothing; order within a grain does not matter.
//!
//! Heads and tails are not in the region: a successor rebuilds them.

use super::memory::{FlowMemory, Number};
use super::state::State;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// Heads and tails of the queues, by state.
pub(super) struct Queues {
    ends: [(u32, u32); State::COUNT],
}

impl Queues {
    pub(super) const fn new() -> Self {
        Self {
            ends: [(NONE, NONE); State::COUNT],
        }
    }

    /// The longest silent connection of a state.
    #[inline]
    pub(super) fn oldest(&self, memory: &FlowMemory, state: State) -> Option<Number> {
        memory.number(self.ends[state as usize].0)
    }

    /// Adds an entry behind all others of the state.
    pub(super) fn append(&mut self, memory: &mut FlowMemory, state: State, number: Number) {
        let (head, tail) = &mut self.ends[state as usize];
        let last = memory.number(*tail);
        let cold = memory.cold_mut(number);
        (cold.previous, cold.next) = (*tail, NONE);
        match last {
            Some(last) => memory.cold_mut(last).next = number.raw(),
            None => *head = number.raw(),
        }
        *tail = number.raw();
    }

    /// Takes an entry out of the queue of its state.
    pub(super) fn unlink(&mut self, memory: &mut FlowMemory, state: State, number: Number) {
        let cold = memory.cold(number);
        let (previous, next) = (cold.previous, cold.next);
        let (head, tail) = &mut self.ends[state as usize];
        match memory.number(previous) {
            Some(previous) => memory.cold_mut(previous).next = next,
            None => *head = next,
        }
        match memory.number(next) {
            Some(next) => memory.cold_mut(next).previous = previous,
            None => *tail = previous,
        }
    }

    /// Moves an entry behind all others of its state.
    pub(super) fn renew(&mut self, memory: &mut FlowMemory, state: State, number: Number) {
        if self.ends[state as usize].1 != number.raw() {
            self.unlink(memory, state, number);
            self.append(memory, state, number);
        }
    }
}
