//! Lanes: pairs of ends with one datapath between them, as a topology script describes them.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::kind::Test;

/// What a topology script set up.
#[derive(Debug, Deserialize)]
pub struct Topology {
    /// What can be measured.
    pub lanes: Vec<Lane>,
    /// What did not come up, and why.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// Two ends and what lies between them.
#[derive(Clone, Debug, Deserialize)]
pub struct Lane {
    /// What forwards between the ends: `weft` or a peer's name.
    pub datapath: String,
    /// Where the ends are.
    pub placement: Placement,
    /// MTU of the wire between the nodes; `None` where there is no wire.
    pub wire_mtu: Option<u32>,
    /// Network namespace of the end that connects.
    pub client: String,
    /// Network namespace of the end that answers.
    pub server: String,
    /// Where the client looks for it: its own address, or a service's.
    pub address: IpAddr,
    /// The port a service leads to, at the service and at the server. Where there is none each run
    /// takes a port of its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// What to measure here.
    pub tests: Vec<Test>,
    /// The datapath's own processes; the kernel has none.
    #[serde(default)]
    pub processes: Vec<i32>,
}

/// Whether a wire is between the ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Two pods of one node.
    SameNode,
    /// A pod and something beyond its node's wire.
    CrossNode,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameNode => "same-node",
            Self::CrossNode => "cross-node",
        })
    }
}

/// A datapath that was not measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub datapath: String,
    /// Where.
    pub placement: String,
    /// Why.
    pub reason: String,
}

impl Topology {
    /// Reads a script's description.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the lanes in {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} does not describe lanes", path.display()))
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.datapath, self.placement)?;
        self.wire_mtu
            .map_or(Ok(()), |mtu| write!(f, ", wire {mtu}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_script_writes() {
        let text = r#"{"lanes": [{"datapath": "weft", "placement": "cross-node", "wire_mtu": 1500,
            "client": "a", "server": "b", "address": "10.0.0.2", "tests": ["dts", "rr-pinned"],
            "processes": [7]}], "skipped": []}"#;
        let topology: Topology = serde_json::from_str(text).unwrap();
        assert_eq!(topology.lanes[0].tests, [Test::Dts, Test::RrPinned]);
        assert_eq!(topology.lanes[0].to_string(), "weft cross-node, wire 1500");
    }
}
