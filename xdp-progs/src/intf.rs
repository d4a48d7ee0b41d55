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

/// Shortcuts, one direction of a connection each (`WEFT_SHORTCUTS_MAX`).
pub const SHORTCUTS_MAX: u32 = 32_768;

/// Cores that acknowledgements can be steered to (`WEFT_CORES_MAX`).
pub const CORES_MAX: u32 = 1_024;

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

/// `struct weft_shortcut_key`: one direction of a TCP or UDP connection, as its packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftShortcutKey {
    /// Source address, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2).
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Source port, network order.
    pub source_port_be: U16,
    /// Destination port, network order.
    pub destination_port_be: U16,
    /// IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

/// `struct weft_shortcut`: where packets go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftShortcut {
    /// Holds while it is that of [`WeftShortcutState`].
    pub epoch: u32,
    /// The one interface the packets come in by.
    pub rx_ifindex: u32,
    /// Interface the packets leave by.
    pub tx_ifindex: u32,
    /// Where they are counted.
    pub place: u32,
    /// Holds while it is that of [`WeftShortcutUse`].
    pub ticket: u32,
    /// The largest IP packet the other interface takes.
    pub mtu: u32,
    /// Source of the frames that may take it.
    pub pod_mac: [u8; 6],
    /// Their destination.
    pub gateway_mac: [u8; 6],
    /// Destination behind it.
    pub peer_mac: [u8; 6],
    /// `enum weft_shortcut_to`: [`TO_NODE`], [`TO_POD`] or [`TO_TUNNEL`].
    pub to: u8,
    /// 1: the packets go on with the addresses and ports below, which are others.
    pub translated: u8,
    /// Source address behind it, IPv4 mapped into IPv6.
    pub source: [u8; 16],
    /// Destination address behind it, likewise.
    pub destination: [u8; 16],
    /// Source port behind it, network order.
    pub source_port_be: U16,
    /// Destination port behind it, network order.
    pub destination_port_be: U16,
    /// Source of the frames behind it.
    pub sender_mac: [u8; 6],
    /// Source of the tunnel frames the packets go on in.
    pub tunnel_source_mac: [u8; 6],
    /// Their destination.
    pub tunnel_destination_mac: [u8; 6],
    /// Their UDP source port, network order.
    pub tunnel_port_be: U16,
    /// Source address of the tunnel packets the packets come or go on in; 0 without a tunnel.
    pub tunnel_source: WeftAddress4,
    /// Their destination address, likewise.
    pub tunnel_destination: WeftAddress4,
    /// The cluster's network identifier, of those they go on in.
    pub vni: u32,
    /// Their UDP destination port, network order.
    pub vxlan_port_be: U16,
    /// Always 0.
    pub pad: u16,
}

/// Behind a shortcut is the node's own network namespace (`enum weft_shortcut_to`).
pub const TO_NODE: u8 = 0;

/// A pod's.
pub const TO_POD: u8 = 1;

/// Another node.
pub const TO_TUNNEL: u8 = 2;

/// `struct weft_shortcut_use`: what went by a shortcut.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct WeftShortcutUse {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
    /// CLOCK_MONOTONIC of the last one, in nanoseconds.
    pub last_ns: u64,
    /// Highest TCP sequence number behind a segment.
    pub end_sequence: u32,
    /// Of the shortcut that is counted here; 0: none holds.
    pub ticket: u32,
}

/// `struct weft_shortcut_state`: which shortcuts hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WeftShortcutState {
    /// Until when they do without a word of the dataplane: CLOCK_MONOTONIC, in nanoseconds.
    pub alive_until_ns: u64,
    /// Until when packets on their way by those of former versions still arrive, likewise.
    pub former_until_ns: u64,
    /// Those of this version of the tables; 0: none does.
    pub epoch: u32,
    /// The first of the former versions; the last is the one before `epoch`.
    pub former: u32,
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
