//! Traffic tools of the tests, the demo and the benchmark matrix.
//!
//! Each subcommand does one thing to the network it is started in and prints one JSON document on
//! standard output, so that a shell script can judge it with `jq`. Frames are built with
//! `etherparse` and never with weft's own code: a mistake there must not be able to hide itself.

mod flip;
mod flood;
mod frames;
mod interval;
mod packet_socket;
mod pattern;
mod probe;
mod report;
mod stop;
mod tcp_hash;

use clap::{Parser, Subcommand};

/// Traffic tools for weft's tests, demo and benchmarks; each prints JSON.
#[derive(Parser)]
#[command(name = "weft-bench", version)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Sequence-numbered UDP probe: counts what is lost, duplicated, reordered or damaged
    #[command(subcommand)]
    Probe(probe::Side),
    /// Raw frames that a well-behaved sender would never send
    Flood(flood::Args),
    /// A bridge in user space that damages what it forwards
    Flip(flip::Args),
    /// Seeded bytes over TCP, hashed at both ends
    #[command(subcommand)]
    TcpHash(tcp_hash::Side),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().tool {
        Tool::Probe(side) => probe::run(&side),
        Tool::Flood(args) => flood::run(&args),
        Tool::Flip(args) => flip::run(&args),
        Tool::TcpHash(side) => tcp_hash::run(&side),
    }
}
