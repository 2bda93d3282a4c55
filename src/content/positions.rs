//! How far the content table is: the positions that the replica has reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The next changelog offset of each partition that is *not* in the table yet. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaPositions(Arc<[AtomicI64]>);

impl ReplicaPositions {
    pub(super) fn new(partitions: i32) -> Self {
        Self((0..partitions).map(|_| AtomicI64::new(-1)).collect())
    }

    /// Whether every partition stands at or past the given end.
    pub fn reached(&self, ends: &BTreeMap<i32, i64>) -> bool {
        self.left(ends) == 0
    }

    /// How many offsets are left before the given ends.
    pub fn left(&self, ends: &BTreeMap<i32, i64>) -> u64 {
        ends.iter()
            .map(|(partition, end)| {
                let position = self
                    .0
                    .get(*partition as usize)
                    .map_or(-1, |position| position.load(Ordering::Acquire));
                end.saturating_sub(position.max(0)).max(0) as u64
                    + u64::from(position < 0 && *end > 0)
            })
            .sum()
    }

    pub(super) fn publish(&self, partition: i32, position: i64) {
        if let Some(slot) = self.0.get(partition as usize) {
            slot.store(position, Ordering::Release);
        }
    }
}
