//! What routers of the underlay say about the size of our tunnel packets.
//!
//! The tunnel's packets may not be fragmented, so a link on the way that is too small for them answers
//! with ICMP. The uplink's XDP program steers such errors here; what is plausible is reported, and
//! whoever reads the reports lowers the MTU of the path.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use weft_wire::icmp::{v4, v6};
use weft_wire::{IcmpHeader, Ipv4Header, Ipv6Header, Protocol, UdpHeader, checksum};

use crate::chain;
use crate::drop_reason::DropReason;
use crate::encap::vxlan;
use crate::packet::{Packet, Verdict};
use crate::pipeline::Context;

/// Reports kept until they are taken; more paths than that do not change at once, and routers repeat
/// themselves.
pub const REPORTS_MAX: usize = 16;

/// The least outer MTU believed: IPv6's minimum (RFC 8200 section 5). Whoever can forge ICMP could
/// otherwise shrink every tunnel packet to nothing.
const OUTER_MTU_MIN: u32 = 1280;

/// The underlay takes at most `mtu` bytes on its way to `vtep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmtuReport {
    /// The remote tunnel endpoint.
    pub vtep: IpAddr,
    /// Largest outer IP packet, in bytes.
    pub mtu: u32,
}

pub(crate) struct PmtuReports(ArrayVec<PmtuReport, REPORTS_MAX>);

impl PmtuReports {
    pub(crate) fn new() -> Self {
        Self(ArrayVec::new())
    }

    pub(crate) fn take(&mut self) -> ArrayVec<PmtuReport, REPORTS_MAX> {
        std::mem::take(&mut self.0)
    }

    fn note(&mut self, report: PmtuReport) {
        match self.0.iter_mut().find(|known| known.vtep == report.vtep) {
            Some(known) => known.mtu = known.mtu.min(report.mtu),
            // Full: the router will say it again.
            None => drop(self.0.try_push(report)),
        }
    }
}

/// Takes an ICMP packet that came by an uplink for this node.
pub(crate) fn inspect(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let report = read(packet, context)?;
    context.pmtu.note(report);
    context.pool.free_chain(&mut packet.frames);
    packet.verdict = Verdict::Consumed;
    Ok(())
}

fn read(packet: &Packet, context: &Context<'_>) -> Result<PmtuReport, DropReason> {
    const UNEXPECTED: DropReason = DropReason::UnderlayUnexpected;
    let headers = &packet.headers;
    let (from, to) = (usize::from(headers.l4), headers.end as usize);
    let first = packet.frames.first().ok_or(UNEXPECTED)?;
    let bytes = context.umem.bytes(first);
    let message = bytes.get(from..to.min(bytes.len())).ok_or(UNEXPECTED)?;
    let (icmp, quote_at) = IcmpHeader::parse(message).map_err(|_| UNEXPECTED)?;
    let quote = &message[quote_at..];
    let (seed, mtu, quoted) = match headers.source {
        IpAddr::V4(_)
            if (icmp.kind(), icmp.code()) == (v4::UNREACHABLE, v4::CODE_FRAGMENTATION_NEEDED) =>
        {
            (0, u32::from(icmp.mtu_v4()), quoted_v4(quote))
        }
        IpAddr::V6(_) if icmp.kind() == v6::PACKET_TOO_BIG => {
            let (ip, _) =
                Ipv6Header::parse(&bytes[usize::from(headers.l3)..]).map_err(|_| UNEXPECTED)?;
            (
                ip.pseudo_sum(Protocol::ICMPV6, headers.l4_len() as u32),
                icmp.mtu_v6(),
                quoted_v6(quote),
            )
        }
        _ => return Err(UNEXPECTED),
    };
    if !checksum::is_valid(chain::sum(context.umem, &packet.frames, from, to, seed)) {
        return Err(UNEXPECTED);
    }
    let (source, vtep, port) = quoted.ok_or(UNEXPECTED)?;
    if port != context.node.vxlan_port || !context.node.addresses.contains(&source) {
        return Err(UNEXPECTED);
    }
    believe(PmtuReport { vtep, mtu }, context)
}

/// Only a known path, only down, and not too far.
fn believe(report: PmtuReport, context: &Context<'_>) -> Result<PmtuReport, DropReason> {
    let remote = context
        .tables
        .remote_by_address(report.vtep)
        .and_then(|id| context.tables.remote(id));
    let remote = remote.ok_or(DropReason::PmtuImplausible)?;
    let current = remote.inner_mtu + vxlan::overhead(remote.vtep);
    if report.mtu < OUTER_MTU_MIN || report.mtu >= current {
        return Err(DropReason::PmtuImplausible);
    }
    Ok(report)
}

/// Source, destination and UDP destination port of a quoted packet.
fn quoted_v4(quote: &[u8]) -> Option<(IpAddr, IpAddr, u16)> {
    let (ip, len) = Ipv4Header::parse(quote).ok()?;
    let udp = destination_port(ip.protocol(), &quote[len..])?;
    Some((ip.source().into(), ip.destination().into(), udp))
}

fn quoted_v6(quote: &[u8]) -> Option<(IpAddr, IpAddr, u16)> {
    let (ip, len) = Ipv6Header::parse(quote).ok()?;
    let udp = destination_port(ip.next_header(), &quote[len..])?;
    Some((ip.source().into(), ip.destination().into(), udp))
}

fn destination_port(protocol: Protocol, upper: &[u8]) -> Option<u16> {
    let (udp, _) = UdpHeader::parse(upper).ok()?;
    (protocol == Protocol::UDP).then(|| udp.destination_port())
}
