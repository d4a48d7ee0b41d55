//! Direct server return: a client's packet to a backend of another node crosses the tunnel as it came, with the service's
//! address; that node translates it to one of its own pods, whose reply leaves from there. The client is seen by the pod,
//! and its replies do not come back through here.
//!
//! This node's entry of such a connection is not translated and holds the backend, which says what node it stays with.

use weft_wire::Protocol;

use crate::drop_reason::DropReason;
use crate::packet::{Direct, Packet, Track};
use crate::pipeline::Context;
use crate::stage::conntrack;
use crate::table::fib::Route;
use crate::table::flow::FlowRef;
use crate::table::policy::has_ports;
use crate::table::service::{Backend, Frontend, FrontendKey};

use super::begin_anew;

/// Sends a new connection of a client outside to the backend's node, where the service wants that. False when the
/// connection is for this node to translate.
pub(super) fn hand_on(
    packet: &mut Packet,
    frontend: &Frontend,
    backend: &Backend,
    context: &Context<'_>,
) -> bool {
    if !frontend.direct || packet.outside.is_none() {
        return false;
    }
    packet.direct = node_of(backend, context);
    packet.direct.is_some()
}

/// The node of a backend that is another one's pod.
fn node_of(backend: &Backend, context: &Context<'_>) -> Option<Direct> {
    match context.tables.fib().lookup(backend.address) {
        Route::Remote(remote) if !context.tables.is_node_address(backend.address) => Some(Direct {
            remote,
            backend: backend.id,
        }),
        _ => None,
    }
}

/// Goes on with a client's packet of a connection that is not translated here, or an error about one to the client: to
/// the node it went to before.
pub(super) fn go_on(
    packet: &mut Packet,
    flow: FlowRef,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let Track {
        related, decided, ..
    } = packet.track;
    let is_decided = decided.epoch == context.tables.epoch() as u32;
    // An error does not go by what was decided about packets, and a first fragment tells the later ones.
    if is_decided && !related && packet.headers.fragment.is_none() {
        return Ok(());
    }
    packet.direct = way(flow, context);
    if packet.direct.is_some() || related {
        return Ok(());
    }
    context.flows.remove(flow);
    begin_anew(packet, context)
}

/// The node of the backend that was chosen for a connection, as long as its service has it.
fn way(flow: FlowRef, context: &Context<'_>) -> Option<Direct> {
    let opening = context.flows.opening(flow)?;
    let frontend = context.tables.frontend(&FrontendKey {
        address: opening.tuple.destination(),
        protocol: opening.protocol,
        port: opening.tuple.ports().1,
    })?;
    node_of(&frontend.known_as(context.flows.backend(flow))?, context)
}

/// Whether another node handed a packet on to a service: its sender is outside the cluster, and its destination may be an
/// address of that node.
pub(crate) fn is_handed(packet: &Packet, context: &Context<'_>) -> bool {
    let source = packet.headers.source;
    let remote = packet.tunnel.and_then(|id| context.tables.remote(id));
    let is_outside = remote.is_some_and(|remote| !remote.owns(source))
        && matches!(context.tables.fib().lookup(source), Route::Host)
        && !context.node.owns(source);
    is_outside && is_to_service(packet, context)
}

/// Later fragments do not say to which port, and errors about what a service sent are to none.
fn is_to_service(packet: &Packet, context: &Context<'_>) -> bool {
    let (headers, tables) = (&packet.headers, context.tables);
    if !headers.has_upper_header() {
        return tables.is_direct(headers.destination);
    }
    if has_ports(headers.protocol) {
        return tables.direct_frontend(&key(packet)).is_some();
    }
    conntrack::quoted(packet, context).is_some_and(|quoted| {
        let sent_by = FrontendKey {
            address: quoted.tuple.source(),
            protocol: quoted.protocol,
            port: quoted.tuple.ports().0,
        };
        sent_by.address == headers.destination && tables.direct_frontend(&sent_by).is_some()
    })
}

/// A backend for a connection that was handed on: one of this node's pods.
pub(super) fn backend_here(
    frontend: &Frontend,
    hash: u64,
    context: &Context<'_>,
) -> Option<Backend> {
    let fib = context.tables.fib();
    frontend.choose_here(hash, |it| matches!(fib.lookup(it), Route::Local(_)))
}

/// The largest packet that clients may send to the pod whose reply this is, once translated: it comes by a tunnel from any
/// node. `None` when it is no reply to a connection that was handed on.
pub(crate) fn client_mtu(packet: &Packet, context: &Context<'_>) -> Option<u32> {
    packet.translation?;
    let key = FrontendKey {
        address: packet.headers.source,
        protocol: Protocol::TCP.0,
        port: packet.headers.ports.0,
    };
    context.tables.direct_frontend(&key)?;
    let remotes = context.tables.remotes();
    remotes.map(|(_, remote)| remote.inner_mtu).min()
}

fn key(packet: &Packet) -> FrontendKey {
    let headers = &packet.headers;
    FrontendKey {
        address: headers.destination,
        protocol: headers.protocol.0,
        port: headers.ports.1,
    }
}
