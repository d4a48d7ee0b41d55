//! Every verdict of every program is reached by a packet here, run by the kernel on the loaded
//! program. The slots hold real AF_XDP sockets, so a redirect is the kernel's own decision.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

#[path = "../common/mod.rs"]
mod common;
mod node;
mod own;
#[path = "../common/packets.rs"]
mod packets;
mod pod;
mod steering;
mod uplink;
