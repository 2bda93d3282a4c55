//! Which partitions this instance owns, over all its workers; followers are told of each change.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The partitions past their barrier, by worker. Cheap to clone.
#[derive(Clone)]
pub struct Ownership(Arc<Inner>);

struct Inner {
    by_worker: Mutex<BTreeMap<usize, Vec<i32>>>,
    changed: Box<dyn Fn(BTreeSet<i32>) + Send + Sync>,
}

impl Ownership {
    /// Calls `changed` with all owned partitions after each change.
    pub fn new(changed: impl Fn(BTreeSet<i32>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            by_worker: Mutex::default(),
            changed: Box::new(changed),
        }))
    }

    /// A worker owns exactly these now.
    pub fn set(&self, worker: usize, partitions: Vec<i32>) {
        let mut by_worker = self.0.by_worker.lock();
        by_worker.insert(worker, partitions);
        let all = by_worker.values().flatten().copied().collect();
        // Told under the lock, so that changes arrive in order.
        (self.0.changed)(all);
    }
}
