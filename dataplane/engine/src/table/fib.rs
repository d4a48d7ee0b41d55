//! The forwarding tables of both families: longest prefix to route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::packet::{PortId, RemoteId};
use crate::table::lpm::{Key, Lpm};

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// A pod of this node.
    Local(PortId),
    /// Another node, through the tunnel.
    Remote(RemoteId),
    /// The node's own stack: its own addresses, and everything outside the cluster.
    Host,
    /// A cluster service address no service has.
    NoService,
    /// A cluster pod address no pod has.
    NoEndpoint,
}

const LOCAL: u32 = 1 << 16;
const REMOTE: u32 = 2 << 16;
const HOST: u32 = 3 << 16;
const NO_SERVICE: u32 = 4 << 16;
const NO_ENDPOINT: u32 = 5 << 16;

impl Route {
    const fn encode(self) -> u32 {
        match self {
            Self::Local(port) => LOCAL | port.0 as u32,
            Self::Remote(remote) => REMOTE | remote.0 as u32,
            Self::Host => HOST,
            Self::NoService => NO_SERVICE,
            Self::NoEndpoint => NO_ENDPOINT,
        }
    }

    /// Without a default route what nothing claims belongs to the node's stack: the tables say what
    /// is in the cluster, the kernel knows the rest.
    #[inline]
    const fn decode(value: u32) -> Self {
        match value & !0xffff {
            LOCAL => Self::Local(PortId(value as u16)),
            REMOTE => Self::Remote(RemoteId(value as u16)),
            NO_SERVICE => Self::NoService,
            NO_ENDPOINT => Self::NoEndpoint,
            _ => Self::Host,
        }
    }
}

/// Routes of both families. Cloning copies two pointers.
#[derive(Clone, Default)]
pub struct Fib {
    v4: Lpm<u32>,
    v6: Lpm<u128>,
}

impl Fib {
    /// Route of an address.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Route {
        match address {
            IpAddr::V4(address) => self.lookup_v4(address),
            IpAddr::V6(address) => self.lookup_v6(address),
        }
    }

    /// Route of an IPv4 address.
    #[inline]
    pub fn lookup_v4(&self, address: Ipv4Addr) -> Route {
        Route::decode(self.v4.lookup(address.to_bits()))
    }

    /// Route of an IPv6 address.
    #[inline]
    pub fn lookup_v6(&self, address: Ipv6Addr) -> Route {
        Route::decode(self.v6.lookup(address.to_bits()))
    }

    /// Routes of many IPv4 addresses at once; see [`Lpm::lookup_batch`].
    ///
    /// # Panics
    /// When there are more addresses than routes.
    pub fn lookup_batch_v4(&self, addresses: &[Ipv4Addr], routes: &mut [Route]) {
        batch(&self.v4, addresses, routes, |it| it.to_bits());
    }

    /// Routes of many IPv6 addresses at once.
    ///
    /// # Panics
    /// When there are more addresses than routes.
    pub fn lookup_batch_v6(&self, addresses: &[Ipv6Addr], routes: &mut [Route]) {
        batch(&self.v6, addresses, routes, |it| it.to_bits());
    }

    /// Adds or replaces the route of a prefix.
    pub fn insert(&mut self, prefix: IpNet, route: Route) {
        match prefix {
            IpNet::V4(net) => {
                self.v4
                    .insert(net.addr().to_bits(), net.prefix_len(), route.encode())
            }
            IpNet::V6(net) => {
                self.v6
                    .insert(net.addr().to_bits(), net.prefix_len(), route.encode())
            }
        };
    }

    /// Removes the route of a prefix, if there is one.
    pub fn remove(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => self.v4.remove(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.v6.remove(net.addr().to_bits(), net.prefix_len()),
        };
    }

    /// Number of prefixes of both families.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the tables take.
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }
}

/// Addresses of one turn of a batch: their keys and values are on the stack.
const TURN: usize = 64;

#[inline]
fn batch<A: Copy, K: Key + Default>(
    table: &Lpm<K>,
    addresses: &[A],
    routes: &mut [Route],
    bits: impl Fn(A) -> K,
) {
    assert!(
        addresses.len() <= routes.len(),
        "there is a place for the route of every address"
    );
    let (mut keys, mut values) = ([K::default(); TURN], [0; TURN]);
    for (addresses, routes) in addresses.chunks(TURN).zip(routes.chunks_mut(TURN)) {
        let count = addresses.len();
        for (key, address) in keys.iter_mut().zip(addresses) {
            *key = bits(*address);
        }
        table.lookup_batch(&keys[..count], &mut values[..count]);
        for (route, value) in routes.iter_mut().zip(&values[..count]) {
            *route = Route::decode(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_survives_its_encoding() {
        for route in [
            Route::Local(PortId(0)),
            Route::Local(PortId(u16::MAX)),
            Route::Remote(RemoteId(0)),
            Route::Remote(RemoteId(u16::MAX)),
            Route::Host,
            Route::NoService,
            Route::NoEndpoint,
        ] {
            assert_eq!(Route::decode(route.encode()), route);
            assert_ne!(route.encode(), 0, "0 is the table's 'no prefix'");
        }
    }

    #[test]
    fn families_are_apart_and_the_rest_is_the_nodes() {
        let mut fib = Fib::default();
        fib.insert("10.1.0.0/16".parse().unwrap(), Route::NoEndpoint);
        fib.insert("::/0".parse().unwrap(), Route::NoService);
        assert_eq!(fib.lookup("10.1.2.3".parse().unwrap()), Route::NoEndpoint);
        assert_eq!(fib.lookup("10.2.2.3".parse().unwrap()), Route::Host);
        assert_eq!(fib.lookup("fd00::1".parse().unwrap()), Route::NoService);
        fib.remove("10.1.0.0/16".parse().unwrap());
        assert_eq!(
            (fib.lookup("10.1.2.3".parse().unwrap()), fib.len()),
            (Route::Host, 1)
        );
    }
}
