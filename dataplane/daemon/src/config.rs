//! The command line and the optional configuration file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use serde::Deserialize;
use weft_engine::FLOWS_DEFAULT;
use weft_engine::table::flow::FLOWS_MAX;

/// The switching process of weft: takes the AF_XDP sockets from weft-keeper and forwards packets
/// between pods, the node and the other nodes.
///
/// Start weft-keeper first, in the same network namespace and with the same --run-dir. A killed
/// dataplane is simply started again: sockets, frames and tables are taken over from the keeper and
/// no connection is lost.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    /// Directory of the sockets of this node.
    #[arg(long, env = "WEFT_RUN_DIR", default_value = weft_api::paths::DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    /// An interface that holds a node address; repeat it for every one.
    #[arg(long, required = true, value_name = "IFNAME")]
    pub underlay: Vec<String>,
    /// Cores the workers are pinned to, one worker each [default: one worker on the last core this
    /// process may use].
    #[arg(long, value_delimiter = ',', value_name = "CORE,…")]
    pub cores: Vec<usize>,
    /// JSON file with tuning values; see the example below.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is said on stderr.
    #[command(flatten)]
    pub log: weft_log::Log,
}

const EXAMPLES: &str = "\
Examples:
  weft-dataplane --underlay eth0
  weft-dataplane --underlay eth0 --underlay eth1 --cores 2,3
  weft-dataplane --underlay eth0 --config tuning.json

tuning.json, with the defaults:
  {\"spin_us\": 5, \"nap_us\": 100, \"lend_idle\": 32, \"lend_active\": 1024,
   \"zero_copy\": true, \"priority\": 1, \"flows\": 65536, \"shortcuts\": true}

  spin_us      after the last packet, look again without pause for so long, then sleep until the
               kernel wakes us
  nap_us       under load, sleep at most so long between looks, so that a burst gathers (0: never)
  lend_idle    frames lent to a port that never saw a packet
  lend_active  frames lent to a busy port
  zero_copy    ask for zero-copy where the uplink's driver offers it
  priority     real-time priority (SCHED_FIFO) of the workers, 0 for none
  flows        connections each worker remembers; another number starts with an empty table
  shortcuts    let the kernel send the data of allowed TCP and UDP connections between pods of this
               node, and with the node itself, on by itself (false: every packet goes through a
               worker)

Inspect it with: weft --run-dir DIR status";

/// Tuning values; every one has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// Microseconds of looking again without pause after the last packet. Too high and the sender
    /// on a shared core starves; too low and a request that follows its answer pays a wake-up.
    pub spin_us: u64,
    /// Longest sleep, in microseconds, between looks under load; the kernel then wakes nobody per packet. Too high and
    /// rings overflow and answers wait, too low and each packet costs a wake-up.
    pub nap_us: u64,
    /// Frames lent to a port that never saw a packet: 110 ports then hold 43 % of the default memory,
    /// and the first packet of a connection, which is small, brings more. A 64 KiB packet needs 18.
    pub lend_idle: u32,
    /// Frames lent to a port that did; scaled down as the pool runs low.
    pub lend_active: u32,
    /// Ask for zero-copy on uplinks.
    pub zero_copy: bool,
    /// Real-time priority of the workers; 0: the scheduler treats them like any process. A pinned
    /// worker that competes with hundreds of starting programs otherwise loses most packets.
    pub priority: u8,
    /// Connections each worker remembers, 128 bytes (IPv4) or 180 (IPv6) for each that is there. Too few and
    /// new connections displace unanswered ones early, and are refused when all are established.
    pub flows: u32,
    /// Give TCP and UDP connections between two ports of this node shortcuts; 16,384 connections at once.
    pub shortcuts: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            spin_us: 5,
            nap_us: 100,
            lend_idle: 32,
            lend_active: 1_024,
            zero_copy: true,
            priority: 1,
            flows: FLOWS_DEFAULT,
            shortcuts: true,
        }
    }
}

impl Tuning {
    /// Reads `path`, or gives the defaults.
    ///
    /// # Errors
    /// A file that cannot be read or holds an unknown key, a wrong type or a value out of range; the
    /// message names the file and the place.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let tuning: Self =
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        tuning
            .check()
            .with_context(|| format!("in {}", path.display()))?;
        Ok(tuning)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.spin_us <= 10_000,
            "spin_us is {} and must be at most 10000",
            self.spin_us
        );
        anyhow::ensure!(
            self.nap_us <= 1_000,
            "nap_us is {} and must be at most 1000",
            self.nap_us
        );
        anyhow::ensure!(
            self.priority <= 50,
            "priority is {} and must be at most 50",
            self.priority
        );
        let lend = 18..=2_048;
        anyhow::ensure!(
            lend.contains(&self.lend_idle),
            "lend_idle is {} and must be 18 to 2048",
            self.lend_idle
        );
        anyhow::ensure!(
            lend.contains(&self.lend_active),
            "lend_active is {} and must be 18 to 2048",
            self.lend_active
        );
        let flows = 1_024..=FLOWS_MAX;
        anyhow::ensure!(
            flows.contains(&self.flows),
            "flows is {} and must be 1024 to {FLOWS_MAX}",
            self.flows
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Tuning> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tuning.json");
        std::fs::write(&path, text).unwrap();
        Tuning::load(Some(&path))
    }

    #[test]
    fn missing_keys_take_defaults_and_bad_files_name_the_place() {
        assert_eq!(load("{\"spin_us\": 5}").unwrap().spin_us, 5);
        assert_eq!(load("{}").unwrap().lend_idle, 32);
        for (text, word) in [
            ("{\"spin\": 5}", "spin"),
            ("{\"lend_idle\": 1}", "lend_idle"),
            ("{\"flows\": 1000}", "flows"),
            ("{", "line 1"),
        ] {
            let error = format!("{:#}", load(text).unwrap_err());
            assert!(
                error.contains(word) && error.contains("tuning.json"),
                "{error}"
            );
        }
    }
}
