//! VERSION: which versions are spoken?

use serde_json::{Value, json};

use crate::types::Version;

/// The answer; it repeats the caller's version, whichever that is.
pub(crate) fn run(asked: Option<String>) -> Value {
    let asked = asked.unwrap_or_else(|| Version::LATEST.as_str().to_owned());
    json!({
        "cniVersion": asked,
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}
