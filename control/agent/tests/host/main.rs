//! The host set-up against the real kernel, in private network namespaces. Needs root, `iproute2`,
//! `nftables` and `ethtool`.

mod masquerade;
mod namespace;
mod routes;
mod sysctl;
mod underlay;
mod weft0;
