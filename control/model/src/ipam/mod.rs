//! Addresses for pods out of the node's prefixes.
//!
//! Next-fit: an address follows the one given last, so that one just released is the last to be
//! given again; on top of that it cools down, because caches of peers (connection tracking, DNS)
//! outlive a pod. Addresses another IPAM plugin chose are recorded, never chosen. Leases are held
//! by ports, whose names identify an attachment on a node.

mod persist;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::PortName;
use weft_api::agent::PoolStatus;

pub use persist::{Persisted, PersistedLease, RestoreError};
use pool::Pool;

/// How long a released address is not given again, by default: longer than a peer's TCP keeps
/// retransmitting into a fresh connection's face, and what node agents of other networks use.
pub const COOLDOWN_MS_DEFAULT: u64 = 30_000;

/// The addresses of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// One per family.
    pub addresses: Vec<IpAddr>,
    /// Chosen by another IPAM plugin, not by us.
    pub delegated: bool,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// The node has no prefix.
    #[error("the node has no pod CIDRs to give addresses from")]
    NoPool,
    /// Every address of a family is in use or cools down.
    #[error("no free address in {}: {used} in use, {cooling} released but cooling down{}",
        list(prefixes), next_free(*next_free_ms))]
    Exhausted {
        /// The prefixes of that family.
        prefixes: Vec<IpNet>,
        /// Addresses in use.
        used: u64,
        /// Addresses that cool down.
        cooling: u64,
        /// Time until the first of them is free.
        next_free_ms: Option<u64>,
    },
    /// A delegated address is somebody else's.
    #[error("address {address} is in use by {holder}")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Its port.
        holder: PortName,
    },
    /// A delegated address no pod may have.
    #[error(
        "address {address} is reserved: the first two of {prefix} are the network's and weft0's, the last of an IPv4 prefix is its broadcast address"
    )]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The prefix it is reserved in.
        prefix: IpNet,
    },
    /// The port has a lease of other addresses.
    #[error("{port} has other addresses already")]
    Differs {
        /// The port.
        port: PortName,
    },
}

fn list(prefixes: &[IpNet]) -> String {
    let texts: Vec<String> = prefixes.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

fn next_free(next_free_ms: Option<u64>) -> String {
    next_free_ms.map_or_else(String::new, |ms| {
        format!(" (the next is free in {} s)", ms.div_ceil(1000))
    })
}

/// The addresses of `weft0` on a node with these prefixes: the first usable one of the first prefix
/// of each family.
pub fn node_port_addresses(pod_cidrs: &[IpNet]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for prefix in pod_cidrs {
        let address = Pool::new(*prefix).node_port_address();
        if !addresses.iter().any(|a| a.is_ipv6() == address.is_ipv6()) {
            addresses.push(address);
        }
    }
    addresses
}

/// The allocator. Times are milliseconds of one clock that never runs backwards.
#[derive(Clone, Debug)]
pub struct Ipam {
    cooldown_ms: u64,
    pools: Vec<Pool>,
    leases: BTreeMap<PortName, Lease>,
    /// Address to holder: the inverse of `leases`.
    holders: BTreeMap<IpAddr, PortName>,
    /// Released addresses and when they are free.
    cooling: BTreeMap<IpAddr, u64>,
}

impl Ipam {
    /// An allocator without prefixes.
    pub fn new(cooldown_ms: u64) -> Self {
        Self {
            cooldown_ms,
            pools: Vec::new(),
            leases: BTreeMap::new(),
            holders: BTreeMap::new(),
            cooling: BTreeMap::new(),
        }
    }

    /// Gives addresses from these prefixes from now on; leases outside them stay.
    pub fn set_prefixes(&mut self, prefixes: &[IpNet]) {
        let known = std::mem::take(&mut self.pools);
        let keep = |prefix: &IpNet| known.iter().find(|pool| pool.prefix() == *prefix);
        let pool = |prefix| keep(prefix).cloned().unwrap_or_else(|| Pool::new(*prefix));
        self.pools = prefixes.iter().map(pool).collect();
    }

    /// Gives `port` one address of each family there is a prefix of; the same port gets the same.
    ///
    /// # Errors
    /// Without a prefix, or without a free address in one of the families: then none is taken.
    pub fn allocate(&mut self, port: &PortName, now_ms: u64) -> Result<Lease, IpamError> {
        if let Some(lease) = self.leases.get(port) {
            return Ok(lease.clone());
        }
        if self.pools.is_empty() {
            return Err(IpamError::NoPool);
        }
        self.cooling.retain(|_, free_at| *free_at > now_ms);
        let mut addresses: Vec<IpAddr> = Vec::with_capacity(2);
        for family in self.families() {
            addresses.push(self.find(family, now_ms)?);
        }
        for address in &addresses {
            let from = self
                .pools
                .iter_mut()
                .find(|pool| pool.prefix().contains(address));
            if let Some(pool) = from {
                pool.given(*address);
            }
        }
        Ok(self.enter(port, addresses, false))
    }

    /// Records addresses another IPAM plugin chose for `port`; again the same is fine.
    ///
    /// # Errors
    /// When one is in use or reserved, or the port has others: then none is taken.
    pub fn record(&mut self, port: &PortName, addresses: &[IpAddr]) -> Result<Lease, IpamError> {
        if let Some(lease) = self.leases.get(port) {
            return match lease.addresses == addresses {
                true => Ok(lease.clone()),
                false => Err(IpamError::Differs { port: port.clone() }),
            };
        }
        self.check_free(addresses)?;
        Ok(self.enter(port, addresses.to_vec(), true))
    }

    /// Takes over a lease that exists in the world: the addresses of a live port whose record was
    /// lost. Like [`Ipam::record`], but ours to give again afterwards.
    ///
    /// # Errors
    /// As for [`Ipam::record`].
    pub fn adopt(&mut self, port: &PortName, addresses: &[IpAddr]) -> Result<Lease, IpamError> {
        let known = self.leases.contains_key(port);
        let mut lease = self.record(port, addresses)?;
        if !known {
            lease.delegated = false;
            self.leases.insert(port.clone(), lease.clone());
        }
        Ok(lease)
    }

    /// Takes the addresses of `port` back; they cool down. None when it has none.
    pub fn release(&mut self, port: &PortName, now_ms: u64) -> Option<Lease> {
        let lease = self.leases.remove(port)?;
        for address in &lease.addresses {
            self.holders.remove(address);
            self.cooling
                .insert(*address, now_ms.saturating_add(self.cooldown_ms));
        }
        Some(lease)
    }

    /// Releases every port that is not `valid`; returns them.
    pub fn retain(&mut self, valid: &BTreeSet<PortName>, now_ms: u64) -> Vec<PortName> {
        let stale = self.leases.keys().filter(|port| !valid.contains(port));
        let stale: Vec<PortName> = stale.cloned().collect();
        for port in &stale {
            self.release(port, now_ms);
        }
        stale
    }

    /// The lease of `port`.
    pub fn lease(&self, port: &PortName) -> Option<&Lease> {
        self.leases.get(port)
    }

    /// All leases, by port.
    pub fn leases(&self) -> impl Iterator<Item = (&PortName, &Lease)> {
        self.leases.iter()
    }

    /// Free and used addresses per prefix.
    pub fn status(&self, now_ms: u64) -> Vec<PoolStatus> {
        self.pools
            .iter()
            .map(|pool| self.pool_status(pool, now_ms))
            .collect()
    }

    fn pool_status(&self, pool: &Pool, now_ms: u64) -> PoolStatus {
        let within = |address: &&IpAddr| pool.may_give(**address);
        let used = self.holders.keys().filter(within).count() as u64;
        let hot = self.cooling.iter().filter(|(_, at)| **at > now_ms);
        let cooling = hot.filter(|(address, _)| within(address)).count() as u64;
        let free = pool.capacity().saturating_sub(u128::from(used + cooling));
        PoolStatus {
            prefix: pool.prefix(),
            used,
            cooling,
            free: u64::try_from(free).unwrap_or(u64::MAX),
        }
    }

    /// The families there are prefixes of, in the prefixes' order: true is IPv6.
    fn families(&self) -> Vec<bool> {
        let mut families = Vec::with_capacity(2);
        for pool in &self.pools {
            if !families.contains(&pool.is_ipv6()) {
                families.push(pool.is_ipv6());
            }
        }
        families
    }

    fn find(&self, family: bool, now_ms: u64) -> Result<IpAddr, IpamError> {
        let taken = |a: &IpAddr| self.holders.contains_key(a) || self.cooling.contains_key(a);
        let pools = self.pools.iter().filter(|pool| pool.is_ipv6() == family);
        let found = pools.clone().find_map(|pool| pool.next_free(taken));
        found.ok_or_else(|| {
            let status: Vec<PoolStatus> =
                pools.map(|pool| self.pool_status(pool, now_ms)).collect();
            let of_family = self.cooling.iter().filter(|(a, _)| a.is_ipv6() == family);
            IpamError::Exhausted {
                prefixes: status.iter().map(|pool| pool.prefix).collect(),
                used: status.iter().map(|pool| pool.used).sum(),
                cooling: status.iter().map(|pool| pool.cooling).sum(),
                next_free_ms: of_family.map(|(_, at)| at.saturating_sub(now_ms)).min(),
            }
        })
    }

    fn check_free(&self, addresses: &[IpAddr]) -> Result<(), IpamError> {
        for address in addresses {
            if let Some(holder) = self.holders.get(address) {
                let (address, holder) = (*address, holder.clone());
                return Err(IpamError::InUse { address, holder });
            }
            let own = self
                .pools
                .iter()
                .find(|pool| pool.prefix().contains(address));
            if let Some(pool) = own.filter(|pool| !pool.may_give(*address)) {
                let (address, prefix) = (*address, pool.prefix());
                return Err(IpamError::Reserved { address, prefix });
            }
        }
        Ok(())
    }

    fn enter(&mut self, port: &PortName, addresses: Vec<IpAddr>, delegated: bool) -> Lease {
        for address in &addresses {
            self.cooling.remove(address);
            self.holders.insert(*address, port.clone());
        }
        let lease = Lease {
            addresses,
            delegated,
        };
        self.leases.insert(port.clone(), lease.clone());
        lease
    }
}

#[cfg(test)]
mod tests;
