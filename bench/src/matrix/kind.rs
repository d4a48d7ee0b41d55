//! The tests of the matrix, under the names of the published 40 Gbit/s benchmark of Kubernetes
//! networks: **d**irectly to the pod or through its **s**ervice's cluster IP, **t**cp or **u**dp,
//! **s**ingle or **m**any streams. A test through a service is its direct twin's [`Bulk`] in a lane
//! whose address is a service's.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One test.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// TCP, one stream.
    Dts,
    /// TCP, eight streams.
    Dtm,
    /// UDP, one stream, as fast as it goes.
    Dus,
    /// UDP, eight streams.
    Dum,
    /// TCP through a service, one stream.
    Sts,
    /// TCP through a service, eight streams.
    Stm,
    /// UDP through a service, one stream, as fast as it goes.
    Sus,
    /// UDP through a service, eight streams.
    Sum,
    /// TCP from a pod to outside the cluster.
    ExtTx,
    /// TCP from outside the cluster to the pod that asked for it.
    ExtRx,
    /// One byte there, one byte back, over one connection.
    Rr,
    /// The same with both ends on one fixed core and the datapath's own threads on another.
    RrPinned,
    /// Connect, one byte there, one byte back, close.
    Crr,
    /// Smallest frames at the highest rate that loses less than 0.1 %.
    Pps64,
    /// Nothing at all.
    Idle,
}

/// How iperf3 is called for a throughput test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// UDP instead of TCP.
    pub udp: bool,
    /// Streams in parallel.
    pub streams: u32,
    /// The server sends.
    pub reverse: bool,
}

impl Test {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::Dts,
        Self::Dtm,
        Self::Dus,
        Self::Dum,
        Self::Sts,
        Self::Stm,
        Self::Sus,
        Self::Sum,
        Self::ExtTx,
        Self::ExtRx,
        Self::Rr,
        Self::RrPinned,
        Self::Crr,
        Self::Pps64,
        Self::Idle,
    ];

    /// Its name in `matrix.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dts => "dts",
            Self::Dtm => "dtm",
            Self::Dus => "dus",
            Self::Dum => "dum",
            Self::Sts => "sts",
            Self::Stm => "stm",
            Self::Sus => "sus",
            Self::Sum => "sum",
            Self::ExtTx => "ext-tx",
            Self::ExtRx => "ext-rx",
            Self::Rr => "rr",
            Self::RrPinned => "rr-pinned",
            Self::Crr => "crr",
            Self::Pps64 => "pps64",
            Self::Idle => "idle",
        }
    }

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Dts => "TCP, 1 stream",
            Self::Dtm => "TCP, 8 streams",
            Self::Dus => "UDP, 1 stream",
            Self::Dum => "UDP, 8 streams",
            Self::Sts => "Service, TCP, 1 stream",
            Self::Stm => "Service, TCP, 8 streams",
            Self::Sus => "Service, UDP, 1 stream",
            Self::Sum => "Service, UDP, 8 streams",
            Self::ExtTx => "TCP to outside the cluster",
            Self::ExtRx => "TCP from outside the cluster",
            Self::Rr => "Request and response, 1 byte",
            Self::RrPinned => "Request and response, pinned",
            Self::Crr => "Connect, request, response",
            Self::Pps64 => "64-byte frames without loss",
            Self::Idle => "Idle, weft with 20 pods",
        }
    }

    /// The unit of its runs.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rr | Self::RrPinned | Self::Crr => "transactions/s",
            Self::Pps64 => "packets/s",
            Self::Idle => "cores",
            _ => "bit/s",
        }
    }

    /// For tests iperf3 runs: how.
    pub fn bulk(self) -> Option<Bulk> {
        let tcp = Bulk {
            udp: false,
            streams: 1,
            reverse: false,
        };
        let (many, udp) = (Bulk { streams: 8, ..tcp }, Bulk { udp: true, ..tcp });
        match self {
            Self::Dts | Self::Sts | Self::ExtTx => Some(tcp),
            Self::Dtm | Self::Stm => Some(many),
            Self::Dus | Self::Sus => Some(udp),
            Self::Dum | Self::Sum => Some(Bulk { udp: true, ..many }),
            Self::ExtRx => Some(Bulk {
                reverse: true,
                ..tcp
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_the_code_agree_on_names() {
        for test in Test::ALL {
            assert_eq!(
                serde_json::to_value(test).unwrap(),
                serde_json::json!(test.name())
            );
        }
    }

    #[test]
    fn a_test_through_a_service_differs_from_its_twin_in_the_address_alone() {
        for (service, direct) in [
            (Test::Sts, Test::Dts),
            (Test::Stm, Test::Dtm),
            (Test::Sus, Test::Dus),
            (Test::Sum, Test::Dum),
        ] {
            assert_eq!(service.bulk(), direct.bulk());
        }
    }

    #[test]
    fn throughput_and_nothing_else_is_iperf3s() {
        for test in Test::ALL {
            assert_eq!(test.bulk().is_some(), test.unit() == "bit/s", "{test:?}");
        }
    }
}
