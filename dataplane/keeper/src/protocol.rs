//! The messages of `keeper.sock`.
//!
//! One JSON document per line, as on weft's other control sockets. A request is
//! `{"id":N,"op":"…",…}`; its answer repeats the id, says how many descriptors come with it, and holds
//! `"ok"` or `"error"`. Descriptors travel as SCM_RIGHTS in the order of the answer's queues, behind each
//! port's the packet socket: the
//! first [`DESCRIPTORS_PER_MESSAGE`] with the answer's line, the next ones with empty lines after it.
//!
//! One connection at a time holds the session (`hello`). It ends with the connection; what was bound
//! stays.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_api::dataplane::{Counter, Feature, PortKind};
use weft_api::envelope::Outcome;
use weft_xsk::{RingSizes, Socket, SocketError};

/// Version of this protocol. Keeper and dataplane are upgraded apart, so fields are only ever added;
/// a keeper refuses versions it does not know.
pub const PROTOCOL_VERSION: u32 = 1;

/// Descriptors in one message. The kernel's bound is 253 (`SCM_MAX_FD`); 64 keeps the receiver's
/// control buffer small.
pub const DESCRIPTORS_PER_MESSAGE: usize = 64;

/// Longest port description, encoded. The keeper holds it for the dataplane and never looks inside;
/// 64 KiB is far above any real one and bounds the keeper's memory.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Workers that can have memory for connections: one a core, and more than any node has.
pub const WORKERS_MAX: u16 = 1024;

/// Largest memory for the connections of a worker: two million of them at 281 bytes fit.
pub const FLOWS_BYTES_MAX: u64 = 1 << 30;

/// What can be asked of the keeper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Takes the session. Answers [`Session`] and the memory's descriptor.
    Hello {
        /// The caller's [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// Everything bound. Answers [`PortRecords`] and one descriptor per queue.
    Ports,
    /// Binds sockets to an interface, attaches the program. Answers [`PortRecord`] and one descriptor
    /// per queue. When it fails nothing stays.
    Bind(BindRequest),
    /// Ends what a `bind` with `hold` began: binds the sockets, attaches the program. Answers [`PortRecord`]; a port
    /// that is not held is success. When it fails the port stays held.
    Activate {
        /// The port.
        port: u16,
    },
    /// Replaces the description of a port. Answers [`Done`].
    Configure {
        /// The port.
        port: u16,
        /// Its new description.
        config: serde_json::Value,
    },
    /// Detaches the program and closes the keeper's descriptors; an unknown port is success. Answers
    /// [`Done`].
    Unbind {
        /// The port.
        port: u16,
    },
    /// Says what the uplinks take: the whole state. Answers [`Done`].
    Steer(Steering),
    /// Memory for the connections of one worker. Answers [`FlowsRecord`] and its descriptor.
    Flows(FlowsRequest),
    /// The maps of shortcuts, the same in every session. Answers [`Done`] and their descriptors, as
    /// [`weft_xdp_progs::ShortcutMaps::open`] takes them.
    Shortcuts,
    /// How the keeper is. Needs no session. Answers [`KeeperStatus`].
    Status,
}

impl Op {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Ports => "ports",
            Self::Bind(_) => "bind",
            Self::Activate { .. } => "activate",
            Self::Configure { .. } => "configure",
            Self::Unbind { .. } => "unbind",
            Self::Steer(_) => "steer",
            Self::Flows(_) => "flows",
            Self::Shortcuts => "shortcuts",
            Self::Status => "status",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id; 0 when it could not be read.
    pub id: u64,
    /// Descriptors that come with this answer.
    #[serde(default)]
    pub descriptors: usize,
    /// The result or what went wrong.
    #[serde(flatten)]
    pub outcome: Outcome<serde_json::Value>,
}

/// An empty answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The keeper's [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The keeper's process id.
    pub pid: u32,
    /// Frames in the memory.
    pub frames: u32,
    /// Sessions before this one: how often a dataplane was restarted on this keeper.
    pub restarts: u64,
    /// What this kernel offers.
    pub features: Vec<Feature>,
}

/// An interface to bind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindRequest {
    /// Its name in the keeper's network namespace.
    pub ifname: String,
    /// Pods and the node's port get the program that takes everything, uplinks the one that chooses.
    pub kind: PortKind,
    /// Receive queues 0 up to this; absent for every one the device uses.
    #[serde(default)]
    pub queues: Option<u32>,
    /// Zero-copy where the driver can. A wish: see [`QueueRecord::mode`].
    #[serde(default)]
    pub zero_copy: bool,
    /// Path of the network namespace that holds a pod's end of the interface; absent: the
    /// keeper's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Answer with sockets that are not bound yet, for the caller to map and then to `activate`: before Linux 6.4 the
    /// rings of a bound socket cannot be mapped. Copy mode, nothing of multi-buffer. A port that is still held when
    /// the session ends goes with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Held for the next dataplane; see [`CONFIG_BYTES_MAX`].
    #[serde(default)]
    pub config: serde_json::Value,
}

impl BindRequest {
    /// Every queue, copy mode, no description.
    pub fn new(ifname: impl Into<String>, kind: PortKind) -> Self {
        Self {
            ifname: ifname.into(),
            kind,
            queues: None,
            zero_copy: false,
            netns: None,
            hold: false,
            config: serde_json::Value::Null,
        }
    }
}

/// A bound interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRecord {
    /// Stable while bound, below [`crate::registry::PORTS_MAX`].
    pub id: u16,
    /// Name at the time of binding.
    pub ifname: String,
    /// Index at the time of binding.
    pub ifindex: u32,
    /// What it was bound as.
    pub kind: PortKind,
    /// Its sockets; the descriptors follow in this order.
    pub queues: Vec<QueueRecord>,
    /// One more descriptor follows the queues': a packet socket that sends by this interface
    /// ([`weft_xsk::PacketSocket`]). Absent from a zero-copy uplink and from keepers that had none.
    #[serde(default)]
    pub packet_socket: bool,
    /// Packets may go by it past the dataplane ([`weft_xdp_progs::Shortcut`]). False from keepers that did not say.
    #[serde(default)]
    pub shortcuts: bool,
    /// Where its program runs; of a held port, where it may.
    pub xdp_mode: XdpMode,
    /// As given.
    pub config: serde_json::Value,
}

/// One bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// Receive queue of the device.
    pub queue: u32,
    /// XSK slot, unique among all sockets of the keeper: the name the frame owner table uses.
    pub slot: u16,
    /// Ring sizes.
    pub rings: Rings,
    /// The mode in use.
    pub mode: SocketMode,
    /// Packets of many descriptors, both ways.
    pub multi_buffer: bool,
    /// Every transmit descriptor has metadata in front of it.
    pub tx_metadata: bool,
}

impl QueueRecord {
    /// Maps the socket that came with this record.
    ///
    /// # Errors
    /// When the rings cannot be mapped (kernels before 6.4 map only those of a held port).
    pub fn map(&self, socket: OwnedFd) -> Result<Socket, SocketError> {
        let mut mapped = Socket::map(socket, self.rings.into())?;
        mapped.set_port(self.slot);
        mapped.set_multi_buffer(self.multi_buffer);
        mapped.set_tx_metadata(self.tx_metadata);
        Ok(mapped)
    }
}

/// Ring sizes of a socket, in descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// Frames lent for receiving.
    pub fill: u32,
    /// Frames coming back from transmitting.
    pub completion: u32,
    /// Received descriptors.
    pub rx: u32,
    /// Descriptors to transmit.
    pub tx: u32,
}

impl Rings {
    /// All four of one size.
    pub const fn uniform(size: u32) -> Self {
        Self {
            fill: size,
            completion: size,
            rx: size,
            tx: size,
        }
    }
}

impl From<Rings> for RingSizes {
    fn from(rings: Rings) -> Self {
        Self {
            fill: rings.fill,
            completion: rings.completion,
            rx: rings.rx,
            tx: rings.tx,
        }
    }
}

/// How packets cross between the device and our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketMode {
    /// The kernel copies.
    Copy,
    /// The device reads and writes our memory.
    ZeroCopy,
}

impl SocketMode {
    /// `copy` or `zero-copy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<weft_xsk::Mode> for SocketMode {
    fn from(mode: weft_xsk::Mode) -> Self {
        match mode {
            weft_xsk::Mode::Copy => Self::Copy,
            weft_xsk::Mode::ZeroCopy => Self::ZeroCopy,
        }
    }
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// On socket buffers.
    Generic,
}

impl XdpMode {
    /// `native` or `generic`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<weft_xdp_progs::XdpMode> for XdpMode {
    fn from(mode: weft_xdp_progs::XdpMode) -> Self {
        match mode {
            weft_xdp_progs::XdpMode::Native => Self::Native,
            weft_xdp_progs::XdpMode::Generic => Self::Generic,
        }
    }
}

/// Answer to `ports`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortRecords {
    /// By id.
    pub ports: Vec<PortRecord>,
}

/// What the uplinks take from the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Tunnel endpoint addresses of this node.
    #[serde(default)]
    pub local_addresses: Vec<IpAddr>,
    /// Cluster VNI.
    #[serde(default)]
    pub vni: u32,
    /// UDP port of VXLAN.
    #[serde(default)]
    pub vxlan_port: u16,
    /// Pod prefixes that arrive unencapsulated.
    #[serde(default)]
    pub routed_prefixes: Vec<IpNet>,
    /// Addresses of services that are none of the node's own: fragments to them are taken.
    #[serde(default)]
    pub service_addresses: Vec<IpAddr>,
    /// Services for clients outside the cluster.
    #[serde(default)]
    pub frontends: Vec<SteeredFrontend>,
}

/// Services steered of each IP version.
pub const FRONTENDS_MAX: usize = weft_xdp_progs::intf::FRONTENDS_MAX;

/// Address, IP protocol and port where clients outside the cluster reach a service. A sequence on the wire, since there
/// may be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SteeredFrontend(pub IpAddr, pub u8, pub u16);

impl From<SteeredFrontend> for weft_xdp_progs::Frontend {
    fn from(SteeredFrontend(address, protocol, port): SteeredFrontend) -> Self {
        Self {
            address,
            protocol,
            port,
        }
    }
}

/// Memory of a worker's connections ([`weft_xsk::Region`]): the same for the same request, so that the
/// next dataplane finds them, until one with other `workers` or `bytes` comes. Then all of it is given
/// up, since connections are spread over workers by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsRequest {
    /// The worker, below `workers`.
    pub worker: u16,
    /// How many workers there are, at most [`WORKERS_MAX`].
    pub workers: u16,
    /// Size, at most [`FLOWS_BYTES_MAX`]. It costs memory only where it is touched.
    pub bytes: u64,
    /// Do not give what was there: it is of no use.
    #[serde(default)]
    pub fresh: bool,
}

/// Answer to `flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsRecord {
    /// The memory is that of an earlier request; else all of it is zero.
    pub kept: bool,
}

impl From<Steering> for weft_xdp_progs::Steering {
    fn from(steering: Steering) -> Self {
        Self {
            local_addresses: steering.local_addresses,
            vni: steering.vni,
            vxlan_port: steering.vxlan_port,
            routed_prefixes: steering.routed_prefixes,
            service_addresses: steering.service_addresses,
            frontends: steering.frontends.into_iter().map(Into::into).collect(),
        }
    }
}

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Frames in the memory.
    pub frames: u32,
    /// Sessions before the present (or else the last) one.
    pub restarts: u64,
    /// Process that holds the session.
    pub dataplane: Option<u32>,
    /// Everything bound.
    pub ports: Vec<PortRecord>,
    /// Packets by what the XDP programs decided.
    pub verdicts: Vec<Counter>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use weft_api::envelope::Request;

    fn encoded(op: Op) -> serde_json::Value {
        serde_json::to_value(Request { id: 7, body: op }).unwrap()
    }

    #[test]
    fn requests_keep_their_form_on_the_wire() {
        assert_eq!(
            encoded(Op::Hello { version: 1 }),
            json!({"id":7,"op":"hello","version":1})
        );
        assert_eq!(encoded(Op::Ports), json!({"id":7,"op":"ports"}));
        assert_eq!(
            encoded(Op::Unbind { port: 3 }),
            json!({"id":7,"op":"unbind","port":3})
        );
        let bind = json!({"id":7,"op":"bind","ifname":"weft1","kind":"pod","queues":null,"zero_copy":false,"config":null});
        assert_eq!(
            encoded(Op::Bind(BindRequest::new("weft1", PortKind::Pod))),
            bind
        );
    }

    #[test]
    fn a_request_for_connections_keeps_its_form_on_the_wire() {
        let request = FlowsRequest {
            worker: 1,
            workers: 2,
            bytes: 4096,
            fresh: false,
        };
        let line = json!({"id":7,"op":"flows","worker":1,"workers":2,"bytes":4096,"fresh":false});
        assert_eq!(encoded(Op::Flows(request)), line);
    }

    #[test]
    fn absent_optional_fields_have_defaults() {
        let op: Op =
            serde_json::from_value(json!({"op":"bind","ifname":"e","kind":"uplink"})).unwrap();
        assert_eq!(op, Op::Bind(BindRequest::new("e", PortKind::Uplink)));
        let op: Op = serde_json::from_value(json!({"op":"steer"})).unwrap();
        assert_eq!(op, Op::Steer(Steering::default()));
    }

    #[test]
    fn modes_have_the_names_people_see() {
        for mode in [SocketMode::Copy, SocketMode::ZeroCopy] {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
        for mode in [XdpMode::Native, XdpMode::Generic] {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
    }

    #[test]
    fn replies_round_trip() {
        let reply = Reply {
            id: 3,
            descriptors: 2,
            outcome: Outcome::Ok(json!({"a":1})),
        };
        let line = serde_json::to_string(&reply).unwrap();
        assert_eq!(line, r#"{"id":3,"descriptors":2,"ok":{"a":1}}"#);
        assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
    }
}
