//! Where the sockets and the state of one node live.

use std::path::{Path, PathBuf};

/// Default of `--run-dir` (environment: `WEFT_RUN_DIR`).
pub const DEFAULT_RUN_DIR: &str = "/run/weft";
/// Default of `--state-dir`.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/weft";

/// The run directory of one node.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The files below `dir`; nothing is created.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Socket of `weft-keeper`.
    pub fn keeper_socket(&self) -> PathBuf {
        self.0.join("keeper.sock")
    }

    /// Socket of `weft-dataplane`.
    pub fn dataplane_socket(&self) -> PathBuf {
        self.0.join("dataplane.sock")
    }

    /// Socket of `weft-agent`.
    pub fn agent_socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// Where the keeper mounts a bpffs and pins links and maps.
    pub fn bpf(&self) -> PathBuf {
        self.0.join("bpf")
    }

    /// Last committed tables of the dataplane, read again when it restarts.
    pub fn tables(&self) -> PathBuf {
        self.0.join("tables.json")
    }
}
