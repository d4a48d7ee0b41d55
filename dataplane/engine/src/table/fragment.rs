//! Which fragments of which datagrams were seen, and those that came before their first.
//!
//! Nothing is reassembled: the first fragment, the only one with ports, decides for all, and later
//! ones follow by (source, destination, protocol, identification). The table keeps the byte ranges
//! seen, so that overlapping fragments, which two receivers could read differently, are noticed
//! (RFC 5722), and holds early fragments until the first one comes.
//!
//! Everything is allocated once; what one port can take is bounded, so that one pod's fragments
//! cannot crowd out another's.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// How long an unfinished datagram is remembered, and an early fragment held. Fragments of one datagram
/// leave their sender back to back; a second covers any reordering and keeps a flood's damage short.
pub const TIMEOUT_NS: u64 = 1_000_000_000;

/// Unfinished datagrams remembered. 240 bytes each; more than a link can reorder.
pub const ENTRIES_MAX: usize = 1024;

/// Frames of early fragments held for one port.
pub const HELD_PER_PORT_MAX: u16 = 32;

/// Early fragments held in all.
pub const HELD_MAX: usize = 512;

/// Separate byte ranges of one datagram. A 64 KiB datagram cut at 1,280 bytes has 54 fragments, and
/// every second one missing makes 27 ranges; a datagram with more is treated as an attack.
const RUNS_MAX: usize = 32;

/// No entry, no item.
const NONE: u32 = u32::MAX;

/// What names a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol; of IPv6, where later fragments may name another one (RFC 8200 section 4.5), a constant.
    pub protocol: u8,
    /// Identification.
    pub identification: u32,
}

/// A fragment that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its datagram.
    pub key: FragmentKey,
    /// First byte within the datagram.
    pub start: u16,
    /// Byte behind its last; above `start`.
    pub end: u16,
    /// Whether the datagram ends with it.
    pub last: bool,
    /// Port it came from: whose account it goes on.
    pub port: u16,
    /// Unfinished datagrams that port may have.
    pub port_entries_max: u16,
}

/// A datagram in the table. Valid until the next call that takes `&mut self` other than those it is
/// meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(u32);

/// What to do with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived<D> {
    /// The first one: [`decide`](FragmentTable::decide), and release what was held.
    First(EntryId),
    /// A later one: does as the first one did.
    Follow(D),
    /// A later one before the first: [`hold`](FragmentTable::hold).
    Early(EntryId),
    /// All its bytes were there already.
    Duplicate,
    /// The datagram has overlapping fragments; those held are to be released and dropped.
    Overlap(EntryId),
    /// The port has too many unfinished datagrams.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State<D> {
    Waiting,
    Decided(D),
    Poisoned,
}

struct Entry<D> {
    key: FragmentKey,
    deadline_ns: u64,
    state: State<D>,
    /// Sorted, disjoint, not adjacent.
    runs: ArrayVec<(u16, u16), RUNS_MAX>,
    /// End of the last fragment, once seen.
    total: Option<u16>,
    port: u16,
    /// Oldest held item.
    held: u32,
    /// Neighbours in order of age; `next` also chains free entries.
    previous: u32,
    next: u32,
}

struct Held<T> {
    item: Option<(T, u16)>,
    port: u16,
    next: u32,
}

#[derive(Clone, Copy, Default)]
struct PortUse {
    entries: u16,
    held: u16,
}

/// The table; `D` is what is decided about a datagram, `T` what is held.
pub struct FragmentTable<D, T> {
    index: HashMap<FragmentKey, u32, FixedState>,
    entries: Vec<Entry<D>>,
    free_entry: u32,
    oldest: u32,
    newest: u32,
    held: Vec<Held<T>>,
    free_held: u32,
    /// Cost of all that is held.
    cost: usize,
    ports: Box<[PortUse]>,
}

impl<D: Copy, T> FragmentTable<D, T> {
    /// An empty table for ports below `ports`. `seed` must be secret: keys come from the network.
    pub fn new(ports: usize, seed: u64) -> Self {
        Self {
            index: HashMap::with_capacity_and_hasher(ENTRIES_MAX, FixedState::with_seed(seed)),
            entries: Vec::with_capacity(ENTRIES_MAX),
            free_entry: NONE,
            oldest: NONE,
            newest: NONE,
            held: Vec::with_capacity(HELD_MAX),
            free_held: NONE,
            cost: 0,
            ports: vec![PortUse::default(); ports].into_boxed_slice(),
        }
    }

    /// Unfinished datagrams.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is unfinished.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Sum of the costs of what is held.
    pub fn held_cost(&self) -> usize {
        self.cost
    }

    /// Notes a fragment and says what to do with it.
    pub fn arrive(&mut self, arrival: &Arrival, now_ns: u64) -> Arrived<D> {
        // Entries live until `expire` collects them, up to a call later than their deadline.
        let known = self.index.get(&arrival.key).copied();
        let Some(at) = known.or_else(|| self.insert(arrival, now_ns)) else {
            return Arrived::Full;
        };
        let entry = &mut self.entries[at as usize];
        match entry.note(arrival.start, arrival.end, arrival.last) {
            _ if matches!(entry.state, State::Poisoned) => Arrived::Overlap(EntryId(at)),
            Noted::Duplicate => Arrived::Duplicate,
            Noted::Overlap => {
                entry.state = State::Poisoned;
                Arrived::Overlap(EntryId(at))
            }
            Noted::New if arrival.start == 0 => Arrived::First(EntryId(at)),
            Noted::New => match entry.state {
                State::Decided(decision) => {
                    self.settle(EntryId(at));
                    Arrived::Follow(decision)
                }
                _ => Arrived::Early(EntryId(at)),
            },
        }
    }

    /// Says what the first fragment's fate is. Then [`release`](Self::release) what was held and
    /// [`settle`](Self::settle).
    pub fn decide(&mut self, entry: EntryId, decision: D) {
        self.entries[entry.0 as usize].state = State::Decided(decision);
    }

    /// Holds an early fragment of `cost` frames.
    ///
    /// # Errors
    /// The item, when its port holds as much as it may.
    pub fn hold(&mut self, entry: EntryId, item: T, cost: u16) -> Result<(), T> {
        let port = self.entries[entry.0 as usize].port;
        let usage = &mut self.ports[usize::from(port)];
        if usage.held + cost > HELD_PER_PORT_MAX {
            return Err(item);
        }
        let Some(at) = self.take_held() else {
            return Err(item);
        };
        self.ports[usize::from(port)].held += cost;
        self.cost += usize::from(cost);
        self.held[at as usize] = Held {
            item: Some((item, cost)),
            port,
            next: NONE,
        };
        self.append_held(entry, at);
        Ok(())
    }

    /// The next held fragment of a datagram, oldest first.
    pub fn release(&mut self, entry: EntryId) -> Option<T> {
        let entry = &mut self.entries[entry.0 as usize];
        let at = entry.held;
        if at == NONE {
            return None;
        }
        let held = &mut self.held[at as usize];
        entry.held = std::mem::replace(&mut held.next, self.free_held);
        self.free_held = at;
        let (item, cost) = held.item.take()?;
        self.ports[usize::from(held.port)].held -= cost;
        self.cost -= usize::from(cost);
        Some(item)
    }

    /// Forgets a datagram whose fragments all went by.
    pub fn settle(&mut self, entry: EntryId) {
        if self.entries[entry.0 as usize].is_complete() {
            self.remove(entry.0);
        }
    }

    /// Forgets what timed out; held fragments go to `sink`.
    pub fn expire(&mut self, now_ns: u64, mut sink: impl FnMut(T)) {
        while self.oldest != NONE && self.entries[self.oldest as usize].deadline_ns <= now_ns {
            let at = self.oldest;
            while let Some(item) = self.release(EntryId(at)) {
                sink(item);
            }
            self.remove(at);
        }
    }

    /// Forgets all datagrams of a port; held fragments go to `sink`.
    pub fn remove_port(&mut self, port: u16, mut sink: impl FnMut(T)) {
        let mut at = self.oldest;
        while at != NONE {
            let next = self.entries[at as usize].next;
            if self.entries[at as usize].port == port {
                while let Some(item) = self.release(EntryId(at)) {
                    sink(item);
                }
                self.remove(at);
            }
            at = next;
        }
    }

    fn insert(&mut self, arrival: &Arrival, now_ns: u64) -> Option<u32> {
        let usage = self.ports.get_mut(usize::from(arrival.port))?;
        if usage.entries >= arrival.port_entries_max || self.index.len() >= ENTRIES_MAX {
            return None;
        }
        usage.entries += 1;
        let entry = Entry {
            key: arrival.key,
            deadline_ns: now_ns.saturating_add(TIMEOUT_NS),
            state: State::Waiting,
            runs: ArrayVec::new(),
            total: None,
            port: arrival.port,
            held: NONE,
            previous: self.newest,
            next: NONE,
        };
        let at = self.place(entry);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.entries[newest as usize].next = at,
        }
        self.newest = at;
        self.index.insert(arrival.key, at);
        Some(at)
    }

    fn place(&mut self, entry: Entry<D>) -> u32 {
        if self.free_entry == NONE {
            self.entries.push(entry);
            return (self.entries.len() - 1) as u32;
        }
        let at = self.free_entry;
        self.free_entry = self.entries[at as usize].next;
        self.entries[at as usize] = entry;
        at
    }

    /// Nothing is held by the entry.
    fn remove(&mut self, at: u32) {
        let entry = &self.entries[at as usize];
        debug_assert_eq!(
            entry.held, NONE,
            "held fragments are released before their entry goes"
        );
        let (previous, next) = (entry.previous, entry.next);
        self.index.remove(&entry.key);
        self.ports[usize::from(entry.port)].entries -= 1;
        match previous {
            NONE => self.oldest = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => self.newest = previous,
            next => self.entries[next as usize].previous = previous,
        }
        self.entries[at as usize].next = self.free_entry;
        self.free_entry = at;
    }

    fn take_held(&mut self) -> Option<u32> {
        if self.free_held != NONE {
            let at = self.free_held;
            self.free_held = self.held[at as usize].next;
            return Some(at);
        }
        if self.held.len() == HELD_MAX {
            return None;
        }
        self.held.push(Held {
            item: None,
            port: 0,
            next: NONE,
        });
        Some((self.held.len() - 1) as u32)
    }

    /// At most [`HELD_PER_PORT_MAX`] steps.
    fn append_held(&mut self, entry: EntryId, at: u32) {
        let mut tail = self.entries[entry.0 as usize].held;
        if tail == NONE {
            self.entries[entry.0 as usize].held = at;
            return;
        }
        while self.held[tail as usize].next != NONE {
            tail = self.held[tail as usize].next;
        }
        self.held[tail as usize].next = at;
    }
}

enum Noted {
    New,
    Duplicate,
    Overlap,
}

impl<D> Entry<D> {
    /// Adds a byte range. Wholly seen is a duplicate, as the kernel has it (net/ipv4/inet_fragment.c,
    /// inet_frag_queue_insert); partly seen, beyond the end or a second end is an overlap.
    fn note(&mut self, start: u16, end: u16, last: bool) -> Noted {
        let seen_end = self.runs.last().map_or(0, |run| run.1);
        let fits = match self.total {
            Some(total) if last => end == total,
            Some(total) => end < total,
            None => !last || end >= seen_end,
        };
        let after = self.runs.partition_point(|run| run.1 < start);
        if !fits {
            return Noted::Overlap;
        }
        if self
            .runs
            .get(after)
            .is_some_and(|run| run.0 <= start && end <= run.1)
        {
            // Bytes that were not the last before cannot be now.
            return if last && self.total.is_none() {
                Noted::Overlap
            } else {
                Noted::Duplicate
            };
        }
        let cut = self
            .runs
            .get(after)
            .is_some_and(|run| run.0 < end && start < run.1);
        let next_cut = self.runs.get(after + 1).is_some_and(|run| run.0 < end);
        if cut || next_cut {
            return Noted::Overlap;
        }
        if last {
            self.total = Some(end);
        }
        self.add(after, start, end)
    }

    /// Inserts the range in front of run `at`, merging with neighbours it touches.
    fn add(&mut self, at: usize, start: u16, end: u16) -> Noted {
        let touches_left = self.runs.get(at).is_some_and(|run| run.1 == start);
        let right = if touches_left { at + 1 } else { at };
        let touches_right = self.runs.get(right).is_some_and(|run| run.0 == end);
        match (touches_left, touches_right) {
            (true, true) => {
                self.runs[at].1 = self.runs[right].1;
                self.runs.remove(right);
            }
            (true, false) => self.runs[at].1 = end,
            (false, true) => self.runs[right].0 = start,
            (false, false) if self.runs.is_full() => return Noted::Overlap,
            (false, false) => self.runs.insert(at, (start, end)),
        }
        Noted::New
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, State::Decided(_))
            && matches!((self.runs.as_slice(), self.total), (&[(0, end)], Some(total)) if end == total)
    }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
