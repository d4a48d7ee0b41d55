//! Messages and limits of weft's control sockets.
//!
//! Every control socket is a Unix stream socket, root-only (mode 0600), that carries one JSON
//! document per line ([`frame`]). A request is `{"id":N,"op":"…",…}`; its answer repeats the id and
//! holds either `"ok"` or `"error"` ([`envelope`]). This crate is data only: no sockets but the
//! small blocking client in [`client`], no policy.
//!
//! | socket | server | messages |
//! |---|---|---|
//! | `dataplane.sock` | `weft-dataplane` | [`dataplane`]: table objects, ports, status, capture |
//! | `agent.sock` | `weft-agent` | [`agent`]: what the CNI plugin asks, agent status |
//! | `keeper.sock` | `weft-keeper` | its own protocol, in the `weft-keeper` crate: it passes descriptors |

pub mod agent;
pub mod client;
pub mod dataplane;
pub mod envelope;
pub mod explain;
pub mod flow;
pub mod frame;
pub mod fuzz;
pub mod identity;
pub mod mac;
pub mod object;
pub mod paths;
pub mod policy;
pub mod service;
pub mod trace;

pub use identity::{PodRef, PortName};
pub use mac::MacAddr;

/// Version of the control protocols. A peer with another major version is refused with a clear error.
pub const PROTOCOL_VERSION: u32 = 1;

/// The gateway MAC every pod knows: fixed, locally administered, and never the address of a host
/// end, so that the kernel treats a pod's frame as somebody else's when no XDP program takes it.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x77, 0x65, 0x66, 0x74, 0x01]);

/// The pods' IPv4 default gateway. Link-local, the same in every pod, answered by the pipeline.
pub const GATEWAY_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);

/// The pods' IPv6 default gateway.
pub const GATEWAY_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// UDP port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;

/// The cluster's VXLAN network identifier; a foreign VNI is left to the kernel.
pub const DEFAULT_VNI: u32 = 7_765;

/// MTU of both ends of a pod's veth: with it a frame of 65,549 bytes passes; at 65,000 a
/// 65,226-byte frame fails.
pub const VETH_MTU: u32 = 65_535;

/// MTU of the pods' TCP-only routes: the largest segment that fits a multi-buffer packet of 17
/// descriptors, with room for encapsulation.
pub const LOCAL_MTU: u32 = 65_000;

/// The same in place of [`LOCAL_MTU`] before Linux 6.9, where generic XDP hands over no packet that does not fit one
/// frame of 4,096 bytes with its headroom.
pub const SINGLE_FRAME_MTU: u32 = 3_800;

/// Routing table that holds the pods' TCP-only default routes (`ip rule ipproto tcp`).
pub const TCP_ROUTE_TABLE: u32 = 101;

/// Name of the node's own port as the node's stack sees it.
pub const NODE_PORT: &str = "weft0";

/// The dataplane's end of the node's own port.
pub const NODE_PORT_PEER: &str = "weft0p";
