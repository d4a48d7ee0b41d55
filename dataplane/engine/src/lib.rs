//! The packet pipeline: pure stages over batches, and their tables.
//!
//! No sockets, no clocks, no threads: a worker hands in received packets, the tables in force, memory
//! and the time, and gets back packets with verdicts. Start reading at [`pipeline`]; then one file per
//! stage in `stage/`, in the order given there.
//!
//! | module | what it is |
//! |---|---|
//! | [`pipeline`] | the list of stages, and a worker's state |
//! | [`packet`], [`batch`] | what stages work on |
//! | [`drop_reason`], [`counters`] | what became of packets |
//! | [`tables`], [`builder`] | one version of everything looked up, and how versions are made |
//! | [`table`] | the data structures behind both; they know no packets |
//! | [`encap`] | tunnel headers |
//! | [`trace`] | packets seen between the stages |
//! | `verdict_log` | what the policy stage decided, for who asks |
//!
//! Every packet ends with exactly one verdict, and every frame with the caller, the pool or in
//! [`Pipeline::held`].
#![forbid(unsafe_code)]

pub mod batch;
pub mod builder;
mod chain;
pub mod counters;
pub mod drop_reason;
pub mod encap;
#[doc(hidden)]
pub mod fuzz;
mod icmp;
mod outside;
pub mod packet;
pub mod pipeline;
mod pmtu;
mod reset;
mod stage;
pub mod table;
pub mod tables;
#[doc(hidden)]
pub mod testbed;
pub mod trace;
mod verdict_log;

pub use batch::{BATCH_FRAMES_MAX, BATCH_MAX, BORN_MAX, Batch};
pub use builder::{PORTS_MAX, REMOTES_MAX, RangeKind, TableError, TablesBuilder};
pub use counters::{Counters, Outcome, Stage};
pub use drop_reason::DropReason;
pub use packet::{
    Checksum, Egress, Network, NextHop, Origin, Packet, PortId, PortKind, RemoteId, Verdict,
};
pub use pipeline::{Env, FLOWS_DEFAULT, Pipeline, PipelineConfig};
pub use pmtu::PmtuReport;
pub use table::fib::{Fib, Route};
pub use table::flow::{Direction, FlowFilter, FlowInfo, FlowTable};
pub use table::policy::{
    Decision, PolicyBuilder, PolicyCounters, PolicyDirection, RULES_COUNTED_MAX, Rule, RuleId,
    RuleVerdict, Traffic,
};
pub use table::service::{
    Algorithm, Backend, BackendId, FrontendKey, FrontendSpec, ServiceBuilder, ServiceId,
    ServiceSpec,
};
pub use tables::{Connection, Judgement, NodeTable, OuterPath, PortEntry, Remote, Side, Tables};
pub use verdict_log::{PolicyVerdict, VerdictLog};
pub use weft_wire::{MacAddr, Vni};
