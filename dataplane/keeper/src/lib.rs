//! Privileged broker of the UMEM, the bound sockets and the XDP links.
//!
//! The keeper is the part of a node that stays: it makes the memory, binds AF_XDP sockets to devices,
//! attaches the XDP programs, and hands the descriptors to whichever dataplane process is there. The
//! dataplane may be killed at any moment; the next one asks for the same descriptors, finds its
//! frames in the rings and goes on. So the keeper knows nothing about packets, pods or policy, and
//! changes almost never.
//!
//! | module | what it is |
//! |---|---|
//! | [`protocol`] | the messages of `keeper.sock` |
//! | [`client`] | the dataplane's blocking side |
//! | [`server`] | the event loop: connections, sessions, signals |
//! | [`broker`] | what is asked, done: memory, sockets, programs, pins |
//! | `flows` | memory of the workers' connections |
//! | [`registry`] | which port has which id and slots |
//! | `shortcut_filters` | the programs of shortcuts at both ends of a port |
//! | `core_steering` | on which core the kernel works on acknowledgements |
//! | `large_packets` | how large the packets are that a pod's TCP makes |
//! | `virtual_wire` | what an uplink that is one end of a veth needs |
//! | [`bpffs`] | where links and maps are pinned |
//! | [`interface`] | devices as the keeper's network namespace sees them |
//! | `kernel`, `sysfs` | which one this is, and its settings |
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use weft_api::dataplane::PortKind;
//! use weft_keeper::{client::KeeperClient, protocol::BindRequest};
//! # fn main() -> Result<(), weft_keeper::client::ClientError> {
//! let mut keeper = KeeperClient::connect(Path::new("/run/weft/keeper.sock"), Duration::from_secs(5))?;
//! let port = keeper.bind(&BindRequest::new("weft0p", PortKind::Node))?;
//! println!("port {} has {} sockets", port.record.id, port.sockets.len());
//! # Ok(()) }
//! ```

pub mod bpffs;
pub mod broker;
pub mod client;
mod connection;
mod core_steering;
mod flows;
pub mod interface;
mod kernel;
mod large_packets;
mod passing;
pub mod protocol;
mod queues;
pub mod registry;
pub mod server;
mod shortcut_filters;
mod sysfs;
mod virtual_wire;
/// Shortcuts between ports, in maps that the keeper holds.
pub mod shortcut {
    pub use weft_xdp_progs::intf::SHORTCUTS_MAX;
    pub use weft_xdp_progs::{
        Behind, Hold, Protocol, Shortcut, ShortcutMaps, Taken, TunnelFrame, Way,
    };
}
