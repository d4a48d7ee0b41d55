//! A node with AF_XDP sockets on the host ends of veth pairs whose other ends are in namespaces of their own, with
//! the kernel's stack behind them. All of it is in a private network namespace of the test's thread.

pub mod bpf;
pub mod net;
pub mod node;
