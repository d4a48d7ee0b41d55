//! The agent's core: manifests on a real directory, and what it makes of a dataplane that comes,
//! goes and forgets. The dataplane here is a plain server of its protocol; links are real, in a
//! network namespace of the test's own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod attach;
mod dir;
mod fake;
mod health_check;
mod node;
mod push;
