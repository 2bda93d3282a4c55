//! The way to Redis for one partition: its fence, and runs of events behind it.

use super::super::destination::{Batch, Frame, Lane, Record, SinkError, Taken};
use super::connection::Connection;
use super::deltas::Deltas;
use crate::codec::Published;
use crate::kafka::TopicId;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use redis::Cmd;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many events are applied by one call: Redis does nothing else meanwhile, which lasts a few milliseconds.
const MOST_RECORDS: usize = 1_000;

/// Fences that were found beyond their log's end, by partition.
pub(super) type Ahead = Mutex<BTreeMap<i32, i64>>;

/// Which partition of which topic, under which keys.
#[derive(Clone, Debug)]
pub(super) struct Place {
    key: String,
    partition: i32,
    topic: String,
}

impl Place {
    pub(super) fn new(key: &str, partition: i32, topic: TopicId) -> Self {
        Self {
            key: key.to_owned(),
            partition,
            topic: uuid::Uuid::from_bytes(topic).simple().to_string(),
        }
    }

    /// A call of a function about this partition.
    fn call(&self, function: &str) -> Cmd {
        let mut call = redis::cmd("FCALL");
        call.arg(function)
            .arg(1)
            .arg(&self.key)
            .arg(self.partition)
            .arg(&self.topic);
        call
    }
}

/// Counts the partition among those that are being rebuilt, while it is there.
struct Rebuilding(Gauge);

impl Rebuilding {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Rebuilding {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Delivers one partition.
pub struct RedisLane {
    connection: Arc<Connection>,
    place: Place,
    frame: Frame,
    /// Where the fence stands, as far as this lane knows.
    next: i64,
    /// The clock of Redis when it answered last, in milliseconds.
    now_ms: i64,
    rebuilding: Option<Rebuilding>,
}

impl RedisLane {
    /// Reads the fence. Where there is none to go on from, the partition's part is cleared in the same call, and is built anew
    /// from the log.
    pub(super) async fn open(
        connection: Arc<Connection>,
        place: Place,
        taken: &Taken,
        ahead: &Ahead,
        frame: Frame,
    ) -> Result<(Self, i64), SinkError> {
        let mut call = place.call("thmanyah_open");
        // A name that no build before had.
        let generation = format!("{:016x}", rand::random::<u64>());
        call.arg(taken.log_start)
            .arg(taken.log_end)
            .arg(generation)
            .arg(taken.partitions);
        let partition = place.partition;
        let seen = ahead.lock().remove(&partition);
        if let Some(seen) = seen {
            call.arg(seen);
        }
        let opened: (String, i64, i64, bool, i64) = connection.call(&call).await?;
        let (found, next, now_ms, rebuilding, deleted) = opened;
        match found.as_str() {
            "beyond" => {
                ahead.lock().insert(partition, next);
                return Err(SinkError::Unavailable(format!(
                    "Redis has partition {partition} up to offset {next}, and the enriched topic ends at {}: looking again",
                    taken.log_end
                )));
            }
            "resumed" => tracing::debug!(partition, next, "Redis goes on from its fence"),
            "gap" => tracing::error!(
                partition,
                next,
                "up to {deleted} events were deleted from the topic before they reached Redis, whose counters count from here \
                 on: raise the topic's retention.ms"
            ),
            why => tracing::info!(
                partition,
                why,
                from = next,
                to = taken.log_end,
                "what Redis holds of a partition is built from the log"
            ),
        }
        frame.metrics.lost.inc_by(deleted.unsigned_abs());
        let lane = Self {
            rebuilding: rebuilding.then(|| Rebuilding::new(&frame.metrics.rebuilding)),
            connection,
            place,
            frame,
            next,
            now_ms,
        };
        Ok((lane, next))
    }

    /// The sums of records, and how many of them are dead letters.
    async fn sum_up(&self, records: &[Record]) -> Result<(Deltas, u64), SinkError> {
        let mut deltas = Deltas::default();
        let mut rejected = 0;
        for record in records {
            match Published::read(&record.value) {
                Ok(event) => deltas.add(&event, record.timestamp_ms, self.now_ms),
                Err(why) => {
                    rejected += 1;
                    let buried = self
                        .frame
                        .letters
                        .bury(self.place.partition, record, &why)
                        .await;
                    buried.map_err(|error| {
                        SinkError::Unavailable(format!(
                            "a dead letter could not be written: {error}"
                        ))
                    })?;
                }
            }
        }
        Ok((deltas, rejected))
    }

    async fn apply(&mut self, records: &[Record]) -> Result<(), SinkError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let to = last.offset + 1;
        let (deltas, rejected) = self.sum_up(records).await?;
        let mut call = self.place.call("thmanyah_apply");
        call.arg(self.next)
            .arg(to)
            .arg(first.timestamp_ms)
            .arg(deltas.arguments());
        let (outcome, now_ms, rebuilding): (String, i64, bool) =
            self.connection.call(&call).await?;
        if outcome != "applied" {
            return Err(self.interrupted(&outcome));
        }
        self.next = to;
        self.now_ms = now_ms;
        self.frame.metrics.attempts_succeeded.inc();
        self.frame
            .metrics
            .delivered
            .inc_by(records.len() as u64 - rejected);
        if !rebuilding {
            self.rebuilt();
        }
        Ok(())
    }

    /// Why the fence is not where this lane left it.
    fn interrupted(&self, outcome: &str) -> SinkError {
        let partition = self.place.partition;
        match outcome {
            "refused" => SinkError::Fenced(format!(
                "Redis has moved on from offset {} of partition {partition}: another process delivers it",
                self.next
            )),
            "missing" => SinkError::Unavailable(format!(
                "Redis has lost what it held of partition {partition}: it is built from the log"
            )),
            what => SinkError::Unavailable(format!(
                "Redis was interrupted while it applied events of partition {partition} ({what}): it is built from the log"
            )),
        }
    }

    fn rebuilt(&mut self) {
        if self.rebuilding.take().is_some() {
            tracing::info!(
                partition = self.place.partition,
                next = self.next,
                "what Redis holds of a partition has caught up with the log"
            );
        }
    }
}

impl Lane for RedisLane {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for records in batch.records.chunks(MOST_RECORDS) {
            self.apply(records).await?;
        }
        Ok(())
    }

    async fn caught_up(&mut self) -> Result<(), SinkError> {
        if self.rebuilding.is_none() {
            return Ok(());
        }
        let mut call = self.place.call("thmanyah_caught_up");
        call.arg(self.next);
        if self.connection.call(&call).await? {
            self.rebuilt();
        }
        Ok(())
    }

    async fn idle(&mut self) -> Result<(), SinkError> {
        let mut call = self.place.call("thmanyah_check");
        call.arg(self.next);
        let found: String = self.connection.call(&call).await?;
        if found != "whole" {
            return Err(self.interrupted(&found));
        }
        Ok(())
    }
}
