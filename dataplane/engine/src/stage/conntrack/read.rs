//! A packet's headers as the flow table wants them.

use weft_wire::icmp::{v4, v6};
use weft_wire::sctp::{SctpChunk, SctpChunks};
use weft_wire::{IcmpHeader, Ipv4Header, Ipv6Chain, Protocol, SctpHeader, TcpHeader};

use crate::packet::{Headers, Network};
use crate::table::flow::{Chunk, ChunkKind, FlowKey, HashSeed, Segment, Tuple, Upper};

/// What conntrack makes of a packet.
pub(super) enum Message {
    /// Part of a connection.
    Packet(FlowKey, Upper),
    /// An error about another packet.
    Error(Quoted),
    /// Neither.
    None,
}

/// The packet an ICMP error quotes.
pub(super) struct Quoted {
    /// Its key.
    pub(super) key: FlowKey,
}

/// In the high byte of the port that stands for an ICMP query's type: no identifier in use by chance
/// (they are process ids) shall look like a type.
const QUERY: u16 = 0xff00;

/// Bit of an SCTP chunk's flags that says whose the verification tag is (RFC 9260 section 3.3.7).
const TAG_REFLECTED: u8 = 1;

/// Hash of what names a packet's connection. All fragments of a datagram count as one flow without
/// ports: later ones have none.
#[inline]
pub(crate) fn flow_hash(headers: &Headers, seed: HashSeed) -> u64 {
    let (ports, protocol) = match headers.fragment {
        Some(_) => ((0, 0), 0),
        None => (headers.ports, headers.protocol.0),
    };
    let tuple = Tuple::new(headers.source, headers.destination, ports);
    tuple.map_or(0, |tuple| FlowKey { tuple, protocol }.hash(seed))
}

/// What a whole packet of TCP or UDP says, whose first buffer is `bytes`; `None` of others.
#[inline(always)]
pub(super) fn upper(headers: &Headers, bytes: &[u8]) -> Option<Upper> {
    match headers.protocol {
        _ if headers.fragment.is_some() => None,
        Protocol::UDP => Some(Upper::Udp),
        Protocol::TCP => {
            let upper = bytes.get(usize::from(headers.l4)..)?;
            segment(headers, upper).map(Upper::Tcp)
        }
        _ => None,
    }
}

/// Reads a packet whose first buffer is `bytes`.
pub(super) fn message(headers: &Headers, bytes: &[u8]) -> Message {
    let Some(upper) = bytes.get(usize::from(headers.l4)..) else {
        return Message::None;
    };
    if !headers.has_upper_header() {
        return Message::None;
    }
    let upper = match headers.protocol {
        Protocol::TCP => segment(headers, upper).map(Upper::Tcp),
        Protocol::UDP => Some(Upper::Udp),
        Protocol::ICMP if headers.network == Network::V4 => return icmp(headers, upper),
        Protocol::ICMPV6 if headers.network == Network::V6 => return icmp(headers, upper),
        Protocol::SCTP => chunk(upper).map(Upper::Sctp),
        _ => Some(Upper::Other),
    };
    let tuple = Tuple::new(headers.source, headers.destination, headers.ports);
    match (tuple, upper) {
        (Some(tuple), Some(upper)) => {
            let protocol = headers.protocol.0;
            Message::Packet(FlowKey { tuple, protocol }, upper)
        }
        _ => Message::None,
    }
}

#[inline]
fn segment(headers: &Headers, upper: &[u8]) -> Option<Segment> {
    let (tcp, len) = TcpHeader::parse(upper).ok()?;
    Some(Segment {
        flags: tcp.flags(),
        sequence: tcp.sequence(),
        acknowledgement: tcp.acknowledgement(),
        payload_len: headers.l4_len().saturating_sub(len) as u32,
    })
}

fn chunk(upper: &[u8]) -> Option<Chunk> {
    let (sctp, at) = SctpHeader::parse(upper).ok()?;
    let tag = sctp.verification_tag();
    let Some(Ok(chunk)) = SctpChunks::new(&upper[at..]).next() else {
        return Some(Chunk {
            tag,
            ..Chunk::default()
        });
    };
    let initiate = chunk.value.first_chunk().map(|it| u32::from_be_bytes(*it));
    Some(Chunk {
        kind: match (chunk.kind, initiate) {
            (SctpChunk::INIT, Some(tag)) => ChunkKind::Init(tag),
            (SctpChunk::INIT_ACK, Some(tag)) => ChunkKind::InitAck(tag),
            (SctpChunk::COOKIE_ECHO, _) => ChunkKind::CookieEcho,
            (SctpChunk::COOKIE_ACK, _) => ChunkKind::CookieAck,
            (SctpChunk::ABORT, _) => ChunkKind::Abort,
            (SctpChunk::SHUTDOWN, _) => ChunkKind::Shutdown,
            (SHUTDOWN_ACK, _) => ChunkKind::ShutdownAck,
            (SctpChunk::SHUTDOWN_COMPLETE, _) => ChunkKind::ShutdownComplete,
            _ => ChunkKind::Other,
        },
        tag,
        reflected: chunk.flags & TAG_REFLECTED != 0,
    })
}

/// RFC 9260 section 3.3.9.
const SHUTDOWN_ACK: u8 = 8;

fn icmp(headers: &Headers, upper: &[u8]) -> Message {
    let Ok((icmp, quote_at)) = IcmpHeader::parse(upper) else {
        return Message::None;
    };
    let of_v4 = headers.network == Network::V4;
    let is_error = if of_v4 {
        v4::is_error(icmp.kind())
    } else {
        v6::is_error(icmp.kind())
    };
    if is_error {
        let end = headers.l4_len().min(upper.len());
        let quote = upper.get(quote_at..end).unwrap_or(&[]);
        let key = if of_v4 {
            quoted_v4(quote)
        } else {
            quoted_v6(quote)
        };
        return key.map_or(Message::None, |key| Message::Error(Quoted { key }));
    }
    let Some((ports, answer)) = query_ports(headers.protocol, icmp.kind(), icmp.echo_id()) else {
        return Message::None;
    };
    match Tuple::new(headers.source, headers.destination, ports) {
        Some(tuple) => {
            let protocol = headers.protocol.0;
            Message::Packet(FlowKey { tuple, protocol }, Upper::Query { answer })
        }
        None => Message::None,
    }
}

/// The identifier and the query's type stand for the two ports, so that two hosts that ping each other
/// with one identifier are two connections. The second value: it is an answer. `None` for other types.
fn query_ports(protocol: Protocol, kind: u8, id: u16) -> Option<((u16, u16), bool)> {
    let (query, answer) = match (protocol, kind) {
        (Protocol::ICMP, v4::ECHO_REQUEST) => (kind, false),
        (Protocol::ICMP, v4::ECHO_REPLY) => (v4::ECHO_REQUEST, true),
        // Timestamp and information requests; their answers have the next type (RFC 792).
        (Protocol::ICMP, 13 | 15 | 17) => (kind, false),
        (Protocol::ICMP, 14 | 16 | 18) => (kind - 1, true),
        (Protocol::ICMPV6, v6::ECHO_REQUEST) => (kind, false),
        (Protocol::ICMPV6, v6::ECHO_REPLY) => (v6::ECHO_REQUEST, true),
        _ => return None,
    };
    let query = QUERY | u16::from(query);
    Some(if answer {
        ((query, id), true)
    } else {
        ((id, query), false)
    })
}

fn quoted_v4(quote: &[u8]) -> Option<FlowKey> {
    let (ip, len) = Ipv4Header::parse(quote).ok()?;
    if ip.fragment().is_some_and(|fragment| !fragment.is_first()) {
        return None;
    }
    let ports = quoted_ports(ip.protocol(), quote.get(len..)?)?;
    Some(FlowKey {
        tuple: Tuple::new(ip.source().into(), ip.destination().into(), ports)?,
        protocol: ip.protocol().0,
    })
}

fn quoted_v6(quote: &[u8]) -> Option<FlowKey> {
    let (ip, chain) = Ipv6Chain::walk(quote).ok()?;
    if chain.is_later_fragment() {
        return None;
    }
    let ports = quoted_ports(chain.protocol, quote.get(usize::from(chain.offset)..)?)?;
    Some(FlowKey {
        tuple: Tuple::new(ip.source().into(), ip.destination().into(), ports)?,
        protocol: chain.protocol.0,
    })
}

/// Of a quoted packet only eight bytes behind its IP header are certain (RFC 792).
fn quoted_ports(protocol: Protocol, upper: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        Protocol::TCP | Protocol::UDP | Protocol::SCTP => {
            let [a, b, c, d] = *upper.first_chunk()?;
            Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        }
        Protocol::ICMP | Protocol::ICMPV6 => {
            let (icmp, _) = IcmpHeader::parse(upper).ok()?;
            Some(query_ports(protocol, icmp.kind(), icmp.echo_id())?.0)
        }
        _ => Some((0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use weft_wire::Fragment;

    fn headers(source: &str, destination: &str, ports: (u16, u16)) -> Headers {
        Headers {
            protocol: Protocol::TCP,
            ports,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..Headers::default()
        }
    }

    #[test]
    fn flows_spread_and_fragments_of_one_do_not() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let hash = |h: &Headers| flow_hash(h, HashSeed::new(7));
            let port_of =
                |h: &Headers| weft_wire::vxlan::source_port((hash(h) ^ (hash(h) >> 32)) as u32);
            let ports: HashSet<u16> = (0..1000)
                .map(|p| port_of(&headers(source, destination, (40_000 + p, 80))))
                .collect();
            assert!(ports.len() > 900, "{}", ports.len());
            let fragment = |offset, ports| Headers {
                fragment: Some(Fragment {
                    offset,
                    more: offset == 0,
                    identification: 1,
                }),
                ..headers(source, destination, ports)
            };
            assert_eq!(
                port_of(&fragment(0, (5, 6))),
                port_of(&fragment(1480, (0, 0)))
            );
        }
    }

    #[test]
    fn hosts_that_ping_each_other_are_two_connections() {
        let (query, _) = query_ports(Protocol::ICMP, v4::ECHO_REQUEST, 7).unwrap();
        let (answer, is_answer) = query_ports(Protocol::ICMP, v4::ECHO_REPLY, 7).unwrap();
        assert!(is_answer);
        assert_eq!((answer.1, answer.0), query);
        assert_ne!((query.1, query.0), query, "a query back is no answer");
        assert_eq!(query_ports(Protocol::ICMP, v4::REDIRECT, 7), None);
    }
}
