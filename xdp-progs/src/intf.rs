//! Rust twins of `bpf/intf.h`. `tests/layout.rs` compares every type here with the objects' BTF.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sockets of one node (`WEFT_SLOTS_MAX`).
pub const SLOTS_MAX: u32 = 4096;
/// Interfaces with a program (`WEFT_PORTS_MAX`).
pub const PORTS_MAX: u32 = 1024;
/// Tunnel endpoint addresses per family (`WEFT_LOCAL_ADDRESSES_MAX`).
pub const LOCAL_ADDRESSES_MAX: usize = 64;
/// Routed pod prefixes per family (`WEFT_ROUTED_PREFIXES_MAX`).
pub const ROUTED_PREFIXES_MAX: usize = 4096;
/// Addresses of services alone per family (`WEFT_SERVICE_ADDRESSES_MAX`).
pub const SERVICE_ADDRESSES_MAX: usize = 65_536;
/// Services' addresses and ports per family (`WEFT_FRONTENDS_MAX`).
pub const FRONTENDS_MAX: usize = 65_536;

/// `struct weft_port`: the slots of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftPort {
    /// Slot of queue 0.
    pub base_slot: u32,
    /// Queues with a socket.
    pub queues: u32,
}

/// `struct weft_tunnel`: what VXLAN of ours looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftTunnel {
    /// The cluster's VNI.
    pub vni: u32,
    /// UDP destination port, network order.
    pub vxlan_port_be: U16,
    /// Always 0.
    pub pad: u16,
}

/// `struct weft_address4`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct WeftAddress4 {
    /// Network order.
    pub bytes: [u8; 4],
}

/// `struct weft_address6`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct WeftAddress6 {
    /// Network order.
    pub bytes: [u8; 16],
}

/// `struct weft_frontend4`: where clients outside reach a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftFrontend4 {
    /// The address.
    pub address: WeftAddress4,
    /// The port, network order.
    pub port_be: U16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

/// `struct weft_frontend6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftFrontend6 {
    /// The address.
    pub address: WeftAddress6,
    /// The port, network order.
    pub port_be: U16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

/// `struct weft_prefix4`: key of a longest prefix match trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftPrefix4 {
    /// Bits that count.
    pub prefix_len: u32,
    /// The network.
    pub address: WeftAddress4,
}

/// `struct weft_prefix6`: key of a longest prefix match trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftPrefix6 {
    /// Bits that count.
    pub prefix_len: u32,
    /// The network.
    pub address: WeftAddress6,
}

impl From<Ipv4Addr> for WeftAddress4 {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            bytes: address.octets(),
        }
    }
}

impl From<Ipv6Addr> for WeftAddress6 {
    fn from(address: Ipv6Addr) -> Self {
        Self {
            bytes: address.octets(),
        }
    }
}

impl From<ipnet::Ipv4Net> for WeftPrefix4 {
    fn from(prefix: ipnet::Ipv4Net) -> Self {
        Self {
            prefix_len: u32::from(prefix.prefix_len()),
            address: prefix.network().into(),
        }
    }
}

impl From<ipnet::Ipv6Net> for WeftPrefix6 {
    fn from(prefix: ipnet::Ipv6Net) -> Self {
        Self {
            prefix_len: u32::from(prefix.prefix_len()),
            address: prefix.network().into(),
        }
    }
}
