//! The thread that reads for a sink: one member of its group, whose records it hands to the deliveries.

use super::delivery::{Delivery, Seek, Shared};
use super::destination::{Destination, Frame, Record};
use super::group::{Group, GroupError, Polled};
use super::held::{Held, Message, Partitions, Progress};
use crate::health::Beat;
use crossbeam_channel::Receiver;
use rdkafka::message::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// One wait for a record.
const POLL: Duration = Duration::from_millis(20);
/// Records that are read between two looks at everything else.
const BURST: usize = 1_000;
/// Bytes that wait for their delivery, of all partitions of a sink together.
const BACKLOG: u64 = 32 << 20;
/// The least that a partition may have waiting.
const LEAST_BACKLOG: u64 = 256 << 10;

pub(super) struct Reader<D> {
    pub(super) group: Group,
    pub(super) partitions: Arc<Partitions>,
    pub(super) shared: Arc<Shared<D>>,
    pub(super) seeks: Receiver<Seek>,
    /// Of no partition yet.
    pub(super) frame: Frame,
    pub(super) runtime: Handle,
    pub(super) beat: Beat,
    pub(super) now_ms: fn() -> i64,
}

#[allow(clippy::disallowed_methods, reason = "how often to commit")]
fn now() -> Instant {
    Instant::now()
}

impl<D: Destination> Reader<D> {
    /// Reads until `stop` is set, and then until what is under way is delivered.
    pub(super) fn run(self, stop: &AtomicBool) -> Result<(), GroupError> {
        let mut last_commit = now();
        while !stop.load(Ordering::Relaxed) {
            self.beat.beat((self.now_ms)());
            self.read()?;
            for partition in self.partitions.take_fresh() {
                self.start(partition);
            }
            while let Ok(seek) = self.seeks.try_recv() {
                self.seek(&seek);
            }
            self.balance();
            for (partition, position) in self.group.positions() {
                self.partitions.with(partition, |held| {
                    if held.stale != Some(position) {
                        held.stale = None;
                        held.progress.read_up_to(position);
                    }
                });
            }
            self.tell();
            if last_commit.elapsed() >= D::COMMIT_EVERY {
                last_commit = now();
                self.commit();
            }
        }
        let delivered = self.partitions.revoke_all();
        self.group.finish(delivered);
        Ok(())
    }

    /// Hands over what there is to read, without waiting for more once something came.
    fn read(&self) -> Result<(), GroupError> {
        let mut wait = POLL;
        for _ in 0..BURST {
            match self.group.poll(wait)? {
                Polled::Nothing => return Ok(()),
                Polled::OutOfRange => self.partitions.each(|_, held| {
                    // Before its first seek a partition is read from nowhere in particular. A delivery that is gone has
                    // nothing to reopen.
                    if held.seek > 0 {
                        let _ = held.inbox.send(Message::Reopen);
                    }
                }),
                Polled::Record(message) => {
                    let record = Record {
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().unwrap_or_default().to_vec(),
                    };
                    self.partitions.with(message.partition(), |held| {
                        held.stale = None;
                        held.progress.hand_over(&record);
                        let _ = held.inbox.send(Message::Record(held.seek, record));
                    });
                }
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Starts the delivery of a partition that was assigned.
    fn start(&self, partition: i32) {
        let (inbox, messages) = tokio::sync::mpsc::unbounded_channel();
        let (ending, ended) = crossbeam_channel::bounded::<()>(0);
        let progress = Arc::new(Progress::default());
        let drain = tokio_util::sync::CancellationToken::new();
        let delivery = Delivery {
            shared: Arc::clone(&self.shared),
            partition,
            frame: Frame {
                condition: self.frame.condition.of(partition),
                ..self.frame.clone()
            },
            inbox: messages,
            progress: Arc::clone(&progress),
            drain: drain.clone(),
            seek: 0,
            next: 0,
        };
        let task = self.runtime.spawn(async move {
            let _ending = ending;
            delivery.run().await;
        });
        let held = Held {
            inbox,
            progress,
            drain,
            ended,
            task: task.abort_handle(),
            seek: 0,
            stale: None,
            full: false,
            committed: 0,
        };
        self.partitions.hold(partition, held);
    }

    fn seek(&self, seek: &Seek) {
        // Of a delivery whose partition was lost, and has another one by now, it says nothing.
        let ours = |held: &Held| Arc::ptr_eq(&held.progress, &seek.progress);
        if self.partitions.with(seek.partition, |held| ours(held)) != Some(true) {
            return;
        }
        let read = self.group.read_from(seek.partition, seek.position.next);
        let position = self.group.positions().get(&seek.partition).copied();
        self.partitions.with(seek.partition, |held| {
            held.seek = seek.number;
            held.full = false;
            // A seek clears the position, so that one which is there comes from before it.
            held.stale = position;
            match read {
                Ok(()) => {
                    held.progress.start(seek.number, seek.position);
                    held.committed = held.committed.min(seek.position.next);
                }
                Err(error) => {
                    tracing::warn!(%error, partition = seek.partition, "cannot read on from {}: opening anew", seek.position.next);
                    let _ = held.inbox.send(Message::Reopen);
                }
            }
        });
    }

    /// Stops reading partitions whose delivery is behind, and reads on those that caught up.
    fn balance(&self) {
        let owned = self.partitions.count().max(1) as u64;
        let most = (BACKLOG / owned).max(LEAST_BACKLOG);
        let mut changed = Vec::new();
        self.partitions.each(|partition, held| {
            let bytes = held.progress.bytes();
            let full = if held.full {
                bytes > most / 2
            } else {
                bytes > most
            };
            if full != std::mem::replace(&mut held.full, full) {
                changed.push((partition, full));
            }
        });
        for (partition, full) in changed {
            let outcome = if full {
                self.group.pause(partition)
            } else {
                self.group.resume(partition)
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, partition, full, "a partition was revoked meanwhile");
            }
        }
    }

    /// Gauges that only this thread can tell.
    fn tell(&self) {
        let mut oldest: Option<i64> = None;
        self.partitions.each(|_, held| {
            let ms = held.progress.oldest_ms();
            oldest = [oldest, ms].into_iter().flatten().min();
        });
        let age_ms = oldest.map_or(0, |ms| ((self.now_ms)() - ms).max(0));
        let metrics = &self.frame.metrics;
        #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
        metrics
            .oldest_undelivered_seconds
            .set(age_ms as f64 / 1000.0);
        metrics.paused.set(i64::from(self.frame.switch.is_paused()));
        metrics
            .breaker_open
            .set(i64::from(self.frame.breaker.is_open()));
    }

    fn commit(&self) {
        let mut positions = BTreeMap::new();
        self.partitions.each(|partition, held| {
            let position = held.progress.position();
            if position.next > held.committed {
                held.committed = position.next;
                positions.insert(partition, position);
            }
        });
        self.group.commit(&positions);
    }
}
