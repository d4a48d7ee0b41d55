//! Protocol and port to decision.

use std::collections::HashSet;
use std::sync::Arc;

use super::Decision;
use super::rule::{Rule, RuleVerdict, Traffic};

/// Disjoint ranges of traffic that together cover all of it, each with its decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PortTable {
    /// Where each range begins, ascending; the first is 0.
    starts: Box<[u32]>,
    decisions: Box<[Decision]>,
}

/// What is known of a range while rules are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Open,
    /// Open, but for the rest of this tier.
    Passed(u8),
    Decided(Decision),
}

impl PortTable {
    /// The table that answers as the first match among `rules` does.
    pub(super) fn of<'a>(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut ranges = vec![(0, Known::Open)];
        for rule in rules {
            let (first, end) = rule.span();
            let from = split(&mut ranges, first);
            let to = split(&mut ranges, end);
            for (_, known) in &mut ranges[from..to] {
                *known = known.after(rule);
            }
        }
        let mut decided: Vec<(u32, Decision)> = ranges
            .into_iter()
            .map(|(start, known)| (start, known.decision()))
            .collect();
        decided.dedup_by_key(|(_, decision)| *decision);
        let (starts, decisions): (Vec<u32>, Vec<Decision>) = decided.into_iter().unzip();
        Self {
            starts: starts.into(),
            decisions: decisions.into(),
        }
    }

    #[inline]
    pub(super) fn decide(&self, traffic: Traffic) -> Decision {
        self.decisions[self.range_of(traffic)]
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn decision_mut(&mut self, traffic: Traffic) -> &mut Decision {
        let range = self.range_of(traffic);
        &mut self.decisions[range]
    }

    #[inline]
    fn range_of(&self, traffic: Traffic) -> usize {
        let behind = self
            .starts
            .partition_point(|start| *start <= traffic.number());
        behind.saturating_sub(1)
    }
}

/// Lets a range begin at `at` and says which it is.
fn split(ranges: &mut Vec<(u32, Known)>, at: u32) -> usize {
    let index = ranges.partition_point(|(start, _)| *start < at);
    let exists = ranges.get(index).is_some_and(|(start, _)| *start == at);
    if !exists && at < Traffic::END {
        let known = ranges[index - 1].1;
        ranges.insert(index, (at, known));
    }
    index
}

impl Known {
    fn after(self, rule: &Rule) -> Self {
        match self {
            Self::Decided(_) => self,
            Self::Passed(tier) if tier == rule.tier => self,
            Self::Open | Self::Passed(_) => match rule.verdict {
                RuleVerdict::Allow => Self::Decided(Decision::allow(rule.id)),
                RuleVerdict::Deny => Self::Decided(Decision::deny(rule.id)),
                RuleVerdict::Pass => Self::Passed(rule.tier),
            },
        }
    }

    const fn decision(self) -> Decision {
        match self {
            Self::Decided(decision) => decision,
            Self::Open | Self::Passed(_) => Decision::DEFAULT,
        }
    }
}

/// Tables in use, so that those with the same content are one.
#[derive(Default)]
pub(super) struct PortTables {
    known: HashSet<Arc<PortTable>>,
    /// Size at which unused ones are looked for next.
    sweep_at: usize,
}

/// Tables below which looking for unused ones is not worth it.
const SWEEP_AT_LEAST: usize = 256;

impl PortTables {
    /// The one table of this content.
    pub(super) fn share(&mut self, table: PortTable) -> Arc<PortTable> {
        if let Some(known) = self.known.get(&table) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.known.retain(|table| Arc::strong_count(table) > 1);
            self.sweep_at = 2 * self.known.len();
        }
        let table = Arc::new(table);
        self.known.insert(Arc::clone(&table));
        table
    }
}
