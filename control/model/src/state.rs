//! The desired state: the objects of all files, where a broken file keeps what it last held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use crate::manifest::{self, Item, Kind, ManifestError, ObjectKey, Reading, Resource};

/// The objects of all files.
#[derive(Clone, Debug, Default)]
pub struct Store {
    files: BTreeMap<String, File>,
    /// Files that hold an object, whether or not theirs is the one in force.
    holders: BTreeMap<ObjectKey, BTreeSet<String>>,
    objects: BTreeMap<ObjectKey, InForce>,
    /// Broken files that hold policies.
    suspicious: BTreeSet<String>,
    /// Objects that changed since somebody asked.
    changed: BTreeSet<ObjectKey>,
    revision: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What it held when it could last be read.
    good: BTreeMap<ObjectKey, Item>,
    /// That text: a new one that is only its beginning was cut off.
    good_text: Option<Arc<[u8]>>,
    problems: Vec<String>,
    notes: Vec<String>,
    /// Policies it holds now that it is broken, with the object where it could be decoded.
    suspects: BTreeMap<ObjectKey, Option<Resource>>,
}

#[derive(Clone, Debug)]
struct InForce {
    file: String,
    resource: Resource,
}

/// What a change of a file led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The text is the one we knew.
    Unchanged,
    /// The file was read; its objects are in force.
    Read,
    /// The file is broken; what it last held stays in force.
    Broken,
}

impl Store {
    /// Takes the content of `file` as it is now.
    pub fn apply(&mut self, file: &str, bytes: &[u8]) -> Effect {
        let known = self.files.entry(file.to_owned()).or_default();
        let unchanged = known.good_text.as_deref() == Some(bytes);
        if unchanged && known.problems.is_empty() {
            return Effect::Unchanged;
        }
        if known
            .good_text
            .as_deref()
            .is_some_and(|good| is_cut_off(bytes, good))
        {
            let line = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
            let reason = "ends in the middle of a line of what it held before: it was cut off";
            known.problems = vec![format!("{file}:{line}: {reason}")];
            return Effect::Broken;
        }
        let reading = manifest::read(file, bytes);
        if !reading.errors.is_empty() {
            known.problems = reading
                .errors
                .iter()
                .map(ManifestError::to_string)
                .collect();
            let suspects = suspects(reading);
            if known.suspects != suspects {
                match suspects.is_empty() {
                    true => self.suspicious.remove(file),
                    false => self.suspicious.insert(file.to_owned()),
                };
                known.suspects = suspects;
                self.revision += 1;
            }
            return Effect::Broken;
        }
        let manifest = reading.manifest;
        known.problems.clear();
        known.suspects.clear();
        if self.suspicious.remove(file) {
            self.revision += 1;
        }
        known.notes = manifest.notes;
        known.good_text = Some(bytes.into());
        let items = manifest.objects.into_iter();
        self.replace(file, items.map(|item| (item.key.clone(), item)).collect());
        Effect::Read
    }

    /// `file` is there but cannot be read: what it last held stays in force.
    pub fn unreadable(&mut self, file: &str, reason: &str) {
        let known = self.files.entry(file.to_owned()).or_default();
        known.problems = vec![format!("{file}: cannot be read: {reason}")];
    }

    /// `file` is gone and its objects with it.
    pub fn remove(&mut self, file: &str) {
        if self.files.contains_key(file) {
            self.replace(file, BTreeMap::new());
            self.files.remove(file);
            if self.suspicious.remove(file) {
                self.revision += 1;
            }
        }
    }

    /// The files known, broken ones included.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The text `file` had when it could last be read.
    pub fn last_good(&self, file: &str) -> Option<Arc<[u8]>> {
        self.files.get(file)?.good_text.clone()
    }

    /// Grows whenever the objects in force change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Names of the objects in force that came, changed or went since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// What is wrong, a sentence each: broken files, and objects that are in two files.
    pub fn problems(&self) -> Vec<String> {
        let broken = self.files.values().flat_map(|file| file.problems.clone());
        broken.chain(self.duplicates()).collect()
    }

    /// What was passed over.
    pub fn notes(&self) -> Vec<String> {
        self.files.values().flat_map(|f| f.notes.clone()).collect()
    }

    /// The objects of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Resource)> {
        let first = ObjectKey {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(key, object)| (key, &object.resource))
    }

    /// All policies that must not be passed over, by kind, namespace and name: those in force, and
    /// those that only stand in broken files and never were good. Of the latter the object is there
    /// where it could be decoded, though something is wrong with it or with its file.
    pub fn policies(&self) -> Vec<(&ObjectKey, Option<&Resource>)> {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_policy());
        let objects = kinds.flat_map(|kind| self.of_kind(kind));
        let in_force = objects.map(|(key, resource)| (key, Some(resource)));
        if self.suspicious.is_empty() {
            return in_force.collect();
        }
        let mut all: BTreeMap<&ObjectKey, Option<&Resource>> = BTreeMap::new();
        let files = self
            .suspicious
            .iter()
            .filter_map(|file| self.files.get(file));
        for (key, resource) in files.flat_map(|file| &file.suspects) {
            all.entry(key).or_insert(resource.as_ref());
        }
        all.extend(in_force);
        all.into_iter().collect()
    }

    /// The nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.of_kind(Kind::Node).filter_map(|(_, r)| match r {
            Resource::Node(node) => Some(&**node),
            _ => None,
        })
    }

    /// The services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.of_kind(Kind::Service).filter_map(|(_, r)| match r {
            Resource::Service(service) => Some(&**service),
            _ => None,
        })
    }

    /// One pod.
    pub fn pod(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        match &self.objects.get(key)?.resource {
            Resource::Pod(pod) => Some(Arc::clone(pod)),
            _ => None,
        }
    }

    fn replace(&mut self, file: &str, new: BTreeMap<ObjectKey, Item>) {
        let Some(known) = self.files.get_mut(file) else {
            return;
        };
        let old = std::mem::replace(&mut known.good, new);
        let mut touched: BTreeSet<ObjectKey> = old.into_keys().collect();
        for key in &touched {
            if let Some(files) = self.holders.get_mut(key) {
                files.remove(file);
            }
        }
        for key in known.good.keys() {
            let files = self.holders.entry(key.clone()).or_default();
            files.insert(file.to_owned());
            touched.insert(key.clone());
        }
        for key in touched {
            self.settle(key);
        }
    }

    /// Decides which file's object is in force: the one that was, as long as its file holds it,
    /// else the first by file name.
    fn settle(&mut self, key: ObjectKey) {
        let files = self.holders.get(&key).filter(|files| !files.is_empty());
        let current = self.objects.get(&key);
        let chosen = files.and_then(|files| {
            let keeps = current
                .map(|c| &c.file)
                .filter(|file| files.contains(*file));
            keeps.or_else(|| files.first())
        });
        let new = chosen.and_then(|file| {
            let item = self.files.get(file)?.good.get(&key)?;
            Some(InForce {
                file: file.clone(),
                resource: item.resource.clone(),
            })
        });
        let same = current.map(|c| &c.resource) == new.as_ref().map(|n| &n.resource);
        if !same {
            self.revision += 1;
            self.changed.insert(key.clone());
        }
        match new {
            // What is equal stays the same in memory too: that is how a compiler sees it.
            Some(new) if same => {
                if let Some(current) = self.objects.get_mut(&key) {
                    current.file = new.file;
                }
            }
            Some(new) => {
                self.objects.insert(key, new);
            }
            None => {
                self.objects.remove(&key);
                self.holders.remove(&key);
            }
        }
    }

    fn duplicates(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (key, files) in self.holders.iter().filter(|(_, files)| files.len() > 1) {
            let Some(kept) = self.objects.get(key).map(|object| &object.file) else {
                continue;
            };
            for file in files.iter().filter(|file| *file != kept) {
                let (line, kept_line) = (self.line(file, key), self.line(kept, key));
                found.push(format!(
                    "{file}:{line}: {key} is also at {kept}:{kept_line}, which stays in force"
                ));
            }
        }
        found
    }

    fn line(&self, file: &str, key: &ObjectKey) -> usize {
        let item = self.files.get(file).and_then(|file| file.good.get(key));
        item.map_or(1, |item| item.line)
    }
}

/// The policies of a broken file, good ones too: none of them came into force.
fn suspects(reading: Reading) -> BTreeMap<ObjectKey, Option<Resource>> {
    let good = reading.manifest.objects.into_iter();
    let good = good.filter(|item| item.key.kind.is_policy());
    let good = good.map(|item| (item.key, Some(item.resource)));
    reading.broken_policies.into_iter().chain(good).collect()
}

/// A file cut off in the middle of a line may still be YAML: `podCIDR: 10.1.2.0/2`. It is told
/// from an edit by being the beginning of what it was.
fn is_cut_off(bytes: &[u8], good: &[u8]) -> bool {
    let shorter = !bytes.is_empty() && bytes.len() < good.len() && good.starts_with(bytes);
    let at_line_end = bytes.ends_with(b"\n") || good.get(bytes.len()) == Some(&b'\n');
    shorter && !at_line_end && !good[bytes.len()..].trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str) -> String {
        format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  podCIDR: {cidr}\n")
    }

    fn cidrs(store: &Store) -> Vec<&str> {
        store
            .nodes()
            .filter_map(|n| n.spec.as_ref()?.pod_cidr.as_deref())
            .collect()
    }

    #[test]
    fn a_broken_empty_or_cut_off_file_keeps_its_last_good_objects() {
        let mut store = Store::default();
        let good = node("a", "10.1.2.0/24");
        assert_eq!(store.apply("a.yaml", good.as_bytes()), Effect::Read);
        assert_eq!(store.apply("a.yaml", good.as_bytes()), Effect::Unchanged);
        let revision = store.revision();
        let cut = &good.as_bytes()[..good.len() - 2];
        for (broken, line) in [
            (&b""[..], 1),
            (b"\n# gone\n", 1),
            (b"kind: [", 1),
            (cut, 6),
            (
                b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2/24}\n",
                4,
            ),
        ] {
            assert_eq!(store.apply("a.yaml", broken), Effect::Broken);
            let problems = store.problems();
            assert!(
                problems[0].starts_with(&format!("a.yaml:{line}: ")),
                "{problems:?}"
            );
            assert_eq!(cidrs(&store), ["10.1.2.0/24"]);
        }
        assert_eq!(store.revision(), revision);
        assert_eq!(store.apply("a.yaml", good.as_bytes()), Effect::Read);
        assert_eq!(store.problems(), [] as [&str; 0]);
        assert_eq!(store.revision(), revision);
    }

    #[test]
    fn removing_the_last_lines_is_an_edit() {
        let mut store = Store::default();
        let both = format!(
            "{}---\n{}",
            node("a", "10.1.0.0/24"),
            node("b", "10.2.0.0/24")
        );
        store.apply("x.yaml", both.as_bytes());
        assert_eq!(
            store.apply("x.yaml", node("a", "10.1.0.0/24").as_bytes()),
            Effect::Read
        );
        assert_eq!(cidrs(&store), ["10.1.0.0/24"]);
        let unterminated = node("a", "10.1.0.0/24");
        assert_eq!(
            store.apply("x.yaml", unterminated.trim_end().as_bytes()),
            Effect::Read
        );
    }

    #[test]
    fn the_first_holder_of_a_duplicate_keeps_it_until_it_lets_go() {
        let mut store = Store::default();
        store.apply("b.yaml", node("n", "10.2.0.0/24").as_bytes());
        store.apply("a.yaml", node("n", "10.1.0.0/24").as_bytes());
        assert_eq!(cidrs(&store), ["10.2.0.0/24"]);
        assert_eq!(
            store.problems(),
            ["a.yaml:1: Node n is also at b.yaml:1, which stays in force"]
        );
        store.remove("b.yaml");
        assert_eq!(cidrs(&store), ["10.1.0.0/24"]);
        assert_eq!(store.problems(), [] as [&str; 0]);
        store.remove("a.yaml");
        assert_eq!(cidrs(&store), [] as [&str; 0]);
    }

    #[test]
    fn an_unreadable_file_keeps_its_objects() {
        let mut store = Store::default();
        store.apply("a.yaml", node("n", "10.1.0.0/24").as_bytes());
        store.unreadable("a.yaml", "permission denied");
        assert_eq!(cidrs(&store).len(), 1);
        assert_eq!(
            store.problems(),
            ["a.yaml: cannot be read: permission denied"]
        );
    }
}
