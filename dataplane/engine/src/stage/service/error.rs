//! ICMP errors about packets of translated connections.
//!
//! An error quotes a packet as it was when it went wrong; whoever it goes to knows the connection by the packet he
//! sent (RFC 3022 section 4.3, RFC 5508 section 4.2). So both the quote and the error's own addresses are
//! translated, but not the address of a router that is neither end.

use std::net::IpAddr;

use weft_wire::{ChecksumField, Ends, IcmpHeader, Ipv4Header, Ipv6Chain, UpperPart};
use weft_wire::{checksum, checksum::Delta};

use crate::drop_reason::DropReason;
use crate::packet::{Network, Packet};
use crate::pipeline::Context;
use crate::table::flow::{Direction, FlowRef, Tuple};

/// Offset of the checksum in an ICMP header (RFC 792).
const CHECKSUM_AT: usize = 2;

/// Translates an error that goes in `direction` and quotes a packet of the other.
#[cold]
#[inline(never)]
pub(super) fn translate(
    packet: &mut Packet,
    flow: FlowRef,
    direction: Direction,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (Some(arriving), Some(sent)) = (
        context.flows.arriving(flow, direction),
        context.flows.arriving(flow, direction.opposite()),
    ) else {
        return Ok(());
    };
    // The quoted packet as it came here from its sender, and as it went on.
    let (went, sent) = (ends(arriving.mirrored()), ends(sent));
    let headers = &mut packet.headers;
    let old = (headers.source, headers.destination);
    // Another node takes nothing from this one but its own addresses, so there a router outside has the name of the
    // client it stands for (as nf_nat_icmp_reply_translation in net/netfilter/nf_nat_proto.c).
    let stands_for_client = packet.outside.is_some() && went.destination != sent.destination;
    let new = (
        if old.0 == went.destination || stands_for_client {
            sent.destination
        } else {
            old.0
        },
        sent.source,
    );
    let (l3, l4) = (usize::from(headers.l3), usize::from(headers.l4));
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes_mut(first);
    let end = (headers.end as usize).min(bytes.len());
    let (outer, message) = bytes[l3..end].split_at_mut(l4 - l3);
    let pseudo = match headers.network {
        Network::V6 => addresses(old, new),
        _ => Delta::new(),
    };
    translate_message(message, headers.network, (&went, &sent), pseudo)?;
    let ends = |(source, destination)| Ends {
        source,
        destination,
        ports: (0, 0),
    };
    if !weft_wire::translate(outer, None, &ends(old), &ends(new)) {
        return Err(DropReason::Truncated);
    }
    (headers.source, headers.destination) = new;
    Ok(())
}

/// Translates the quote, and moves the message's checksum by what changed in it and in the pseudo-header.
fn translate_message(
    message: &mut [u8],
    network: Network,
    (went, sent): (&Ends, &Ends),
    pseudo: Delta,
) -> Result<(), DropReason> {
    let quote = message
        .get_mut(IcmpHeader::LEN..)
        .ok_or(DropReason::Truncated)?;
    let Some(upper) = upper_of(quote, network) else {
        return Err(DropReason::Truncated);
    };
    let before = checksum::sum(quote);
    weft_wire::translate(quote, Some(upper), went, sent);
    let delta = pseudo.sums(before, checksum::sum(quote));
    if let Some(field) = message
        .get_mut(CHECKSUM_AT..)
        .and_then(<[u8]>::first_chunk_mut::<2>)
    {
        *field = delta.apply(u16::from_be_bytes(*field)).to_be_bytes();
    }
    Ok(())
}

/// Where the quoted packet's ports are, and how long it was.
fn upper_of(quote: &[u8], network: Network) -> Option<UpperPart> {
    let (protocol, at, total) = match network {
        Network::V4 => {
            let (ip, len) = Ipv4Header::parse(quote).ok()?;
            (ip.protocol(), len, usize::from(ip.total_len()))
        }
        _ => {
            let (ip, chain) = Ipv6Chain::walk(quote).ok()?;
            (chain.protocol, usize::from(chain.offset), ip.total_len())
        }
    };
    Some(UpperPart {
        protocol,
        at,
        len: total.saturating_sub(at),
        field: ChecksumField::Full,
    })
}

fn ends(tuple: Tuple) -> Ends {
    Ends {
        source: tuple.source(),
        destination: tuple.destination(),
        ports: tuple.ports(),
    }
}

fn addresses(old: (IpAddr, IpAddr), new: (IpAddr, IpAddr)) -> Delta {
    let delta = |delta: Delta, old, new| match (old, new) {
        (IpAddr::V6(old), IpAddr::V6(new)) => delta.v6(old, new),
        _ => delta,
    };
    delta(delta(Delta::new(), old.0, new.0), old.1, new.1)
}
