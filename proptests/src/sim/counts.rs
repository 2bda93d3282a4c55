//! How often each crash point and each kind of trouble was reached.

use std::collections::BTreeMap;

/// Every crash point of the table, and the troubles that must be among a million schedules.
pub const REQUIRED: &[&str] = &[
    "died before EndTxn was durable",
    "died after the commit, before the batch",
    "died inside the batch",
    "died after the batch",
    "died between a checkpoint and the removal of its marks",
    "died inside a rebalance callback",
    "died inside the barrier",
    "died in the materializer",
    "power loss took writes back",
    "local disk lost",
    "EndTxn retried unseen",
    "a late EndTxn was refused",
    "TxnOffsetCommit retried unseen",
    "outcome unknown: committed",
    "outcome unknown: not committed",
    "a transaction timed out",
    "a zombie went on beside its successor",
    "a zombie was fenced",
    "a stopped process went on",
    "a member slipped into a new membership",
    "offsets were refused by the group",
    "unstable offsets were waited for",
    "a wall clock jumped",
    "a changelog was compacted",
    "retention moved a log start",
];

/// What else is counted.
const OTHERS: &[&str] = &[
    "died elsewhere",
    "a late EndTxn met its own transaction",
    "a late TxnOffsetCommit was refused",
    "a late TxnOffsetCommit met its own transaction",
];

/// The counter of this name.
pub fn counted(name: &str) -> Option<&'static str> {
    let mut names = REQUIRED.iter().chain(OTHERS);
    names.find(|known| **known == name).copied()
}

/// Counters by name.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub fn reach(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// The required ones that were never reached.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = |name: &&&str| self.0.get(**name).copied().unwrap_or_default() == 0;
        REQUIRED.iter().filter(never).copied().collect()
    }
}
