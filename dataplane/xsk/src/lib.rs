//! AF_XDP sockets with a safe interface: UMEM, unique frames, rings, multi-buffer, TX checksum metadata.
//!
//! | module | what it is |
//! |---|---|
//! | [`layout`] | what lies where in the memory that outlives a dataplane process |
//! | [`umem`] | that memory, mapped; the only way to the bytes of a frame |
//! | [`frame`] | the unique token of one chunk, and packets as chains of them |
//! | [`owner`] | who holds each frame, written so that a successor can read it |
//! | [`pool`] | a worker's free frames |
//! | [`cursor`] | index arithmetic of the four rings, alone so that loom can test it |
//! | [`socket`] | one bound (device, queue): receive, transmit, complete, refill |
//! | [`bind`](mod@bind) | makes such sockets; used by the keeper |
//! | [`recover`](mod@recover) | takes over the rings of a process that was killed |
//! | [`region`] | memory of one owner that outlives it: a worker's connections |
//! | [`features`] | what this kernel offers, and what its absence costs |
//! | [`sim`] | the kernel's side of the rings, in process, for tests without root |
//!
//! What it does not do: load XDP programs, fill XSK maps, look into packets.
//!
//! ```
//! use std::sync::Arc;
//! use weft_xsk::{FramePool, RingSizes, Socket, Umem};
//!
//! let umem = Arc::new(Umem::heap(64));
//! let mut pool = FramePool::all(&umem).expect("fresh memory");
//! let (mut socket, mut kernel) = Socket::simulated(RingSizes::uniform(64), &umem);
//! socket.refill(&umem, &mut pool, 32);
//! kernel.inject(b"a packet of a pod");
//! let mut packets = Vec::new();
//! socket.receive(&umem, 16, &mut |chain| packets.push(chain));
//! assert!(socket.transmit(&umem, &mut packets[0], None));
//! assert_eq!(kernel.transmitted()[0].bytes, b"a packet of a pod");
//! assert_eq!(socket.complete(&umem, &mut pool), 1);
//! ```
//!
//! # Safety of the whole
//!
//! No public function is unsafe. The argument, which every SAFETY comment below refers to:
//!
//! 1. A [`Frame`] is minted once per chunk and mapping ([`FramePool::all`], [`recover()`]), cannot be cloned, and
//!    carries the tag of its [`Umem`], so its bytes are reachable through one token only.
//! 2. A frame given to the kernel loses its token. It gets one back only when the kernel lists it in a ring
//!    *and* the owner table says that this port lent it; the entry is changed at once.
//! 3. Every address and length read from shared memory is range-checked before it is used.
//! 4. The kernel writes only to frames in fill rings (receive) and reads only frames in transmit rings.
//!    That the descriptors handed to [`Socket::map`] are AF_XDP sockets over this memory, and that two
//!    processes do not run on it at once, is what the keeper guarantees; this crate cannot see it.

pub mod bind;
pub mod cursor;
mod fault;
pub mod features;
pub mod frame;
pub mod layout;
mod memory;
pub mod owner;
pub mod packet_socket;
pub mod pool;
pub mod recover;
pub mod region;
mod ring;
pub mod sim;
pub mod socket;
mod sys;
pub mod umem;

pub use bind::{BindError, BindRequest, Bound, BusyPoll, Mode, UmemSource, bind, bind_open, open};
pub use features::{Feature, probe};
pub use frame::{
    CHAIN_MAX, FRAME_BYTES, FRAMES_MAX, Frame, FrameChain, NoRoom, RX_OFFSET, TX_METADATA_BYTES,
    leaked_frames,
};
pub use owner::{Owner, OwnerCounts};
pub use packet_socket::{Gso, GsoKind, PacketSocket, Sent, open_packet_socket};
pub use pool::{FrameBatch, FramePool};
pub use recover::{RecoverError, RecoveryReport, recover};
pub use region::{Region, RegionError};
pub use sim::{Faults, SentPacket, SimKernel};
pub use socket::{
    Kick, RingSizes, Socket, SocketCounters, SocketError, StatisticsHandle, TxChecksum,
    XdpStatistics,
};
pub use umem::{Umem, UmemError};
