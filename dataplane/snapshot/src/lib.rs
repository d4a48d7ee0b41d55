//! Immutable tables published to workers, and single-writer counters read from outside.
//!
//! The only types that two threads of a dataplane touch at once, apart from rings:
//!
//! * [`Publisher`] and [`Subscriber`]: whole tables, replaced by a pointer swap, read once per burst. A retired
//!   version is dropped on the publisher's thread, never on a worker's.
//! * [`SharedCounters`]: numbers one thread writes and others read.
//! * [`Doorbell`]: tells a sender whether the receiver of a ring sleeps, without losing a wake-up.
//!
//! ```
//! use weft_snapshot::Publisher;
//!
//! let mut publisher = Publisher::new("first");
//! let mut worker = publisher.subscribe();
//! publisher.publish("second");
//! assert_eq!(**worker.refresh(), "second");
//! assert_eq!((worker.epoch(), publisher.collect()), (1, 1));
//! ```

mod counters;
mod doorbell;
mod publisher;
mod subscriber;
mod sync;

pub use counters::SharedCounters;
pub use doorbell::Doorbell;
pub use publisher::Publisher;
pub use subscriber::Subscriber;
