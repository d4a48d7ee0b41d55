//! A second opinion: random services and endpoints, and what the Kubernetes documentation says of each
//! frontend, worked out one frontend at a time from the plain description.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// One endpoint; whatever is none is not written down.
#[derive(Clone, Debug)]
struct Endpoint {
    number: u8,
    node: Option<&'static str>,
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
    for_zones: Vec<&'static str>,
    for_nodes: Vec<&'static str>,
}

type Hints = fn(&Endpoint) -> &[&'static str];

#[derive(Clone, Debug)]
struct Plain {
    name: &'static str,
    /// Year it was created in.
    year: Option<u16>,
    node_port: Option<u16>,
    external_ip: Option<u8>,
    balancer: bool,
    internal_local: bool,
    external_local: bool,
    slices: Vec<Vec<Endpoint>>,
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let condition = || prop::option::weighted(0.6, any::<bool>());
    let hint = |known| prop::collection::vec(prop::sample::select(known), 0..3);
    let node = prop::option::weighted(0.9, prop::sample::select(vec!["a", "b"]));
    let conditions = (condition(), condition(), condition());
    let hints = (hint(vec!["east", "west"]), hint(vec!["a", "b"]));
    (1_u8..40, node, conditions, hints).prop_map(|(number, node, conditions, hints)| Endpoint {
        number,
        node,
        ready: conditions.0,
        serving: conditions.1,
        terminating: conditions.2,
        for_zones: hints.0,
        for_nodes: hints.1,
    })
}

fn service() -> impl Strategy<Value = Plain> {
    let slices = prop::collection::vec(prop::collection::vec(endpoint(), 0..4), 0..3);
    let places = (
        prop::option::of(prop::sample::select(vec![30_000, 30_001])),
        prop::option::of(1_u8..4),
        any::<[bool; 3]>(),
    );
    let name = prop::sample::select(vec!["p", "q", "r"]);
    let year = prop::option::of(2_020_u16..2_023);
    (name, year, places, slices).prop_map(|(name, year, places, mut slices)| {
        // What two slices say of one endpoint is the subject of a test of its own.
        let mut known = BTreeSet::new();
        for slice in &mut slices {
            slice.retain(|endpoint| known.insert(endpoint.number));
        }
        let (node_port, external_ip, [balancer, internal_local, external_local]) = places;
        Plain {
            name,
            year,
            node_port,
            external_ip,
            balancer,
            internal_local,
            external_local,
            slices,
        }
    })
}

impl Plain {
    /// Each service has a cluster IP of its own.
    fn cluster_ip(&self) -> String {
        format!("10.96.0.{}", self.name.as_bytes()[0])
    }

    fn manifest(&self) -> String {
        let policy = |local| if local { "Local" } else { "Cluster" };
        let kind = match (self.balancer, self.node_port) {
            (true, _) => "LoadBalancer",
            (false, Some(_)) => "NodePort",
            (false, None) => "ClusterIP",
        };
        let external: Vec<_> = self
            .external_ip
            .iter()
            .map(|n| format!("198.51.100.{n}"))
            .collect();
        let ingress = match self.balancer {
            true => vec![json!({"ip": format!("203.0.113.{}", self.name.as_bytes()[0])})],
            false => Vec::new(),
        };
        let created = self.year.map(|year| format!("{year}-01-01T00:00:00Z"));
        let mut items = vec![json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": "n", "creationTimestamp": created},
            "spec": {"clusterIP": self.cluster_ip(), "type": kind, "externalIPs": external,
                "internalTrafficPolicy": policy(self.internal_local),
                "externalTrafficPolicy": policy(self.external_local),
                "ports": [{"port": 80, "nodePort": self.node_port}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        })];
        for (i, slice) in self.slices.iter().enumerate() {
            let endpoints: Vec<Value> = slice.iter().map(Endpoint::json).collect();
            items.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{}-{i}", self.name), "namespace": "n",
                    "labels": {"kubernetes.io/service-name": self.name}},
                "ports": [{"name": "", "port": 80}], "endpoints": endpoints,
            }));
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    fn endpoints(&self) -> Vec<&Endpoint> {
        self.slices.iter().flatten().collect()
    }

    /// Where connections go that a policy keeps on the node or does not.
    fn leads_to(&self, local: bool) -> BTreeSet<u8> {
        let all = self.endpoints();
        let may: Vec<_> = all
            .into_iter()
            .filter(|e| !local || e.node == Some("a"))
            .collect();
        let mut ready: Vec<_> = may.iter().filter(|e| e.ready != Some(false)).collect();
        if ready.is_empty() {
            let ends = |e: &&&Endpoint| e.serving != Some(false) && e.terminating == Some(true);
            return may.iter().filter(ends).map(|e| e.number).collect();
        }
        let hints: [(&str, Hints); 2] = [("a", |e| &e.for_nodes), ("east", |e| &e.for_zones)];
        for (here, hint) in hints {
            let all_say = ready.iter().all(|e| !hint(e).is_empty());
            let near = ready.iter().any(|e| hint(e).contains(&here));
            if !local && all_say && near {
                ready.retain(|e| hint(e).contains(&here));
                break;
            }
        }
        ready.iter().map(|e| e.number).collect()
    }

    /// What it claims besides its cluster IP.
    fn external(&self) -> Vec<String> {
        let mut claims = Vec::new();
        if self.balancer {
            claims.push(format!("203.0.113.{}:80", self.name.as_bytes()[0]));
        }
        claims.extend(self.external_ip.map(|n| format!("198.51.100.{n}:80")));
        claims.extend(self.node_port.map(|port| format!("node:{port}")));
        claims
    }
}

impl Endpoint {
    fn json(&self) -> Value {
        let names = |hints: &[&str]| -> Vec<Value> {
            hints.iter().map(|name| json!({"name": name})).collect()
        };
        json!({
            "addresses": [format!("10.0.0.{}", self.number)], "nodeName": self.node,
            "conditions": {"ready": self.ready, "serving": self.serving, "terminating": self.terminating},
            "hints": {"forZones": names(&self.for_zones), "forNodes": names(&self.for_nodes)},
        })
    }
}

/// Where a frontend leads: for those outside, for those inside, whether it drops, and whether it
/// keeps the source.
type Meaning = (BTreeSet<u8>, BTreeSet<u8>, bool, bool);

/// What the documentation says of all frontends, by service and place.
fn expected(services: &BTreeMap<&str, Plain>) -> BTreeMap<(String, String), Meaning> {
    let mut expected = BTreeMap::new();
    for service in services.values() {
        let meaning = |local: bool, keeps: bool| {
            let (outside, everywhere) = (service.leads_to(local), service.leads_to(false));
            let drops = outside.is_empty() && !everywhere.is_empty();
            let inside = if keeps { everywhere } else { outside.clone() };
            (outside, inside, drops, keeps)
        };
        let name = service.name.to_owned();
        let place = format!("{}:80", service.cluster_ip());
        expected.insert(
            (name.clone(), place),
            meaning(service.internal_local, false),
        );
        for claim in service.external() {
            let rivals = services
                .values()
                .filter(|other| other.external().contains(&claim));
            let winner = rivals.min_by_key(|s| (s.year.unwrap_or(u16::MAX), s.name));
            if winner.is_some_and(|winner| winner.name == service.name) {
                let local = service.external_local;
                expected.insert((name.clone(), claim), meaning(local, local));
            }
        }
    }
    expected
}

fn found(services: &[std::sync::Arc<Service>]) -> BTreeMap<(String, String), Meaning> {
    let mut found = BTreeMap::new();
    for service in services {
        let numbers = |places: &[u32]| -> BTreeSet<u8> {
            let names = names(service, places).into_iter();
            names
                .map(|name| name["10.0.0.".len()..name.len() - 3].parse().unwrap())
                .collect()
        };
        for frontend in &service.frontends {
            let address = frontend
                .address
                .map_or("node".to_owned(), |a| a.to_string());
            let place = format!("{address}:{}", frontend.port);
            let inside = frontend
                .inside_backends
                .as_ref()
                .unwrap_or(&frontend.backends);
            let meaning = (
                numbers(&frontend.backends),
                numbers(inside),
                frontend.drops,
                frontend.keeps_source,
            );
            found.insert((service.name.clone(), place), meaning);
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_frontend_leads_where_the_documentation_says(
        steps in prop::collection::vec((service(), any::<bool>()), 1..8),
    ) {
        let mut scene = Scene::new();
        let mut present = BTreeMap::new();
        for (service, stays) in steps {
            let file = format!("{}.json", service.name);
            if stays || !present.contains_key(service.name) {
                scene.apply(&file, &service.manifest());
                present.insert(service.name, service);
            } else {
                scene.store.remove(&file);
                present.remove(service.name);
            }
            prop_assert_eq!(scene.store.problems(), [] as [&str; 0]);
            let objects = scene.compiled().desired.services;
            prop_assert_eq!(found(&objects.services), expected(&present));
            // What is remembered makes no difference.
            let mut fresh = Compiler::new(ClusterConfig::of_node("a"));
            prop_assert_eq!(objects, fresh.compile(&scene.store, &[]).desired.services);
        }
    }
}
