//! The switching process: pinned workers around the pipeline.

fn main() {}
