//! The delivery of one partition: opened, fed with batches, and opened anew after each failure. This one loop is start-up,
//! recovery and take-over.

use super::breaker::{FailedAttempt, pause_before};
use super::destination::{Batch, Destination, Frame, Lane, Record, SinkError, Taken};
use super::held::{Message, Progress};
use super::position::{Position, intact_from};
use crate::kafka::{OffsetReader, Offsets, TopicId};
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// Bytes of records in one batch.
const BATCH_BYTES: usize = 4 << 20;

/// How often it is looked whether the log's end was reached.
const LOOK: Duration = Duration::from_millis(50);
/// A lane without records for so long is told that it is idle.
const IDLE: Duration = Duration::from_secs(1);

/// Until a partition that was stopped is looked at again: a look may read a whole table.
const STOPPED: Duration = Duration::from_secs(30);

/// When a batch is whole.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// So many records.
    pub records: usize,
    /// So long after its first record came.
    pub linger: Duration,
}

/// Asks the reading thread to read a partition from an offset.
pub(super) struct Seek {
    pub(super) partition: i32,
    /// Tells whose it is: the partition may have been lost and assigned again since.
    pub(super) progress: Arc<Progress>,
    /// What is read from there on carries this number.
    pub(super) number: u64,
    pub(super) position: Position,
}

/// What the deliveries of a sink share.
pub(super) struct Shared<D> {
    pub(super) destination: D,
    /// Whether [`Destination::prepare`] has succeeded since the last failure.
    pub(super) prepared: AtomicBool,
    /// One prepares at a time. Who failed does not wait for it: others may stand in line before a destination that hangs.
    pub(super) preparing: Mutex<()>,
    pub(super) topic: String,
    pub(super) topic_id: TopicId,
    pub(super) partitions: i32,
    pub(super) offsets: OffsetReader,
    pub(super) limits: BatchLimits,
    pub(super) seeks: Sender<Seek>,
}

pub(super) struct Delivery<D> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) partition: i32,
    pub(super) frame: Frame,
    pub(super) inbox: UnboundedReceiver<Message>,
    pub(super) progress: Arc<Progress>,
    pub(super) drain: CancellationToken,
    /// The number of the last seek.
    pub(super) seek: u64,
    /// The lowest offset that may be read next.
    pub(super) next: i64,
}

/// Why a delivery goes no further with the lane it has.
enum Interrupted {
    Failed(SinkError),
    Reopen,
    Drained,
}

impl<D: Destination> Delivery<D> {
    /// Delivers until it is told to drain.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let interrupted = self.open_and_deliver(&mut failures).await;
            self.progress.stop();
            let failed = match interrupted {
                Interrupted::Drained => return,
                Interrupted::Reopen => continue,
                Interrupted::Failed(error) => error,
            };
            self.shared.prepared.store(false, Ordering::Relaxed);
            failures += 1;
            self.frame.metrics.attempts_failed.inc();
            let pause = if matches!(failed, SinkError::Stopped(_)) {
                // The destination answers: it is well, and other partitions are.
                self.frame.breaker.succeeded();
                STOPPED
            } else {
                // Where opening asks nothing, the destination was not tried: it has not failed.
                if D::OPENING_ASKS {
                    self.frame.breaker.failed(FailedAttempt {
                        is_lasting: failed.is_misconfigured(),
                        ..FailedAttempt::default()
                    });
                }
                pause_before(failures)
            };
            self.frame
                .condition
                .unwell(&failed.to_string(), failed.is_misconfigured());
            tokio::select! {
                () = sleep(pause) => {}
                () = self.drain.cancelled() => return,
            }
        }
    }

    async fn open_and_deliver(&mut self, failures: &mut u32) -> Interrupted {
        let drain = self.drain.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = drain.cancelled() => return Interrupted::Drained,
        };
        let (mut lane, start, log_end) = match opened {
            Ok(opened) => opened,
            Err(error) => return Interrupted::Failed(error),
        };
        if D::OPENING_ASKS {
            self.frame.breaker.succeeded();
        }
        self.seek += 1;
        self.next = start.next;
        self.progress.want(self.seek);
        let seek = Seek {
            partition: self.partition,
            progress: Arc::clone(&self.progress),
            number: self.seek,
            position: start,
        };
        // The reading thread outlives its deliveries, but for the end of the process.
        let _ = self.shared.seeks.send(seek);
        let progress = Arc::clone(&self.progress);
        let mut caught_up = false;
        loop {
            let first = tokio::select! {
                first = self.next() => first,
                () = has_reached(&progress, log_end), if !caught_up => {
                    caught_up = true;
                    if let Err(error) = lane.caught_up().await {
                        return Interrupted::Failed(error);
                    }
                    *failures = 0;
                    self.frame.condition.well();
                    continue;
                }
                () = sleep(IDLE) => match lane.idle().await {
                    Ok(()) => continue,
                    Err(error) => return Interrupted::Failed(error),
                },
                () = drain.cancelled() => return Interrupted::Drained,
            };
            let first = match first {
                Ok(first) => first,
                Err(interrupted) => return interrupted,
            };
            let batch = tokio::select! {
                batch = self.fill(first) => batch,
                () = drain.cancelled() => return Interrupted::Drained,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(interrupted) => return interrupted,
            };
            let first = batch
                .records
                .first()
                .map_or(0, |record| record.timestamp_ms);
            self.progress.begin(first);
            tokio::select! {
                () = self.frame.switch.on() => {}
                () = drain.cancelled() => return Interrupted::Drained,
            }
            let begun = Instant::now();
            let outcome = lane.deliver(&batch).await;
            match outcome {
                Ok(()) => self.progress.deliver(batch.next_offset()),
                Err(_) => self.progress.stop(),
            }
            for record in &batch.records {
                self.progress.put_down(record);
            }
            if let Err(error) = outcome {
                return Interrupted::Failed(error);
            }
            *failures = 0;
            let metrics = &self.frame.metrics;
            #[allow(clippy::cast_precision_loss, reason = "a number of records")]
            metrics.batch_records.observe(batch.records.len() as f64);
            metrics
                .delivery_seconds
                .observe(begun.elapsed().as_secs_f64());
            self.frame.condition.well();
        }
    }

    /// Takes the partition over, and says where to read, and where the log ends.
    async fn open(&mut self) -> Result<(D::Lane, Position, i64), SinkError> {
        if D::OPENING_ASKS {
            self.frame.admit().await;
        } else {
            self.frame.switch.on().await;
        }
        {
            let shared = &self.shared;
            let _alone = shared.preparing.lock().await;
            if !shared.prepared.load(Ordering::Relaxed) {
                shared.destination.prepare().await?;
                shared.prepared.store(true, Ordering::Relaxed);
            }
        }
        let (taken, first) = self.ask().await?;
        let (log_start, log_end) = (taken.log_start, taken.log_end);
        let (lane, start) = self
            .shared
            .destination
            .open(taken, self.frame.clone())
            .await?;
        let start = self.within_log(start, log_start, log_end)?;
        let position = Position {
            next: start.max(first),
            after_record: start,
        };
        Ok((lane, position, log_end))
    }

    /// What the brokers know of the partition, and the first offset that can be read.
    async fn ask(&self) -> Result<(Taken, i64), SinkError> {
        let (shared, partition) = (Arc::clone(&self.shared), self.partition);
        let asked = tokio::task::spawn_blocking(move || {
            let committed = shared.offsets.committed(&shared.topic, [partition])?;
            let bounds = shared.offsets.bounds(&shared.topic, [partition])?;
            let (log_start, log_end) = bounds.get(&partition).copied().unwrap_or_default();
            let committed = committed.get(&partition);
            let taken = Taken {
                partition,
                partitions: shared.partitions,
                topic_id: shared.topic_id,
                log_start: intact_from(log_start, committed),
                log_end,
                committed: committed.and_then(|found| found.offset),
            };
            Ok((taken, log_start))
        });
        let unavailable = |error: String| SinkError::Unavailable(error);
        asked
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error: crate::kafka::OffsetsError| unavailable(error.to_string()))
    }

    /// A position before the log's start cannot be read from. One behind its end is left alone: the brokers may be about to
    /// tell a later end, and to begin again would deliver everything twice.
    fn within_log(&self, start: i64, log_start: i64, log_end: i64) -> Result<i64, SinkError> {
        let (topic, partition) = (&self.shared.topic, self.partition);
        if start < log_start {
            let lost = log_start - start;
            self.frame.metrics.lost.inc_by(lost.unsigned_abs());
            tracing::error!(
                topic,
                partition,
                "up to {lost} events were deleted from the topic before they were delivered: raise its retention.ms"
            );
            return Ok(log_start);
        }
        if start > log_end {
            return Err(SinkError::Unavailable(format!(
                "partition {partition} of `{topic}` is delivered up to {start}, but ends at {log_end}: if that stays so, it has \
                 lost records, and the group's offset of this partition has to be reset"
            )));
        }
        Ok(start)
    }

    /// The next record that was read since the last seek.
    async fn next(&mut self) -> Result<Record, Interrupted> {
        loop {
            match self.inbox.recv().await {
                Some(Message::Record(number, record)) if number == self.seek => {
                    return self.in_order(record);
                }
                Some(Message::Record(_, record)) => self.progress.put_down(&record),
                Some(Message::Reopen) => return Err(Interrupted::Reopen),
                // Another delivery has taken this one's place.
                None => return Err(Interrupted::Drained),
            }
        }
    }

    /// What is read twice would be delivered twice: whatever may go wrong between here and the client, it is found here.
    fn in_order(&mut self, record: Record) -> Result<Record, Interrupted> {
        let offset = record.offset;
        if offset < self.next {
            self.progress.stop();
            self.progress.put_down(&record);
            return Err(Interrupted::Failed(SinkError::Unavailable(format!(
                "partition {} was read at offset {offset} after everything before {} was: opening it anew",
                self.partition, self.next
            ))));
        }
        self.next = offset + 1;
        Ok(record)
    }

    /// A record and those behind it: as many as there are within the limits. Dropped at an await it loses what it has, which
    /// is then read again only if the partition is opened anew.
    async fn fill(&mut self, first: Record) -> Result<Batch, Interrupted> {
        let whole_at = Instant::now() + self.shared.limits.linger;
        let mut bytes = first.value.len();
        let mut records = vec![first];
        while records.len() < self.shared.limits.records && bytes < BATCH_BYTES {
            match timeout_at(whole_at, self.next()).await {
                Ok(Ok(record)) => {
                    bytes += record.value.len();
                    records.push(record);
                }
                Ok(Err(interrupted)) => {
                    self.progress.stop();
                    for record in &records {
                        self.progress.put_down(record);
                    }
                    return Err(interrupted);
                }
                Err(_) => break,
            }
        }
        Ok(Batch { records })
    }
}

/// Comes back once everything before that position was delivered.
async fn has_reached(progress: &Progress, position: i64) {
    while !progress.has_reached(position) {
        sleep(LOOK).await;
    }
}

impl<D> Drop for Delivery<D> {
    fn drop(&mut self) {
        self.frame.condition.forget();
    }
}
