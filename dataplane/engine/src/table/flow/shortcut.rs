//! Connections whose data goes past the pipeline: what went by is taken down wherever somebody looks at them.
//!
//! A busy TCP or UDP connection of a pod with another port of the node, or with another node, is given to a
//! [`Shortcuts`], which may send its data on by itself until it is taken back. What opens or ends the connection still comes by the pipeline.

use super::FlowTable;
use super::entry::{Flags, FlowRef, Hot};
use super::key::{Direction, FlowKey};
use super::memory::{Family, Number};
use super::state::{State, Tick};
use crate::packet::{PortId, RemoteId};

/// Packets of a connection by the pipeline before it is given a shortcut, and before it is given one again. Fewer
/// and short connections cost more than they gain; each costs the control side some 20 us.
const PACKETS_BEFORE: u8 = 64;

/// What went by a direction of a shortcut since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
    /// Monotonic time of the last packet in nanoseconds.
    pub last_ns: u64,
    /// Highest TCP sequence number behind a segment.
    pub end: u32,
}

/// How long a connection was silent that loses its seat to one that is not.
const SILENT: u32 = Tick::count(1);

/// A connection that may be given a shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its seat: no other connection of the table has it now.
    pub seat: u32,
    /// Which of the connections that had the seat it is; never 0.
    pub ticket: u32,
    /// What names its packets, by direction.
    pub keys: [FlowKey; 2],
    /// Highest TCP sequence number behind a segment, by direction.
    pub ends: [u32; 2],
    /// What it is about.
    pub route: ShortcutRoute,
    /// [`crate::Tables::shortcut_epoch`] it was decided under.
    pub epoch: u32,
}

/// Where packets of a connection go past the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortcutRoute {
    /// Port they come in by, by direction.
    pub ports: [PortId; 2],
    /// Which directions are to have one: datagrams may go one way only.
    pub directions: [bool; 2],
    /// Where one of the ports is an uplink: the tunnel behind it.
    pub tunnel: Option<TunnelEnd>,
}

/// A connection's other end, behind the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The node.
    pub remote: RemoteId,
    /// What the outer source port of the connection's packets is made of.
    pub flow_hash: u32,
}

/// What sends packets on past the pipeline. No call may wait.
pub trait Shortcuts: Send {
    /// Connections that can have one at once: those in the seats below.
    fn seats(&self) -> u32;

    /// Asks for a shortcut; it may come later or never.
    fn ask(&mut self, candidate: &Candidate);

    /// What went by a seat in a direction since the last call; nothing when it was with another ticket.
    fn take(&mut self, seat: u32, ticket: u32, direction: Direction) -> Used;

    /// Takes the shortcut of a seat back: from now on everything comes by the pipeline.
    fn end(&mut self, seat: u32);
}

impl FlowTable {
    /// Goes on with `shortcuts`, which knows what went by those of the table's former owner. None of those holds any
    /// longer.
    pub fn use_shortcuts(&mut self, shortcuts: Box<dyn Shortcuts>) {
        self.seat_owners = vec![None; shortcuts.seats() as usize].into();
        self.shortcuts = Some(shortcuts);
        for family in Family::BOTH {
            for place in 0..self.memory.header().used[family as usize] {
                if let Some(number) = self.memory.number_of(family, place) {
                    self.absorb(number);
                    self.lengthen(number);
                }
            }
        }
    }

    /// Takes down what went by the shortcuts in at most `most` seats from `from` on, 0 for the first. Returns where to
    /// go on; `None` behind the last.
    pub fn absorb_some(&mut self, from: u32, most: u32) -> Option<u32> {
        let end = self.seat_owners.len() as u32;
        let to = end.min(from.saturating_add(most));
        for seat in from..to {
            if let Some(number) = self.seat_owners[seat as usize] {
                self.absorb(number);
            }
        }
        (to < end).then_some(to)
    }

    /// Counts a packet of a connection towards its shortcut. The decisions for both directions when it is to be asked
    /// for; of datagrams one may be missing (0), of TCP none is.
    #[inline]
    pub fn is_due(&mut self, flow: FlowRef, epoch: u32) -> Option<[u32; 2]> {
        let number = self.resolve(flow)?;
        let hot = self.memory.hot_mut(number);
        let needs_both = match hot.state() {
            State::TcpEstablished => true,
            State::UdpNew | State::UdpReplied | State::UdpStream => false,
            _ => return None,
        };
        if hot.lengthen_streak() < PACKETS_BEFORE
            || hot.epoch != epoch
            || (needs_both && hot.egress.contains(&0))
        {
            return None;
        }
        Some(hot.egress)
    }

    /// Asks for a shortcut of a connection, whose packet came just now. None while its seat is taken.
    #[cold]
    pub fn shorten(&mut self, flow: FlowRef, route: ShortcutRoute, epoch: u32) {
        let Some(number) = self.resolve(flow) else {
            return;
        };
        self.memory.hot_mut(number).end_streak();
        // It may have had one, under older tables.
        self.absorb(number);
        let Some(seat) = self.sit_down(number) else {
            return;
        };
        let (original, reply) = self.keys(number);
        let hot = self.memory.hot_mut(number);
        hot.flags |= Flags::SHORTCUT;
        let candidate = Candidate {
            seat,
            ticket: hot.generation,
            keys: [original, reply],
            ends: hot.ends,
            route,
            epoch,
        };
        if let Some(shortcuts) = &mut self.shortcuts {
            shortcuts.ask(&candidate);
        }
    }

    /// Takes down what went by the shortcut of a connection, if it has one.
    #[inline]
    pub(super) fn absorb(&mut self, number: Number) {
        if self.memory.hot(number).has(Flags::SHORTCUT) {
            self.absorb_used(number);
        }
    }

    #[cold]
    fn absorb_used(&mut self, number: Number) {
        let (Some(seat), Some(shortcuts)) = (self.seat(number), &mut self.shortcuts) else {
            return;
        };
        let hot = self.memory.hot_mut(number);
        let (state, before) = (hot.state(), hot.last_seen());
        for direction in [Direction::Original, Direction::Reply] {
            let used = shortcuts.take(seat, hot.generation, direction);
            if used.packets > 0 {
                self.counters.hits += used.packets;
                hot.add(direction, used.packets, used.bytes);
                hot.ends[direction.index()] = used.end;
                let last = Tick::of_ns(used.last_ns);
                hot.last_seen = hot.last_seen.wrapping_add(last.since(hot.last_seen()));
            }
        }
        if hot.last_seen() != before && state != State::Free {
            self.queues.renew(&mut self.memory, state, number);
        }
    }

    /// Takes the shortcut of a connection back, if it has one. What went by it was taken down before.
    #[inline]
    pub(super) fn lengthen(&mut self, number: Number) {
        if self.memory.hot(number).has(Flags::SHORTCUT) {
            let hot = self.memory.hot_mut(number);
            hot.flags &= !Flags::SHORTCUT;
            hot.end_streak();
            if let (Some(seat), Some(shortcuts)) = (self.seat(number), &mut self.shortcuts) {
                self.seat_owners[seat as usize] = None;
                shortcuts.end(seat);
            }
        }
    }

    /// The seat of a connection, from now on its own, unless somebody has it who was not silent.
    fn sit_down(&mut self, number: Number) -> Option<u32> {
        let seat = self.seat(number)?;
        let owner = self.seat_owners[seat as usize].filter(|it| *it != number);
        if let Some(owner) = owner {
            self.absorb(owner);
            let now = self.memory.hot(number).last_seen();
            if now.since(self.memory.hot(owner).last_seen()) < SILENT {
                return None;
            }
            self.lengthen(owner);
        }
        self.seat_owners[seat as usize] = Some(number);
        Some(seat)
    }

    /// The only seat a connection may have; entries share it that are a multiple of the seats apart. Both families'
    /// stand side by side, so that few connections have it each for itself.
    fn seat(&self, number: Number) -> Option<u32> {
        let family = self.memory.family(number) as u32;
        let place = number.raw() - family * self.memory.flows();
        (2 * place + family).checked_rem(self.seat_owners.len() as u32)
    }
}

impl Hot {
    fn add(&mut self, direction: Direction, packets: u64, bytes: u64) {
        let side = direction.index();
        self.packets[side] = self.packets[side].get().wrapping_add(packets).into();
        self.bytes[side] = self.bytes[side].get().wrapping_add(bytes).into();
    }
}
