//! Connections by backend.

use super::BackendId;

/// Backends counted one by one; those beyond share the last place. 2 MiB a worker if all are used: 10,000 services
/// of ten backends each, and some.
pub const BACKENDS_COUNTED_MAX: usize = 1 << 17;

/// Counters of one worker, by backend.
#[derive(Debug)]
pub struct BackendCounters {
    /// Connections there are, and those begun.
    counts: Box<[(u64, u64)]>,
}

impl BackendCounters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            counts: vec![(0, 0); BACKENDS_COUNTED_MAX].into_boxed_slice(),
        }
    }

    const fn place(backend: BackendId) -> usize {
        let place = backend.0 as usize;
        if place < BACKENDS_COUNTED_MAX {
            place
        } else {
            BACKENDS_COUNTED_MAX - 1
        }
    }

    /// Connections there are now, and connections begun.
    #[inline]
    pub fn of(&self, backend: BackendId) -> (u64, u64) {
        self.counts[Self::place(backend)]
    }

    /// Begins at no connection begun again, as when the number goes to another backend. Those there are end one by
    /// one.
    pub fn forget(&mut self, backend: BackendId) {
        self.counts[Self::place(backend)].1 = 0;
    }

    #[inline]
    pub(crate) fn begun(&mut self, backend: BackendId) {
        self.counts[Self::place(backend)].1 += 1;
    }

    #[inline]
    pub(crate) fn joined(&mut self, backend: BackendId) {
        if backend != BackendId::NONE {
            self.counts[Self::place(backend)].0 += 1;
        }
    }

    #[inline]
    pub(crate) fn ended(&mut self, backend: BackendId) {
        if backend != BackendId::NONE {
            let live = &mut self.counts[Self::place(backend)].0;
            *live = live.saturating_sub(1);
        }
    }
}

impl Default for BackendCounters {
    fn default() -> Self {
        Self::new()
    }
}
