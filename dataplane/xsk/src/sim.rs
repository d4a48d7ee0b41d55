//! The kernel's side of a socket's rings, in process: sockets without root, devices or a kernel that has AF_XDP.
//!
//! [`SimKernel`] is the device and its peer. What the test injects is received by the socket; what the socket sends
//! is collected. It follows copy mode: all descriptors of a packet at once, data at [`RX_OFFSET`], the fill ring's
//! index released after the receive ring's is published, completions in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromBytes;

use crate::frame::{CHAIN_MAX, FRAME_BYTES, RX_OFFSET, TX_METADATA_BYTES};
use crate::ring::{Consumer, Descriptor, Producer};
use crate::socket::{RingSizes, Rings, Socket, TxChecksum, TxMetadata, XdpStatistics};
use crate::sys;
use crate::umem::Umem;

/// Bytes of a packet that fit one frame.
const SEGMENT_BYTES: usize = FRAME_BYTES - RX_OFFSET;

/// A packet the socket sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// Its bytes, frames joined.
    pub bytes: Vec<u8>,
    /// What it asked for by TX metadata.
    pub checksum: Option<TxChecksum>,
}

/// What happens to injected packets, counted; 0 means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Each n-th is lost.
    pub drop_every: u32,
    /// Each n-th arrives twice.
    pub duplicate_every: u32,
    /// Each n-th arrives after its successor.
    pub swap_every: u32,
}

/// The kernel, the device and the wire of one simulated socket.
pub struct SimKernel {
    umem: Arc<Umem>,
    rings: Rings,
    sizes: RingSizes,
    endpoint: SimEndpoint,
    rx: Producer<Descriptor>,
    fill: Consumer<u64>,
    tx: Consumer<Descriptor>,
    completion: Producer<u64>,
    faults: Faults,
    injected: u32,
    swapped: Option<Vec<u8>>,
    partial: Option<SentPacket>,
    sent: Vec<SentPacket>,
    owed: VecDeque<u64>,
    holding: bool,
}

/// What socket and kernel share beside the rings.
#[derive(Clone)]
pub(crate) struct SimEndpoint {
    /// An eventfd: readable when packets were injected since the last receive.
    wake: Arc<File>,
    counts: Arc<[AtomicU64; 3]>,
}

const RX_RING_FULL: usize = 0;
const FILL_EMPTY: usize = 1;
const TX_INVALID: usize = 2;

impl SimEndpoint {
    fn new() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "for tests; fails only without descriptors"
        )]
        let wake = sys::eventfd().expect("an eventfd for the simulated socket");
        Self {
            wake: Arc::new(wake.into()),
            counts: Arc::default(),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Not readable any more.
    pub(crate) fn quiet(&self) {
        // Empty reads fail with EAGAIN, which is as good.
        let _ = (&*self.wake).read(&mut [0; 8]);
    }

    fn wake(&self) {
        // Fails only when the counter is at its limit: readable all the same.
        let _ = (&*self.wake).write(&1u64.to_ne_bytes());
    }

    fn count(&self, what: usize) {
        self.counts[what].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn statistics(&self) -> XdpStatistics {
        let count = |what: usize| self.counts[what].load(Ordering::Relaxed);
        XdpStatistics {
            rx_ring_full: count(RX_RING_FULL),
            rx_fill_ring_empty_descs: count(FILL_EMPTY),
            tx_invalid_descs: count(TX_INVALID),
            ..XdpStatistics::default()
        }
    }
}

impl Socket {
    /// A socket whose kernel is in this process. Either may be used on a thread of its own.
    ///
    /// # Panics
    /// When a size is not a power of two.
    pub fn simulated(sizes: RingSizes, umem: &Arc<Umem>) -> (Self, SimKernel) {
        let rings = Rings::heap(sizes);
        let endpoint = SimEndpoint::new();
        let kernel = SimKernel {
            umem: Arc::clone(umem),
            rx: Producer::new(rings.rx.clone()),
            fill: Consumer::new(rings.fill.clone()),
            tx: Consumer::new(rings.tx.clone()),
            completion: Producer::new(rings.completion.clone()),
            rings: rings.clone(),
            sizes,
            endpoint: endpoint.clone(),
            faults: Faults::default(),
            injected: 0,
            swapped: None,
            partial: None,
            sent: Vec::new(),
            owed: VecDeque::new(),
            holding: false,
        };
        (Self::simulated_over(endpoint, rings, sizes), kernel)
    }
}

impl SimKernel {
    /// A second socket over the same rings, as a process makes that takes over from a dead one. Two living ones
    /// would confuse each other's indices.
    pub fn remap(&self) -> Socket {
        Socket::simulated_over(self.endpoint.clone(), self.rings.clone(), self.sizes)
    }

    /// Faults of the wire from here on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// A packet arrives at the device. False: it was lost, for want of frames or ring slots, or by a fault.
    pub fn inject(&mut self, bytes: &[u8]) -> bool {
        self.injected = self.injected.wrapping_add(1);
        let due = |every: u32| every > 0 && self.injected.is_multiple_of(every);
        if due(self.faults.drop_every) {
            return false;
        }
        let (twice, late) = (
            due(self.faults.duplicate_every),
            due(self.faults.swap_every),
        );
        if late && self.swapped.is_none() {
            self.swapped = Some(bytes.to_vec());
            return true;
        }
        let mut delivered = self.deliver(bytes);
        if twice {
            delivered &= self.deliver(bytes);
        }
        if let Some(earlier) = self.swapped.take() {
            delivered &= self.deliver(&earlier);
        }
        delivered
    }

    fn deliver(&mut self, bytes: &[u8]) -> bool {
        let segments = bytes.len().div_ceil(SEGMENT_BYTES).max(1) as u32;
        if self.rx.room(segments) < segments {
            self.endpoint.count(RX_RING_FULL);
            return false;
        }
        let mut fill = self.fill.pass();
        if fill.available() < segments {
            self.endpoint.count(FILL_EMPTY);
            return false;
        }
        for segment in 0..segments as usize {
            let address = fill.next();
            let Some(id) = self.umem.id_of(address) else {
                continue;
            };
            let start = segment * SEGMENT_BYTES;
            let part = &bytes[start..bytes.len().min(start + SEGMENT_BYTES)];
            self.umem.kernel_write(id, RX_OFFSET, part);
            let continues = segment + 1 < segments as usize;
            self.rx.put(Descriptor {
                address: address + RX_OFFSET as u64,
                len: part.len() as u32,
                options: if continues { Descriptor::CONTINUES } else { 0 },
            });
        }
        // The kernel's order: a frame is in both rings for a moment, never in neither.
        self.rx.publish();
        drop(fill);
        self.endpoint.wake();
        true
    }

    /// Takes everything from the transmit ring, and completes it unless told to hold that back.
    pub fn run(&mut self) {
        let mut pass = self.tx.pass();
        for _ in 0..pass.available() {
            let descriptor = pass.next();
            let Some((mut part, checksum)) = read(&self.umem, descriptor) else {
                // As the kernel: refused, and never completed.
                self.endpoint.count(TX_INVALID);
                continue;
            };
            let packet = self.partial.get_or_insert(SentPacket {
                bytes: Vec::new(),
                checksum,
            });
            packet.bytes.append(&mut part);
            self.owed.push_back(descriptor.address);
            if !descriptor.continues() {
                self.sent.extend(self.partial.take());
            }
        }
        drop(pass);
        if !self.holding {
            self.release_completions(usize::MAX);
        }
    }

    /// The packets sent since the last call.
    pub fn transmitted(&mut self) -> Vec<SentPacket> {
        self.run();
        std::mem::take(&mut self.sent)
    }

    /// From here on completions wait for [`SimKernel::release_completions`], or no longer.
    pub fn hold_completions(&mut self, hold: bool) {
        self.holding = hold;
    }

    /// Completes up to `n` descriptors that were sent.
    pub fn release_completions(&mut self, n: usize) {
        let n = n
            .min(self.owed.len())
            .min(self.completion.room(u32::MAX) as usize);
        for address in self.owed.drain(..n) {
            self.completion.put(address);
        }
        self.completion.publish();
    }

    /// What the socket sees as the kernel's statistics.
    pub fn statistics(&self) -> XdpStatistics {
        self.endpoint.statistics()
    }
}

/// What a transmit descriptor refers to, checked as in xp_aligned_validate_desc (net/xdp/xsk_queue.h).
fn read(umem: &Umem, descriptor: Descriptor) -> Option<(Vec<u8>, Option<TxChecksum>)> {
    let id = umem.id_of(descriptor.address)?;
    let offset = (descriptor.address % FRAME_BYTES as u64) as usize;
    let len = descriptor.len as usize;
    if len == 0 || offset < TX_METADATA_BYTES || len > FRAME_BYTES - offset {
        return None;
    }
    let has_metadata = descriptor.options & Descriptor::HAS_METADATA != 0;
    let checksum = has_metadata
        .then(|| umem.kernel_read(id, offset - TX_METADATA_BYTES, TX_METADATA_BYTES))
        .and_then(|bytes| TxMetadata::read_from_bytes(&bytes).ok())
        .filter(|metadata| metadata.flags & TxMetadata::CHECKSUM != 0)
        .map(|metadata| TxChecksum {
            start: metadata.checksum_start,
            offset: metadata.checksum_offset,
        });
    Some((umem.kernel_read(id, offset, len), checksum))
}

impl std::fmt::Debug for SimKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimKernel")
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

const _: () = assert!(
    CHAIN_MAX * SEGMENT_BYTES > 65_549,
    "a 64 KiB packet fits a chain"
);
