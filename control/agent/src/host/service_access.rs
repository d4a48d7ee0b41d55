//! The node's own processes at the other addresses of services: node ports, external IPs and those of
//! load balancers. One nftables table of our own, there only while there is such a service.
//!
//! What a process sends to an address of the node itself stays on the loopback, and what it sends to a
//! load balancer's goes out by the default route. So the first packet's destination becomes the
//! cluster IP of the same port, which is routed by `weft0`, and its source the address of `weft0`,
//! which is the one the dataplane answers to. Packets that come from elsewhere never pass here.
//!
//! Two things differ from what a pod gets at these addresses: the internal traffic policy of the
//! service applies, and loadBalancerSourceRanges do not. 127.0.0.1 is not a node address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use weft_api::NODE_PORT;
use weft_api::service::{Frontend, FrontendKind, Service};

use super::{HostError, nft};

/// What this is for, in messages.
const WHAT: &str = "lead the node's own processes to services";

/// What is sent where instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccess {
    node_addresses: BTreeSet<IpAddr>,
    node_ports: BTreeMap<(Family, u8, u16), Target>,
    addresses: BTreeMap<(IpAddr, u8, u16), Target>,
}

/// An address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    address: IpAddr,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// Puts the table in place, or takes it away where it would be empty.
///
/// # Errors
/// [`HostError::NftMissing`], or [`HostError::Nft`] with what `nft` said.
pub async fn apply(access: &ServiceAccess) -> Result<(), HostError> {
    nft::load(WHAT, &access.ruleset()).await
}

/// Takes the table away; none is success.
///
/// # Errors
/// As [`apply`].
pub async fn remove() -> Result<(), HostError> {
    nft::load(WHAT, &ServiceAccess::default().ruleset()).await
}

impl ServiceAccess {
    /// What these services need on a node with these addresses.
    pub fn of(services: &[Arc<Service>], node_addresses: &[IpAddr]) -> Self {
        let mut access = Self {
            node_addresses: node_addresses.iter().copied().collect(),
            ..Self::default()
        };
        for service in services {
            for frontend in &service.frontends {
                if let Some(target) = target(service, frontend) {
                    access.add(frontend, target);
                }
            }
        }
        access
    }

    fn add(&mut self, frontend: &Frontend, target: Target) {
        let (protocol, port) = (frontend.protocol, frontend.port);
        match frontend.address {
            Some(address) => self.addresses.insert((address, protocol, port), target),
            None => {
                let family = Family::of(target.address);
                self.node_ports.insert((family, protocol, port), target)
            }
        };
    }

    /// The table as text. Declaring it before deleting it makes the deletion succeed the first time.
    pub fn ruleset(&self) -> String {
        let mut text =
            String::from("table inet weft-services {}\ndelete table inet weft-services\n");
        if self.node_ports.is_empty() && self.addresses.is_empty() {
            return text;
        }
        text.push_str("table inet weft-services {\n");
        let mut chain = String::new();
        for family in [Family::V4, Family::V6] {
            self.push_family(family, &mut text, &mut chain);
        }
        // -100 is `dstnat`, a name that nft takes in no output chain. Only what this node sends has a
        // local source; the rest that comes by with a translated destination keeps its own.
        let _ = write!(
            text,
            "  chain output {{\n    type nat hook output priority -100; policy accept;\n{chain}  }}\n  \
             chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
             oifname \"{NODE_PORT}\" ct status dnat fib saddr type local masquerade fully-random\n  }}\n}}\n"
        );
        text
    }

    fn push_family(&self, family: Family, text: &mut String, chain: &mut String) {
        let (word, kind) = match family {
            Family::V4 => ("ip", "ipv4_addr"),
            Family::V6 => ("ip6", "ipv6_addr"),
        };
        let addresses = self.addresses.iter();
        let addresses = addresses.filter(|((address, ..), _)| Family::of(*address) == family);
        let addresses = addresses.map(|((address, protocol, port), target)| {
            format!("{address} . {protocol} . {port} : {target}")
        });
        let map = format!("{word}-addresses");
        let key = format!("{kind} . inet_proto . inet_service");
        if push_map(
            text,
            &map,
            &format!("{key} : {kind} . inet_service"),
            addresses,
        ) {
            let key = format!("{word} daddr . meta l4proto . th dport");
            let _ = writeln!(chain, "    dnat {word} to {key} map @{map}");
        }
        let ports = self.node_ports.iter();
        let ports = ports.filter(|((of, ..), _)| *of == family);
        let ports =
            ports.map(|((_, protocol, port), target)| format!("{protocol} . {port} : {target}"));
        let nodes = self.node_addresses.iter();
        let nodes: Vec<_> = nodes
            .filter(|address| Family::of(**address) == family)
            .collect();
        let map = format!("{word}-node-ports");
        let kind = format!("inet_proto . inet_service : {kind} . inet_service");
        if !nodes.is_empty() && push_map(text, &map, &kind, ports) {
            let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                chain,
                "    {word} daddr {{ {} }} dnat {word} to meta l4proto . th dport map @{map}",
                nodes.join(", ")
            );
        }
    }
}

/// Where a frontend's packets go instead: to the cluster IP of the same port of the service; those of a
/// host port, which has none, to its pod.
fn target(service: &Service, frontend: &Frontend) -> Option<Target> {
    if frontend.kind == FrontendKind::ClusterIp {
        return None;
    }
    if frontend.kind == FrontendKind::HostPort {
        let place = usize::try_from(*frontend.backends.first()?).ok()?;
        let backend = service.backends.get(place)?;
        return Some(Target {
            address: backend.address,
            port: backend.port,
        });
    }
    let ipv6 = frontend
        .address
        .map_or(frontend.ipv6, |address| address.is_ipv6());
    let is_same_port = |other: &&Frontend| {
        other.kind == FrontendKind::ClusterIp
            && other.protocol == frontend.protocol
            && other.port_name == frontend.port_name
            && other
                .address
                .is_some_and(|address| address.is_ipv6() == ipv6)
    };
    let inside = service.frontends.iter().find(is_same_port)?;
    Some(Target {
        address: inside.address?,
        port: inside.port,
    })
}

/// False where there would be nothing in it.
fn push_map(
    text: &mut String,
    name: &str,
    kind: &str,
    elements: impl Iterator<Item = String>,
) -> bool {
    let elements: Vec<String> = elements.collect();
    if !elements.is_empty() {
        let elements = elements.join(",\n      ");
        let _ = writeln!(
            text,
            "  map {name} {{\n    type {kind}\n    elements = {{\n      {elements}\n    }}\n  }}"
        );
    }
    !elements.is_empty()
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.address, self.port)
    }
}
