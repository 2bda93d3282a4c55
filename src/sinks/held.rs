//! The partitions that a sink holds: what the reading thread and the deliveries know of each other.

use super::destination::Record;
use super::position::Position;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// How long a batch that is under way may take when its partition is revoked, or the process stops.
const DRAIN: Duration = Duration::from_secs(3);

/// What a delivery gets.
pub(super) enum Message {
    /// A record, read since the seek of this number.
    Record(u64, Record),
    /// The log no longer holds a position, perhaps that of this partition: open it anew.
    Reopen,
}

/// How far a partition is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Everything before this offset was delivered; 0 before it is known.
    delivered: AtomicI64,
    /// Behind the last record that was delivered.
    after_record: AtomicI64,
    /// Records that were handed over and not delivered.
    outstanding: AtomicU64,
    /// Their bytes.
    bytes: AtomicU64,
    /// When the first of them was published, in milliseconds since the epoch; 0 for none.
    oldest_ms: AtomicI64,
    /// A position, and when the first record from there on was published; where it was looked up because nothing moves.
    waiting: Mutex<Option<(i64, i64)>>,
    /// The number of the seek whose records the delivery takes; 0 between a failure and the next seek.
    wanted: AtomicU64,
    /// The number of the seek that the client reads since. What is read since another one than is wanted says nothing of what
    /// was delivered.
    started: AtomicU64,
}

impl Progress {
    pub(super) fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// What to commit.
    ///
    /// IMPORTANT: first how far it came. Read the other way round, a record that is delivered in between would pass for a mark.
    pub(super) fn position(&self) -> Position {
        Position {
            next: self.delivered(),
            after_record: self.after_record.load(Ordering::Acquire),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A record was handed over.
    pub(super) fn hand_over(&self, record: &Record) {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        self.bytes
            .fetch_add(record.value.len() as u64, Ordering::Relaxed);
    }

    /// A record is no longer outstanding: it was delivered, or will be read again.
    pub(super) fn put_down(&self, record: &Record) {
        self.bytes
            .fetch_sub(record.value.len() as u64, Ordering::Relaxed);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    /// A batch is about to be delivered, whose first record was published then.
    pub(super) fn begin(&self, oldest_ms: i64) {
        self.oldest_ms.store(oldest_ms, Ordering::Relaxed);
    }

    /// Everything before this position was delivered.
    pub(super) fn deliver(&self, next_offset: i64) {
        self.after_record.store(next_offset, Ordering::Release);
        self.delivered.fetch_max(next_offset, Ordering::AcqRel);
        self.oldest_ms.store(0, Ordering::Relaxed);
    }

    /// What is read says nothing of what was delivered any more.
    pub(super) fn stop(&self) {
        self.wanted.store(0, Ordering::Release);
    }

    /// What is read since the seek of this number will be delivered.
    pub(super) fn want(&self, number: u64) {
        self.wanted.store(number, Ordering::Release);
    }

    /// The client reads since the seek of this number, from there on.
    pub(super) fn start(&self, number: u64, position: Position) {
        self.after_record
            .store(position.after_record, Ordering::Release);
        self.delivered.store(position.next, Ordering::Release);
        // What was under way before may have arrived though it failed.
        self.oldest_ms.store(0, Ordering::Relaxed);
        self.started.store(number, Ordering::Release);
    }

    fn is_reading(&self) -> bool {
        let wanted = self.wanted.load(Ordering::Acquire);
        wanted != 0 && self.started.load(Ordering::Acquire) == wanted
    }

    /// The reader is at this position, which may have moved over transaction markers.
    ///
    /// IMPORTANT: first the count, then whether the reading counts. A delivery that failed says that it does not before it
    /// puts its records down, so no count of none is taken for a delivery of all.
    pub(super) fn read_up_to(&self, position: i64) {
        let none = self.outstanding.load(Ordering::Acquire) == 0;
        if none && self.is_reading() {
            self.delivered.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// Whether everything before this position was delivered, and reading goes on behind it.
    pub(super) fn has_reached(&self, position: i64) -> bool {
        self.is_reading() && self.delivered() >= position
    }

    /// The first record from this position on was published then, and nothing moves.
    pub(super) fn waits_since(&self, position: i64, published_ms: i64) {
        *self.waiting.lock() = Some((position, published_ms));
    }

    /// When the oldest record that is being delivered, or waits for it, was published, in milliseconds since the epoch.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let begun = Some(self.oldest_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0);
        let waits = || {
            let (position, published_ms) = (*self.waiting.lock())?;
            (self.delivered() <= position).then_some(published_ms)
        };
        begun.or_else(waits)
    }
}

/// A partition whose delivery is running.
pub(super) struct Held {
    pub(super) inbox: UnboundedSender<Message>,
    pub(super) progress: Arc<Progress>,
    /// Asks the delivery to end after the batch that is under way.
    pub(super) drain: CancellationToken,
    /// Disconnected when the delivery has ended.
    pub(super) ended: Receiver<()>,
    pub(super) task: AbortHandle,
    /// The number of the last seek.
    pub(super) seek: u64,
    /// The client's position of before the last seek, until it has another one.
    pub(super) stale: Option<i64>,
    /// Whether reading is paused because the delivery is behind.
    pub(super) full: bool,
    /// What was committed last.
    pub(super) committed: i64,
}

/// All partitions of a sink that are held here.
#[derive(Default)]
pub(super) struct Partitions {
    held: Mutex<BTreeMap<i32, Held>>,
    /// Assigned, without a delivery yet.
    fresh: Mutex<Vec<i32>>,
}

impl Partitions {
    pub(super) fn assigned(&self, partitions: &[i32]) {
        self.fresh.lock().extend(partitions);
    }

    /// Partitions that were assigned since the last call.
    pub(super) fn take_fresh(&self) -> Vec<i32> {
        std::mem::take(&mut self.fresh.lock())
    }

    pub(super) fn hold(&self, partition: i32, held: Held) {
        self.held.lock().insert(partition, held);
    }

    /// Looks at each, or changes it.
    pub(super) fn each(&self, mut look: impl FnMut(i32, &mut Held)) {
        for (partition, held) in self.held.lock().iter_mut() {
            look(*partition, held);
        }
    }

    /// One of them, if it is held.
    pub(super) fn with<T>(&self, partition: i32, look: impl FnOnce(&mut Held) -> T) -> Option<T> {
        self.held.lock().get_mut(&partition).map(look)
    }

    pub(super) fn count(&self) -> usize {
        self.held.lock().len()
    }

    /// Ends the deliveries of these partitions, after the batch that is under way if it is to be `drained`. Tells how far
    /// each came where that was not committed.
    pub(super) fn revoke(&self, partitions: &[i32], drained: bool) -> BTreeMap<i32, Position> {
        self.fresh
            .lock()
            .retain(|fresh| !partitions.contains(fresh));
        let mut held = self.held.lock();
        let leaving = partitions
            .iter()
            .filter_map(|p| Some((*p, held.remove(p)?)));
        let leaving: Vec<(i32, Held)> = leaving.collect();
        drop(held);
        end(leaving, drained)
    }

    /// The same for all.
    pub(super) fn revoke_all(&self) -> BTreeMap<i32, Position> {
        let leaving = std::mem::take(&mut *self.held.lock());
        end(leaving.into_iter().collect(), true)
    }
}

#[allow(clippy::disallowed_methods, reason = "a limit of real time")]
fn end(leaving: Vec<(i32, Held)>, drained: bool) -> BTreeMap<i32, Position> {
    for (_, held) in &leaving {
        held.drain.cancel();
    }
    let until = Instant::now() + DRAIN;
    let mut positions = BTreeMap::new();
    for (partition, held) in leaving {
        if drained {
            // Nothing is ever sent: it comes back when the other side is gone, or the time is up.
            let _ = held.ended.recv_deadline(until);
        }
        held.task.abort();
        let position = held.progress.position();
        if position.next > held.committed {
            positions.insert(partition, position);
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        Record {
            offset,
            timestamp_ms: 1,
            key: None,
            value: vec![0; 10],
        }
    }

    fn at(offset: i64) -> Position {
        Position {
            next: offset,
            after_record: offset,
        }
    }

    #[test]
    fn markers_count_as_delivered_only_when_nothing_is_outstanding() {
        let progress = Progress::default();
        progress.read_up_to(5);
        assert_eq!(progress.delivered(), 0, "nothing is read yet");
        progress.want(1);
        progress.start(1, at(3));
        progress.read_up_to(5);
        assert_eq!(progress.delivered(), 5);
        progress.hand_over(&record(5));
        progress.read_up_to(7);
        assert_eq!((progress.delivered(), progress.bytes()), (5, 10));
        progress.put_down(&record(5));
        progress.deliver(6);
        progress.read_up_to(7);
        assert_eq!(progress.delivered(), 7);
        let position = Position {
            next: 7,
            after_record: 6,
        };
        assert_eq!(progress.position(), position);
        assert!(progress.has_reached(7) && !progress.has_reached(8));
        progress.stop();
        assert!(
            !progress.has_reached(7),
            "what was delivered before a failure may be read again"
        );
    }

    #[test]
    fn what_waits_is_told_until_it_is_delivered() {
        let progress = Progress::default();
        assert_eq!(progress.oldest_ms(), None);
        progress.waits_since(5, 1_000);
        assert_eq!(progress.oldest_ms(), Some(1_000), "not opened yet");
        progress.start(1, at(5));
        assert_eq!(progress.oldest_ms(), Some(1_000));
        progress.begin(900);
        assert_eq!(progress.oldest_ms(), Some(900), "what is known better");
        progress.deliver(6);
        assert_eq!(progress.oldest_ms(), None);
        progress.begin(2_000);
        progress.stop();
        assert_eq!(progress.oldest_ms(), Some(2_000), "it failed");
        progress.start(2, at(7));
        assert_eq!(progress.oldest_ms(), None, "it had arrived");
    }

    #[test]
    fn what_failed_is_not_taken_for_delivered() {
        let progress = Progress::default();
        progress.want(1);
        progress.start(1, at(0));
        progress.hand_over(&record(0));
        progress.stop();
        progress.put_down(&record(0));
        progress.read_up_to(1);
        assert_eq!(progress.delivered(), 0);
    }

    #[test]
    fn what_is_read_since_a_seek_that_was_given_up_is_not_taken_for_delivered() {
        let progress = Progress::default();
        progress.want(1);
        progress.stop();
        progress.want(2);
        // The reading thread comes to the first seek only now.
        progress.start(1, at(0));
        progress.hand_over(&record(0));
        progress.put_down(&record(0));
        progress.read_up_to(1);
        assert_eq!(progress.delivered(), 0);
        progress.start(2, at(0));
        progress.read_up_to(1);
        assert_eq!(progress.delivered(), 1);
    }
}
