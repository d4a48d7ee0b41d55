//! One bound (port, queue) as its worker holds it.

use std::sync::Arc;

use weft_engine::{BATCH_FRAMES_MAX, Checksum, DropReason, PortId, PortKind};
use weft_snapshot::SharedCounters;
use weft_xsk::{FrameChain, FramePool, PacketSocket, Sent, Socket, TxChecksum, Umem};

use crate::burst::Burst;
use crate::egress::Sending;
use crate::lending::{Lending, Use};

/// Frames of the largest packet that goes through AF_XDP's ring where there is a packet socket. The kernel takes
/// 17 frames in 3.2 us by the packet socket and in 3.8 us by the ring, one frame in 0.8 and 0.5 us.
const RING_FRAMES_MAX: usize = 1;

/// Counters of a queue, by their place in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum QueueCounter {
    /// Packets received.
    RxPackets,
    /// Bytes received.
    RxBytes,
    /// Packets sent.
    TxPackets,
    /// Bytes sent.
    TxBytes,
    /// Packets received here and dropped by the pipeline.
    Drops,
    /// Packets dropped because the transmit ring stayed full.
    TxRingFull,
    /// Packets the kernel dropped before they reached us because no frame or ring slot was free.
    KernelDrops,
}

/// Number of [`QueueCounter`]s.
pub const QUEUE_COUNTERS: usize = 7;

/// What a queue sends and receives with, and where its counters are shown.
pub struct Mapped {
    /// The AF_XDP socket.
    pub socket: Socket,
    /// The port's packet socket, if it has one.
    pub packet_socket: Option<PacketSocket>,
    /// A block of [`QUEUE_COUNTERS`].
    pub counters: Arc<SharedCounters>,
}

/// Packets of this second and of the one before.
#[derive(Default)]
struct Recent {
    second: u64,
    packets: [u64; 2],
}

impl Recent {
    /// Packets within a second or two that make a queue busy: what a pod says when it begins is a dozen.
    const BUSY: u64 = 64;

    fn add(&mut self, packets: u64, now_ns: u64) {
        let second = now_ns / 1_000_000_000;
        if second != self.second {
            let before = if second == self.second + 1 {
                self.packets[1]
            } else {
                0
            };
            self.packets = [before, 0];
            self.second = second;
        }
        self.packets[1] += packets;
    }

    fn is_busy(&self) -> bool {
        self.packets[0] + self.packets[1] >= Self::BUSY
    }
}

/// A queue: its sockets, what it may borrow, and its counters.
pub struct Queue {
    /// The port it belongs to.
    pub port: PortId,
    /// What the port is.
    pub kind: PortKind,
    /// The AF_XDP socket.
    pub socket: Socket,
    /// Sends what AF_XDP cannot: GSO packets.
    pub packet_socket: Option<PacketSocket>,
    /// Frames the fill ring is kept at.
    pub lend: u32,
    /// When the last packet was received, in the worker's clock.
    pub last_rx_ns: u64,
    recent: Recent,
    /// Served in every round; else armed in the waiter.
    pub active: bool,
    /// Has unsent descriptors the kernel was not told of.
    pub dirty: bool,
    local: [u64; QUEUE_COUNTERS],
    shared: Arc<SharedCounters>,
}

impl Queue {
    /// A queue of a port, not yet active, lending `lend` frames.
    pub fn new(port: PortId, kind: PortKind, mapped: Mapped, lend: u32) -> Self {
        let mut socket = mapped.socket;
        socket.set_burst_frames(BATCH_FRAMES_MAX as u32);
        Self {
            port,
            kind,
            socket,
            packet_socket: mapped.packet_socket,
            lend,
            last_rx_ns: 0,
            recent: Recent::default(),
            active: false,
            dirty: false,
            local: [0; QUEUE_COUNTERS],
            shared: mapped.counters,
        }
    }

    /// Adds to a counter; readers see it after [`Queue::publish`].
    pub fn count(&mut self, counter: QueueCounter, n: u64) {
        self.local[counter as usize] += n;
    }

    /// Shows the counters to readers.
    pub fn publish(&self) {
        self.shared.store_all(&self.local);
    }

    /// Asks the kernel what it dropped: a system call, made only when somebody wants to know.
    pub fn read_kernel_counters(&mut self) {
        if let Ok(kernel) = self.socket.statistics() {
            // A packet that finds the fill ring empty counts here and as rx_fill_ring_empty_descs.
            let dropped = kernel.rx_dropped + kernel.rx_ring_full;
            self.local[QueueCounter::KernelDrops as usize] = dropped;
        }
    }

    /// Notes packets received, and changes what it may borrow by how many come and what the last burst used up.
    pub fn note_received(&mut self, packets: u64, now_ns: u64, spare: u32, lending: &Lending) {
        self.last_rx_ns = now_ns;
        self.recent.add(packets, now_ns);
        let of = Use {
            lend: self.lend,
            left: self.socket.fill_level(),
            got: u32::try_from(packets).unwrap_or(u32::MAX),
            busy: self.kind != PortKind::Pod || self.recent.is_busy(),
        };
        self.lend = lending.next(of, spare);
    }

    /// Sends a packet by the ring, or by the packet socket what AF_XDP cannot say. When it cannot be sent the frames
    /// are left to the caller.
    ///
    /// # Errors
    /// Why not.
    pub fn send(
        &mut self,
        umem: &Umem,
        pool: &mut FramePool,
        frames: &mut FrameChain,
        sending: Sending,
    ) -> Result<(), DropReason> {
        let whole = sending.gso.is_some() || frames.len() > RING_FRAMES_MAX;
        if whole && self.packet_socket.is_some() {
            self.send_whole(umem, pool, frames, sending)
        } else {
            self.send_by_ring(umem, pool, frames, sending.checksum)
        }
    }

    /// Puts a packet into the transmit ring; when it is full the kernel is told to empty it first.
    fn send_by_ring(
        &mut self,
        umem: &Umem,
        pool: &mut FramePool,
        frames: &mut FrameChain,
        checksum: Checksum,
    ) -> Result<(), DropReason> {
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        let checksum = match checksum {
            Checksum::None => None,
            Checksum::Partial { start, offset } => Some(TxChecksum { start, offset }),
        };
        if !self.socket.transmit(umem, frames, checksum) {
            let refused = self.socket.counters().tx_refused;
            self.socket.kick();
            self.socket.complete(umem, pool);
            if !self.socket.transmit(umem, frames, checksum) {
                if self.socket.counters().tx_refused != refused {
                    return Err(DropReason::TxRefused);
                }
                self.count(QueueCounter::TxRingFull, 1);
                return Err(DropReason::TxRingFull);
            }
        }
        self.dirty = true;
        self.count(QueueCounter::TxPackets, 1);
        self.count(QueueCounter::TxBytes, bytes);
        Ok(())
    }

    /// Sends a packet by the packet socket, which copies before it returns.
    fn send_whole(
        &mut self,
        umem: &Umem,
        pool: &mut FramePool,
        frames: &mut FrameChain,
        sending: Sending,
    ) -> Result<(), DropReason> {
        self.flush_ring();
        let Some(socket) = &self.packet_socket else {
            return Err(DropReason::TxRefused);
        };
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        let checksum = match sending.checksum {
            Checksum::None => None,
            Checksum::Partial { start, offset } => Some((start, offset)),
        };
        let pieces = frames.iter().map(|frame| umem.bytes(frame));
        match socket.send(pieces, checksum, sending.gso) {
            Sent::Yes => {
                self.count(QueueCounter::TxPackets, 1);
                self.count(QueueCounter::TxBytes, bytes);
                pool.free_chain(frames);
                Ok(())
            }
            Sent::NoRoom => {
                self.count(QueueCounter::TxRingFull, 1);
                Err(DropReason::TxRingFull)
            }
            Sent::Down => Err(DropReason::PortGone),
            Sent::Refused => Err(DropReason::TxRefused),
        }
    }

    /// Sends a burst of tunnel packets, and returns how many were lost.
    pub fn send_burst(&mut self, umem: &Umem, pool: &mut FramePool, burst: &mut Burst) -> u64 {
        if burst.len() > 1 {
            self.flush_ring();
            let sent = match &self.packet_socket {
                Some(socket) => burst.send(socket, umem),
                None => Sent::Refused,
            };
            let packets = burst.len() as u64;
            match sent {
                Sent::Yes => {
                    self.count(QueueCounter::TxPackets, packets);
                    self.count(QueueCounter::TxBytes, burst.bytes() as u64);
                    burst.free(pool);
                    return 0;
                }
                Sent::NoRoom | Sent::Down => {
                    self.count(QueueCounter::TxRingFull, packets);
                    burst.free(pool);
                    return packets;
                }
                // This kernel does not take UDP GSO from a packet socket.
                Sent::Refused => {}
            }
        }
        let mut lost = 0;
        for mut frames in burst.take() {
            let sent = self.send_by_ring(umem, pool, &mut frames, Checksum::None);
            if sent.is_err() {
                lost += 1;
                pool.free_chain(&mut frames);
            }
        }
        lost
    }

    /// Makes the kernel send what is in the transmit ring, so that what goes another way does not overtake it.
    fn flush_ring(&mut self) {
        if self.dirty {
            self.socket.kick();
        }
    }

    /// Takes back sent frames and lends new ones to the kernel.
    pub fn replenish(&mut self, umem: &Umem, pool: &mut FramePool) {
        if self.socket.tx_outstanding() > 0 {
            self.socket.complete(umem, pool);
        }
        // A quarter is the batch: fewer, larger refills touch the ring's cache lines less often.
        if self.socket.fill_level() < self.lend - self.lend / 4 {
            self.socket.refill(umem, pool, self.lend);
        }
    }
}
