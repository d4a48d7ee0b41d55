//! Attached ports: what the keeper bound, what the agent said about them, and which worker serves
//! which queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::PortName;
use weft_api::dataplane::{PortCounters, PortKind, PortSpec, PortStatus};
use weft_engine::PortId;
use weft_keeper::protocol::PortRecord;
use weft_snapshot::SharedCounters;

use crate::queue::QueueCounter;
use crate::snapshot::Home;

/// Queues of one port that are served.
pub const QUEUES_MAX: usize = 16;

/// One attached port.
pub struct AttachedPort {
    /// What the keeper bound.
    pub record: PortRecord,
    /// What it is for.
    pub spec: PortSpec,
    /// Its queues and their workers.
    pub homes: Vec<Home>,
    /// The queues' counters.
    pub counters: Vec<Arc<SharedCounters>>,
}

/// All attached ports, by id.
#[derive(Default)]
pub struct Ports(BTreeMap<u16, AttachedPort>);

impl Ports {
    /// Adds a port.
    pub fn insert(&mut self, port: AttachedPort) {
        self.0.insert(port.record.id, port);
    }

    /// Takes a port out.
    pub fn remove(&mut self, id: u16) -> Option<AttachedPort> {
        self.0.remove(&id)
    }

    /// A port by name.
    pub fn named(&self, name: &PortName) -> Option<&AttachedPort> {
        self.0.values().find(|port| port.spec.name == *name)
    }

    /// A port by id.
    pub fn get(&self, id: u16) -> Option<&AttachedPort> {
        self.0.get(&id)
    }

    /// A port by id, to change it.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut AttachedPort> {
        self.0.get_mut(&id)
    }

    /// A port by the index of its interface.
    pub fn by_ifindex(&self, ifindex: u32) -> Option<&AttachedPort> {
        self.0.values().find(|port| port.record.ifindex == ifindex)
    }

    /// All ports, by id.
    pub fn iter(&self) -> impl Iterator<Item = &AttachedPort> {
        self.0.values()
    }

    /// Homes of all queues.
    pub fn homes(&self) -> Vec<Home> {
        self.0
            .values()
            .flat_map(|port| port.homes.iter().copied())
            .collect()
    }

    /// The node's own port.
    pub fn node_port(&self) -> Option<PortId> {
        self.iter()
            .find(|port| port.spec.kind == PortKind::Node)
            .map(|port| PortId(port.record.id))
    }
}

impl AttachedPort {
    /// The port as people see it.
    pub fn status(&self) -> PortStatus {
        let first = self.record.queues.first();
        PortStatus {
            id: self.record.id,
            name: self.spec.name.clone(),
            kind: self.spec.kind,
            pod: self.spec.pod.clone(),
            addresses: self.spec.addresses.clone(),
            mac: self.spec.mac,
            mtu: self.spec.mtu,
            worker: self.homes.first().map_or(0, |home| home.worker),
            queues: self.record.queues.len() as u16,
            mode: first.map_or("", |queue| queue.mode.as_str()).to_owned(),
            xdp_mode: self.record.xdp_mode.as_str().to_owned(),
            counters: self.read_counters(),
        }
    }

    /// Has no shortcuts from now on, since what they bring is lost on the way into the pod. False when it had none.
    pub fn refuse_shortcuts(&mut self) -> bool {
        let had = std::mem::take(&mut self.record.shortcuts);
        if had {
            tracing::warn!(port = %self.spec.name, "GRO is off inside the pod: its connections take no shortcuts until it is attached anew, or weft-dataplane restarts with GRO on");
        }
        had
    }

    fn read_counters(&self) -> PortCounters {
        let sum = |counter: QueueCounter| {
            self.counters
                .iter()
                .map(|block| block.load(counter as usize))
                .sum()
        };
        PortCounters {
            rx_packets: sum(QueueCounter::RxPackets),
            rx_bytes: sum(QueueCounter::RxBytes),
            tx_packets: sum(QueueCounter::TxPackets),
            tx_bytes: sum(QueueCounter::TxBytes),
            drops: sum(QueueCounter::Drops),
            rx_kernel_drops: sum(QueueCounter::KernelDrops),
            tx_ring_full: sum(QueueCounter::TxRingFull),
        }
    }
}
