//! Nanoseconds per packet of the whole pipeline. An id is action/family and size/batch; criterion's
//! throughput says packets per second, and ns per packet is time divided by the batch.

mod setup;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use setup::CASES;

fn cases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    for case in CASES {
        let mut bench = case.bench();
        group.throughput(Throughput::Elements(case.packets as u64));
        group.bench_function(format!("{}/{}", case.name, case.packets), |b| {
            b.iter_custom(|runs| (0..runs).map(|_| bench.run(case.packets)).sum());
        });
    }
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
}

criterion_group! {
    name = benches;
    config = config();
    targets = cases
}
criterion_main!(benches);
