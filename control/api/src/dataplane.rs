//! Messages of `dataplane.sock`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::explain::{PolicyLogSpec, PolicyQuestion};
use crate::flow::FlowQuery;
use crate::identity::{PodRef, PortName};
use crate::mac::MacAddr;
use crate::object::{Key, Object};
use crate::service::ServiceQuery;
use crate::trace::TraceQuestion;

/// What can be asked of the dataplane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Who is there: answers [`Hello`].
    Hello {
        /// The caller's [`crate::PROTOCOL_VERSION`].
        version: u32,
    },
    /// Starts a full sync: objects not upserted again before `commit` are gone after it. Answers [`Done`].
    SyncBegin {
        /// Grows with every change the agent makes; an older one than in force is refused (Stale).
        generation: u64,
    },
    /// Adds or replaces objects. Inside a full sync they are staged until `commit`; outside they
    /// are in force when the answer comes. Answers [`Done`].
    Upsert {
        /// See `sync_begin`.
        generation: u64,
        /// Whole objects, not patches.
        objects: Vec<Object>,
    },
    /// Removes objects; unknown keys are ignored. Answers [`Done`].
    Delete {
        /// See `sync_begin`.
        generation: u64,
        /// The objects' keys.
        keys: Vec<Key>,
    },
    /// Ends a full sync: the staged objects replace the tables at once. Answers [`Done`].
    Commit {
        /// The one of `sync_begin`.
        generation: u64,
    },
    /// Attaches a port; answers [`PortAttached`] once packets flow. The same port with the same
    /// properties is success; with others they are replaced.
    PortAttach(PortSpec),
    /// Detaches a port and gives its frames back; an unknown port is success. Answers [`Done`].
    PortDetach {
        /// The port.
        name: PortName,
    },
    /// The ports and their counters: answers [`PortList`].
    PortList,
    /// The whole state for people and tests: answers [`Status`].
    Status,
    /// The policies of this node's pods, with counters: answers [`crate::explain::PolicyList`].
    PolicyList,
    /// Whether a connection may be, and who says so: answers
    /// [`crate::explain::PolicyExplained`].
    PolicyExplain(PolicyQuestion),
    /// Streams policy verdicts: answers [`crate::explain::PolicyLogStarted`], then the socket carries a
    /// [`crate::explain::PolicyLogEvent`] a line until the client closes it.
    PolicyLog(PolicyLogSpec),
    /// The tracked connections: answers [`crate::flow::FlowList`].
    FlowList(FlowQuery),
    /// The services and their connections: answers [`crate::service::ServiceList`].
    ServiceList(ServiceQuery),
    /// What the tables would do to a packet, which is not sent: answers [`crate::trace::Trace`].
    Trace(TraceQuestion),
    /// Streams packets: answers [`CaptureStarted`], then the socket carries a pcapng file until the
    /// client closes it or the limit is reached.
    Capture(CaptureSpec),
}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the dataplane.
    pub version: u32,
    /// Generation in force; 0 before the first commit.
    pub generation: u64,
    /// True once a full sync was committed since this process started.
    pub committed: bool,
}

/// An empty answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// The host end of a pod's veth.
    Pod,
    /// The dataplane's end of `weft0`.
    Node,
    /// An underlay interface.
    Uplink,
}

/// A port to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Interface name in the node's network namespace, and the port's name.
    pub name: PortName,
    /// Pod or node; uplinks come from the command line.
    pub kind: PortKind,
    /// MAC of the far end (the pod's `eth0`, the node's `weft0`): destination of what we send, the
    /// only source accepted from a pod.
    pub mac: MacAddr,
    /// Addresses of the far end; the only sources accepted from a pod.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet the far end accepts, in bytes.
    pub mtu: u32,
    /// The pod, where known.
    pub pod: Option<PodRef>,
    /// Path of the network namespace the far end is in; none: the node's own, or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// Answer to `port_attach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAttached {
    /// Id of the port in tables and traces.
    pub id: u16,
    /// `zero-copy` or `copy`.
    pub mode: String,
}

/// Answer to `port_list`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortList {
    /// All ports, by id.
    pub ports: Vec<PortStatus>,
}

/// One port as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Id of the port in tables and traces.
    pub id: u16,
    /// Interface name.
    pub name: PortName,
    /// What it is.
    pub kind: PortKind,
    /// The pod, where known.
    pub pod: Option<PodRef>,
    /// Addresses of the far end.
    pub addresses: Vec<IpAddr>,
    /// MAC of the far end; of an uplink, its own.
    pub mac: MacAddr,
    /// Largest IP packet.
    pub mtu: u32,
    /// Worker that owns it.
    pub worker: u16,
    /// Bound receive queues.
    pub queues: u16,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Counters.
    pub counters: PortCounters,
}

/// Counters of a port; rx and tx are relative to the port: rx comes from it, tx goes out by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, Ethernet header included.
    pub tx_bytes: u64,
    /// Packets received here that were dropped by the pipeline.
    pub drops: u64,
    /// Packets the kernel dropped before they reached us because no frame or ring slot was free.
    pub rx_kernel_drops: u64,
    /// Packets for this port dropped because its transmit ring stayed full.
    pub tx_ring_full: u64,
}

/// Answer to `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Times the process was started on the same keeper before this one.
    pub restarts: u64,
    /// Node name, once known.
    pub node: Option<String>,
    /// Generation in force.
    pub generation: u64,
    /// True once a full sync was committed since this process started.
    pub committed: bool,
    /// Kernel features: name → what is there or what its absence costs.
    pub features: Vec<Feature>,
    /// Workers.
    pub workers: Vec<WorkerStatus>,
    /// Frames.
    pub frames: FrameStatus,
    /// Packets by stage, in pipeline order: how many a stage saw.
    pub stages: Vec<Counter>,
    /// Packets by final verdict: `tx`, `host`, `drop`, `consumed` (answered or held by the pipeline), `merged`
    /// (sent as part of another).
    pub verdicts: Vec<Counter>,
    /// Drops by reason; every reason is listed, zero or not.
    pub drops: Vec<Counter>,
    /// Tracked connections: how many there are, and what became of others.
    #[serde(default)]
    pub flows: Vec<Counter>,
    /// Policies: how many rules, endpoints, identities and addresses there are, and packets denied.
    #[serde(default)]
    pub policy: Vec<Counter>,
    /// Connections between ports of this node that have a shortcut, and the packets and bytes that took one. They are in
    /// the ports' counters too, but no stage saw them.
    #[serde(default)]
    pub shortcuts: Vec<Counter>,
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// Remote nodes.
    pub remotes: Vec<RemoteStatus>,
}

/// A named count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Stable name.
    pub name: String,
    /// Packets.
    pub count: u64,
    /// A sentence for people, where the name alone does not say enough (drops).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A kernel feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Stable name, e.g. `tx-checksum`.
    pub name: String,
    /// Present in this kernel.
    pub present: bool,
    /// What its absence costs.
    pub cost: String,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Worker number.
    pub id: u16,
    /// Core it is pinned to; none when it may run anywhere.
    pub core: Option<u32>,
    /// Ports it owns.
    pub ports: u16,
    /// Bursts that found packets.
    pub busy_loops: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
    /// Packets handed to another worker.
    pub handoffs: u64,
}

/// Where the frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameStatus {
    /// Frames in the UMEM.
    pub total: u64,
    /// In the workers' pools.
    pub free: u64,
    /// Lent to the kernel in fill and receive rings.
    pub fill: u64,
    /// In transmit and completion rings.
    pub tx: u64,
    /// Held by the pipeline (early fragments).
    pub held: u64,
    /// Not accounted for; anything but 0 is a bug.
    pub leaked: u64,
}

/// A remote node as the dataplane reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteStatus {
    /// Node name.
    pub name: String,
    /// Its tunnel endpoint.
    pub vtep: IpAddr,
    /// Uplink, when a path is known.
    pub uplink: Option<String>,
    /// Next hop's MAC, when resolved.
    pub next_hop_mac: Option<MacAddr>,
    /// Largest inner IP packet, in bytes.
    pub mtu: u32,
}

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSpec {
    /// A port by name; none: every port.
    pub port: Option<PortName>,
    /// Bytes kept of each packet.
    pub snaplen: u32,
    /// Packets after which the capture ends; none: until the client closes.
    pub count: Option<u64>,
    /// Only packets that were dropped.
    pub drops_only: bool,
}

/// Answer to `capture`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStarted {}
