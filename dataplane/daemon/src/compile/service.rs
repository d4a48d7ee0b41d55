//! Service objects in, the engine's services out. Only those that differ from what is in force are handed on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft_api::service::{Algorithm as ApiAlgorithm, Frontend, Service};
use weft_engine::table::policy::has_ports;
use weft_engine::table::service::BACKENDS_MAX;
use weft_engine::{Algorithm, FrontendKey, FrontendSpec, ServiceBuilder, ServiceId, ServiceSpec};
use weft_wire::Protocol;

/// A service in force.
struct Present {
    id: ServiceId,
    service: Arc<Service>,
    /// The last look at all objects in which it was there.
    seen: u64,
}

/// The services in force, and what they are called.
#[derive(Default)]
pub struct Services {
    /// By namespace and name.
    services: BTreeMap<String, BTreeMap<String, Present>>,
    names: HashMap<ServiceId, (String, String)>,
    next: u32,
    looks: u64,
    outside_version: u64,
}

impl Services {
    /// Makes the builder's services those of the objects.
    pub(super) fn apply(&mut self, wanted: &[&Arc<Service>], builder: &mut ServiceBuilder) {
        self.looks += 1;
        let looks = self.looks;
        // What goes away first leaves its addresses to what comes.
        let mut changed = Vec::new();
        for service in wanted.iter().copied() {
            match self.present_mut(&service.namespace, &service.name) {
                Some(present) if present.service == *service => present.seen = looks,
                _ if check(service).is_err() => {}
                Some(present) => {
                    present.seen = looks;
                    changed.push(service);
                }
                None => changed.push(service),
            }
        }
        self.remove_unseen(builder);
        for service in changed {
            self.set(service, builder);
        }
    }

    /// Namespace and name of a service.
    pub fn name(&self, id: ServiceId) -> Option<(&str, &str)> {
        let (namespace, name) = self.names.get(&id)?;
        Some((namespace, name))
    }

    /// All services, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        let all = self.services.values().flat_map(BTreeMap::values);
        all.map(|it| (it.id, &*it.service))
    }

    /// Number of what [`outside`](Self::outside) gives; grows when that is something else.
    pub const fn outside_version(&self) -> u64 {
        self.outside_version
    }

    /// Where clients outside the cluster reach services.
    pub fn outside(&self) -> impl Iterator<Item = &Frontend> {
        let all = self.services.values().flat_map(BTreeMap::values);
        all.flat_map(|it| outside(&it.service))
    }

    fn present_mut(&mut self, namespace: &str, name: &str) -> Option<&mut Present> {
        self.services.get_mut(namespace)?.get_mut(name)
    }

    fn set(&mut self, service: &Arc<Service>, builder: &mut ServiceBuilder) {
        let known = self.present_mut(&service.namespace, &service.name);
        let before = known
            .as_deref()
            .into_iter()
            .flat_map(|it| outside(&it.service));
        if !before.map(key).eq(outside(service).map(key)) {
            self.outside_version += 1;
        }
        let known = self.present_mut(&service.namespace, &service.name);
        let id = known.map(|it| it.id).unwrap_or_else(|| {
            self.next += 1;
            ServiceId(self.next)
        });
        builder.set(id, &spec(service));
        let (namespace, name) = (service.namespace.clone(), service.name.clone());
        self.names.insert(id, (namespace.clone(), name.clone()));
        let present = Present {
            id,
            service: Arc::clone(service),
            seen: self.looks,
        };
        let of_namespace = self.services.entry(namespace).or_default();
        of_namespace.insert(name, present);
    }

    fn remove_unseen(&mut self, builder: &mut ServiceBuilder) {
        let (looks, names, version) = (self.looks, &mut self.names, &mut self.outside_version);
        self.services.retain(|_, of_namespace| {
            of_namespace.retain(|_, present| {
                let stays = present.seen == looks;
                if !stays {
                    *version += u64::from(outside(&present.service).next().is_some());
                    builder.remove(present.id);
                    names.remove(&present.id);
                }
                stays
            });
            !of_namespace.is_empty()
        });
    }
}

fn outside(service: &Service) -> impl Iterator<Item = &Frontend> {
    let frontends = service.frontends.iter();
    frontends.filter(|it| it.kind.is_external())
}

fn spec(service: &Service) -> ServiceSpec {
    ServiceSpec {
        algorithm: match service.algorithm {
            ApiAlgorithm::Maglev => Algorithm::Maglev,
            ApiAlgorithm::Random => Algorithm::Random,
            ApiAlgorithm::LeastConnections => Algorithm::LeastConnections,
        },
        affinity_seconds: service.affinity_seconds,
        backends: service
            .backends
            .iter()
            .map(|it| (it.address, it.port))
            .collect(),
        frontends: service.frontends.iter().map(frontend).collect(),
    }
}

fn frontend(frontend: &Frontend) -> FrontendSpec {
    FrontendSpec {
        key: key(frontend),
        keeps_source: frontend.keeps_source,
        direct: frontend.direct,
        drops: frontend.drops,
        sources: frontend.sources.clone(),
        backends: frontend.backends.clone(),
        inside_backends: frontend.inside_backends.clone(),
    }
}

fn key(frontend: &Frontend) -> FrontendKey {
    let any = if frontend.ipv6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    FrontendKey {
        address: frontend.address.unwrap_or(any),
        protocol: frontend.protocol,
        port: frontend.port,
    }
}

/// Refuses a service that contradicts itself.
///
/// # Errors
/// What is wrong with it, with its name.
pub(super) fn check(service: &Service) -> Result<(), String> {
    let Service {
        namespace, name, ..
    } = service;
    let wrong = |what: String| Err(format!("service {namespace}/{name}: {what}"));
    if let Some(backend) = service.backends.iter().find(|it| it.port == 0) {
        return wrong(format!("backend {} has port 0", backend.address));
    }
    let mut keys = HashSet::new();
    for frontend in &service.frontends {
        let key = key(frontend);
        let FrontendKey {
            address,
            protocol,
            port,
        } = key;
        let refused = |what: String| {
            wrong(format!(
                "frontend {address} port {port} of protocol {protocol}: {what}"
            ))
        };
        if port == 0 || !has_ports(Protocol(protocol)) {
            return refused("no such port".to_owned());
        }
        if frontend.address.is_some_and(|it| it.is_unspecified()) {
            return refused("no address; leave it out where any of the node is meant".to_owned());
        }
        if !keys.insert(key) {
            return refused("it is there twice".to_owned());
        }
        let inside = frontend.inside_backends.as_deref().unwrap_or_default();
        if frontend.backends.len().max(inside.len()) > BACKENDS_MAX {
            return refused(format!("more than {BACKENDS_MAX} backends"));
        }
        for place in frontend.backends.iter().chain(inside) {
            let Some(backend) = service.backends.get(*place as usize) else {
                let there = service.backends.len();
                return refused(format!("backend {place} of {there}, counted from 0"));
            };
            if backend.address.is_ipv4() != address.is_ipv4() {
                let backend = backend.address;
                return refused(format!("backend {backend} is of the other family"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
