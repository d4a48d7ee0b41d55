//! The allocator's state as plain data, and back with every doubt checked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_api::PortName;

use super::{Ipam, Lease};

/// What must outlive the process so that no address is given twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    /// The leases.
    pub leases: Vec<PersistedLease>,
    /// Released addresses and when they are free, on the allocator's clock.
    pub cooling: BTreeMap<IpAddr, u64>,
    /// The address given last, per prefix.
    pub last_given: BTreeMap<IpNet, IpAddr>,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedLease {
    /// Its port.
    pub port: PortName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Chosen by another IPAM plugin.
    pub delegated: bool,
}

/// A state that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// One address, two leases.
    #[error("address {address} is leased to {first} and to {second}")]
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// One holder.
        first: PortName,
        /// The other.
        second: PortName,
    },
    /// One port, two leases.
    #[error("port {0} has two leases")]
    PortTwice(PortName),
}

impl Ipam {
    /// What must outlive the process.
    pub fn persisted(&self) -> Persisted {
        let lease = |(port, lease): (&PortName, &Lease)| PersistedLease {
            port: port.clone(),
            addresses: lease.addresses.clone(),
            delegated: lease.delegated,
        };
        let given = |pool: &super::Pool| Some((pool.prefix(), pool.last_given()?));
        Persisted {
            leases: self.leases.iter().map(lease).collect(),
            cooling: self.cooling.clone(),
            last_given: self.pools.iter().filter_map(given).collect(),
        }
    }

    /// Takes a state back; what this allocator held before is forgotten. Prefixes are those of the
    /// state until [`Ipam::set_prefixes`] says otherwise.
    ///
    /// # Errors
    /// A state that contradicts itself: then nothing is changed.
    pub fn restore(&mut self, state: Persisted, now_ms: u64) -> Result<(), RestoreError> {
        let mut restored = Self::new(self.cooldown_ms);
        for lease in state.leases {
            for address in &lease.addresses {
                if let Some(first) = restored.holders.get(address) {
                    return Err(RestoreError::AddressTwice {
                        address: *address,
                        first: first.clone(),
                        second: lease.port,
                    });
                }
            }
            if restored.leases.contains_key(&lease.port) {
                return Err(RestoreError::PortTwice(lease.port));
            }
            restored.enter(&lease.port, lease.addresses, lease.delegated);
        }
        // A time beyond the longest cool-down comes from another clock: start it again.
        let latest = now_ms.saturating_add(self.cooldown_ms);
        for (address, free_at) in state.cooling {
            if !restored.holders.contains_key(&address) {
                restored.cooling.insert(address, free_at.min(latest));
            }
        }
        for (prefix, address) in state.last_given {
            let mut pool = super::Pool::new(prefix);
            pool.given(address);
            restored.pools.push(pool);
        }
        *self = restored;
        Ok(())
    }
}
