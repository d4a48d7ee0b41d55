//! What a packet does to its connection.

use std::num::NonZeroU32;

use super::FlowTable;
use super::entry::{Flags, FlowRef, Hot};
use super::key::{Direction, FlowKey};
use super::memory::Number;
use super::sctp::{self, Chunk};
use super::state::{State, Tick};
use super::tcp::{self, Segment, Step};

/// A packet, as far as the table is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What names its connection.
    pub key: FlowKey,
    /// The key's hash.
    pub hash: u64,
    /// Bytes of the IP packet.
    pub len_bytes: u32,
    /// What it says.
    pub upper: Upper,
}

/// What a packet says about the state of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP.
    Tcp(Segment),
    /// UDP.
    Udp,
    /// ICMP query or its answer.
    Query {
        /// It is an answer, which begins nothing.
        answer: bool,
    },
    /// SCTP.
    Sctp(Chunk),
    /// Any other protocol.
    Other,
}

/// What was [decided](FlowTable::decide) about a direction of a connection, and under which version of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Version of the tables. What was decided under them was [allowed](FlowTable::is_allowed) under them, too.
    pub epoch: u32,
    /// The decision, 0 when there is none.
    pub decision: u32,
}

/// What a packet is to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// Part of a connection.
    Flow {
        /// The connection.
        flow: FlowRef,
        /// Which way the packet goes.
        direction: Direction,
        /// It is the connection's first.
        is_new: bool,
        /// Addresses or ports of the connection's packets are replaced.
        translated: bool,
        /// What was decided before about packets of this direction.
        decided: Decided,
    },
    /// Of no connection, and none that could begin with it.
    Stray,
    /// It would begin a connection, but there is no room.
    Full,
    /// Another connection's packets have the tuple its replies would have.
    Taken,
}

/// How long datagrams go to and fro before they are a stream: as in Linux's nf_conntrack_proto_udp.c.
const STREAM_AFTER: u32 = Tick::count(2);

impl FlowTable {
    /// Finds the connection of a packet or begins it, and takes down what the packet says.
    #[inline]
    pub fn track(&mut self, seen: &Seen, now: Tick) -> Tracked {
        match self.follow(seen, now) {
            Some(tracked) => tracked,
            None => self.begin(seen, now),
        }
    }

    /// Finds the connection of a packet and takes down what the packet says. `None`: it is of none that
    /// goes on, and may [begin](Self::begin) one.
    #[inline(always)]
    pub fn follow(&mut self, seen: &Seen, now: Tick) -> Option<Tracked> {
        // The slow way is told of copies: what is `seen` stays in registers.
        let Seen {
            key,
            hash,
            len_bytes,
            upper,
        } = *seen;
        let (number, direction) = self.search_here(&key, hash)?;
        let hot = self.memory.hot_mut(number);
        // Most packets come in the same tick as the one before, and say nothing new.
        if hot.last_seen() == now && !hot.has(Flags::SHORTCUT) && carries_on(hot, direction, &upper)
        {
            hot.took(direction, len_bytes);
            self.counters.hits += 1;
            return part_of(hot, number, direction);
        }
        if !self.go_on(number, direction, (upper, len_bytes), now) {
            return None;
        }
        self.counters.hits += 1;
        part_of(self.memory.hot(number), number, direction)
    }

    /// Takes down what a packet of a connection says that is not merely like the one before. False when the connection
    /// is over, or begins anew: then it is forgotten.
    #[inline(never)]
    fn go_on(
        &mut self,
        number: Number,
        direction: Direction,
        said: (Upper, u32),
        now: Tick,
    ) -> bool {
        self.absorb(number);
        let hot = self.memory.hot(number);
        let is_over = hot.state().is_over(hot.last_seen(), now);
        if is_over {
            self.counters.expired += 1;
        } else if self.advance(number, direction, said, now) {
            return true;
        }
        self.release(number);
        false
    }

    /// Begins the connection of a packet that [follows](Self::follow) none.
    #[inline(never)]
    pub fn begin(&mut self, seen: &Seen, now: Tick) -> Tracked {
        let state = match seen.upper {
            Upper::Tcp(segment) => tcp::begin(&segment),
            Upper::Udp => Some(State::UdpNew),
            Upper::Query { answer } => (!answer).then_some(State::QueryNew),
            Upper::Sctp(chunk) => sctp::begin(&chunk),
            Upper::Other => Some(State::OtherNew),
        };
        let Some(state) = state else {
            return Tracked::Stray;
        };
        let Some(number) = self.insert(&seen.key, seen.hash, state, now) else {
            return Tracked::Full;
        };
        self.first(number, state, seen);
        match part_of(self.memory.hot(number), number, Direction::Original) {
            Some(Tracked::Flow {
                flow,
                direction,
                translated,
                decided,
                ..
            }) => Tracked::Flow {
                flow,
                direction,
                is_new: true,
                translated,
                decided,
            },
            _ => Tracked::Stray,
        }
    }

    /// Takes down what the first packet says.
    fn first(&mut self, number: Number, state: State, seen: &Seen) {
        let hot = self.memory.hot_mut(number);
        hot.count(Direction::Original, seen.len_bytes);
        if matches!(state, State::TcpPickedUp | State::SctpHeartbeatSent) {
            hot.flags |= Flags::PICKED_UP;
        }
        match seen.upper {
            Upper::Tcp(segment) => hot.ends[0] = segment.end(),
            Upper::Sctp(chunk) => {
                let after = sctp::step(hot, Direction::Original, &chunk);
                debug_assert_eq!(after, state, "the first chunk chose the state");
            }
            Upper::Udp | Upper::Query { .. } | Upper::Other => {}
        }
    }

    /// Takes down what a further packet says. False when it begins a connection anew.
    #[inline(always)]
    fn advance(
        &mut self,
        number: Number,
        direction: Direction,
        (upper, len_bytes): (Upper, u32),
        now: Tick,
    ) -> bool {
        let hot = self.memory.hot_mut(number);
        let (state, last_seen) = (hot.state(), hot.last_seen());
        let after = if carries_on(hot, direction, &upper) {
            state
        } else {
            match self.state_after(number, direction, upper, now) {
                Some(after) => after,
                None => return false,
            }
        };
        let hot = self.memory.hot_mut(number);
        hot.took(direction, len_bytes);
        hot.last_seen = now.0;
        if state != after {
            // Each step of the end is to be seen.
            self.lengthen(number);
            self.set_state(number, after);
        } else if last_seen != now && (now.0 >> state.grain()) != (last_seen.0 >> state.grain()) {
            self.queues.renew(&mut self.memory, state, number);
        }
        true
    }

    /// The state behind a packet that does not merely carry on; `None` when it begins a connection anew.
    fn state_after(
        &mut self,
        number: Number,
        direction: Direction,
        upper: Upper,
        now: Tick,
    ) -> Option<State> {
        let state = self.memory.hot(number).state();
        Some(match (state, upper) {
            (_, Upper::Tcp(segment)) => {
                let cold = *self.memory.cold(number);
                match tcp::step(self.memory.hot_mut(number), &cold, direction, &segment) {
                    Step::Stay => state,
                    Step::To(after) => after,
                    Step::Restart => return None,
                }
            }
            (State::UdpNew, Upper::Udp) if direction == Direction::Reply => State::UdpReplied,
            (State::UdpReplied, Upper::Udp)
                if now.since(Tick(self.memory.cold(number).created)) > STREAM_AFTER =>
            {
                State::UdpStream
            }
            (State::QueryNew, _) if direction == Direction::Reply => State::QueryReplied,
            (State::OtherNew, _) if direction == Direction::Reply => State::OtherReplied,
            (State::SctpClosed, Upper::Sctp(chunk)) if sctp::reopens(&chunk) => return None,
            (_, Upper::Sctp(chunk)) => sctp::step(self.memory.hot_mut(number), direction, &chunk),
            _ => state,
        })
    }
}

/// Whether a packet leaves the state of its connection as it is, which is the rule; then what it says was taken down.
#[inline(always)]
fn carries_on(hot: &mut Hot, direction: Direction, upper: &Upper) -> bool {
    match upper {
        Upper::Tcp(segment) if tcp::carries_on(hot, direction, segment) => {
            tcp::remember_end(hot, direction, segment);
            true
        }
        Upper::Udp => {
            hot.state == State::UdpStream as u8
                || (hot.state == State::UdpNew as u8 && direction == Direction::Original)
        }
        _ => false,
    }
}

/// What a packet of a connection is, which is not its first.
#[inline(always)]
fn part_of(hot: &Hot, number: Number, direction: Direction) -> Option<Tracked> {
    Some(Tracked::Flow {
        flow: FlowRef {
            number,
            generation: NonZeroU32::new(hot.generation)?,
        },
        direction,
        is_new: false,
        translated: hot.has(Flags::TRANSLATED),
        decided: Decided {
            epoch: hot.epoch,
            decision: hot.egress[direction.index()],
        },
    })
}
