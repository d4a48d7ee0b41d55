//! `weft flow`: the connections this node tracks.

use weft_api::dataplane::Op;
use weft_api::explain::{PolicyOutcome, PolicyParty, PolicySide};
use weft_api::flow::{FlowList, FlowQuery, FlowStatus};

use crate::args::{FlowCommand, FlowListArguments};
use crate::text::{Listing, Page, bytes, grouped, span};
use crate::{Found, Node, traffic};

/// Answers a subcommand.
pub fn run(node: &Node, command: &FlowCommand) -> anyhow::Result<Found> {
    match command {
        FlowCommand::List(asked) => list(node, asked),
    }
}

fn list(node: &Node, asked: &FlowListArguments) -> anyhow::Result<Found> {
    let query = FlowQuery {
        pod: asked.pod.clone(),
        address: asked.address,
        port: asked.port,
        protocol: asked.protocol,
        state: asked.state.clone(),
        limit: asked.limit,
    };
    let list: FlowList = node.dataplane()?.call(Op::FlowList(query))?;
    node.show(&list, |list| render(list, crate::styled()))?;
    Ok(Found::Nothing)
}

fn render(list: &FlowList, styled: bool) -> String {
    if list.flows.is_empty() {
        return "no connection is like that".to_owned();
    }
    let headings = [
        "PROTOCOL", "FROM", "TO", "STATE", "PACKETS", "BYTES", "AGE", "IDLE", "POLICY",
    ];
    let mut listing = Listing::new(&headings);
    for flow in &list.flows {
        listing.row(row(flow));
    }
    let mut page = Page::new(styled);
    page.table("CONNECTIONS", &listing);
    if list.truncated {
        let more = "there are more; narrow the search or raise --limit".to_owned();
        page.items("AND", &[more]);
    }
    page.finish()
}

fn row(flow: &FlowStatus) -> [String; 9] {
    let [packets, answered] = flow.packets.map(grouped);
    let [sent, returned] = flow.bytes.map(bytes);
    [
        traffic::name(flow.protocol),
        end(&flow.source, flow.source_port),
        destination(flow),
        flow.state.clone(),
        format!("{packets} / {answered}"),
        format!("{sent} / {returned}"),
        span(flow.age_ms / 1_000),
        span(flow.idle_ms / 1_000),
        policy(&flow.egress, &flow.ingress),
    ]
}

/// `shop/web 10.1.1.5:80`, an IPv6 address in brackets.
fn end(party: &PolicyParty, port: u16) -> String {
    let socket = std::net::SocketAddr::new(party.address, port);
    match &party.pod {
        Some(pod) => format!("{pod} {socket}"),
        None => socket.to_string(),
    }
}

/// The backend, and the service it answers for.
fn destination(flow: &FlowStatus) -> String {
    let backend = end(&flow.destination, flow.destination_port);
    let Some(service) = &flow.service else {
        return backend;
    };
    let frontend = std::net::SocketAddr::new(service.address, service.port);
    match &service.name {
        Some(name) => format!("{backend} for service {name} {frontend}"),
        None => format!("{backend} for {frontend}"),
    }
}

/// What lets it be, or what will end it with its next packet.
fn policy(egress: &PolicySide, ingress: &PolicySide) -> String {
    let says = |side: &PolicySide| {
        let origin = side.origin.as_ref();
        let by = origin.map(|it| format!("{} {}", it.object, it.rule));
        match side.outcome {
            PolicyOutcome::Denied => Some(format!("denied by {}", by.unwrap_or_default())),
            PolicyOutcome::NoPolicy => Some("no policy".to_owned()),
            PolicyOutcome::Allowed => by,
            PolicyOutcome::Exempt | PolicyOutcome::Elsewhere => None,
        }
    };
    let both: Vec<String> = [egress, ingress].into_iter().filter_map(says).collect();
    if both.is_empty() {
        "-".to_owned()
    } else {
        both.join("; ")
    }
}
