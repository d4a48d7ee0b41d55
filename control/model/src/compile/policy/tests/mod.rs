//! Policies as somebody writes them, and what comes of them.

use std::net::IpAddr;

use weft_api::PodRef;

use super::testing::Packet;
use super::testing::interpreter::{Tables, Verdict};
use super::{LocalPod, PolicyObjects};
use crate::compile::{ClusterConfig, Compiled, Compiler};
use crate::state::Store;

mod broken;
mod cluster_policy;
mod identity;
mod network_policy;
mod security_group;

/// Three namespaces; every pod has two addresses, is local, and serves http at 80 and dns at 53.
const PODS: [(&str, &str, &str); 5] = [
    ("shop/web", "app: web, tier: front", "10.0.0.1"),
    ("shop/db", "app: db", "10.0.0.2"),
    ("bank/web", "app: web, tier: back", "10.0.0.3"),
    ("bank/vault", "app: vault", "10.0.0.4"),
    ("lab/odd", "", "10.0.0.5"),
];

const SURROUNDINGS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {team: blue}}
---
apiVersion: v1
kind: Node
metadata: {name: a, labels: {zone: east}}
spec: {podCIDRs: [10.0.8.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: b, labels: {zone: west}}
spec: {podCIDRs: [10.0.9.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
";

struct Scene {
    store: Store,
    local: Vec<LocalPod>,
    compiler: Compiler,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            store: Store::default(),
            local: Vec::new(),
            compiler: Compiler::new(ClusterConfig::of_node("a")),
        };
        scene.apply("surroundings", SURROUNDINGS);
        for (pod, labels, address) in PODS {
            let (namespace, name) = pod.split_once('/').unwrap();
            scene.local.push(LocalPod {
                host_ports: Vec::new(),
                pod: PodRef {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                },
                addresses: vec![address.parse().unwrap()],
            });
            scene.apply(pod, &pod_text(pod, labels, ""));
        }
        scene
    }

    /// With policies of `networking.k8s.io/v1`: namespace and spec.
    fn with(policies: &[(&str, &str)]) -> Self {
        let mut scene = Self::new();
        for (number, (namespace, spec)) in policies.iter().enumerate() {
            scene.policy(&format!("p{number}"), namespace, spec);
        }
        assert_eq!(scene.problems(), [] as [&str; 0]);
        scene
    }

    fn apply(&mut self, file: &str, text: &str) {
        self.store.apply(file, text.as_bytes());
    }

    fn policy(&mut self, name: &str, namespace: &str, spec: &str) {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
        self.apply(name, &text);
    }

    fn compiled(&mut self) -> Compiled {
        self.compiler.compile(&self.store, &self.local)
    }

    fn objects(&mut self) -> PolicyObjects {
        self.compiled().desired.policy
    }

    /// Of files and of what compiling found.
    fn problems(&mut self) -> Vec<String> {
        let mut problems = self.store.problems();
        problems.extend(self.compiled().problems);
        problems
    }

    /// Whether a connection may be: both ends are asked. `traffic` is like `TCP/80`.
    fn allows(&mut self, from: &str, to: &str, traffic: &str) -> bool {
        self.denial(from, to, traffic).is_none()
    }

    /// Object and place of the rule that denies it.
    fn denial(&mut self, from: &str, to: &str, traffic: &str) -> Option<String> {
        let tables = Tables::of(self.compiled().desired.objects());
        let packet = packet(from, to, traffic);
        let denied = |verdict| match verdict {
            Verdict::Denied(origin) => Some(format!("{} {}", origin.object, origin.rule)),
            Verdict::Allowed(_) | Verdict::NoRules => None,
        };
        denied(tables.egress(&packet)).or_else(|| denied(tables.ingress(&packet)))
    }

    /// Sources that may connect to `to`, of all pods.
    fn sources(&mut self, to: &str, traffic: &str) -> Vec<&'static str> {
        let pods = PODS.map(|(pod, ..)| pod).into_iter();
        let others = pods.filter(|pod| *pod != to);
        others.filter(|pod| self.allows(pod, to, traffic)).collect()
    }

    /// Destinations `from` may connect to, of all pods.
    fn destinations(&mut self, from: &str, traffic: &str) -> Vec<&'static str> {
        let pods = PODS.map(|(pod, ..)| pod).into_iter();
        let others = pods.filter(|pod| *pod != from);
        others
            .filter(|pod| self.allows(from, pod, traffic))
            .collect()
    }
}

fn pod_text(pod: &str, labels: &str, spec: &str) -> String {
    let (namespace, name) = pod.split_once('/').unwrap();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{{spec}containers: [{{name: c, ports: [{{name: http, containerPort: 80}}, \
         {{name: dns, containerPort: 53, protocol: UDP}}]}}]}}\n"
    )
}

/// An address, or a pod's.
fn address(end: &str) -> IpAddr {
    let pod = PODS.iter().find(|(pod, ..)| *pod == end);
    pod.map_or(end, |(.., address)| address).parse().unwrap()
}

fn packet(from: &str, to: &str, traffic: &str) -> Packet {
    let (protocol, port) = traffic.split_once('/').unwrap();
    let number = ["ICMP", "TCP", "UDP", "SCTP"]
        .iter()
        .position(|p| *p == protocol);
    Packet {
        source: address(from),
        destination: address(to),
        protocol: [1, 6, 17, 132][number.unwrap()],
        port: port.parse().unwrap(),
    }
}
