//! TCP resets for both ends of a connection that may no longer be.

use std::net::IpAddr;

use weft_wire::checksum;
use weft_wire::{EtherType, EthernetHeader, Ipv4Header, Ipv6Header, MacAddr};
use weft_wire::{Protocol, TcpFlags, TcpHeader};
use zerocopy::IntoBytes;

use crate::outside;
use crate::packet::{Origin, Packet, Translation};
use crate::pipeline::Context;
use crate::stage::parse;

/// Longest reset: Ethernet, IPv6 and TCP.
const RESET_MAX: usize = EthernetHeader::LEN + Ipv6Header::LEN + TcpHeader::LEN;

/// One reset.
struct Reset {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    sequence: u32,
    /// Absent without ACK.
    acknowledgement: Option<u32>,
}

/// Bears a reset for the sender and one for the receiver of a TCP segment that is dropped. A receiver believes a
/// reset with exactly the sequence number it expects next (RFC 9293 section 3.5.2, RFC 5961 section 3.2): the
/// segment's own for its receiver, since the segment will not arrive; what the segment acknowledges for its sender.
#[cold]
#[inline(never)]
pub(crate) fn both_ends(packet: &Packet, context: &mut Context<'_>) {
    if packet.headers.protocol != Protocol::TCP || packet.origin != Origin::Received {
        return;
    }
    for reset in resets(packet, context).into_iter().flatten() {
        if context.room() == 0 {
            return;
        }
        if let Some(built) = build(packet, &reset, context) {
            context.bear(built);
        }
    }
}

/// Bears a reset for the sender of a TCP segment that nobody takes (RFC 9293 section 3.10.7.1), as often as ICMP errors
/// may be sent.
#[cold]
#[inline(never)]
pub(crate) fn refuse(packet: &Packet, context: &mut Context<'_>) {
    if packet.headers.tcp_flags.intersects(TcpFlags::RST) || context.room() == 0 {
        return;
    }
    if !context.icmp.take(packet.rx, context.now_ns) {
        context.counters.icmp_limited += 1;
        return;
    }
    let [_, to_sender] = resets(packet, context);
    if let Some(built) = to_sender.and_then(|reset| build(packet, &reset, context)) {
        context.bear(built);
    }
}

fn resets(packet: &Packet, context: &Context<'_>) -> [Option<Reset>; 2] {
    let headers = &packet.headers;
    let upper = packet.frames.first().and_then(|first| {
        let bytes = context.umem.bytes(first);
        TcpHeader::parse(bytes.get(usize::from(headers.l4)..)?).ok()
    });
    let Some((tcp, tcp_len)) = upper else {
        return [None, None];
    };
    let (flags, sequence) = (tcp.flags(), tcp.sequence());
    let acknowledges = flags.contains(TcpFlags::ACK);
    let counts = |flag| u32::from(flags.intersects(flag));
    let behind = sequence
        .wrapping_add(headers.l4_len().saturating_sub(tcp_len) as u32)
        .wrapping_add(counts(TcpFlags::SYN) + counts(TcpFlags::FIN));
    let to_receiver = Reset {
        from: (headers.source, headers.ports.0),
        to: (headers.destination, headers.ports.1),
        sequence,
        acknowledgement: acknowledges.then(|| tcp.acknowledgement()),
    };
    // The sender knows the connection by what it sent.
    let (sender, receiver) = match packet.translation {
        None => (to_receiver.from, to_receiver.to),
        Some(Translation { came, .. }) => {
            let (from, to) = came.ports();
            ((came.source(), from), (came.destination(), to))
        }
    };
    let to_sender = Reset {
        from: receiver,
        to: sender,
        // Without ACK nothing is known of what the sender expects (RFC 9293 section 3.10.7.1).
        sequence: if acknowledges {
            tcp.acknowledgement()
        } else {
            0
        },
        acknowledgement: Some(behind),
    };
    // Who sends a reset has no connection any more.
    let ended = flags.intersects(TcpFlags::RST);
    [Some(to_receiver), (!ended).then_some(to_sender)]
}

fn build(cause: &Packet, reset: &Reset, context: &mut Context<'_>) -> Option<Packet> {
    let mut frame = context.pool.alloc()?;
    let mut built = Packet {
        rx: cause.rx,
        rx_kind: cause.rx_kind,
        origin: Origin::Built,
        next_hop: outside::next_hop_of_built(cause, reset.to.0, context),
        ..Packet::default()
    };
    let sized = frame.set_len(RESET_MAX).is_ok();
    let len = write(reset, context.umem.bytes_mut(&mut frame));
    let fits = len.is_some_and(|len| frame.set_len(len).is_ok());
    built.frames.push(frame);
    if sized && fits && parse::headers(&mut built, context.umem, context.pool).is_ok() {
        return Some(built);
    }
    context.pool.free_chain(&mut built.frames);
    None
}

/// Writes the frame, but for the MAC addresses, which `rewrite` knows; returns its length.
fn write(reset: &Reset, out: &mut [u8]) -> Option<usize> {
    let flags = match reset.acknowledgement {
        Some(_) => TcpFlags::RST | TcpFlags::ACK,
        None => TcpFlags::RST,
    };
    let mut tcp = TcpHeader::new(reset.from.1, reset.to.1, flags);
    tcp.set_sequence(reset.sequence);
    tcp.set_acknowledgement(reset.acknowledgement.unwrap_or(0));
    tcp.set_window(0);
    const LEN: u16 = TcpHeader::LEN as u16;
    let ethernet = |kind| EthernetHeader::new(MacAddr::ZERO, MacAddr::ZERO, kind);
    match (reset.from.0, reset.to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = Ipv4Header::new(from, to, Protocol::TCP, LEN);
            ip.fill_checksum();
            let pseudo = checksum::pseudo_v4(from, to, Protocol::TCP, LEN);
            tcp.set_checksum(checksum::finish(pseudo + checksum::sum(tcp.as_bytes())));
            put(
                out,
                [
                    ethernet(EtherType::IPV4).as_bytes(),
                    ip.as_bytes(),
                    tcp.as_bytes(),
                ],
            )
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header::new(from, to, Protocol::TCP, LEN);
            let pseudo = checksum::pseudo_v6(from, to, Protocol::TCP, LEN.into());
            tcp.set_checksum(checksum::finish(pseudo + checksum::sum(tcp.as_bytes())));
            put(
                out,
                [
                    ethernet(EtherType::IPV6).as_bytes(),
                    ip.as_bytes(),
                    tcp.as_bytes(),
                ],
            )
        }
        _ => None,
    }
}

fn put(out: &mut [u8], parts: [&[u8]; 3]) -> Option<usize> {
    let mut at = 0;
    for part in parts {
        out.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(at)
}
