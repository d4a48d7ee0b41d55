//! What:   what a network card would do: segments TCP towards the wire and merges it towards local stacks,
//!         completes transport checksums the receiver cannot, cuts IPv4 packets into fragments, fills the outer
//!         checksum of IPv6 tunnels; gives the packet its port.
//! Reads:  `egress`, `uplink`, `cut_to`, `checksum`, `outer_len`, `tunnel`, port (what it takes).
//! Writes: frames, `checksum`, `gso`, `verdict`; bears segments and fragments. The only stage that takes frames
//!         from the pool for a packet's bytes.
//! Drops:  packets that need more frames or pieces than there are.
//! Order:  last. Inner checksum, then cutting, then the outer checksum, which covers both; merging when every
//!         packet of the batch is decided.

mod fragmentation;
mod gro;
mod gso;

use std::net::{IpAddr, Ipv6Addr};

use weft_wire::{EthernetHeader, Ipv6Header, Protocol, UdpHeader, checksum};

use crate::chain;
use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::encap::vxlan;
use crate::packet::{Checksum, Egress, Packet, PortId, Verdict};
use crate::pipeline::Context;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(Stage::Offload, packets, context, finish);
    gro::merge(packets, context);
}

#[inline]
fn finish(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let port = match packet.egress {
        Egress::Local(port) | Egress::Host { port, .. } => port,
        Egress::Outside(next_hop) => next_hop.port,
        Egress::Remote(_) => packet.uplink,
        Egress::Unknown => return Err(DropReason::PortGone),
    };
    packet.verdict = Verdict::Tx(port);
    if packet.is_gso_candidate()
        && let Some(size) = gso::size(packet, context)
    {
        return gso::segment(packet, port, size, context);
    }
    if let Checksum::Partial { start, offset } = packet.checksum
        && !leaves_partial(packet, port, context)
    {
        complete(packet, start, offset, context);
    }
    if let Some(mtu) = packet.cut_to {
        fragmentation::cut(packet, mtu as usize, context)?;
    }
    seal(packet, context);
    Ok(())
}

/// Whether the receiving stack finishes the checksum: a local one, by a port that can tell it to.
#[inline]
fn leaves_partial(packet: &Packet, port: PortId, context: &Context<'_>) -> bool {
    packet.outer_len == 0
        && packet.cut_to.is_none()
        && !matches!(packet.egress, Egress::Outside(_))
        && context
            .tables
            .port(port)
            .is_some_and(|port| port.tx_checksum)
}

/// Adds header and payload to the pseudo-header's sum the field holds.
fn complete(packet: &mut Packet, start: u16, offset: u16, context: &mut Context<'_>) {
    let from = usize::from(packet.outer_len) + usize::from(start);
    let to = usize::from(packet.outer_len) + packet.headers.end as usize;
    let sum = chain::sum(context.umem, &packet.frames, from, to, 0);
    let value = match packet.headers.protocol {
        Protocol::UDP => checksum::finish_udp(sum),
        _ => checksum::finish(sum),
    };
    put_u16(packet, from + usize::from(offset), value, context);
    packet.checksum = Checksum::None;
}

/// Writes a field of a header, which is in the first frame.
fn put_u16(packet: &mut Packet, at: usize, value: u16, context: &Context<'_>) {
    if let Some(first) = packet.frames.first_mut()
        && let Some(field) = context.umem.bytes_mut(first).get_mut(at..at + 2)
    {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// RFC 8200 section 8.1 wants a checksum for UDP over IPv6; over IPv4 the tunnel's is zero (RFC 7348
/// section 5).
#[inline(always)]
pub(super) fn seal(packet: &mut Packet, context: &mut Context<'_>) {
    if usize::from(packet.outer_len) == OUTER_V6_LEN {
        fill_outer_checksum(packet, context);
    }
}

fn fill_outer_checksum(packet: &mut Packet, context: &mut Context<'_>) {
    let Some(first) = packet.frames.first() else {
        return;
    };
    let bytes = context.umem.bytes(first);
    let (l3, l4) = (EthernetHeader::LEN, EthernetHeader::LEN + Ipv6Header::LEN);
    let Ok((ip, _)) = Ipv6Header::parse(&bytes[l3..]) else {
        return;
    };
    let end = l3 + ip.total_len();
    let seed = ip.pseudo_sum(Protocol::UDP, u32::from(ip.payload_len()));
    let value = checksum::finish_udp(chain::sum(context.umem, &packet.frames, l4, end, seed));
    put_u16(packet, l4 + UdpHeader::CHECKSUM_AT, value, context);
}

/// Bytes in front of the inner frame that say the tunnel runs over IPv6.
pub(super) const OUTER_V6_LEN: usize = vxlan::front_len(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
