//! Generic segmentation offload: a TCP packet of up to 64 KiB becomes segments of the path's size (as
//! tcp_gso_segment in net/ipv4/tcp_offload.c), or says to a local stack how large its segments are.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use weft_wire::checksum::Accumulator;
use weft_wire::{
    EthernetHeader, Ipv4Header, Ipv6Header, Protocol, TcpFlags, TcpHeader, checksum, ipv4,
};
use weft_xsk::{FrameChain, Gso, GsoKind};

use super::{OUTER_V6_LEN, seal};
use crate::chain::{self, Writer};
use crate::drop_reason::DropReason;
use crate::encap::vxlan;
use crate::packet::{Checksum, Network, Origin, Packet, PortId};
use crate::pipeline::Context;

/// Outer headers, Ethernet, IPv4 with options or IPv6 with some extensions, TCP with options.
const HEADERS_MAX: usize = OUTER_V6_LEN + EthernetHeader::LEN + 120 + TcpHeader::MAX_LEN;

/// How a packet is segmented.
struct Plan {
    /// All headers, outer ones included.
    headers: ArrayVec<u8, HEADERS_MAX>,
    /// Start of the IP header.
    l3: usize,
    /// Start of the TCP header.
    l4: usize,
    /// End of the packet.
    end: usize,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Sum of the pseudo-header without the length.
    pseudo: u32,
}

/// One segment: its place in the packet's payload.
#[derive(Clone, Copy)]
struct Segment {
    index: usize,
    from: usize,
    to: usize,
}

/// Segments a packet whose transport checksum is partial for `port`, or tells the port's stack how to.
pub(super) fn segment(
    packet: &mut Packet,
    port: PortId,
    size: usize,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let plan = plan(packet, size, context)?;
    if packet.outer_len == 0 && context.tables.port(port).is_some_and(|port| port.gso) {
        packet.gso = Some(Gso {
            kind: kind(packet.headers.network),
            header_len: plan.headers.len() as u16,
            size: plan.size as u16,
        });
        return Ok(());
    }
    let payload = plan.end - plan.headers.len();
    if context.room() < payload.div_ceil(plan.size) {
        return Err(DropReason::BurstFull);
    }
    let mark = context.mark();
    let mut from = plan.headers.len() + plan.size;
    let mut index = 1;
    while from < plan.end {
        let to = (from + plan.size).min(plan.end);
        let segment = Segment { index, from, to };
        let Some(piece) = copy(packet, &plan, segment, context) else {
            context.unbear(mark);
            return Err(DropReason::NoFrame);
        };
        context.bear(piece);
        (index, from) = (index + 1, to);
    }
    packet.pieces = context.born_since(mark);
    shorten(packet, &plan, context);
    Ok(())
}

/// What the segments of a packet of this network protocol are.
pub(super) fn kind(network: Network) -> GsoKind {
    match network {
        Network::V4 => GsoKind::TcpV4,
        _ => GsoKind::TcpV6,
    }
}

/// Smallest MSS a sender obeys: `TCP_MIN_SND_MSS` (include/net/tcp.h), 40 bytes of options and 8 of payload. A
/// receiver that announces less would have every packet cut into thousands.
const MSS_MIN: usize = 48;

/// IP packets up to this long are left whole without a look: no receiver can want less. A larger bound saves a look
/// at the connection, but cuts off receivers behind a narrow link: nobody can make our segments smaller.
const SURELY_ONE: usize = Ipv4Header::LEN + TcpHeader::LEN + MSS_MIN;

/// Payload bytes of each segment, when the packet has more than one can hold: what the path takes and what the
/// receiver announced in its SYN, which counts options as payload (RFC 6691).
#[inline]
pub(super) fn size(packet: &Packet, context: &Context<'_>) -> Option<usize> {
    let headers = &packet.headers;
    if headers.ip_len() <= SURELY_ONE && packet.cut_to.is_none() {
        return None;
    }
    let l4 = usize::from(packet.outer_len) + usize::from(headers.l4);
    let bytes = context.umem.bytes(packet.frames.first()?);
    let (_, tcp_len) = TcpHeader::parse(bytes.get(l4..)?).ok()?;
    let by_path = packet
        .cut_to
        .map(|mtu| (mtu as usize).saturating_sub(headers.ip_len() - headers.l4_len() + tcp_len));
    let announced = packet.mss_towards(context.flows).map(usize::from);
    let by_receiver = announced.map(|mss| mss.max(MSS_MIN) + TcpHeader::LEN - tcp_len);
    let size = by_path
        .unwrap_or(usize::MAX)
        .min(by_receiver.unwrap_or(usize::MAX));
    (headers.l4_len() > size.saturating_add(tcp_len)).then_some(size)
}

fn plan(packet: &Packet, size: usize, context: &Context<'_>) -> Result<Plan, DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes(first);
    let outer_len = usize::from(packet.outer_len);
    let (l3, l4) = (
        outer_len + usize::from(packet.headers.l3),
        outer_len + usize::from(packet.headers.l4),
    );
    let (_, tcp_len) =
        TcpHeader::parse(&bytes[l4..]).map_err(|_| DropReason::TransportMalformed)?;
    let front = bytes.get(..l4 + tcp_len).ok_or(DropReason::HeadersSplit)?;
    let headers = ArrayVec::try_from(front).map_err(|_| DropReason::TooBig)?;
    let end = outer_len + packet.headers.end as usize;
    if size == 0 || end <= headers.len() {
        return Err(DropReason::TooBig);
    }
    let pseudo = match (packet.headers.source, packet.headers.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => checksum::pseudo_v4(from, to, Protocol::TCP, 0),
        (IpAddr::V6(from), IpAddr::V6(to)) => checksum::pseudo_v6(from, to, Protocol::TCP, 0),
        _ => return Err(DropReason::Truncated),
    };
    Ok(Plan {
        headers,
        l3,
        l4,
        end,
        size,
        pseudo,
    })
}

/// A later segment in frames of its own. Payload is copied while its sum is taken.
fn copy(
    packet: &Packet,
    plan: &Plan,
    segment: Segment,
    context: &mut Context<'_>,
) -> Option<Packet> {
    let umem = context.umem;
    let mut sum = Accumulator::new();
    let mut writer = Writer {
        umem,
        pool: context.pool,
        chain: FrameChain::new(),
    };
    let mut whole = writer.put(&plan.headers);
    chain::for_range(umem, &packet.frames, segment.from, segment.to, |bytes| {
        sum.add(bytes);
        whole = whole && writer.put(bytes);
    });
    let mut piece = Packet {
        frames: writer.chain,
        rx: packet.rx,
        rx_kind: packet.rx_kind,
        origin: Origin::Cut,
        verdict: packet.verdict,
        outer_len: packet.outer_len,
        tunnel_flow: packet.tunnel_flow,
        ..Packet::default()
    };
    if !whole {
        context.pool.free_chain(&mut piece.frames);
        return None;
    }
    finish(&mut piece, plan, segment, sum.sum(), context);
    Some(piece)
}

/// The packet's own head becomes the first segment.
fn shorten(packet: &mut Packet, plan: &Plan, context: &mut Context<'_>) {
    let from = plan.headers.len();
    let to = (from + plan.size).min(plan.end);
    let sum = chain::sum(context.umem, &packet.frames, from, to, 0);
    chain::trim(&mut packet.frames, to, context.pool);
    packet.headers.end = to as u32 - u32::from(packet.outer_len);
    packet.checksum = Checksum::None;
    let segment = Segment { index: 0, from, to };
    finish(packet, plan, segment, sum, context);
}

/// Writes a segment's own lengths, identification, sequence number, flags and checksums.
fn finish(
    piece: &mut Packet,
    plan: &Plan,
    segment: Segment,
    payload_sum: u32,
    context: &mut Context<'_>,
) {
    let Some(first) = piece.frames.first_mut() else {
        return;
    };
    let bytes = context.umem.bytes_mut(first);
    let ip_len = plan.headers.len() - plan.l3 + segment.to - segment.from;
    let tcp_len = plan.headers.len() - plan.l4;
    finish_ip(&mut bytes[plan.l3..], ip_len, segment.index);
    if let Ok((tcp, _)) = TcpHeader::parse_mut(&mut bytes[plan.l4..]) {
        tcp.set_sequence(
            tcp.sequence()
                .wrapping_add((segment.index * plan.size) as u32),
        );
        tcp.set_flags(flags_of(
            tcp.flags(),
            segment.index == 0,
            segment.to == plan.end,
        ));
        move_urgent(tcp, segment.from - plan.headers.len());
        tcp.set_checksum(0);
        let l4_len = (tcp_len + segment.to - segment.from) as u32;
        let header_sum = checksum::sum(&bytes[plan.l4..plan.headers.len()]);
        let sum = u64::from(plan.pseudo)
            + u64::from(header_sum)
            + u64::from(checksum::fold(payload_sum))
            + u64::from(l4_len);
        let value = checksum::finish(sum as u32);
        if let Ok((tcp, _)) = TcpHeader::parse_mut(&mut bytes[plan.l4..]) {
            tcp.set_checksum(value);
        }
    }
    if piece.outer_len > 0 {
        *context.ip_id = context.ip_id.wrapping_add(1);
        let inner_len = plan.l3 - usize::from(piece.outer_len) + ip_len;
        vxlan::resize(bytes, inner_len, *context.ip_id);
    }
    seal(piece, context);
}

/// Length; for IPv4 also identification, which counts up so that fragments of two segments cannot be mistaken for
/// each other (RFC 6864 section 4.1 asks for it only where a segment may be fragmented).
fn finish_ip(packet: &mut [u8], ip_len: usize, index: usize) {
    if packet.first().is_some_and(|byte| byte >> 4 == 4) {
        if let Ok((ip, _)) = Ipv4Header::parse_mut(packet) {
            ip.set_total_len(ip_len as u16);
            ip.set_identification(ip.identification().wrapping_add(index as u16));
        }
        let filled = ipv4::fill_checksum(packet).is_ok();
        debug_assert!(filled, "the header was parsed before");
    } else if let Ok((ip, _)) = Ipv6Header::parse_mut(packet) {
        ip.set_payload_len((ip_len - Ipv6Header::LEN) as u16);
    }
}

/// FIN and PSH belong to the last byte; CWR answers one ECN mark and is said once (RFC 3168 section 6.1.2).
fn flags_of(flags: TcpFlags, first: bool, last: bool) -> TcpFlags {
    let mut bits = flags.0;
    if !last {
        bits &= !(TcpFlags::FIN.0 | TcpFlags::PSH.0);
    }
    if !first {
        bits &= !TcpFlags::CWR.0;
    }
    TcpFlags(bits)
}

/// The urgent pointer counts from the segment's sequence number, and says nothing about segments behind the urgent
/// data. Linux sends urgent data in segments of their own (tcp_write_xmit in net/ipv4/tcp_output.c); others need not.
#[inline]
fn move_urgent(tcp: &mut TcpHeader, offset: usize) {
    if offset == 0 || !tcp.flags().contains(TcpFlags::URG) {
        return;
    }
    let urgent = usize::from(tcp.urgent()).checked_sub(offset);
    if urgent.is_none() {
        tcp.set_flags(TcpFlags(tcp.flags().0 & !TcpFlags::URG.0));
    }
    tcp.set_urgent(urgent.unwrap_or(0) as u16);
}
