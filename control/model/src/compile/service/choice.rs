//! Which endpoints of a port new connections may go to, for one node: what kube-proxy's
//! `CategorizeEndpoints` decides.
//!
//! Ready ones, and where there are none, those that still serve while they terminate (KEP-1669), for
//! all of the cluster and for this node apart. Hints (KEP-2433, KEP-4444, KEP-3015) keep traffic in
//! the node or the zone, provided that every ready endpoint has one and one of them points here.

use super::slice::{Endpoint, Target};

/// The node that chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Here<'a> {
    pub node: &'a str,
    /// Empty where the node has none.
    pub zone: &'a str,
}

/// Places in the list of targets, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// For traffic policy Cluster.
    pub cluster: Vec<usize>,
    /// For traffic policy Local.
    pub local: Vec<usize>,
}

/// How near an endpoint must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Node,
    Zone,
    Anywhere,
}

impl Choice {
    /// Whether traffic policy Local keeps connections from endpoints there are elsewhere.
    pub fn is_elsewhere(&self) -> bool {
        self.local.is_empty() && !self.cluster.is_empty()
    }
}

impl Here<'_> {
    /// Chooses among the endpoints of one port.
    pub fn choose(&self, targets: &[Target<'_>]) -> Choice {
        let reach = self.reach(targets);
        let near = |endpoint: &Endpoint<'_>| match reach {
            Reach::Node => endpoint.nodes.contains(&self.node),
            Reach::Zone => endpoint.zones.contains(&self.zone),
            Reach::Anywhere => true,
        };
        let find = |wanted: &dyn Fn(&Endpoint<'_>) -> bool| -> Vec<usize> {
            let all = targets.iter().enumerate();
            let wanted = all.filter(|(_, target)| wanted(target.endpoint));
            wanted.map(|(place, _)| place).collect()
        };
        let ready = |endpoint: &Endpoint<'_>| endpoint.ready;
        let last = |endpoint: &Endpoint<'_>| endpoint.serving && endpoint.terminating;
        let mut cluster = find(&|endpoint| ready(endpoint) && near(endpoint));
        if cluster.is_empty() {
            cluster = find(&last);
        }
        let mut local = find(&|endpoint| ready(endpoint) && self.has(endpoint));
        if local.is_empty() {
            local = find(&|endpoint| last(endpoint) && self.has(endpoint));
        }
        Choice { cluster, local }
    }

    /// Whether an endpoint is on this node.
    pub fn has(&self, endpoint: &Endpoint<'_>) -> bool {
        endpoint.node == Some(self.node)
    }

    fn reach(&self, targets: &[Target<'_>]) -> Reach {
        let endpoints = || targets.iter().map(|target| target.endpoint);
        let ready = || endpoints().filter(|endpoint| endpoint.ready);
        let every_node = ready().all(|endpoint| !endpoint.nodes.is_empty());
        let every_zone = ready().all(|endpoint| !endpoint.zones.is_empty());
        if every_node && ready().any(|endpoint| endpoint.nodes.contains(&self.node)) {
            Reach::Node
        } else if every_zone && ready().any(|endpoint| endpoint.zones.contains(&self.zone)) {
            Reach::Zone
        } else {
            Reach::Anywhere
        }
    }
}
