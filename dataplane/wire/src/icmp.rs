//! The header ICMP (RFC 792) and ICMPv6 (RFC 4443) share, their types, and when an error may be
//! sent at all.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Chain;
use crate::protocol::Protocol;

/// Types and codes of ICMP for IPv4.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Unreachable: no route to the network.
    pub const CODE_NETWORK: u8 = 0;
    /// Unreachable: the host does not answer.
    pub const CODE_HOST: u8 = 1;
    /// Unreachable: nobody listens on the port.
    pub const CODE_PORT: u8 = 3;
    /// Unreachable: fragmentation needed but forbidden; the MTU is in the header.
    pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
    /// Unreachable: administratively prohibited (RFC 1812 section 5.2.7.1).
    pub const CODE_PROHIBITED: u8 = 13;

    /// Whether a message of this type quotes the packet it is about.
    pub const fn is_error(kind: u8) -> bool {
        matches!(
            kind,
            UNREACHABLE | 4 | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// Types and codes of ICMPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big; the MTU is in the header.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query.
    pub const LISTENER_QUERY: u8 = 130;
    /// Multicast listener report.
    pub const LISTENER_REPORT: u8 = 131;
    /// Multicast listener done.
    pub const LISTENER_DONE: u8 = 132;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2.
    pub const LISTENER_REPORT_V2: u8 = 143;

    /// Unreachable: no route.
    pub const CODE_NO_ROUTE: u8 = 0;
    /// Unreachable: administratively prohibited.
    pub const CODE_PROHIBITED: u8 = 1;
    /// Unreachable: the address does not answer.
    pub const CODE_ADDRESS: u8 = 3;
    /// Unreachable: nobody listens on the port.
    pub const CODE_PORT: u8 = 4;

    /// Whether a message of this type quotes the packet it is about (RFC 4443 section 2.1).
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }
}

/// The eight bytes every message begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: U16,
    rest: [u8; 4],
}

const _: () = assert!(size_of::<IcmpHeader>() == IcmpHeader::LEN);

impl IcmpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header with the last four bytes and the checksum zero.
    pub const fn new(kind: u8, code: u8) -> Self {
        Self {
            kind,
            code,
            checksum: U16::new(0),
            rest: [0; 4],
        }
    }

    /// The header at the start of a message and the offset behind it, where an error quotes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        Ok((view(bytes, Layer::Icmp)?, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        Ok((view_mut(bytes, Layer::Icmp)?, Self::LEN))
    }

    /// Message type: see [`v4`] and [`v6`].
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// Code within the type.
    #[inline]
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// Checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Identifier of an echo, the half that plays the part of a port.
    #[inline]
    pub const fn echo_id(&self) -> u16 {
        u16::from_be_bytes([self.rest[0], self.rest[1]])
    }

    /// Sequence number of an echo.
    #[inline]
    pub const fn echo_sequence(&self) -> u16 {
        u16::from_be_bytes([self.rest[2], self.rest[3]])
    }

    /// Next-hop MTU of an ICMPv4 fragmentation-needed message (RFC 1191 section 4); 0 from routers
    /// that do not know of it.
    #[inline]
    pub const fn mtu_v4(&self) -> u16 {
        self.echo_sequence()
    }

    /// MTU of an ICMPv6 packet-too-big message.
    #[inline]
    pub const fn mtu_v6(&self) -> u32 {
        u32::from_be_bytes(self.rest)
    }

    /// Sets type and code; the checksum is left stale.
    pub const fn set_kind(&mut self, kind: u8, code: u8) {
        self.kind = kind;
        self.code = code;
    }

    /// Sets the checksum field.
    pub const fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }

    /// Sets identifier and sequence number; the checksum is left stale.
    pub const fn set_echo(&mut self, id: u16, sequence: u16) {
        let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
        self.rest = [a, b, c, d];
    }

    /// Sets the last four bytes, such as a packet-too-big MTU; the checksum is left stale.
    pub fn set_word(&mut self, word: u32) {
        self.rest = U32::new(word).to_bytes();
    }
}

/// Whether an ICMP error about this IPv4 packet may be sent (RFC 1122 section 3.2.2, RFC 1812
/// section 4.3.2.7): never about an error, a later fragment, a group, or to nobody in particular.
/// Link-layer broadcasts are for the caller to tell.
pub fn may_answer_v4(packet: &[u8]) -> bool {
    let Ok((header, offset)) = Ipv4Header::parse(packet) else {
        return false;
    };
    let (source, destination) = (header.source(), header.destination());
    let one_sender = !source.is_unspecified()
        && !source.is_broadcast()
        && !source.is_multicast()
        && !source.is_loopback()
        && source.octets()[0] < 240;
    let one_receiver = !destination.is_broadcast() && !destination.is_multicast();
    let first = header.fragment().is_none_or(|fragment| fragment.is_first());
    if !(one_sender && one_receiver && first) {
        return false;
    }
    header.protocol() != Protocol::ICMP
        || packet.get(offset).is_some_and(|&kind| !v4::is_error(kind))
}

/// Whether an ICMPv6 error about this packet may be sent (RFC 4443 section 2.4(e)). `too_big`: the
/// error is packet-too-big, which multicast destinations may get too.
pub fn may_answer_v6(packet: &[u8], too_big: bool) -> bool {
    let Ok((header, chain)) = Ipv6Chain::walk(packet) else {
        return false;
    };
    let source = header.source();
    let one_sender = !source.is_unspecified() && !source.is_multicast() && !source.is_loopback();
    let one_receiver = too_big || !header.destination().is_multicast();
    if !(one_sender && one_receiver) || chain.is_later_fragment() {
        return false;
    }
    chain.protocol != Protocol::ICMPV6
        || packet
            .get(usize::from(chain.offset))
            .is_some_and(|&kind| !v6::is_error(kind) && kind != v6::REDIRECT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const D: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

    #[test]
    fn reads_and_writes_literal_bytes() {
        let mut bytes = [3, 4, 0xab, 0xcd, 0, 0, 0x05, 0xaa];
        let (header, offset) = IcmpHeader::parse(&bytes).unwrap();
        assert_eq!((header.kind(), header.code(), offset), (3, 4, 8));
        assert_eq!((header.checksum(), header.mtu_v4()), (0xabcd, 1450));
        assert_eq!(header.mtu_v6(), 1450);
        let (header, _) = IcmpHeader::parse_mut(&mut bytes).unwrap();
        header.set_kind(8, 0);
        header.set_checksum(0);
        header.set_echo(0x1234, 0x5678);
        assert_eq!((header.echo_id(), header.echo_sequence()), (0x1234, 0x5678));
        assert_eq!(bytes, [8, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
        assert!(IcmpHeader::parse(&bytes[..7]).is_err());
    }

    #[test]
    fn ordinary_packets_may_be_answered() {
        assert!(may_answer_v4(&Packet::ipv4(A, B).udp(1, 2).build_network()));
        assert!(may_answer_v4(
            &Packet::ipv4(A, B).echo_request(1, 1).build_network()
        ));
        let first = Packet::ipv4(A, B).udp(1, 2).fragment(0, true);
        assert!(may_answer_v4(&first.build_network()));
        let packet = Packet::ipv6(C, D).tcp(1, 2).build_network();
        assert!(may_answer_v6(&packet, false));
        let echo = Packet::ipv6(C, D).echo_request(1, 1).build_network();
        assert!(may_answer_v6(&echo, false));
    }

    #[test]
    fn errors_fragments_and_groups_are_never_answered_v4() {
        let silent = [
            Packet::ipv4(A, B).icmp(v4::TIME_EXCEEDED, 0, 0),
            Packet::ipv4(A, B).icmp(v4::REDIRECT, 0, 0),
            Packet::ipv4(A, B).raw(Protocol::ICMP),
            Packet::ipv4(A, B).udp(1, 2).fragment(8, false),
            Packet::ipv4(A, Ipv4Addr::new(224, 0, 0, 251)).udp(1, 2),
            Packet::ipv4(A, Ipv4Addr::BROADCAST).udp(1, 2),
            Packet::ipv4(Ipv4Addr::UNSPECIFIED, B).udp(1, 2),
            Packet::ipv4(Ipv4Addr::LOCALHOST, B).udp(1, 2),
            Packet::ipv4(Ipv4Addr::new(240, 0, 0, 1), B).udp(1, 2),
        ];
        for packet in silent {
            assert!(!may_answer_v4(&packet.build_network()), "{packet:?}");
        }
        assert!(!may_answer_v4(&[]));
    }

    #[test]
    fn errors_fragments_and_groups_are_never_answered_v6() {
        let silent = [
            Packet::ipv6(C, D).icmp(v6::PACKET_TOO_BIG, 0, 1280),
            Packet::ipv6(C, D).icmp(v6::REDIRECT, 0, 0),
            Packet::ipv6(C, D)
                .extension(Protocol::DESTINATION_OPTIONS, &[1, 4])
                .icmp(v6::UNREACHABLE, 0, 0),
            Packet::ipv6(C, D).raw(Protocol::UDP).fragment(8, false),
            Packet::ipv6(C, GROUP).udp(1, 2),
            Packet::ipv6(Ipv6Addr::UNSPECIFIED, D).udp(1, 2),
            Packet::ipv6(GROUP, D).udp(1, 2),
        ];
        for packet in silent {
            assert!(!may_answer_v6(&packet.build_network(), false), "{packet:?}");
        }
        let to_group = Packet::ipv6(C, GROUP).udp(1, 2).build_network();
        assert!(may_answer_v6(&to_group, true));
    }
}
