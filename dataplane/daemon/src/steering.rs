//! What the uplinks take for this node: its tunnel, and services that clients outside the cluster reach.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_api::object::LocalNode;
use weft_keeper::protocol::{FRONTENDS_MAX, SteeredFrontend, Steering};

use crate::compile::Services;

/// Addresses of services alone that are steered for the sake of fragments. With [`FRONTENDS_MAX`] it bounds the message
/// to the keeper; fragments to further addresses are left to the kernel.
const ADDRESSES_MAX: usize = 16_384;

/// What the keeper was told.
#[derive(Default)]
pub struct Steered {
    /// The node it was made of.
    node: Option<LocalNode>,
    /// And [`Services::outside_version`].
    version: u64,
}

impl Steered {
    /// What the keeper is to be told, unless it was.
    pub fn wanted(&self, node: Option<&LocalNode>, services: &Services) -> Option<Steering> {
        let told = node == self.node.as_ref() && services.outside_version() == self.version;
        (!told).then(|| {
            node.map(|node| steering(node, services))
                .unwrap_or_default()
        })
    }

    /// The keeper was told what these come down to.
    pub fn told(&mut self, node: Option<&LocalNode>, services: &Services) {
        (self.node, self.version) = (node.cloned(), services.outside_version());
    }
}

/// A frontend without address is one of each of the node's.
fn steering(node: &LocalNode, services: &Services) -> Steering {
    let mut frontends = BTreeSet::new();
    for frontend in services.outside() {
        let of_node = node.addresses.iter();
        let of_node = of_node.filter(|it| it.is_ipv6() == frontend.ipv6);
        let addresses: Vec<IpAddr> = match frontend.address {
            Some(address) if address.is_loopback() => continue,
            Some(address) => vec![address],
            None => of_node.copied().collect(),
        };
        let (protocol, port) = (frontend.protocol, frontend.port);
        frontends.extend(
            addresses
                .into_iter()
                .map(|address| SteeredFrontend(address, protocol, port)),
        );
    }
    let of_family = |v4: bool| -> Vec<SteeredFrontend> {
        let all = frontends.iter().filter(|it| it.0.is_ipv4() == v4);
        let (count, most) = (all.clone().count(), FRONTENDS_MAX);
        if count > most {
            tracing::error!(
                count,
                most,
                "too many services for clients outside; some get no packets"
            );
        }
        all.take(most).copied().collect()
    };
    let frontends = [of_family(true), of_family(false)].concat();
    let first = |v4: bool| node.addresses.iter().find(|a| a.is_ipv4() == v4).copied();
    let own = |address: &IpAddr| node.addresses.contains(address);
    let addresses: BTreeSet<IpAddr> = frontends.iter().map(|it| it.0).collect();
    Steering {
        service_addresses: addresses
            .into_iter()
            .filter(|it| !own(it))
            .take(ADDRESSES_MAX)
            .collect(),
        frontends,
        local_addresses: [first(true), first(false)].into_iter().flatten().collect(),
        vni: node.vni,
        vxlan_port: node.vxlan_port,
        ..Steering::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Compiler;
    use crate::ports::Ports;
    use std::sync::Arc;

    use serde_json::{from_value, json};
    use weft_api::object::Object;
    use weft_api::service::Service;

    fn node() -> LocalNode {
        from_value(json!({
            "name": "one", "addresses": ["192.0.2.1", "192.0.2.7", "2001:db8::1"], "pod_cidrs": [],
            "node_port_addresses": [], "node_port_mac": "02:00:00:00:00:01", "vni": 5, "vxlan_port": 4789,
        }))
        .unwrap()
    }

    fn object(kind: &str, address: Option<&str>, port: u16) -> Object {
        let service: Service = from_value(json!({
            "namespace": "shop", "name": format!("{kind}-{port}"), "backends": [],
            "frontends": [{ "address": address, "protocol": 6, "port": port, "kind": kind, "backends": [] }],
        }))
        .unwrap();
        Object::Service(Arc::new(service))
    }

    fn steered(frontends: &[(&str, u16)]) -> Vec<SteeredFrontend> {
        let steered =
            |(address, port): &(&str, u16)| SteeredFrontend(address.parse().unwrap(), 6, *port);
        frontends.iter().map(steered).collect()
    }

    #[test]
    fn services_for_clients_outside_are_steered_and_no_others() {
        let objects = [
            object("cluster-ip", Some("10.96.0.1"), 80),
            object("node-port", None, 30_080),
            object("load-balancer", Some("198.18.0.1"), 80),
            object("external-ip", Some("2001:db8::1"), 443),
            object("host-port", Some("127.0.0.1"), 8080),
        ];
        let mut compiler = Compiler::default();
        compiler.tables(objects.iter(), &Ports::default());
        let node = node();
        let mut told = Steered::default();
        let wanted = told.wanted(Some(&node), compiler.services()).unwrap();
        let expected = [
            ("192.0.2.1", 30_080),
            ("192.0.2.7", 30_080),
            ("198.18.0.1", 80),
            ("2001:db8::1", 443),
        ];
        assert_eq!(wanted.frontends, steered(&expected));
        assert_eq!(
            wanted.service_addresses,
            [expected[2].0.parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            wanted.local_addresses,
            [node.addresses[0], node.addresses[2]]
        );
        told.told(Some(&node), compiler.services());
        // What clients inside reach may come and go.
        compiler.tables(objects[1..].iter(), &Ports::default());
        assert_eq!(told.wanted(Some(&node), compiler.services()), None);
        compiler.tables(objects[2..].iter(), &Ports::default());
        let fewer = told.wanted(Some(&node), compiler.services()).unwrap();
        assert_eq!(fewer.frontends, steered(&expected[2..]));
        let moved = LocalNode {
            vni: 6,
            ..node.clone()
        };
        told.told(Some(&node), compiler.services());
        assert_eq!(
            told.wanted(Some(&moved), compiler.services())
                .map(|it| it.vni),
            Some(6)
        );
    }
}
