//! House rules that neither compiler nor clippy checks, as functions from a tree of files to findings.
//!
//! * [`size`]: how long files, functions and smoke tests are
//! * [`crates`]: who depends on whom, as `ARCHITECTURE.md` says it
//! * [`calls`]: what the packet path does not call, and where unsafe code may stand
//! * [`words`]: what stands in no file at all
//!
//! `tests/tidy.rs` applies them to this repository, less what `exceptions.txt` lets pass: an exception
//! says how bad a place is, must be exactly true, and can therefore only shrink.

#![forbid(unsafe_code)]

pub mod calls;
pub mod crates;
pub mod exceptions;
pub mod size;
pub mod source;
pub mod tree;
pub mod words;

use std::fmt;

/// One breach of one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Name of the rule, as exceptions use it.
    pub rule: &'static str,
    /// The file, from the top of the repository.
    pub path: String,
    /// What breaks the rule there: a name that outlives changes of line numbers.
    pub what: String,
    /// How bad it is: lines, or one per occurrence.
    pub weight: usize,
    /// Where to look.
    pub line: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            path,
            what,
            weight,
            line,
        } = self;
        write!(f, "{path}:{line}: {rule}: {what} ({weight})")
    }
}
