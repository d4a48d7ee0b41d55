//! Makes versions of the tables out of ports, nodes and ranges. Used by one thread, off the packet path.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::packet::{PortId, PortKind, RemoteId};
use crate::table::fib::Route;
use crate::tables::{NodeTable, OuterPath, PortEntry, Remote, Tables};

/// Why an object cannot be in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// There are [`PORTS_MAX`] ports already, or the id is not below it.
    TooManyPorts,
    /// There are [`REMOTES_MAX`] remote nodes already.
    TooManyRemotes,
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyPorts => write!(f, "a node has at most {PORTS_MAX} ports"),
            Self::TooManyRemotes => write!(f, "a cluster has at most {REMOTES_MAX} other nodes"),
        }
    }
}

impl std::error::Error for TableError {}

/// Ports of a node: the width of the keeper's socket map. Kubernetes recommends 110 pods a node.
pub const PORTS_MAX: usize = 4096;

/// Other nodes of a cluster: routes hold 16 bits. Kubernetes supports 5,000.
pub const REMOTES_MAX: usize = 1 << 16;

/// What a range of cluster addresses holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeKind {
    /// Pods: what nobody claims is `no-endpoint`.
    Pods,
    /// Services: what nobody claims is `no-service`.
    Services,
}

/// The state the next version is made of. Cheap changes: each call costs its own prefixes.
#[derive(Default)]
pub struct TablesBuilder {
    tables: Tables,
    /// Every claim to a prefix, best first: [`Route`]'s order. One prefix may be claimed twice, as when
    /// the only node's pod prefix is the whole range.
    claims: BTreeMap<IpNet, Vec<Route>>,
}

impl TablesBuilder {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next version. Its epoch is one more than the last one's.
    pub fn build(&mut self) -> Tables {
        self.tables.epoch += 1;
        self.tables.clone()
    }

    /// Sets or replaces this node. Its own addresses and `weft0`'s end in its stack; its pod prefixes
    /// are cluster addresses even where no range says so.
    pub fn set_node(&mut self, node: Option<NodeTable>) {
        if let Some(old) = self.tables.node.take() {
            for (prefix, route) in node_claims(&old) {
                self.disclaim(prefix, route);
            }
        }
        for (prefix, route) in node.iter().flat_map(node_claims) {
            self.claim(prefix, route);
        }
        self.tables.node = node.map(Arc::new);
    }

    /// Adds or replaces a port. The addresses of a pod become routes to it.
    ///
    /// # Errors
    /// [`TableError::TooManyPorts`] when the id is not below [`PORTS_MAX`].
    pub fn set_port(&mut self, port: PortEntry) -> Result<(), TableError> {
        let id = port.id;
        if id.index() >= PORTS_MAX {
            return Err(TableError::TooManyPorts);
        }
        self.remove_port(id);
        for prefix in port_prefixes(&port) {
            self.claim(prefix, Route::Local(id));
        }
        put(
            Arc::make_mut(&mut self.tables.ports),
            id.index(),
            Some(Arc::new(port)),
        );
        Ok(())
    }

    /// Removes a port; an unknown one is fine.
    pub fn remove_port(&mut self, id: PortId) {
        let Some(old) = self.tables.ports.get(id.index()).cloned().flatten() else {
            return;
        };
        for prefix in port_prefixes(&old) {
            self.disclaim(prefix, Route::Local(id));
        }
        put(Arc::make_mut(&mut self.tables.ports), id.index(), None);
    }

    /// Adds a remote node and says its id.
    ///
    /// # Errors
    /// [`TableError::TooManyRemotes`] when there are [`REMOTES_MAX`].
    pub fn add_remote(&mut self, remote: Remote) -> Result<RemoteId, TableError> {
        let free = self.tables.remotes.iter().position(Option::is_none);
        let index = free.unwrap_or(self.tables.remotes.len());
        if index >= REMOTES_MAX {
            return Err(TableError::TooManyRemotes);
        }
        let id = RemoteId(index as u16);
        self.set_remote(id, Some(remote));
        Ok(id)
    }

    /// Replaces a remote node of an id that [`TablesBuilder::add_remote`] gave.
    pub fn replace_remote(&mut self, id: RemoteId, remote: Remote) {
        self.set_remote(id, Some(remote));
    }

    /// Removes a remote node; an unknown one is fine. Its id may be given again.
    pub fn remove_remote(&mut self, id: RemoteId) {
        self.set_remote(id, None);
    }

    /// Sets the underlay's way to a remote node and the largest inner packet on it; an unknown node is
    /// fine.
    pub fn set_path(&mut self, id: RemoteId, path: Option<OuterPath>, inner_mtu: u32) {
        if let Some(Some(remote)) = Arc::make_mut(&mut self.tables.remotes).get_mut(id.index()) {
            let remote = Arc::make_mut(remote);
            remote.path = path;
            remote.inner_mtu = inner_mtu;
        }
    }

    /// Adds a range of cluster addresses.
    pub fn add_range(&mut self, prefix: IpNet, kind: RangeKind) {
        self.claim(prefix, range_route(kind));
    }

    /// Removes a range; an unknown one is fine.
    pub fn remove_range(&mut self, prefix: IpNet, kind: RangeKind) {
        self.disclaim(prefix, range_route(kind));
    }

    fn set_remote(&mut self, id: RemoteId, remote: Option<Remote>) {
        if let Some(old) = self.tables.remotes.get(id.index()).cloned().flatten() {
            for prefix in remote_prefixes(&old) {
                self.disclaim(prefix, Route::Remote(id));
            }
            let vteps = Arc::make_mut(&mut self.tables.vteps);
            // Another node may have taken the address over already.
            vteps.retain(|_, owner| *owner != id);
        }
        if let Some(remote) = &remote {
            for prefix in remote_prefixes(remote) {
                self.claim(prefix, Route::Remote(id));
            }
            let vteps = Arc::make_mut(&mut self.tables.vteps);
            vteps.extend(
                remote
                    .addresses
                    .iter()
                    .chain([&remote.vtep])
                    .map(|a| (*a, id)),
            );
        }
        put(
            Arc::make_mut(&mut self.tables.remotes),
            id.index(),
            remote.map(Arc::new),
        );
    }

    fn claim(&mut self, prefix: IpNet, route: Route) {
        let prefix = prefix.trunc();
        let claims = self.claims.entry(prefix).or_default();
        let at = claims.partition_point(|other| *other <= route);
        claims.insert(at, route);
        self.tables.fib.insert(prefix, claims[0]);
    }

    fn disclaim(&mut self, prefix: IpNet, route: Route) {
        let prefix = prefix.trunc();
        let Some(claims) = self.claims.get_mut(&prefix) else {
            return;
        };
        if let Some(at) = claims.iter().position(|claim| *claim == route) {
            claims.remove(at);
        }
        match claims.first() {
            Some(best) => self.tables.fib.insert(prefix, *best),
            None => {
                self.claims.remove(&prefix);
                self.tables.fib.remove(prefix);
            }
        }
    }
}

/// Puts `value` at `index`, growing the array to it and shrinking it to its last value.
fn put<T>(array: &mut Vec<Option<T>>, index: usize, value: Option<T>) {
    if array.len() <= index {
        array.resize_with(index + 1, || None);
    }
    array[index] = value;
    let used = array
        .iter()
        .rposition(Option::is_some)
        .map_or(0, |last| last + 1);
    array.truncate(used);
}

fn range_route(kind: RangeKind) -> Route {
    match kind {
        RangeKind::Pods => Route::NoEndpoint,
        RangeKind::Services => Route::NoService,
    }
}

fn node_claims(node: &NodeTable) -> impl Iterator<Item = (IpNet, Route)> + use<> {
    let weft0 = node
        .node_port4
        .map(IpAddr::V4)
        .into_iter()
        .chain(node.node_port6.map(IpAddr::V6));
    let own: Vec<IpAddr> = node.addresses.iter().copied().chain(weft0).collect();
    let pods = node
        .pod_cidrs
        .clone()
        .into_iter()
        .map(|prefix| (prefix, Route::NoEndpoint));
    own.into_iter()
        .map(|address| (IpNet::from(address), Route::Host))
        .chain(pods)
}

fn port_prefixes(port: &PortEntry) -> Vec<IpNet> {
    if port.kind != PortKind::Pod {
        return Vec::new();
    }
    let v4 = port.addresses4.iter().map(|a| IpNet::from(IpAddr::V4(*a)));
    let v6 = port.addresses6.iter().map(|a| IpNet::from(IpAddr::V6(*a)));
    v4.chain(v6).collect()
}

fn remote_prefixes(remote: &Remote) -> Vec<IpNet> {
    let addresses = remote.addresses.iter().chain([&remote.vtep]);
    let mut all: Vec<IpNet> = addresses
        .map(|a| IpNet::from(*a))
        .chain(remote.prefixes.iter().copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
