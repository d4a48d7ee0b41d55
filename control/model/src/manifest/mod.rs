//! Files of Kubernetes objects, YAML or JSON, to typed objects.
//!
//! A file is one unit: either all of it can be read, or it is broken and says why, so that a file
//! cut off in the middle never counts as one that holds less.

pub mod cluster_network_policy;
mod document;
mod resource;
pub mod security_group;

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;

pub use document::{Document, SyntaxError};
pub use resource::{Decoder, Kind, ObjectKey, Resource};

use crate::facts;

/// Errors reported of one file; a file of another format would fill pages.
const ERRORS_MAX: usize = 16;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Its objects, in the file's order; no key twice.
    pub objects: Vec<Item>,
    /// What was passed over: objects of kinds weft does not read.
    pub notes: Vec<String>,
}

/// An object and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What names it.
    pub key: ObjectKey,
    /// Line in its file.
    pub line: usize,
    /// The object.
    pub resource: Resource,
}

/// A file as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What could be read.
    pub manifest: Manifest,
    /// Policies that are wrong, by key, with the object where it could be decoded.
    pub broken_policies: Vec<(ObjectKey, Option<Resource>)>,
    /// Everything that is wrong, up to a bound.
    pub errors: Vec<ManifestError>,
}

/// Why a file is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// The object, where it is known.
    pub object: Option<String>,
    /// One line of reason.
    pub reason: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Reads the `bytes` of `file`; the name is used for messages and to tell JSON.
///
/// # Errors
/// Everything that is wrong with it, up to a bound.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Manifest, Vec<ManifestError>> {
    let reading = read(file, bytes);
    match reading.errors.is_empty() {
        true => Ok(reading.manifest),
        false => Err(reading.errors),
    }
}

/// Reads the `bytes` of `file` as far as that goes.
pub fn read(file: &str, bytes: &[u8]) -> Reading {
    let mut reader = Reader {
        file,
        reading: Reading::default(),
        keys: BTreeSet::new(),
    };
    reader.read(bytes);
    reader.reading
}

struct Reader<'a> {
    file: &'a str,
    reading: Reading,
    keys: BTreeSet<ObjectKey>,
}

/// The part every object has.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: HeaderMetadata,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct HeaderMetadata {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(serde::Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

impl Reader<'_> {
    fn read(&mut self, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                return self.fail(line, None, "is not UTF-8 text");
            }
        };
        match document::split(self.file, text) {
            Err(error) => self.fail(error.line, None, &error.reason),
            Ok(documents) if documents.is_empty() => {
                self.fail(1, None, "is empty; remove the file to remove its objects");
            }
            Ok(documents) => documents.iter().for_each(|d| self.document(d)),
        }
    }

    fn document(&mut self, document: &Document<'_>) {
        let header: Header = match document.decode() {
            Ok(header) => header,
            Err(error) => {
                self.broken_policy(&Header::guess(document), None);
                return self.fail(error.line, None, &error.reason);
            }
        };
        let is_list = header.api_version.as_deref() == Some("v1")
            && header.kind.as_deref().is_some_and(|k| k.ends_with("List"));
        if is_list {
            return self.list(document);
        }
        self.object(
            &header,
            &Encoded::Document(document),
            document,
            document.line(),
        );
    }

    /// `kind: List` is what `kubectl get` prints; `PodList` and its like hold the same.
    fn list(&mut self, document: &Document<'_>) {
        let list: List = match document.decode() {
            Ok(list) => list,
            Err(error) => return self.fail(error.line, Some("List".to_owned()), &error.reason),
        };
        let lines = document.item_lines();
        for (index, item) in list.items.iter().enumerate() {
            let line = lines.get(index).copied().unwrap_or_else(|| document.line());
            match serde_json::from_value::<Header>(item.clone()) {
                Ok(header) => self.object(&header, &Encoded::Item(item, line), document, line),
                Err(error) => {
                    let object = Some(format!("item {index} of the list"));
                    self.fail(line, object, &error.to_string());
                }
            }
        }
    }

    fn object(
        &mut self,
        header: &Header,
        encoded: &Encoded<'_>,
        document: &Document<'_>,
        line: usize,
    ) {
        let (Some(api_version), Some(name)) = (&header.api_version, &header.kind) else {
            return self.fail(
                line,
                None,
                "is not a Kubernetes object: no apiVersion and kind",
            );
        };
        let label = header.label(name);
        let Some(kind) = Kind::find(api_version, name) else {
            let note = format!(
                "{}:{line}: {label}: weft does not read {api_version} {name}",
                self.file
            );
            return self.reading.manifest.notes.push(note);
        };
        if kind.api_version() != api_version {
            self.broken_policy(header, None);
            let reason = format!(
                "weft reads {name} as {}, not as {api_version}",
                kind.api_version()
            );
            return self.fail(line, Some(label), &reason);
        }
        match read_object(kind, encoded, document, line) {
            Err((error, resource)) => {
                self.broken_policy(header, resource);
                self.fail(error.line, Some(label), &error.reason);
            }
            Ok(item) if self.keys.insert(item.key.clone()) => {
                self.reading.manifest.objects.push(item);
            }
            Ok(_) => self.fail(line, Some(label), "is in this file twice"),
        }
    }

    fn broken_policy(&mut self, header: &Header, resource: Option<Resource>) {
        if let Some(key) = header.key().filter(|key| key.kind.is_policy()) {
            self.reading.broken_policies.push((key, resource));
        }
    }

    fn fail(&mut self, line: usize, object: Option<String>, reason: &str) {
        let errors = &mut self.reading.errors;
        if errors.len() < ERRORS_MAX {
            errors.push(ManifestError {
                file: self.file.to_owned(),
                line,
                object,
                reason: reason.to_owned(),
            });
        }
    }
}

fn read_object(
    kind: Kind,
    encoded: &Encoded<'_>,
    document: &Document<'_>,
    line: usize,
) -> Result<Item, (SyntaxError, Option<Resource>)> {
    let resource = kind.decode(encoded).map_err(|error| (error, None))?;
    let Some(key) = resource.key() else {
        let reason = "has no metadata.name".to_owned();
        return Err((SyntaxError { line, reason }, None));
    };
    match facts::check(&resource) {
        Ok(()) => Ok(Item {
            key,
            line,
            resource,
        }),
        Err(bad) => {
            let error = SyntaxError {
                line: document.line_of(&bad.value).max(line),
                reason: bad.reason,
            };
            Err((error, Some(resource)))
        }
    }
}

impl Header {
    /// What a document that cannot be decoded says it is, by the lines that usually say it.
    fn guess(document: &Document<'_>) -> Self {
        let [api_version, kind, namespace, name] = [
            (0, "apiVersion"),
            (0, "kind"),
            (1, "namespace"),
            (1, "name"),
        ]
        .map(|(depth, field)| document.first_value(depth, field).map(str::to_owned));
        Self {
            api_version,
            kind,
            metadata: HeaderMetadata { namespace, name },
        }
    }

    /// The key of an object with this header, if it is of a kind we read.
    fn key(&self) -> Option<ObjectKey> {
        let kind = Kind::find(self.api_version.as_deref()?, self.kind.as_deref()?)?;
        let namespace = self.metadata.namespace.as_deref();
        ObjectKey::new(kind, namespace, self.metadata.name.as_deref()?)
    }

    fn label(&self, kind: &str) -> String {
        let name = self.metadata.name.as_deref().unwrap_or("(without a name)");
        match self.metadata.namespace.as_deref() {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        }
    }
}

/// One object, still encoded.
enum Encoded<'a> {
    Document(&'a Document<'a>),
    Item(&'a serde_json::Value, usize),
}

impl Decoder for &Encoded<'_> {
    type Error = SyntaxError;

    fn decode<T: DeserializeOwned>(self) -> Result<T, SyntaxError> {
        match self {
            Encoded::Document(document) => document.decode(),
            Encoded::Item(item, line) => T::deserialize(*item).map_err(|error| SyntaxError {
                line: *line,
                reason: error.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
