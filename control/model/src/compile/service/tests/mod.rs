//! Services as somebody writes them, and what comes of them on one node.

use weft_api::service::{Frontend, FrontendKind, Service};

use super::HealthCheck;
use crate::compile::{ClusterConfig, Compiled, Compiler};
use crate::state::Store;

mod broken;
mod change;
mod endpoint;
mod evaluator;
mod frontend;
mod host_port;
mod policy;
mod scale;

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: a, labels: {topology.kubernetes.io/zone: east}}
spec: {podCIDRs: [10.0.8.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

/// A cluster as node `a` in zone `east` sees it.
struct Scene {
    store: Store,
    compiler: Compiler,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            store: Store::default(),
            compiler: Compiler::new(ClusterConfig::of_node("a")),
        };
        scene.apply("node", NODE);
        scene
    }

    /// With one service called `s`, and slices of it.
    fn with(spec: &str, slices: &[&str]) -> Self {
        let mut scene = Self::new();
        scene.service("s", spec);
        scene.slices("s", slices);
        assert_eq!(scene.problems(), [] as [&str; 0]);
        scene
    }

    fn apply(&mut self, file: &str, text: &str) {
        self.store.apply(file, text.as_bytes());
    }

    fn service(&mut self, name: &str, spec: &str) {
        self.service_with(name, "", spec, "");
    }

    fn service_with(&mut self, name: &str, metadata: &str, spec: &str, status: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, {metadata}}}\nspec: {{{spec}}}\nstatus: {{{status}}}\n"
        );
        self.apply(name, &text);
    }

    /// Each is what stands beside the metadata; they are IPv4 where they do not say.
    fn slices(&mut self, service: &str, slices: &[&str]) {
        if slices.is_empty() {
            return self.store.remove(&format!("{service}-slices"));
        }
        let text: String = slices
            .iter()
            .enumerate()
            .map(|(i, slice)| {
                let family = match slice.contains("addressType") {
                    true => "",
                    false => "addressType: IPv4, ",
                };
                format!(
                    "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {service}-{i}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}, {family}{slice}}}\n"
                )
            })
            .collect();
        self.apply(&format!("{service}-slices"), &text);
    }

    fn compiled(&mut self) -> Compiled {
        self.compiler.compile(&self.store, &[])
    }

    /// Of files and of what compiling found, but for what is said of the node.
    fn problems(&mut self) -> Vec<String> {
        let mut problems = self.store.problems();
        problems.extend(self.compiled().problems);
        problems
    }

    fn get(&mut self, name: &str) -> Option<Service> {
        let services = self.compiled().desired.services.services;
        let found = services.iter().find(|service| service.name == name);
        found.map(|service| (**service).clone())
    }

    fn s(&mut self) -> Service {
        self.get("s").unwrap()
    }

    fn health_checks(&mut self) -> Vec<HealthCheck> {
        self.compiled().desired.services.health_checks
    }

    /// Frontends of `s`, a line each.
    fn lines(&mut self) -> Vec<String> {
        lines(&self.s())
    }

    /// Backends behind the first frontend of a kind.
    fn behind(&mut self, kind: FrontendKind) -> Vec<String> {
        let service = self.s();
        let frontend = service.frontends.iter().find(|f| f.kind == kind).unwrap();
        names(&service, &frontend.backends)
    }
}

/// Every frontend like `ClusterIp 10.96.0.1 6/80: 10.0.0.1:8080 10.0.0.2:8080`.
fn lines(service: &Service) -> Vec<String> {
    let line = |frontend: &Frontend| {
        let address = match (frontend.address, frontend.ipv6) {
            (Some(address), _) => address.to_string(),
            (None, false) => "v4".to_owned(),
            (None, true) => "v6".to_owned(),
        };
        let (kind, protocol, port) = (frontend.kind, frontend.protocol, frontend.port);
        let backends = names(service, &frontend.backends).join(" ");
        format!("{kind:?} {address} {protocol}/{port}: {backends}")
    };
    service.frontends.iter().map(line).collect()
}

fn names(service: &Service, places: &[u32]) -> Vec<String> {
    let backend = |place: &u32| &service.backends[usize::try_from(*place).unwrap()];
    let name = |place| {
        let backend = backend(place);
        format!("{}:{}", backend.address, backend.port)
    };
    places.iter().map(name).collect()
}
