//! One worker's connections.
//!
//! The table lies in one region of memory ([`FlowMemory`]) that another process can take over: entries
//! are found by an index of open addressing, wait in one queue per state for their timeout, and hold the
//! decision the pipeline made about the connection. It knows protocols, but no packets: the stage says
//! what it saw ([`Seen`]) and the table says which connection that belongs to ([`Tracked`]).
//!
//! | file | what |
//! |---|---|
//! | `key.rs` | addresses and ports, their hash |
//! | `state.rs` | states, timeouts, who gives way |
//! | `memory.rs`, `entry.rs` | the bytes |
//! | `index.rs`, `queue.rs` | hash to entry; state to longest silent entry |
//! | `store.rs` | how entries come and go |
//! | `track.rs`, `tcp.rs`, `sctp.rs` | what a packet does to its connection |
//! | `translate.rs` | connections whose packets' addresses are replaced |
//! | `shortcut.rs` | connections whose data goes past the pipeline |
//! | `recover.rs` | taking over what another process left |
//!
//! Nothing is allocated after [`FlowTable::new`] and [`FlowTable::use_shortcuts`].

mod entry;
mod index;
mod key;
mod memory;
mod queue;
mod recover;
mod sctp;
mod shortcut;
mod state;
mod store;
mod tcp;
mod track;
mod translate;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod recover_tests;
#[cfg(test)]
mod shortcut_tests;
#[cfg(test)]
mod tcp_tests;
#[cfg(test)]
mod track_tests;

use std::num::NonZeroU32;

pub use entry::{FlowFilter, FlowInfo, FlowRef};
pub use key::{Direction, FlowKey, HashSeed, Tuple};
pub use memory::{FLOWS_MAX, FlowMemory, MemoryError};
pub use recover::Recovery;
pub use sctp::{Chunk, ChunkKind};
pub use shortcut::{Candidate, ShortcutRoute, Shortcuts, TunnelEnd, Used};
pub use state::{Standing, State, Tick};
pub use tcp::Segment;
pub use track::{Decided, Seen, Tracked, Upper};
pub(crate) use translate::Onward;

use crate::packet::{NextHop, PortId};
use crate::table::service::BackendCounters;
use weft_wire::MacAddr;

use entry::{Flags, Neighbour};
use memory::{Family, Number};
use queue::{NONE, Queues};

/// What the table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Packets of known connections.
    pub hits: u64,
    /// Connections begun.
    pub new: u64,
    /// Connections whose timeout ran out.
    pub expired: u64,
    /// Connections that gave way to a new one.
    pub evicted: u64,
    /// Packets refused, since none would give way.
    pub refused: u64,
    /// Connections in the table now.
    pub current: u64,
}

impl FlowCounters {
    /// Stable name and meaning of each value of [`FlowCounters::values`].
    pub const NAMES: [(&str, &str); 6] = [
        ("current", "connections in the table now"),
        ("new", "connections begun"),
        ("hits", "packets of known connections"),
        ("expired", "connections whose timeout ran out"),
        ("evicted", "connections that gave way to a new one"),
        (
            "refused",
            "packets of new connections with no room in the table",
        ),
    ];

    /// The values in the order of their names.
    pub const fn values(&self) -> [u64; 6] {
        [
            self.current,
            self.new,
            self.hits,
            self.expired,
            self.evicted,
            self.refused,
        ]
    }

    /// All zero.
    pub const fn new() -> Self {
        Self {
            hits: 0,
            new: 0,
            expired: 0,
            evicted: 0,
            refused: 0,
            current: 0,
        }
    }
}

/// The table; see the module's text.
pub struct FlowTable {
    memory: FlowMemory,
    seed: HashSeed,
    queues: Queues,
    /// First of the free entries that were used before, by family.
    free: [u32; 2],
    counters: FlowCounters,
    backends: BackendCounters,
    /// The state [`FlowTable::reap`] looks at next.
    reaped: usize,
    shortcuts: Option<Box<dyn Shortcuts>>,
    /// Who asked for the shortcut of each seat: those with [`Flags::SHORTCUT`], once each.
    seat_owners: Box<[Option<Number>]>,
}

impl FlowTable {
    /// An empty table of at most `flows` connections; see [`FlowMemory::new`].
    pub fn new(flows: u32, seed: u64) -> Self {
        Self::over(FlowMemory::new(flows, seed))
    }

    /// An empty table in a region that is all zero, which another process may take over from this one.
    pub fn empty_in(mut memory: FlowMemory, seed: u64) -> Self {
        memory.begin(seed);
        Self::over(memory)
    }

    /// A table that takes its region for an empty one.
    fn over(memory: FlowMemory) -> Self {
        Self {
            seed: HashSeed::new(memory.seed()),
            memory,
            queues: Queues::new(),
            free: [NONE; 2],
            counters: FlowCounters::new(),
            backends: BackendCounters::new(),
            reaped: 0,
            shortcuts: None,
            seat_owners: Box::default(),
        }
    }

    /// Gives the region away, for [`FlowTable::recover`].
    pub fn into_memory(self) -> FlowMemory {
        self.memory
    }

    #[cfg(test)]
    pub(crate) const fn memory_mut(&mut self) -> &mut FlowMemory {
        &mut self.memory
    }

    /// What was counted since the table was made or taken over.
    pub const fn counters(&self) -> FlowCounters {
        self.counters
    }

    /// Connections in the table, overdue ones included.
    pub const fn len(&self) -> usize {
        self.counters.current as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections the table has room for.
    pub const fn capacity(&self) -> usize {
        self.memory.flows() as usize
    }

    /// What keys are hashed with.
    #[inline]
    pub const fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The connection a packet belongs to, and which way it goes. `hash` is the key's.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64, now: Tick) -> Option<(FlowRef, Direction)> {
        let (number, direction) = self.search(key, hash)?;
        let hot = self.memory.hot(number);
        // What went by a shortcut was perhaps not taken down yet.
        if hot.state().is_over(hot.last_seen(), now) && !hot.has(Flags::SHORTCUT) {
            return None;
        }
        Some((self.reference(number)?, direction))
    }

    /// Removes a connection; one that ended already is fine.
    pub fn remove(&mut self, flow: FlowRef) {
        if let Some(number) = self.resolve(flow) {
            self.release(number);
        }
    }

    /// Removes connections that are overdue, at most `most` of them, and says how many it removed.
    pub fn expire(&mut self, now: Tick, most: usize) -> usize {
        let mut removed = 0;
        for state in State::ALL {
            while removed < most && self.reap_oldest(*state, now) {
                removed += 1;
            }
        }
        removed
    }

    /// All connections, for people: reads every entry ever used.
    pub fn iter(&self, now: Tick) -> impl Iterator<Item = FlowInfo> + '_ {
        Family::BOTH.into_iter().flat_map(move |family| {
            let used = self.memory.header().used[family as usize];
            let numbers = (0..used).filter_map(move |place| self.memory.number_of(family, place));
            numbers.filter_map(move |number| self.info(number, now))
        })
    }

    /// Shows some connections to `visit`, for people: those in at most `most` places from `from` on, 0 for the
    /// first. Returns where to go on; `None` behind the last. Connections may come and go in between.
    pub fn scan(
        &mut self,
        from: u32,
        most: usize,
        now: Tick,
        mut visit: impl FnMut(FlowInfo),
    ) -> Option<u32> {
        let first_of_v6 = self.memory.flows();
        let [used_v4, used_v6] = self.memory.header().used;
        let mut at = from;
        for _ in 0..most {
            if (used_v4..first_of_v6).contains(&at) {
                at = first_of_v6;
            }
            if at >= first_of_v6 + used_v6 {
                return None;
            }
            let number = self.memory.number(at);
            number.into_iter().for_each(|it| self.absorb(it));
            let flow = number.and_then(|it| self.info(it, now));
            flow.into_iter().for_each(&mut visit);
            at += 1;
        }
        Some(at)
    }

    /// The connections that `filter` takes.
    pub fn list(&self, filter: FlowFilter, now: Tick) -> impl Iterator<Item = FlowInfo> + '_ {
        self.iter(now).filter(move |flow| filter.takes(flow))
    }

    /// One connection, for people.
    pub fn describe(&self, flow: FlowRef, now: Tick) -> Option<FlowInfo> {
        self.info(self.resolve(flow)?, now)
    }

    /// Decision for a direction made under this version of the tables, 0 when there is none.
    #[inline]
    pub fn decision(&self, flow: FlowRef, direction: Direction, epoch: u32) -> u32 {
        match self.resolve(flow) {
            Some(number) => {
                let hot = self.memory.hot(number);
                let current = hot.epoch == epoch;
                if current {
                    hot.egress[direction.index()]
                } else {
                    0
                }
            }
            None => 0,
        }
    }

    /// Remembers a decision; those of other versions of the tables are forgotten.
    pub fn decide(&mut self, flow: FlowRef, direction: Direction, epoch: u32, decision: u32) {
        if let Some(number) = self.resolve(flow) {
            let hot = self.memory.hot_mut(number);
            if hot.epoch != epoch {
                (hot.epoch, hot.egress) = (epoch, [0; 2]);
            }
            hot.egress[direction.index()] = decision;
        }
    }

    /// Whether the connection was allowed by this version of the policies. Tables of version `epoch` say
    /// so too, under which only what is allowed has a [decision](Self::decision).
    #[inline]
    pub fn is_allowed(&self, flow: FlowRef, epoch: u32, policy_epoch: u32) -> bool {
        self.resolve(flow).is_some_and(|number| {
            self.memory.hot(number).epoch == epoch
                || self.memory.cold(number).policy_epoch == policy_epoch
        })
    }

    /// Remembers the version of the policies that allowed the connection.
    pub fn allow(&mut self, flow: FlowRef, policy_epoch: u32) {
        if let Some(number) = self.resolve(flow) {
            self.memory.cold_mut(number).policy_epoch = policy_epoch;
        }
    }

    /// Remembers that the connection was opened against the direction of its first packet here.
    pub fn reverse(&mut self, flow: FlowRef) {
        if let Some(number) = self.resolve(flow) {
            self.memory.hot_mut(number).flags |= Flags::REVERSED;
        }
    }

    /// Remembers what a SYN announced: the MSS its sender takes, and its window scale. Only while the
    /// connection is being opened: a forged SYN later changes nothing.
    pub fn learn(
        &mut self,
        flow: FlowRef,
        direction: Direction,
        mss: u16,
        window_scale: Option<u8>,
    ) {
        const OPENING: [State; 3] = [
            State::TcpSynSent,
            State::TcpSynSentBoth,
            State::TcpSynReceived,
        ];
        if let Some(number) = self.resolve(flow)
            && OPENING.contains(&self.memory.hot(number).state())
        {
            let cold = self.memory.cold_mut(number);
            cold.mss[direction.index()] = mss;
            cold.window_scale[direction.index()] =
                window_scale.map_or(0, |it| it.saturating_add(1));
        }
    }

    /// Remembers the neighbour by which replies go to a client outside the cluster.
    pub fn set_next_hop(&mut self, flow: FlowRef, next_hop: NextHop) {
        if let Some(number) = self.resolve(flow) {
            let known = Neighbour {
                mac: next_hop.mac.0,
                port: next_hop.port.0,
            };
            *self.memory.neighbour_mut(number) = known;
            self.memory.hot_mut(number).set_outside();
        }
    }

    /// The neighbour by which replies go to the client, where that is outside the cluster.
    #[inline]
    pub fn next_hop(&self, flow: FlowRef) -> Option<NextHop> {
        let number = self.resolve(flow)?;
        if !self.memory.hot(number).is_outside() {
            return None;
        }
        let Neighbour { mac, port } = *self.memory.neighbour(number);
        Some(NextHop {
            port: PortId(port),
            mac: MacAddr(mac),
        })
    }

    /// Largest TCP payload that may be sent in a direction: what the receiver announced in its SYN (RFC
    /// 9293 section 3.7.1). `None` when that was not seen.
    #[inline]
    pub fn mss_towards(&self, flow: FlowRef, direction: Direction) -> Option<u16> {
        let cold = self.memory.cold(self.resolve(flow)?);
        let announced = cold.mss[direction.opposite().index()];
        (announced != 0).then_some(announced)
    }

    /// The entry of a connection that has not ended.
    #[inline]
    fn resolve(&self, flow: FlowRef) -> Option<Number> {
        let number = self.memory.number(flow.number.raw())?;
        let hot = self.memory.hot(number);
        (hot.generation == flow.generation.get() && hot.state != State::Free as u8)
            .then_some(number)
    }

    #[inline]
    fn reference(&self, number: Number) -> Option<FlowRef> {
        Some(FlowRef {
            number,
            generation: NonZeroU32::new(self.memory.hot(number).generation)?,
        })
    }

    /// The entry of a key, overdue or not.
    #[inline(never)]
    fn search(&self, key: &FlowKey, hash: u64) -> Option<(Number, Direction)> {
        self.search_here(key, hash)
    }

    /// As [`FlowTable::search`], for where packets of known connections pass.
    #[inline(always)]
    fn search_here(&self, key: &FlowKey, hash: u64) -> Option<(Number, Direction)> {
        let memory = &self.memory;
        let mut candidates = memory.candidates(hash);
        match key.tuple {
            Tuple::V4(tuple) => {
                while let Some(number) = candidates.next(Family::V4) {
                    if let Some(direction) = side(&memory.pair4(number).0, |it| it.is(&tuple))
                        && self.is_of(number, key.protocol)
                    {
                        return Some((number, direction));
                    }
                }
            }
            Tuple::V6(tuple) => {
                while let Some(number) = candidates.next(Family::V6) {
                    if let Some(direction) = side(&memory.pair6(number).0, |it| it.is(&tuple))
                        && self.is_of(number, key.protocol)
                    {
                        return Some((number, direction));
                    }
                }
            }
        }
        None
    }

    /// Whether the entry is a connection of this protocol.
    #[inline(always)]
    fn is_of(&self, number: Number, protocol: u8) -> bool {
        let hot = self.memory.hot(number);
        hot.protocol == protocol && hot.state != State::Free as u8
    }

    fn info(&self, number: Number, now: Tick) -> Option<FlowInfo> {
        let hot = self.memory.hot(number);
        if hot.state() == State::Free {
            return None;
        }
        let cold = self.memory.cold(number);
        let (original, reply) = self.keys(number);
        Some(FlowInfo {
            original,
            reply,
            state: hot.state(),
            replied: hot.has(Flags::REPLIED),
            picked_up: hot.has(Flags::PICKED_UP),
            reversed: hot.has(Flags::REVERSED),
            reset: hot.has(Flags::RESET),
            translated: hot.has(Flags::TRANSLATED),
            packets: hot.packets.map(|it| it.get()),
            bytes: hot.bytes.map(|it| it.get()),
            age_ns: now.since_ns(Tick(cold.created)),
            idle_ns: now.since_ns(hot.last_seen()),
            mss: cold.mss.map(|mss| Some(mss).filter(|it| *it != 0)),
            shortcut: hot.has(Flags::SHORTCUT),
        })
    }
}

/// Which of an entry's tuples is equal.
#[inline(always)]
fn side<T>([original, reply]: &[T; 2], is: impl Fn(&T) -> bool) -> Option<Direction> {
    if is(original) {
        Some(Direction::Original)
    } else if is(reply) {
        Some(Direction::Reply)
    } else {
        None
    }
}
