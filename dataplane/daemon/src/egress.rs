//! The sending half of a worker: its queues, its free frames, and the rings to the other workers.
//! Together with the loop in `worker.rs` this is where every ring call of the packet path is.

use std::sync::Arc;

use weft_engine::{Batch, Checksum, Counters, DropReason, Packet, PortId, PortKind, Verdict};
use weft_xsk::{FrameChain, FramePool, Gso, Kick, Sent, TxChecksum, Umem};

use crate::burst::Burst;
use crate::handoff::{Handoff, Handoffs};
use crate::queue::{Queue, QueueCounter};
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::worker_counters::WorkerCounters;

/// A packet for a queue of this worker.
#[derive(Default)]
pub struct Outgoing {
    /// Its bytes.
    pub frames: FrameChain,
    /// What the kernel is to do about its checksum.
    pub checksum: Checksum,
    /// What it is to be segmented into.
    pub gso: Option<Gso>,
    /// See [`Packet::tunnel_flow`].
    pub tunnel_flow: u64,
}

impl Outgoing {
    fn of(packet: &mut Packet) -> Self {
        Self {
            frames: std::mem::take(&mut packet.frames),
            checksum: packet.checksum,
            gso: packet.gso,
            tunnel_flow: packet.tunnel_flow,
        }
    }
}

/// A packet that could not be sent, and why.
struct Unsent(FrameChain, DropReason);

/// Frames of the largest packet that goes through AF_XDP's ring where there is a packet socket.
const RING_FRAMES_MAX: usize = 1;

/// What a worker sends with.
pub struct Egress {
    /// Worker number.
    pub id: u16,
    /// The frames.
    pub umem: Arc<Umem>,
    /// Those free to this worker.
    pub pool: FramePool,
    /// Queues by slot.
    pub queues: Vec<Option<Box<Queue>>>,
    /// Slots whose transmit ring the kernel was not told of.
    pub dirty: Vec<u16>,
    /// Tunnel packets that wait for more of their kind.
    pub burst: Burst,
    /// Tunnel packets of a burst that could not be sent, not yet counted as dropped.
    pub late_drops: u64,
    /// Rings to and from the other workers.
    pub handoffs: Handoffs,
    /// Captures under way.
    pub taps: Vec<Tap>,
    /// Counters.
    pub counters: WorkerCounters,
}

impl Egress {
    /// The queue in `slot`.
    pub fn queue(&mut self, slot: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(slot))?.as_deref_mut()
    }

    /// Sends or frees every packet of the batch and leaves it empty. What cannot be sent is counted
    /// in `counters`, the pipeline's.
    pub fn dispatch(
        &mut self,
        batch: &mut Batch,
        snapshot: &Snapshot,
        counters: &mut Counters,
        now_ns: u64,
    ) {
        batch.for_each_in_order(|packet| match packet.verdict {
            Verdict::Tx(port) => self.send(snapshot, port, packet, counters, now_ns),
            Verdict::Drop(_) => self.pool.free_chain(&mut packet.frames),
            Verdict::Consumed | Verdict::Merged => debug_assert!(
                packet.frames.is_empty(),
                "a consumed packet keeps no frames"
            ),
            Verdict::Pending => unreachable!("the pipeline gives every packet a verdict"),
        });
        batch.recycle(&mut self.pool);
    }

    fn send(
        &mut self,
        snapshot: &Snapshot,
        port: PortId,
        packet: &mut Packet,
        counters: &mut Counters,
        now_ns: u64,
    ) {
        let lost = match snapshot.egress(self.id, port) {
            Some(egress) if egress.worker == self.id => {
                self.transmit(egress.slot, Outgoing::of(packet), now_ns)
            }
            Some(egress) => {
                let handoff = Handoff {
                    slot: egress.slot,
                    packet: Outgoing::of(packet),
                };
                match self.handoffs.send(egress.worker, handoff) {
                    Ok(()) => {
                        self.counters.handoffs += 1;
                        Ok(())
                    }
                    Err(back) => Err(Unsent(back.packet.frames, DropReason::TxOther)),
                }
            }
            None => Err(Unsent(
                std::mem::take(&mut packet.frames),
                DropReason::PortGone,
            )),
        };
        if let Err(Unsent(mut frames, reason)) = lost {
            let node_port = snapshot.tables.node().and_then(|node| node.node_port);
            counters.dropped_late(node_port == Some(port), reason);
            self.pool.free_chain(&mut frames);
        }
    }

    /// Sends a packet by a queue of this worker, in the way that suits it: AF_XDP's ring, the packet socket for
    /// what AF_XDP cannot say, or together with more of its tunnel flow.
    fn transmit(&mut self, slot: u16, packet: Outgoing, now_ns: u64) -> Result<(), Unsent> {
        let Some(queue) = self
            .queues
            .get_mut(usize::from(slot))
            .and_then(Option::as_mut)
        else {
            return Err(Unsent(packet.frames, DropReason::PortGone));
        };
        for tap in &mut self.taps {
            tap.record_sent(queue.port, &packet.frames, &self.umem, now_ns);
        }
        if queue.packet_socket.is_none() {
            return self.transmit_ring(slot, packet.frames, packet.checksum);
        }
        if packet.tunnel_flow != 0 {
            self.gather(slot, packet);
            return Ok(());
        }
        if packet.gso.is_some() || packet.frames.len() > RING_FRAMES_MAX {
            return self.transmit_packet_socket(slot, packet);
        }
        self.transmit_ring(slot, packet.frames, packet.checksum)
    }

    /// Puts a packet into the transmit ring; when it is full the kernel is told to empty it first.
    fn transmit_ring(
        &mut self,
        slot: u16,
        mut frames: FrameChain,
        checksum: Checksum,
    ) -> Result<(), Unsent> {
        let Some(queue) = self
            .queues
            .get_mut(usize::from(slot))
            .and_then(Option::as_mut)
        else {
            return Err(Unsent(frames, DropReason::PortGone));
        };
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        let checksum = match checksum {
            Checksum::None => None,
            Checksum::Partial { start, offset } => Some(TxChecksum { start, offset }),
        };
        if !queue.socket.transmit(&self.umem, &mut frames, checksum) {
            let refused = queue.socket.counters().tx_refused;
            queue.socket.kick();
            queue.socket.complete(&self.umem, &mut self.pool);
            if !queue.socket.transmit(&self.umem, &mut frames, checksum) {
                let again = queue.socket.counters().tx_refused != refused;
                queue.count(QueueCounter::TxRingFull, u64::from(!again));
                let reason = if again {
                    DropReason::TxRefused
                } else {
                    DropReason::TxRingFull
                };
                return Err(Unsent(frames, reason));
            }
        }
        queue.count(QueueCounter::TxPackets, 1);
        queue.count(QueueCounter::TxBytes, bytes);
        if !queue.dirty {
            queue.dirty = true;
            self.dirty.push(slot);
        }
        Ok(())
    }

    /// Sends a packet by the port's packet socket.
    fn transmit_packet_socket(&mut self, slot: u16, packet: Outgoing) -> Result<(), Unsent> {
        let Outgoing {
            mut frames,
            checksum,
            gso,
            ..
        } = packet;
        let umem = &self.umem;
        let queue = self
            .queues
            .get_mut(usize::from(slot))
            .and_then(Option::as_mut);
        let Some(queue) = queue else {
            return Err(Unsent(frames, DropReason::PortGone));
        };
        queue.drain_ring();
        let Some(socket) = &queue.packet_socket else {
            return Err(Unsent(frames, DropReason::TxRefused));
        };
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        let checksum = match checksum {
            Checksum::None => None,
            Checksum::Partial { start, offset } => Some((start, offset)),
        };
        let pieces = frames.iter().map(|frame| umem.bytes(frame));
        let reason = match socket.send(pieces, checksum, gso) {
            Sent::Yes => {
                queue.count(QueueCounter::TxPackets, 1);
                queue.count(QueueCounter::TxBytes, bytes);
                self.pool.free_chain(&mut frames);
                return Ok(());
            }
            Sent::NoRoom => DropReason::TxRingFull,
            Sent::Down => DropReason::PortGone,
            Sent::Refused => DropReason::TxRefused,
        };
        queue.count(
            QueueCounter::TxRingFull,
            u64::from(reason == DropReason::TxRingFull),
        );
        Err(Unsent(frames, reason))
    }

    /// Adds a tunnel packet to the burst; one it cannot join is sent first.
    fn gather(&mut self, slot: u16, packet: Outgoing) {
        let len = packet.frames.iter().map(weft_xsk::Frame::len).sum();
        let frames = packet.frames.len();
        if !self.burst.takes(slot, packet.tunnel_flow, len, frames) {
            self.send_burst();
        }
        self.burst
            .push(slot, packet.tunnel_flow, len, packet.frames);
    }

    /// Sends what was gathered: one packet by the ring, more by the packet socket.
    fn send_burst(&mut self) {
        let slot = self.burst.slot();
        if self.burst.len() > 1
            && let Some(queue) = self
                .queues
                .get_mut(usize::from(slot))
                .and_then(Option::as_mut)
        {
            queue.drain_ring();
            if let Some(socket) = &queue.packet_socket {
                match self.burst.send(socket, &self.umem) {
                    Sent::Yes => {
                        queue.count(QueueCounter::TxPackets, self.burst.len() as u64);
                        queue.count(QueueCounter::TxBytes, self.burst.bytes() as u64);
                        return self.burst.free(&mut self.pool);
                    }
                    Sent::NoRoom | Sent::Down => {
                        let lost = self.burst.len() as u64;
                        queue.count(QueueCounter::TxRingFull, lost);
                        self.late_drops += lost;
                        return self.burst.free(&mut self.pool);
                    }
                    Sent::Refused => {}
                }
            }
        }
        for frames in self.burst.take() {
            if let Err(Unsent(mut frames, _)) = self.transmit_ring(slot, frames, Checksum::None) {
                self.late_drops += 1;
                self.pool.free_chain(&mut frames);
            }
        }
    }

    /// Sends what other workers handed over, and returns the frames of it.
    pub fn take_handoffs(&mut self, counters: &mut Counters, now_ns: u64) -> u64 {
        let mut taken = 0;
        while let Some(Handoff { slot, packet }) = self.handoffs.receive() {
            taken += packet.frames.len() as u64;
            if let Err(Unsent(mut frames, reason)) = self.transmit(slot, packet, now_ns) {
                let host = self
                    .queue(slot)
                    .is_some_and(|queue| queue.kind == PortKind::Node);
                counters.dropped_late(host, reason);
                self.pool.free_chain(&mut frames);
            }
        }
        taken
    }

    /// Tells the kernel about everything put into transmit rings in this round, once per queue, and
    /// takes the sent frames back. A queue whose ring is not empty afterwards stays dirty.
    pub fn kick(&mut self, counters: &mut Counters) {
        self.send_burst();
        for _ in 0..std::mem::take(&mut self.late_drops) {
            counters.dropped_late(false, DropReason::TxRingFull);
        }
        let mut index = 0;
        while index < self.dirty.len() {
            let slot = self.dirty[index];
            let Some(queue) = self
                .queues
                .get_mut(usize::from(slot))
                .and_then(Option::as_mut)
            else {
                self.dirty.swap_remove(index);
                continue;
            };
            let again = queue.socket.kick() == Kick::Again;
            queue.socket.complete(&self.umem, &mut self.pool);
            if again && queue.socket.tx_pending() {
                index += 1;
            } else {
                queue.dirty = false;
                self.dirty.swap_remove(index);
            }
        }
    }
}
