//! The node agent: the shell of IO around `weft-model`.
//!
//! It reads the desired state ([`watch`]), hands out addresses to the CNI plugin ([`cni_server`],
//! [`attach`]), sets up the node's own stack ([`host`]) and keeps the dataplane's tables as the
//! desired state says ([`push`]). Everything meets in [`state::Agent`]. The agent can stop at any
//! time: nothing it did on the host or in the dataplane is undone by its end.

pub mod attach;
pub mod cni_server;
pub mod dataplane;
pub mod desired;
pub mod host;
pub mod state;
