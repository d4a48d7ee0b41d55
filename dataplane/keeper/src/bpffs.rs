//! The bpffs below the run directory, and the pins in it.
//!
//! Pins are what keeps a pod closed when the keeper is killed: the program stays attached, finds no
//! socket and drops. A keeper that starts removes the pins of the one before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Our directory inside the bpffs. (Names there must not contain a dot.)
const DIRECTORY: &str = "weft";

/// Names of pinned links begin with this, and the port's id follows.
const LINK_PREFIX: &str = "port_";

/// A mounted bpffs with our directory in it.
#[derive(Debug)]
pub struct Bpffs {
    mount_point: PathBuf,
    /// Whether it is ours to unmount: mounted by this keeper, or by an earlier one that was killed.
    ours: bool,
}

impl Bpffs {
    /// Mounts a bpffs at `mount_point` unless one is there, and removes what an earlier keeper pinned.
    ///
    /// # Errors
    /// When it can be neither mounted nor used.
    pub fn open(mount_point: &Path) -> io::Result<Self> {
        fs::create_dir_all(mount_point)?;
        let mounted = statfs(mount_point)?.filesystem_type() == BPF_FS_MAGIC;
        if !mounted {
            mount(
                Some("bpffs"),
                mount_point,
                Some("bpf"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some("mode=0700"),
            )?;
        }
        let bpffs = Self {
            ours: !mounted || mount_point.join(DIRECTORY).exists(),
            mount_point: mount_point.to_owned(),
        };
        bpffs.clear()?;
        fs::create_dir(bpffs.directory())?;
        Ok(bpffs)
    }

    /// Where pins go.
    pub fn directory(&self) -> PathBuf {
        self.mount_point.join(DIRECTORY)
    }

    /// Where the link of a port is pinned.
    pub fn link(&self, port: u16) -> PathBuf {
        self.directory().join(format!("{LINK_PREFIX}{port}"))
    }

    /// Removes the pin at `path`; none there is success.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn unpin(path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    /// Removes our pins and the mount. Goes on after an error and returns the first.
    ///
    /// # Errors
    /// Those of the files and of umount(2).
    pub fn close(self) -> io::Result<()> {
        let cleared = self.clear();
        if self.ours {
            umount2(&self.mount_point, MntFlags::MNT_DETACH)?;
            fs::remove_dir(&self.mount_point)?;
        }
        cleared
    }

    fn clear(&self) -> io::Result<()> {
        let directory = self.directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if is_link(&path) {
                // At once, because the interface may be bound next. One that cannot be detached
                // goes with its file.
                if let Err(error) = weft_xdp_progs::detach_pinned(&path) {
                    tracing::warn!(%error, "an earlier keeper's program");
                }
            }
            Self::unpin(&path)?;
        }
        absent_is_fine(fs::remove_dir(&directory))
    }
}

fn is_link(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(LINK_PREFIX))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
