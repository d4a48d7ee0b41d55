//! Generic receive offload: segments of a connection that came from the wire in one batch, in order and alike,
//! go to a local stack as one packet with its `gso_size` (as tcp_gro_receive in net/ipv4/tcp_offload.c).
//! No byte is copied: the payload's frames are chained behind the first segment's.

use arrayvec::ArrayVec;
use weft_wire::{Ipv4Header, Ipv6Header, Protocol, TcpFlags, TcpHeader, checksum, ipv4};
use weft_xsk::{CHAIN_MAX, Gso};

use super::gso;
use crate::chain;
use crate::packet::{Checksum, Egress, Network, Packet, Verdict};
use crate::pipeline::Context;
use crate::stage::parse;

/// Connections merged at once. A batch of 64 packets seldom holds more; the others' packets pass one by one.
const OPEN_MAX: usize = 8;

/// Largest IP packet made.
const IP_LEN_MAX: usize = 65_535;

/// "Don't fragment" in the first byte of IPv4's flags (RFC 791 section 3.1).
const DONT_FRAGMENT: u8 = 0x40;

/// A packet that may grow.
struct Open {
    /// Its place in the batch.
    index: usize,
    /// Sequence number the next segment must have.
    next: u32,
    /// Payload bytes of its segments.
    size: usize,
    /// Bytes of Ethernet, IP and TCP headers.
    header_len: usize,
    /// Segments in it.
    segments: usize,
    /// The last segment pushes.
    push: bool,
}

/// Merges what can be merged in the batch.
pub(super) fn merge(packets: &mut [Packet], context: &mut Context<'_>) {
    if packets.len() < 2 || !packets.iter().any(is_from_wire) {
        return;
    }
    let mut open: ArrayVec<Open, OPEN_MAX> = ArrayVec::new();
    for index in 0..packets.len() {
        if packets[index].headers.protocol != Protocol::TCP {
            continue;
        }
        let place = open
            .iter()
            .position(|open| same_connection(&packets[open.index], &packets[index]));
        let candidate = candidate(packets, index, context);
        match (place, candidate) {
            (Some(at), Some(new)) if joins(packets, &open[at], &new, context) => {
                if join(packets, &mut open[at], &new, context) {
                    finish(packets, open.swap_remove(at), context);
                }
            }
            (place, candidate) => {
                // Whatever does not fit ends the row, so that nothing overtakes it.
                if let Some(at) = place {
                    finish(packets, open.swap_remove(at), context);
                }
                if let Some(new) = candidate.filter(|new| !new.push && !open.is_full()) {
                    open.push(new);
                }
            }
        }
    }
    for open in open {
        finish(packets, open, context);
    }
}

#[inline]
fn is_from_wire(packet: &Packet) -> bool {
    packet.tunnel.is_some() || packet.outside.is_some()
}

#[inline]
fn same_connection(a: &Packet, b: &Packet) -> bool {
    let (a, b) = (&a.headers, &b.headers);
    a.ports == b.ports && a.source == b.source && a.destination == b.destination
}

/// The packet as the first of a row, if it can be in one.
#[inline]
fn candidate(packets: &[Packet], index: usize, context: &Context<'_>) -> Option<Open> {
    let packet = &packets[index];
    let port = match (packet.egress, packet.verdict) {
        (Egress::Local(port) | Egress::Host { port, own: true }, Verdict::Tx(_)) => port,
        _ => return None,
    };
    let headers = &packet.headers;
    let plain = headers.fragment.is_none()
        && is_from_wire(packet)
        && packet.checksum == Checksum::None
        && usize::from(headers.l4 - headers.l3) == ip_header_len(headers.network);
    let extra = headers.tcp_flags.0 & !(TcpFlags::ACK.0 | TcpFlags::PSH.0 | TcpFlags::ECE.0);
    if !plain || extra != 0 || !headers.tcp_flags.contains(TcpFlags::ACK) {
        return None;
    }
    if !context.tables.port(port)?.gso {
        return None;
    }
    let bytes = context.umem.bytes(packet.frames.first()?);
    let (tcp, tcp_len) = TcpHeader::parse(&bytes[usize::from(headers.l4)..]).ok()?;
    let header_len = usize::from(headers.l4) + tcp_len;
    let size = (headers.end as usize)
        .checked_sub(header_len)
        .filter(|size| *size > 0)?;
    // A segment in front of which the headers do not end in the first frame is none of ours.
    bytes.get(..header_len)?;
    Some(Open {
        index,
        next: tcp.sequence().wrapping_add(size as u32),
        size,
        header_len,
        segments: 1,
        push: headers.tcp_flags.contains(TcpFlags::PSH),
    })
}

/// Whether the segment `new` continues the row.
fn joins(packets: &[Packet], row: &Open, new: &Open, context: &Context<'_>) -> bool {
    let (first, next) = (&packets[row.index], &packets[new.index]);
    let (Some(a), Some(b)) = (first.frames.first(), next.frames.first()) else {
        return false;
    };
    let (a, b) = (context.umem.bytes(a), context.umem.bytes(b));
    let l4 = usize::from(next.headers.l4);
    let fits = first.frames.len() + next.frames.len() <= CHAIN_MAX
        && first.headers.ip_len() + new.size <= IP_LEN_MAX;
    let continues = row.next == new.next.wrapping_sub(new.size as u32)
        && new.size <= row.size
        && row.header_len == new.header_len
        && first.egress == next.egress;
    fits && continues
        && same_ip(first, row.segments, a, b)
        && same_tcp(&a[l4..row.header_len], &b[l4..row.header_len])
        && intact(first, row, context)
        && intact(next, new, context)
}

/// TOS or class and flow label, "don't fragment", TTL or hop limit. Identifications of packets that may be fragmented
/// must count up, as they will when the packet is segmented again (RFC 6864 section 4.1).
#[inline]
fn same_ip(packet: &Packet, segments: usize, a: &[u8], b: &[u8]) -> bool {
    let l3 = usize::from(packet.headers.l3);
    let (a, b) = (&a[l3..], &b[l3..]);
    match packet.headers.network {
        Network::V4 => {
            let id = |ip: &[u8]| u16::from_be_bytes([ip[4], ip[5]]);
            let counts_up = id(b) == id(a).wrapping_add(segments as u16);
            a[1] == b[1] && a[6] == b[6] && a[8] == b[8] && (a[6] & DONT_FRAGMENT != 0 || counts_up)
        }
        _ => a[..4] == b[..4] && a[7] == b[7],
    }
}

/// Acknowledgement, flags but PSH, window, options: all but sequence number and checksum.
#[inline]
fn same_tcp(a: &[u8], b: &[u8]) -> bool {
    let push = TcpFlags::PSH.0;
    a[8..13] == b[8..13]
        && a[13] | push == b[13] | push
        && a[14..16] == b[14..16]
        && a[TcpHeader::LEN..] == b[TcpHeader::LEN..]
}

/// Whether the checksum the sender gave a segment holds. A row vouches for its segments, since the stack behind
/// the port does not look again. The first one's is looked at when the second comes.
#[inline]
fn intact(packet: &Packet, open: &Open, context: &Context<'_>) -> bool {
    if open.segments > 1 {
        return true;
    }
    let (from, to) = (usize::from(packet.headers.l4), packet.headers.end as usize);
    let seed = parse::pseudo_sum(&packet.headers);
    checksum::is_valid(chain::sum(context.umem, &packet.frames, from, to, seed))
}

/// Appends a segment; true when the row has to end with it.
fn join(packets: &mut [Packet], row: &mut Open, new: &Open, context: &mut Context<'_>) -> bool {
    let mut frames = std::mem::take(&mut packets[new.index].frames);
    packets[new.index].verdict = Verdict::Merged;
    // Its headers are in its first frame.
    let _ = frames[0].shrink_front(new.header_len);
    let target = &mut packets[row.index];
    for frame in frames.drain(..) {
        if frame.is_empty() {
            context.pool.free(frame);
        } else {
            target.frames.push(frame);
        }
    }
    target.headers.end += new.size as u32;
    row.next = new.next;
    row.segments += 1;
    row.push |= new.push;
    new.push || new.size < row.size || target.frames.len() == CHAIN_MAX
}

/// Writes lengths and the partial checksum of a packet that grew.
fn finish(packets: &mut [Packet], row: Open, context: &mut Context<'_>) {
    if row.segments == 1 {
        return;
    }
    let packet = &mut packets[row.index];
    let headers = packet.headers;
    let seed = checksum::fold(parse::pseudo_sum(&headers));
    let Some(first) = packet.frames.first_mut() else {
        return;
    };
    let bytes = context.umem.bytes_mut(first);
    let ip = &mut bytes[usize::from(headers.l3)..];
    match headers.network {
        Network::V4 => {
            if let Ok((ip, _)) = Ipv4Header::parse_mut(ip) {
                ip.set_total_len(headers.ip_len() as u16);
            }
            let filled = ipv4::fill_checksum(ip).is_ok();
            debug_assert!(filled, "the header was parsed before");
        }
        _ => {
            if let Ok((ip, _)) = Ipv6Header::parse_mut(ip) {
                ip.set_payload_len((headers.ip_len() - Ipv6Header::LEN) as u16);
            }
        }
    }
    if let Ok((tcp, _)) = TcpHeader::parse_mut(&mut bytes[usize::from(headers.l4)..]) {
        if row.push {
            tcp.set_flags(tcp.flags().union(TcpFlags::PSH));
        }
        tcp.set_checksum(seed);
    }
    packet.checksum = Checksum::Partial {
        start: headers.l4,
        offset: TcpHeader::CHECKSUM_AT as u16,
    };
    packet.gso = Some(Gso {
        kind: gso::kind(headers.network),
        header_len: row.header_len as u16,
        size: row.size as u16,
    });
}

const fn ip_header_len(network: Network) -> usize {
    match network {
        Network::V4 => Ipv4Header::LEN,
        _ => Ipv6Header::LEN,
    }
}
