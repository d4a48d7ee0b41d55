//! Immutable tables published to workers, and single-writer counters read from outside.
