//! The agent's connection to the dataplane: requests from any task, answers matched by id.

use serde::de::DeserializeOwned;
use weft_api::dataplane::Op;
use weft_api::envelope::{ApiError, ErrorKind};

/// A handle on whatever connection there is; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Dataplane {}

impl Dataplane {
    /// Sends `op` and waits for its answer; waits a little for a connection when there is none.
    ///
    /// # Errors
    /// The dataplane's own error, or TryAgain when it cannot be reached.
    pub async fn call<A: DeserializeOwned>(&self, op: Op) -> Result<A, ApiError> {
        let _ = op;
        Err(ApiError::new(ErrorKind::TryAgain, "no dataplane"))
    }
}
