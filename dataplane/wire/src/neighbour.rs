//! Neighbour discovery (RFC 4861): solicitations, advertisements and their options.

use core::net::Ipv6Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};
use crate::ethernet::MacAddr;
use crate::icmp::{IcmpHeader, v6};

/// The hop limit every message must carry: proof that it was not forwarded (RFC 4861 section 7.1).
pub const HOP_LIMIT: u8 = 255;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// Who has `target`?
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourSolicitation {
    icmp: IcmpHeader,
    target: [u8; 16],
}

const _: () = assert!(size_of::<NeighbourSolicitation>() == NeighbourSolicitation::LEN);

impl NeighbourSolicitation {
    /// Bytes of the message without options.
    pub const LEN: usize = 24;

    /// A message with the checksum zero.
    pub const fn new(target: Ipv6Addr) -> Self {
        Self {
            icmp: IcmpHeader::new(v6::NEIGHBOUR_SOLICITATION, 0),
            target: target.octets(),
        }
    }

    /// The message at the start of an ICMPv6 packet and the offset of its options. Type, code and
    /// target are checked; hop limit and checksum are the caller's.
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let message: &Self = view(bytes, Layer::Neighbour)?;
        let fits = message.icmp.kind() == v6::NEIGHBOUR_SOLICITATION && message.icmp.code() == 0;
        if !fits || message.target().is_multicast() {
            return Err(ParseError::Field(Layer::Neighbour));
        }
        Ok((message, Self::LEN))
    }

    /// The address asked for.
    pub const fn target(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.target)
    }
}

/// `target` is here.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourAdvertisement {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    flags: u8,
    reserved: [u8; 3],
    target: [u8; 16],
}

const _: () = assert!(size_of::<NeighbourAdvertisement>() == NeighbourAdvertisement::LEN);

/// The flags of an advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertisementFlags {
    /// The sender is a router.
    pub router: bool,
    /// The message answers a solicitation.
    pub solicited: bool,
    /// The receiver's entry is to be replaced.
    pub replace: bool,
}

impl NeighbourAdvertisement {
    /// Bytes of the message without options.
    pub const LEN: usize = 24;

    /// A message with the checksum zero.
    pub const fn new(target: Ipv6Addr, flags: AdvertisementFlags) -> Self {
        let mut bits = 0;
        if flags.router {
            bits |= FLAG_ROUTER;
        }
        if flags.solicited {
            bits |= FLAG_SOLICITED;
        }
        if flags.replace {
            bits |= FLAG_OVERRIDE;
        }
        Self {
            kind: v6::NEIGHBOUR_ADVERTISEMENT,
            code: 0,
            checksum: [0; 2],
            flags: bits,
            reserved: [0; 3],
            target: target.octets(),
        }
    }

    /// The message at the start of an ICMPv6 packet and the offset of its options.
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let message: &Self = view(bytes, Layer::Neighbour)?;
        message.check()?;
        Ok((message, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let message: &mut Self = view_mut(bytes, Layer::Neighbour)?;
        message.check()?;
        Ok((message, Self::LEN))
    }

    fn check(&self) -> Result<(), ParseError> {
        let fits = self.kind == v6::NEIGHBOUR_ADVERTISEMENT && self.code == 0;
        if !fits || self.target().is_multicast() {
            return Err(ParseError::Field(Layer::Neighbour));
        }
        Ok(())
    }

    /// The address advertised.
    pub const fn target(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.target)
    }

    /// The three flags.
    pub const fn flags(&self) -> AdvertisementFlags {
        AdvertisementFlags {
            router: self.flags & FLAG_ROUTER != 0,
            solicited: self.flags & FLAG_SOLICITED != 0,
            replace: self.flags & FLAG_OVERRIDE != 0,
        }
    }
}

/// A source or target link-layer address option for Ethernet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LinkAddressOption {
    kind: u8,
    len: u8,
    address: MacAddr,
}

const _: () = assert!(size_of::<LinkAddressOption>() == LinkAddressOption::LEN);

impl LinkAddressOption {
    /// Bytes of the option.
    pub const LEN: usize = 8;

    /// The option of a solicitation.
    pub const fn source(address: MacAddr) -> Self {
        Self {
            kind: NeighbourOption::SOURCE_ADDRESS,
            len: 1,
            address,
        }
    }

    /// The option of an advertisement.
    pub const fn target(address: MacAddr) -> Self {
        Self {
            kind: NeighbourOption::TARGET_ADDRESS,
            len: 1,
            address,
        }
    }
}

/// One option of a neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourOption<'a> {
    /// Option type.
    pub kind: u8,
    /// Bytes behind the length byte.
    pub data: &'a [u8],
}

impl NeighbourOption<'_> {
    /// Link-layer address of a solicitation's sender.
    pub const SOURCE_ADDRESS: u8 = 1;
    /// Link-layer address of an advertisement's target.
    pub const TARGET_ADDRESS: u8 = 2;
    /// Enhanced duplicate address detection (RFC 7527).
    pub const NONCE: u8 = 14;
}

/// Iterates options; ends after the first malformed one, whose message is to be discarded whole
/// (RFC 4861 section 4.6).
#[derive(Clone, Debug)]
pub struct NeighbourOptions<'a> {
    rest: &'a [u8],
}

impl<'a> NeighbourOptions<'a> {
    /// The options in the bytes behind a message.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The Ethernet address in the first option of type `kind`; an error if any option is
    /// malformed.
    pub fn link_address(self, kind: u8) -> Result<Option<MacAddr>, ParseError> {
        let mut found = None;
        for option in self {
            let option = option?;
            if option.kind == kind && found.is_none() {
                let octets = <[u8; 6]>::try_from(option.data);
                found = Some(MacAddr(
                    octets.map_err(|_| ParseError::Option(Layer::Neighbour))?,
                ));
            }
        }
        Ok(found)
    }
}

impl<'a> Iterator for NeighbourOptions<'a> {
    type Item = Result<NeighbourOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = core::mem::take(&mut self.rest);
        match *rest {
            [] => None,
            [kind, units, ..] if units != 0 && usize::from(units) * 8 <= rest.len() => {
                let (option, rest) = rest.split_at(usize::from(units) * 8);
                self.rest = rest;
                Some(Ok(NeighbourOption {
                    kind,
                    data: &option[2..],
                }))
            }
            _ => Some(Err(ParseError::Option(Layer::Neighbour))),
        }
    }
}

/// The multicast group a solicitation for `target` is sent to (RFC 4291 section 2.7.1).
pub const fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x0012, 0x3456);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn reads_a_solicitation_and_its_option() {
        let mut bytes = NeighbourSolicitation::new(TARGET).as_bytes().to_vec();
        assert_eq!(bytes[..8], [135, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 9]);
        let (message, offset) = NeighbourSolicitation::parse(&bytes).unwrap();
        assert_eq!(message.target(), TARGET);
        let options = NeighbourOptions::new(&bytes[offset..]);
        assert_eq!(
            options
                .clone()
                .link_address(NeighbourOption::SOURCE_ADDRESS),
            Ok(Some(MAC))
        );
        assert_eq!(
            options.link_address(NeighbourOption::TARGET_ADDRESS),
            Ok(None)
        );
    }

    #[test]
    fn reads_an_advertisement() {
        let flags = AdvertisementFlags {
            router: true,
            solicited: true,
            replace: false,
        };
        let mut bytes = NeighbourAdvertisement::new(TARGET, flags)
            .as_bytes()
            .to_vec();
        bytes.extend_from_slice(LinkAddressOption::target(MAC).as_bytes());
        assert_eq!(bytes[..5], [136, 0, 0, 0, 0xc0]);
        let (message, offset) = NeighbourAdvertisement::parse_mut(&mut bytes).unwrap();
        assert_eq!((message.target(), message.flags()), (TARGET, flags));
        assert_eq!(
            NeighbourOptions::new(&bytes[offset..]).link_address(NeighbourOption::TARGET_ADDRESS),
            Ok(Some(MAC))
        );
    }

    #[test]
    fn refuses_other_messages_and_multicast_targets() {
        let solicitation = NeighbourSolicitation::new(TARGET);
        let field = ParseError::Field(Layer::Neighbour);
        assert_eq!(
            NeighbourAdvertisement::parse(solicitation.as_bytes()).unwrap_err(),
            field
        );
        let multicast = NeighbourSolicitation::new(solicited_node(TARGET));
        assert_eq!(
            NeighbourSolicitation::parse(multicast.as_bytes()).unwrap_err(),
            field
        );
        assert_eq!(
            NeighbourSolicitation::parse(&solicitation.as_bytes()[..23]).unwrap_err(),
            ParseError::Truncated(Layer::Neighbour)
        );
    }

    #[test]
    fn malformed_options_discard_the_message() {
        let bad = ParseError::Option(Layer::Neighbour);
        for bytes in [
            &[1, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1],
        ] {
            let results: Vec<_> = NeighbourOptions::new(bytes).collect();
            assert_eq!(results, [Err(bad)]);
            let options = NeighbourOptions::new(bytes);
            assert_eq!(options.link_address(1), Err(bad));
        }
        let long = [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(NeighbourOptions::new(&long).link_address(1), Err(bad));
    }

    #[test]
    fn maps_to_the_solicited_node_group() {
        let group = solicited_node(TARGET);
        assert_eq!(group, "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            MacAddr::of_ipv6_multicast(group),
            MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
        );
    }
}
