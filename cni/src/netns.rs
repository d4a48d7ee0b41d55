//! A pod's network namespace.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::Error;

/// An open network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at `path`, which must not be the caller's own: the pod's routes would
    /// replace the node's.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        // A path that is a FIFO by mistake must not block.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path);
        let file = match file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::UnknownContainer(format!(
                    "the network namespace {shown} does not exist"
                )));
            }
            other => other.map_err(|e| Error::io(format!("open network namespace {shown}"), e))?,
        };
        let statistics = fstatfs(&file)
            .map_err(|e| Error::io(format!("look at network namespace {shown}"), e))?;
        if statistics.filesystem_type() != NSFS_MAGIC {
            return Err(Error::Environment(format!(
                "CNI_NETNS {shown} is not a network namespace"
            )));
        }
        let of_node = || -> io::Result<bool> {
            let (mine, theirs) = (
                std::fs::metadata("/proc/thread-self/ns/net")?,
                file.metadata()?,
            );
            Ok((mine.dev(), mine.ino()) == (theirs.dev(), theirs.ino()))
        };
        if of_node().map_err(|e| Error::io(format!("look at network namespace {shown}"), e))? {
            return Err(Error::Environment(format!(
                "CNI_NETNS {shown} is the node's own network namespace"
            )));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The descriptor, for IFLA_NET_NS_FD.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` inside the namespace, in a thread of its own: whatever happens there, the caller
    /// stays in the node's namespace, where the rollback belongs.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let shown = self.path.display();
        let enter_and_work = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
                Errno::EINVAL => Error::Environment(format!(
                    "CNI_NETNS {shown} is a namespace, but not of the network"
                )),
                other => Error::io(format!("enter network namespace {shown}"), other),
            })?;
            work()
        };
        thread::scope(|scope| {
            let spawned = thread::Builder::new().spawn_scoped(scope, enter_and_work);
            let thread = spawned.map_err(|e| Error::io("start a thread", e))?;
            let died = |_| Error::io("work in the pod", io::Error::other("the thread died"));
            thread.join().map_err(died)?
        })
    }
}
