//! `weft-agent`.

fn main() {}
