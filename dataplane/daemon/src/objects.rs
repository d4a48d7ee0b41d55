//! The table objects in force: staged by a full sync, replaced at its commit.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::object::{Key, Object};

/// Most objects held: a cluster of 5,000 nodes has some 15,000; beyond this bound a peer is broken.
const OBJECTS_MAX: usize = 1 << 20;

/// The objects in force and, during a full sync, those that will replace them.
#[derive(Default)]
pub struct ObjectStore {
    generation: u64,
    committed: bool,
    objects: BTreeMap<Key, Object>,
    staged: Option<Staged>,
    changed: Changed,
}

/// What changed in force since somebody asked.
pub enum Changed {
    /// The objects of these keys came, changed or went.
    Keys(BTreeSet<Key>),
    /// Everything was replaced.
    All,
}

struct Staged {
    generation: u64,
    objects: BTreeMap<Key, Object>,
}

/// Whether the tables must be built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing in force changed.
    None,
    /// What is in force changed.
    Changed,
}

impl Default for Changed {
    fn default() -> Self {
        Self::Keys(BTreeSet::new())
    }
}

impl Changed {
    fn add(&mut self, key: &Key) {
        if let Self::Keys(keys) = self {
            keys.insert(key.clone());
        }
    }
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
        for object in objects {
            let key = object.key();
            if effect == Effect::Changed {
                self.changed.add(&key);
            }
            target.insert(key, object);
        }
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
            if target.remove(key).is_some() && effect == Effect::Changed {
                self.changed.add(key);
            }
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
                self.changed = Changed::All;
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

    /// What changed in force since the last call.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Puts in force what a process before this one had in force.
    pub fn restore(&mut self, generation: u64, upserts: Vec<Object>, deletes: &[Key]) {
        self.generation = generation;
        for key in deletes {
            self.objects.remove(key);
        }
        let upserts = upserts.into_iter();
        self.objects
            .extend(upserts.map(|object| (object.key(), object)));
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
}
