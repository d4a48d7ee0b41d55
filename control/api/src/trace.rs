//! What the live tables would do to a packet.

use serde::{Deserialize, Serialize};

use crate::flow::FlowStatus;
use crate::identity::PortName;

/// Largest payload of a described packet in bytes: with the largest headers it is still an IP packet.
pub const PAYLOAD_BYTES_MAX: u32 = 65_000;

/// What `trace` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuestion {
    /// The port it comes from: interface name, `NAMESPACE/POD` or `weft0`.
    pub port: String,
    /// The packet.
    pub packet: TracePacket,
}

/// A packet in words or as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum TracePacket {
    /// To be built.
    Described(PacketDescription),
    /// A whole frame, Ethernet header first, in hexadecimal digits.
    Frame {
        /// The digits.
        hex: String,
    },
}

/// A packet in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketDescription {
    /// IP protocol number: of TCP, UDP, SCTP, or of ICMP, which between IPv6 addresses is taken for ICMPv6.
    pub protocol: u8,
    /// Address or `NAMESPACE/POD`; the port's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Address or `NAMESPACE/POD`.
    pub destination: String,
    /// Source port.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port.
    #[serde(default)]
    pub destination_port: u16,
    /// The flags byte of a TCP header (RFC 9293 section 3.1).
    #[serde(default)]
    pub tcp_flags: u8,
    /// Bytes of payload, at most [`PAYLOAD_BYTES_MAX`].
    #[serde(default)]
    pub payload_bytes: u32,
    /// The node that sends it through the tunnel: where the port is an uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_node: Option<String>,
}

/// Answer to `trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The port it came from.
    pub port: PortName,
    /// The packet's way.
    pub way: TraceWay,
    /// Ways of what the pipeline made because of it: ICMP errors, resets.
    pub born: Vec<TraceWay>,
    /// The connection that has these addresses and ports now. The packet was traced as the first of a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<FlowStatus>,
}

/// The way of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceWay {
    /// Stage by stage, those that had nothing to do left out.
    pub steps: Vec<TraceStep>,
    /// How it ends.
    pub verdict: TraceVerdict,
    /// The port it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Name of the drop reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The verdict in words.
    pub text: String,
}

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Name of the stage.
    pub stage: String,
    /// What it did, in words.
    pub text: String,
}

/// How a packet ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceVerdict {
    /// Sent to a pod or an uplink.
    Tx,
    /// Given to the node's own stack.
    Host,
    /// Dropped.
    Drop,
    /// Taken by the pipeline.
    Consumed,
}
