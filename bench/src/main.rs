//! Traffic tools for tests and the benchmark matrix.

fn main() {}
