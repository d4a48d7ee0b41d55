//! Taking over what another process left.
//!
//! Entries are believed one by one: those whose bytes can be a connection stay, the others are free.
//! Index, queues and free entries are made anew from those that stay, so nothing of them is believed.
//! Decisions are forgotten, since the epochs of another process mean nothing here.

use super::FlowTable;
use super::entry::{Flags, Pair4, Pair6};
use super::key::{Direction, FlowKey};
use super::memory::{Family, FlowMemory, MemoryError, Number};
use super::state::{State, Tick};
use weft_wire::Protocol;

/// What became of the entries of a region taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Connections that go on.
    pub kept: u32,
    /// Connections whose timeout ran out meanwhile.
    pub expired: u32,
    /// Entries that cannot be a connection, or not beside those kept.
    pub broken: u32,
}

impl FlowTable {
    /// A table of the connections in a region another process left. Allocates and takes its time: not
    /// for the packet path.
    ///
    /// # Errors
    /// [`MemoryError`] when the region's header is not of a flow table of this version; then
    /// [`FlowMemory::new`] makes an empty one.
    pub fn recover(memory: FlowMemory, now: Tick) -> Result<(Self, Recovery), MemoryError> {
        memory.check()?;
        let mut table = Self::over(memory);
        table.memory.slots_mut().fill(0);
        let mut recovery = Recovery::default();
        let mut kept = Vec::new();
        for family in Family::BOTH {
            for place in 0..table.memory.header().used[family as usize] {
                let Some(number) = table.memory.number_of(family, place) else {
                    break;
                };
                if table.take_over(number, now, &mut recovery) {
                    kept.push(number);
                } else {
                    table.give_free(number);
                }
            }
        }
        table.enqueue(kept, now);
        Ok((table, recovery))
    }

    /// Judges one entry and indexes it. False when it is free from now on.
    fn take_over(&mut self, number: Number, now: Tick, recovery: &mut Recovery) -> bool {
        let hot = self.memory.hot(number);
        if hot.state == State::Free as u8 {
            return false;
        }
        if !self.is_sound(number, now) {
            recovery.broken += 1;
            return false;
        }
        // What went by a shortcut was perhaps not taken down.
        if hot.state().is_over(hot.last_seen(), now) && !hot.has(Flags::SHORTCUT) {
            recovery.expired += 1;
            return false;
        }
        if self.len() >= self.capacity() || !self.reindex(number) {
            recovery.broken += 1;
            return false;
        }
        let hot = self.memory.hot_mut(number);
        (hot.epoch, hot.egress) = (0, [0; 2]);
        let cold = self.memory.cold_mut(number);
        (cold.policy_epoch, cold.backend) = (0, 0);
        self.counters.current += 1;
        recovery.kept += 1;
        true
    }

    /// Whether the bytes of an entry can be a connection's.
    fn is_sound(&self, number: Number, now: Tick) -> bool {
        let hot = self.memory.hot(number);
        let cold = self.memory.cold(number);
        let Some(state) = State::from_number(hot.state) else {
            return false;
        };
        let past = |tick: u32| now.0.wrapping_sub(tick) <= u32::MAX / 2;
        hot.generation != 0
            && fits(state, Protocol(hot.protocol))
            && past(hot.last_seen)
            && past(cold.created)
            && cold.seal == self.seal(number)
            && hot.has(Flags::TRANSLATED) != self.is_mirrored(number)
    }

    fn is_mirrored(&self, number: Number) -> bool {
        match self.memory.family(number) {
            Family::V4 => {
                let Pair4([original, reply]) = self.memory.pair4(number);
                original.mirrored() == *reply
            }
            Family::V6 => {
                let Pair6([original, reply], _) = self.memory.pair6(number);
                original.mirrored() == *reply
            }
        }
    }

    /// Adds an entry's tuples to the index, unless another entry has one of them already.
    fn reindex(&mut self, number: Number) -> bool {
        let (original, reply) = self.keys(number);
        let taken = |key: &FlowKey| self.search(key, key.hash(self.seed)).is_some();
        if taken(&original) || taken(&reply) {
            return false;
        }
        let translated = self.memory.hot(number).has(Flags::TRANSLATED);
        let (of_original, of_reply) = (original.hash(self.seed), reply.hash(self.seed));
        // A slot that stays behind when the second is refused finds a free entry, which is none.
        (!translated || self.memory.add_slot(of_reply, number, Direction::Reply))
            && self
                .memory
                .add_slot(of_original, number, Direction::Original)
    }

    /// Puts entries into the queues of their states, the longest silent first.
    fn enqueue(&mut self, mut numbers: Vec<Number>, now: Tick) {
        let idle = |memory: &FlowMemory, number| now.since(memory.hot(number).last_seen());
        numbers.sort_by_key(|number| std::cmp::Reverse(idle(&self.memory, *number)));
        for number in numbers {
            let state = self.memory.hot(number).state();
            self.queues.append(&mut self.memory, state, number);
        }
    }
}

/// Whether connections of the protocol can have the state.
fn fits(state: State, protocol: Protocol) -> bool {
    use State::{OtherNew, SctpClosed, SctpCookieWait, TcpClose, TcpSynSent, UdpNew, UdpStream};
    let within = |first: State, last: State| (first as u8..=last as u8).contains(&(state as u8));
    match protocol {
        Protocol::TCP => within(TcpSynSent, TcpClose),
        Protocol::UDP => within(UdpNew, UdpStream),
        Protocol::ICMP | Protocol::ICMPV6 if within(State::QueryNew, State::QueryReplied) => true,
        Protocol::SCTP => within(SctpCookieWait, SctpClosed),
        _ => within(OtherNew, State::OtherReplied),
    }
}
