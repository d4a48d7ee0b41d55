//! The agent against the real kernel, in private network namespaces: the parts of the host set-up
//! one by one, and the program as it is shipped, between the plugin's calls and a dataplane that
//! only takes notes. Needs root, `iproute2`, `nftables`, `ethtool` and `util-linux`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod attachments;
mod connections;
mod dataplane;
mod host;
mod masquerade;
mod namespace;
mod node;
mod routes;
mod service_access;
mod sysctl;
mod underlay;
mod weft0;
