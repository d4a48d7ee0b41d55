//! What was decided how often, by rule.

use super::rule::RuleId;

/// Rules counted one by one; what is counted of those beyond shares the last place. 64 KiB a worker, which
/// is four times the rules of 110 pods with ten policies each.
pub const RULES_COUNTED_MAX: usize = 4096;

/// Counters of one worker, by rule.
#[derive(Clone, Debug)]
pub struct PolicyCounters {
    /// Connections allowed, and packets denied.
    counts: Box<[(u64, u64)]>,
}

impl PolicyCounters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            counts: vec![(0, 0); RULES_COUNTED_MAX].into_boxed_slice(),
        }
    }

    /// The place of a rule; rules beyond the bound share one.
    #[inline]
    pub const fn place(rule: RuleId) -> usize {
        let place = rule.0 as usize;
        if place < RULES_COUNTED_MAX {
            place
        } else {
            RULES_COUNTED_MAX - 1
        }
    }

    /// Connections that the rule allowed, and packets it denied.
    pub fn of(&self, rule: RuleId) -> (u64, u64) {
        self.counts[Self::place(rule)]
    }

    /// Begins at zero again, as when the id goes to another rule.
    pub fn forget(&mut self, rule: RuleId) {
        self.counts[Self::place(rule)] = (0, 0);
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = (sum.0 + count.0, sum.1 + count.1);
        }
    }

    /// Copies without allocating.
    pub fn copy_from(&mut self, other: &Self) {
        self.counts.copy_from_slice(&other.counts);
    }

    #[inline]
    pub(crate) fn allowed(&mut self, rule: RuleId) {
        self.counts[Self::place(rule)].0 += 1;
    }

    #[inline]
    pub(crate) fn denied(&mut self, rule: RuleId) {
        self.counts[Self::place(rule)].1 += 1;
    }
}

impl Default for PolicyCounters {
    fn default() -> Self {
        Self::new()
    }
}
