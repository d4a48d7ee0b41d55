//! A Service as somebody wrote it: what weft needs of it, checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{self, Service, ServicePort};
use weft_api::service::Algorithm;

use crate::facts::{self, BadValue};

/// Chooses the algorithm of a service.
pub(super) const ALGORITHM: &str = "weft.dev/lb-algorithm";

/// Says who answers clients outside.
pub(super) const FORWARDING: &str = "weft.dev/forwarding";

/// A service with this label is somebody else's to serve, as kube-proxy has it.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// What a client keeps its backend for where the service does not say, in seconds: the default of the
/// Kubernetes API, three hours.
const AFFINITY_DEFAULT: i32 = 10_800;

/// The longest it may be, by the Kubernetes API: a day.
const AFFINITY_MAX: i32 = 86_400;

/// A service that clients inside can reach at an address of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    /// Cluster IPs, one of a family at most.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Those of `status.loadBalancer.ingress` whose packets come here as they are.
    pub ingress_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; anyone where empty.
    pub sources: Vec<IpNet>,
    /// External traffic policy Local.
    pub external_local: bool,
    /// Direct server return.
    pub direct: bool,
    /// Internal traffic policy Local.
    pub internal_local: bool,
    /// Session affinity, in seconds.
    pub affinity_seconds: Option<u32>,
    /// Where load balancers ask whether this node has backends.
    pub health_check_port: Option<u16>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Empty for the only one of a service.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    pub node_port: Option<u16>,
}

impl Spec {
    /// Reads a service; none where it is not ours to serve: headless ones, external names, those of
    /// another proxy, and those nobody gave an address.
    ///
    /// # Errors
    /// The first value the Kubernetes API would refuse.
    pub fn read(service: &Service) -> Result<Option<Self>, BadValue> {
        let labels = service.metadata.labels.as_ref();
        let foreign = labels.is_some_and(|labels| labels.contains_key(PROXY_NAME));
        let Some(spec) = service.spec.as_ref().filter(|_| !foreign) else {
            return Ok(None);
        };
        let kind = one_of(
            "spec.type",
            spec.type_.as_deref(),
            &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
        )?;
        let cluster_ips = cluster_ips(service)?;
        if kind == "ExternalName" || cluster_ips.is_empty() {
            return Ok(None);
        }
        let policy = |field, value| one_of(field, value, &["Cluster", "Local"]);
        let external = spec.external_traffic_policy.as_deref();
        let external = policy("spec.externalTrafficPolicy", external)?;
        let internal = spec.internal_traffic_policy.as_deref();
        let internal = policy("spec.internalTrafficPolicy", internal)?;
        let texts = spec.external_ips.as_deref().unwrap_or(&[]);
        let external_ips = texts.iter().enumerate();
        let external_ips =
            external_ips.map(|(i, text)| address(&format!("spec.externalIPs[{i}]"), text));
        let external_ips = external_ips.collect::<Result<Vec<_>, _>>()?;
        // The API ignores the policy where nothing leads in from outside.
        let is_open = kind != "ClusterIP" || !external_ips.is_empty();
        let external_local = is_open && external == "Local";
        let health_check_port =
            health_check_port(spec)?.filter(|_| external_local && kind == "LoadBalancer");
        Ok(Some(Self {
            ports: ports(spec)?,
            ingress_ips: ingress_ips(service)?,
            sources: sources(spec)?,
            internal_local: internal == "Local",
            affinity_seconds: affinity(spec)?,
            cluster_ips,
            external_ips,
            external_local,
            direct: forwarding(service) == Ok(true),
            health_check_port,
        }))
    }
}

/// The algorithm a service asks for; the default for one that does not ask.
///
/// # Errors
/// What it asks for, where there is no such thing.
pub(super) fn algorithm(service: &Service) -> Result<Algorithm, &str> {
    let annotations = service.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(ALGORITHM)) {
        None => Ok(Algorithm::default()),
        Some(name) => match name.as_str() {
            "maglev" => Ok(Algorithm::Maglev),
            "random" => Ok(Algorithm::Random),
            "least-connections" => Ok(Algorithm::LeastConnections),
            other => Err(other),
        },
    }
}

/// Whether a service asks for direct server return (`dsr`) and not, as by default, for answers by the node that clients
/// speak with (`snat`).
///
/// # Errors
/// What it asks for, where there is no such thing.
pub(super) fn forwarding(service: &Service) -> Result<bool, &str> {
    let annotations = service.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(FORWARDING)) {
        None => Ok(false),
        Some(mode) => match mode.as_str() {
            "snat" => Ok(false),
            "dsr" => Ok(true),
            other => Err(other),
        },
    }
}

fn cluster_ips(service: &Service) -> Result<Vec<IpAddr>, BadValue> {
    let addresses = facts::cluster_ips(service)?;
    for (i, address) in addresses.iter().enumerate() {
        usable("spec.clusterIP", &address.to_string(), *address)?;
        let of_family = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        if let Some(other) = addresses[..i].iter().find(of_family) {
            let reason = format!("spec.clusterIPs: {other} and {address} are of one IP version");
            return Err(bad(&address.to_string(), reason));
        }
    }
    Ok(addresses)
}

fn ports(spec: &v1::ServiceSpec) -> Result<Vec<Port>, BadValue> {
    let listed = spec.ports.as_deref().unwrap_or(&[]);
    let mut ports: Vec<Port> = Vec::with_capacity(listed.len());
    let (mut names, mut numbers, mut node_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, entry) in listed.iter().enumerate() {
        let place = format!("spec.ports[{i}]");
        let port = read_port(&place, entry)?;
        if port.name.is_empty() && listed.len() > 1 {
            let reason = format!("{place}.name: is missing, and there are several ports");
            return Err(bad(&port.port.to_string(), reason));
        }
        let twice = |what: &str, value: String| {
            bad(&value, format!("{place}.{what}: {value} is there twice"))
        };
        if !names.insert(port.name.clone()) {
            return Err(twice("name", port.name));
        }
        if !numbers.insert((port.protocol, port.port)) {
            return Err(twice("port", port.port.to_string()));
        }
        let node_port = port.node_port.map(|number| (port.protocol, number));
        if node_port.is_some_and(|node_port| !node_ports.insert(node_port)) {
            let number = port.node_port.unwrap_or_default();
            return Err(twice("nodePort", number.to_string()));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn read_port(place: &str, entry: &ServicePort) -> Result<Port, BadValue> {
    let node_port = entry.node_port.filter(|number| *number != 0);
    let node_port = node_port.map(|number| port_number(&format!("{place}.nodePort"), number));
    Ok(Port {
        name: entry.name.clone().unwrap_or_default(),
        protocol: protocol(&format!("{place}.protocol"), entry.protocol.as_deref())?,
        port: port_number(&format!("{place}.port"), entry.port)?,
        node_port: node_port.transpose()?,
    })
}

/// Where the load balancer is a proxy that connects to node ports (`ipMode`), packets to its address
/// are the proxy's to see, those of pods too.
fn ingress_ips(service: &Service) -> Result<Vec<IpAddr>, BadValue> {
    let status = service.status.as_ref();
    let listed = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
    let mut addresses = Vec::new();
    for (i, ingress) in listed.unwrap_or(&[]).iter().enumerate() {
        let place = format!("status.loadBalancer.ingress[{i}]");
        let mode = ingress.ip_mode.as_deref();
        let mode = one_of(&format!("{place}.ipMode"), mode, &["VIP", "Proxy"])?;
        if let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) {
            let address = address(&format!("{place}.ip"), text)?;
            if mode == "VIP" {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

/// The API lets blanks around a prefix pass.
fn sources(spec: &v1::ServiceSpec) -> Result<Vec<IpNet>, BadValue> {
    let texts = spec.load_balancer_source_ranges.as_deref().unwrap_or(&[]);
    let read = |(i, text): (usize, &String)| {
        let prefix: Result<IpNet, _> = text.trim().parse();
        let reason = || format!("spec.loadBalancerSourceRanges[{i}]: '{text}' is not a prefix");
        prefix.map_or_else(|_| Err(bad(text, reason())), |prefix| Ok(prefix.trunc()))
    };
    texts.iter().enumerate().map(read).collect()
}

fn affinity(spec: &v1::ServiceSpec) -> Result<Option<u32>, BadValue> {
    let kind = spec.session_affinity.as_deref();
    let kind = one_of("spec.sessionAffinity", kind, &["None", "ClientIP"])?;
    if kind == "None" {
        return Ok(None);
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let seconds = seconds.unwrap_or(AFFINITY_DEFAULT);
    match u32::try_from(seconds) {
        Ok(fits) if (1..=AFFINITY_MAX).contains(&seconds) => Ok(Some(fits)),
        _ => {
            let place = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let reason = format!("{place}: {seconds} is not between 1 and {AFFINITY_MAX}");
            Err(bad(&seconds.to_string(), reason))
        }
    }
}

fn health_check_port(spec: &v1::ServiceSpec) -> Result<Option<u16>, BadValue> {
    let given = spec.health_check_node_port.filter(|number| *number != 0);
    let read = |number| port_number("spec.healthCheckNodePort", number);
    given.map(read).transpose()
}

/// The value of a field that knows few, the first of them where it is missing.
fn one_of<'a>(
    field: &str,
    value: Option<&'a str>,
    known: &[&'static str],
) -> Result<&'a str, BadValue>
where
    'static: 'a,
{
    match value.filter(|value| !value.is_empty()) {
        None => Ok(known[0]),
        Some(value) if known.contains(&value) => Ok(value),
        Some(value) => {
            let reason = format!("{field}: '{value}' is none of {}", known.join(", "));
            Err(bad(value, reason))
        }
    }
}

/// An address a packet can have as its destination from elsewhere.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, BadValue> {
    let address = text.parse();
    let address =
        address.map_err(|_| bad(text, format!("{field}: '{text}' is not an IP address")))?;
    usable(field, text, address)
}

fn usable(field: &str, text: &str, address: IpAddr) -> Result<IpAddr, BadValue> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        let reason = format!("{field}: {text} is not an address others can reach");
        return Err(bad(text, reason));
    }
    Ok(address)
}

/// IP protocol number; TCP where the field is missing.
pub(super) fn protocol(field: &str, name: Option<&str>) -> Result<u8, BadValue> {
    let name = one_of(field, name, &["TCP", "UDP", "SCTP"])?;
    Ok(match name {
        "UDP" => 17,
        "SCTP" => 132,
        _ => 6,
    })
}

pub(super) fn port_number(field: &str, number: i32) -> Result<u16, BadValue> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    let reason = || format!("{field}: {number} is not a port");
    port.ok_or_else(|| bad(&number.to_string(), reason()))
}

pub(super) fn bad(value: &str, reason: String) -> BadValue {
    BadValue {
        value: value.to_owned(),
        reason,
    }
}
