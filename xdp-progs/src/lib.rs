//! The XDP programs that steer packets into AF_XDP sockets, and their loader.
//!
//! Two programs, written in C (`bpf/`) and compiled at build time. `pod` takes every frame of a pod's
//! port and drops what has no socket; `uplink` takes only what is ours and passes the rest to the
//! kernel. Both look up the interface in one map, its receive queue gives the slot of the socket. A pair
//! of others, `shortcut`, takes data of connections the dataplane let through past the first; what
//! comes of them by the tunnel, `uplink` takes into the pod itself.
//!
//! This crate loads, attaches and configures them. It decides nothing about packets and opens no
//! socket: descriptors and addresses are given to it.
//!
//! ```no_run
//! use weft_xdp_progs::{Program, Programs, SlotRange};
//! # fn main() -> Result<(), weft_xdp_progs::Error> {
//! let mut programs = Programs::load()?;
//! programs.set_port(7, SlotRange { base: 0, queues: 1 })?;
//! let link = programs.attach_best(7, Program::Uplink)?;
//! # Ok(()) }
//! ```

pub mod device;
mod error;
mod filter;
pub mod intf;
mod link;
mod load;
mod run;
mod shortcut;
mod steering;
mod verdict;

pub use error::Error;
pub use filter::TcFilter;
pub use link::{XdpLink, XdpMode, detach_pinned, has_tcx};
pub use load::{PIN_NAMES, Program, Programs, ShortcutOut, SlotRange};
pub use run::{ReceivedOn, RunResult};
pub use shortcut::{Behind, Hold, Protocol, Shortcut, ShortcutMaps, Taken, TunnelFrame, Way};
pub use steering::{Frontend, Steering};
pub use verdict::{Action, Verdict};
