//! One connection, as its bytes lie in the region.

use weft_wire::AddressChange;
use zerocopy::native_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::key::{Direction, FlowKey, Tuple, Tuple4, Tuple6};
use super::memory::Number;
use super::state::{State, Tick};

/// What every packet of the connection touches: one cache line.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Hot {
    /// Packets by direction.
    pub(super) packets: [U64; 2],
    /// Bytes of IP packets by direction.
    pub(super) bytes: [U64; 2],
    /// [`Tick`] of the last packet.
    pub(super) last_seen: u32,
    /// Which of the connections that had this entry it is; never 0 while one has it.
    pub(super) generation: u32,
    /// Version of the tables `egress` was decided under.
    pub(super) epoch: u32,
    /// The decision by direction, 0 while there is none. What its bits mean is the pipeline's business.
    pub(super) egress: [u32; 2],
    /// [`State`].
    pub(super) state: u8,
    /// Upper protocol.
    pub(super) protocol: u8,
    /// [`Flags`].
    pub(super) flags: u8,
    /// The highest bit: the client is outside the cluster, and [`Neighbour`] says by whom it is reached. The others:
    /// packets by the pipeline since a shortcut was asked for, or at all. No connection needs both.
    pub(super) outside_or_streak: u8,
    /// TCP: highest sequence number behind a segment, by direction. SCTP: the verification tag packets
    /// of the direction carry, 0 while unknown.
    pub(super) ends: [u32; 2],
}

const _: () = assert!(size_of::<Hot>() == 64);

/// The bit of [`Hot::outside_or_streak`] that is not counted with.
const OUTSIDE: u8 = 1 << 7;

/// What few packets touch.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Cold {
    /// Neighbours in the queue of the state, towards the longest silent and back; `next` also chains free
    /// entries.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// [`Tick`] of the first packet.
    pub(super) created: u32,
    /// Version of the policies that allowed the connection; 0 while none did.
    pub(super) policy_epoch: u32,
    /// [`BackendId`](crate::table::service::BackendId) of a connection to a service; 0 of others, and while not known
    /// after a restart: what it was to another process means nothing.
    pub(super) backend: u32,
    /// MSS each side announced in its SYN, by the direction of the SYN; 0 while not seen.
    pub(super) mss: [u16; 2],
    /// Window scale each side announced, plus one; 0 while not seen, or without the option.
    pub(super) window_scale: [u8; 2],
    /// Sum over what names the connection: an entry torn by a crash does not match it.
    pub(super) seal: u16,
}

const _: () = assert!(size_of::<Cold>() == 28);

/// The neighbour on the underlay that brought the client's last packet. Touched only where `outside` is set, so that
/// other connections take no memory for it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Neighbour {
    pub(super) mac: [u8; 6],
    /// The uplink.
    pub(super) port: u16,
}

const _: () = assert!(size_of::<Neighbour>() == 8);

/// The tuples of an IPv4 connection, by direction. They are each other's mirror unless the connection is
/// translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Pair4(pub(super) [Tuple4; 2]);

/// The same of IPv6, and how the sum of the addresses changes in the original direction: they are many words to add for
/// every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Pair6(pub(super) [Tuple6; 2], pub(super) AddressChange);

impl Pair6 {
    pub(super) fn new(tuples: [Tuple6; 2]) -> Self {
        let (came, there) = (tuples[0].parts().0, tuples[1].mirrored().parts().0);
        Self(tuples, AddressChange::new(came, there))
    }
}

/// Bits of [`Hot::flags`].
pub(super) struct Flags;

impl Flags {
    /// The other side answered.
    pub(super) const REPLIED: u8 = 1;
    /// TCP or SCTP begun before we looked: the original direction may be the server's.
    pub(super) const PICKED_UP: u8 = 1 << 1;
    /// The reply's tuple is not the original's mirror.
    pub(super) const TRANSLATED: u8 = 1 << 2;
    /// FIN, by direction.
    pub(super) const FIN: [u8; 2] = [1 << 3, 1 << 4];
    /// A believable RST or ABORT ended it.
    pub(super) const RESET: u8 = 1 << 5;
    /// Picked up by a packet of the side that was connected to, as far as policies are concerned.
    pub(super) const REVERSED: u8 = 1 << 6;
    /// A shortcut was asked for: packets may go past the pipeline.
    pub(super) const SHORTCUT: u8 = 1 << 7;
}

impl Hot {
    #[inline]
    pub(super) fn state(&self) -> State {
        State::from_number(self.state).unwrap_or(State::Free)
    }

    #[inline]
    pub(super) const fn last_seen(&self) -> Tick {
        Tick(self.last_seen)
    }

    #[inline]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the client is outside the cluster, and its neighbour known.
    #[inline]
    pub(super) const fn is_outside(&self) -> bool {
        self.outside_or_streak & OUTSIDE != 0
    }

    /// The client is outside the cluster, and its neighbour known.
    #[inline]
    pub(super) const fn set_outside(&mut self) {
        self.outside_or_streak |= OUTSIDE;
    }

    /// One more packet by the pipeline; how many it is, 127 at most.
    #[inline]
    pub(super) const fn lengthen_streak(&mut self) -> u8 {
        let streak = self.outside_or_streak & !OUTSIDE;
        if streak < !OUTSIDE {
            self.outside_or_streak += 1;
            return streak + 1;
        }
        streak
    }

    /// Packets by the pipeline are counted from none again.
    #[inline]
    pub(super) const fn end_streak(&mut self) {
        self.outside_or_streak &= OUTSIDE;
    }

    /// Counts a packet of a connection that is there.
    #[inline(always)]
    pub(super) fn took(&mut self, direction: Direction, bytes: u32) {
        self.count(direction, bytes);
        if direction == Direction::Reply {
            self.flags |= Flags::REPLIED;
        }
    }

    /// Counts a packet.
    #[inline(always)]
    pub(super) fn count(&mut self, direction: Direction, bytes: u32) {
        let packets = &mut self.packets[direction.index()];
        *packets = U64::new(packets.get().wrapping_add(1));
        let total = &mut self.bytes[direction.index()];
        *total = U64::new(total.get().wrapping_add(u64::from(bytes)));
    }
}

/// Sum over what names a connection. Against tearing, not against malice.
#[inline]
pub(super) fn seal(pair: &[u32], protocol: u8, generation: u32) -> u16 {
    let rest = [generation, u32::from(protocol)];
    let step = |sum: u64, word: &u32| (sum ^ u64::from(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // A multiplication carries what differs to the upper bits.
    (pair.iter().chain(&rest).fold(1, step) >> 48) as u16
}

/// A connection in the table. Holds until the connection ends; then it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRef {
    pub(super) number: Number,
    pub(super) generation: std::num::NonZeroU32,
}

/// What is known of a connection, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Addresses and ports of the direction of the first packet, as it came.
    pub original: FlowKey,
    /// Addresses and ports of the other direction's packets, as they come.
    pub reply: FlowKey,
    /// State.
    pub state: State,
    /// The other side answered.
    pub replied: bool,
    /// Begun before the dataplane looked; the original direction may be the server's.
    pub picked_up: bool,
    /// To policies the reply's direction is that of the connection: see the policy stage.
    pub reversed: bool,
    /// Ended by RST or ABORT.
    pub reset: bool,
    /// The reply's tuple is not the original's mirror.
    pub translated: bool,
    /// Packets by direction.
    pub packets: [u64; 2],
    /// Bytes of IP packets by direction.
    pub bytes: [u64; 2],
    /// Nanoseconds since the first packet.
    pub age_ns: u64,
    /// Nanoseconds since the last packet.
    pub idle_ns: u64,
    /// MSS announced by each side, by the direction of its SYN.
    pub mss: [Option<u16>; 2],
    /// A shortcut was asked for.
    pub shortcut: bool,
}

/// Which connections to list; what is `None` does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowFilter {
    /// One of the addresses, of any direction.
    pub address: Option<std::net::IpAddr>,
    /// One of the ports.
    pub port: Option<u16>,
    /// Upper protocol.
    pub protocol: Option<u8>,
    /// State.
    pub state: Option<State>,
}

impl FlowFilter {
    /// Whether the connection is asked for.
    pub fn takes(&self, flow: &FlowInfo) -> bool {
        let tuples = [flow.original.tuple, flow.reply.tuple];
        let any = |of: &dyn Fn(Tuple) -> bool| tuples.into_iter().any(of);
        self.protocol.is_none_or(|it| it == flow.original.protocol)
            && self.state.is_none_or(|it| it == flow.state)
            && self
                .address
                .is_none_or(|it| any(&|tuple| tuple.source() == it || tuple.destination() == it))
            && self
                .port
                .is_none_or(|it| any(&|tuple| tuple.ports().0 == it || tuple.ports().1 == it))
    }
}
