//! VXLAN (RFC 7348).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};

/// IANA's destination port.
pub const PORT: u16 = 4789;

const FLAG_VNI: u8 = 0x08;

/// A network identifier of 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vni(u32);

impl Vni {
    /// The identifier, `None` above 24 bits.
    pub const fn new(value: u32) -> Option<Self> {
        if value < 1 << 24 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The eight bytes between the outer UDP header and the inner frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VxlanHeader {
    flags: u8,
    reserved: [u8; 3],
    vni: [u8; 3],
    reserved_last: u8,
}

const _: () = assert!(size_of::<VxlanHeader>() == VxlanHeader::LEN);

impl VxlanHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header for `vni`.
    pub const fn new(vni: Vni) -> Self {
        let [_, a, b, c] = vni.0.to_be_bytes();
        Self {
            flags: FLAG_VNI,
            reserved: [0; 3],
            vni: [a, b, c],
            reserved_last: 0,
        }
    }

    /// The header at the start of a UDP payload and the offset of the inner frame. A header without
    /// a valid identifier is refused; reserved bits are ignored, as RFC 7348 section 5 demands.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let header: &Self = view(bytes, Layer::Vxlan)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let header: &mut Self = view_mut(bytes, Layer::Vxlan)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    #[inline(always)]
    const fn check(&self) -> Result<(), ParseError> {
        if self.flags & FLAG_VNI == 0 {
            return Err(ParseError::Field(Layer::Vxlan));
        }
        Ok(())
    }

    /// Network identifier.
    #[inline]
    pub const fn vni(&self) -> Vni {
        let [a, b, c] = self.vni;
        Vni(u32::from_be_bytes([0, a, b, c]))
    }
}

/// The outer source port for an inner flow's hash, in the dynamic range 49152-65535 (RFC 7348
/// section 5), so that underlay routers and receive queues spread flows without seeing them.
#[inline]
pub const fn source_port(flow_hash: u32) -> u16 {
    0xc000 | ((flow_hash ^ (flow_hash >> 16)) & 0x3fff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emits_and_reads_literal_bytes() {
        let header = VxlanHeader::new(Vni::new(0x0abcde).unwrap());
        let bytes = [8, 0, 0, 0, 0x0a, 0xbc, 0xde, 0];
        assert_eq!(header.as_bytes(), bytes);
        let (parsed, offset) = VxlanHeader::parse(&bytes).unwrap();
        assert_eq!((parsed.vni().get(), offset), (0x0abcde, 8));
        assert_eq!(Vni::new(1 << 24), None);
    }

    #[test]
    fn refuses_a_missing_identifier_but_ignores_reserved_bits() {
        assert_eq!(
            VxlanHeader::parse(&[0xf7, 0, 0, 0, 0, 0, 1, 0]).unwrap_err(),
            ParseError::Field(Layer::Vxlan)
        );
        let (header, _) = VxlanHeader::parse(&[0xff, 1, 2, 3, 0, 0, 1, 9]).unwrap();
        assert_eq!(header.vni().get(), 1);
    }

    #[test]
    fn source_ports_stay_in_the_dynamic_range() {
        for hash in [0, 1, 0xffff_ffff, 0x1234_5678, 0x3fff_c000] {
            assert!(source_port(hash) >= 49152);
        }
    }
}
