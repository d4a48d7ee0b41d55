//! ICMP errors about packets the pipeline drops.

use std::net::IpAddr;

use weft_wire::answer::{ANSWER_MAX, ErrorMessage, IcmpError};
use weft_wire::{MacAddr, icmp};

use crate::builder::PORTS_MAX;
use crate::packet::{Network, Origin, Packet, PortId, PortKind};
use crate::pipeline::Context;
use crate::stage::{parse, service};
use crate::table::token_bucket::{Rate, TokenBucket};

/// Errors about packets of one port: the kernel's icmp_msgs_per_sec and icmp_msgs_burst
/// (Documentation/networking/ip-sysctl.rst), which it applies to the whole host. Fewer would make
/// traceroute and path-MTU discovery of busy pods fail, more lets a scan cost work.
const RATE: Rate = Rate::new(1000, 50);

/// One bucket per receiving port, so that one pod's errors do not use up another's.
pub(crate) struct IcmpLimiter {
    buckets: Box<[TokenBucket]>,
}

impl IcmpLimiter {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![TokenBucket::default(); PORTS_MAX].into_boxed_slice(),
        }
    }

    pub(crate) fn forget(&mut self, port: PortId) {
        if let Some(bucket) = self.buckets.get_mut(port.index()) {
            *bucket = TokenBucket::default();
        }
    }

    pub(crate) fn take(&mut self, port: PortId, now_ns: u64) -> bool {
        self.buckets
            .get_mut(port.index())
            .is_some_and(|bucket| bucket.take(RATE, now_ns))
    }
}

/// Tells the sender of `packet` about `error`, if that is allowed, affordable and possible. The answer
/// is born undecided: it is routed like any packet. A translated packet becomes what its sender sent, since that is
/// quoted; it is to be dropped.
#[cold]
#[inline(never)]
pub(crate) fn answer(packet: &mut Packet, error: IcmpError, context: &mut Context<'_>) {
    service::restore(packet, context);
    let Some(from) = may_answer(packet, error, context) else {
        return;
    };
    if !context.icmp.take(packet.rx, context.now_ns) {
        context.counters.icmp_limited += 1;
        return;
    }
    if let Some(answer) = build(packet, error, from, context) {
        context.bear(answer);
    }
}

/// The answer's source, if there may be one.
fn may_answer(packet: &Packet, error: IcmpError, context: &Context<'_>) -> Option<IpAddr> {
    if packet.origin != Origin::Received || context.room() == 0 {
        return None;
    }
    let first = packet.frames.first()?;
    let quoted = &context.umem.bytes(first)[usize::from(packet.headers.l3)..];
    let allowed = match packet.headers.network {
        Network::V4 => icmp::may_answer_v4(quoted),
        Network::V6 => icmp::may_answer_v6(quoted, matches!(error, IcmpError::TooBig { .. })),
        Network::None | Network::Arp => false,
    };
    source(packet, context).filter(|_| allowed)
}

/// `weft0`, so that a traceroute shows each node once. But the node's own stack takes no packet from
/// one of its own addresses (Linux `fib_validate_source`), and with rp_filter none from an address
/// whose route is another: it hears from the address it sent to.
fn source(packet: &Packet, context: &Context<'_>) -> Option<IpAddr> {
    let node = context.node;
    match (packet.rx_kind, packet.headers.network) {
        (PortKind::Node, _) => Some(packet.headers.destination),
        // Outside nobody knows weft0's address.
        (PortKind::Uplink, _) if packet.outside.is_some() => Some(packet.headers.destination),
        (_, Network::V4) => node.node_port4.map(IpAddr::V4),
        (_, Network::V6) => node.node_port6.map(IpAddr::V6),
        _ => None,
    }
}

fn build(
    packet: &Packet,
    error: IcmpError,
    from: IpAddr,
    context: &mut Context<'_>,
) -> Option<Packet> {
    let mut frame = context.pool.alloc()?;
    let quoted = &context.umem.bytes(packet.frames.first()?)[usize::from(packet.headers.l3)..];
    // `rewrite` writes the MACs once it is known where the answer goes.
    let message = ErrorMessage {
        error,
        from,
        destination_mac: MacAddr::ZERO,
        source_mac: MacAddr::ZERO,
        quoted,
    };
    let sized = frame.set_len(ANSWER_MAX).is_ok();
    let written = message.write(context.umem.bytes_mut(&mut frame));
    let mut answer = Packet {
        rx: packet.rx,
        rx_kind: packet.rx_kind,
        origin: Origin::Built,
        next_hop: packet.outside,
        ..Packet::default()
    };
    let fits = written.is_ok_and(|len| frame.set_len(len).is_ok());
    answer.frames.push(frame);
    if sized && fits && parse::headers(&mut answer, context.umem, context.pool).is_ok() {
        return Some(answer);
    }
    context.pool.free_chain(&mut answer.frames);
    None
}
