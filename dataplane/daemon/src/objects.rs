//! The table objects in force: staged by a full sync, replaced at its commit, kept on disk for the
//! next start.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::object::{Key, Object};

/// Version of the file; another one is refused.
const FILE_VERSION: u32 = 1;

/// Most objects held: a cluster of 5,000 nodes has some 15,000; beyond this bound a peer is broken.
const OBJECTS_MAX: usize = 1 << 20;

/// The objects in force and, during a full sync, those that will replace them.
#[derive(Default)]
pub struct ObjectStore {
    generation: u64,
    committed: bool,
    objects: BTreeMap<Key, Object>,
    staged: Option<Staged>,
}

struct Staged {
    generation: u64,
    objects: BTreeMap<Key, Object>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    generation: u64,
    objects: Vec<Object>,
}

/// Whether the tables must be built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing in force changed.
    None,
    /// What is in force changed.
    Changed,
}

impl ObjectStore {
    /// Generation in force; 0 before the first commit ever.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True once a full sync was committed since this process started.
    pub fn committed(&self) -> bool {
        self.committed
    }

    /// The objects in force, by key.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The object in force of this key.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Starts a full sync; an unfinished one is forgotten.
    ///
    /// # Errors
    /// Stale when `generation` is older than the one in force.
    pub fn begin(&mut self, generation: u64) -> Result<(), ApiError> {
        self.check(generation)?;
        self.staged = Some(Staged {
            generation,
            objects: BTreeMap::new(),
        });
        Ok(())
    }

    /// Adds or replaces objects, staged during a full sync.
    ///
    /// # Errors
    /// Stale as for [`ObjectStore::begin`]; Exhausted beyond the most objects held.
    pub fn upsert(&mut self, generation: u64, objects: Vec<Object>) -> Result<Effect, ApiError> {
        self.check(generation)?;
        let (target, effect) = match &mut self.staged {
            Some(staged) => (&mut staged.objects, Effect::None),
            None => (&mut self.objects, Effect::Changed),
        };
        if target.len() + objects.len() > OBJECTS_MAX {
            let message =
                format!("more than {OBJECTS_MAX} table objects; the last ones were refused");
            return Err(ApiError::new(ErrorKind::Exhausted, message));
        }
        target.extend(objects.into_iter().map(|object| (object.key(), object)));
        Ok(self.settle(generation, effect))
    }

    /// Removes objects; unknown keys are ignored.
    ///
    /// # Errors
    /// Stale as for [`ObjectStore::begin`].
    pub fn delete(&mut self, generation: u64, keys: &[Key]) -> Result<Effect, ApiError> {
        self.check(generation)?;
        let (target, effect) = match &mut self.staged {
            Some(staged) => (&mut staged.objects, Effect::None),
            None => (&mut self.objects, Effect::Changed),
        };
        for key in keys {
            target.remove(key);
        }
        Ok(self.settle(generation, effect))
    }

    /// Ends a full sync: what was staged is in force.
    ///
    /// # Errors
    /// Stale as above; BadRequest without a full sync of this generation.
    pub fn commit(&mut self, generation: u64) -> Result<Effect, ApiError> {
        self.check(generation)?;
        match self.staged.take() {
            Some(staged) if staged.generation == generation => {
                self.objects = staged.objects;
                self.generation = generation;
                self.committed = true;
                Ok(Effect::Changed)
            }
            other => {
                self.staged = other;
                let message = format!("commit of generation {generation} without its sync_begin");
                Err(ApiError::new(ErrorKind::BadRequest, message))
            }
        }
    }

    fn check(&self, generation: u64) -> Result<(), ApiError> {
        if generation >= self.generation {
            return Ok(());
        }
        let message = format!(
            "generation {generation} is older than {} in force; say hello and start again from there",
            self.generation
        );
        Err(ApiError::new(ErrorKind::Stale, message))
    }

    fn settle(&mut self, generation: u64, effect: Effect) -> Effect {
        if effect == Effect::Changed {
            self.generation = generation;
        }
        effect
    }

    /// Writes the objects in force to `path`: to a new file first, then renamed over the old one.
    ///
    /// # Errors
    /// Those of the file system; the old file is then unchanged.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let file = File {
            version: FILE_VERSION,
            generation: self.generation,
            objects: self.objects.values().cloned().collect(),
        };
        let fresh = path.with_extension("json.new");
        let mut out = std::fs::File::create(&fresh)?;
        out.write_all(&serde_json::to_vec(&file)?)?;
        std::fs::rename(&fresh, path)
    }

    /// The store as it was saved; an empty one when there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, is cut off or has another version.
    pub fn load(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let file: File = serde_json::from_slice(&bytes)?;
        if file.version != FILE_VERSION {
            let message = format!(
                "version {} where this program knows {FILE_VERSION}",
                file.version
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let objects = file
            .objects
            .into_iter()
            .map(|object| (object.key(), object))
            .collect();
        Ok(Self {
            generation: file.generation,
            committed: false,
            objects,
            staged: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::object::{ClusterRange, RangePurpose};

    fn range(text: &str) -> Object {
        Object::ClusterRange(ClusterRange {
            prefix: text.parse().unwrap(),
            purpose: RangePurpose::Pods,
        })
    }

    fn names(store: &ObjectStore) -> Vec<String> {
        store
            .objects()
            .map(|o| serde_json::to_string(&o.key()).unwrap())
            .collect()
    }

    #[test]
    fn a_full_sync_replaces_everything_at_its_commit_and_not_before() {
        let mut store = ObjectStore::default();
        assert_eq!(
            store.upsert(1, vec![range("10.1.0.0/16")]).unwrap(),
            Effect::Changed
        );
        store.begin(2).unwrap();
        assert_eq!(
            store.upsert(2, vec![range("10.2.0.0/16")]).unwrap(),
            Effect::None
        );
        assert!(names(&store)[0].contains("10.1.0.0/16"));
        assert!(!store.committed());
        assert_eq!(store.commit(2).unwrap(), Effect::Changed);
        assert_eq!(names(&store).len(), 1);
        assert!(names(&store)[0].contains("10.2.0.0/16"));
        assert!(store.committed() && store.generation() == 2);
    }

    #[test]
    fn old_generations_and_a_commit_without_a_sync_are_refused() {
        let mut store = ObjectStore::default();
        assert_eq!(store.commit(1).unwrap_err().kind, ErrorKind::BadRequest);
        store.begin(5).unwrap();
        store.commit(5).unwrap();
        assert_eq!(
            store
                .upsert(4, vec![range("10.1.0.0/16")])
                .unwrap_err()
                .kind,
            ErrorKind::Stale
        );
        assert_eq!(store.begin(4).unwrap_err().kind, ErrorKind::Stale);
        assert_eq!(names(&store).len(), 0);
    }

    #[test]
    fn objects_survive_in_the_file_and_a_cut_off_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables.json");
        assert_eq!(ObjectStore::load(&path).unwrap().generation(), 0);
        let mut store = ObjectStore::default();
        store
            .upsert(7, vec![range("10.1.0.0/16"), range("fd00::/48")])
            .unwrap();
        store.save(&path).unwrap();
        let again = ObjectStore::load(&path).unwrap();
        assert_eq!(
            (again.generation(), again.committed(), names(&again)),
            (7, false, names(&store))
        );
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(ObjectStore::load(&path).is_err());
    }
}
