//! Makes versions of the tables out of ports, nodes and ranges. Used by one thread, off the packet path.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::packet::{PortId, PortKind, RemoteId};
use crate::table::fib::Route;
use crate::table::policy::PolicyBuilder;
use crate::table::service::ServiceBuilder;
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
    /// The version built last.
    built: Tables,
    has_shortcuts: bool,
    shortcut_epoch: u32,
    policy: PolicyBuilder,
    services: ServiceBuilder,
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
        let before = (self.tables.policy.epoch(), self.tables.services.epoch());
        self.tables.policy = self.policy.build();
        self.tables.services = self.services.build();
        let after = (self.tables.policy.epoch(), self.tables.services.epoch());
        if before != after {
            let next = self.tables.connections_epoch.checked_add(1);
            self.tables.connections_epoch = next.unwrap_or(1);
        }
        if self.has_shortcuts && !self.tables.keep_shortcuts_of(&self.built) {
            self.renew_shortcuts();
        }
        self.tables.shortcut_epoch = if self.has_shortcuts {
            self.shortcut_epoch
        } else {
            0
        };
        self.built = self.tables.clone();
        self.built.clone()
    }

    /// From the next version on connections between pods may be given shortcuts, or not any more. Those there were
    /// hold no longer.
    pub fn allow_shortcuts(&mut self, allowed: bool) {
        self.has_shortcuts = allowed;
        self.renew_shortcuts();
    }

    fn renew_shortcuts(&mut self) {
        self.shortcut_epoch = self.shortcut_epoch.checked_add(1).unwrap_or(1);
    }

    /// The policies in the making.
    pub fn policy(&mut self) -> &mut PolicyBuilder {
        &mut self.policy
    }

    /// The services in the making.
    pub fn services(&mut self) -> &mut ServiceBuilder {
        &mut self.services
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
        let old = self.take_port(id);
        if old.is_none_or(|old| port_prefixes(&old) != port_prefixes(&port)) {
            self.policy.ports_changed();
        }
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
        if self.take_port(id).is_some() {
            self.policy.ports_changed();
        }
    }

    fn take_port(&mut self, id: PortId) -> Option<Arc<PortEntry>> {
        let old = self.tables.ports.get(id.index()).cloned().flatten()?;
        for prefix in port_prefixes(&old) {
            self.disclaim(prefix, Route::Local(id));
        }
        put(Arc::make_mut(&mut self.tables.ports), id.index(), None);
        Some(old)
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
        self.note_route(route);
        let claims = self.claims.entry(prefix).or_default();
        let at = claims.partition_point(|other| *other <= route);
        claims.insert(at, route);
        self.tables.fib.insert(prefix, claims[0]);
    }

    /// A pod that comes or goes is no other connection's way.
    fn note_route(&mut self, route: Route) {
        if !matches!(route, Route::Local(_)) {
            self.tables.routes_epoch = self.tables.routes_epoch.wrapping_add(1);
        }
    }

    fn disclaim(&mut self, prefix: IpNet, route: Route) {
        let prefix = prefix.trunc();
        self.note_route(route);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{self, A, B, FOUR, SIX, ip};
    use proptest::prelude::*;

    /// One object that may or may not be in the tables.
    #[derive(Clone, Copy, Debug)]
    enum Object {
        Node,
        Pod(PortId),
        Remote(usize),
        Range(&'static str, RangeKind),
    }

    const OBJECTS: [Object; 8] = [
        Object::Node,
        Object::Pod(A),
        Object::Pod(B),
        Object::Remote(0),
        Object::Remote(1),
        Object::Range("10.1.0.0/16", RangeKind::Pods),
        // The same prefix for both, and one that a remote node has too.
        Object::Range("10.1.0.0/16", RangeKind::Services),
        Object::Range("10.1.2.0/24", RangeKind::Pods),
    ];

    const PROBES: [&str; 10] = [
        "10.1.1.10",
        "10.1.1.11",
        "10.1.1.254",
        "10.1.2.3",
        "10.1.3.3",
        "10.1.77.1",
        "192.0.2.1",
        "192.0.2.2",
        "fd00:1:1::10",
        "2001:db8::3",
    ];

    #[derive(Default)]
    struct Changes {
        builder: TablesBuilder,
        remotes: [Option<RemoteId>; 2],
    }

    impl Changes {
        fn set(&mut self, object: Object, there: bool) {
            let model = testbed::Testbed::tables_of_topology();
            let builder = &mut self.builder;
            match object {
                Object::Node => builder.set_node(there.then(testbed::node)),
                Object::Pod(id) if there => {
                    let port = model.port(id).expect("a port of the testbed");
                    builder.set_port(port.clone()).expect("few ports");
                }
                Object::Pod(id) => builder.remove_port(id),
                Object::Remote(which) => {
                    let remote = model.remote([FOUR, SIX][which]).expect("a remote node");
                    match (there, self.remotes[which]) {
                        (true, Some(id)) => builder.replace_remote(id, remote.clone()),
                        (true, None) => {
                            self.remotes[which] = builder.add_remote(remote.clone()).ok();
                        }
                        (false, Some(id)) => {
                            builder.remove_remote(id);
                            self.remotes[which] = None;
                        }
                        (false, None) => {}
                    }
                }
                Object::Range(prefix, kind) => {
                    let prefix = prefix.parse().expect("a prefix");
                    builder.remove_range(prefix, kind);
                    if there {
                        builder.add_range(prefix, kind);
                    }
                }
            }
        }

        /// What the probes find, with remote nodes by address instead of by id.
        fn seen(&mut self) -> Vec<String> {
            let tables = self.builder.build();
            let seen = PROBES.map(|probe| match tables.fib().lookup(ip(probe)) {
                Route::Remote(id) => format!("{:?}", tables.remote(id).map(|remote| remote.vtep)),
                other => format!("{other:?}"),
            });
            let known =
                PROBES.map(|probe| tables.remote_by_address(ip(probe)).is_some().to_string());
            seen.into_iter().chain(known).collect()
        }
    }

    proptest! {
        #[test]
        fn tables_depend_on_what_is_there_and_not_on_how_it_came(
            steps in prop::collection::vec((0..OBJECTS.len(), any::<bool>()), 1..60),
        ) {
            let mut changed = Changes::default();
            let mut there = [false; OBJECTS.len()];
            for (which, on) in steps {
                changed.set(OBJECTS[which], on);
                there[which] = on;
                let mut fresh = Changes::default();
                for (object, on) in OBJECTS.into_iter().zip(there) {
                    if on {
                        fresh.set(object, true);
                    }
                }
                prop_assert_eq!(changed.seen(), fresh.seen());
            }
        }
    }

    #[test]
    fn an_old_version_stays_as_it_was_and_shares_what_did_not_change() {
        let mut builder = TablesBuilder::new();
        let model = testbed::Testbed::tables_of_topology();
        for port in model.ports() {
            builder.set_port(port.clone()).expect("few ports");
        }
        let old = builder.build();
        builder.remove_port(B);
        let new = builder.build();
        assert!(old.port(B).is_some() && new.port(B).is_none());
        assert_eq!(old.fib().lookup(ip("10.1.1.11")), Route::Local(B));
        assert_eq!(new.fib().lookup(ip("10.1.1.11")), Route::Host);
        assert!(new.epoch() > old.epoch());
        assert!(std::ptr::eq(
            old.port(A).expect("A"),
            new.port(A).expect("A")
        ));
    }

    #[test]
    fn ids_beyond_the_bound_are_refused() {
        let mut builder = TablesBuilder::new();
        let port = testbed::Testbed::tables_of_topology()
            .port(A)
            .expect("A")
            .clone();
        let port = PortEntry {
            id: PortId(PORTS_MAX as u16),
            ..port
        };
        assert_eq!(builder.set_port(port), Err(TableError::TooManyPorts));
    }
}
