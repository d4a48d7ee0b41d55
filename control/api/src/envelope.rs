//! What surrounds every request and answer.

use serde::{Deserialize, Serialize};

/// A request: its id is chosen by the client and repeated in the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request<T> {
    /// Chosen by the client, unique on its connection while the request is open.
    pub id: u64,
    /// The operation, flattened beside the id: `{"id":1,"op":"status"}`.
    #[serde(flatten)]
    pub body: T,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response<T> {
    /// The request's id; 0 when the request could not be read.
    pub id: u64,
    /// The result or what went wrong.
    #[serde(flatten)]
    pub outcome: Outcome<T>,
}

/// Success or failure of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    /// The operation's result.
    Ok(T),
    /// It was refused or failed; nothing was changed.
    Error(ApiError),
}

/// A failure as it crosses a socket: a kind for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// A sentence that names the object and says what to do.
    pub message: String,
}

/// Kinds of failure a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request could not be read or makes no sense.
    BadRequest,
    /// The object named does not exist.
    NotFound,
    /// It exists already, with other properties.
    Conflict,
    /// No address, port or frame is left.
    Exhausted,
    /// Not ready yet: try again (CNI error code 11).
    TryAgain,
    /// A newer generation is in force.
    Stale,
    /// The kernel or another process refused.
    Failed,
}

impl ApiError {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl<T> From<Result<T, ApiError>> for Outcome<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(error),
        }
    }
}
