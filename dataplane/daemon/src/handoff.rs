//! Packets on their way from one worker to another: to the one that owns their connection, or to the one that
//! owns the queue they leave by. A packet crosses at most once: the owner of a connection serves one of its ports.

use rtrb::{Consumer, Producer, RingBuffer};
use weft_engine::Packet;
use weft_snapshot::Doorbell;

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
}

/// One worker's rings to and from all others.
pub struct Handoffs {
    to: Vec<Option<Lane>>,
    from: Vec<Consumer<Handoff>>,
    asleep: Doorbell,
}

struct Lane {
    ring: Producer<Handoff>,
    asleep: Doorbell,
    bell: Bell,
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
                };
                mesh[from].to.push(Some(lane));
                mesh[to].from.push(consumer);
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
        lane.ring
            .push(handoff)
            .map_err(|rtrb::PushError::Full(back)| back)?;
        if lane.asleep.is_asleep() {
            lane.bell.ring();
        }
        Ok(())
    }

    /// The next packet handed to this worker.
    pub fn receive(&mut self) -> Option<Handoff> {
        self.from.iter_mut().find_map(|ring| ring.pop().ok())
    }

    /// True when no packet waits.
    pub fn is_empty(&self) -> bool {
        self.from.iter().all(Consumer::is_empty)
    }

    /// Frames of the packets that wait.
    pub fn frames_waiting(&mut self) -> u64 {
        let mut frames = 0;
        for ring in &mut self.from {
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
