//! `weft service`: where clients knock, and who answers.

use std::net::SocketAddr;

use weft_api::dataplane::Op;
use weft_api::service::{
    Algorithm, Frontend, FrontendKind, ServiceList, ServiceQuery, ServiceStatus,
};

use crate::args::ServiceCommand;
use crate::text::{Listing, Page, grouped, list};
use crate::{Found, Node, traffic};

/// Answers a subcommand.
pub fn run(node: &Node, command: &ServiceCommand) -> anyhow::Result<Found> {
    let (query, render): (_, fn(&ServiceList, bool) -> String) = match command {
        ServiceCommand::List => (ServiceQuery::default(), render_list),
        ServiceCommand::Show { service } => (named(service), render_each),
    };
    let services: ServiceList = node.dataplane()?.call(Op::ServiceList(query))?;
    node.show(&services, |it| render(it, crate::styled()))?;
    Ok(Found::Nothing)
}

fn named(service: &str) -> ServiceQuery {
    let (namespace, name) = match service.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, service),
    };
    ServiceQuery {
        namespace,
        name: Some(name.to_owned()),
    }
}

fn render_list(services: &ServiceList, styled: bool) -> String {
    if services.services.is_empty() {
        return "no service is known here".to_owned();
    }
    let headings = ["SERVICE", "FRONTENDS", "BACKENDS", "CONNECTIONS", "BEGUN"];
    let mut listing = Listing::new(&headings).right(&[2, 3, 4]);
    for service in &services.services {
        let sum = |of: fn(&weft_api::service::BackendStatus) -> u64| {
            grouped(service.backends.iter().map(of).sum())
        };
        listing.row([
            format!("{}/{}", service.namespace, service.name),
            list(service.frontends.iter().map(place)),
            service.backends.len().to_string(),
            sum(|it| it.connections),
            sum(|it| it.begun),
        ]);
    }
    let mut page = Page::new(styled);
    page.table("SERVICES", &listing);
    page.finish()
}

fn render_each(services: &ServiceList, styled: bool) -> String {
    let mut page = Page::new(styled);
    for service in &services.services {
        page.facts(&[
            ("service", format!("{}/{}", service.namespace, service.name)),
            ("algorithm", algorithm(service.algorithm).to_owned()),
            ("affinity", affinity(service)),
        ]);
        page.table("FRONTENDS", &frontends(service));
        page.table("BACKENDS", &backends(service));
    }
    page.finish()
}

fn frontends(service: &ServiceStatus) -> Listing {
    let headings = ["ADDRESS", "PORT", "NAME", "KIND", "BACKENDS", "CLIENTS"];
    let mut listing = Listing::new(&headings).right(&[4]);
    for frontend in &service.frontends {
        let address = frontend.address.map(|it| it.to_string());
        let sources = frontend.sources.as_deref().map(list);
        listing.row([
            address.unwrap_or_else(|| "any of the node".to_owned()),
            traffic::one(frontend.protocol, frontend.port),
            frontend.port_name.clone(),
            kind(frontend.kind).to_owned(),
            frontend.backends.len().to_string(),
            sources.unwrap_or_else(|| "any".to_owned()),
        ]);
    }
    listing
}

fn backends(service: &ServiceStatus) -> Listing {
    let headings = ["BACKEND", "POD", "STATE", "CONNECTIONS", "BEGUN"];
    let mut listing = Listing::new(&headings).right(&[3, 4]);
    for (place, status) in service.backends.iter().enumerate() {
        let backend = &status.backend;
        let is_chosen = |it: &Frontend| it.backends.contains(&(place as u32));
        let state = match (backend.terminating, service.frontends.iter().any(is_chosen)) {
            (true, _) => "terminating",
            (false, true) => "in use",
            (false, false) => "idle",
        };
        listing.row([
            SocketAddr::new(backend.address, backend.port).to_string(),
            backend.pod.clone().unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
            grouped(status.connections),
            grouped(status.begun),
        ]);
    }
    listing
}

/// `10.96.0.10 80/tcp`, `node 30080/tcp`.
fn place(frontend: &Frontend) -> String {
    let port = traffic::one(frontend.protocol, frontend.port);
    match frontend.address {
        Some(address) => format!("{address} {port}"),
        None => format!("node {port}"),
    }
}

const fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Maglev => "maglev",
        Algorithm::Random => "random",
        Algorithm::LeastConnections => "least-connections",
    }
}

const fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "cluster IP",
        FrontendKind::NodePort => "node port",
        FrontendKind::LoadBalancer => "load balancer",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::HostPort => "host port",
    }
}

fn affinity(service: &ServiceStatus) -> String {
    let seconds = service.affinity_seconds;
    seconds.map_or_else(|| "none".to_owned(), |it| format!("client address, {it} s"))
}
