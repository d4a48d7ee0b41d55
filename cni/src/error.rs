//! What can go wrong, with the code the CNI specification gives it.

use std::io;

use serde_json::{Value, json};
use weft_api::client::ClientError;
use weft_api::envelope::ErrorKind;

use crate::types::Version;

/// A failure of one command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration speaks a version this command does not exist in.
    #[error("{0}")]
    IncompatibleVersion(String),
    /// A key of the configuration asks for something that is not done here.
    #[error("unsupported field {key} = {value}: {reason}")]
    UnsupportedField {
        /// The key, as a path.
        key: String,
        /// Its value.
        value: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The container's network namespace is not there: nothing to clean up.
    #[error("{0}")]
    UnknownContainer(String),
    /// An environment variable is missing or wrong.
    #[error("{0}")]
    Environment(String),
    /// Reading or writing failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done to which object.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Standard input is not the document expected.
    #[error("{0}")]
    Decode(String),
    /// The network configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A passing condition.
    #[error("{0}")]
    TryAgain(String),
    /// STATUS: an ADD would fail.
    #[error("cannot serve ADD: {}", .0.join("; "))]
    NotAvailable(Vec<String>),
    /// STATUS: an ADD would fail and attached pods may be cut off.
    #[error("cannot serve ADD, and attached pods may have no connectivity: {}", .0.join("; "))]
    LimitedConnectivity(Vec<String>),
    /// CHECK: the attachment is not as it should be.
    #[error("the attachment is broken: {}", .0.join("; "))]
    Broken(Vec<String>),
    /// No address is left.
    #[error("{0}")]
    Exhausted(String),
    /// The object exists already, with other properties.
    #[error("{0}")]
    Conflict(String),
    /// The agent refused for another reason.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused a request.
    #[error("cannot {action}: {source}{}", .hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Kernel {
        /// What was being done to which object.
        action: String,
        /// What the kernel said.
        source: io::Error,
        /// Its sentence about it, when it gave one.
        hint: Option<String>,
    },
    /// A delegated plugin failed; its code is passed on.
    #[error("{plugin}: {message}")]
    Delegate {
        /// The plugin.
        plugin: String,
        /// Its error code.
        code: u32,
        /// Its message.
        message: String,
        /// Its details.
        details: String,
    },
    /// A command that goes on after errors met more than one.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

impl Error {
    /// An I/O failure while doing `action`.
    pub fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action: action.into(),
            source: source.into(),
        }
    }

    /// Success, the one error, or all of them.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The code: below 100 the specification's, from 100 our own.
    pub fn code(&self) -> u32 {
        match self {
            Self::IncompatibleVersion(_) => 1,
            Self::UnsupportedField { .. } => 2,
            Self::UnknownContainer(_) => 3,
            Self::Environment(_) => 4,
            Self::Io { .. } => 5,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::TryAgain(_) => 11,
            Self::NotAvailable(_) => 50,
            Self::LimitedConnectivity(_) => 51,
            Self::Broken(_) => 100,
            Self::Exhausted(_) => 101,
            Self::Conflict(_) => 102,
            Self::Refused(_) => 103,
            Self::Kernel { .. } => 104,
            Self::Delegate { code, .. } => *code,
            Self::Several(errors) => errors.first().map_or(999, Self::code),
        }
    }

    fn details(&self) -> String {
        match self {
            Self::NotAvailable(all) | Self::LimitedConnectivity(all) | Self::Broken(all) => {
                all.join("\n")
            }
            Self::Delegate { details, .. } => details.clone(),
            Self::TryAgain(_) => "the runtime should try again later".to_owned(),
            _ => String::new(),
        }
    }

    /// The error document of the specification.
    pub fn to_document(&self, version: Version) -> Value {
        let mut document = json!({
            "cniVersion": version.as_str(),
            "code": self.code(),
            "msg": self.to_string(),
        });
        let details = self.details();
        if !details.is_empty() {
            document["details"] = Value::String(details);
        }
        document
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refused) => match refused.kind {
                ErrorKind::TryAgain | ErrorKind::Stale => Self::TryAgain(refused.message),
                ErrorKind::Exhausted => Self::Exhausted(refused.message),
                ErrorKind::Conflict => Self::Conflict(refused.message),
                ErrorKind::BadRequest | ErrorKind::NotFound | ErrorKind::Failed => {
                    Self::Refused(refused.message)
                }
            },
            lost => Self::TryAgain(lost.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::envelope::ApiError;

    #[test]
    fn document_holds_version_code_and_message_and_details_only_when_there_are_some() {
        let error = Error::Config("no name".into());
        assert_eq!(
            error.to_document(Version::V1_0_0),
            json!({"cniVersion": "1.0.0", "code": 7, "msg": "no name"})
        );
        let error = Error::Broken(vec!["one".into(), "two".into()]);
        let document = error.to_document(Version::V1_1_0);
        assert_eq!(document["code"], 100);
        assert_eq!(document["details"], "one\ntwo");
    }

    #[test]
    fn agent_errors_keep_what_a_runtime_treats_differently() {
        let of = |kind| Error::from(ClientError::Refused(ApiError::new(kind, "m"))).code();
        assert_eq!(of(ErrorKind::TryAgain), 11);
        assert_eq!(of(ErrorKind::Exhausted), 101);
        assert_eq!(of(ErrorKind::Conflict), 102);
        assert_eq!(of(ErrorKind::Failed), 103);
        let lost = ClientError::Broken {
            name: "weft-agent",
            source: io::ErrorKind::UnexpectedEof.into(),
        };
        assert_eq!(Error::from(lost).code(), 11);
    }

    #[test]
    fn several_errors_are_all_said_under_the_first_code() {
        let all = Error::collect(vec![Error::Refused("a".into()), Error::Config("b".into())]);
        let error = all.unwrap_err();
        assert_eq!((error.code(), error.to_string()), (103, "a; b".to_owned()));
        assert!(Error::collect(Vec::new()).is_ok());
    }
}
