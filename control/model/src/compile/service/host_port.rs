//! Host ports of local pods (`portMappings` of the CNI): each pod's are a service of their own, with the
//! pod as its only backend.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::agent::HostPort;
use weft_api::service::{Algorithm, Backend, Frontend, FrontendKind, Service};

use super::build::Built;
use crate::compile::LocalPod;
use crate::manifest::{Kind, ObjectKey};

/// What names the service of a pod's host ports; no Kubernetes Service can be called so.
pub(super) fn key(pod: &LocalPod) -> ObjectKey {
    ObjectKey {
        kind: Kind::Service,
        namespace: pod.pod.namespace.clone(),
        name: format!("hostport:{}", pod.pod.name),
    }
}

/// Builds the service of a pod's host ports.
pub(super) fn build(key: &ObjectKey, pod: &LocalPod) -> Built {
    let mut service = Service {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        algorithm: Algorithm::default(),
        affinity_seconds: None,
        backends: Vec::new(),
        frontends: Vec::new(),
    };
    for address in &pod.addresses {
        for port in &pod.host_ports {
            if port.is_for(address.is_ipv6()) {
                add(&mut service, pod, *address, port);
            }
        }
    }
    Built {
        service: Arc::new(service),
        cluster_ips: Vec::new(),
        health_check: None,
    }
}

fn add(service: &mut Service, pod: &LocalPod, address: IpAddr, port: &HostPort) {
    let at = port.host_ip.filter(|address| !address.is_unspecified());
    let claim = (at, address.is_ipv6(), port.protocol, port.host_port);
    let mut others = service.frontends.iter();
    if others.any(|f| (f.address, f.ipv6, f.protocol, f.port) == claim) {
        return;
    }
    let backend = Backend {
        address,
        port: port.container_port,
        pod: Some(pod.pod.to_string()),
        terminating: false,
    };
    let known = service.backends.iter().position(|other| *other == backend);
    let place = known.unwrap_or_else(|| {
        service.backends.push(backend);
        service.backends.len() - 1
    });
    service.frontends.push(Frontend {
        address: at,
        ipv6: address.is_ipv6(),
        protocol: port.protocol,
        port: port.host_port,
        kind: FrontendKind::HostPort,
        port_name: String::new(),
        // The pod is here, so its answers come back by themselves.
        keeps_source: true,
        direct: false,
        sources: None,
        backends: u32::try_from(place).into_iter().collect(),
        inside_backends: None,
        drops: false,
    });
}
