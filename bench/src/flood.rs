//! Sends a run of frames out of one interface.

use std::net::IpAddr;

use anyhow::Context;
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::frames::{Envelope, Kind};
use crate::interval::Interval;
use crate::packet_socket::{PacketSocket, addresses};
use crate::pattern::Random;
use crate::report;

/// The MAC address every pod knows as its gateway.
const GATEWAY_MAC: &str = "02:77:65:66:74:01";

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// What to send
    kind: Kind,
    /// Interface to send by
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// How many frames
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Number of the first one: `connections` goes on where another run ended
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Frames per second; 0: as fast as possible
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Destination address; chooses the family
    #[arg(long, default_value = "192.0.2.1")]
    to: IpAddr,
    /// Destination MAC address
    #[arg(long, default_value = GATEWAY_MAC, value_parser = parse_mac)]
    to_mac: [u8; 6],
    /// Same seed, same frames
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Frames sent at once after the machine stood still. More would run a port's queue full, which is lent few
/// frames while little comes, and the reasons would no longer add up to what was sent.
const BURST_MAX: u32 = 16;

/// What was sent.
#[derive(Serialize)]
struct Sent {
    sent: u64,
    /// How many of them nobody may forward.
    hostile: u64,
}

/// Sends them all.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let socket = PacketSocket::open(&args.interface)?;
    let own = addresses(&args.interface)?;
    let envelope = Envelope {
        source_mac: socket.mac(),
        destination_mac: args.to_mac,
        source: own
            .into_iter()
            .find(|address| address.is_ipv4() == args.to.is_ipv4())
            .with_context(|| {
                format!("{} has no address of {}'s family", args.interface, args.to)
            })?,
        destination: args.to,
    };
    let mut random = Random::new(args.seed);
    let mut interval = Interval::smooth(args.rate, BURST_MAX);
    for number in args.first..args.first.saturating_add(args.count) {
        let frame = envelope.build(args.kind, number, &mut random)?;
        interval.wait();
        socket.send(&frame)?;
    }
    report::print(&Sent {
        sent: args.count,
        hostile: args.kind.hostile(args.count),
    })
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|b| u8::from_str_radix(b, 16)).collect();
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{text} is not a MAC address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_mac_addresses() {
        assert_eq!(parse_mac(GATEWAY_MAC), Ok(*b"\x02weft\x01"));
        assert!(parse_mac("02:77:65").is_err());
        assert!(parse_mac("02:77:65:66:74:zz").is_err());
    }
}
