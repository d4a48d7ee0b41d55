//! Points between two stores to shared memory where a test can kill the process. Nothing outside tests.

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point() {}

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn killed() -> bool {
    false
}

#[cfg(test)]
pub(crate) use armed::{killed, point, survive};

#[cfg(test)]
mod armed {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// Points left to pass; none: not armed.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static KILLED: Cell<bool> = const { Cell::new(false) };
    }

    struct Kill;

    /// Dies here if the time has come.
    pub(crate) fn point() {
        LEFT.with(|left| match left.get() {
            Some(0) => {
                left.set(None);
                KILLED.set(true);
                resume_unwind(Box::new(Kill));
            }
            Some(n) => left.set(Some(n - 1)),
            None => {}
        });
    }

    /// True while the stack of a killed process unwinds: destructors must leave shared memory alone.
    pub(crate) fn killed() -> bool {
        KILLED.get()
    }

    /// Runs `body`, killing it at the point `after`; false when it was killed.
    pub(crate) fn survive(after: u32, body: impl FnOnce()) -> bool {
        LEFT.set(Some(after));
        let result = catch_unwind(AssertUnwindSafe(body));
        LEFT.set(None);
        KILLED.set(false);
        match result {
            Ok(()) => true,
            Err(cause) if cause.is::<Kill>() => false,
            Err(cause) => resume_unwind(cause),
        }
    }
}
