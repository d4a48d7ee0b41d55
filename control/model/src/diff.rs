//! The messages between two sets of table objects.

use std::collections::BTreeMap;

use weft_api::object::{Key, Object};

/// What turns one set of objects into another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Objects that are new or changed, whole.
    pub upserts: Vec<Object>,
    /// Keys of objects that are gone.
    pub deletes: Vec<Key>,
}

impl Diff {
    /// True when both sets are the same.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }
}

/// Objects by key; of two with one key the later counts.
pub fn by_key(objects: impl IntoIterator<Item = Object>) -> BTreeMap<Key, Object> {
    objects.into_iter().map(|o| (o.key(), o)).collect()
}

/// What turns `old` into `new`.
pub fn diff(old: &BTreeMap<Key, Object>, new: &BTreeMap<Key, Object>) -> Diff {
    let changed = |(key, object): &(&Key, &Object)| old.get(key) != Some(object);
    let upserts = new.iter().filter(changed).map(|(_, o)| o.clone());
    let deletes = old.keys().filter(|key| !new.contains_key(key)).cloned();
    Diff {
        upserts: upserts.collect(),
        deletes: deletes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_api::object::{ClusterRange, RangePurpose};

    fn objects() -> impl Strategy<Value = BTreeMap<Key, Object>> {
        let object = (0_u8..12, any::<bool>()).prop_map(|(n, pods)| {
            let purpose = match pods {
                true => RangePurpose::Pods,
                false => RangePurpose::Services,
            };
            let prefix = format!("10.{n}.0.0/16").parse().unwrap();
            Object::ClusterRange(ClusterRange { prefix, purpose })
        });
        proptest::collection::vec(object, 0..12).prop_map(by_key)
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_new_set(old in objects(), new in objects()) {
            let change = diff(&old, &new);
            let mut tables = old.clone();
            tables.retain(|key, _| !change.deletes.contains(key));
            tables.extend(by_key(change.upserts.clone()));
            prop_assert_eq!(&tables, &new);
            prop_assert_eq!(change.is_empty(), old == new);
            prop_assert!(change.upserts.iter().all(|o| old.get(&o.key()) != Some(o)));
        }
    }
}
