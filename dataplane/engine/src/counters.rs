//! What a pipeline counts. Plain numbers of one worker; the worker publishes them.

use crate::drop_reason::DropReason;
use crate::packet::{Packet, Verdict};
use crate::table::flow::FlowCounters;

/// The stages, in pipeline order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Lengths and headers.
    Parse,
    /// Tunnel headers off.
    Decap,
    /// No spoofing.
    Source,
    /// ARP, neighbour discovery and ping of the gateway.
    Gateway,
    /// Which worker goes on with a packet.
    Owner,
    /// Which connection a packet belongs to.
    Conntrack,
    /// Services' addresses to backends' and back.
    Service,
    /// Whether the connection may be.
    Policy,
    /// Later fragments follow the first.
    Fragment,
    /// FIB, TTL and size.
    Route,
    /// MAC addresses, TTL, MSS.
    Rewrite,
    /// Tunnel headers on.
    Encap,
    /// Checksums completed, packets cut.
    Offload,
}

impl Stage {
    /// All stages, in pipeline order.
    pub const ALL: [Self; 13] = [
        Self::Parse,
        Self::Decap,
        Self::Source,
        Self::Gateway,
        Self::Owner,
        Self::Conntrack,
        Self::Service,
        Self::Policy,
        Self::Fragment,
        Self::Route,
        Self::Rewrite,
        Self::Encap,
        Self::Offload,
    ];

    /// Number of stages.
    pub const COUNT: usize = Self::ALL.len();

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Decap => "decap",
            Self::Source => "source",
            Self::Gateway => "gateway",
            Self::Owner => "owner",
            Self::Conntrack => "conntrack",
            Self::Service => "service",
            Self::Policy => "policy",
            Self::Fragment => "fragment",
            Self::Route => "route",
            Self::Rewrite => "rewrite",
            Self::Encap => "encap",
            Self::Offload => "offload",
        }
    }
}

/// How packets can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Sent to a pod or an uplink.
    Tx,
    /// Sent to the node's own stack.
    Host,
    /// Dropped.
    Drop,
    /// Taken by the pipeline.
    Consumed,
    /// Sent as part of another packet.
    Merged,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] = [
        Self::Tx,
        Self::Host,
        Self::Drop,
        Self::Consumed,
        Self::Merged,
    ];

    /// Number of outcomes.
    pub const COUNT: usize = Self::ALL.len();

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Host => "host",
            Self::Drop => "drop",
            Self::Consumed => "consumed",
            Self::Merged => "merged",
        }
    }
}

/// Counters of one pipeline since it was made.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Packets each stage looked at, by [`Stage`].
    pub stages: [u64; Stage::COUNT],
    /// Packets by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Drops by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
    /// Packets the pipeline made; each has an outcome too.
    pub born: u64,
    /// ICMP errors not sent because the port's rate limit was reached.
    pub icmp_limited: u64,
    /// Connections.
    pub flows: FlowCounters,
}

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            stages: [0; Stage::COUNT],
            outcomes: [0; Outcome::COUNT],
            drops: [0; DropReason::COUNT],
            born: 0,
            icmp_limited: 0,
            flows: FlowCounters::new(),
        }
    }

    /// Counts a drop the worker decided after the pipeline, such as a full transmit ring: the packet
    /// moves from `tx` (or `host`) to `drop`.
    pub fn dropped_late(&mut self, host: bool, reason: DropReason) {
        let sent = if host { Outcome::Host } else { Outcome::Tx };
        let sent = &mut self.outcomes[sent as usize];
        *sent = sent.saturating_sub(1);
        self.drop(reason);
    }

    /// Counts a packet that could not be handed over: no outcome was counted for it yet.
    pub fn dropped_at_handover(&mut self) {
        self.drop(DropReason::HandoffFull);
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.outcomes[Outcome::Drop as usize] += 1;
        self.drops[reason.index()] += 1;
    }

    pub(crate) fn seen(&mut self, stage: Stage, packets: usize) {
        self.stages[stage as usize] += packets as u64;
    }

    /// Counts the outcome of each packet.
    pub(crate) fn conclude(&mut self, packets: &[Packet], node_port: Option<crate::PortId>) {
        for packet in packets {
            match packet.verdict {
                Verdict::Tx(port) if Some(port) == node_port => {
                    self.outcomes[Outcome::Host as usize] += 1;
                }
                Verdict::Tx(_) => self.outcomes[Outcome::Tx as usize] += 1,
                Verdict::Drop(reason) => self.drop(reason),
                Verdict::Consumed => self.outcomes[Outcome::Consumed as usize] += 1,
                Verdict::Merged => self.outcomes[Outcome::Merged as usize] += 1,
                // Counted where its way ends.
                Verdict::HandOver(_) => {}
                Verdict::Pending => unreachable!("the last stage leaves no packet undecided"),
            }
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
