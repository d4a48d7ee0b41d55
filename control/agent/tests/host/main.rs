//! The host set-up against the real kernel, in private network namespaces. Needs root, `iproute2`,
//! `nftables` and `ethtool`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod masquerade;
mod namespace;
mod routes;
mod sysctl;
mod underlay;
mod weft0;
