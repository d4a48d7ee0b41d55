//! Packets on their way from one worker to another: to the one that owns their connection, or to the one that
//! owns the queue they leave by. A packet crosses at most once: the owner of a connection serves one of its ports.

use rtrb::{Consumer, Producer, RingBuffer};
use weft_engine::Packet;
use weft_snapshot::Doorbell;
use weft_xsk::{CHAIN_MAX, FramePool};

use crate::waiter::Bell;

/// Packets that fit between two workers. At 4 bursts a full ring means that the owner is overloaded,
/// and the packet is dropped early.
const HANDOFF_MAX: usize = 256;

/// A packet for another worker.
pub struct Handoff {
    /// The packet.
    pub packet: Packet,
    /// What is to be done with it.
    pub next: Next,
}

/// What the receiving worker does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Goes on with it in its pipeline.
    Resume,
    /// Sends it by the queue in this slot.
    Send(u16),
    /// Keeps its frames, which are no packet: as many as it gave away with others.
    Keep,
}

/// One worker's rings to and from all others.
pub struct Handoffs {
    to: Vec<Option<Lane>>,
    /// With the number of the worker at the other end.
    from: Vec<(usize, Consumer<Handoff>)>,
    asleep: Doorbell,
}

struct Lane {
    ring: Producer<Handoff>,
    asleep: Doorbell,
    bell: Bell,
    /// Frames that came from that worker, less those it got.
    owed: i64,
}

/// A full ring, or no such worker: the packet comes back.
pub type Refused = Handoff;

impl Handoffs {
    /// The rings between as many workers as there are `bells`, one element per worker.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn mesh(bells: &[Bell]) -> std::io::Result<Vec<Self>> {
        let doorbells: Vec<Doorbell> = bells.iter().map(|_| Doorbell::new()).collect();
        let mut mesh: Vec<Self> = doorbells
            .iter()
            .map(|asleep| Self {
                to: Vec::new(),
                from: Vec::new(),
                asleep: asleep.clone(),
            })
            .collect();
        for from in 0..bells.len() {
            for to in 0..bells.len() {
                if from == to {
                    mesh[from].to.push(None);
                    continue;
                }
                let (ring, consumer) = RingBuffer::new(HANDOFF_MAX);
                let lane = Lane {
                    ring,
                    asleep: doorbells[to].clone(),
                    bell: bells[to].try_clone()?,
                    owed: 0,
                };
                mesh[from].to.push(Some(lane));
                mesh[to].from.push((from, consumer));
            }
        }
        Ok(mesh)
    }

    /// Hands a packet to `worker`, waking it if it sleeps.
    ///
    /// # Errors
    /// The packet, when the ring is full or the worker unknown.
    #[expect(
        clippy::result_large_err,
        reason = "the packet itself comes back and is freed by the caller"
    )]
    pub fn send(&mut self, worker: u16, handoff: Handoff) -> Result<(), Refused> {
        let Some(lane) = self
            .to
            .get_mut(usize::from(worker))
            .and_then(Option::as_mut)
        else {
            return Err(handoff);
        };
        let frames = handoff.packet.frames.len() as i64;
        lane.ring
            .push(handoff)
            .map_err(|rtrb::PushError::Full(back)| back)?;
        lane.owed -= frames;
        if lane.asleep.is_asleep() {
            lane.bell.ring();
        }
        Ok(())
    }

    /// The next packet handed to this worker.
    pub fn receive(&mut self) -> Option<Handoff> {
        let mut rings = self.from.iter_mut();
        let (from, handoff) = rings.find_map(|(from, ring)| Some((*from, ring.pop().ok()?)))?;
        if let Some(Some(lane)) = self.to.get_mut(from) {
            lane.owed += handoff.packet.frames.len() as i64;
        }
        Some(handoff)
    }

    /// Gives back a chain of free frames to each worker that gave away at least that many more than it got:
    /// else traffic that goes one way would leave the worker it comes in by without any.
    pub fn give_back(&mut self, pool: &mut FramePool) {
        for worker in 0..self.to.len() {
            while self.owes(worker) && pool.len() >= CHAIN_MAX {
                let mut packet = Packet::default();
                let frames = std::iter::from_fn(|| pool.alloc());
                packet.frames.extend(frames.take(CHAIN_MAX));
                let next = Next::Keep;
                if let Err(mut back) = self.send(worker as u16, Handoff { packet, next }) {
                    pool.free_chain(&mut back.packet.frames);
                    break;
                }
            }
        }
    }

    fn owes(&self, worker: usize) -> bool {
        let lane = self.to[worker].as_ref();
        lane.is_some_and(|lane| lane.owed >= CHAIN_MAX as i64)
    }

    /// True when no packet waits.
    pub fn is_empty(&self) -> bool {
        self.from.iter().all(|(_, ring)| ring.is_empty())
    }

    /// Frames of the packets that wait.
    pub fn frames_waiting(&mut self) -> u64 {
        let mut frames = 0;
        for (_, ring) in &mut self.from {
            if let Ok(chunk) = ring.read_chunk(ring.slots()) {
                let (first, second) = chunk.as_slices();
                frames += first
                    .iter()
                    .chain(second)
                    .map(|handoff| handoff.packet.frames.len() as u64)
                    .sum::<u64>();
            }
        }
        frames
    }

    /// Says that this worker is about to sleep: look at the rings once more after it.
    pub fn fall_asleep(&self) {
        self.asleep.fall_asleep();
    }

    /// Says that it is awake: nobody needs to ring.
    pub fn wake_up(&self) {
        self.asleep.wake_up();
    }
}
