//! One writer for each partition inside the process: two workers share the store, and a partition may move between them.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Which partitions are being written. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Leases(Arc<(Mutex<BTreeSet<i32>>, Condvar)>);

/// The right to write a partition's rows; given back when dropped.
pub(super) struct Lease {
    leases: Leases,
    partition: i32,
}

impl Leases {
    /// Waits until the partition is free, up to `timeout`.
    pub(super) fn acquire(&self, partition: i32, timeout: Duration) -> Option<Lease> {
        let (held, freed) = &*self.0;
        let mut held = held.lock();
        if held.contains(&partition) {
            freed.wait_for(&mut held, timeout);
        }
        held.insert(partition).then(|| Lease {
            leases: self.clone(),
            partition,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (held, freed) = &*self.leases.0;
        held.lock().remove(&self.partition);
        freed.notify_all();
    }
}
