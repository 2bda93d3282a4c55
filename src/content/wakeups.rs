//! Queues that tell the workers which content rows were written.

use crate::domain::ContentId;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wake-ups queued for one worker; beyond it the worker looks everything up again.
pub const WAKEUPS: usize = 16_384;

/// One worker's queue of content ids that were written.
pub struct Wakeups {
    ids: Receiver<ContentId>,
    overflowed: Arc<AtomicBool>,
}

impl Wakeups {
    /// The next content id, without waiting.
    pub fn next(&self) -> Option<ContentId> {
        self.ids.try_recv().ok()
    }

    /// Whether ids were lost since the last call: then anything may have been written.
    pub fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}

/// The sending end of [`Wakeups`]. It never waits for a worker: a queue that is full is marked instead.
pub(super) struct Waker {
    ids: Sender<ContentId>,
    overflowed: Arc<AtomicBool>,
}

impl Waker {
    /// Tells the worker that the row was written.
    pub(super) fn wake(&self, id: ContentId) {
        if let Err(TrySendError::Full(_)) = self.ids.try_send(id) {
            self.overflowed.store(true, Ordering::Release);
        }
    }
}

/// A queue for one worker, of so many wake-ups.
pub(super) fn wakeups(size: usize) -> (Waker, Wakeups) {
    let (sender, ids) = crossbeam_channel::bounded(size);
    let overflowed = Arc::new(AtomicBool::new(false));
    let waker = Waker {
        ids: sender,
        overflowed: Arc::clone(&overflowed),
    };
    (waker, Wakeups { ids, overflowed })
}
