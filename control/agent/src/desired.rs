//! What the tables should hold, as the other parts of the agent see it.

use ipnet::IpNet;
use weft_api::object::{ClusterRange, LocalNode, RangePurpose, RemoteNode};

/// A snapshot of the compiled desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// This node; none until its Node object is known.
    pub local: Option<LocalNode>,
    /// The other nodes, by name.
    pub remotes: Vec<RemoteNode>,
    /// Ranges of cluster addresses.
    pub ranges: Vec<ClusterRange>,
}

impl Desired {
    /// Ranges of pod addresses of the whole cluster.
    pub fn pod_ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges_of(RangePurpose::Pods)
    }

    /// Ranges of service addresses.
    pub fn service_ranges(&self) -> impl Iterator<Item = IpNet> {
        self.ranges_of(RangePurpose::Services)
    }

    fn ranges_of(&self, purpose: RangePurpose) -> impl Iterator<Item = IpNet> {
        self.ranges
            .iter()
            .filter(move |range| range.purpose == purpose)
            .map(|range| range.prefix)
    }
}
