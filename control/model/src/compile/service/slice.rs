//! EndpointSlices: whom a service's ports lead to.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{self, EndpointConditions, EndpointPort, EndpointSlice};

use super::spec;
use crate::facts::BadValue;

/// Says which service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A slice, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice<'a> {
    pub ipv6: bool,
    pub ports: Vec<SlicePort<'a>>,
    pub endpoints: Vec<Endpoint<'a>>,
}

/// A port all endpoints of a slice have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlicePort<'a> {
    /// Name of the service's port.
    pub name: &'a str,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint<'a> {
    pub address: IpAddr,
    /// Namespace and name of the pod.
    pub pod: Option<(&'a str, &'a str)>,
    /// The node it is on.
    pub node: Option<&'a str>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Zones and nodes it is meant for.
    pub zones: Vec<&'a str>,
    pub nodes: Vec<&'a str>,
}

/// An endpoint as one port of a service sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub endpoint: &'a Endpoint<'a>,
    pub port: u16,
}

/// Name of the service a slice belongs to.
pub(super) fn service_name(slice: &EndpointSlice) -> Option<&str> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(name.as_str()).filter(|name| !name.is_empty())
}

impl<'a> Slice<'a> {
    /// Reads a slice; none for one of names (`addressType: FQDN`), which kube-proxy does not serve.
    ///
    /// # Errors
    /// The first value the Kubernetes API would refuse.
    pub fn read(slice: &'a EndpointSlice) -> Result<Option<Self>, BadValue> {
        let ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            "FQDN" => return Ok(None),
            other => {
                let reason = format!("addressType: '{other}' is none of IPv4, IPv6, FQDN");
                return Err(spec::bad(other, reason));
            }
        };
        let listed = slice.ports.as_deref().unwrap_or(&[]).iter().enumerate();
        let ports = listed.filter_map(|(i, port)| read_port(i, port).transpose());
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        let endpoints = slice.endpoints.iter().enumerate();
        let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
        let endpoints = endpoints.map(|(i, endpoint)| read_endpoint(i, endpoint, ipv6, namespace));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Self {
            ipv6,
            ports,
            endpoints,
        }))
    }
}

/// A port without a number is any port; no service leads there.
fn read_port(index: usize, port: &EndpointPort) -> Result<Option<SlicePort<'_>>, BadValue> {
    let protocol = spec::protocol(
        &format!("ports[{index}].protocol"),
        port.protocol.as_deref(),
    )?;
    let Some(number) = port.port else {
        return Ok(None);
    };
    Ok(Some(SlicePort {
        name: port.name.as_deref().unwrap_or(""),
        protocol,
        port: spec::port_number(&format!("ports[{index}].port"), number)?,
    }))
}

/// Addresses beyond the first are the same endpoint's, and the API has nobody use them.
fn read_endpoint<'a>(
    index: usize,
    endpoint: &'a v1::Endpoint,
    ipv6: bool,
    namespace: &'a str,
) -> Result<Endpoint<'a>, BadValue> {
    let place = format!("endpoints[{index}].addresses");
    let Some(text) = endpoint.addresses.first() else {
        return Err(spec::bad("", format!("{place}: is empty")));
    };
    let address = spec::address(&place, text)?;
    if address.is_ipv6() != ipv6 {
        let reason = format!("{place}: {text} is not of the slice's addressType");
        return Err(spec::bad(text, reason));
    }
    let none = EndpointConditions::default();
    let conditions = endpoint.conditions.as_ref().unwrap_or(&none);
    let zones = endpoint.hints.as_ref().and_then(|h| h.for_zones.as_deref());
    let nodes = endpoint.hints.as_ref().and_then(|h| h.for_nodes.as_deref());
    let pod = endpoint.target_ref.as_ref();
    let pod = pod.filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = pod.and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        Some((namespace, target.name.as_deref()?))
    });
    Ok(Endpoint {
        address,
        pod,
        node: endpoint.node_name.as_deref(),
        // What a condition that is missing means, says the API of each.
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        zones: zones
            .unwrap_or(&[])
            .iter()
            .map(|z| z.name.as_str())
            .collect(),
        nodes: nodes
            .unwrap_or(&[])
            .iter()
            .map(|n| n.name.as_str())
            .collect(),
    })
}
