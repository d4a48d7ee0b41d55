//! The weft command: what an operator types.

fn main() {}
