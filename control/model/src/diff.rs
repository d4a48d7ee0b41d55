//! The messages between two lists of table objects.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use weft_api::object::{Key, Object};

/// What turns one list of objects into another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Objects that are new or changed, whole.
    pub upserts: Vec<Object>,
    /// Keys of objects that are gone.
    pub deletes: Vec<Key>,
}

impl Diff {
    /// True when both lists hold the same.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }
}

/// What turns `old` into `new`, neither of which has a key twice.
///
/// Lists in the order of their keys are compared in one walk that looks at keys only where the lists
/// differ. Of objects out of order some may be sent though they did not change.
pub fn diff(old: &[Object], new: &[Object]) -> Diff {
    let mut change = Diff::default();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    while let (Some(before), Some(now)) = (old.peek(), new.peek()) {
        if before == now {
            old.next();
            new.next();
            continue;
        }
        let (gone, came) = (before.key(), now.key());
        let order = gone.cmp(&came);
        if order != Ordering::Greater {
            old.next();
        }
        if order == Ordering::Less {
            change.deletes.push(gone);
        } else {
            change.upserts.extend(new.next().cloned());
        }
    }
    change.deletes.extend(old.map(Object::key));
    change.upserts.extend(new.cloned());
    if !change.deletes.is_empty() {
        let there: BTreeSet<Key> = change.upserts.iter().map(Object::key).collect();
        change.deletes.retain(|key| !there.contains(key));
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use weft_api::object::{ClusterRange, RangePurpose};

    /// In whatever order they come.
    fn objects() -> impl Strategy<Value = Vec<Object>> {
        let object = (0_u8..12, any::<bool>()).prop_map(|(n, pods)| {
            let purpose = match pods {
                true => RangePurpose::Pods,
                false => RangePurpose::Services,
            };
            let prefix = format!("10.{n}.0.0/16").parse().unwrap();
            Object::ClusterRange(ClusterRange { prefix, purpose })
        });
        proptest::collection::vec(object, 0..12).prop_map(|mut objects| {
            let mut seen = BTreeSet::new();
            objects.retain(|object| seen.insert(object.key()));
            objects
        })
    }

    fn by_key(objects: &[Object]) -> BTreeMap<Key, Object> {
        objects.iter().map(|o| (o.key(), o.clone())).collect()
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_new_list(old in objects(), new in objects()) {
            let change = diff(&old, &new);
            let mut tables = by_key(&old);
            tables.retain(|key, _| !change.deletes.contains(key));
            tables.extend(by_key(&change.upserts));
            prop_assert_eq!(tables, by_key(&new));
            let sorted = |objects: &[Object]| by_key(objects).into_values().collect::<Vec<_>>();
            let (old, new) = (sorted(&old), sorted(&new));
            let change = diff(&old, &new);
            prop_assert_eq!(change.is_empty(), old == new);
            prop_assert!(change.upserts.iter().all(|object| !old.contains(object)));
        }
    }
}
