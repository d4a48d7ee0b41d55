//! Checked views and builders of the packet headers weft reads and writes.
//!
//! What is here: one file per protocol, each a `#[repr(C)]` struct laid over the bytes with every
//! length checked once in `parse`, the Internet checksum with its incremental updates, and the
//! packets the dataplane answers with ([`answer`]). What is not: no tables, no policy, no frames;
//! a parser sees a byte slice and never reads past it, whatever the bytes are.
//!
//! A `parse` looks at headers only. Packets may continue in further buffers, so a length field
//! larger than the slice is legal here; [`ipv4::Ipv4Header::check_total_len`] and its siblings
//! compare it with what really arrived.
//!
//! ```
//! use weft_wire::{EtherType, EthernetHeader, Ipv4Header, TcpHeader, build::Packet};
//!
//! let frame = Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).tcp(4000, 80).build();
//! let (ethernet, l3) = EthernetHeader::parse(&frame).unwrap();
//! assert_eq!(ethernet.ether_type(), EtherType::IPV4);
//! let (_, l4) = Ipv4Header::parse(&frame[l3..]).unwrap();
//! assert_eq!(TcpHeader::parse(&frame[l3 + l4..]).unwrap().0.destination_port(), 80);
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, doctest))]
extern crate std;

extern crate alloc;

pub mod answer;
pub mod arp;
pub mod build;
pub mod checksum;
pub mod error;
pub mod ethernet;
pub mod fragment;
#[doc(hidden)]
pub mod fuzz;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
pub mod neighbour;
pub mod protocol;
pub mod sctp;
pub mod tcp;
pub mod translate;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use arp::{ArpOperation, ArpPacket};
pub use checksum::ChecksumField;
pub use error::{Layer, ParseError};
pub use ethernet::{EtherType, EthernetHeader, MacAddr};
pub use fragment::Fragment;
pub use icmp::IcmpHeader;
pub use ipv4::Ipv4Header;
pub use ipv6::{Ipv6Chain, Ipv6FragmentHeader, Ipv6Header};
pub use layers::{Layers, Network};
pub use neighbour::{NeighbourAdvertisement, NeighbourSolicitation};
pub use protocol::{Ecn, Protocol};
pub use sctp::SctpHeader;
pub use tcp::{TcpFlags, TcpHeader};
pub use translate::{
    AddressChange, Ends, UpperPart, translate, translate_plain_v4, translate_plain_v6,
    translate_v4, translate_v6,
};
pub use udp::UdpHeader;
pub use vlan::{VlanHeader, VlanTags};
pub use vxlan::{Vni, VxlanHeader};
