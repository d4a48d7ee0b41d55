//! What compiling services costs in a large cluster: 10,000 services with 10 endpoints each; from
//! nothing, and after one endpoint changed. `objects` is the list for the dataplane made of them.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use weft_model::compile::{ClusterConfig, Compiler};
use weft_model::state::Store;

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;

fn service(number: usize) -> String {
    let (high, low) = (number / 250, 1 + number % 250);
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s-{number}, namespace: shop}}, spec: {{type: NodePort, \
         clusterIP: 10.96.{high}.{low}, ports: [{{name: http, port: 80, nodePort: {}}}]}}}}\n",
        20_000 + number
    )
}

fn slice(number: usize, ready: bool) -> String {
    let (high, low) = (number / 250, 1 + number % 250);
    let endpoint = |n: usize| {
        let ready = ready || n > 0;
        format!(
            "{{addresses: [10.{}.{high}.{low}], nodeName: n-{n}, conditions: {{ready: {ready}}}, \
             targetRef: {{kind: Pod, name: s-{number}-{n}, namespace: shop}}}}",
            128 + n
        )
    };
    let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s-{number}, namespace: shop, \
         labels: {{kubernetes.io/service-name: s-{number}}}}}, addressType: IPv4, ports: [{{name: http, port: 8080}}], \
         endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

fn store() -> Store {
    let mut store = Store::default();
    for number in 0..SERVICES {
        store.apply(&format!("s-{number}"), service(number).as_bytes());
        store.apply(&format!("e-{number}"), slice(number, true).as_bytes());
    }
    assert_eq!(store.problems(), [] as [&str; 0]);
    store
}

fn compile(criterion: &mut Criterion) {
    let base = store();
    let mut group = criterion.benchmark_group("services");
    group.sample_size(10);
    let new = || Compiler::new(ClusterConfig::of_node("a"));
    group.bench_function("everything", |bench| {
        bench.iter_batched(new, |mut c| c.compile(&base, &[]), BatchSize::PerIteration);
    });
    let mut compiler = new();
    let desired = compiler.compile(&base, &[]).desired;
    assert_eq!(desired.services.services.len(), SERVICES);
    group.bench_function("nothing changed", |bench| {
        bench.iter(|| compiler.compile(&base, &[]));
    });
    let stores = [true, false].map(|ready| {
        let mut store = base.clone();
        store.apply("e-77", slice(77, ready).as_bytes());
        store
    });
    let mut turn = 0;
    group.bench_function("an endpoint", |bench| {
        bench.iter(|| {
            turn += 1;
            compiler.compile(&stores[turn % 2], &[])
        });
    });
    group.bench_function("objects", |bench| {
        bench.iter(|| desired.objects().count());
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
