//! Direct server return: a client's packet to a backend of another node crosses the tunnel as it came, with the service's
//! address; that node translates it to one of its own pods, whose reply leaves from there. The client is seen by the pod,
//! and its replies do not come back through here.
//!
//! This node's entry of such a connection is not translated and holds the backend, which says what node it stays with.

use weft_wire::Protocol;

use crate::drop_reason::DropReason;
use crate::packet::{Direct, Packet};
use crate::pipeline::Context;
use crate::table::fib::Route;
use crate::table::flow::FlowRef;
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

/// Goes on with a client's packet of a connection that is not translated here: to the node it went to before.
pub(super) fn go_on(
    packet: &mut Packet,
    flow: FlowRef,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    if packet.track.related || packet.track.decided.epoch == context.tables.epoch() as u32 {
        return Ok(());
    }
    let id = context.flows.backend(flow);
    let frontend = context.tables.frontend(&key(packet));
    let backend = frontend.and_then(|it| it.known_as(id));
    packet.direct = backend.and_then(|it| node_of(&it, context));
    if packet.direct.is_some() {
        return Ok(());
    }
    context.flows.remove(flow);
    begin_anew(packet, context)
}

/// The service to which another node handed a packet on: its client is outside the cluster, and its address may be one of
/// that node.
pub(crate) fn handed<'a>(packet: &Packet, context: &Context<'a>) -> Option<&'a Frontend> {
    let client = packet.headers.source;
    let remote = context.tables.remote(packet.tunnel?)?;
    let is_outside = !remote.owns(client)
        && matches!(context.tables.fib().lookup(client), Route::Host)
        && !context.node.owns(client);
    is_outside.then(|| context.tables.direct_frontend(&key(packet)))?
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
