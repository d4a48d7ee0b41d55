//! Throughput with iperf3, called as the published benchmark calls it.
//!
//! Its machines had cubic, Linux's default. So has every TCP stream here, whatever this machine is set
//! to: BBR sends at a pace it estimates, which moves a stream's rate by more than datapaths differ.

use std::fs;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::kind::Bulk;
use super::lane::Lane;
use super::netns;
use super::plan::Pace;

/// IPv4 and UDP headers.
const HEADERS: u32 = 28;
/// Largest datagram where no wire sets a bound: what fits an Ethernet of 1500 bytes, so that a
/// peer with a larger local MTU does not win by larger datagrams.
const LOCAL_MTU: u32 = 1500;
/// Congestion control of TCP streams (tcp(7), `TCP_CONGESTION`).
pub const CONGESTION_CONTROL: &str = "cubic";
/// A client that says nothing this long after its end is killed.
const GRACE_SECONDS: u32 = 8;
/// A server that does not listen by then did not start.
const STARTS_WITHIN: Duration = Duration::from_secs(3);
/// First port of the servers; each run has its own, so that none meets the remains of another. Behind
/// a service it is the service's.
const FIRST_PORT: u16 = 20_000;

/// What a run received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    /// Bits of payload per second at the receiver.
    pub bits_per_second: f64,
    /// Datagrams sent but not received, in percent; `None` for TCP.
    pub lost_pct: Option<f64>,
    /// Segments sent again; `None` for UDP.
    pub retransmits: Option<u64>,
}

/// One run in `lane`; `number` tells runs apart.
pub fn run(lane: &Lane, bulk: Bulk, pace: &Pace, number: usize) -> anyhow::Result<Received> {
    let own = FIRST_PORT + u16::try_from(number % 20_000)?;
    let port = lane.port.unwrap_or(own);
    let arguments = arguments(lane.address, port, bulk, pace, datagram(lane)?);
    let mut server = Server::start(&lane.server, port)?;
    let limit = pace.bulk_seconds + pace.omit_seconds + GRACE_SECONDS;
    let output = inside(&lane.client, &["timeout", &limit.to_string(), "iperf3"])
        .args(&arguments)
        .output()
        .context("cannot start iperf3")?;
    server.stop();
    match output.status.code() {
        Some(124) => bail!("no result within {limit} s"),
        _ => parse(&String::from_utf8_lossy(&output.stdout), bulk),
    }
}

/// Payload of a datagram that fills the path's MTU and no more than the wire's.
fn datagram(lane: &Lane) -> anyhow::Result<u32> {
    let path = netns::path_mtu(&lane.client, lane.address)?;
    Ok(path.min(lane.wire_mtu.unwrap_or(LOCAL_MTU)) - HEADERS)
}

fn arguments(to: IpAddr, port: u16, bulk: Bulk, pace: &Pace, datagram: u32) -> Vec<String> {
    let mut text = format!(
        "-c {to} -p {port} -O {} -Z -t {} --dont-fragment --json",
        pace.omit_seconds, pace.bulk_seconds
    );
    if bulk.streams > 1 {
        text += &format!(" -P {}", bulk.streams);
    }
    if bulk.udp {
        text += &format!(" -u -b 0 -l {datagram}");
    } else {
        text += &format!(" -C {CONGESTION_CONTROL}");
    }
    if bulk.reverse {
        text += " -R";
    }
    text.split(' ').map(str::to_owned).collect()
}

fn inside(namespace: &str, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(command)
        .stdin(Stdio::null());
    nsenter
}

/// A server for one run, ended with it.
struct Server(Child);

impl Server {
    fn start(namespace: &str, port: u16) -> anyhow::Result<Self> {
        let child = inside(namespace, &["iperf3", "-s", "-1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start iperf3 as a server")?;
        let mut server = Self(child);
        let started = Instant::now();
        while !server.listens(port) {
            if started.elapsed() > STARTS_WITHIN {
                server.stop();
                bail!("iperf3 does not listen on port {port} after {STARTS_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Looks at the sockets of the server's own namespace: `nsenter` becomes iperf3, so its process
    /// id is the server's.
    fn listens(&self, port: u16) -> bool {
        let pattern = format!(":{port:04X} ");
        ["tcp", "tcp6"].iter().any(|table| {
            let path = format!("/proc/{}/net/{table}", self.0.id());
            let sockets = fs::read_to_string(path).unwrap_or_default();
            // Column 2 is the local address, column 4 the state; 0A is LISTEN.
            sockets
                .lines()
                .any(|line| line.contains(&pattern) && line.split_whitespace().nth(3) == Some("0A"))
        })
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The parts of iperf3's document that are read.
#[derive(Deserialize)]
struct Document {
    error: Option<String>,
    #[serde(default)]
    end: End,
}

#[derive(Default, Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
    retransmits: Option<u64>,
}

/// Reads iperf3's answer. An error it reports is the run's error: a run that failed has no rate.
fn parse(text: &str, bulk: Bulk) -> anyhow::Result<Received> {
    let document: Document = serde_json::from_str(text).with_context(|| {
        format!(
            "iperf3 printed no JSON: {:?}",
            text.get(..60).unwrap_or(text)
        )
    })?;
    if let Some(error) = document.error {
        bail!("iperf3: {error}");
    }
    let (Some(sent), Some(received)) = (document.end.sum_sent, document.end.sum_received) else {
        bail!("iperf3 gave no sums");
    };
    if received.bytes <= 0.0 {
        bail!("iperf3: nothing was received");
    }
    // iperf3 3.12 counts what was lost in omitted seconds into lost_percent, but not into bytes.
    let lost = (1.0 - received.bytes / sent.bytes.max(1.0)).max(0.0) * 100.0;
    Ok(Received {
        bits_per_second: received.bits_per_second,
        lost_pct: bulk.udp.then_some(lost),
        retransmits: if bulk.udp { None } else { sent.retransmits },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::kind::Test;

    #[test]
    fn calls_iperf3_as_the_published_benchmark_does() {
        let line = |test: Test| {
            let bulk = test.bulk().unwrap();
            arguments([10, 0, 0, 2].into(), 5201, bulk, &Pace::FULL, 1422).join(" ")
        };
        let all = "-c 10.0.0.2 -p 5201 -O 1 -Z -t 1 --dont-fragment --json";
        assert_eq!(line(Test::Dts), format!("{all} -C cubic"));
        assert_eq!(line(Test::Dtm), format!("{all} -P 8 -C cubic"));
        assert_eq!(line(Test::Dus), format!("{all} -u -b 0 -l 1422"));
        assert_eq!(line(Test::Dum), format!("{all} -P 8 -u -b 0 -l 1422"));
        assert_eq!(line(Test::ExtRx), format!("{all} -C cubic -R"));
    }

    #[test]
    fn reads_tcp() {
        let text = r#"{"end": {"sum_sent": {"bytes": 100, "bits_per_second": 800, "retransmits": 3},
            "sum_received": {"bytes": 99, "bits_per_second": 792}}}"#;
        let received = parse(text, Test::Dts.bulk().unwrap()).unwrap();
        assert_eq!(received.bits_per_second, 792.0);
        assert_eq!((received.retransmits, received.lost_pct), (Some(3), None));
    }

    #[test]
    fn reads_udp_and_counts_its_losses_itself() {
        let text = r#"{"end": {"sum_sent": {"bytes": 200, "bits_per_second": 1600},
            "sum_received": {"bytes": 150, "bits_per_second": 1200, "lost_percent": 50}}}"#;
        let received = parse(text, Test::Dum.bulk().unwrap()).unwrap();
        assert_eq!(received.bits_per_second, 1200.0);
        assert_eq!(
            (received.retransmits, received.lost_pct),
            (None, Some(25.0))
        );
    }

    #[test]
    fn an_error_is_never_a_rate() {
        let tcp = Test::Dts.bulk().unwrap();
        let refused = r#"{"start": {}, "intervals": [], "end": {}, "error": "unable to connect to server: Connection refused"}"#;
        let reason = parse(refused, tcp).unwrap_err().to_string();
        assert!(reason.contains("Connection refused"), "{reason}");
        assert!(parse("", tcp).is_err());
        assert!(parse(r#"{"end": {}}"#, tcp).is_err());
        let nothing = r#"{"end": {"sum_sent": {"bytes": 9, "bits_per_second": 8},
            "sum_received": {"bytes": 0, "bits_per_second": 0}}}"#;
        assert!(parse(nothing, tcp).is_err());
    }
}
