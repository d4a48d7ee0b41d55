//! Runs one case of the pipeline so many batches long, for `perf-scripts/instructions.sh`, which counts its
//! instructions under callgrind: the one measure of a packet's cost that other load does not change.

mod setup;

use setup::CASES;

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(batches)) = (words.next(), words.next()) else {
        // As `cargo bench` and `cargo test` call it.
        return;
    };
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        return;
    };
    let mut bench = case.bench();
    for _ in 0..batches.parse().unwrap_or(0) {
        bench.run(case.packets);
    }
}
