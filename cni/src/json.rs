//! Reads JSON objects the way Go programs do: a key matches in any case, `null` is absent.
//!
//! Container runtimes encode some keys as the specification writes them (`hostPort`) and some as
//! their Go structures do (`HostPort`); the reference plugins accept both because Go's decoder does.

use serde_json::{Map, Value};

use crate::error::Error;

/// One JSON object and where it stands in the document, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    /// The document's outermost object.
    pub(crate) fn root(value: &'a Value, name: &str) -> Result<Self, Error> {
        let map = value
            .as_object()
            .ok_or_else(|| Error::Decode(format!("{name} is not a JSON object")))?;
        Ok(Self {
            map,
            path: String::new(),
        })
    }

    /// The value of `key`, spelt exactly or else in any case.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        let any_case = || {
            let mut entries = self.map.iter();
            entries.find_map(|(k, v)| k.eq_ignore_ascii_case(key).then_some(v))
        };
        self.map.get(key).or_else(any_case).filter(|v| !v.is_null())
    }

    /// True when the key is there, `null` or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.keys().any(|k| k.eq_ignore_ascii_case(key))
    }

    /// Name of `key` as messages show it.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || Error::Decode(format!("{} is not {expected}", self.name(key)));
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Result<Option<String>, Error> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// A whole number that fits 32 bits.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u32>, Error> {
        let read = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        self.typed(key, "a whole number between 0 and 4294967295", read)
    }

    /// A whole number, perhaps negative.
    pub(crate) fn signed(&self, key: &str) -> Result<Option<i64>, Error> {
        self.typed(key, "a whole number", Value::as_i64)
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, Error> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self {
            map,
            path: self.name(key),
        }))
    }

    /// A list of objects; absent is empty.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>, Error> {
        let list = self.typed(key, "a list", Value::as_array)?;
        let member = |(i, value): (usize, &'a Value)| {
            let path = format!("{}[{i}]", self.name(key));
            let wrong = || Error::Decode(format!("{path} is not an object"));
            let map = value.as_object().ok_or_else(wrong)?;
            Ok(Self { map, path })
        };
        list.into_iter().flatten().enumerate().map(member).collect()
    }

    /// A list of strings; absent is empty.
    pub(crate) fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        let read = |v: &Value| {
            let list = v.as_array()?;
            let strings = list.iter().map(|s| s.as_str().map(str::to_owned));
            strings.collect::<Option<Vec<_>>>()
        };
        Ok(self
            .typed(key, "a list of strings", read)?
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_match_in_any_case_and_the_exact_one_first() {
        let value = json!({"HostPort": 1, "hostIP": "::", "MTU": 9, "mtu": 10, "gone": null});
        let object = Object::root(&value, "x").unwrap();
        assert_eq!(object.number("hostPort").unwrap(), Some(1));
        assert_eq!(object.string("hostIp").unwrap().as_deref(), Some("::"));
        assert_eq!(object.number("mtu").unwrap(), Some(10));
        assert_eq!(object.string("gone").unwrap(), None);
        assert!(object.has("Gone") && !object.has("absent"));
    }

    #[test]
    fn wrong_types_are_named_with_their_path() {
        let value = json!({"A": {"b": [{"c": "x"}]}, "n": 5_000_000_000_u64});
        let root = Object::root(&value, "x").unwrap();
        let inner = root.object("a").unwrap().unwrap();
        let c = inner.objects("B").unwrap().remove(0).number("c");
        assert!(
            c.unwrap_err()
                .to_string()
                .starts_with("a.B[0].c is not a whole number")
        );
        assert!(root.number("n").is_err());
        assert!(root.string("a").is_err() && root.strings("a").is_err());
        assert!(inner.objects("absent").unwrap().is_empty());
        assert!(Object::root(&json!([]), "stdin").is_err());
    }
}
