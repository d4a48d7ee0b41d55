//! Copies of packets for a capture: the worker's half writes records into a byte ring, the
//! capture's thread reads them. A full ring loses copies, never packets.

use rtrb::{Consumer, Producer, RingBuffer, chunks::ChunkError};
use weft_engine::{BATCH_MAX, Batch, DropReason, PortId, Verdict};
use weft_xsk::{FrameChain, Umem};

use crate::pcapng::Direction;

/// Bytes between a worker and the capture's thread: 2,700 full-size packets, 20 ms at 1 Gbit/s.
const RING_BYTES: usize = 4 << 20;

/// Most bytes kept of one packet.
pub const SNAPLEN_MAX: u32 = 65_600;

const HEADER_BYTES: usize = 24;

/// How a packet ended, in a record's header; whatever else stands there is a packet as it was sent.
const FORWARDED: u8 = 0;
const DROPPED: u8 = 1;
const CONSUMED: u8 = 2;
const MERGED: u8 = 3;
const SENT: u8 = 4;

/// Which packets a tap copies.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Of one port, or of all.
    pub port: Option<PortId>,
    /// Bytes kept of each.
    pub snaplen: u32,
    /// Only what was dropped.
    pub drops_only: bool,
}

/// How a copied packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Received, then sent out by a port.
    Forwarded(PortId),
    /// Received, then dropped.
    Dropped(DropReason),
    /// Received, then answered or held by the pipeline.
    Consumed,
    /// Sent as part of the packet before it.
    Merged,
    /// This is the packet as it was sent.
    Sent,
}

/// One copy as the capture's thread sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Copied {
    /// The port it crossed.
    pub port: PortId,
    /// Which way.
    pub direction: Direction,
    /// When, in the workers' clock.
    pub time_ns: u64,
    /// Its length on the wire.
    pub original_len: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The bytes kept.
    pub bytes: Vec<u8>,
}

/// The worker's half.
pub struct Tap {
    filter: Filter,
    ring: Producer<u8>,
    scratch: Vec<u8>,
    /// Of each packet of the batch: where its bytes end in `scratch`, and its length; `None` of those not
    /// asked for.
    remembered: Vec<Option<(usize, u32)>>,
    time_ns: u64,
}

/// The capture's half.
pub struct TapReader(Consumer<u8>);

/// A tap of `filter` and where its copies are read.
pub fn tap(filter: Filter) -> (Tap, TapReader) {
    let (ring, reader) = RingBuffer::new(RING_BYTES);
    let filter = Filter {
        snaplen: filter.snaplen.min(SNAPLEN_MAX),
        ..filter
    };
    let tap = Tap {
        filter,
        ring,
        scratch: Vec::with_capacity(BATCH_MAX * filter.snaplen as usize),
        remembered: Vec::with_capacity(BATCH_MAX),
        time_ns: 0,
    };
    (tap, TapReader(reader))
}

impl Tap {
    /// False once the reader is gone.
    pub fn wanted(&self) -> bool {
        !self.ring.is_abandoned()
    }

    /// Keeps the bytes of a received batch before the pipeline changes them.
    pub fn remember(&mut self, batch: &Batch, umem: &Umem, now_ns: u64) {
        self.scratch.clear();
        self.remembered.clear();
        self.time_ns = now_ns;
        for packet in &batch.packets {
            if self.filter.port.is_some_and(|port| port != packet.rx) {
                self.remembered.push(None);
                continue;
            }
            copy_bytes(
                &packet.frames,
                umem,
                self.filter.snaplen as usize,
                &mut self.scratch,
            );
            let kept = (self.scratch.len(), packet.total_len() as u32);
            self.remembered.push(Some(kept));
        }
    }

    /// Writes the remembered batch, now that the verdicts are known.
    pub fn record_received(&mut self, batch: &Batch) {
        let mut end = 0;
        for (packet, remembered) in batch.packets.iter().zip(&self.remembered) {
            let Some((next_end, len)) = *remembered else {
                continue;
            };
            let start = std::mem::replace(&mut end, next_end);
            let (kind, detail) = match packet.verdict {
                Verdict::Tx(port) => (FORWARDED, port.0),
                Verdict::Drop(reason) => (DROPPED, reason as u16),
                Verdict::Consumed | Verdict::Pending => (CONSUMED, 0),
                Verdict::Merged => (MERGED, 0),
                // Its owner knows how it ends.
                Verdict::HandOver(_) => continue,
            };
            if self.filter.drops_only && kind != DROPPED {
                continue;
            }
            let header = header(
                (end - start) as u32,
                len,
                self.time_ns,
                packet.rx,
                0,
                kind,
                detail,
            );
            push(&mut self.ring, &header, &self.scratch[start..end]);
        }
    }

    /// Writes a packet that is about to be sent by `port`.
    pub fn record_sent(&mut self, port: PortId, frames: &FrameChain, umem: &Umem, now_ns: u64) {
        if self.filter.drops_only || self.filter.port.is_some_and(|wanted| wanted != port) {
            return;
        }
        self.scratch.clear();
        copy_bytes(
            frames,
            umem,
            self.filter.snaplen as usize,
            &mut self.scratch,
        );
        let len = frames.iter().map(|frame| frame.len() as u32).sum();
        let header = header(self.scratch.len() as u32, len, now_ns, port, 1, SENT, 0);
        push(&mut self.ring, &header, &self.scratch);
    }
}

impl TapReader {
    /// The next copy, if one is there.
    pub fn next(&mut self) -> Option<Copied> {
        let head = self.0.read_chunk(HEADER_BYTES).ok()?;
        let header: Vec<u8> = head.into_iter().collect();
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let bytes = match self.0.read_chunk(word(0) as usize) {
            Ok(chunk) => chunk.into_iter().collect(),
            Err(ChunkError::TooFewSlots(_)) => unreachable!("a record is written whole"),
        };
        let outcome = match header[19] {
            FORWARDED => Outcome::Forwarded(PortId(half(20))),
            DROPPED => DropReason::ALL
                .get(usize::from(half(20)))
                .map_or(Outcome::Consumed, |reason| Outcome::Dropped(*reason)),
            CONSUMED => Outcome::Consumed,
            MERGED => Outcome::Merged,
            _ => Outcome::Sent,
        };
        Some(Copied {
            port: PortId(half(16)),
            direction: if header[18] == 0 {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            time_ns: u64::from(word(8)) | u64::from(word(12)) << 32,
            original_len: word(4),
            outcome,
            bytes,
        })
    }
}

fn header(
    kept: u32,
    len: u32,
    time_ns: u64,
    port: PortId,
    out: u8,
    kind: u8,
    detail: u16,
) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&kept.to_le_bytes());
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..16].copy_from_slice(&time_ns.to_le_bytes());
    bytes[16..18].copy_from_slice(&port.0.to_le_bytes());
    bytes[18] = out;
    bytes[19] = kind;
    bytes[20..22].copy_from_slice(&detail.to_le_bytes());
    bytes
}

/// Writes header and bytes as one chunk, so that the reader sees all or nothing.
fn push(ring: &mut Producer<u8>, header: &[u8], bytes: &[u8]) {
    if let Ok(chunk) = ring.write_chunk_uninit(header.len() + bytes.len()) {
        chunk.fill_from_iter(header.iter().chain(bytes).copied());
    }
}

fn copy_bytes(frames: &FrameChain, umem: &Umem, snaplen: usize, out: &mut Vec<u8>) {
    let mut left = snaplen;
    for frame in frames {
        let bytes = umem.bytes(frame);
        let take = bytes.len().min(left);
        out.extend_from_slice(&bytes[..take]);
        left -= take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_engine::testbed::{A, chain_of};
    use weft_xsk::FramePool;

    #[test]
    fn a_packet_that_is_sent_reads_as_such() {
        let umem = Umem::heap(4);
        let mut pool = FramePool::all(&umem).unwrap();
        let mut frames = chain_of(&umem, &mut pool, &[7; 100], &[]);
        let (mut tap, mut reader) = tap(Filter {
            port: None,
            snaplen: 64,
            drops_only: false,
        });
        tap.record_sent(A, &frames, &umem, 5);
        pool.free_chain(&mut frames);
        let copied = reader.next().unwrap();
        assert_eq!(
            (copied.outcome, copied.direction),
            (Outcome::Sent, Direction::Outbound)
        );
        assert_eq!((copied.time_ns, copied.original_len), (5, 100));
        assert_eq!(copied.bytes, [7; 64]);
        assert_eq!(reader.next(), None);
    }
}
