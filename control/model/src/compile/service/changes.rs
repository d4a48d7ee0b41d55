//! Which objects of a kind changed since they were last looked at.

use std::collections::BTreeMap;

use crate::manifest::{Kind, ObjectKey, Resource};
use crate::state::Store;

/// The objects of a kind as they were last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(BTreeMap<ObjectKey, Resource>);

/// One object before and after.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub before: Option<Resource>,
    pub now: Option<Resource>,
}

impl Seen {
    /// Takes the objects as they are now. Both lists are in order, so what is the same, nearly all of
    /// it, is passed over without a search.
    pub fn refresh(&mut self, store: &Store, kind: Kind) -> Vec<(ObjectKey, Change)> {
        let mut changes = Vec::new();
        let mut add = |key: &ObjectKey, before: Option<&Resource>, now: Option<&Resource>| {
            let (before, now) = (before.cloned(), now.cloned());
            changes.push((key.clone(), Change { before, now }));
        };
        let mut known = self.0.iter().peekable();
        for (key, now) in store.of_kind(kind) {
            while let Some((gone, before)) = known.next_if(|(known, _)| *known < key) {
                add(gone, Some(before), None);
            }
            let before = known.next_if(|(known, _)| *known == key);
            let before = before.map(|(_, resource)| resource);
            if !before.is_some_and(|before| before.is_same(now)) {
                add(key, before, Some(now));
            }
        }
        known.for_each(|(gone, before)| add(gone, Some(before), None));
        for (key, change) in &changes {
            match &change.now {
                Some(now) => self.0.insert(key.clone(), now.clone()),
                None => self.0.remove(key),
            };
        }
        changes
    }

    /// One of the objects.
    pub fn get(&self, key: &ObjectKey) -> Option<&Resource> {
        self.0.get(key)
    }

    /// The names of all.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }
}
