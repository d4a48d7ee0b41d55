//! UDP headers (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};

/// The eight bytes of a UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    source_port: U16,
    destination_port: U16,
    len: U16,
    checksum: U16,
}

const _: () = assert!(size_of::<UdpHeader>() == UdpHeader::LEN);

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;
    /// Offset of the checksum field, as the kernel's checksum offload wants it.
    pub const CHECKSUM_AT: usize = 6;

    /// A header without checksum for `payload_len` bytes.
    pub const fn new(source_port: u16, destination_port: u16, payload_len: u16) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            len: U16::new(payload_len.saturating_add(Self::LEN as u16)),
            checksum: U16::new(0),
        }
    }

    /// The header at the start of a datagram and the offset of its payload.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let header: &Self = view(bytes, Layer::Udp)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let header: &mut Self = view_mut(bytes, Layer::Udp)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    #[inline(always)]
    const fn check(&self) -> Result<(), ParseError> {
        if (self.len.get() as usize) < Self::LEN {
            return Err(ParseError::TotalLength(Layer::Udp));
        }
        Ok(())
    }

    /// Refuses a datagram that claims more than the IP payload's `available` bytes. Not for
    /// fragments, whose length counts the whole datagram.
    #[inline]
    pub const fn check_total_len(&self, available: usize) -> Result<(), ParseError> {
        if self.len.get() as usize > available {
            Err(ParseError::TotalLength(Layer::Udp))
        } else {
            Ok(())
        }
    }

    /// Sender's port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// Receiver's port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Bytes of header and payload.
    #[inline]
    pub const fn total_len(&self) -> u16 {
        self.len.get()
    }

    /// Checksum field as it stands; zero means none (IPv4, and tunnels of RFC 6935).
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Sets the sender's port; the checksum is left stale.
    pub const fn set_source_port(&mut self, port: u16) {
        self.source_port = U16::new(port);
    }

    /// Sets the receiver's port; the checksum is left stale.
    pub const fn set_destination_port(&mut self, port: u16) {
        self.destination_port = U16::new(port);
    }

    /// Sets the length of header and payload; the checksum is left stale.
    pub const fn set_total_len(&mut self, len: u16) {
        self.len = U16::new(len);
    }

    /// Sets the checksum field.
    pub const fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_literal_bytes() {
        let mut bytes = [0x12, 0x34, 0x12, 0xb5, 0, 12, 0xab, 0xcd, 1, 2, 3, 4];
        let (header, offset) = UdpHeader::parse(&bytes).unwrap();
        assert_eq!(offset, 8);
        assert_eq!(header.source_port(), 0x1234);
        assert_eq!(header.destination_port(), 4789);
        assert_eq!(header.total_len(), 12);
        assert_eq!(header.checksum(), 0xabcd);
        assert!(header.check_total_len(12).is_ok());
        assert_eq!(
            header.check_total_len(11),
            Err(ParseError::TotalLength(Layer::Udp))
        );
        let (header, _) = UdpHeader::parse_mut(&mut bytes).unwrap();
        header.set_source_port(1);
        header.set_destination_port(2);
        header.set_total_len(9);
        header.set_checksum(3);
        assert_eq!(bytes[..8], [0, 1, 0, 2, 0, 9, 0, 3]);
        assert_eq!(UdpHeader::new(1, 2, 1).as_bytes(), [0, 1, 0, 2, 0, 9, 0, 0]);
    }

    #[test]
    fn refuses_a_length_below_the_header() {
        let bytes = [0, 1, 0, 2, 0, 7, 0, 0];
        assert_eq!(
            UdpHeader::parse(&bytes).unwrap_err(),
            ParseError::TotalLength(Layer::Udp)
        );
        assert_eq!(
            UdpHeader::parse(&bytes[..7]).unwrap_err(),
            ParseError::Truncated(Layer::Udp)
        );
    }
}
