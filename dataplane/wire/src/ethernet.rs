//! Ethernet II headers and addresses.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};

/// An Ethernet address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No address.
    pub const ZERO: Self = Self([0; 6]);

    /// The six bytes in wire order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is the broadcast address.
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether the group bit is set; the broadcast address has it too.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// The group address an IPv4 multicast address maps to (RFC 1112 section 6.4).
    pub const fn of_ipv4_multicast(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// The group address an IPv6 multicast address maps to (RFC 2464 section 7).
    pub const fn of_ipv6_multicast(group: Ipv6Addr) -> Self {
        let o = group.octets();
        Self([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The type field of an Ethernet or VLAN header, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// An 802.1Q tag follows.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// An 802.1ad service tag follows.
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// Whether a VLAN tag follows.
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN)
    }

    /// Whether the field is an 802.3 length and the frame carries LLC (IEEE 802.3 section 3.2.6).
    pub const fn is_length(self) -> bool {
        self.0 < 0x0600
    }
}

/// The 14 bytes in front of every frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    destination: MacAddr,
    source: MacAddr,
    ether_type: U16,
}

const _: () = assert!(size_of::<EthernetHeader>() == EthernetHeader::LEN);

impl EthernetHeader {
    /// Bytes of the header.
    pub const LEN: usize = 14;

    /// A header with these fields.
    pub const fn new(destination: MacAddr, source: MacAddr, ether_type: EtherType) -> Self {
        Self {
            destination,
            source,
            ether_type: U16::new(ether_type.0),
        }
    }

    /// The header at the start of a frame and the offset behind it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        Ok((view(bytes, Layer::Ethernet)?, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        Ok((view_mut(bytes, Layer::Ethernet)?, Self::LEN))
    }

    /// Receiver.
    #[inline]
    pub const fn destination(&self) -> MacAddr {
        self.destination
    }

    /// Sender.
    #[inline]
    pub const fn source(&self) -> MacAddr {
        self.source
    }

    /// Type field; of a tagged frame that of the first tag.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }

    /// Sets the receiver.
    #[inline]
    pub const fn set_destination(&mut self, mac: MacAddr) {
        self.destination = mac;
    }

    /// Sets the sender.
    #[inline]
    pub const fn set_source(&mut self, mac: MacAddr) {
        self.source = mac;
    }

    /// Sets the type field.
    #[inline]
    pub const fn set_ether_type(&mut self, ether_type: EtherType) {
        self.ether_type = U16::new(ether_type.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn reads_a_literal_frame() {
        let bytes = [
            0x02, 0x77, 0x65, 0x66, 0x74, 0x01, 0x02, 0x50, 10, 1, 0, 7, 0x08, 0x00, 0x45,
        ];
        let (header, offset) = EthernetHeader::parse(&bytes).unwrap();
        assert_eq!(offset, 14);
        assert_eq!(header.destination().to_string(), "02:77:65:66:74:01");
        assert_eq!(header.source(), MacAddr([0x02, 0x50, 10, 1, 0, 7]));
        assert_eq!(header.ether_type(), EtherType::IPV4);
        assert_eq!(
            EthernetHeader::parse(&bytes[..13]).unwrap_err(),
            ParseError::Truncated(Layer::Ethernet)
        );
    }

    #[test]
    fn maps_multicast_groups() {
        let v4 = MacAddr::of_ipv4_multicast(Ipv4Addr::new(239, 129, 2, 3));
        assert_eq!(v4, MacAddr([1, 0, 0x5e, 1, 2, 3]));
        let v6 = MacAddr::of_ipv6_multicast("ff02::1:ff00:42".parse().unwrap());
        assert_eq!(v6, MacAddr([0x33, 0x33, 0xff, 0, 0, 0x42]));
        assert!(v6.is_multicast() && MacAddr::BROADCAST.is_multicast());
        assert!(MacAddr::BROADCAST.is_broadcast() && !v6.is_broadcast());
    }

    #[test]
    fn rewrites_in_place() {
        let mut bytes = [0_u8; 14];
        let (header, _) = EthernetHeader::parse_mut(&mut bytes).unwrap();
        header.set_destination(MacAddr([1; 6]));
        header.set_source(MacAddr([2; 6]));
        header.set_ether_type(EtherType::IPV6);
        assert_eq!(bytes, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd]);
        assert!(EtherType(0x05dc).is_length() && !EtherType::IPV4.is_length());
    }
}
