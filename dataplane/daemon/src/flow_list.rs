//! The workers' connections, for people.

use std::net::IpAddr;
use std::ops::ControlFlow;

use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::flow::{FLOWS_SHOWN, FlowList, FlowQuery, FlowService, FlowStatus};
use weft_engine::packet::Headers;
use weft_engine::table::flow::State;
use weft_engine::table::policy::has_ports;
use weft_engine::{FlowFilter, FlowInfo, FrontendKey, Traffic};
use weft_wire::Protocol;

use crate::control::Control;
use crate::policy::View;

/// The connections that are asked for. Workers show theirs a few at a time, between two bursts.
///
/// # Errors
/// NotFound for an unknown pod, BadRequest for an unknown state, Failed when a worker does not answer.
pub fn list(control: &Control, query: &FlowQuery) -> Result<FlowList, ApiError> {
    let filter = FlowFilter {
        address: query.address,
        port: query.port,
        protocol: query.protocol,
        state: query.state.as_deref().map(state).transpose()?,
    };
    let pod = query.pod.as_deref();
    let view = View::of(control);
    let of_pod = pod.map(|pod| view.addresses(pod)).transpose()?;
    let limit = query.limit.unwrap_or(FLOWS_SHOWN) as usize;
    let mut list = FlowList::default();
    control.workers.flows(|worker, flow| {
        let of_pod = of_pod.as_deref().is_none_or(|it| touches(flow, it));
        if !of_pod || !filter.takes(flow) {
            return ControlFlow::Continue(());
        }
        if list.flows.len() >= limit {
            list.truncated = true;
            return ControlFlow::Break(());
        }
        list.flows.push(status(worker, flow, &view));
        ControlFlow::Continue(())
    })?;
    Ok(list)
}

/// The connection that a packet with these headers belongs to.
///
/// # Errors
/// Failed when a worker does not answer.
pub fn find(control: &Control, headers: &Headers) -> Result<Option<FlowStatus>, ApiError> {
    let view = View::of(control);
    let mut found = None;
    control.workers.flows(|worker, flow| {
        let is_it = [flow.original, flow.reply].iter().any(|key| {
            let ends = (key.tuple.source(), key.tuple.destination());
            key.protocol == headers.protocol.0
                && ends == (headers.source, headers.destination)
                && (key.tuple.ports() == headers.ports || !has_ports(headers.protocol))
        });
        if !is_it {
            return ControlFlow::Continue(());
        }
        found = Some(status(worker, flow, &view));
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn state(name: &str) -> Result<State, ApiError> {
    let mut states = State::ALL.iter().filter(|it| **it != State::Free);
    states.find(|it| it.name() == name).copied().ok_or_else(|| {
        let known = State::ALL.iter().filter(|it| **it != State::Free);
        let known: Vec<&str> = known.map(|it| it.name()).collect();
        let message = format!(
            "no connection is ever {name}; states are {}",
            known.join(", ")
        );
        ApiError::new(ErrorKind::BadRequest, message)
    })
}

fn touches(flow: &FlowInfo, addresses: &[IpAddr]) -> bool {
    [flow.original.tuple, flow.reply.tuple]
        .iter()
        .any(|tuple| addresses.contains(&tuple.source()))
}

fn status(worker: u16, flow: &FlowInfo, view: &View<'_>) -> FlowStatus {
    let opening = if flow.reversed {
        flow.reply
    } else {
        flow.original
    };
    let (tuple, protocol) = (opening.tuple, Protocol(opening.protocol));
    let source = tuple.source();
    let source_port = tuple.ports().0;
    // Of a service's connection: who really answers.
    let answers = if flow.translated {
        flow.reply.tuple
    } else {
        tuple.mirrored()
    };
    let (destination, destination_port) = (answers.source(), answers.ports().0);
    let traffic = Traffic::new(protocol, destination_port);
    let (egress, ingress) = view.sides(source, destination, traffic);
    let turned = |[a, b]: [u64; 2]| if flow.reversed { [b, a] } else { [a, b] };
    FlowStatus {
        worker,
        protocol: protocol.0,
        source: view.party(source),
        destination: view.party(destination),
        source_port,
        destination_port,
        state: flow.state.name().to_owned(),
        replied: flow.replied,
        picked_up: flow.picked_up,
        packets: turned(flow.packets),
        bytes: turned(flow.bytes),
        age_ms: flow.age_ns / 1_000_000,
        idle_ms: flow.idle_ns / 1_000_000,
        service: flow.translated.then(|| service(flow, view)),
        egress,
        ingress,
    }
}

fn service(flow: &FlowInfo, view: &View<'_>) -> FlowService {
    let (asked, reply) = (flow.original.tuple, flow.reply.tuple);
    let (address, port) = (asked.destination(), asked.ports().1);
    let goes_on_as = (reply.destination(), reply.ports().1);
    let is_other = goes_on_as != (asked.source(), asked.ports().0);
    FlowService {
        name: view.service_at(&FrontendKey {
            address,
            protocol: flow.original.protocol,
            port,
        }),
        address,
        port,
        source: is_other.then(|| goes_on_as.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_known_by_name_and_others_are_refused_with_those_there_are() {
        for it in State::ALL.iter().filter(|it| **it != State::Free) {
            assert_eq!(state(it.name()).unwrap(), *it);
        }
        let refused = state("open").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::BadRequest);
        assert!(refused.message.contains("established"), "{refused}");
        assert!(state(State::Free.name()).is_err(), "no connection is free");
    }
}
