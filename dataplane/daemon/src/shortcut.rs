//! Shortcuts as the control side gives them: connections of pods, within the node or by the tunnel, whose data programs
//! in the kernel send on by themselves.
//!
//! A worker [asks](crate::shortcut_ring) for a connection it saw often enough. What was decided under other tables than
//! those in force is not given; when the tables say something else, one word takes all of them back, before workers see
//! those tables. A shortcut whose connection ended is closed by the worker, and what is left of it in the map goes when
//! another connection has its seat.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::eventfd::EventFd;
use weft_api::dataplane::{Counter, PortCounters};
use weft_engine::table::flow::{Candidate, ShortcutRoute, Tuple};
use weft_engine::{Direction, PortId, PortKind, Tables};
use weft_keeper::client::KeeperClient;
use weft_keeper::shortcut::{Behind, Hold, Protocol, Shortcut, ShortcutMaps, TunnelFrame, Way};
use weft_wire::vxlan;

use crate::ports::Ports;
use crate::shortcut_ring::{self, ShortcutNews, ShortcutReader, ShortcutWriter};
use crate::waiter::{self, Bell};

/// How long shortcuts hold without a word of this process: they end soon after it did, and survive a restart of the
/// process or a moment in which the machine stands still.
const HOLD: Duration = Duration::from_secs(5);

/// How long what is on its way by a shortcut still arrives after it was taken back: longer than a packet waits for its
/// processor. What does not is lost, as if a queue were full.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// How often that is renewed.
pub const RENEW: Duration = Duration::from_secs(1);

/// IANA's numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A connection, by its place for the original direction.
type Place = u32;

/// One that was given.
#[derive(Default)]
struct Given {
    shortcuts: Vec<(Way, Shortcut)>,
    ticket: u32,
    epoch: u32,
}

/// See the module's text.
pub struct Shortcuts {
    maps: Arc<ShortcutMaps>,
    bell: EventFd,
    workers: Vec<ShortcutReader>,
    given: HashMap<Place, Given>,
    /// Whose a key of the map is.
    owners: HashMap<Way, Place>,
    /// Version in force.
    epoch: u32,
    former: Former,
    /// Zero of the clock of the maps.
    clock: Instant,
}

/// What each worker gets.
pub type WorkerParts = Vec<(ShortcutWriter, ShortcutNews)>;

impl Shortcuts {
    /// Takes the maps over. No shortcut of an earlier dataplane holds from now on.
    ///
    /// # Errors
    /// A keeper that does not know of them, or what the kernel says.
    pub fn take_over(
        keeper: &mut KeeperClient,
        workers: usize,
        clock: Instant,
    ) -> Result<(Self, WorkerParts)> {
        let maps = keeper.shortcuts().context("asking the keeper")?;
        let mut former = Former::default();
        maps.hold(former.replace(maps.epoch(), 0, clock.elapsed()));
        thread::sleep(ON_THE_WAY);
        maps.clear_all()?;
        let maps = Arc::new(maps);
        let bell = waiter::doorbell()?;
        let count = u32::try_from(workers)?;
        let (mut parts, mut readers) = (Vec::new(), Vec::new());
        for worker in 0..count {
            let news_bell = Bell::of(&bell)?;
            let (writer, news, reader) =
                shortcut_ring::shortcut_ring(Arc::clone(&maps), (worker, count), news_bell);
            parts.push((writer, news));
            readers.push(reader);
        }
        let shortcuts = Self {
            maps,
            bell,
            workers: readers,
            given: HashMap::new(),
            owners: HashMap::new(),
            epoch: 0,
            former,
            clock,
        };
        Ok((shortcuts, parts))
    }

    /// Readable when a connection asks.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Tables of this version are about to be published: shortcuts of others hold no longer.
    pub fn hold(&mut self, epoch: u32) {
        if self.epoch != epoch {
            let before = std::mem::replace(&mut self.epoch, epoch);
            let now = self.clock.elapsed();
            self.maps.hold(self.former.replace(before, epoch, now));
        }
    }

    /// Gives what was asked for, and lets what there is hold for longer.
    pub fn tend(&mut self, tables: &Tables, ports: &Ports) {
        // EAGAIN: nobody rang.
        let _ = self.bell.read();
        for worker in 0..self.workers.len() {
            while let Some(candidate) = self.workers[worker].next() {
                if let Err(error) = self.give(worker as u32, &candidate, tables, ports) {
                    tracing::warn!(%error, "a connection goes on without a shortcut");
                }
            }
        }
        if self.exist() {
            self.maps.renew(ns(self.clock.elapsed() + HOLD));
        }
    }

    /// Whether any holds.
    pub fn exist(&self) -> bool {
        self.epoch != 0 && self.given.iter().any(|(place, it)| self.holds(*place, it))
    }

    /// How many connections have one, and what went by them.
    pub fn counters(&self) -> Vec<Counter> {
        let connections = self
            .given
            .iter()
            .filter(|(place, it)| self.holds(**place, it));
        let total = |at: usize| self.workers.iter().map(|it| it.total()[at]).sum();
        let counter = |name: &str, count, description: &str| Counter {
            name: name.to_owned(),
            count,
            description: description.to_owned(),
        };
        vec![
            counter(
                "connections",
                connections.count() as u64,
                "connections that have one now",
            ),
            counter("packets", total(0), "packets that took one"),
            counter("bytes", total(1), "bytes of IP packets that took one"),
        ]
    }

    /// Adds what went by shortcuts to what was counted for a port.
    pub fn add_to(&self, port: PortId, counters: &mut PortCounters) {
        for worker in &self.workers {
            let [rx_packets, rx_bytes, tx_packets, tx_bytes] = worker.of_port(port);
            counters.rx_packets += rx_packets;
            counters.rx_bytes += rx_bytes;
            counters.tx_packets += tx_packets;
            counters.tx_bytes += tx_bytes;
        }
    }

    fn holds(&self, place: Place, given: &Given) -> bool {
        given.epoch == self.epoch && self.maps.ticket(place) == given.ticket
    }

    fn give(
        &mut self,
        worker: u32,
        candidate: &Candidate,
        tables: &Tables,
        ports: &Ports,
    ) -> Result<()> {
        // What was decided under tables that say something else counts no longer.
        if candidate.epoch != self.epoch || self.epoch != tables.shortcut_epoch() {
            return Ok(());
        }
        let workers = self.workers.len() as u32;
        let place = shortcut_ring::place(worker, workers, candidate.seat, Direction::Original);
        let directions = [Direction::Original, Direction::Reply];
        let shortcuts: Option<Vec<_>> = directions
            .into_iter()
            .filter(|it| candidate.route.directions[it.index()])
            .map(|it| self.way(worker, candidate, it, (tables, ports)))
            .collect();
        let Some(shortcuts) = shortcuts else {
            return Ok(());
        };
        let given = Given {
            shortcuts,
            ticket: candidate.ticket,
            epoch: candidate.epoch,
        };
        self.put(place, given)
    }

    /// Puts a connection's shortcuts into the map, and removes what an earlier one of its place left there, unless it is
    /// another's by now.
    fn put(&mut self, place: Place, given: Given) -> Result<()> {
        let before = self.given.remove(&place).unwrap_or_default();
        let mut now = Given {
            shortcuts: Vec::with_capacity(given.shortcuts.len()),
            ..given
        };
        let mut result = Ok(());
        // A packet on its way finds its shortcut all the time, also when its connection asks again before the first
        // answer: those that stay are not touched, since the kernel may use a replaced one's memory for the next while
        // a program reads it; the others are replaced, not removed first.
        for both in given.shortcuts {
            let own = self.owners.get(&both.0) == Some(&place);
            if !own || !before.shortcuts.contains(&both) {
                result = self.maps.set(&both.0, &both.1);
                if result.is_err() {
                    break;
                }
            }
            self.owners.insert(both.0, place);
            now.shortcuts.push(both);
        }
        for (way, _) in before.shortcuts {
            let stays = now.shortcuts.iter().any(|it| it.0 == way);
            if !stays && self.owners.get(&way) == Some(&place) {
                self.owners.remove(&way);
                result = result.and(self.maps.clear(&way));
            }
        }
        self.given.insert(place, now);
        Ok(result?)
    }

    /// One direction of a connection, and where it goes on; none when a port or the way to a node is gone.
    fn way(
        &self,
        worker: u32,
        candidate: &Candidate,
        direction: Direction,
        (tables, ports): (&Tables, &Ports),
    ) -> Option<(Way, Shortcut)> {
        let workers = self.workers.len() as u32;
        let [there, back] = candidate.route.ports;
        let (rx, tx) = match direction {
            Direction::Original => (there, back),
            Direction::Reply => (back, there),
        };
        let key = candidate.keys[direction.index()];
        // A packet goes on as the mirror of what comes the other way.
        let comes = ends(key.tuple);
        let goes = ends(candidate.keys[1 - direction.index()].mirrored().tuple);
        let way = Way {
            protocol: match key.protocol {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                _ => return None,
            },
            source: comes.0,
            destination: comes.1,
        };
        let frames = frames(candidate.route, (rx, tx), tables)?;
        let shortcut = Shortcut {
            epoch: candidate.epoch,
            rx_ifindex: ports.get(rx.0)?.record.ifindex,
            tx_ifindex: ports.get(tx.0)?.record.ifindex,
            to: frames.to,
            tunnel: frames.tunnel,
            translation: (comes != goes).then_some(goes),
            place: shortcut_ring::place(worker, workers, candidate.seat, direction),
            ticket: candidate.ticket,
            mtu: frames.mtu,
            pod_mac: frames.came.0,
            gateway_mac: frames.came.1,
            sender_mac: frames.go.0,
            peer_mac: frames.go.1,
        };
        Some((way, shortcut))
    }
}

/// What is around the packets of one direction.
struct Frames {
    to: Behind,
    mtu: u32,
    /// Source and destination they come with, and go on with.
    came: ([u8; 6], [u8; 6]),
    go: ([u8; 6], [u8; 6]),
    tunnel: Option<TunnelFrame>,
}

fn frames(route: ShortcutRoute, (rx, tx): (PortId, PortId), tables: &Tables) -> Option<Frames> {
    let node = tables.node()?;
    let (from, to) = (tables.port(rx)?, tables.port(tx)?);
    let gateway = node.gateway_mac.0;
    let into_port = Frames {
        to: match to.kind {
            PortKind::Pod => Behind::Pod,
            PortKind::Node | PortKind::Uplink => Behind::Node,
        },
        mtu: to.mtu,
        came: (from.mac.0, gateway),
        go: (gateway, to.mac.0),
        tunnel: None,
    };
    let Some(end) = route.tunnel else {
        return Some(into_port);
    };
    let remote = tables.remote(end.remote)?;
    let path = remote.path?;
    let (IpAddr::V4(own), IpAddr::V4(other)) = (path.source, remote.vtep) else {
        return None;
    };
    let own_vtep = node.vtep_mac(path.source)?.0;
    let tunnel = TunnelFrame {
        source_mac: path.source_mac.0,
        destination_mac: path.next_hop_mac.0,
        source: own,
        destination: other,
        source_port: vxlan::source_port(end.flow_hash),
        vxlan_port: node.vxlan_port,
        vni: node.vni.get(),
    };
    Some(if to.kind == PortKind::Uplink {
        Frames {
            to: Behind::Tunnel,
            mtu: remote.inner_mtu,
            go: (own_vtep, remote.vtep_mac.0),
            tunnel: Some(tunnel),
            ..into_port
        }
    } else {
        Frames {
            came: (remote.vtep_mac.0, own_vtep),
            tunnel: Some(TunnelFrame {
                source: other,
                destination: own,
                ..tunnel
            }),
            ..into_port
        }
    })
}

/// Versions that were replaced a moment ago, and when: several may be while one packet is on its way.
#[derive(Default)]
struct Former(VecDeque<(u32, Duration)>);

impl Former {
    /// `epoch` is in force from now on, and `before` no longer. Each of those before is a former one for [`ON_THE_WAY`],
    /// and where changes follow each other for less than twice that.
    fn replace(&mut self, before: u32, epoch: u32, now: Duration) -> Hold {
        self.0
            .retain(|(_, replaced)| now.saturating_sub(*replaced) < ON_THE_WAY);
        if before != 0 {
            self.0.push_back((before, now));
        }
        Hold {
            epoch,
            until_ns: ns(now + HOLD),
            former: self.0.front().map_or(epoch, |(first, _)| *first),
            former_until_ns: ns(now + ON_THE_WAY),
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ends(tuple: Tuple) -> (SocketAddr, SocketAddr) {
    let (from, to) = tuple.ports();
    (
        SocketAddr::new(tuple.source(), from),
        SocketAddr::new(tuple.destination(), to),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_a_moment_ago_is_former_however_much_changes_meanwhile() {
        let mut former = Former::default();
        let mut first_at = |before, epoch, ms| {
            let hold = former.replace(before, epoch, Duration::from_millis(ms));
            assert_eq!(
                (hold.epoch, hold.until_ns),
                (epoch, (ms + 5_000) * 1_000_000)
            );
            assert_eq!(hold.former_until_ns, (ms + 20) * 1_000_000);
            hold.former
        };
        assert_eq!(first_at(0, 1, 100), 1, "none was in force");
        assert_eq!(first_at(1, 2, 1_000), 1);
        assert_eq!(first_at(2, 3, 1_005), 1, "two changes on its way");
        assert_eq!(first_at(3, 0, 1_019), 1, "all are taken back");
        assert_eq!(first_at(0, 5, 1_020), 2, "1 arrived or never will");
        assert_eq!(first_at(5, 6, 1_100), 5);
        assert_eq!(first_at(6, 7, 2_000), 6);
    }
}
