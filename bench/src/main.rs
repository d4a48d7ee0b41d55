//! Traffic tools of the tests, the demo and the benchmark matrix.
//!
//! Each traffic tool does one thing to the network it is started in and prints one JSON document on
//! standard output, so that a shell script can judge it with `jq`. Frames are built with
//! `etherparse` and never with weft's own code: a mistake there must not be able to hide itself. What policies say is read
//! by the tests' second opinion, which shares nothing with the compiler.
//! `matrix` drives the benchmark; `report` and `compare` read what it measured.

mod flip;
mod flood;
mod frames;
mod interval;
mod matrix;
mod packet_socket;
mod pattern;
mod policy_sets;
mod probe;
mod reach;
mod reflect;
mod report;
mod sctp;
mod stall;
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
    /// Sends UDP datagrams back to where they came from, whatever port they are for
    Reflect(reflect::Args),
    /// Seeded bytes over TCP, hashed at both ends
    #[command(subcommand)]
    TcpHash(tcp_hash::Side),
    /// The first two packets of SCTP associations: asks, and answers
    #[command(subcommand)]
    Sctp(sctp::Side),
    /// Who reaches whom among pods, over TCP, UDP and SCTP
    Reach(reach::Args),
    /// Sets of generated policies, and who reaches whom under each as the API's documentation says
    PolicySets(policy_sets::Args),
    /// The benchmark matrix on what a topology script set up: weft beside its peers, in turns
    Matrix(matrix::Args),
    /// The page or the tables of a matrix measured before
    Report(matrix::render::Args),
    /// Two matrices side by side: marks what differs by more than 10 %
    Compare(matrix::compare::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().tool {
        Tool::Probe(side) => probe::run(&side),
        Tool::Flood(args) => flood::run(&args),
        Tool::Flip(args) => flip::run(&args),
        Tool::Reflect(args) => reflect::run(&args),
        Tool::TcpHash(side) => tcp_hash::run(&side),
        Tool::Sctp(side) => sctp::run(&side),
        Tool::Reach(args) => reach::run(&args),
        Tool::PolicySets(args) => policy_sets::run(&args),
        Tool::Matrix(args) => matrix::run(&args),
        Tool::Report(args) => matrix::render::run(&args),
        Tool::Compare(args) => matrix::compare::run(&args),
    }
}
