//! TCP's part: which segments change the state of a connection (RFC 9293 section 3.6).
//!
//! Windows are not tracked: a segment is never refused here, it only may leave the state as it is. What
//! ends a connection must have a sequence number (or acknowledge one) near what was seen last, so that
//! nobody who cannot see the connection can end its entry with one guess.

use weft_wire::TcpFlags;

use super::entry::{Cold, Flags, Hot};
use super::key::Direction;
use super::state::State;

/// A segment, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Next byte the sender expects.
    pub acknowledgement: u32,
    /// Bytes of payload.
    pub payload_len: u32,
}

/// Furthest a sequence number may lie from the highest seen while no window scale is known: the largest
/// unscaled window is 64 KiB, but a scale of 7, Linux's most usual, makes 8 MiB of it.
const UNKNOWN_SCALE: u32 = 7;

/// Furthest the highest sequence number jumps at once: the largest window (RFC 7323 section 2.3).
const JUMP_MAX: u32 = 1 << 30;

/// What a segment does to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Changes it.
    To(State),
    /// Opens another connection with the same addresses and ports.
    Restart,
}

impl Segment {
    /// Sequence number behind the segment; SYN and FIN count (RFC 9293 section 3.4).
    #[inline]
    pub(super) fn end(&self) -> u32 {
        let counts = |flag| u32::from(self.flags.intersects(flag));
        self.sequence
            .wrapping_add(self.payload_len)
            .wrapping_add(counts(TcpFlags::SYN) + counts(TcpFlags::FIN))
    }

    /// Whether it neither opens nor ends.
    #[inline]
    const fn is_plain(&self) -> bool {
        const SPECIAL: u8 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
        self.flags.0 & SPECIAL == 0
    }
}

/// State of a connection that begins with this segment. A SYN-ACK, FIN or RST of a connection not known
/// begins none.
pub(super) fn begin(segment: &Segment) -> Option<State> {
    let flags = segment.flags;
    match (flags.is_opening(), flags.contains(TcpFlags::ACK)) {
        (true, false) => Some(State::TcpSynSent),
        (false, true) if segment.is_plain() => Some(State::TcpPickedUp),
        _ => None,
    }
}

/// Whether the segment changes no state, which is the rule.
#[inline]
pub(super) fn carries_on(hot: &Hot, direction: Direction, segment: &Segment) -> bool {
    segment.is_plain()
        && (hot.state == State::TcpEstablished as u8
            || (hot.state == State::TcpPickedUp as u8 && direction == Direction::Original))
}

/// What the next segment does; the state itself is for the caller to change.
#[inline(never)]
pub(super) fn step(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Step {
    let step = special(hot, cold, direction, segment);
    if step != Step::Restart {
        remember_end(hot, direction, segment);
    }
    step
}

/// Keeps the highest sequence number of the direction.
#[inline(always)]
pub(super) fn remember_end(hot: &mut Hot, direction: Direction, segment: &Segment) {
    if segment.flags.intersects(TcpFlags::RST) {
        return;
    }
    let known = direction == Direction::Original || hot.has(Flags::REPLIED);
    // A host that restarts its attempt does so with another number.
    let afresh = segment.flags.is_opening() && hot.state() == State::TcpSynSent;
    let end = &mut hot.ends[direction.index()];
    let ahead = segment.end().wrapping_sub(*end);
    if !known || afresh || (1..JUMP_MAX).contains(&ahead) {
        *end = segment.end();
    }
}

fn special(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Step {
    let flags = segment.flags;
    if flags.intersects(TcpFlags::RST) {
        reset(hot, cold, direction, segment)
    } else if flags.intersects(TcpFlags::SYN) {
        // Who began a connection that was picked up is a guess, and policies may have believed it: who does
        // begin one is to be asked anew whether it may.
        if hot.has(Flags::PICKED_UP) && !flags.contains(TcpFlags::ACK) {
            Step::Restart
        } else if flags.intersects(TcpFlags::FIN) {
            Step::Stay
        } else {
            open(hot, direction, segment)
        }
    } else if flags.intersects(TcpFlags::FIN) {
        finish(hot, cold, direction, segment)
    } else if flags.intersects(TcpFlags::ACK) {
        acknowledge(hot, cold, direction, segment)
    } else {
        Step::Stay
    }
}

fn open(hot: &Hot, direction: Direction, segment: &Segment) -> Step {
    let answers = segment.flags.contains(TcpFlags::ACK);
    let exact = segment.acknowledgement == hot.ends[direction.opposite().index()];
    match (hot.state(), direction, answers) {
        (State::TcpTimeWait | State::TcpClose, _, false) => Step::Restart,
        (State::TcpSynSent, Direction::Reply, true) if exact => Step::To(State::TcpSynReceived),
        (State::TcpSynSent, Direction::Reply, false) => Step::To(State::TcpSynSentBoth),
        (State::TcpSynSentBoth, _, true) if exact => Step::To(State::TcpSynReceived),
        _ => Step::Stay,
    }
}

fn acknowledge(hot: &Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Step {
    let other = hot.ends[direction.opposite().index()];
    match (hot.state(), direction) {
        (State::TcpSynReceived, Direction::Original)
            if near(segment.acknowledgement, other, window(cold, direction)) =>
        {
            Step::To(State::TcpEstablished)
        }
        (State::TcpPickedUp, Direction::Reply) => Step::To(State::TcpEstablished),
        (State::TcpFinWait, _) if acknowledges_fin(hot, direction, segment) => {
            Step::To(State::TcpCloseWait)
        }
        (State::TcpLastAck, _) if acknowledges_fin(hot, direction, segment) => {
            Step::To(State::TcpTimeWait)
        }
        _ => Step::Stay,
    }
}

/// Whether all the other side sent, its FIN included, arrived.
fn acknowledges_fin(hot: &Hot, direction: Direction, segment: &Segment) -> bool {
    let other = direction.opposite();
    hot.has(Flags::FIN[other.index()]) && segment.acknowledgement == hot.ends[other.index()]
}

fn finish(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Step {
    if !is_believable(hot, cold, direction, segment) {
        return Step::Stay;
    }
    let (own, other) = (
        Flags::FIN[direction.index()],
        Flags::FIN[direction.opposite().index()],
    );
    let to = match hot.state() {
        State::TcpSynReceived | State::TcpEstablished | State::TcpPickedUp => State::TcpFinWait,
        State::TcpFinWait | State::TcpCloseWait if hot.has(other) => State::TcpLastAck,
        _ => return Step::Stay,
    };
    hot.flags |= own;
    Step::To(to)
}

fn reset(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Step {
    if hot.state() == State::TcpClose || !is_believable(hot, cold, direction, segment) {
        return Step::Stay;
    }
    hot.flags |= Flags::RESET;
    Step::To(State::TcpClose)
}

/// Whether the sender seems to know the connection: its sequence number is near its last ones, or, if it
/// has sent nothing yet, it acknowledges what the other side sent (RFC 9293 section 3.5.2).
fn is_believable(hot: &Hot, cold: &Cold, direction: Direction, segment: &Segment) -> bool {
    if direction == Direction::Original || hot.has(Flags::REPLIED) {
        let own = hot.ends[direction.index()];
        return near(segment.sequence, own, window(cold, direction));
    }
    let other = hot.ends[direction.opposite().index()];
    segment.flags.contains(TcpFlags::ACK)
        && near(
            segment.acknowledgement,
            other,
            window(cold, direction.opposite()),
        )
}

/// Largest window of the receiver of a direction.
fn window(cold: &Cold, direction: Direction) -> u32 {
    let scale = cold.window_scale[direction.opposite().index()];
    // RFC 7323 section 2.3: a larger shift than 14 means 14.
    let shift = match scale {
        0 => UNKNOWN_SCALE,
        scale => u32::from(scale - 1).min(14),
    };
    0xffff << shift
}

const fn near(number: u32, seen: u32, window: u32) -> bool {
    number.wrapping_sub(seen) <= window || seen.wrapping_sub(number) <= window
}
