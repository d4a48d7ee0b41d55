//! Plain data structures of the pipeline. They know no packets.

pub mod fib;
pub mod flow;
pub mod fragment;
pub mod lpm;
pub mod policy;
pub mod service;
pub mod token_bucket;
