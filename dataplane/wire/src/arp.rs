//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};
use crate::ethernet::{EtherType, MacAddr};

const HARDWARE_ETHERNET: u16 = 1;

/// The operation field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpOperation(pub u16);

impl ArpOperation {
    /// Who has?
    pub const REQUEST: Self = Self(1);
    /// Is at.
    pub const REPLY: Self = Self(2);
}

/// The 28 bytes of an ARP packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: MacAddr,
    sender_ip: [u8; 4],
    target_mac: MacAddr,
    target_ip: [u8; 4],
}

const _: () = assert!(size_of::<ArpPacket>() == ArpPacket::LEN);

impl ArpPacket {
    /// Bytes of the packet.
    pub const LEN: usize = 28;

    /// A packet saying `sender` to `target`.
    pub const fn new(
        operation: ArpOperation,
        sender: (MacAddr, Ipv4Addr),
        target: (MacAddr, Ipv4Addr),
    ) -> Self {
        Self {
            hardware: U16::new(HARDWARE_ETHERNET),
            protocol: U16::new(EtherType::IPV4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation.0),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// The packet at the start of `bytes`; other hardware or protocol types are refused.
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let packet: &Self = view(bytes, Layer::Arp)?;
        packet.check()?;
        Ok((packet, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let packet: &mut Self = view_mut(bytes, Layer::Arp)?;
        packet.check()?;
        Ok((packet, Self::LEN))
    }

    fn check(&self) -> Result<(), ParseError> {
        let ours = self.hardware.get() == HARDWARE_ETHERNET
            && self.protocol.get() == EtherType::IPV4.0
            && self.hardware_len == 6
            && self.protocol_len == 4;
        if ours {
            Ok(())
        } else {
            Err(ParseError::Field(Layer::Arp))
        }
    }

    /// Request, reply or something else.
    pub const fn operation(&self) -> ArpOperation {
        ArpOperation(self.operation.get())
    }

    /// Ethernet address of the sender.
    pub const fn sender_mac(&self) -> MacAddr {
        self.sender_mac
    }

    /// IPv4 address of the sender; unspecified in a probe (RFC 5227).
    pub const fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.sender_ip)
    }

    /// Ethernet address asked for or answered to.
    pub const fn target_mac(&self) -> MacAddr {
        self.target_mac
    }

    /// IPv4 address asked for.
    pub const fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.target_ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emits_and_reads_the_bytes_of_rfc_826() {
        let packet = ArpPacket::new(
            ArpOperation::REQUEST,
            (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1)),
            (MacAddr::ZERO, Ipv4Addr::new(169, 254, 1, 1)),
        );
        let bytes = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 1, 1,
        ];
        assert_eq!(packet.as_bytes(), bytes);
        let (parsed, len) = ArpPacket::parse(&bytes).unwrap();
        assert_eq!(len, 28);
        assert_eq!(parsed.operation(), ArpOperation::REQUEST);
        assert_eq!(parsed.sender_mac(), MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(parsed.sender_ip(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(parsed.target_mac(), MacAddr::ZERO);
        assert_eq!(parsed.target_ip(), Ipv4Addr::new(169, 254, 1, 1));
    }

    #[test]
    fn refuses_other_hardware_and_protocols() {
        let good = ArpPacket::new(
            ArpOperation::REPLY,
            (MacAddr::ZERO, Ipv4Addr::UNSPECIFIED),
            (MacAddr::ZERO, Ipv4Addr::UNSPECIFIED),
        );
        for index in [1, 2, 4, 5] {
            let mut bytes = [0_u8; 28];
            bytes.copy_from_slice(good.as_bytes());
            assert!(ArpPacket::parse_mut(&mut bytes).is_ok());
            bytes[index] ^= 0x10;
            assert_eq!(
                ArpPacket::parse(&bytes).unwrap_err(),
                ParseError::Field(Layer::Arp)
            );
        }
        assert_eq!(
            ArpPacket::parse(&[0; 27]).unwrap_err(),
            ParseError::Truncated(Layer::Arp)
        );
    }
}
