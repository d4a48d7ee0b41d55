//! What a packet does to its connection.

use super::FlowTable;
use super::entry::{Flags, FlowRef};
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
        if let Some((number, direction)) = self.search(&seen.key, seen.hash) {
            let hot = self.memory.hot(number);
            if hot.state().is_over(hot.last_seen(), now) {
                self.counters.expired += 1;
            } else if self.advance(number, direction, seen, now) {
                self.counters.hits += 1;
                return Some(self.part_of(number, direction, false));
            }
            self.release(number);
        }
        None
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
        self.part_of(number, Direction::Original, true)
    }

    #[inline]
    fn part_of(&self, number: Number, direction: Direction, is_new: bool) -> Tracked {
        match self.reference(number) {
            Some(flow) => Tracked::Flow {
                flow,
                direction,
                is_new,
                translated: self.memory.hot(number).has(Flags::TRANSLATED),
            },
            None => Tracked::Stray,
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
    #[inline]
    fn advance(&mut self, number: Number, direction: Direction, seen: &Seen, now: Tick) -> bool {
        let Some(after) = self.state_after(number, direction, seen, now) else {
            return false;
        };
        let hot = self.memory.hot_mut(number);
        let (state, last_seen) = (hot.state(), hot.last_seen());
        hot.count(direction, seen.len_bytes);
        hot.last_seen = now.0;
        if direction == Direction::Reply {
            hot.flags |= Flags::REPLIED;
        }
        if state != after {
            self.set_state(number, after);
        } else if (now.0 >> state.grain()) != (last_seen.0 >> state.grain()) {
            self.queues.renew(&mut self.memory, state, number);
        }
        true
    }

    /// The state behind a further packet; `None` when it begins a connection anew.
    #[inline]
    fn state_after(
        &mut self,
        number: Number,
        direction: Direction,
        seen: &Seen,
        now: Tick,
    ) -> Option<State> {
        let state = self.memory.hot(number).state();
        Some(match (state, seen.upper) {
            (_, Upper::Tcp(segment)) => match self.step_tcp(number, direction, &segment) {
                Step::Stay => state,
                Step::To(after) => after,
                Step::Restart => return None,
            },
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

    #[inline]
    fn step_tcp(&mut self, number: Number, direction: Direction, segment: &Segment) -> Step {
        if tcp::carries_on(self.memory.hot(number), segment) {
            tcp::remember_end(self.memory.hot_mut(number), direction, segment);
            return Step::Stay;
        }
        let cold = *self.memory.cold(number);
        tcp::step(self.memory.hot_mut(number), &cold, direction, segment)
    }
}
