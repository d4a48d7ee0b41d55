//! SCTP's part: which chunks change the state of an association (RFC 9260 section 4).

use super::entry::{Flags, Hot};
use super::key::Direction;
use super::state::State;

/// The chunks that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkKind {
    /// Opens; with the tag the other side must send.
    Init(u32),
    /// Answers it; with a tag of its own.
    InitAck(u32),
    /// Proves the sender of INIT.
    CookieEcho,
    /// Completes the set-up.
    CookieAck,
    /// Ends at once.
    Abort,
    /// Begins an orderly end.
    Shutdown,
    /// Answers it.
    ShutdownAck,
    /// Completes it.
    ShutdownComplete,
    /// Data, heartbeats and the rest.
    #[default]
    Other,
}

/// The first chunk of a packet, and the packet's verification tag. Those that change the state come
/// first in their packet (RFC 9260 sections 3.1 and 6.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// What it is.
    pub kind: ChunkKind,
    /// Verification tag.
    pub tag: u32,
    /// The T bit of ABORT and SHUTDOWN COMPLETE: the tag is the receiver's own (RFC 9260 section 8.5.1).
    pub reflected: bool,
}

/// State of an association that begins with this chunk.
pub(super) fn begin(chunk: &Chunk) -> Option<State> {
    match chunk.kind {
        ChunkKind::Init(_) => Some(State::SctpCookieWait),
        ChunkKind::CookieEcho | ChunkKind::Other => Some(State::SctpHeartbeatSent),
        _ => None,
    }
}

/// Whether the chunk opens an association where one ended.
pub(super) const fn reopens(chunk: &Chunk) -> bool {
    matches!(chunk.kind, ChunkKind::Init(_))
}

/// The state behind the next chunk.
pub(super) fn step(hot: &mut Hot, direction: Direction, chunk: &Chunk) -> State {
    let state = hot.state();
    if !is_believable(hot, direction, chunk) {
        return state;
    }
    // The tag in INIT is what the other side's packets must carry.
    match chunk.kind {
        ChunkKind::Init(tag) if state == State::SctpCookieWait => {
            hot.ends[direction.opposite().index()] = tag;
        }
        ChunkKind::InitAck(tag) if direction == Direction::Reply => hot.ends[0] = tag,
        _ => {}
    }
    match (state, chunk.kind, direction) {
        (_, ChunkKind::Abort, _) => {
            hot.flags |= Flags::RESET;
            State::SctpClosed
        }
        (State::SctpCookieWait, ChunkKind::CookieEcho, Direction::Original) => {
            State::SctpCookieEchoed
        }
        (State::SctpCookieEchoed, ChunkKind::CookieAck, Direction::Reply)
        | (State::SctpHeartbeatSent, _, Direction::Reply) => State::SctpEstablished,
        (State::SctpEstablished, ChunkKind::Shutdown, Direction::Original) => {
            State::SctpShutdownSent
        }
        (State::SctpEstablished, ChunkKind::Shutdown, Direction::Reply) => {
            State::SctpShutdownReceived
        }
        (State::SctpShutdownSent | State::SctpShutdownReceived, ChunkKind::ShutdownAck, _) => {
            State::SctpShutdownAckSent
        }
        (State::SctpShutdownAckSent, ChunkKind::ShutdownComplete, _) => State::SctpClosed,
        _ => state,
    }
}

/// Whether a chunk that ends something has the tag of its direction, as far as tags are known.
fn is_believable(hot: &Hot, direction: Direction, chunk: &Chunk) -> bool {
    let ends = matches!(
        chunk.kind,
        ChunkKind::Abort
            | ChunkKind::Shutdown
            | ChunkKind::ShutdownAck
            | ChunkKind::ShutdownComplete
    );
    let of = if chunk.reflected {
        direction.opposite()
    } else {
        direction
    };
    let tag = hot.ends[of.index()];
    !ends || tag == 0 || tag == chunk.tag
}
