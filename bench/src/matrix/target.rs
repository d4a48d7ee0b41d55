//! What weft is held to, in one table. A *must* is the least that is acceptable, an *aim* what weft
//! is built for. Ratios are weft's median over that of the best of the named peers.

use super::kind::Test::{
    self, Dtm, Dts, Dum, Dus, ExtRx, ExtTx, Idle, Pps64, Rr, RrPinned, Stm, Sts, Sum, Sus,
};
use super::lane::Placement::{self, CrossNode, SameNode};

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Which tests.
    pub tests: &'static [Test],
    /// Where.
    pub placement: Placement,
    /// On which wires.
    pub wires: &'static [Option<u32>],
    /// Compared with the best of these; with nobody if empty.
    pub peers: &'static [&'static str],
    /// What of the results.
    pub measure: Measure,
    /// The least that is acceptable.
    pub must: f64,
    /// What is aimed at.
    pub aim: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Ratio of the medians; more is better.
    Throughput,
    /// Ratio of cores per Gbit/s; less is better.
    CpuPerGbit,
    /// Ratio of median round-trip times; less is better.
    P50,
    /// Ratio of their 99th percentiles; less is better.
    P99,
    /// Difference of median round-trip times in microseconds; less is better.
    AddedP50Us,
    /// Cores used; less is better.
    Cores,
}

impl Measure {
    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        self == Self::Throughput
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Throughput => "rate",
            Self::CpuPerGbit => "CPU per Gbit/s",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::AddedP50Us => "added p50",
            Self::Cores => "cores",
        }
    }
}

/// The kernel's ways between two pods of a node at an Ethernet's MTU.
const LOCAL: &[&str] = &["kernel-bridge", "kernel-routed", "kernel-ebpf"];
/// The kernel's bridge given the same large MTU weft gives its pods.
const LOCAL_64K: &[&str] = &["kernel-bridge-64k"];
/// The kernel's tunnel on a wire without offloads: packets as a NIC without help sees them.
const TUNNEL: &[&str] = &["kernel-vxlan"];
/// The kernel with the rules of a kube-proxy, routed on a node and through its tunnel across.
const KUBE_PROXY: &[&str] = &["kernel-iptables", "kernel-nftables"];
/// The kernel's bridge with masquerade.
const GATEWAY: &[&str] = &["kernel-bridge"];

const NO_WIRE: &[Option<u32>] = &[None];
const ETHERNET: &[Option<u32>] = &[Some(1500)];
const JUMBO: &[Option<u32>] = &[Some(9000)];
const BOTH: &[Option<u32>] = &[Some(1500), Some(9000)];

const fn same(tests: &'static [Test], peers: &'static [&'static str]) -> Target {
    Target {
        tests,
        placement: SameNode,
        wires: NO_WIRE,
        peers,
        measure: Measure::Throughput,
        must: 1.0,
        aim: 1.5,
    }
}

const fn cross(
    tests: &'static [Test],
    wires: &'static [Option<u32>],
    peers: &'static [&'static str],
) -> Target {
    Target {
        placement: CrossNode,
        wires,
        ..same(tests, peers)
    }
}

impl Target {
    const fn at(self, must: f64, aim: f64) -> Self {
        Self { must, aim, ..self }
    }

    const fn of(self, measure: Measure) -> Self {
        Self { measure, ..self }
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    same(&[Dts, Dtm], LOCAL).at(1.0, 1.5),
    same(&[Dts, Dtm], LOCAL_64K).at(0.8, 1.0),
    same(&[Dus, Dum], LOCAL).at(1.0, 1.5),
    same(&[Pps64], LOCAL).at(0.9, 1.5),
    cross(&[ExtTx, ExtRx], ETHERNET, GATEWAY).at(0.8, 1.0),
    cross(&[Dts, Dtm], JUMBO, TUNNEL).at(1.0, 1.5),
    cross(&[Dts, Dtm], ETHERNET, TUNNEL).at(0.8, 1.2),
    cross(&[Dus, Dum, Pps64], BOTH, TUNNEL).at(1.2, 2.0),
    same(&[Sts, Stm, Sus, Sum], KUBE_PROXY).at(1.0, 1.5),
    cross(&[Sts, Stm, Sus, Sum], BOTH, KUBE_PROXY).at(1.0, 1.5),
    same(&[RrPinned], LOCAL)
        .of(Measure::AddedP50Us)
        .at(45.0, 15.0),
    same(&[Rr], LOCAL).of(Measure::P50).at(1.1, 0.9),
    same(&[Rr], LOCAL).of(Measure::P99).at(1.1, 0.9),
    cross(&[Rr], ETHERNET, TUNNEL).of(Measure::P50).at(1.1, 0.9),
    cross(&[Rr], ETHERNET, TUNNEL).of(Measure::P99).at(1.1, 0.9),
    same(&[Dts, Dtm, Dus, Dum], LOCAL)
        .of(Measure::CpuPerGbit)
        .at(1.3, 1.0),
    cross(&[Dts, Dtm, Dus, Dum], BOTH, TUNNEL)
        .of(Measure::CpuPerGbit)
        .at(1.3, 1.0),
    cross(&[ExtTx, ExtRx], ETHERNET, GATEWAY)
        .of(Measure::CpuPerGbit)
        .at(1.3, 1.0),
    same(&[Idle], &[]).of(Measure::Cores).at(0.01, 0.002),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_is_never_easier_than_its_must() {
        for target in TARGETS {
            let harder = if target.measure.more_is_better() {
                target.aim >= target.must
            } else {
                target.aim <= target.must
            };
            assert!(harder, "{target:?}");
        }
    }
}
