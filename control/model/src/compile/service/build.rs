//! One service and its endpoints to a table object, as one node sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use weft_api::service::{Algorithm, Backend, Frontend, FrontendKind, Service};

use super::HealthCheck;
use super::choice::{Choice, Here};
use super::slice::{Slice, Target};
use super::spec::{self, ALGORITHM, FORWARDING, Port, Spec};
use crate::manifest::ObjectKey;

const UDP: u8 = 17;

/// What came of a service.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub service: Arc<Service>,
    /// Its cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    pub health_check: Option<HealthCheck>,
}

/// A service's backends by address and port.
type Backends = BTreeMap<(IpAddr, u16), Backend>;

/// Builds the object of the service called `key`.
pub(super) fn build(
    key: &ObjectKey,
    service: &v1::Service,
    spec: Spec,
    slices: &[Slice<'_>],
    here: Here<'_>,
    problems: &mut Vec<String>,
) -> Built {
    let algorithm = spec::algorithm(service).unwrap_or_else(|name| {
        problems.push(format!(
            "{key}: annotation {ALGORITHM}: '{name}' is none of maglev, random, least-connections; maglev it is"
        ));
        Algorithm::default()
    });
    if let Err(mode) = spec::forwarding(service) {
        problems.push(format!(
            "{key}: annotation {FORWARDING}: '{mode}' is none of snat, dsr; snat it is"
        ));
    }
    report_families(key, &spec, problems);
    let mut backends = Backends::new();
    let mut ways = Vec::new();
    for cluster_ip in &spec.cluster_ips {
        for port in &spec.ports {
            let targets = targets(slices, port, cluster_ip.is_ipv6(), here);
            keep(&mut backends, port, &targets);
            let choice = here.choose(&targets);
            ways.push((*cluster_ip, port, targets, choice));
        }
    }
    let places: Vec<(IpAddr, u16)> = backends.keys().copied().collect();
    let mut frontends = Frontends::default();
    for (cluster_ip, port, targets, choice) in &ways {
        let way = Way::new(port, targets, choice, &places);
        frontends.add_all(&spec, *cluster_ip, &way);
    }
    Built {
        health_check: health_check(key, &spec, slices, here),
        service: Arc::new(Service {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            algorithm,
            affinity_seconds: spec.affinity_seconds,
            backends: backends.into_values().collect(),
            frontends: frontends.all,
        }),
        cluster_ips: spec.cluster_ips,
    }
}

/// A service is served in the IP versions it has a cluster IP of, as kube-proxy does.
fn report_families(key: &ObjectKey, spec: &Spec, problems: &mut Vec<String>) {
    let fields = [
        ("spec.externalIPs", &spec.external_ips),
        ("status.loadBalancer.ingress", &spec.ingress_ips),
    ];
    for (field, addresses) in fields {
        let served = |a: &IpAddr| spec.cluster_ips.iter().any(|c| c.is_ipv4() == a.is_ipv4());
        for address in addresses.iter().filter(|address| !served(address)) {
            problems.push(format!(
                "{key}: {field}: {address} is not served: the service has no cluster IP of that IP version"
            ));
        }
    }
}

/// The endpoints a port leads to, each address and port once, in order. Of two entries that say
/// different things of one endpoint, that of this node counts.
fn targets<'a>(
    slices: &'a [Slice<'a>],
    port: &Port,
    ipv6: bool,
    here: Here<'_>,
) -> Vec<Target<'a>> {
    let mut targets: Vec<Target<'a>> = Vec::new();
    for slice in slices.iter().filter(|slice| slice.ipv6 == ipv6) {
        let ports = slice.ports.iter();
        let ports = ports.filter(|p| p.name == port.name && p.protocol == port.protocol);
        for slice_port in ports {
            targets.extend(slice.endpoints.iter().map(|endpoint| Target {
                endpoint,
                port: slice_port.port,
            }));
        }
    }
    let place = |target: &Target<'_>| (target.endpoint.address, target.port);
    targets.sort_by_key(|target| (place(target), !here.has(target.endpoint)));
    targets.dedup_by_key(|target| place(target));
    targets
}

/// Keeps whom connections may be established with: everybody who is there, ready or not. Only what
/// UDP says goes elsewhere at once when its endpoint stops serving.
fn keep(backends: &mut Backends, port: &Port, targets: &[Target<'_>]) {
    for Target {
        endpoint,
        port: number,
    } in targets
    {
        let lives = endpoint.ready || endpoint.serving || endpoint.terminating;
        if port.protocol == UDP && !lives {
            continue;
        }
        let known = backends.entry((endpoint.address, *number));
        let backend = known.or_insert_with(|| Backend {
            address: endpoint.address,
            port: *number,
            pod: endpoint
                .pod
                .map(|(namespace, name)| format!("{namespace}/{name}")),
            terminating: true,
        });
        backend.terminating &= endpoint.terminating;
    }
}

/// Where connections to a port go.
struct Way<'a> {
    port: &'a Port,
    cluster: Vec<u32>,
    local: Vec<u32>,
    elsewhere: bool,
}

impl<'a> Way<'a> {
    fn new(
        port: &'a Port,
        targets: &[Target<'_>],
        choice: &Choice,
        places: &[(IpAddr, u16)],
    ) -> Self {
        let find = |chosen: &[usize]| {
            let targets = chosen.iter().filter_map(|place| targets.get(*place));
            let found = targets.filter_map(|target| {
                let place = (target.endpoint.address, target.port);
                u32::try_from(places.binary_search(&place).ok()?).ok()
            });
            found.collect()
        };
        Self {
            port,
            cluster: find(&choice.cluster),
            local: find(&choice.local),
            elsewhere: choice.is_elsewhere(),
        }
    }

    fn inside(&self, spec: &Spec, cluster_ip: IpAddr) -> Frontend {
        let (backends, drops) = match spec.internal_local {
            true => (self.local.clone(), self.elsewhere),
            false => (self.cluster.clone(), false),
        };
        Frontend {
            address: Some(cluster_ip),
            ipv6: cluster_ip.is_ipv6(),
            protocol: self.port.protocol,
            port: self.port.port,
            kind: FrontendKind::ClusterIp,
            port_name: self.port.name.clone(),
            keeps_source: false,
            direct: false,
            sources: None,
            backends,
            inside_backends: None,
            drops,
        }
    }

    /// Clients of the cluster itself reach every backend by an external address too: they need not
    /// care for a policy that is there to keep the source of those outside.
    fn outside(&self, spec: &Spec, kind: FrontendKind, at: Place) -> Frontend {
        let differs = spec.external_local && self.local != self.cluster;
        let (backends, drops) = match spec.external_local {
            true => (self.local.clone(), self.elsewhere),
            false => (self.cluster.clone(), false),
        };
        Frontend {
            address: at.address,
            ipv6: at.ipv6,
            protocol: self.port.protocol,
            port: at.port,
            kind,
            port_name: self.port.name.clone(),
            keeps_source: spec.external_local,
            direct: spec.direct,
            sources: None,
            backends,
            inside_backends: differs.then(|| self.cluster.clone()),
            drops,
        }
    }
}

/// Where an external frontend is.
#[derive(Clone, Copy)]
struct Place {
    address: Option<IpAddr>,
    ipv6: bool,
    port: u16,
}

/// Frontends of a service, none twice: of two kinds with one address the first added counts.
#[derive(Default)]
struct Frontends {
    all: Vec<Frontend>,
    taken: BTreeSet<(Option<IpAddr>, bool, u8, u16)>,
}

impl Frontends {
    fn add(&mut self, frontend: Frontend) {
        let Frontend {
            address,
            ipv6,
            protocol,
            port,
            ..
        } = &frontend;
        if self.taken.insert((*address, *ipv6, *protocol, *port)) {
            self.all.push(frontend);
        }
    }

    /// All frontends of one port and IP version. Those of the load balancer come before external
    /// IPs, which say nothing of who may use them.
    fn add_all(&mut self, spec: &Spec, cluster_ip: IpAddr, way: &Way<'_>) {
        let ipv6 = cluster_ip.is_ipv6();
        let of_family = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            let addresses = addresses.iter().copied();
            addresses
                .filter(|address| address.is_ipv6() == ipv6)
                .collect()
        };
        let place = |address| Place {
            address,
            ipv6,
            port: way.port.port,
        };
        self.add(way.inside(spec, cluster_ip));
        let sources = sources(spec, ipv6);
        for address in of_family(&spec.ingress_ips) {
            let kind = FrontendKind::LoadBalancer;
            let mut frontend = way.outside(spec, kind, place(Some(address)));
            frontend.sources.clone_from(&sources);
            self.add(frontend);
        }
        for address in of_family(&spec.external_ips) {
            let kind = FrontendKind::ExternalIp;
            self.add(way.outside(spec, kind, place(Some(address))));
        }
        if let Some(port) = way.port.node_port {
            let place = Place {
                port,
                ..place(None)
            };
            self.add(way.outside(spec, FrontendKind::NodePort, place));
        }
    }
}

/// Ranges of one IP version leave the other open, as with kube-proxy.
fn sources(spec: &Spec, ipv6: bool) -> Option<Vec<IpNet>> {
    let ranges = spec.sources.iter().copied();
    let ranges: BTreeSet<IpNet> = ranges.filter(|r| r.addr().is_ipv6() == ipv6).collect();
    (!ranges.is_empty()).then(|| ranges.into_iter().collect())
}

/// Counts the endpoints of the service's first IP version: those of the other are the same pods.
fn health_check(
    key: &ObjectKey,
    spec: &Spec,
    slices: &[Slice<'_>],
    here: Here<'_>,
) -> Option<HealthCheck> {
    let port = spec.health_check_port?;
    let ipv6 = spec.cluster_ips.first().is_some_and(IpAddr::is_ipv6);
    let serves = |slice: &&Slice<'_>| {
        let served = |name, protocol| {
            let mut ports = spec.ports.iter();
            ports.any(|port| port.name == name && port.protocol == protocol)
        };
        slice.ipv6 == ipv6
            && slice
                .ports
                .iter()
                .any(|port| served(port.name, port.protocol))
    };
    let endpoints = slices
        .iter()
        .filter(serves)
        .flat_map(|slice| &slice.endpoints);
    let local = endpoints.filter(|endpoint| endpoint.ready && here.has(endpoint));
    let local: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.address).collect();
    Some(HealthCheck {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        port,
        local_endpoints: local.len(),
    })
}
