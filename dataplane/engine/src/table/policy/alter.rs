//! Wrong entries on purpose: tests show with them that answers to people and verdicts on packets come out of the same
//! tables.

use std::net::IpAddr;
use std::sync::Arc;

use super::peers::PeerMap;
use super::ports::PortTable;
use super::{DENIED, Decision, PolicyDirection, PolicyTables, Traffic};
use crate::tables::{Connection, Side, Tables};

impl Tables {
    /// Turns round the compiled entry that decides a connection: the sender's where it decides, else the receiver's.
    /// The decision it holds now; `None` when no entry decides.
    pub fn alter(&mut self, connection: &Connection) -> Option<Decision> {
        let Connection {
            source,
            destination,
            traffic,
            ..
        } = *connection;
        let judgement = self.judge(connection);
        match (judgement.egress, judgement.ingress) {
            (Side::Decided(_), _) => {
                let direction = PolicyDirection::Egress;
                self.policy.alter((source, destination), direction, traffic)
            }
            (_, Side::Decided(_)) => {
                let direction = PolicyDirection::Ingress;
                self.policy.alter((destination, source), direction, traffic)
            }
            _ => None,
        }
    }
}

impl PolicyTables {
    fn alter(
        &mut self,
        (subject, peer): (IpAddr, IpAddr),
        direction: PolicyDirection,
        traffic: Traffic,
    ) -> Option<Decision> {
        let (subject, peer) = (self.identity(subject), self.identity(peer));
        let endpoint = Arc::make_mut(&mut self.endpoints).get_mut(&subject.0)?;
        let endpoint = Arc::make_mut(endpoint);
        let peers: &mut PeerMap = match direction {
            PolicyDirection::Ingress => &mut endpoint.ingress,
            PolicyDirection::Egress => &mut endpoint.egress,
        };
        let mut ports: PortTable = peers.ports(peer).clone();
        let decision = ports.decision_mut(traffic);
        decision.0 ^= DENIED;
        let altered = *decision;
        peers.set(peer, Some(Arc::new(ports)));
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        Some(altered)
    }
}
