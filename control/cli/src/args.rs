//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_api::VETH_MTU;
use weft_api::paths::DEFAULT_RUN_DIR;

use crate::traffic::{Traffic, parse_protocol};

/// Bytes of an untagged Ethernet header.
const ETHERNET_HEADER_BYTES: u32 = 14;
/// Largest frame a port can carry.
const FRAME_BYTES_MAX: u32 = VETH_MTU + ETHERNET_HEADER_BYTES;
/// Least that is kept of a packet: enough for the headers up to TCP's without options.
const SNAPLEN_MIN: i64 = 64;

/// Shows what the pod network of this node does.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    after_help = "\
Examples:
  weft status                                 is everything well on this node?
  weft port                                   the ports and their counters
  weft policy explain shop/web shop/db --port 5432/tcp    may it connect, and who says so?
  weft policy log --verdict denied            what policies deny, as it happens
  weft flow list --pod shop/web               its connections
  weft trace shop/web tcp - shop/db:5432      what would become of a packet?
  weft capture default/web -w web.pcapng      packets of one pod, until Ctrl-C
  weft status --output json | jq .drops       for programs

Exit status: 0 all is well, 1 a problem was found, 2 the command line is wrong.
A node inside a network namespace has its own run directory: give it by --run-dir."
)]
pub struct Arguments {
    /// Directory of the node's sockets
    #[arg(long, global = true, env = "WEFT_RUN_DIR", default_value = DEFAULT_RUN_DIR, value_name = "DIR")]
    pub run_dir: PathBuf,

    /// Tables for people, JSON with stable names for programs
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    pub output: Output,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How read commands answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables.
    Table,
    /// One JSON document.
    Json,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// State of the node: workers, frames, ports, packets, drops, remote nodes, problems
    ///
    /// Asks the dataplane and the agent. Ends with the problems found, if any, and then exits with
    /// status 1: usable as a health check.
    #[command(after_help = "\
Examples:
  weft status
  weft --run-dir /run/weft-node2 status
  weft status -o json | jq '.drops[] | select(.count > 0)'
  watch -n1 weft status")]
    Status,

    /// The ports, or one port in full
    ///
    /// A port is an attached interface: of a pod, of the node's own stack (weft0), or an uplink.
    /// rx counts packets that came from it, tx packets that went out by it, drops those from it that the
    /// pipeline dropped, lost those a full ring or an empty pool cost.
    #[command(after_help = "\
Examples:
  weft port                       all ports
  weft port weft0p                by interface name
  weft port default/web           by pod
  weft port 10.244.1.5            by address
  weft port -o json | jq '.ports[].counters.drops'")]
    Port(PortArguments),

    /// The policies of this node's pods, and whether a connection may be
    #[command(subcommand)]
    Policy(PolicyCommand),

    /// The services as this node balances them
    #[command(subcommand)]
    Service(ServiceCommand),

    /// The connections this node tracks
    #[command(subcommand)]
    Flow(FlowCommand),

    /// What would become of a packet, stage by stage; it is not sent
    ///
    /// Takes a packet through the tables in force as if it had come from PORT. PACKET is words: protocol (tcp, udp,
    /// sctp, icmp), source, destination, then TCP flags (syn, ack, fin, rst, psh, urg) and `len N` for N bytes of
    /// payload. An end is ADDRESS, ADDRESS:PORT (IPv6 in brackets), NAMESPACE/POD or NAMESPACE/POD:PORT; the source
    /// may be - for the port's own address. A TCP packet is a SYN unless said otherwise, or data if it has a length.
    /// The packet is taken for the first of its connection; one that is known is shown. Nothing is counted.
    /// From an uplink the words say what is inside the tunnel, and --from which node sends it; without --from a client
    /// outside the cluster sends it to a service. With --file the
    /// packets of a capture are taken one by one; those that its file says left by PORT or crossed another port of
    /// this node are left out. Exits with status 1 if a packet would be dropped.
    #[command(after_help = "\
Examples:
  weft trace shop/web tcp - shop/db:5432              may it connect, which way does it go?
  weft trace shop/web tcp - [fd00:1:2::5]:80 len 9000
  weft trace u0 --from node2 udp 10.244.2.7:4000 10.244.1.5:53
  weft trace weft0 icmp - 10.244.1.5 -o json | jq .way.steps
  weft trace shop/web --hex 027765667401...           a whole frame
  weft trace shop/web --file web.pcapng --count 10    as captured, by weft or others")]
    Trace(TraceArguments),

    /// Records packets of one port or all, with the pipeline's verdict on each
    ///
    /// Writes a pcapng file that Wireshark and tshark read: one interface per port, the direction,
    /// and in each packet's comment what became of it, with the reason of a drop. Runs until Ctrl-C
    /// or until COUNT packets; the file is valid at any moment.
    #[command(after_help = "\
Examples:
  weft capture -w all.pcapng                        everything, until Ctrl-C
  weft capture default/web -w web.pcapng --count 100
  weft capture --drops -w drops.pcapng              only what was dropped, and why
  weft capture weft0p -w - | tshark -r - -P         live
  weft capture -w - --snaplen 96 | wireshark -k -i -")]
    Capture(CaptureArguments),
}

/// What can be asked about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Pods by what policies can tell apart, and their rules in order, with counters
    ///
    /// The first rule that matches decides; pass skips the rest of its tier; without a match a connection is
    /// allowed. Counters are those of the object a rule comes from, since the dataplane started. Exits with
    /// status 1 if a pod is cut off because its rules have not arrived.
    #[command(after_help = "\
Examples:
  weft policy list
  weft policy list -o json | jq '.endpoints[].ingress[] | select(.denied > 0)'")]
    List,

    /// Whether a connection may be, and which rule says so
    ///
    /// Answered by the tables and the code that decide about packets. Each end's policy is decided on its own
    /// node: for an end that is no pod of this node ask that one. Exits with status 1 if it is denied here.
    #[command(after_help = "\
Examples:
  weft policy explain shop/web shop/db --port 5432/tcp
  weft policy explain 198.51.100.7 10.244.1.5 --port 53/udp
  weft policy explain shop/web 2001:db8::5              a ping")]
    Explain(ExplainArguments),

    /// Verdicts on connections as they are given, until Ctrl-C
    ///
    /// A line for each connection that is allowed, when it begins, and for each packet that is denied: time, verdict,
    /// protocol, both ends with pod and identity, and the rule that decided. Each end's policy is decided on its own
    /// node. A worker shows at most 1,000 in a second; how many more there were is said. Nothing is kept while nobody
    /// looks.
    #[command(after_help = "\
Examples:
  weft policy log
  weft policy log --verdict denied --pod shop/db
  weft policy log --verdict denied --count 100 -o json | jq -r .ingress.origin.object | sort | uniq -c")]
    Log(PolicyLogArguments),
}

/// What `weft policy log` takes: conditions that all must hold.
#[derive(Debug, Args)]
pub struct PolicyLogArguments {
    /// With this pod, or this address, at one end; the addresses are those it has now
    #[arg(long, value_name = "NAMESPACE/POD")]
    pub pod: Option<String>,

    /// Only what is allowed, or only what is denied
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub verdict: Option<LogVerdict>,

    /// End after this many verdicts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Verdicts that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogVerdict {
    /// Connections that may be.
    Allowed,
    /// Packets dropped by policies.
    Denied,
}

/// What `weft policy explain` takes.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Who opens the connection: an address or NAMESPACE/POD
    pub source: String,

    /// With whom, alike
    pub destination: String,

    /// Destination port and protocol, or a protocol without ports
    #[arg(long, value_name = "PORT/PROTOCOL", default_value = "icmp")]
    pub port: Traffic,
}

/// What can be asked about services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Services with their addresses, and how many backends and connections each has
    ///
    /// What traffic policies, topology or readiness leave over on this node. Connections are those through this
    /// node.
    #[command(after_help = "\
Examples:
  weft service list
  weft service list -o json | jq '.services[] | select(.backends == [])'")]
    List,

    /// One service: its frontends, and the connections of each backend
    ///
    /// Looks for a second, to say how many connections begin; JSON has the counter instead, for who asks twice.
    #[command(after_help = "\
Examples:
  weft service show shop/web
  weft service show web                             of whatever namespace
  weft service show shop/web -o json | jq '.services[].backends[].connections'")]
    Show {
        /// NAME or NAMESPACE/NAME
        service: String,
    },
}

/// What can be asked about connections.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Connections with their state, counters and the rules that let them be
    ///
    /// Counts are of the direction that began the connection and of the replies.
    #[command(after_help = "\
Examples:
  weft flow list --pod shop/web
  weft flow list --address 10.244.1.5 --port 80 --state established
  weft flow list --protocol udp -o json | jq '.flows[].source'")]
    List(FlowListArguments),
}

/// What `weft flow list` takes: conditions that all must hold.
#[derive(Debug, Args)]
pub struct FlowListArguments {
    /// Of this pod
    #[arg(long, value_name = "NAMESPACE/POD")]
    pub pod: Option<String>,

    /// With this address at one end
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,

    /// With this port at one end
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// tcp, udp, sctp, icmp, icmpv6 or a number
    #[arg(long, value_name = "PROTOCOL", value_parser = parse_protocol)]
    pub protocol: Option<u8>,

    /// In this state, such as established, syn-sent or udp-stream
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,

    /// At most so many; 1,000 unless told otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// What `weft port` takes.
#[derive(Debug, Args)]
pub struct PortArguments {
    /// Interface name, NAMESPACE/POD, address or port id; none: all ports
    pub port: Option<String>,
}

/// What `weft trace` takes.
#[derive(Debug, Args)]
pub struct TraceArguments {
    /// Where it comes from: interface name, NAMESPACE/POD or weft0
    pub port: String,

    /// The packet in words
    #[arg(
        required_unless_present_any = ["hex", "file"],
        conflicts_with_all = ["hex", "file"],
        value_name = "PACKET"
    )]
    pub packet: Vec<String>,

    /// The packet as a whole frame in hexadecimal digits
    #[arg(long, value_name = "DIGITS", conflicts_with = "file")]
    pub hex: Option<String>,

    /// The packets of a capture file, pcap or pcapng
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// At most so many packets of the file
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with_all = ["packet", "hex"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,

    /// The node that sends it, where PORT is an uplink
    #[arg(long, value_name = "NODE", conflicts_with_all = ["hex", "file"])]
    pub from: Option<String>,
}

/// What `weft capture` takes.
#[derive(Debug, Args)]
pub struct CaptureArguments {
    /// Interface name, NAMESPACE/POD, address or port id; none: all ports
    pub port: Option<String>,

    /// File to write, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: PathBuf,

    /// End after this many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Bytes kept of each packet
    #[arg(long, value_name = "N", default_value_t = FRAME_BYTES_MAX,
          value_parser = clap::value_parser!(u32).range(SNAPLEN_MIN..))]
    pub snaplen: u32,

    /// Only packets that were dropped
    #[arg(long)]
    pub drops: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_before_and_after_the_command() {
        for line in [
            ["weft", "--run-dir", "/r", "-o", "json", "status"],
            ["weft", "status", "--run-dir", "/r", "--output", "json"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.run_dir, PathBuf::from("/r"));
            assert_eq!(arguments.output, Output::Json);
        }
    }

    #[test]
    fn captures_need_a_file_and_sensible_limits() {
        for bad in [
            &["weft", "capture"][..],
            &["weft", "capture", "-w", "x", "--count", "0"],
            &["weft", "capture", "-w", "x", "--snaplen", "10"],
            &["weft", "policy"],
            &["weft", "policy", "log", "--verdict", "maybe"],
            &["weft", "policy", "explain", "a/b"],
            &["weft", "policy", "explain", "a/b", "c/d", "--port", "tcp"],
            &["weft", "flow", "list", "--address", "shop/web"],
            &["weft", "flow", "list", "--limit", "0"],
            &["weft", "trace", "a/b"],
            &["weft", "trace", "a/b", "tcp", "--hex", "00"],
            &["weft", "trace", "a/b", "--file", "x", "--hex", "00"],
            &["weft", "trace", "a/b", "--file", "x", "--from", "b"],
            &["weft", "trace", "a/b", "--hex", "00", "--count", "3"],
        ] {
            assert_eq!(Arguments::try_parse_from(bad).unwrap_err().exit_code(), 2);
        }
    }
}
