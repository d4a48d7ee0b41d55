//! Verdicts of the policy stage, kept from one run to the next look at them. Nothing is kept unless somebody asked.

use crate::batch::BATCH_MAX;
use crate::drop_reason::DropReason;
use crate::tables::{Connection, Judgement};

/// What policies said about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// The connection.
    pub connection: Connection,
    /// Port it is opened from; 0 where the protocol has none.
    pub source_port: u16,
    /// What each side's policy said.
    pub judgement: Judgement,
    /// The version that was asked.
    pub policy_epoch: u32,
    /// Why its packet was dropped; none where the connection was allowed.
    pub reason: Option<DropReason>,
}

/// Verdicts of the last run, in order.
#[derive(Debug)]
pub struct VerdictLog {
    is_on: bool,
    verdicts: Vec<PolicyVerdict>,
}

impl VerdictLog {
    /// An empty one that keeps nothing, with all the memory it will ever use.
    pub(crate) fn new() -> Self {
        Self {
            is_on: false,
            // A packet of a batch gets one verdict at most.
            verdicts: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Begins or ends to keep verdicts.
    pub fn keep(&mut self, is_on: bool) {
        self.is_on = is_on;
        self.verdicts.clear();
    }

    /// What was kept since the last call; to be called after every run.
    #[inline]
    pub fn take(&mut self) -> impl Iterator<Item = PolicyVerdict> + '_ {
        self.verdicts.drain(..)
    }

    #[inline]
    pub(crate) fn note(&mut self, verdict: impl FnOnce() -> PolicyVerdict) {
        if self.is_on && self.verdicts.len() < BATCH_MAX {
            self.verdicts.push(verdict());
        }
    }
}
