//! The node agent: watches desired state, allocates addresses, sets up the host, feeds the dataplane.

fn main() {}
