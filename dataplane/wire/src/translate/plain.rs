//! The short way to translate what most packets are: whole ones of TCP or UDP behind an IPv4 header without options or
//! an IPv6 header without extensions. What it changes comes out as on the long way.
//!
//! Words are added as they lie in the packet: swapping all bytes of a ones' complement sum swaps its own (RFC 1071
//! section 2(B)), and 2^64, 2^32 and 2^16 are all 1 in it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::checksum::{self, ChecksumField};
use crate::ethernet::EthernetHeader;
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::protocol::Protocol;
use crate::tcp::TcpHeader;
use crate::udp::UdpHeader;

/// Offset of the checksum in an IPv4 header (RFC 791 section 3.1). Both addresses are behind it.
const IP_CHECKSUM_AT: usize = 10;

/// Where the upper header begins.
const UPPER4: usize = EthernetHeader::LEN + Ipv4Header::LEN;
const UPPER6: usize = EthernetHeader::LEN + Ipv6Header::LEN;

/// What is touched of a frame ends with the checksum of its upper header.
const TCP4: usize = UPPER4 + TcpHeader::CHECKSUM_AT + 2;
const UDP4: usize = UPPER4 + UdpHeader::CHECKSUM_AT + 2;
const TCP6: usize = UPPER6 + TcpHeader::CHECKSUM_AT + 2;
const UDP6: usize = UPPER6 + UdpHeader::CHECKSUM_AT + 2;

/// How the sum of a packet's addresses changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct AddressChange(u32);

impl AddressChange {
    /// From some IPv6 addresses to others; words as in [`translate_v6`](super::translate_v6).
    #[inline(always)]
    pub const fn new(before: [u64; 4], after: [u64; 4]) -> Self {
        Self(halved(add(!total(before), total(after))))
    }

    /// The way back.
    #[inline(always)]
    #[must_use]
    pub const fn back(self) -> Self {
        Self(!self.0)
    }
}

/// Replaces addresses and ports of a frame whose Ethernet and IPv4 header were parsed before: there are no options, and
/// behind is whole TCP, or else UDP. `new` as in [`translate_v4`](super::translate_v4).
///
/// Nothing is changed, and false said, when a header is cut.
#[inline(always)]
pub fn translate_plain_v4(
    frame: &mut [u8],
    protocol: Protocol,
    field: ChecksumField,
    new: (u64, u32),
) -> bool {
    let done = if protocol == Protocol::TCP {
        v4::<TCP4>(frame, field, new)
    } else {
        v4::<UDP4>(frame, field, new)
    };
    done.is_some()
}

/// As [`translate_plain_v4`], for IPv6 without extension headers. `new` as in [`translate_v6`](super::translate_v6),
/// with how it changes the addresses that are there.
#[inline(always)]
pub fn translate_plain_v6(
    frame: &mut [u8],
    protocol: Protocol,
    field: ChecksumField,
    new: (([u64; 4], u32), AddressChange),
) -> bool {
    let done = if protocol == Protocol::TCP {
        v6::<TCP6>(frame, field, new)
    } else {
        v6::<UDP6>(frame, field, new)
    };
    done.is_some()
}

#[inline(always)]
fn v4<const LEN: usize>(frame: &mut [u8], field: ChecksumField, new: (u64, u32)) -> Option<()> {
    let frame = frame.first_chunk_mut::<LEN>()?;
    let (head, upper) = frame.split_first_chunk_mut::<UPPER4>()?;
    let ip = head.last_chunk_mut::<{ Ipv4Header::LEN }>()?;
    let addresses = ip.last_chunk_mut::<8>()?;
    let change = halved(add(!u64::from_ne_bytes(*addresses), new.0));
    *addresses = new.0.to_ne_bytes();
    let checksum = ip[IP_CHECKSUM_AT..].first_chunk_mut()?;
    *checksum = moved(u16::from_ne_bytes(*checksum), change).to_ne_bytes();
    translate_upper(upper, (field, LEN == UDP4), change, new.1)
}

#[inline(always)]
fn v6<const LEN: usize>(
    frame: &mut [u8],
    field: ChecksumField,
    ((addresses, ports), change): (([u64; 4], u32), AddressChange),
) -> Option<()> {
    let frame = frame.first_chunk_mut::<LEN>()?;
    let (head, upper) = frame.split_first_chunk_mut::<UPPER6>()?;
    *head.last_chunk_mut::<32>()? = transmute!(addresses);
    translate_upper(upper, (field, LEN == UDP6), change.0, ports)
}

/// The upper header ends with its checksum, as far as it is given.
#[inline(always)]
fn translate_upper(
    upper: &mut [u8],
    (field, is_udp): (ChecksumField, bool),
    addresses: u32,
    ports: u32,
) -> Option<()> {
    let (front, checksum) = upper.split_last_chunk_mut::<2>()?;
    let place = front.first_chunk_mut::<4>()?;
    let before = u32::from_ne_bytes(*place);
    *place = ports.to_ne_bytes();
    let present = u16::from_ne_bytes(*checksum);
    let after = match field {
        // It holds the pseudo-header's sum, where no ports are; that is never 0.
        ChecksumField::Partial => !moved(!present, addresses),
        ChecksumField::Full if is_udp && present == 0 => 0,
        ChecksumField::Full => {
            let whole = moved(present, add32(addresses, add32(!before, ports)));
            if is_udp {
                checksum::nonzero(whole)
            } else {
                whole
            }
        }
    };
    *checksum = after.to_ne_bytes();
    Some(())
}

/// A checksum after its words changed by `change`: RFC 1624 equation 3.
#[inline(always)]
const fn moved(checksum: u16, change: u32) -> u16 {
    let sum = add32(!checksum as u32, change);
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    !(sum + carry as u16)
}

#[inline(always)]
const fn total([a, b, c, d]: [u64; 4]) -> u64 {
    add(add(a, b), add(c, d))
}

#[inline(always)]
const fn halved(sum: u64) -> u32 {
    add32(sum as u32, (sum >> 32) as u32)
}

#[inline(always)]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

#[inline(always)]
const fn add32(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::build::Packet;
    use crate::translate::{Ends, UpperPart, translate};

    const L3: usize = EthernetHeader::LEN;

    fn ends(v6: bool, (source, destination): (u128, u128), ports: (u16, u16)) -> Ends {
        let address = |bits: u128| match v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(bits)),
            false => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        };
        Ends {
            source: address(source),
            destination: address(destination),
            ports,
        }
    }

    fn packet(old: &Ends, is_udp: bool, field: ChecksumField, payload: &[u8]) -> Vec<u8> {
        let packet = Packet::ip(old.source, old.destination).checksum(field);
        let packet = match is_udp {
            true => packet.udp(old.ports.0, old.ports.1),
            false => packet.tcp(old.ports.0, old.ports.1),
        };
        packet.payload(payload).build()
    }

    fn short(
        frame: &mut [u8],
        (protocol, field): (Protocol, ChecksumField),
        (old, new): (&Ends, &Ends),
        back: bool,
    ) -> bool {
        match (new.words4(), old.words6().zip(new.words6())) {
            (Some(new), _) => translate_plain_v4(frame, protocol, field, new),
            (_, Some((old, new))) => {
                let change = match back {
                    false => AddressChange::new(old.0, new.0),
                    true => AddressChange::new(new.0, old.0).back(),
                };
                translate_plain_v6(frame, protocol, field, (new, change))
            }
            _ => false,
        }
    }

    /// Words that sum up to little or to nothing are where an end-around carry goes wrong.
    fn word() -> impl Strategy<Value = u128> {
        prop_oneof![any::<u128>(), Just(0), Just(u128::MAX), 0_u128..3]
    }

    proptest! {
        #[test]
        fn the_short_way_changes_what_the_long_one_does(
            (v6, is_udp, partial) in (any::<bool>(), any::<bool>(), any::<bool>()),
            (old, new) in ((word(), word()), (word(), word())),
            (ports, new_ports) in (any::<(u16, u16)>(), any::<(u16, u16)>()),
            (same_source, same_destination) in (any::<bool>(), any::<bool>()),
            payload in prop::collection::vec(any::<u8>(), 0..40),
            back: bool,
            checksum in prop::option::of(prop_oneof![Just(0), Just(0xffff), any::<u16>()]),
        ) {
            let new = (if same_source { old.0 } else { new.0 }, if same_destination { old.1 } else { new.1 });
            let (old, new) = (ends(v6, old, ports), ends(v6, new, new_ports));
            let field = if partial { ChecksumField::Partial } else { ChecksumField::Full };
            let (protocol, at) = match is_udp {
                true => (Protocol::UDP, UdpHeader::CHECKSUM_AT),
                false => (Protocol::TCP, TcpHeader::CHECKSUM_AT),
            };
            let mut long = packet(&old, is_udp, field, &payload);
            let upper_at = if v6 { UPPER6 } else { UPPER4 };
            // A sender's wrong checksum stays as wrong. A pseudo-header's sum is never 0.
            if let Some(checksum) = checksum.filter(|it| *it != 0 || !partial) {
                long[upper_at + at..][..2].copy_from_slice(&checksum.to_be_bytes());
            }
            let mut brief = long.clone();
            let upper = UpperPart { protocol, at: upper_at - L3, len: long.len() - upper_at, field };
            prop_assert!(translate(&mut long[L3..], Some(upper), &old, &new));
            prop_assert!(short(&mut brief, (protocol, field), (&old, &new), back));
            prop_assert_eq!(brief, long);
        }

        #[test]
        fn what_is_cut_is_left_alone(
            (v6, is_udp) in (any::<bool>(), any::<bool>()),
            len in 0_usize..80,
        ) {
            let (old, new) = (ends(v6, (1, 2), (3, 4)), ends(v6, (5, 6), (7, 8)));
            let field = ChecksumField::Full;
            let mut bytes = packet(&old, is_udp, field, &[]);
            let whole = match (v6, is_udp) {
                (false, true) => UDP4,
                (false, false) => TCP4,
                (true, true) => UDP6,
                (true, false) => TCP6,
            };
            bytes.truncate(len.min(whole - 1));
            let before = bytes.clone();
            let protocol = if is_udp { Protocol::UDP } else { Protocol::TCP };
            prop_assert!(!short(&mut bytes, (protocol, field), (&old, &new), false));
            prop_assert_eq!(bytes, before);
        }
    }
}
