//! What compiling policies costs in a large cluster: 10,000 pods with two addresses each in 100
//! namespaces, 1,000 NetworkPolicies, 110 pods on this node; from nothing, and after one change.
//! `workloads` are pods in sets of ten, `single` pods of which no two have the same labels.
//!
//! First a line for each with the shortest time, to be held against what a node may take for it: 2 s for everything,
//! 20 ms for one label. Processor time stands beside it, which other programs disturb less.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group};
use nix::time::{ClockId, clock_gettime};
use weft_api::PodRef;
use weft_model::compile::{ClusterConfig, Compiler, LocalPod};
use weft_model::state::Store;

const NAMESPACES: usize = 100;
const PODS_PER_NAMESPACE: usize = 100;
const POLICIES_PER_NAMESPACE: usize = 10;
const LOCAL_PODS: usize = 110;

fn pod(namespace: usize, number: usize, pods_per_set: usize, extra: &str) -> String {
    let app = number / pods_per_set;
    let (a, b) = (namespace, number + 1);
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: pod-{number}, namespace: ns-{namespace}, \
         labels: {{app: app-{app}, tier: t{}, team: team-{}, hash: h{app}{extra}}}}}, spec: \
         {{containers: [{{name: c, ports: [{{name: http, containerPort: {}}}]}}]}}, status: \
         {{phase: Running, podIPs: [{{ip: 10.{a}.0.{b}}}, {{ip: 'fd00:{a:x}::{b:x}'}}]}}}}",
        number % 3,
        namespace % 10,
        8000 + number % 4,
    )
}

fn policy(namespace: usize, number: usize, port: u16) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: policy-{number}, \
         namespace: ns-{namespace}}}, spec: {{podSelector: {{matchLabels: {{app: app-{number}}}}}, \
         policyTypes: [Ingress, Egress], ingress: [{{from: [{{podSelector: {{matchLabels: {{tier: \
         t{}}}}}}}, {{namespaceSelector: {{matchLabels: {{team: team-{}}}}}, podSelector: \
         {{matchExpressions: [{{key: app, operator: In, values: [app-{number}, app-0]}}]}}}}], ports: \
         [{{port: http}}, {{port: {port}, endPort: {}}}]}}], egress: [{{to: [{{namespaceSelector: {{}}}}], \
         ports: [{{port: http}}]}}, {{to: [{{ipBlock: {{cidr: 10.0.0.0/8, except: \
         [10.{namespace}.0.0/24]}}}}]}}]}}}}",
        number % 3,
        (namespace + number) % 10,
        port + 10,
    )
}

fn store(pods_per_set: usize) -> Store {
    let mut store = Store::default();
    let mut apply = |file: String, text: String| {
        store.apply(&file, text.as_bytes());
    };
    for namespace in 0..NAMESPACES {
        let text = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: ns-{namespace}, labels: {{team: team-{}}}}}}}",
            namespace % 10
        );
        apply(format!("ns-{namespace}"), text);
        for number in 0..PODS_PER_NAMESPACE {
            let text = pod(namespace, number, pods_per_set, "");
            apply(format!("pod-{namespace}-{number}"), text);
        }
        for number in 0..POLICIES_PER_NAMESPACE {
            let text = policy(namespace, number, 9000);
            apply(format!("policy-{namespace}-{number}"), text);
        }
    }
    assert_eq!(store.problems(), [] as [&str; 0]);
    store
}

fn local_pods() -> Vec<LocalPod> {
    let local = |number: usize| {
        let (namespace, number) = (number % NAMESPACES, number / NAMESPACES);
        LocalPod {
            host_ports: Vec::new(),
            pod: PodRef {
                namespace: format!("ns-{namespace}"),
                name: format!("pod-{number}"),
            },
            addresses: vec![
                [
                    10,
                    u8::try_from(namespace).unwrap_or(0),
                    0,
                    u8::try_from(number + 1).unwrap_or(1),
                ]
                .into(),
            ],
        }
    };
    (0..LOCAL_PODS).map(local).collect()
}

fn compile(criterion: &mut Criterion) {
    let local = local_pods();
    for (name, pods_per_set) in [("workloads", 10), ("single", 1)] {
        let base = store(pods_per_set);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        let new = || Compiler::new(ClusterConfig::of_node("a"));
        group.bench_function("everything", |bench| {
            bench.iter_batched(
                new,
                |mut c| c.compile(&base, &local),
                BatchSize::PerIteration,
            );
        });
        let mut compiler = new();
        let compiled = compiler.compile(&base, &local);
        assert!(compiled.desired.policy.endpoints.len() >= 100);
        group.bench_function("nothing changed", |bench| {
            bench.iter(|| compiler.compile(&base, &local));
        });
        let labelled = |extra: &str| {
            let mut store = base.clone();
            store.apply("pod-7-0", pod(7, 0, pods_per_set, extra).as_bytes());
            store
        };
        let ported = |port: u16| {
            let mut store = base.clone();
            store.apply("policy-7-0", policy(7, 0, port).as_bytes());
            store
        };
        let pairs = [
            ("a pod's label", [labelled("a"), labelled("b")]),
            ("a policy", [ported(7000), ported(6000)]),
        ];
        for (change, stores) in pairs {
            let mut turn = 0;
            group.bench_function(change, |bench| {
                bench.iter(|| {
                    turn += 1;
                    compiler.compile(&stores[turn % 2], &local)
                });
            });
        }
        group.finish();
    }
}

/// The shortest of some runs, by the wall clock and by the processor's.
fn shortest<T>(runs: usize, mut run: impl FnMut() -> T) -> (Duration, Duration) {
    let processor = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let mut shortest = (Duration::MAX, Duration::MAX);
    for _ in 0..runs {
        let (wall, before) = (Instant::now(), processor());
        drop(run());
        let (wall, after) = (wall.elapsed(), processor());
        let used = after
            .unwrap_or_default()
            .saturating_sub(before.unwrap_or_default());
        shortest = (shortest.0.min(wall), shortest.1.min(used));
    }
    shortest
}

fn limits() {
    let local = local_pods();
    for (name, pods_per_set) in [("workloads", 10), ("single", 1)] {
        let base = store(pods_per_set);
        let full = shortest(3, || {
            Compiler::new(ClusterConfig::of_node("a")).compile(&base, &local)
        });
        let mut compiler = Compiler::new(ClusterConfig::of_node("a"));
        compiler.compile(&base, &local);
        let labelled = ["a", "b"].map(|extra| {
            let mut store = base.clone();
            store.apply("pod-7-0", pod(7, 0, pods_per_set, extra).as_bytes());
            store
        });
        let mut turn = 0;
        let label = shortest(50, || {
            turn += 1;
            compiler.compile(&labelled[turn % 2], &local)
        });
        println!(
            "{name}: 10,000 pods x 1,000 policies: everything {:.0?} (processor {:.0?}, at most 2 s), \
             one label {:.1?} (processor {:.1?}, at most 20 ms)",
            full.0, full.1, label.0, label.1
        );
    }
}

criterion_group!(benches, compile);

fn main() {
    limits();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
