//! Watches a directory of manifests.
//!
//! A file counts when its writer closed it or renamed it into place, never while it is being
//! written. The directory may be missing, be replaced, or be a symbolic link that is pointed
//! elsewhere: its parent is watched too.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Quiet time after an event before files are read: a tool that writes many files, or one file in
/// steps, causes few compilations. Whoever waits for a change waits for this first; what comes while
/// another change is compiled shares the next compilation anyway.
const QUIET: Duration = Duration::from_millis(5);

/// Files are read at the latest this long after the first event, however many follow.
const QUIET_MAX: Duration = Duration::from_millis(200);

/// How often a missing directory is looked for.
const MISSING_RETRY: Duration = Duration::from_millis(250);

/// Room for some 100 events at once; more are read in the next round.
const EVENT_BYTES: usize = 16 << 10;

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// It holds this now.
    Content {
        /// Name within the directory.
        name: String,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// It is there but cannot be read.
    Unreadable {
        /// Name within the directory.
        name: String,
        /// What the kernel said.
        reason: String,
    },
    /// It is gone.
    Removed {
        /// Name within the directory.
        name: String,
    },
}

/// What the watcher tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Files changed. The first one holds everything there is.
    Changes(Vec<FileChange>),
    /// The directory cannot be watched, and why; what it held stays in force.
    Unavailable(String),
}

/// A watching thread; it ends when this is dropped.
#[derive(Debug)]
pub struct DirWatcher {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl DirWatcher {
    /// Watches `dir`. `known` are files somebody holds from before: those that are not there any
    /// more are reported as removed. `sink` is called on the watching thread.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance or thread.
    pub fn spawn(
        dir: PathBuf,
        known: Vec<String>,
        sink: impl FnMut(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?);
        let mut watch = Watch::new(dir, known, Arc::clone(&stop), sink)?;
        let thread = std::thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || watch.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for DirWatcher {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Watch<S> {
    dir: PathBuf,
    inotify: Inotify,
    stop: Arc<EventFd>,
    sink: S,
    /// Watches of the directory and of its parent, while there are any.
    own: Option<WatchDescriptor>,
    parent: Option<WatchDescriptor>,
    /// Names reported as holding something.
    known: BTreeSet<String>,
    /// Names to read once it is quiet.
    dirty: BTreeSet<String>,
    /// Names that were created and not closed yet.
    open: HashSet<String>,
    /// The directory must be looked at as a whole.
    rescan: bool,
}

/// Why the loop goes on.
#[derive(PartialEq, Eq)]
enum Wake {
    Events,
    Timeout,
    Stop,
}

impl<S: FnMut(Report)> Watch<S> {
    fn new(dir: PathBuf, known: Vec<String>, stop: Arc<EventFd>, sink: S) -> io::Result<Self> {
        Ok(Self {
            dir,
            inotify: Inotify::init()?,
            stop,
            sink,
            own: None,
            parent: None,
            known: known.into_iter().collect(),
            dirty: BTreeSet::new(),
            open: HashSet::new(),
            rescan: true,
        })
    }

    fn run(&mut self) {
        let mut told = None;
        loop {
            let problem = self.establish().err().map(|error| {
                let dir = self.dir.display();
                format!("the manifests in {dir} cannot be watched: {error}; what they held stays in force")
            });
            if let Some(problem) = problem.clone().filter(|_| problem != told) {
                (self.sink)(Report::Unavailable(problem));
            }
            let available = problem.is_none();
            told = problem;
            if available {
                self.read_changed();
            }
            let timeout = if available { None } else { Some(MISSING_RETRY) };
            match self.wait(timeout) {
                Wake::Stop => return,
                Wake::Timeout => {}
                Wake::Events if self.settle() == Wake::Stop => return,
                Wake::Events => {}
            }
        }
    }

    /// Watches first, lists afterwards, so that nothing falls in between.
    fn establish(&mut self) -> io::Result<()> {
        if self.own.is_some() {
            return Ok(());
        }
        let mut watches = self.inotify.watches();
        if let Some(old) = self.parent.take() {
            // The kernel drops a watch with its directory; then there is nothing to remove.
            let _ = watches.remove(old);
        }
        // Without a parent that can be watched, the directory itself still is.
        let parent = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
        self.parent = watches.add(parent_of(&self.dir), parent).ok();
        let own = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::MASK_ADD;
        self.own = Some(watches.add(&self.dir, own)?);
        self.open.clear();
        self.rescan = true;
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> Wake {
        let mut fds = [
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(0) | Err(_) => Wake::Timeout,
            Ok(_) if fds[0].any().unwrap_or(true) => Wake::Stop,
            Ok(_) => Wake::Events,
        }
    }

    /// Reads events until none came for a while.
    fn settle(&mut self) -> Wake {
        let deadline = Instant::now() + QUIET_MAX;
        loop {
            self.read_events();
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait(Some(QUIET.min(left))) {
                Wake::Events if !left.is_zero() => {}
                Wake::Stop => return Wake::Stop,
                _ => return Wake::Events,
            }
        }
    }

    fn read_events(&mut self) {
        let mut buffer = [0; EVENT_BYTES];
        let events: Vec<_> = match self.inotify.read_events(&mut buffer) {
            Ok(events) => events.map(|event| event.to_owned()).collect(),
            Err(_) => return,
        };
        for event in &events {
            self.note(event);
        }
    }

    fn note(&mut self, event: &Event<std::ffi::OsString>) {
        let mask = event.mask;
        if mask.contains(EventMask::Q_OVERFLOW) {
            // What was lost may be a close: read everything, half-written or not.
            self.open.clear();
            self.rescan = true;
        } else if Some(&event.wd) == self.own.as_ref() {
            let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED;
            if mask.intersects(gone | EventMask::UNMOUNT) {
                self.forget_own();
            } else if let Some(name) = event.name.as_deref() {
                self.note_file(mask, name);
            }
        } else if Some(&event.wd) == self.parent.as_ref()
            && event.name.as_deref() == self.dir.file_name()
        {
            // Another directory, or another target of the link, took the name.
            self.forget_own();
        }
    }

    fn forget_own(&mut self) {
        if let Some(own) = self.own.take() {
            let _ = self.inotify.watches().remove(own);
        }
    }

    fn note_file(&mut self, mask: EventMask, name: &OsStr) {
        if name.as_encoded_bytes().starts_with(b"..") {
            // The way a ConfigMap volume is swapped: `..data` points elsewhere, and every file
            // that leads through it has changed.
            self.rescan = true;
            return;
        }
        let Some(name) = manifest_name(name) else {
            return;
        };
        if mask.contains(EventMask::CREATE) && is_being_written(&self.dir.join(&name)) {
            self.dirty.remove(&name);
            self.open.insert(name);
        } else {
            self.open.remove(&name);
            self.dirty.insert(name);
        }
    }

    fn read_changed(&mut self) {
        let first_or_whole = std::mem::take(&mut self.rescan);
        if first_or_whole {
            self.dirty.extend(self.list());
            self.dirty.extend(self.known.iter().cloned());
            self.dirty.retain(|name| !self.open.contains(name));
        }
        let names = std::mem::take(&mut self.dirty);
        if names.is_empty() && !first_or_whole {
            return;
        }
        let mut changes = Vec::with_capacity(names.len());
        for name in names {
            match fs::read(self.dir.join(&name)) {
                Ok(bytes) => {
                    self.known.insert(name.clone());
                    changes.push(FileChange::Content { name, bytes });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.known.remove(&name);
                    changes.push(FileChange::Removed { name });
                }
                Err(error) => changes.push(FileChange::Unreadable {
                    name,
                    reason: error.to_string(),
                }),
            }
        }
        (self.sink)(Report::Changes(changes));
    }

    fn list(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let files = entries.flatten().filter(|entry| !entry.path().is_dir());
        files
            .filter_map(|e| manifest_name(&e.file_name()))
            .collect()
    }
}

fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => dir,
    }
}

/// The name, if it is one of a manifest: not hidden, and of a known ending. Editors' and tools'
/// temporary files have others.
fn manifest_name(name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    let known = matches!(ending, Some("yaml" | "yml" | "json"));
    (known && !name.starts_with('.')).then(|| name.to_owned())
}

/// A name that was just created: a plain new file will be closed by its writer, while a link, hard
/// or symbolic, is all there at once.
fn is_being_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() == 1)
}
