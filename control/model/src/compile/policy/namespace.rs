//! Labels of namespaces and service accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::selector::Labels;
use crate::manifest::{Kind, Resource};
use crate::state::Store;

/// The label every namespace has, set by the API server. Manifests need not say it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Labels of all namespaces there are objects of.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {
    known: BTreeMap<String, (Resource, Arc<Labels>)>,
}

/// Labels of service accounts by namespace and name.
pub(super) type Accounts = BTreeMap<(String, String), Labels>;

impl Namespaces {
    /// Takes the namespaces as they are now and tells whose labels changed.
    pub fn refresh(&mut self, store: &Store) -> BTreeSet<String> {
        let mut old = std::mem::take(&mut self.known);
        let mut changed = BTreeSet::new();
        for (key, resource) in store.of_kind(Kind::Namespace) {
            let known = old.remove(&key.name);
            let entry = match known {
                Some(entry) if entry.0.is_same(resource) => entry,
                known => {
                    let labels = with_name(&key.name, resource.metadata().labels.clone());
                    if known.is_none_or(|(_, old)| *old != labels) {
                        changed.insert(key.name.clone());
                    }
                    (resource.clone(), Arc::new(labels))
                }
            };
            self.known.insert(key.name.clone(), entry);
        }
        changed.extend(old.into_keys());
        changed
    }

    /// Labels of a namespace; one there is no object of has its name only.
    pub fn labels(&self, name: &str) -> Arc<Labels> {
        match self.known.get(name) {
            Some((_, labels)) => Arc::clone(labels),
            None => Arc::new(with_name(name, None)),
        }
    }
}

fn with_name(name: &str, labels: Option<Labels>) -> Labels {
    let mut labels = labels.unwrap_or_default();
    labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    labels
}

/// The service accounts as they are now.
pub(super) fn accounts(store: &Store) -> Accounts {
    let objects = store.of_kind(Kind::ServiceAccount);
    let entry = |resource: &Resource| resource.metadata().labels.clone().unwrap_or_default();
    objects
        .map(|(key, resource)| ((key.namespace.clone(), key.name.clone()), entry(resource)))
        .collect()
}
