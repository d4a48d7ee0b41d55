//! What:   whether a connection may be: the sender's egress policy where it is a pod of this node, then the
//!         receiver's ingress policy where that one is. Decided once, by the packet that begins the connection,
//!         and again when a policy changed: then by the direction that opened the connection, whichever packet comes.
//! Reads:  `headers`, `track`, `rx_kind`, policies, FIB, node addresses, the connection's entry.
//! Writes: `track` of what it lets begin; the version of the policies into the connection's entry; the rules'
//!         counters; verdicts, while somebody asks for them. Bears resets for both ends of a TCP connection that is no longer allowed.
//! Drops:  what is not allowed, silently when it is new; whatever pods without a policy send or get; packets of
//!         new connections when the flow table is full and nothing gives way.
//! Order:  behind conntrack, so that replies and ICMP errors of allowed connections pass; connections begin here,
//!         so that what is denied takes no room. In front of fragment, since later fragments have no ports.
//!
//! **Connections picked up.** When the flow table was lost, a TCP packet may come first from the side that was
//! connected to. Its own direction may be denied though the connection is allowed. So for some minutes after an empty
//! start a packet without SYN also passes when its reverse is allowed, and the connection is remembered as opened
//! that way. It opens nothing: a host answers a segment of no connection with RST (RFC 9293 sections 3.10.7.1 and
//! 3.10.7.2), and only a SYN begins one. A SYN is always decided in its own direction, also where such a packet left an
//! entry (`tcp.rs` begins the connection anew). It must end some time, though: a pod that ignores our reset would
//! otherwise go on with a revoked connection as if its packets were replies.

use weft_wire::{Protocol, TcpFlags};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Headers, Network, Packet, PortKind};
use crate::pipeline::Context;
use crate::reset;
use crate::stage::{conntrack, service};
use crate::table::flow::{FlowKey, FlowRef};
use crate::table::policy::{RuleId, Traffic};
use crate::tables::{Connection, Judgement};
use crate::verdict_log::PolicyVerdict;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    let (epoch, policy_epoch) = (
        context.tables.epoch() as u32,
        context.tables.connections_epoch(),
    );
    let mut begun = Begun::default();
    super::each(Stage::Policy, packets, context, |packet, context| {
        match packet.track.flow {
            // What was decided under these tables was allowed by them.
            Some(_) if packet.track.decided.epoch == epoch => Ok(()),
            Some(flow) if context.flows.is_allowed(flow, epoch, policy_epoch) => Ok(()),
            // An error about an allowed connection; nothing of it is decided by it.
            Some(_) if packet.track.related => Ok(()),
            Some(flow) => decide_again(packet, flow, &mut begun, context),
            None => decide_new(packet, &mut begun, context),
        }
    });
}

/// The connections a batch began, by some bits of their hashes: it may hold more, never fewer.
#[derive(Default)]
struct Begun([u64; 8]);

impl Begun {
    fn bit(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize % 8, 1 << (hash % 64))
    }

    fn add(&mut self, packet: &Packet) {
        if packet.headers.fragment.is_some() {
            // Its hash is that of its datagram, not of the connection.
            self.0 = [u64::MAX; 8];
        } else {
            let (word, bit) = Self::bit(packet.track.hash);
            self.0[word] |= bit;
        }
    }

    fn may_hold(&self, packet: &Packet) -> bool {
        if packet.headers.fragment.is_some() {
            return self.0 != [0; 8];
        }
        let (word, bit) = Self::bit(packet.track.hash);
        self.0[word] & bit != 0
    }
}

/// Decides about a packet of no known connection.
#[inline(never)]
fn decide_new(
    packet: &mut Packet,
    begun: &mut Begun,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let headers = packet.headers;
    if !matches!(headers.network, Network::V4 | Network::V6) || !headers.has_upper_header() {
        return Ok(());
    }
    if packet.sought && packet.translation.is_some() {
        // A first fragment whose connection is another worker's, which translated it and sent it back.
        return Ok(());
    }
    // Another packet of this batch may have begun the connection.
    if begun.may_hold(packet) && conntrack::follow(packet, context) {
        return service::follow(packet, context);
    }
    let connection = connection(packet, context);
    let judgement = context.tables.judge(&connection);
    let refusal = judgement.refusal();
    if let Some((reason, rule)) = refusal
        && !(may_be_reply(packet, context) && is_allowed_back(&headers, context))
    {
        context.policy.denied(rule);
        note(
            (connection, headers.ports.0),
            judgement,
            Some(reason),
            context,
        );
        return Err(reason);
    }
    match conntrack::begin(packet, context) {
        Err(DropReason::SourcePorts) => {
            // Another packet of this batch was given the same port, and began its connection first.
            service::another_port(packet, context)?;
            conntrack::begin(packet, context)?;
        }
        begun => begun?,
    }
    if let Some(flow) = packet.track.flow {
        begun.add(packet);
        context
            .flows
            .allow(flow, context.tables.connections_epoch());
        match refusal {
            None => {
                count_allowed(&judgement, context);
                note((connection, headers.ports.0), judgement, None, context);
            }
            Some(_) => context.flows.reverse(flow),
        }
    }
    Ok(())
}

/// Keeps a verdict on a connection and its source port.
#[inline]
fn note(
    (connection, source_port): (Connection, u16),
    judgement: Judgement,
    reason: Option<DropReason>,
    context: &mut Context<'_>,
) {
    let policy_epoch = context.tables.policy().epoch();
    context.verdicts.note(|| PolicyVerdict {
        connection,
        source_port,
        judgement,
        policy_epoch,
        reason,
    });
}

fn connection(packet: &Packet, context: &Context<'_>) -> Connection {
    let headers = &packet.headers;
    // A translated source is the node's, who connects is not.
    let source = packet.client();
    Connection {
        source,
        destination: headers.destination,
        traffic: Traffic::new(headers.protocol, headers.ports.1),
        from_node: packet.rx_kind == PortKind::Node && context.node.owns(source),
    }
}

/// Whether it cannot open a connection, and those it may be part of are not all known; see the module's text.
fn may_be_reply(packet: &Packet, context: &Context<'_>) -> bool {
    let headers = &packet.headers;
    let opens =
        headers.tcp_flags.intersects(TcpFlags::SYN) && !headers.tcp_flags.intersects(TcpFlags::ACK);
    let to_service = packet.translation.is_some();
    context.picks_up && headers.protocol == Protocol::TCP && !opens && !to_service
}

/// Whether the receiver may connect to the sender.
fn is_allowed_back(headers: &Headers, context: &Context<'_>) -> bool {
    let back = Connection {
        source: headers.destination,
        destination: headers.source,
        traffic: Traffic::new(headers.protocol, headers.ports.0),
        from_node: context.node.owns(headers.destination),
    };
    context.tables.judge(&back).refusal().is_none()
}

fn count_allowed(judgement: &Judgement, context: &mut Context<'_>) {
    for rule in judgement.rules().filter(|rule| *rule != RuleId::NONE) {
        context.policy.allowed(rule);
    }
}

/// Decides about a connection that older policies allowed.
#[inline(never)]
fn decide_again(
    packet: &mut Packet,
    flow: FlowRef,
    begun: &mut Begun,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let Some(key) = context.flows.opening(flow) else {
        // It ended earlier in this batch.
        packet.track.flow = None;
        return decide_new(packet, begun, context);
    };
    let connection = opened(&key, packet, context);
    let judgement = context.tables.judge(&connection);
    let Some((_, rule)) = judgement.refusal() else {
        context
            .flows
            .allow(flow, context.tables.connections_epoch());
        return Ok(());
    };
    context.policy.denied(rule);
    let reason = DropReason::PolicyRevoked;
    note(
        (connection, key.tuple.ports().0),
        judgement,
        Some(reason),
        context,
    );
    reset::both_ends(packet, context);
    context.flows.remove(flow);
    Err(reason)
}

/// The connection that packets with this key open. The packet at hand may be another one, but whatever has a node's
/// address as source came from its stack: the source stage lets nobody else.
fn opened(key: &FlowKey, packet: &Packet, context: &Context<'_>) -> Connection {
    let source = key.tuple.source();
    let came_elsewhere = packet.client() == source && packet.rx_kind != PortKind::Node;
    Connection {
        source,
        destination: key.tuple.destination(),
        traffic: Traffic::new(Protocol(key.protocol), key.tuple.ports().1),
        from_node: !came_elsewhere && context.node.owns(source),
    }
}
