//! The node agent: the shell of IO around `weft-model`.
//!
//! It reads the desired state ([`watch`], [`desired`]), hands out addresses to the CNI plugin
//! ([`cni_server`], [`attach`]), sets up the node's own stack ([`host`]), answers load balancers ([`health_check`]) and keeps the dataplane's
//! tables and ports as they should be ([`push`]). Everything meets in [`state::Agent`]. The agent
//! can stop at any time: nothing it did on the host or in the dataplane is undone by its end.

pub mod attach;
pub mod attachments;
pub mod cni_server;
pub mod dataplane;
pub mod desired;
pub mod health_check;
pub mod host;
pub mod ipam_store;
pub mod options;
pub mod push;
pub mod run;
pub mod state;
pub mod status;
pub mod watch;
