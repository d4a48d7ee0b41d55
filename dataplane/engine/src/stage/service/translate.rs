//! Other addresses and ports in a packet's bytes and headers.

use std::net::IpAddr;

use weft_wire::{
    ChecksumField, EthernetHeader, Ipv4Header, Ipv6Header, Protocol, UpperPart, translate_plain_v4,
    translate_plain_v6,
};

use crate::drop_reason::DropReason;
use crate::packet::{Headers, Packet, Translation};
use crate::pipeline::Context;
use crate::table::flow::{Onward, Tuple};

/// Gives the packet the addresses and ports `there`, and takes down what it came with.
#[inline(never)]
pub(super) fn translate(
    packet: &mut Packet,
    there: Tuple,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    match came(packet) {
        Some(came) => translate_from(packet, (came, there), context),
        None => Err(DropReason::Truncated),
    }
}

/// As [`translate`], of a packet known to have the addresses and ports `came`.
#[inline(always)]
pub(super) fn translate_from(
    packet: &mut Packet,
    (came, there): (Tuple, Tuple),
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    // What is done to it is compiled for each family.
    match (came, there) {
        (Tuple::V4(_), Tuple::V4(_)) => rewrite(packet, (came, there), context)?,
        (Tuple::V6(_), Tuple::V6(_)) => rewrite(packet, (came, there), context)?,
        _ => return Err(DropReason::Truncated),
    }
    if packet.translation.is_none() {
        packet.translation = Some(Translation { came, chosen: None });
    }
    Ok(())
}

/// Where network and upper header are without options or extension headers.
const PLAIN4: u32 = places(EthernetHeader::LEN, EthernetHeader::LEN + Ipv4Header::LEN);
const PLAIN6: u32 = places(EthernetHeader::LEN, EthernetHeader::LEN + Ipv6Header::LEN);

/// In one word, which one comparison is about.
#[inline(always)]
const fn places(l3: usize, l4: usize) -> u32 {
    l3 as u32 | (l4 as u32) << 16
}

/// As [`translate`], of a whole packet of TCP or UDP, where conntrack has its header at hand. False when there are IPv4
/// options or IPv6 extension headers: then nothing is changed.
#[inline(always)]
pub(crate) fn translate_plain(
    bytes: &mut [u8],
    headers: &mut Headers,
    onward: Onward,
    field: ChecksumField,
) -> bool {
    let at = places(usize::from(headers.l3), usize::from(headers.l4));
    let protocol = headers.protocol;
    let (done, there) = match onward {
        Onward::V4(new) => (
            at == PLAIN4 && translate_plain_v4(bytes, protocol, field, new.parts()),
            Tuple::V4(new),
        ),
        Onward::V6(new, change) => (
            at == PLAIN6 && translate_plain_v6(bytes, protocol, field, (new.parts(), change)),
            Tuple::V6(new),
        ),
    };
    if done {
        (headers.source, headers.destination) = (there.source(), there.destination());
        headers.ports = there.ports();
    }
    done
}

fn came(packet: &Packet) -> Option<Tuple> {
    let headers = &packet.headers;
    Tuple::new(headers.source, headers.destination, headers.ports)
}

/// Makes a packet what it was, for whom it came from: an error quotes what its sender sent.
#[cold]
pub(crate) fn restore(packet: &mut Packet, context: &mut Context<'_>) {
    if let (Some(translation), Some(now)) = (packet.translation.take(), came(packet)) {
        // What could be done can be undone.
        let _ = rewrite(packet, (now, translation.came), context);
    }
}

/// Gives a later fragment the addresses of its first one. It has no ports.
pub(crate) fn readdress(
    packet: &mut Packet,
    (source, destination): (IpAddr, IpAddr),
    context: &mut Context<'_>,
) {
    if let Some(there) = Tuple::new(source, destination, (0, 0)) {
        // Without an upper header there is nothing to refuse.
        let _ = translate(packet, there, context);
    }
}

#[inline(always)]
fn rewrite(
    packet: &mut Packet,
    (came, there): (Tuple, Tuple),
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let headers = &mut packet.headers;
    let upper = headers.has_upper_header().then(|| UpperPart {
        protocol: headers.protocol,
        at: usize::from(headers.l4 - headers.l3),
        len: headers.l4_len(),
        field: packet.checksum.field(),
    });
    if headers.protocol == Protocol::SCTP
        && upper.is_some()
        && headers.fragment.is_some()
        && headers.ports != there.ports()
    {
        return Err(DropReason::SctpFragment);
    }
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = &mut context.umem.bytes_mut(first)[usize::from(headers.l3)..];
    let end = headers.ip_len().min(bytes.len());
    let bytes = &mut bytes[..end];
    let is_done = match (came, there) {
        (Tuple::V4(old), Tuple::V4(new)) => {
            weft_wire::translate_v4(bytes, upper, old.parts(), new.parts())
        }
        (Tuple::V6(old), Tuple::V6(new)) => {
            weft_wire::translate_v6(bytes, upper, old.parts(), new.parts())
        }
        _ => false,
    };
    if !is_done {
        return Err(DropReason::Truncated);
    }
    (headers.source, headers.destination) = (there.source(), there.destination());
    headers.ports = there.ports();
    Ok(())
}
