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
//! store.apply("node.yaml", b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.0.0/24}\n");
//! let tables = Compiler::new(ClusterConfig::of_node("a")).compile(&store);
//! assert_eq!(tables.local.unwrap().node_port_addresses, ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]);
//! ```
#![forbid(unsafe_code)]

pub mod compile;
