//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use ipnet::IpNet;
use weft_api::paths::{DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, RunDir};
use weft_model::compile::ClusterConfig;

use crate::state::Options;
use crate::watch::Source;

/// Largest VXLAN network identifier: 24 bits (RFC 7348, section 5).
const VNI_MAX: i64 = (1 << 24) - 1;

/// weft's node agent: reads what the cluster should look like, gives pods their addresses, sets up
/// this node's routes, and tells the dataplane.
///
/// It needs root, the network namespace of the node, and weft-keeper and weft-dataplane with the
/// same --run-dir. It may be stopped and started at any time: packets go on.
#[derive(Debug, Parser)]
#[command(name = "weft-agent", version, max_term_width = 100, after_help = EXAMPLE)]
pub struct Args {
    /// Directory of the node's sockets
    #[arg(long, env = "WEFT_RUN_DIR", default_value = DEFAULT_RUN_DIR, value_name = "DIR")]
    pub run_dir: PathBuf,

    /// Directory of what must outlive the process: addresses in use, last good manifests
    #[arg(long, env = "WEFT_STATE_DIR", default_value = DEFAULT_STATE_DIR, value_name = "DIR")]
    pub state_dir: PathBuf,

    /// Name of the Node object of this machine
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,

    /// Where the cluster's objects come from: dir:PATH, a directory of Kubernetes YAML or JSON
    /// files that is followed while running, or kubernetes, the API server
    #[arg(long, value_name = "SOURCE")]
    pub source: Source,

    /// Range of service addresses; may be given more than once. Packets to addresses in it that no
    /// service has are answered with an error rather than sent to the node's default route
    #[arg(long = "service-cidr", value_name = "PREFIX", value_delimiter = ',')]
    pub service_cidrs: Vec<IpNet>,

    /// Range the nodes' pod CIDRs are cut from; may be given more than once. Spares the host a
    /// route per node
    #[arg(long = "cluster-cidr", value_name = "PREFIX", value_delimiter = ',')]
    pub cluster_cidrs: Vec<IpNet>,

    /// VXLAN network identifier; the same on every node of the cluster
    #[arg(long, default_value_t = weft_api::DEFAULT_VNI, value_name = "VNI",
        value_parser = clap::value_parser!(u32).range(1..=VNI_MAX))]
    pub vni: u32,

    /// UDP port of VXLAN; the same on every node of the cluster
    #[arg(long, default_value_t = weft_api::VXLAN_PORT, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,

    /// Seconds before a released address is given to another pod
    #[arg(long, default_value_t = weft_model::ipam::COOLDOWN_MS_DEFAULT / 1_000, value_name = "SECONDS")]
    pub address_cooldown: u64,

    /// What is said on stderr
    #[command(flatten)]
    pub log: weft_log::Log,
}

const EXAMPLE: &str = "\
Example:
  weft-agent --node $(hostname) --source dir:/etc/weft/manifests --service-cidr 10.96.0.0/12

A Node object needs spec.podCIDRs and an InternalIP in status.addresses. A file that is broken, empty
or cut off is reported by `weft status`, and what it last held stays in force.";

impl Args {
    /// What the agent's parts need of it.
    pub fn options(&self) -> Options {
        Options {
            run_dir: RunDir::new(&self.run_dir),
            state_dir: self.state_dir.clone(),
            cluster: ClusterConfig {
                node: self.node.clone(),
                service_cidrs: self.service_cidrs.clone(),
                cluster_cidrs: self.cluster_cidrs.clone(),
                vni: self.vni,
                vxlan_port: self.vxlan_port,
            },
            cooldown: Duration::from_secs(self.address_cooldown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_reads_what_the_help_shows() {
        Args::command().debug_assert();
        let line = "weft-agent --run-dir /r --state-dir /s --node a --source dir:/m \
                    --service-cidr 10.96.0.0/12,fd96::/112 --service-cidr 10.97.0.0/16";
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.source, Source::Dir("/m".into()));
        assert_eq!(args.options().cluster.service_cidrs.len(), 3);
        for bad in [
            "--vni 0",
            "--vni 16777216",
            "--source x",
            "--service-cidr 10.0.0.0",
        ] {
            let line = format!("weft-agent --node a --source dir:/m {bad}");
            assert!(
                Args::try_parse_from(line.split_whitespace()).is_err(),
                "{bad}"
            );
        }
    }
}
