//! Frames the dataplane answers with: ARP replies, neighbour advertisements and ICMP errors,
//! written whole into a caller's buffer, nothing allocated.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{Immutable, IntoBytes};

use crate::arp::{ArpOperation, ArpPacket};
use crate::checksum::{self, Accumulator};
use crate::error::ParseError;
use crate::ethernet::{EtherType, EthernetHeader, MacAddr};
use crate::icmp::{IcmpHeader, v4, v6};
use crate::ipv4::Ipv4Header;
use crate::ipv6::Ipv6Header;
use crate::neighbour::{self, AdvertisementFlags, LinkAddressOption, NeighbourAdvertisement};
use crate::protocol::Protocol;

/// Bytes an ICMPv4 error must not exceed (RFC 1812 section 4.3.2.3).
pub const ICMPV4_ERROR_MAX: usize = 576;
/// Bytes an ICMPv6 error must not exceed (RFC 4443 section 2.4(c)).
pub const ICMPV6_ERROR_MAX: usize = Ipv6Header::MIN_MTU;
/// A buffer of this many bytes holds any answer of this module with its Ethernet header.
pub const ANSWER_MAX: usize = EthernetHeader::LEN + ICMPV6_ERROR_MAX;

/// Precedence "internetwork control", as RFC 1812 section 4.3.2.5 asks of errors.
const TOS_ERROR: u8 = 0xc0;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Why no answer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The buffer is too small.
    NoRoom,
    /// The packet to quote is not one of the answer's family.
    Quoted(ParseError),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("answer does not fit its buffer"),
            Self::Quoted(error) => write!(f, "quoted packet: {error}"),
        }
    }
}

impl core::error::Error for AnswerError {}

/// The reply to an ARP request: `mac` is at the address asked for. Returns the frame's length.
pub fn arp_reply(request: &ArpPacket, mac: MacAddr, out: &mut [u8]) -> Result<usize, AnswerError> {
    let asker = request.sender_mac();
    let reply = ArpPacket::new(
        ArpOperation::REPLY,
        (mac, request.target_ip()),
        (asker, request.sender_ip()),
    );
    let mut writer = Writer::new(out);
    writer.put(&EthernetHeader::new(asker, mac, EtherType::ARP))?;
    writer.put(&reply)?;
    Ok(writer.len)
}

/// The advertisement that answers a solicitation for `target` from `asker`: `mac`, a router, is
/// there. A solicitation from the unspecified address (duplicate address detection) is answered to
/// all nodes, unsolicited (RFC 4861 section 7.2.4). Returns the frame's length.
pub fn neighbour_advertisement(
    target: Ipv6Addr,
    asker: (MacAddr, Ipv6Addr),
    mac: MacAddr,
    out: &mut [u8],
) -> Result<usize, AnswerError> {
    let probe = asker.1.is_unspecified();
    let (to_mac, to) = if probe {
        (MacAddr::of_ipv6_multicast(ALL_NODES), ALL_NODES)
    } else {
        asker
    };
    let flags = AdvertisementFlags {
        router: true,
        solicited: !probe,
        replace: true,
    };
    let message = NeighbourAdvertisement::new(target, flags);
    let option = LinkAddressOption::target(mac);
    let len = NeighbourAdvertisement::LEN + LinkAddressOption::LEN;

    let mut ip = Ipv6Header::new(target, to, Protocol::ICMPV6, len as u16);
    ip.set_hop_limit(neighbour::HOP_LIMIT);
    let mut sum = Accumulator::starting_with(ip.pseudo_sum(Protocol::ICMPV6, len as u32));
    sum.add(message.as_bytes());
    sum.add(option.as_bytes());

    let mut writer = Writer::new(out);
    writer.put(&EthernetHeader::new(to_mac, mac, EtherType::IPV6))?;
    writer.put(&ip)?;
    let icmp = writer.len;
    writer.put(&message)?;
    writer.put(&option)?;
    writer.patch(icmp + 2, sum.finish());
    Ok(writer.len)
}

/// What an ICMP error says, in either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpError {
    /// The hop limit ran out here.
    TimeExceeded,
    /// The next link takes packets of at most this many bytes.
    TooBig {
        /// Bytes of the largest IP packet.
        mtu: u32,
    },
    /// There is no route.
    NoRoute,
    /// The address is routed here but nobody has it.
    NoAddress,
    /// Policy forbids the packet.
    Prohibited,
    /// Nobody serves the port.
    NoPort,
}

impl IcmpError {
    /// Type, code and the last four bytes of the header.
    const fn header_v4(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (v4::TIME_EXCEEDED, 0, 0),
            Self::TooBig { mtu } => {
                let mtu = if mtu > 0xffff { 0xffff } else { mtu };
                (v4::UNREACHABLE, v4::CODE_FRAGMENTATION_NEEDED, mtu)
            }
            Self::NoRoute => (v4::UNREACHABLE, v4::CODE_NETWORK, 0),
            Self::NoAddress => (v4::UNREACHABLE, v4::CODE_HOST, 0),
            Self::Prohibited => (v4::UNREACHABLE, v4::CODE_PROHIBITED, 0),
            Self::NoPort => (v4::UNREACHABLE, v4::CODE_PORT, 0),
        }
    }

    const fn header_v6(self) -> (u8, u8, u32) {
        match self {
            Self::TimeExceeded => (v6::TIME_EXCEEDED, 0, 0),
            Self::TooBig { mtu } => (v6::PACKET_TOO_BIG, 0, mtu),
            Self::NoRoute => (v6::UNREACHABLE, v6::CODE_NO_ROUTE, 0),
            Self::NoAddress => (v6::UNREACHABLE, v6::CODE_ADDRESS, 0),
            Self::Prohibited => (v6::UNREACHABLE, v6::CODE_PROHIBITED, 0),
            Self::NoPort => (v6::UNREACHABLE, v6::CODE_PORT, 0),
        }
    }
}

/// An ICMP error about a packet, to the packet's source. Whether it may be sent at all says
/// [`may_answer_v4`](crate::icmp::may_answer_v4) or
/// [`may_answer_v6`](crate::icmp::may_answer_v6).
#[derive(Clone, Copy, Debug)]
pub struct ErrorMessage<'a> {
    /// What to say.
    pub error: IcmpError,
    /// Who says it; its family must be the quoted packet's.
    pub from: IpAddr,
    /// Receiver on the link.
    pub destination_mac: MacAddr,
    /// Sender on the link.
    pub source_mac: MacAddr,
    /// The packet from its IP header on, as much of it as is at hand; as much as the rules allow is
    /// quoted, padding behind the packet's own length never.
    pub quoted: &'a [u8],
}

impl ErrorMessage<'_> {
    /// Writes the frame into `out` and returns its length, at most [`ANSWER_MAX`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, AnswerError> {
        match self.from {
            IpAddr::V4(from) => self.write_v4(from, out),
            IpAddr::V6(from) => self.write_v6(from, out),
        }
    }

    fn write_v4(&self, from: Ipv4Addr, out: &mut [u8]) -> Result<usize, AnswerError> {
        const ROOM: usize = ICMPV4_ERROR_MAX - Ipv4Header::LEN - IcmpHeader::LEN;
        let (about, _) = Ipv4Header::parse(self.quoted).map_err(AnswerError::Quoted)?;
        let quote = clip(self.quoted, usize::from(about.total_len()).min(ROOM));
        let len = IcmpHeader::LEN + quote.len();

        let mut ip = Ipv4Header::new(from, about.source(), Protocol::ICMP, len as u16);
        ip.set_tos(TOS_ERROR);
        ip.fill_checksum();
        let icmp = error_header(self.error.header_v4(), 0, quote);

        let mut writer = Writer::new(out);
        writer.put(&self.ethernet(EtherType::IPV4))?;
        writer.put(&ip)?;
        writer.put(&icmp)?;
        writer.put(quote)?;
        Ok(writer.len)
    }

    fn write_v6(&self, from: Ipv6Addr, out: &mut [u8]) -> Result<usize, AnswerError> {
        const ROOM: usize = ICMPV6_ERROR_MAX - Ipv6Header::LEN - IcmpHeader::LEN;
        let (about, _) = Ipv6Header::parse(self.quoted).map_err(AnswerError::Quoted)?;
        let quote = clip(self.quoted, about.total_len().min(ROOM));
        let len = IcmpHeader::LEN + quote.len();

        let ip = Ipv6Header::new(from, about.source(), Protocol::ICMPV6, len as u16);
        let pseudo = ip.pseudo_sum(Protocol::ICMPV6, len as u32);
        let icmp = error_header(self.error.header_v6(), pseudo, quote);

        let mut writer = Writer::new(out);
        writer.put(&self.ethernet(EtherType::IPV6))?;
        writer.put(&ip)?;
        writer.put(&icmp)?;
        writer.put(quote)?;
        Ok(writer.len)
    }

    const fn ethernet(&self, ether_type: EtherType) -> EthernetHeader {
        EthernetHeader::new(self.destination_mac, self.source_mac, ether_type)
    }
}

fn clip(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

fn error_header((kind, code, word): (u8, u8, u32), pseudo: u32, quote: &[u8]) -> IcmpHeader {
    let mut icmp = IcmpHeader::new(kind, code);
    icmp.set_word(word);
    let sum = pseudo + checksum::sum(icmp.as_bytes()) + checksum::sum(quote);
    icmp.set_checksum(checksum::finish(sum));
    icmp
}

/// Appends headers to a fixed buffer.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, part: &T) -> Result<(), AnswerError> {
        let bytes = part.as_bytes();
        let end = self.len + bytes.len();
        let room = self.out.get_mut(self.len..end).ok_or(AnswerError::NoRoom)?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Overwrites two bytes already put.
    fn patch(&mut self, at: usize, value: u16) {
        self.out[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use crate::layers::Layers;
    use crate::neighbour::{NeighbourOption, NeighbourOptions};
    use std::vec::Vec;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);
    const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
    const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const POD_MAC: MacAddr = MacAddr([2, 0x50, 10, 1, 0, 7]);
    const GATEWAY: MacAddr = MacAddr([2, 0x77, 0x65, 0x66, 0x74, 1]);

    #[test]
    fn arp_reply_answers_the_asker() {
        let asked = Ipv4Addr::new(169, 254, 1, 1);
        let request = ArpPacket::new(
            ArpOperation::REQUEST,
            (POD_MAC, POD),
            (MacAddr::ZERO, asked),
        );
        let mut out = [0_u8; 64];
        let len = arp_reply(&request, GATEWAY, &mut out).unwrap();
        let expected = Packet::arp(ArpOperation::REPLY, (GATEWAY, asked), (POD_MAC, POD)).build();
        assert_eq!(out[..len], expected);
        assert_eq!(
            arp_reply(&request, GATEWAY, &mut out[..41]),
            Err(AnswerError::NoRoom)
        );
    }

    #[test]
    fn advertisement_answers_solicitations_and_probes() {
        let gateway: Ipv6Addr = "fe80::1".parse().unwrap();
        for (asker, to, solicited) in [
            (POD6, POD6, true),
            (Ipv6Addr::UNSPECIFIED, ALL_NODES, false),
        ] {
            let mut out = [0_u8; ANSWER_MAX];
            let len =
                neighbour_advertisement(gateway, (POD_MAC, asker), GATEWAY, &mut out).unwrap();
            let frame = &out[..len];
            let layers = Layers::parse(frame, len).unwrap();
            assert_eq!(layers.transport_is_valid(frame), Some(true));
            let (ip, _) = Ipv6Header::parse(&frame[14..]).unwrap();
            assert_eq!((ip.destination(), ip.hop_limit()), (to, 255));
            let icmp = layers.upper(frame).unwrap();
            let (message, at) = NeighbourAdvertisement::parse(icmp).unwrap();
            assert_eq!(message.target(), gateway);
            assert_eq!(message.flags().solicited, solicited);
            assert!(message.flags().router && message.flags().replace);
            let options = NeighbourOptions::new(&icmp[at..]);
            assert_eq!(
                options.link_address(NeighbourOption::TARGET_ADDRESS),
                Ok(Some(GATEWAY))
            );
        }
    }

    fn errors() -> [IcmpError; 6] {
        [
            IcmpError::TimeExceeded,
            IcmpError::TooBig { mtu: 1450 },
            IcmpError::NoRoute,
            IcmpError::NoAddress,
            IcmpError::Prohibited,
            IcmpError::NoPort,
        ]
    }

    fn write(error: IcmpError, from: IpAddr, quoted: &[u8]) -> Vec<u8> {
        let message = ErrorMessage {
            error,
            from,
            destination_mac: POD_MAC,
            source_mac: GATEWAY,
            quoted,
        };
        let mut out = [0xee_u8; ANSWER_MAX];
        let len = message.write(&mut out).unwrap();
        assert_eq!(message.write(&mut out[..len - 1]), Err(AnswerError::NoRoom));
        out[..len].to_vec()
    }

    #[test]
    fn errors_quote_as_much_as_the_rules_allow() {
        for payload in [0, 1, 501, 1400, 9000] {
            let v4 = Packet::ipv4(POD, NODE).udp(1, 2).payload_len(payload);
            let v6 = Packet::ipv6(POD6, NODE6).udp(1, 2).payload_len(payload);
            for (from, quoted, header, max) in [
                (NODE.into(), v4.build_network(), 20, ICMPV4_ERROR_MAX),
                (NODE6.into(), v6.build_network(), 40, ICMPV6_ERROR_MAX),
            ] {
                for error in errors() {
                    let frame = write(error, from, &quoted);
                    let layers = Layers::parse(&frame, frame.len()).unwrap();
                    assert_eq!(layers.transport_is_valid(&frame), Some(true));
                    let quote = (max - header - 8).min(quoted.len());
                    assert_eq!(frame.len(), 14 + header + 8 + quote);
                    assert_eq!(frame[14 + header + 8..], quoted[..quote]);
                }
            }
        }
    }

    #[test]
    fn errors_carry_type_code_and_mtu() {
        let v4 = Packet::ipv4(POD, NODE).udp(1, 2).build_network();
        let v6 = Packet::ipv6(POD6, NODE6).udp(1, 2).build_network();
        let expected_v4 = [
            (11, 0, 0),
            (3, 4, 1450),
            (3, 0, 0),
            (3, 1, 0),
            (3, 13, 0),
            (3, 3, 0),
        ];
        let expected_v6 = [
            (3, 0, 0),
            (2, 0, 1450),
            (1, 0, 0),
            (1, 3, 0),
            (1, 1, 0),
            (1, 4, 0),
        ];
        for (index, error) in errors().into_iter().enumerate() {
            for (from, quoted, at, expected) in [
                (NODE.into(), &v4, 34, expected_v4[index]),
                (NODE6.into(), &v6, 54, expected_v6[index]),
            ] {
                let frame = write(error, from, quoted);
                let (icmp, _) = IcmpHeader::parse(&frame[at..]).unwrap();
                assert_eq!((icmp.kind(), icmp.code(), icmp.mtu_v6()), expected);
            }
        }
        let frame = write(IcmpError::TimeExceeded, NODE.into(), &v4);
        let (ip, _) = Ipv4Header::parse(&frame[14..]).unwrap();
        assert_eq!((ip.source(), ip.destination()), (NODE, POD));
        assert!(crate::ipv4::checksum_is_valid(&frame[14..]));
    }

    #[test]
    fn padding_is_not_quoted_and_families_do_not_mix() {
        let mut quoted = Packet::ipv4(POD, NODE).udp(1, 2).build_network();
        quoted.resize(46, 0xee);
        let frame = write(IcmpError::NoPort, NODE.into(), &quoted);
        assert_eq!(frame.len(), 14 + 20 + 8 + 28);
        let message = ErrorMessage {
            error: IcmpError::NoPort,
            from: NODE6.into(),
            destination_mac: POD_MAC,
            source_mac: GATEWAY,
            quoted: &quoted,
        };
        assert!(matches!(
            message.write(&mut [0; ANSWER_MAX]),
            Err(AnswerError::Quoted(_))
        ));
    }
}
