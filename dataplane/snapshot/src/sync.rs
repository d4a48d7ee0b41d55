//! The atomics this crate is built of: the real ones, or loom's under `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

/// A place for an `Arc` that one thread replaces and others copy, without locks.
#[cfg(not(loom))]
pub(crate) struct Slot<T>(arc_swap::ArcSwap<T>);

#[cfg(not(loom))]
impl<T> Slot<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(arc_swap::ArcSwap::new(value))
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        self.0.swap(value)
    }
}

/// `arc_swap` does not run under loom. A mutex has the same effect at this interface; what is then tested is our
/// protocol of epochs, not arc_swap's.
#[cfg(loom)]
pub(crate) struct Slot<T>(loom::sync::Mutex<Arc<T>>);

#[cfg(loom)]
#[expect(
    clippy::unwrap_used,
    reason = "model only: a poisoned lock is a failed model"
)]
impl<T> Slot<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap())
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut self.0.lock().unwrap(), value)
    }
}
