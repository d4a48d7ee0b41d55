//! The table objects on disk, for the next start.
//!
//! `tables.json` holds all objects as they once were, `tables.journal` what changed since, a line for
//! each change, so that a change costs its own size. When the journal has grown as long as the file, a
//! thread writes the file anew and nobody waits for it.
//!
//! A change has a serial number, and the file says which is its last: lines up to it are passed over. So
//! a process may end between any two steps here and the next one finds what was in force. A line that is
//! cut off or damaged ends the journal; the state before it is a state that was in force.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};
use weft_api::object::{Key, Object};

use crate::objects::{Changed, ObjectStore};

/// Version of the file; a later one is refused. The first knew no journal and no serial numbers.
const FILE_VERSION: u32 = 2;

/// A journal shorter than this is not worth writing the file anew, however short that is.
const JOURNAL_MIN: u64 = 256 << 10;

/// Where the objects are kept, and how far.
pub struct KeptTables {
    path: PathBuf,
    /// None until the file can be relied on: then it is written whole.
    journal: Option<Journal>,
    /// Of the last change on disk.
    serial: u64,
    file_bytes: u64,
    /// The journal may always be this long.
    journal_min: u64,
    rewriting: Option<Rewriting>,
}

/// Changes since the file was written.
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// The file is being written anew.
struct Rewriting {
    thread: JoinHandle<io::Result<u64>>,
    /// The part of the journal that the new file holds.
    covered_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    version: u32,
    generation: u64,
    #[serde(default)]
    serial: u64,
    objects: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
struct Change {
    serial: u64,
    generation: u64,
    upserts: Vec<Object>,
    deletes: Vec<Key>,
}

impl KeptTables {
    /// Objects kept at `path`; nothing is read or written yet.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            journal: None,
            serial: 0,
            file_bytes: 0,
            journal_min: JOURNAL_MIN,
            rewriting: None,
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store as it was kept; an empty one when there is none. Damage in the journal is logged, and the
    /// state before it counts.
    ///
    /// # Errors
    /// A file or journal that cannot be read, a file that is cut off or of a later version.
    pub fn load(&mut self) -> io::Result<ObjectStore> {
        let bytes = read(&self.path)?;
        let whole = bytes.as_deref().map(read_whole).transpose()?;
        let mut store = ObjectStore::default();
        if let Some(whole) = whole {
            self.serial = whole.serial;
            store.restore(whole.generation, whole.objects, &[]);
        }
        self.file_bytes = bytes.map_or(0, |bytes| bytes.len() as u64);
        let path = self.path.with_extension("journal");
        let lines = read(&path)?.unwrap_or_default();
        let mut good_bytes = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match read_line(line).and_then(|change| self.follow(change, &mut store)) {
                Ok(()) => good_bytes += line.len() as u64,
                Err(reason) => {
                    let journal = path.display();
                    tracing::error!(%journal, offset = good_bytes, %reason, "damaged; what was kept before is in force");
                    break;
                }
            }
        }
        self.journal = Some(Journal::open(path, good_bytes)?);
        Ok(store)
    }

    fn follow(&mut self, change: Change, store: &mut ObjectStore) -> Result<(), String> {
        if change.serial <= self.serial {
            return Ok(());
        }
        if change.serial != self.serial + 1 {
            return Err(format!(
                "change {} follows change {}",
                change.serial, self.serial
            ));
        }
        self.serial = change.serial;
        store.restore(change.generation, change.upserts, &change.deletes);
        Ok(())
    }

    /// Keeps what changed in the store since the last call.
    ///
    /// # Errors
    /// Those of the file system; the next call then writes everything.
    pub fn keep(&mut self, store: &mut ObjectStore) -> io::Result<()> {
        let changed = store.take_changed();
        self.finish_rewriting(false);
        if let (Changed::Keys(keys), Some(journal)) = (changed, &mut self.journal) {
            let change = Change {
                serial: self.serial + 1,
                generation: store.generation(),
                upserts: keys.iter().filter_map(|k| store.get(k)).cloned().collect(),
                deletes: keys
                    .into_iter()
                    .filter(|k| store.get(k).is_none())
                    .collect(),
            };
            if journal.append(&change).is_ok() {
                self.serial += 1;
                let room = self.file_bytes.max(self.journal_min);
                if journal.bytes > room && self.rewriting.is_none() {
                    self.rewrite(store);
                }
                return Ok(());
            }
        }
        self.write_all(store)
    }

    /// Writes the file while the caller waits, and begins an empty journal.
    fn write_all(&mut self, store: &ObjectStore) -> io::Result<()> {
        self.finish_rewriting(true);
        self.journal = None;
        self.serial += 1;
        self.file_bytes = write_whole(&self.path, &self.whole(store))?;
        self.journal = Some(Journal::open(self.path.with_extension("journal"), 0)?);
        Ok(())
    }

    /// Has a thread write the file. The journal goes on meanwhile.
    fn rewrite(&mut self, store: &ObjectStore) {
        let (path, whole) = (self.path.clone(), self.whole(store));
        let thread = thread::Builder::new().name("tables".to_owned());
        let Some(journal) = &self.journal else { return };
        match thread.spawn(move || write_whole(&path, &whole)) {
            Ok(thread) => {
                self.rewriting = Some(Rewriting {
                    thread,
                    covered_bytes: journal.bytes,
                });
            }
            Err(error) => tracing::warn!(%error, "cannot shorten the journal of the tables"),
        }
    }

    /// Shortens the journal once the file holds its beginning.
    fn finish_rewriting(&mut self, waits: bool) {
        let is_ready = |it: &mut Rewriting| waits || it.thread.is_finished();
        let Some(done) = self.rewriting.take_if(is_ready) else {
            return;
        };
        let (Ok(written), Some(journal)) = (done.thread.join(), &mut self.journal) else {
            return;
        };
        let shortened = written.and_then(|bytes| {
            self.file_bytes = bytes;
            journal.drop_first(done.covered_bytes)
        });
        if let Err(error) = shortened {
            tracing::warn!(path = %self.path.display(), %error, "cannot shorten the journal of the tables");
        }
    }

    fn whole(&self, store: &ObjectStore) -> Whole {
        Whole {
            version: FILE_VERSION,
            generation: store.generation(),
            serial: self.serial,
            objects: store.objects().cloned().collect(),
        }
    }
}

impl Journal {
    /// The journal at `path` without what is behind its first `bytes`.
    fn open(path: PathBuf, bytes: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(&path)?;
        file.set_len(bytes)?;
        Ok(Self { path, file, bytes })
    }

    fn append(&mut self, change: &Change) -> io::Result<()> {
        let text = serde_json::to_vec(change)?;
        let mut line = format!("{:016x} ", hash(&text)).into_bytes();
        line.extend(text);
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Leaves out the first `bytes`: the rest becomes a new file, which then takes the name.
    fn drop_first(&mut self, bytes: u64) -> io::Result<()> {
        let mut rest = Vec::new();
        self.file.seek(SeekFrom::Start(bytes))?;
        self.file.read_to_end(&mut rest)?;
        let fresh = self.path.with_extension("journal.new");
        fs::write(&fresh, &rest)?;
        let journal = Self::open(fresh, rest.len() as u64)?;
        fs::rename(&journal.path, &self.path)?;
        self.file = journal.file;
        self.bytes = journal.bytes;
        Ok(())
    }
}

/// The content of a file; none when there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn read_whole(bytes: &[u8]) -> io::Result<Whole> {
    let whole: Whole = serde_json::from_slice(bytes)?;
    if whole.version > FILE_VERSION {
        let version = whole.version;
        let message = format!("version {version} where this program knows {FILE_VERSION}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(whole)
}

fn read_line(line: &[u8]) -> Result<Change, String> {
    let line = line.strip_suffix(b"\n").ok_or("the last line is cut off")?;
    let (sum, text) = line.split_at_checked(17).ok_or("a line is too short")?;
    if sum != format!("{:016x} ", hash(text)).as_bytes() {
        return Err("a line's checksum is wrong".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Writes a new file first and renames it over the old one; tells its length.
fn write_whole(path: &Path, whole: &Whole) -> io::Result<u64> {
    let fresh = path.with_extension("json.new");
    let mut out = BufWriter::new(File::create(&fresh)?);
    serde_json::to_writer(&mut out, whole)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    fs::rename(&fresh, path)?;
    Ok(file.metadata()?.len())
}

/// FNV-1a of 64 bits: it tells damage, it keeps out nobody.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
