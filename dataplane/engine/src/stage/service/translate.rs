//! Other addresses and ports in a packet's bytes and headers.

use std::net::IpAddr;

use weft_wire::{Ends, Protocol, UpperPart};

use crate::drop_reason::DropReason;
use crate::packet::{Packet, Translation};
use crate::pipeline::Context;
use crate::table::flow::Tuple;

/// Gives the packet the addresses and ports `there`, and takes down what it came with.
#[inline]
pub(super) fn translate(
    packet: &mut Packet,
    there: Tuple,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let came = Tuple::new(headers.source, headers.destination, headers.ports);
    rewrite(packet, there, context)?;
    if packet.translation.is_none() {
        packet.translation = came.map(|came| Translation { came, chosen: None });
    }
    Ok(())
}

/// Makes a packet what it was, for whom it came from: an error quotes what its sender sent.
pub(crate) fn restore(packet: &mut Packet, context: &mut Context<'_>) {
    if let Some(translation) = packet.translation.take() {
        // What could be done can be undone.
        let _ = rewrite(packet, translation.came, context);
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

#[inline]
fn rewrite(packet: &mut Packet, there: Tuple, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &mut packet.headers;
    let old = Ends {
        source: headers.source,
        destination: headers.destination,
        ports: headers.ports,
    };
    let new = Ends {
        source: there.source(),
        destination: there.destination(),
        ports: there.ports(),
    };
    let upper = headers.has_upper_header().then(|| UpperPart {
        protocol: headers.protocol,
        at: usize::from(headers.l4 - headers.l3),
        len: headers.l4_len(),
        field: packet.checksum.field(),
    });
    if headers.protocol == Protocol::SCTP
        && upper.is_some()
        && headers.fragment.is_some()
        && old.ports != new.ports
    {
        return Err(DropReason::SctpFragment);
    }
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = &mut context.umem.bytes_mut(first)[usize::from(headers.l3)..];
    let end = headers.ip_len().min(bytes.len());
    if !weft_wire::translate(&mut bytes[..end], upper, &old, &new) {
        return Err(DropReason::Truncated);
    }
    (headers.source, headers.destination) = (new.source, new.destination);
    headers.ports = new.ports;
    Ok(())
}
