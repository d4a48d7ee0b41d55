//! Entry point for fuzzers and for the tests that replay their corpus.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::envelope::{Request, Response};
use crate::object::{Key, Object};
use crate::{agent, dataplane, frame};

/// Reads `bytes` as every message of the agent's and the dataplane's socket. Nothing may panic, and what
/// was read must come out of its own encoding unchanged.
pub fn message(bytes: &[u8]) {
    round_trip::<Request<agent::Op>>(bytes);
    round_trip::<Request<dataplane::Op>>(bytes);
    survives::<Response<Value>>(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        round_trip::<Object>(line);
        round_trip::<Key>(line);
        survives::<dataplane::Status>(line);
        round_trip::<agent::Plan>(line);
        survives::<agent::AgentStatus>(line);
    }
}

/// Reads, writes and reads again.
///
/// # Panics
/// When the second reading differs from the first.
pub fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Some((first, second)) = survives::<T>(bytes) {
        assert_eq!(first, second);
    }
}

/// The same for messages that hold free JSON, whose fractions may lose a bit on the way.
///
/// # Panics
/// When what was read cannot be written or not be read again.
pub fn survives<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) -> Option<(T, T)> {
    let first = frame::decode::<T>(bytes).ok()?;
    let mut line = Vec::new();
    let written = frame::write_line(&mut line, &first);
    assert!(written.is_ok(), "{first:?} cannot be written: {written:?}");
    match frame::decode::<T>(&line) {
        Ok(second) => Some((first, second)),
        Err(error) => panic!("{first:?} written cannot be read: {error}"),
    }
}
