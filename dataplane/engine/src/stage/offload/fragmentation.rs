//! Fragmentation of IPv4 packets (RFC 791 section 3.2), behind the tunnel's headers where there are some.

use arrayvec::ArrayVec;
use weft_wire::ipv4::{self, Ipv4Options};
use weft_wire::{EthernetHeader, Fragment, Ipv4Header};
use zerocopy::IntoBytes;

use super::{OUTER_V6_LEN, seal};
use crate::chain::{self, Writer};
use crate::drop_reason::DropReason;
use crate::encap::vxlan;
use crate::packet::{Origin, Packet};
use crate::pipeline::Context;

/// What all fragments of a packet have in common.
struct Cutting {
    /// Bytes in front of the IP header.
    l3: usize,
    /// Length of the original's IP header.
    header_len: usize,
    /// Payload bytes of each fragment but the last, a multiple of 8.
    step: usize,
    /// End of the packet.
    end: usize,
    /// Place of the packet in its datagram, when it is a fragment itself.
    base: Fragment,
    /// Outer and Ethernet headers, and the IP header of fragments that are not the first.
    front: ArrayVec<u8, FRONT_MAX>,
}

/// Outer headers, Ethernet, IPv4 with options.
const FRONT_MAX: usize = OUTER_V6_LEN + EthernetHeader::LEN + Ipv4Header::MAX_LEN;

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes (RFC 791 section 3.2). The packet itself becomes
/// the first one; the others are born.
#[cold]
pub(super) fn cut(
    packet: &mut Packet,
    mtu: usize,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let cutting = plan(packet, mtu, context)?;
    let mut at = cutting.l3 + cutting.header_len + cutting.step;
    let pieces = (cutting.end - at).div_ceil(cutting.step);
    if context.room() < pieces {
        return Err(DropReason::BurstFull);
    }
    let born_at = context.mark();
    while at < cutting.end {
        let Some(mut piece) = copy_piece(packet, &cutting, at, context) else {
            context.unbear(born_at);
            return Err(DropReason::NoFrame);
        };
        seal(&mut piece, context);
        context.bear(piece);
        at += cutting.step;
    }
    packet.pieces = context.born_since(born_at);
    shorten_first(packet, &cutting, context);
    Ok(())
}

fn plan(packet: &Packet, mtu: usize, context: &Context<'_>) -> Result<Cutting, DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes(first);
    let outer_len = usize::from(packet.outer_len);
    let l3 = outer_len + usize::from(packet.headers.l3);
    let (ip, header_len) = Ipv4Header::parse(&bytes[l3..]).map_err(|_| DropReason::Truncated)?;
    let step = mtu.saturating_sub(header_len) & !7;
    if step == 0 {
        return Err(DropReason::TooBig);
    }
    let whole = Fragment {
        offset: 0,
        more: false,
        identification: 0,
    };
    let mut front = ArrayVec::new();
    let copied = front.try_extend_from_slice(&bytes[..l3]).is_ok()
        && push_later_header(&mut front, &bytes[l3..], ip);
    if !copied {
        return Err(DropReason::TooBig);
    }
    Ok(Cutting {
        l3,
        header_len,
        step,
        end: outer_len + packet.headers.end as usize,
        base: ip.fragment().unwrap_or(whole),
        front,
    })
}

/// Only options with the copied flag are in later fragments (RFC 791 section 3.1).
fn push_later_header(front: &mut ArrayVec<u8, FRONT_MAX>, packet: &[u8], ip: &Ipv4Header) -> bool {
    let start = front.len();
    let mut fits = front.try_extend_from_slice(ip.as_bytes()).is_ok();
    let options = Ipv4Options::of(packet).into_iter().flatten().flatten();
    for option in options.filter(|option| option.is_copied()) {
        let len = option.data.len() as u8 + 2;
        fits &= front.try_extend_from_slice(&[option.kind, len]).is_ok();
        fits &= front.try_extend_from_slice(option.data).is_ok();
    }
    while (front.len() - start) % 4 != 0 && fits {
        fits = front.try_push(ipv4::Ipv4Option::END).is_ok();
    }
    let words = (front.len() - start) / 4;
    front[start] = 0x40 | words as u8;
    fits
}

/// The fragment that begins with the byte `at` of the packet.
fn copy_piece(
    packet: &Packet,
    cutting: &Cutting,
    at: usize,
    context: &mut Context<'_>,
) -> Option<Packet> {
    let to = (at + cutting.step).min(cutting.end);
    let umem = context.umem;
    let mut writer = Writer {
        umem,
        pool: context.pool,
        chain: weft_xsk::FrameChain::new(),
    };
    let mut whole = writer.put(&cutting.front);
    chain::for_range(umem, &packet.frames, at, to, |bytes| {
        whole = whole && writer.put(bytes);
    });
    let mut piece = Packet {
        frames: writer.chain,
        rx: packet.rx,
        rx_kind: packet.rx_kind,
        origin: Origin::Cut,
        verdict: packet.verdict,
        outer_len: packet.outer_len,
        ..Packet::default()
    };
    if !whole {
        context.pool.free_chain(&mut piece.frames);
        return None;
    }
    let offset = at - cutting.l3 - cutting.header_len;
    let more = to < cutting.end || cutting.base.more;
    let ip_len = cutting.front.len() - cutting.l3 + (to - at);
    finish_piece(&mut piece, cutting, (offset, more), ip_len, context);
    Some(piece)
}

/// The packet's own head becomes the first fragment, with all options.
fn shorten_first(packet: &mut Packet, cutting: &Cutting, context: &mut Context<'_>) {
    let ip_len = cutting.header_len + cutting.step;
    chain::trim(&mut packet.frames, cutting.l3 + ip_len, context.pool);
    packet.headers.end = u32::from(packet.headers.l3) + ip_len as u32;
    finish_piece(packet, cutting, (0, true), ip_len, context);
}

/// Writes a fragment's place and length into its headers, outer ones included.
fn finish_piece(
    piece: &mut Packet,
    cutting: &Cutting,
    (offset, more): (usize, bool),
    ip_len: usize,
    context: &mut Context<'_>,
) {
    let Some(first) = piece.frames.first_mut() else {
        return;
    };
    let bytes = context.umem.bytes_mut(first);
    if let Ok((ip, _)) = Ipv4Header::parse_mut(&mut bytes[cutting.l3..]) {
        ip.set_fragment(cutting.base.offset + offset as u16, more);
        ip.set_total_len(ip_len as u16);
    }
    let filled = ipv4::fill_checksum(&mut bytes[cutting.l3..]).is_ok();
    debug_assert!(filled, "the header was parsed before");
    if piece.outer_len > 0 {
        *context.ip_id = context.ip_id.wrapping_add(1);
        vxlan::resize(bytes, EthernetHeader::LEN + ip_len, *context.ip_id);
    }
}
