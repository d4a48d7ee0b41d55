//! The services and their connections, for people.

use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::service::{BackendStatus, Service, ServiceList, ServiceQuery, ServiceStatus};
use weft_engine::{BackendId, ServiceId};

use crate::control::Control;

/// The services that are asked for, with what the workers counted.
///
/// # Errors
/// NotFound when one is asked for by name and there is none, Failed when a worker does not answer.
pub fn list(control: &mut Control, query: &ServiceQuery) -> Result<ServiceList, ApiError> {
    let asked: Vec<(ServiceId, Service)> = control
        .compiler
        .services()
        .iter()
        .filter(|(_, service)| is_asked_for(service, query))
        .map(|(id, service)| (id, service.clone()))
        .collect();
    if let (Some(name), true) = (&query.name, asked.is_empty()) {
        let within = query.namespace.as_ref();
        let within = within.map_or_else(String::new, |it| format!(" in namespace {it}"));
        let message =
            format!("no service is called {name}{within}; `weft service list` lists them");
        return Err(ApiError::new(ErrorKind::NotFound, message));
    }
    let numbers: Vec<Vec<BackendId>> = asked
        .iter()
        .map(|(id, service)| numbers(control, *id, service))
        .collect();
    let counts = control.workers.backend_counts(&numbers.concat())?;
    let mut counts = counts.into_iter();
    let mut status = |service: Service| ServiceStatus {
        namespace: service.namespace,
        name: service.name,
        algorithm: service.algorithm,
        affinity_seconds: service.affinity_seconds,
        frontends: service.frontends,
        backends: service
            .backends
            .into_iter()
            .zip(&mut counts)
            .map(|(backend, (connections, begun))| BackendStatus {
                backend,
                connections,
                begun,
            })
            .collect(),
    };
    let services = asked.into_iter().map(|(_, it)| status(it)).collect();
    Ok(ServiceList { services })
}

fn is_asked_for(service: &Service, query: &ServiceQuery) -> bool {
    let is =
        |wanted: &Option<String>, it: &str| wanted.as_deref().is_none_or(|wanted| wanted == it);
    is(&query.namespace, &service.namespace) && is(&query.name, &service.name)
}

/// The number of each backend in the order of the object.
fn numbers(control: &mut Control, id: ServiceId, service: &Service) -> Vec<BackendId> {
    let known = control.compiler.backends(id);
    let number = |address, port| {
        let of_it = known
            .iter()
            .find(|it| (it.address, it.port) == (address, port));
        of_it.map_or(BackendId::NONE, |it| it.id)
    };
    let backends = service.backends.iter();
    backends.map(|it| number(it.address, it.port)).collect()
}
