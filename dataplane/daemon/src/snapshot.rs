//! What a worker reads once per burst: the engine's tables and who sends for which port.

use weft_engine::{PortId, Tables};

/// The queue that sends for a port, as seen by one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Worker that owns the queue.
    pub worker: u16,
    /// The queue.
    pub slot: u16,
}

/// One published state; immutable.
pub struct Snapshot {
    /// The engine's tables.
    pub tables: Tables,
    /// Per worker, per port id: the queue to send by.
    egress: Vec<Vec<Option<Egress>>>,
}

/// A bound queue and the worker that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The port.
    pub port: PortId,
    /// The queue.
    pub slot: u16,
    /// The owner.
    pub worker: u16,
}

impl Snapshot {
    /// Joins `tables` with the homes of all queues, for `workers` workers. A worker sends by its own
    /// queue of a port where it has one, else by the port's first.
    pub fn new(tables: Tables, homes: &[Home], workers: u16) -> Self {
        let ports = homes
            .iter()
            .map(|home| usize::from(home.port.0) + 1)
            .max()
            .unwrap_or(0);
        let mut egress = vec![vec![None; ports]; usize::from(workers)];
        for home in homes {
            let choice = Egress {
                worker: home.worker,
                slot: home.slot,
            };
            for (worker, ports) in egress.iter_mut().enumerate() {
                let entry = &mut ports[usize::from(home.port.0)];
                let own = worker == usize::from(home.worker);
                let better = own && entry.is_some_and(|e: Egress| usize::from(e.worker) != worker);
                if entry.is_none() || better {
                    *entry = Some(choice);
                }
            }
        }
        Self { tables, egress }
    }

    /// The queue by which `worker` sends out of `port`; none: the port is gone.
    pub fn egress(&self, worker: u16, port: PortId) -> Option<Egress> {
        *self
            .egress
            .get(usize::from(worker))?
            .get(usize::from(port.0))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_prefers_its_own_queue_and_unknown_ports_have_none() {
        let home = |port, slot, worker| Home {
            port: PortId(port),
            slot,
            worker,
        };
        let homes = [home(3, 3, 0), home(3, 4, 1), home(6, 6, 1)];
        let snapshot = Snapshot::new(Tables::default(), &homes, 2);
        let slot = |worker, port| {
            snapshot
                .egress(worker, PortId(port))
                .map(|e| (e.worker, e.slot))
        };
        assert_eq!(slot(0, 3), Some((0, 3)));
        assert_eq!(slot(1, 3), Some((1, 4)));
        assert_eq!(slot(0, 6), Some((1, 6)));
        assert_eq!(slot(0, 5), None);
        assert_eq!(slot(0, 99), None);
    }
}
