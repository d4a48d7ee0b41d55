//! Privileged broker of the UMEM, the bound sockets and the XDP links.

fn main() {}
