use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use weft_agent::watch::dir::{DirWatcher, FileChange, Report};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than the watcher waits for quiet: what has not come then does not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A watched directory and what the watcher made of it.
struct Watched {
    root: tempfile::TempDir,
    reports: Receiver<Report>,
    files: BTreeMap<String, String>,
    unavailable: usize,
    _watcher: DirWatcher,
}

impl Watched {
    fn new(prepare: impl FnOnce(&Path), known: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        prepare(root.path());
        let (sender, reports) = channel();
        let known = known.iter().map(ToString::to_string).collect();
        // The test's end may come before the watcher's.
        let sink = move |report| drop(sender.send(report));
        let watcher = DirWatcher::spawn(root.path().join("m"), known, sink).unwrap();
        Self {
            root,
            reports,
            files: BTreeMap::new(),
            unavailable: 0,
            _watcher: watcher,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn take(&mut self, wait: Duration) -> Result<Vec<FileChange>, RecvTimeoutError> {
        match self.reports.recv_timeout(wait)? {
            Report::Unavailable(_) => {
                self.unavailable += 1;
                Ok(Vec::new())
            }
            Report::Changes(changes) => {
                for change in &changes {
                    match change.clone() {
                        FileChange::Content { name, bytes } => {
                            self.files.insert(name, String::from_utf8(bytes).unwrap());
                        }
                        FileChange::Removed { name } => drop(self.files.remove(&name)),
                        FileChange::Unreadable { name, reason } => panic!("{name}: {reason}"),
                    }
                }
                Ok(changes)
            }
        }
    }

    #[track_caller]
    fn until(&mut self, expected: &[(&str, &str)]) {
        let deadline = Instant::now() + PATIENCE;
        let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        let expected: BTreeMap<String, String> = expected.iter().map(pair).collect();
        while self.files != expected {
            let left = deadline.saturating_duration_since(Instant::now());
            self.take(left)
                .unwrap_or_else(|_| panic!("{:?} is not {expected:?}", self.files));
        }
    }

    #[track_caller]
    fn quiet(&mut self) {
        let report = self.take(SILENCE);
        assert_eq!(report, Err(RecvTimeoutError::Timeout));
    }
}

fn with_a(root: &Path) {
    fs::create_dir(root.join("m")).unwrap();
    fs::write(root.join("m/a.yaml"), "1").unwrap();
}

#[test]
fn the_first_report_holds_everything_and_what_is_gone() {
    let mut watched = Watched::new(with_a, &["a.yaml", "old.yaml"]);
    let changes = watched.take(PATIENCE).unwrap();
    assert_eq!(changes.len(), 2);
    assert!(matches!(&changes[1], FileChange::Removed { name } if name == "old.yaml"));
    watched.until(&[("a.yaml", "1")]);
    watched.quiet();
}

#[test]
fn writing_renaming_and_deleting_are_seen() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    fs::write(watched.path("m/a.yaml"), "2").unwrap();
    watched.until(&[("a.yaml", "2")]);
    fs::write(watched.path("m/.b.yaml.tmp"), "3").unwrap();
    fs::write(watched.path("m/notes.txt"), "3").unwrap();
    watched.quiet();
    fs::rename(watched.path("m/.b.yaml.tmp"), watched.path("m/b.json")).unwrap();
    watched.until(&[("a.yaml", "2"), ("b.json", "3")]);
    fs::rename(watched.path("m/b.json"), watched.path("m/c.yml")).unwrap();
    watched.until(&[("a.yaml", "2"), ("c.yml", "3")]);
    fs::remove_file(watched.path("m/a.yaml")).unwrap();
    watched.until(&[("c.yml", "3")]);
}

#[test]
fn a_file_counts_when_it_is_closed() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    let mut new = File::create(watched.path("m/b.yaml")).unwrap();
    new.write_all(b"half").unwrap();
    let mut old = File::create(watched.path("m/a.yaml")).unwrap();
    watched.quiet();
    new.write_all(b" and half").unwrap();
    drop(new);
    watched.until(&[("a.yaml", "1"), ("b.yaml", "half and half")]);
    old.write_all(b"2").unwrap();
    drop(old);
    watched.until(&[("a.yaml", "2"), ("b.yaml", "half and half")]);
}

#[test]
fn many_files_at_once_are_one_report() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    for n in 0..50 {
        fs::write(watched.path(&format!("m/n{n}.yaml")), "x").unwrap();
    }
    let mut reports = 0;
    while watched.files.len() < 51 {
        watched.take(PATIENCE).unwrap();
        reports += 1;
    }
    assert!(reports <= 5, "{reports}");
}

#[test]
fn links_count_at_once() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    fs::write(watched.path("outside"), "2").unwrap();
    symlink(watched.path("outside"), watched.path("m/s.yaml")).unwrap();
    watched.until(&[("a.yaml", "1"), ("s.yaml", "2")]);
    fs::hard_link(watched.path("outside"), watched.path("m/h.yaml")).unwrap();
    watched.until(&[("a.yaml", "1"), ("h.yaml", "2"), ("s.yaml", "2")]);
}

#[test]
fn a_config_map_volume_is_swapped_at_once() {
    let mut watched = Watched::new(
        |root| {
            let dir = root.join("m");
            fs::create_dir_all(dir.join("..1")).unwrap();
            fs::write(dir.join("..1/a.yaml"), "1").unwrap();
            symlink("..1", dir.join("..data")).unwrap();
            symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
        },
        &[],
    );
    watched.until(&[("a.yaml", "1")]);
    fs::create_dir(watched.path("m/..2")).unwrap();
    fs::write(watched.path("m/..2/a.yaml"), "2").unwrap();
    symlink("..2", watched.path("m/..data_tmp")).unwrap();
    fs::rename(watched.path("m/..data_tmp"), watched.path("m/..data")).unwrap();
    watched.until(&[("a.yaml", "2")]);
}

#[test]
fn a_directory_that_is_replaced_is_followed() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    fs::create_dir(watched.path("new")).unwrap();
    fs::write(watched.path("new/b.yaml"), "2").unwrap();
    fs::rename(watched.path("m"), watched.path("old")).unwrap();
    fs::rename(watched.path("new"), watched.path("m")).unwrap();
    watched.until(&[("b.yaml", "2")]);
    fs::write(watched.path("old/a.yaml"), "9").unwrap();
    fs::write(watched.path("m/c.yaml"), "3").unwrap();
    watched.until(&[("b.yaml", "2"), ("c.yaml", "3")]);
}

#[test]
fn a_link_to_a_directory_may_be_pointed_elsewhere() {
    let mut watched = Watched::new(
        |root| {
            for (dir, text) in [("v1", "1"), ("v2", "2")] {
                fs::create_dir(root.join(dir)).unwrap();
                fs::write(root.join(dir).join("a.yaml"), text).unwrap();
            }
            symlink("v1", root.join("m")).unwrap();
        },
        &[],
    );
    watched.until(&[("a.yaml", "1")]);
    symlink("v2", watched.path("next")).unwrap();
    fs::rename(watched.path("next"), watched.path("m")).unwrap();
    watched.until(&[("a.yaml", "2")]);
    fs::write(watched.path("v2/a.yaml"), "3").unwrap();
    watched.until(&[("a.yaml", "3")]);
}

#[test]
fn a_missing_directory_keeps_what_it_held_and_is_waited_for() {
    let mut watched = Watched::new(with_a, &[]);
    watched.until(&[("a.yaml", "1")]);
    fs::rename(watched.path("m"), watched.path("old")).unwrap();
    while watched.unavailable == 0 {
        watched.take(PATIENCE).unwrap();
    }
    assert_eq!(watched.files.len(), 1);
    fs::create_dir(watched.path("m")).unwrap();
    fs::write(watched.path("m/b.yaml"), "2").unwrap();
    watched.until(&[("b.yaml", "2")]);
    assert_eq!(watched.unavailable, 1);
}
