//! Who reaches whom: real packets between all pairs of pods at once, TCP, UDP and SCTP.
//!
//! One process holds the sockets of every pod, each opened in the pod's network namespace. It reads
//! one question per line (`{"family":4,"ports":["TCP/80","UDP/81"]}`) and answers each with a
//! matrix. A probe that arrived is a `.`, one that did not an `x`, and it is looked for only after a
//! marker, sent later from the pod's own node, came in: the way was open.

mod sockets;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use sockets::{Connecting, Pod};

/// A node may always reach its own pods, so the marker is never blocked. It takes some milliseconds;
/// a machine that stands still for longer than this is not fit for the test.
const MARKER_WITHIN: Duration = Duration::from_secs(5);

/// Options of `weft-bench reach`.
#[derive(clap::Args)]
#[command(after_help = "\
Example, from the host of the namespaces:
  echo '{\"family\":4,\"ports\":[\"TCP/80\"]}' | weft-bench reach --port 80 \\
    --pod x/a=ns-a=node1=10.244.1.2 --pod x/b=ns-b=node2=10.244.2.2")]
pub struct Args {
    /// A pod as NAME=NETNS=NODE-NETNS=ADDRESS, with a second address behind a comma
    #[arg(long = "pod", required = true, value_parser = parse_pod)]
    pods: Vec<PodArg>,
    /// A port every pod listens on, for all protocols
    #[arg(long = "port", default_values_t = [80, 81])]
    ports: Vec<u16>,
    /// Milliseconds a probe may take once the markers are there
    #[arg(long, default_value_t = 60)]
    wait: u64,
}

/// A pod as the command line names it.
#[derive(Clone, Debug)]
struct PodArg {
    name: String,
    netns: String,
    node: String,
    addresses: Vec<IpAddr>,
}

fn parse_pod(text: &str) -> Result<PodArg, String> {
    let parts: Vec<&str> = text.split('=').collect();
    let [name, netns, node, addresses] = parts[..] else {
        return Err("not NAME=NETNS=NODE-NETNS=ADDRESS[,ADDRESS]".to_owned());
    };
    let addresses: Result<_, _> = addresses.split(',').map(str::parse).collect();
    Ok(PodArg {
        name: name.to_owned(),
        netns: netns.to_owned(),
        node: node.to_owned(),
        addresses: addresses.map_err(|error| format!("{text}: {error}"))?,
    })
}

/// One question.
#[derive(Deserialize)]
struct Question {
    family: u8,
    /// `TCP/80`, in the order of the answer's letters.
    ports: Vec<String>,
}

/// One answer.
#[derive(Serialize)]
struct Answer {
    /// By source, then by destination: a letter per port. `-` from a pod to itself.
    reached: BTreeMap<String, BTreeMap<String, String>>,
    /// Probes that did not arrive.
    blocked: usize,
}

/// Protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// A destination port.
#[derive(Clone, Copy, Debug)]
struct Target {
    transport: Transport,
    port: u16,
}

impl Target {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (transport, port) = text.split_once('/').unwrap_or((text, ""));
        let transport = match transport {
            "TCP" => Transport::Tcp,
            "UDP" => Transport::Udp,
            "SCTP" => Transport::Sctp,
            _ => bail!("'{text}' is not a port like TCP/80"),
        };
        let port = port
            .parse()
            .with_context(|| format!("'{text}' is not a port like TCP/80"))?;
        Ok(Self { transport, port })
    }
}

/// Answers questions until standard input ends.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut pods = Vec::new();
    for pod in &args.pods {
        pods.push(Pod::open(pod, &args.ports)?);
    }
    let mut matrix = Matrix {
        pods,
        wait: Duration::from_millis(args.wait),
        next_id: 1,
    };
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?).context("the question")?;
        let answer = matrix.answer(&question)?;
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

struct Matrix {
    pods: Vec<Pod>,
    wait: Duration,
    /// Number of the next probe; never used twice, so that a late one is not taken for another.
    next_id: u32,
}

/// Where a probe stands in the answer.
struct Cell {
    id: u32,
    source: usize,
    destination: usize,
}

impl Matrix {
    fn answer(&mut self, question: &Question) -> anyhow::Result<Answer> {
        let v4 = question.family == 4;
        let targets: Result<Vec<Target>, _> =
            question.ports.iter().map(|it| Target::parse(it)).collect();
        let mut arrived = HashSet::new();
        self.collect(&mut arrived); // what came late belongs to nobody
        let (cells, mut connecting) = self.send(v4, &targets?)?;
        self.send_markers(v4)?;
        let end = Instant::now() + self.wait;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            self.collect(&mut arrived);
        }
        connecting.retain(|it| it.is_open());
        arrived.extend(connecting.iter().map(|it| it.id));
        Ok(self.describe(&cells, &arrived))
    }

    /// Sends every probe. TCP goes on as long as what is returned lives.
    fn send(
        &mut self,
        v4: bool,
        targets: &[Target],
    ) -> anyhow::Result<(Vec<Cell>, Vec<Connecting>)> {
        let (mut cells, mut connecting) = (Vec::new(), Vec::new());
        for (source, pod) in self.pods.iter().enumerate() {
            let senders = pod.senders(v4)?;
            for (destination, other) in self.pods.iter().enumerate() {
                if source == destination {
                    continue;
                }
                let to = other.address(v4)?;
                for target in targets {
                    let id = self.next_id;
                    self.next_id += 1;
                    connecting.extend(senders.probe(id, to, *target)?);
                    cells.push(Cell {
                        id,
                        source,
                        destination,
                    });
                }
            }
        }
        Ok((cells, connecting))
    }

    /// Every pod gets a datagram from its own node, and all of them have to arrive.
    fn send_markers(&self, v4: bool) -> anyhow::Result<()> {
        let end = Instant::now() + MARKER_WITHIN;
        for pod in &self.pods {
            pod.send_marker(v4)?;
        }
        for pod in &self.pods {
            while !pod.marker_arrived(v4) {
                if Instant::now() > end {
                    bail!("the marker from its node did not reach pod {}", pod.name);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn collect(&self, arrived: &mut HashSet<u32>) {
        for pod in &self.pods {
            pod.collect(arrived);
        }
    }

    fn describe(&self, cells: &[Cell], arrived: &HashSet<u32>) -> Answer {
        let mut reached: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let mut blocked = 0;
        for pod in &self.pods {
            let own = reached.entry(pod.name.clone()).or_default();
            own.insert(pod.name.clone(), "-".to_owned());
        }
        for cell in cells {
            let [source, destination] =
                [cell.source, cell.destination].map(|at| self.pods[at].name.clone());
            let letters = reached
                .entry(source)
                .or_default()
                .entry(destination)
                .or_default();
            let there = arrived.contains(&cell.id);
            blocked += usize::from(!there);
            letters.push(if there { '.' } else { 'x' });
        }
        Answer { reached, blocked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_argument_needs_all_its_parts() {
        let pod = parse_pod("x/a=ns=node1=10.0.0.1,fd00::1").unwrap();
        assert_eq!((pod.name.as_str(), pod.addresses.len()), ("x/a", 2));
        assert!(parse_pod("x/a=ns=10.0.0.1").is_err());
        assert!(parse_pod("x/a=ns=node1=10.0.0").is_err());
    }

    #[test]
    fn a_port_is_a_protocol_and_a_number() {
        let target = Target::parse("SCTP/81").unwrap();
        assert_eq!((target.transport, target.port), (Transport::Sctp, 81));
        assert!(Target::parse("ICMP/1").is_err());
        assert!(Target::parse("TCP").is_err());
    }
}
