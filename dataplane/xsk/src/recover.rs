//! Takes over the frames of a process that was killed. Starting for the first time is the same with empty rings.
//!
//! The kernel goes on meanwhile: it receives into frames of the fill rings and completes what it sends. So nothing
//! here depends on where its indices are *now*. Each frame's owner word says which ring it was lent through and at
//! which position; only this side's own indices, at rest since the death, decide whether that was published:
//!
//! * not published: the kernel never saw it; free.
//! * published: the kernel's, or on its way back in the receive or completion ring; it stays lent, and the ordinary
//!   [`Socket::receive`] and [`Socket::complete`] find it there. Frames the kernel keeps in no ring at all (sent but
//!   not completed, zero-copy buffers, the copy path's own free list) are covered without being seen.
//! * lent by a port that has no socket any more: free.
//!
//! One thing more: descriptors the dead process had read, their owner words already changed, but not released. They
//! are the first ones of a ring, and are skipped, or they would be read again once their frames are lent anew. Where they
//! end in the middle of a packet, the rest of it is skipped too.

use crate::fault;
use crate::frame::FrameId;
use crate::owner::{Owner, ahead};
use crate::pool::FramePool;
use crate::ring::Producer;
use crate::socket::{Inherited, Socket};
use crate::umem::Umem;

/// Why frames cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// This mapping's frames are in use already.
    #[error("the frames of this memory were given out before")]
    Claimed,
    /// Two sockets have one number.
    #[error("two sockets are both named {0}")]
    SamePort(u16),
}

/// Where the frames were. All of them: the numbers but `stale` add up to the memory's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Given to the pool.
    pub freed: u32,
    /// In a fill ring.
    pub in_fill: u32,
    /// Received, or about to be: past the fill ring.
    pub in_rx: u32,
    /// In a transmit ring.
    pub in_tx: u32,
    /// Sent, not yet completed or the completion not yet read.
    pub pending: u32,
    /// Descriptors the dead process had read but not released, and tails of packets half read; skipped.
    pub stale: u32,
}

/// Gives every frame that no ring of `sockets` and nobody in the kernel holds to `pool`.
///
/// `sockets` are all sockets bound over this memory, each with its port set. Once per mapping, before any other use.
///
/// # Errors
/// See [`RecoverError`]; nothing was done then.
pub fn recover<'a>(
    umem: &Umem,
    sockets: impl IntoIterator<Item = &'a mut Socket>,
    pool: &mut FramePool,
) -> Result<RecoveryReport, RecoverError> {
    let mut by_port: Vec<(u16, Inherited<'a>)> = sockets
        .into_iter()
        .map(|socket| (socket.port(), socket.inherited()))
        .collect();
    by_port.sort_by_key(|(port, _)| *port);
    if let Some(pair) = by_port.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(RecoverError::SamePort(pair[0].0));
    }
    if !umem.claim_all() {
        return Err(RecoverError::Claimed);
    }
    let mut report = RecoveryReport::default();
    for (port, rings) in &mut by_port {
        report.stale += skip_stale(umem, *port, rings);
    }
    let find = |port: u16| {
        by_port
            .binary_search_by_key(&port, |(port, _)| *port)
            .ok()
            .map(|index| &by_port[index].1)
    };
    let owners = umem.owners();
    // Backwards, as in `FramePool::all`.
    for index in (0..umem.frames()).rev() {
        let id = umem.id(index);
        let place = place_of(umem, id, owners.get(id), find);
        match place {
            Place::Fill => report.in_fill += 1,
            Place::Rx => report.in_rx += 1,
            Place::Tx => report.in_tx += 1,
            Place::Completion => report.pending += 1,
            Place::Nowhere => {
                owners.set(id, Owner::Worker);
                fault::point();
                pool.put(id);
                report.freed += 1;
            }
        }
    }
    Ok(report)
}

enum Place {
    Nowhere,
    Fill,
    Rx,
    Tx,
    Completion,
}

fn place_of<'r>(
    umem: &Umem,
    id: FrameId,
    owner: Owner,
    find: impl Fn(u16) -> Option<&'r Inherited<'r>>,
) -> Place {
    match owner {
        Owner::Worker | Owner::Spare { .. } => Place::Nowhere,
        Owner::Fill { port, position } => match find(port) {
            Some(rings) => {
                match progress(rings.fill, position, |slot| umem.id_of(slot) == Some(id)) {
                    Progress::Unpublished => Place::Nowhere,
                    Progress::Waiting => Place::Fill,
                    Progress::Taken => Place::Rx,
                }
            }
            None => Place::Nowhere,
        },
        Owner::Tx { port, position } => match find(port) {
            Some(rings) => match progress(rings.tx, position, |slot| {
                umem.id_of(slot.address) == Some(id)
            }) {
                Progress::Unpublished => Place::Nowhere,
                Progress::Waiting => Place::Tx,
                Progress::Taken => Place::Completion,
            },
            None => Place::Nowhere,
        },
    }
}

enum Progress {
    Unpublished,
    Waiting,
    Taken,
}

/// How far the frame lent at `position` of `ring` has come.
///
/// Unpublished ones are at or after the producer's index, by less than a lap. A frame the kernel has kept for so
/// long that its position has come round again is told apart by the slot, which another frame has overwritten.
fn progress<T: Copy + zerocopy::FromBytes>(
    ring: &Producer<T>,
    position: u16,
    is_this: impl Fn(T) -> bool,
) -> Progress {
    let producer = ring.position();
    let beyond = ahead(position, producer);
    if beyond < ring.size() && is_this(ring.written(producer.wrapping_add(beyond))) {
        return Progress::Unpublished;
    }
    // Only for the report: the kernel may take it at any time.
    let behind = ahead((producer & 0xffff) as u16, u32::from(position));
    if (1..=ring.level()).contains(&behind) {
        Progress::Waiting
    } else {
        Progress::Taken
    }
}

/// Releases the descriptors at the head of both consumer rings whose frames are not lent by this port any more.
fn skip_stale(umem: &Umem, port: u16, rings: &mut Inherited<'_>) -> u32 {
    let owners = umem.owners();
    let lent = |address| {
        umem.id_of(address)
            .filter(|id| owners.get(*id).port() == Some(port))
    };
    let mut skipped = 0;
    let mut pass = rings.rx.pass();
    for _ in 0..pass.available() {
        let descriptor = pass.peek(0);
        match lent(descriptor.address) {
            Some(id) if matches!(owners.get(id), Owner::Fill { .. }) => {
                if !*rings.discarding {
                    break;
                }
                // Killed in the middle of a packet: this is its tail, not a packet. Taken here, because who comes
                // after this process would not know.
                owners.set(id, Owner::Worker);
                fault::point();
            }
            _ => {}
        }
        pass.next();
        *rings.discarding = descriptor.continues();
        skipped += 1;
    }
    drop(pass);
    let mut pass = rings.completion.pass();
    for _ in 0..pass.available() {
        let sent = lent(pass.peek(0)).is_some_and(|id| matches!(owners.get(id), Owner::Tx { .. }));
        if sent {
            break;
        }
        pass.next();
        skipped += 1;
    }
    skipped
}

#[cfg(test)]
mod tests;
