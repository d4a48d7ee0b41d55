//! How many frames a queue's fill ring is kept at: pure arithmetic.
//!
//! A frame in a fill ring cannot be taken back. So a pod's queue has few as long as it is quiet, more while it is busy,
//! and twice as many when a burst used up half; what it has when it is quiet again comes back with its packets. Some are
//! kept for queues that become busy, so that the quiet ones do not have them all, and every port yet to come keeps its
//! minimum.

use weft_engine::PortKind;

use crate::config::Tuning;

/// Queues that must always find their minimum: Kubernetes' 110 pods, the node's port and uplinks.
const QUEUES_EXPECTED: u64 = 128;

/// And however many there are, so many more: a pool that ran dry would leave busy queues without.
const QUEUES_MORE: u64 = 16;

/// Lent to each queue beyond the expected ones: one TCP packet of 64 KiB.
const LEAST: u32 = 18;

/// What a busy queue has: the first ten 64 KiB segments of a connection, or 100 ms of a packet every 0.5 ms while the
/// worker does not get its core.
const BUSY: u32 = 256;

/// Kept for queues that become busy: a pod says something when it begins, and then nothing for hours.
const KEPT_FOR_BUSY: u32 = 8 * BUSY;

/// What a queue got lately, and what it had of it.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Frames it is kept at.
    pub lend: u32,
    /// Those still there after the last burst.
    pub left: u32,
    /// Packets of the last burst.
    pub got: u32,
    /// Whether packets keep coming.
    pub busy: bool,
}

/// Limits of lending on one worker.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    idle: u32,
    active: u32,
    /// Stay for packets the pipeline builds and for transmission of what others handed over.
    reserved: u64,
}

impl Lending {
    /// Limits for `frames` in all.
    pub fn new(tuning: &Tuning, frames: u32) -> Self {
        Self {
            idle: tuning.lend_idle,
            active: tuning.lend_active.max(tuning.lend_idle),
            reserved: u64::from(frames) / 16,
        }
    }

    /// Frames that may be lent beyond the minimum of `queues` present and all expected ones, with
    /// `free` in the pool.
    pub fn spare(&self, free: usize, queues: u64) -> u32 {
        let expected = u64::from(self.idle) * QUEUES_EXPECTED.saturating_sub(queues);
        let more = u64::from(LEAST) * QUEUES_MORE;
        (free as u64).saturating_sub(self.reserved + expected + more) as u32
    }

    /// What a new queue gets, the first beyond `queues`. To an uplink and to the node come packets from the start.
    pub fn at_first(&self, kind: PortKind, spare: u32, queues: u64) -> u32 {
        let minimum = if queues < QUEUES_EXPECTED {
            self.idle
        } else {
            self.idle.min(LEAST)
        };
        match kind {
            PortKind::Pod => self.quiet(spare).max(minimum),
            PortKind::Uplink | PortKind::Node => (spare / 16).min(BUSY).max(minimum),
        }
    }

    /// What a queue may keep that is not busy.
    fn quiet(&self, spare: u32) -> u32 {
        (spare.saturating_sub(KEPT_FOR_BUSY) / 8).min(BUSY)
    }

    /// What a queue that got packets is kept at from now on.
    pub fn next(&self, of: Use, spare: u32) -> u32 {
        let Use { lend, left, .. } = of;
        let quiet = self.quiet(spare).max(self.idle.min(lend));
        let is_pressed = left < lend / 2;
        if !of.busy && !is_pressed {
            // One for each: it may become busy again, and then has most of what it had.
            return lend.saturating_sub(of.got).max(quiet);
        }
        let wanted = if is_pressed { lend * 2 } else { lend };
        let affordable = (spare / 4).max(lend.min(BUSY)).max(quiet);
        wanted.max(BUSY).min(affordable).min(self.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u32 = 8_192;

    fn lending() -> Lending {
        Lending::new(&Tuning::default(), FRAMES)
    }

    /// A node's queues one after the other, and what is free.
    struct Node {
        lent: Vec<u32>,
        free: usize,
    }

    impl Node {
        fn with(pods: u64) -> Self {
            let mut node = Self {
                lent: Vec::new(),
                free: FRAMES as usize,
            };
            for _ in 0..pods {
                node.add();
            }
            node
        }

        fn spare(&self) -> u32 {
            lending().spare(self.free, self.lent.len() as u64)
        }

        fn add(&mut self) {
            let queues = self.lent.len() as u64;
            let lend = lending().at_first(PortKind::Pod, self.spare(), queues);
            self.free -= lend as usize;
            self.lent.push(lend);
        }

        /// Frames of a fill ring come back when packets use them; `returns` says whether they do.
        fn packets(&mut self, at: usize, busy: bool, is_pressed: bool, returns: bool) {
            let lend = self.lent[at];
            let left = if is_pressed { 0 } else { lend };
            let got = 8;
            let of = Use {
                lend,
                left,
                got,
                busy,
            };
            let next = lending().next(of, self.spare());
            let next = if returns { next } else { next.max(lend) };
            self.free = self.free + lend as usize - next as usize;
            self.lent[at] = next;
        }
    }

    #[test]
    fn a_full_node_of_busy_ports_leaves_every_port_its_minimum() {
        let mut node = Node::with(112);
        for at in 0..112 {
            for _ in 0..8 {
                node.packets(at, true, true, false);
            }
        }
        assert!(node.lent.iter().all(|lend| *lend >= 32), "{:?}", node.lent);
        assert!(node.free >= FRAMES as usize / 16, "{} left", node.free);
        assert!(node.lent[0] >= 512, "{:?}", node.lent);
    }

    #[test]
    fn a_busy_port_keeps_its_frames_while_200_come_and_say_something() {
        let mut node = Node::with(2);
        node.packets(0, true, false, true);
        for at in 2..202 {
            node.add();
            for _ in 0..10 {
                node.packets(at, false, false, false);
            }
            node.packets(0, true, false, true);
            assert!(node.lent[0] >= BUSY, "{at}: {:?}", node.lent);
        }
        node.packets(201, true, false, true);
        assert!(node.lent[201] >= 96, "{:?}", node.lent);
        assert!(node.lent.iter().all(|lend| *lend >= LEAST));
        assert!(node.free >= FRAMES as usize / 16, "{} left", node.free);
    }

    #[test]
    fn ports_beyond_all_expected_still_get_a_whole_segment() {
        let node = Node::with(250);
        assert!(node.lent.iter().all(|lend| *lend >= LEAST));
        assert!(node.free >= FRAMES as usize / 32, "{} left", node.free);
    }

    #[test]
    fn a_quiet_port_gives_back_what_it_had_when_it_was_busy() {
        let mut node = Node::with(112);
        node.packets(0, true, false, true);
        assert_eq!(node.lent[0], BUSY);
        node.packets(0, false, false, true);
        assert_eq!(node.lent[0], BUSY - 8);
        for _ in 0..40 {
            node.packets(0, false, false, true);
        }
        assert!(node.lent[0] < 64, "{}", node.lent[0]);
    }

    #[test]
    fn an_uplink_gets_more_from_the_start() {
        let lending = lending();
        assert_eq!(lending.at_first(PortKind::Uplink, 8_000, 0), BUSY);
        assert_eq!(lending.at_first(PortKind::Uplink, 0, 0), 32);
        assert_eq!(lending.at_first(PortKind::Pod, 0, 0), 32);
        assert_eq!(lending.at_first(PortKind::Pod, 0, 128), LEAST);
    }

    #[test]
    fn a_queue_grows_when_it_is_busy_and_then_under_pressure() {
        let next = |lend, left, spare| {
            let (got, busy) = (8, true);
            lending().next(
                Use {
                    lend,
                    left,
                    got,
                    busy,
                },
                spare,
            )
        };
        assert_eq!(next(32, 31, 4_000), BUSY);
        assert_eq!(next(256, 200, 4_000), 256);
        assert_eq!(next(256, 100, 4_000), 512);
        assert_eq!(next(1_024, 0, 8_000), 1_024);
        assert_eq!(
            next(1_024, 0, 0),
            BUSY,
            "no more than that is kept from others"
        );
        assert_eq!(next(32, 31, 0), 32);
    }
}
