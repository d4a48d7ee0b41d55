//! Shortcuts between a worker and the control side: the worker's half asks for them by a ring, reads what went by
//! them and takes them back, all without a system call.

use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use weft_engine::table::flow::{Candidate, Shortcuts, Used};
use weft_engine::{Direction, PORTS_MAX, PortId};
use weft_keeper::shortcut::{SHORTCUTS_MAX, ShortcutMaps};
use weft_snapshot::SharedCounters;

use crate::waiter::Bell;

/// Connections that may wait for the control side; what finds no room asks again some packets later.
const WAITING_MAX: usize = 256;

/// Bytes of an Ethernet header, which count in a port's bytes.
const ETHERNET_BYTES: u64 = 14;

/// Places of a worker's counters; those of the ports follow.
const ASKED: usize = 0;
const PACKETS: usize = 1;
const BYTES: usize = 2;
const PORTS_AT: usize = 3;

/// Counters of a port: received packets and bytes, sent packets and bytes.
const OF_PORT: usize = 4;

/// The worker's half, in its flow table.
pub struct ShortcutWriter {
    maps: Arc<ShortcutMaps>,
    /// First place of this worker; a seat has two, one a direction.
    first: u32,
    ring: Producer<Candidate>,
    /// By seat: the ports its connection comes in by, once it asked.
    ports: Box<[Option<[PortId; 2]>]>,
    counters: Counters,
}

/// What a worker holds to tell the control side that somebody asked.
pub struct ShortcutNews {
    counters: Counters,
    told: u64,
    bell: Bell,
}

/// What the control side holds of a worker.
pub struct ShortcutReader {
    ring: Consumer<Candidate>,
    counters: Counters,
}

/// One worker's counters: written by it, read by the control side.
#[derive(Clone)]
struct Counters(Arc<SharedCounters>);

/// Everything of worker `worker` of `workers`, whose news are told by `bell`.
pub fn shortcut_ring(
    maps: Arc<ShortcutMaps>,
    (worker, workers): (u32, u32),
    bell: Bell,
) -> (ShortcutWriter, ShortcutNews, ShortcutReader) {
    let (producer, consumer) = RingBuffer::new(WAITING_MAX);
    let counters = Counters(Arc::new(SharedCounters::new(
        PORTS_AT + OF_PORT * PORTS_MAX,
    )));
    let seats = seats(workers);
    let writer = ShortcutWriter {
        maps,
        first: 2 * seats * worker,
        ring: producer,
        ports: vec![None; seats as usize].into(),
        counters: counters.clone(),
    };
    let news = ShortcutNews {
        counters: counters.clone(),
        told: 0,
        bell,
    };
    let reader = ShortcutReader {
        ring: consumer,
        counters,
    };
    (writer, news, reader)
}

/// Connections of each worker that can have a shortcut.
const fn seats(workers: u32) -> u32 {
    SHORTCUTS_MAX / 2 / if workers == 0 { 1 } else { workers }
}

/// Where a direction of the connection in a seat is counted.
pub fn place(worker: u32, workers: u32, seat: u32, direction: Direction) -> u32 {
    2 * (seats(workers) * worker + seat) + direction.index() as u32
}

impl Shortcuts for ShortcutWriter {
    fn seats(&self) -> u32 {
        self.ports.len() as u32
    }

    fn ask(&mut self, candidate: &Candidate) {
        let Some(ports) = self.ports.get_mut(candidate.seat as usize) else {
            return;
        };
        *ports = Some(candidate.route.ports);
        for direction in [Direction::Original, Direction::Reply] {
            let place = self.place(candidate.seat, direction);
            let end = candidate.ends[direction.index()];
            self.maps.open_place(place, end, candidate.ticket);
        }
        if self.ring.push(*candidate).is_ok() {
            self.counters.add(ASKED, 1);
        }
    }

    fn take(&mut self, seat: u32, ticket: u32, direction: Direction) -> Used {
        if seat < self.seats() && self.maps.ticket(self.place(seat, direction)) == ticket {
            self.count(seat, direction)
        } else {
            Used::default()
        }
    }

    fn end(&mut self, seat: u32) {
        if seat < self.seats() {
            for direction in [Direction::Original, Direction::Reply] {
                self.maps.close_place(self.place(seat, direction));
                self.count(seat, direction);
            }
        }
    }
}

impl ShortcutWriter {
    const fn place(&self, seat: u32, direction: Direction) -> u32 {
        self.first + 2 * seat + direction.index() as u32
    }

    fn count(&self, seat: u32, direction: Direction) -> Used {
        let taken = self.maps.take(self.place(seat, direction));
        if taken.packets > 0 {
            let (packets, bytes) = (taken.packets, taken.bytes);
            self.counters.add(PACKETS, packets);
            self.counters.add(BYTES, bytes);
            if let Some([there, back]) = self.ports[seat as usize] {
                let (rx, tx) = match direction {
                    Direction::Original => (there, back),
                    Direction::Reply => (back, there),
                };
                let bytes = bytes + packets * ETHERNET_BYTES;
                for (port, at, value) in [(rx, 0, packets), (rx, 1, bytes)] {
                    self.counters.add(of_port(port) + at, value);
                }
                for (port, at, value) in [(tx, 2, packets), (tx, 3, bytes)] {
                    self.counters.add(of_port(port) + at, value);
                }
            }
        }
        Used {
            packets: taken.packets,
            bytes: taken.bytes,
            last_ns: taken.last_ns,
            end: taken.end_sequence,
        }
    }
}

impl ShortcutNews {
    /// Tells the control side if somebody asked since the last call: part of a worker's rest.
    pub fn tell(&mut self) {
        let asked = self.counters.0.load(ASKED);
        if std::mem::replace(&mut self.told, asked) != asked {
            self.bell.ring();
        }
    }

    /// Forgets what was counted for a port.
    pub fn forget(&self, port: PortId) {
        for at in 0..OF_PORT {
            self.counters.0.store(of_port(port) + at, 0);
        }
    }
}

impl ShortcutReader {
    /// The next connection that asks, if there is one.
    pub fn next(&mut self) -> Option<Candidate> {
        self.ring.pop().ok()
    }

    /// Packets and bytes of IP packets that went by shortcuts.
    pub fn total(&self) -> [u64; 2] {
        [PACKETS, BYTES].map(|at| self.counters.0.load(at))
    }

    /// Packets and bytes received from a port and sent to it by shortcuts, Ethernet headers included.
    pub fn of_port(&self, port: PortId) -> [u64; OF_PORT] {
        std::array::from_fn(|at| self.counters.0.load(of_port(port) + at))
    }
}

impl Counters {
    fn add(&self, at: usize, more: u64) {
        self.0.store(at, self.0.load(at).wrapping_add(more));
    }
}

const fn of_port(port: PortId) -> usize {
    PORTS_AT
        + OF_PORT
            * if port.index() < PORTS_MAX {
                port.index()
            } else {
                0
            }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use weft_engine::table::flow::{FlowKey, ShortcutRoute, Tuple};

    use super::*;
    use crate::waiter;

    const PORTS: [PortId; 2] = [PortId(3), PortId(4)];
    const TICKET: u32 = 9;

    /// Counters that no program writes.
    fn maps() -> Arc<ShortcutMaps> {
        maps_over(&File::from(memory()))
    }

    fn memory() -> OwnedFd {
        let fd = memfd_create("shortcuts", MFdFlags::empty()).unwrap();
        nix::unistd::ftruncate(&fd, i64::from(SHORTCUTS_MAX) * 64).unwrap();
        fd
    }

    fn maps_over(uses: &File) -> Arc<ShortcutMaps> {
        let uses = uses.try_clone().unwrap().into();
        Arc::new(ShortcutMaps::over([memory(), uses, memory()]).unwrap())
    }

    fn ring(maps: &Arc<ShortcutMaps>) -> (ShortcutWriter, ShortcutNews, ShortcutReader) {
        let bell = Bell::of(&waiter::doorbell().unwrap()).unwrap();
        shortcut_ring(Arc::clone(maps), (1, 2), bell)
    }

    fn candidate(seat: u32) -> Candidate {
        let address = |last: u8| std::net::IpAddr::from([10, 1, 1, last]);
        let tuple = Tuple::new(address(1), address(2), (4000, 80)).unwrap();
        let key = FlowKey { tuple, protocol: 6 };
        Candidate {
            seat,
            ticket: TICKET,
            keys: [key, key.mirrored()],
            ends: [100, 200],
            route: ShortcutRoute {
                ports: PORTS,
                directions: [true; 2],
                tunnel: None,
            },
            epoch: 1,
        }
    }

    #[test]
    fn every_direction_of_every_workers_seats_has_a_place_of_its_own() {
        for workers in [1, 2, 3, 7] {
            let mut places = HashSet::new();
            for worker in 0..workers {
                for seat in 0..seats(workers) {
                    for direction in [Direction::Original, Direction::Reply] {
                        let place = place(worker, workers, seat, direction);
                        assert!(place < SHORTCUTS_MAX && places.insert(place));
                    }
                }
            }
        }
    }

    #[test]
    fn who_asks_is_heard_and_its_places_are_open_until_it_ends() {
        let maps = maps();
        let (mut writer, mut news, mut reader) = ring(&maps);
        writer.ask(&candidate(5));
        news.tell();
        assert_eq!(reader.next(), Some(candidate(5)));
        let [there, back] = [Direction::Original, Direction::Reply].map(|it| place(1, 2, 5, it));
        assert_eq!([there, back].map(|it| maps.ticket(it)), [TICKET; 2]);
        assert_eq!(writer.take(5, TICKET, Direction::Reply).end, 200);
        assert_eq!(
            writer.take(5, TICKET + 1, Direction::Reply),
            Used::default()
        );
        writer.end(5);
        assert_eq!([there, back].map(|it| maps.ticket(it)), [0; 2]);
        assert_eq!(reader.total(), [0; 2]);
    }

    #[test]
    fn what_goes_by_is_counted_once_for_both_ports() {
        let uses = File::from(memory());
        let (mut writer, news, reader) = ring(&maps_over(&uses));
        writer.ask(&candidate(5));
        let goes_by = |direction| {
            let at = u64::from(place(1, 2, 5, direction)) * 32;
            uses.write_all_at(&7_u64.to_ne_bytes(), at).unwrap();
            uses.write_all_at(&7_000_u64.to_ne_bytes(), at + 8).unwrap();
        };
        goes_by(Direction::Original);
        let used = writer.take(5, TICKET, Direction::Original);
        assert_eq!((used.packets, used.bytes, used.end), (7, 7_000, 100));
        assert_eq!(writer.take(5, TICKET, Direction::Original).packets, 0);
        let with_ethernet = 7_000 + 7 * 14;
        assert_eq!(reader.of_port(PORTS[0]), [7, with_ethernet, 0, 0]);
        assert_eq!(reader.of_port(PORTS[1]), [0, 0, 7, with_ethernet]);
        goes_by(Direction::Reply);
        writer.end(5);
        assert_eq!(reader.of_port(PORTS[1])[..2], [7, with_ethernet]);
        assert_eq!(reader.total(), [14, 14_000]);
        news.forget(PORTS[1]);
        assert_eq!(reader.of_port(PORTS[1]), [0; 4]);
    }

    #[test]
    fn more_than_fit_are_not_heard_and_do_no_harm() {
        let maps = maps();
        let (mut writer, _, mut reader) = ring(&maps);
        (0..1_000).for_each(|seat| writer.ask(&candidate(seat)));
        assert_eq!(std::iter::from_fn(|| reader.next()).count(), WAITING_MAX);
        writer.ask(&candidate(u32::MAX));
        writer.end(u32::MAX);
        assert_eq!(
            writer.take(u32::MAX, TICKET, Direction::Reply),
            Used::default()
        );
        assert_eq!(reader.next(), None);
    }
}
