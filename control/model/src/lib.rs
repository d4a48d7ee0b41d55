//! Desired state: Kubernetes objects in, dataplane objects out, and address allocation; no IO.
//!
//! Bytes of manifests become typed objects ([`manifest`]), the objects of all files become the
//! desired state ([`state`]), the desired state and the name of the local node become table objects
//! ([`compile`]), and two sets of table objects become the messages between them ([`diff`]).
//! [`ipam`] hands out the pods' addresses. Time and bytes are arguments everywhere.
//!
//! ```
//! use weft_model::compile::{ClusterConfig, Compiler};
//! use weft_model::state::Store;
//!
//! let mut store = Store::default();
//! let node = "{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDR: 10.1.0.0/24}}";
//! store.apply("node.yaml", node.as_bytes());
//! let compiled = Compiler::new(ClusterConfig::of_node("a")).compile(&store, &[]);
//! let weft0 = &compiled.desired.local.unwrap().node_port_addresses[0];
//! assert_eq!(weft0.to_string(), "10.1.0.1");
//! ```
#![forbid(unsafe_code)]

pub mod compile;
pub mod diff;
pub mod facts;
#[doc(hidden)]
pub mod fuzz;
pub mod ipam;
pub mod manifest;
pub mod state;
