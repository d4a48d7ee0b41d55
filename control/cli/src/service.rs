//! `weft service`: where clients knock, and who answers.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use weft_api::dataplane::Op;
use weft_api::service::{
    Algorithm, BackendStatus, Frontend, FrontendKind, ServiceList, ServiceQuery, ServiceStatus,
};

use crate::args::ServiceCommand;
use crate::text::{Listing, Page, grouped, list};
use crate::{Found, Node, traffic};

/// How long the connections that begin are counted, to say how many do each second: long enough for ten
/// a second to be told from nine, short enough for somebody who waits.
const LOOKS_FOR: Duration = Duration::from_secs(1);

/// Answers a subcommand.
pub fn run(node: &Node, command: &ServiceCommand) -> anyhow::Result<Found> {
    let styled = crate::styled();
    let ask = |query| anyhow::Ok(node.dataplane()?.call(Op::ServiceList(query))?);
    match command {
        ServiceCommand::List => {
            let services: ServiceList = ask(ServiceQuery::default())?;
            node.show(&services, |it| render_list(it, styled))?;
        }
        ServiceCommand::Show { service } => {
            let (before, began): (ServiceList, _) = (ask(named(service))?, Instant::now());
            thread::sleep(LOOKS_FOR);
            let services = ask(named(service))?;
            let took = began.elapsed();
            let look = Look { before, took };
            node.show(&services, |it| render_each(it, &look, styled))?;
        }
    }
    Ok(Found::Nothing)
}

/// What there was some time before: the dataplane counts connections and keeps no past.
struct Look {
    before: ServiceList,
    took: Duration,
}

impl Look {
    /// Connections that began each second with this backend. One that was not there before has begun with none, and
    /// so has every one after a restart of the dataplane.
    fn begun_per_second(&self, service: &ServiceStatus, status: &BackendStatus) -> u64 {
        let name = |it: &ServiceStatus| (it.namespace.clone(), it.name.clone());
        let place = |it: &BackendStatus| (it.backend.address, it.backend.port);
        let mut services = self.before.services.iter();
        let known = services.find(|it| name(it) == name(service));
        let mut backends = known.into_iter().flat_map(|it| &it.backends);
        let earlier = backends.find(|it| place(it) == place(status));
        let earlier = earlier.map_or(0, |it| it.begun);
        let begun = status.begun.checked_sub(earlier).unwrap_or(status.begun);
        (begun as f64 / self.took.as_secs_f64()).round() as u64
    }
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

fn render_each(services: &ServiceList, look: &Look, styled: bool) -> String {
    let mut page = Page::new(styled);
    for service in &services.services {
        page.facts(&[
            ("service", format!("{}/{}", service.namespace, service.name)),
            ("algorithm", algorithm(service.algorithm).to_owned()),
            ("affinity", affinity(service)),
        ]);
        page.table("FRONTENDS", &frontends(service));
        page.table("BACKENDS", &backends(service, look));
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

fn backends(service: &ServiceStatus, look: &Look) -> Listing {
    let headings = ["BACKEND", "POD", "STATE", "CONNECTIONS", "BEGUN", "NEW/S"];
    let mut listing = Listing::new(&headings).right(&[3, 4, 5]);
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
            grouped(look.begun_per_second(service, status)),
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

#[cfg(test)]
mod tests {
    use weft_api::service::Backend;

    use super::*;

    fn service(backends: &[(u16, u64)]) -> ServiceList {
        let status = |&(port, begun): &(u16, u64)| BackendStatus {
            backend: Backend {
                address: [10, 244, 1, 5].into(),
                port,
                pod: None,
                terminating: false,
            },
            connections: 0,
            begun,
        };
        ServiceList {
            services: vec![ServiceStatus {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                algorithm: Algorithm::Maglev,
                affinity_seconds: None,
                frontends: Vec::new(),
                backends: backends.iter().map(status).collect(),
            }],
        }
    }

    fn each_second(before: &[(u16, u64)], now: &[(u16, u64)]) -> Vec<u64> {
        let (before, took) = (service(before), Duration::from_secs(2));
        let look = Look { before, took };
        let now = &service(now).services[0];
        let backends = now.backends.iter();
        backends.map(|it| look.begun_per_second(now, it)).collect()
    }

    #[test]
    fn new_connections_are_those_between_two_looks() {
        // Other places, and a backend that came meanwhile.
        let now = [(81, 7), (82, 4), (80, 300)];
        assert_eq!(each_second(&[(80, 100), (81, 7)], &now), [0, 2, 100]);
    }

    #[test]
    fn a_restart_between_two_looks_begins_at_nothing() {
        assert_eq!(each_second(&[(80, 100)], &[(80, 6)]), [3]);
    }
}
