//! One writer for each partition inside the process: two workers share the store, and a partition may move between them.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which partitions are being written. Cheap to clone.
#[derive(Clone, Default)]
pub struct Leases(Arc<Mutex<BTreeSet<i32>>>);

/// The right to write a partition's rows; given back when dropped.
pub struct Lease {
    leases: Leases,
    partition: i32,
}

impl Leases {
    /// The partition's lease, if nobody holds it.
    pub fn acquire(&self, partition: i32) -> Option<Lease> {
        self.0.lock().insert(partition).then(|| Lease {
            leases: self.clone(),
            partition,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.0.lock().remove(&self.partition);
    }
}
