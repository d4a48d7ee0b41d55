//! Sets of policies to try on real pods: all kinds, every field, and the verdicts of an evaluator that reads the objects as
//! the API's documentation says, anew for each packet.
//!
//! Prints one JSON document per set and line: `manifest`, a List of all objects but the nodes, and `expected`, by family
//! (`4`, `6`), source and destination a letter per kind of traffic, as `weft-bench reach` answers: `.` gets there, `x`
//! does not, `-` from a pod to itself.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use weft_api::PodRef;
use weft_model::compile::LocalPod;
use weft_model::compile::testing::{Cluster, Packet, generator};

/// Options of `weft-bench policy-sets`.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  weft-bench policy-sets --sets 2 --traffic TCP/80 --traffic UDP/53 \\
    --pod shop/a=10.0.0.2,fd00::2 --pod bank/b=10.0.0.18,fd00::12")]
pub struct Args {
    /// A pod as NAMESPACE/NAME=ADDRESS, with a second address behind a comma; namespaces are shop, bank and lab
    #[arg(long = "pod", required = true, value_parser = parse_pod)]
    pods: Vec<LocalPod>,
    /// Protocol and port, in the order of the letters: TCP, UDP or SCTP
    #[arg(long, required = true, value_parser = parse_traffic)]
    traffic: Vec<(u8, u16)>,
    /// How many sets
    #[arg(long, default_value_t = 1)]
    sets: u64,
    /// Number of the first set: the same set for the same number
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn parse_pod(text: &str) -> Result<LocalPod, String> {
    let (name, addresses) = text.split_once('=').ok_or("not NAMESPACE/NAME=ADDRESS")?;
    let (namespace, name) = name.split_once('/').ok_or("not NAMESPACE/NAME=ADDRESS")?;
    let addresses: Result<_, _> = addresses.split(',').map(str::parse).collect();
    Ok(LocalPod {
        host_ports: Vec::new(),
        pod: PodRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        addresses: addresses.map_err(|error| format!("{text}: {error}"))?,
    })
}

fn parse_traffic(text: &str) -> Result<(u8, u16), String> {
    let (protocol, port) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => return Err(format!("'{text}' is no traffic like TCP/80")),
    };
    let port = port.parse();
    let port = port.map_err(|_| format!("'{text}' is no traffic like TCP/80"))?;
    Ok((protocol, port))
}

/// By source, then by destination: a letter per kind of traffic.
type Letters = BTreeMap<String, BTreeMap<String, String>>;

/// A set.
#[derive(Serialize)]
struct Set {
    number: u64,
    manifest: Value,
    expected: BTreeMap<u8, Letters>,
}

/// Prints the sets.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for number in args.first..args.first + args.sets {
        serde_json::to_writer(&mut out, &set(args, number)?)?;
        writeln!(out)?;
    }
    Ok(())
}

fn set(args: &Args, number: u64) -> anyhow::Result<Set> {
    let cluster = generator::cluster_of(&args.pods, number);
    let families = [4, 6].map(|family| (family, letters(&cluster, family, &args.traffic)));
    Ok(Set {
        number,
        manifest: serde_json::from_str(&cluster.manifest()).context("the objects")?,
        expected: families.into_iter().collect(),
    })
}

fn letters(cluster: &Cluster, family: u8, traffic: &[(u8, u16)]) -> Letters {
    let ends = || {
        cluster.local.iter().filter_map(|local| {
            let mut addresses = local.addresses.iter();
            let address = addresses.find(|it| it.is_ipv4() == (family == 4))?;
            Some((
                format!("{}/{}", local.pod.namespace, local.pod.name),
                *address,
            ))
        })
    };
    let row = |source: IpAddr| {
        let word = |destination: IpAddr| {
            if destination == source {
                return "-".to_owned();
            }
            let letter = |(protocol, port): &(u8, u16)| {
                let packet = Packet {
                    source,
                    destination,
                    protocol: *protocol,
                    port: *port,
                };
                letter(cluster, &packet)
            };
            traffic.iter().map(letter).collect()
        };
        ends()
            .map(|(name, address)| (name, word(address)))
            .collect()
    };
    ends().map(|(name, address)| (name, row(address))).collect()
}

fn letter(cluster: &Cluster, packet: &Packet) -> char {
    let passes = |verdict: Option<bool>| verdict.unwrap_or(true);
    match passes(cluster.allows_egress(packet)) && passes(cluster.allows_ingress(packet)) {
        true => '.',
        false => 'x',
    }
}
