//! Network address translation of a packet in place (RFC 3022, RFC 3235): addresses and ports replaced, every
//! checksum moved by what changed, so that one that was wrong before is as wrong afterwards.

mod plain;

use core::net::IpAddr;

use zerocopy::transmute;

use crate::checksum::{self, ChecksumField, Delta};
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::protocol::Protocol;
use crate::sctp;
use crate::tcp::TcpHeader;
use crate::udp::UdpHeader;

pub use plain::{AddressChange, translate_plain_v4, translate_plain_v6};

/// Addresses and ports of a packet. The families of both addresses are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source and destination port.
    pub ports: (u16, u16),
}

/// The upper part of a packet that is to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperPart {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it begins, in bytes from the IP header.
    pub at: usize,
    /// Its length in bytes, of the whole packet, not only of the bytes at hand.
    pub len: usize,
    /// What its checksum field holds.
    pub field: ChecksumField,
}

impl Ends {
    fn words4(&self) -> Option<(u64, u32)> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some((
                transmute!([source.octets(), destination.octets()]),
                self.port_word(),
            )),
            _ => None,
        }
    }

    fn words6(&self) -> Option<([u64; 4], u32)> {
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some((
                transmute!([source.octets(), destination.octets()]),
                self.port_word(),
            )),
            _ => None,
        }
    }

    const fn port_word(&self) -> u32 {
        ((self.ports.0 as u32) << 16 | self.ports.1 as u32).to_be()
    }
}

/// Replaces the addresses, and with `upper` the ports, of a packet that begins with its IP header, which was parsed
/// before; `old` is what is there. Of a later fragment there is no upper part. What lies beyond the end of `packet`
/// stays as it is.
///
/// Nothing is changed, and false said, when the header is cut or the addresses are of two families.
pub fn translate(packet: &mut [u8], upper: Option<UpperPart>, old: &Ends, new: &Ends) -> bool {
    if let (Some(old), Some(new)) = (old.words4(), new.words4()) {
        translate_v4(packet, upper, old, new)
    } else if let (Some(old), Some(new)) = (old.words6(), new.words6()) {
        translate_v6(packet, upper, old, new)
    } else {
        false
    }
}

/// As [`translate`], for IPv4. Source and destination are a word, both ports another, with the bytes in the packet's
/// order.
#[inline(always)]
pub fn translate_v4(
    packet: &mut [u8],
    upper: Option<UpperPart>,
    old: (u64, u32),
    new: (u64, u32),
) -> bool {
    let Some(ip) = packet.first_chunk_mut().map(Ipv4Header::of_mut) else {
        return false;
    };
    let [before, after] = [old, new].map(|(addresses, _)| in_order::<2>(transmute!(addresses)));
    let delta = Delta::new().words(&before, &after);
    ip.set_addresses(after[0].into(), after[1].into());
    ip.set_checksum(delta.apply(ip.checksum()));
    if let Some(upper) = upper
        && let Some(bytes) = packet.get_mut(upper.at..)
    {
        translate_upper(bytes, &upper, delta, (old.1, new.1));
    }
    true
}

/// As [`translate`], for IPv6. Source and destination are two words each, both ports one, with the bytes in the
/// packet's order.
#[inline(always)]
pub fn translate_v6(
    packet: &mut [u8],
    upper: Option<UpperPart>,
    old: ([u64; 4], u32),
    new: ([u64; 4], u32),
) -> bool {
    let Some(ip) = packet.first_chunk_mut().map(Ipv6Header::of_mut) else {
        return false;
    };
    let [before, after] = [old, new].map(|(addresses, _)| in_order::<8>(transmute!(addresses)));
    ip.set_addresses(&after);
    if let Some(upper) = upper
        && let Some(bytes) = packet.get_mut(upper.at..)
    {
        let delta = Delta::new().words(&before, &after);
        translate_upper(bytes, &upper, delta, (old.1, new.1));
    }
    true
}

/// Words with the bytes in the packet's order as numbers.
#[inline(always)]
fn in_order<const N: usize>(words: [u32; N]) -> [u32; N] {
    words.map(u32::from_be)
}

/// The ports stand in the same place in all three protocols.
#[inline(always)]
fn translate_upper(bytes: &mut [u8], upper: &UpperPart, addresses: Delta, ports: (u32, u32)) {
    let [before, after] = in_order([ports.0, ports.1]);
    let checksum_at = match upper.protocol {
        Protocol::TCP => TcpHeader::CHECKSUM_AT,
        Protocol::UDP => UdpHeader::CHECKSUM_AT,
        Protocol::SCTP => SCTP_CHECKSUM_AT,
        _ => return,
    };
    let Some(ports) = bytes.first_chunk_mut::<4>() else {
        return;
    };
    *ports = after.to_be_bytes();
    let Some(field) = bytes.get_mut(checksum_at..) else {
        return;
    };
    if upper.protocol == Protocol::SCTP {
        if let Some(crc) = field.first_chunk_mut() {
            let moved = sctp::crc_moved(u32::from_le_bytes(*crc), before ^ after, upper.len);
            *crc = moved.to_le_bytes();
        }
    } else if let Some(field) = field.first_chunk_mut() {
        let present = u16::from_be_bytes(*field);
        let is_absent = upper.protocol == Protocol::UDP && present == 0;
        if !is_absent {
            *field = moved(present, upper, addresses, (before, after)).to_be_bytes();
        }
    }
}

/// Offset of the CRC32c in an SCTP header (RFC 9260 section 3.1).
const SCTP_CHECKSUM_AT: usize = 8;

/// A partial checksum holds the pseudo-header's sum: addresses, but no ports.
#[inline(always)]
fn moved(present: u16, upper: &UpperPart, addresses: Delta, ports: (u32, u32)) -> u16 {
    match upper.field {
        ChecksumField::Partial => addresses.apply_to_sum(present),
        ChecksumField::Full => {
            let whole = addresses.double(ports.0, ports.1).apply(present);
            if upper.protocol == Protocol::UDP {
                checksum::nonzero(whole)
            } else {
                whole
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use crate::layers::Layers;

    fn ends(source: &str, destination: &str, ports: (u16, u16)) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ports,
        }
    }

    const PAIRS: [[&str; 4]; 2] = [
        ["10.0.0.1", "10.96.0.10", "169.254.7.9", "10.1.2.3"],
        ["fd00::1", "fd96::a", "2001:db8::7", "fd00:1:2::3"],
    ];

    fn packet(ends: &Ends, protocol: Protocol, field: ChecksumField) -> std::vec::Vec<u8> {
        let packet = Packet::ip(ends.source, ends.destination).checksum(field);
        let (from, to) = ends.ports;
        let packet = match protocol {
            Protocol::TCP => packet.tcp(from, to),
            Protocol::UDP => packet.udp(from, to),
            _ => packet.sctp(from, to, 7),
        };
        packet.payload(&[1, 2, 3, 4, 5, 6, 7]).build_network()
    }

    #[test]
    fn a_translated_packet_is_as_if_built_with_the_new_ends() {
        for [a, b, c, d] in PAIRS {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
                for field in [ChecksumField::Full, ChecksumField::Partial] {
                    if (protocol, field) == (Protocol::SCTP, ChecksumField::Partial) {
                        continue;
                    }
                    let (old, new) = (ends(a, b, (4000, 80)), ends(c, d, (61_000, 8080)));
                    let mut bytes = packet(&old, protocol, field);
                    let at = if a.contains(':') { 40 } else { 20 };
                    let upper = UpperPart {
                        protocol,
                        at,
                        len: bytes.len() - at,
                        field,
                    };
                    assert!(translate(&mut bytes, Some(upper), &old, &new));
                    assert_eq!(
                        bytes,
                        packet(&new, protocol, field),
                        "{protocol:?} {field:?}"
                    );
                    assert!(translate(&mut bytes, Some(upper), &new, &old));
                    assert_eq!(bytes, packet(&old, protocol, field));
                }
            }
        }
    }

    #[test]
    fn no_checksum_stays_none_and_a_wrong_one_wrong() {
        let (old, new) = (
            ends("10.0.0.1", "10.0.0.2", (1, 2)),
            ends("10.0.0.3", "10.0.0.4", (3, 4)),
        );
        let upper = |len| UpperPart {
            protocol: Protocol::UDP,
            at: 20,
            len,
            field: ChecksumField::Full,
        };
        let base = Packet::ip(old.source, old.destination).udp(1, 2);
        let mut bytes = base.clone().no_checksum().build_network();
        let len = bytes.len() - 20;
        assert!(translate(&mut bytes, Some(upper(len)), &old, &new));
        assert_eq!(bytes[26..28], [0, 0]);
        let mut frame = base.payload(&[1, 2, 3]).wrong_checksum().build();
        let len = frame.len() - 34;
        assert!(translate(&mut frame[14..], Some(upper(len)), &old, &new));
        let layers = Layers::parse(&frame, frame.len()).unwrap();
        assert_eq!(layers.transport_is_valid(&frame), Some(false));
    }

    #[test]
    fn a_quote_that_ends_behind_the_ports_is_translated_as_far_as_it_goes() {
        let (old, new) = (
            ends("10.0.0.1", "10.0.0.2", (1, 2)),
            ends("10.0.0.3", "10.0.0.4", (3, 4)),
        );
        let mut bytes = packet(&old, Protocol::TCP, ChecksumField::Full);
        bytes.truncate(28);
        let upper = UpperPart {
            protocol: Protocol::TCP,
            at: 20,
            len: 8,
            field: ChecksumField::Full,
        };
        assert!(translate(&mut bytes, Some(upper), &old, &new));
        assert_eq!(
            bytes,
            packet(&new, Protocol::TCP, ChecksumField::Full)[..28]
        );
        assert!(!translate(&mut bytes[..10], None, &new, &old), "no packet");
    }
}
