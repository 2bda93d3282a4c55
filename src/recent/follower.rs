//! The follower: one thread that reads the enriched topic and writes large batches.

use super::batch::{Batch, Known, Record};
use super::handle::{RecentError, Shared};
use super::log::{Log, LogError};
use super::sweep;
use rdkafka::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thmanyah_state::{Store, Table, WriteSet};

/// How long a record may wait for others before it is written.
const LINGER: Duration = Duration::from_millis(100);
/// How long one poll waits, and so how late a change of ownership or a stop may be noticed.
const POLL: Duration = Duration::from_millis(50);
/// How often the end of the log is asked for.
const ASK_END: Duration = Duration::from_millis(200);
/// How often old rows are looked for, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before asking again after the brokers did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of a partition that is followed.
struct Followed {
    known: Known,
    /// The next offset to write.
    next: i64,
    ready: bool,
    /// Whether the log had lost its beginning when it was read from there, and no record came yet.
    lost_before: bool,
}

/// An end of the log that was asked for, and the moment before asking.
struct Target {
    asked_ms: i64,
    ends: BTreeMap<i32, i64>,
}

pub(super) struct Follower {
    log: Log,
    store: Store,
    retention: Duration,
    shared: Arc<Shared>,
    /// The version of the wish that is followed.
    version: u64,
    /// Whether the consumer was told of it.
    assigned: bool,
    partitions: BTreeMap<i32, Followed>,
    batch: Batch,
    batch_since: Option<Instant>,
    writes: WriteSet,
    target: Option<Target>,
    as_of_ms: Option<i64>,
    next_ask: Instant,
    next_sweep: Instant,
}

impl Follower {
    pub(super) fn new(log: Log, store: Store, retention: Duration, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            log,
            store,
            retention,
            shared,
            version: 0,
            assigned: true,
            partitions: BTreeMap::new(),
            batch: Batch::default(),
            batch_since: None,
            writes: WriteSet::new(),
            target: None,
            as_of_ms: None,
            next_ask: now,
            next_sweep: now + SWEEP_EVERY.min(retention / 4),
        }
    }

    /// Follows until it is told to stop.
    pub(super) fn run(&mut self) {
        let ended = self
            .follow()
            .and_then(|()| Ok(self.store.flush(Table::Recent)?));
        if let Err(error) = ended {
            tracing::error!(%error, "recent events are no longer followed; queries for them fail until a restart");
            let mut status = self.shared.status.lock();
            status.failed = Some(error.to_string());
            status.ready.clear();
            status.caught_up = false;
        }
    }

    fn follow(&mut self) -> Result<(), RecentError> {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.take_over_wish()?;
            self.read()?;
            let waited = self
                .batch_since
                .is_some_and(|since| since.elapsed() >= LINGER);
            if waited || self.batch.is_full() {
                self.write()?;
            }
            self.watch_end();
            if Instant::now() >= self.next_sweep {
                self.sweep()?;
            }
        }
        self.write()
    }

    /// Reads one record, and those that follow without waiting, until the batch is full or it is time for other work.
    fn read(&mut self) -> Result<(), RecentError> {
        let keep_from_ms = keep_from(self.retention);
        let begun = Instant::now();
        let mut wait = POLL.min(
            self.batch_since
                .map_or(POLL, |since| LINGER.saturating_sub(since.elapsed())),
        );
        while let Some(message) = match self.log.poll(wait) {
            Ok(message) => message,
            Err(LogError::OutOfRange) => {
                // The log was cut under the reader: look again at where it begins.
                self.assigned = false;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        } {
            wait = Duration::ZERO;
            let record = Record {
                partition: message.partition(),
                offset: message.offset(),
                published_ms: message.timestamp().to_millis().unwrap_or(0),
                json: message.payload().unwrap_or_default(),
            };
            let Some(followed) = self.partitions.get_mut(&record.partition) else {
                continue;
            };
            if std::mem::take(&mut followed.lost_before) {
                self.batch.note_lost_before(&record);
            }
            self.batch.add(record, keep_from_ms);
            followed.next = record.offset + 1;
            self.batch_since.get_or_insert(begun);
            if self.batch.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), RecentError> {
        self.batch_since = None;
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut raised = Vec::new();
        self.batch.stage(
            |of| {
                self.partitions
                    .get(&of)
                    .map_or_else(Known::default, |f| f.known)
            },
            |of, event_ts| raised.push((of, event_ts)),
            &mut self.writes,
        );
        self.store.apply_unlogged(&mut self.writes)?;
        for (of, event_ts) in raised {
            if let Some(followed) = self.partitions.get_mut(&of) {
                followed.known.dropped = followed.known.dropped.max(Some(event_ts));
            }
        }
        self.publish_status();
        Ok(())
    }

    /// Follows what was asked for last, from the stored positions.
    fn take_over_wish(&mut self) -> Result<(), RecentError> {
        let wanted = self.shared.wanted.lock().clone();
        if wanted.version == self.version && self.assigned {
            return Ok(());
        }
        self.write()?;
        self.target = None;
        // Until the brokers answer, nothing is followed.
        self.log.assign(&BTreeMap::new())?;
        self.assigned = false;
        let of: Vec<i32> = wanted.partitions.keys().copied().collect();
        let bounds = match self.log.bounds(&of) {
            Ok(bounds) => bounds,
            Err(error) => {
                tracing::warn!(%error, "cannot ask where the enriched topic begins and ends; trying again");
                thread::park_timeout(RETRY);
                return Ok(());
            }
        };
        let mut partitions = BTreeMap::new();
        for (of, topic_id) in wanted.partitions {
            let bounds = bounds.get(&of).copied().unwrap_or((0, 0));
            let mut followed = self.begin(of, topic_id, bounds)?;
            // One that was followed already and was not rebuilt is as whole as it was.
            followed.ready = self
                .partitions
                .get(&of)
                .is_some_and(|before| before.ready && before.next == followed.next);
            partitions.insert(of, followed);
        }
        self.partitions = partitions;
        let starts = self
            .partitions
            .iter()
            .map(|(of, f)| (*of, f.next))
            .collect();
        self.log.assign(&starts)?;
        self.version = wanted.version;
        self.assigned = true;
        self.next_ask = Instant::now();
        self.publish_status();
        Ok(())
    }

    /// Decides where a partition's reading begins, and drops its rows when they are not of this log.
    fn begin(
        &mut self,
        of: i32,
        topic_id: [u8; 16],
        (log_start, log_end): (i64, i64),
    ) -> Result<Followed, RecentError> {
        let position = self.store.position(Table::Recent, of)?;
        let dropped = sweep::dropped(&self.store.snapshot(), of)?;
        let same_topic = position.filter(|position| position.topic_id == topic_id);
        let usable = same_topic.filter(|at| (log_start..=log_end).contains(&at.offset));
        let mut known = Known {
            topic_id,
            at_end_ms: 0,
            dropped: None,
        };
        if let Some(position) = usable {
            known.at_end_ms = position.fresh_at_ms;
            known.dropped = dropped;
            return Ok(Followed {
                known,
                next: position.offset,
                ready: false,
                lost_before: false,
            });
        }
        if let Some(position) = position {
            tracing::warn!(
                partition = of,
                position = position.offset,
                log_start,
                log_end,
                other_topic = same_topic.is_none(),
                "recent events of this partition do not fit its log; rebuilding them from the log's start"
            );
        }
        // Rows are never without a position.
        if position.is_some() {
            self.store
                .drop_partition(Table::Recent, &super::keys::partition(of), of)?;
        }
        if let Some(event_ts) = dropped.filter(|_| same_topic.is_some()) {
            sweep::put_dropped(of, event_ts, &mut self.writes);
            self.store.apply_unlogged(&mut self.writes)?;
            known.dropped = Some(event_ts);
        }
        Ok(Followed {
            known,
            next: log_start,
            ready: false,
            lost_before: log_start > 0,
        })
    }

    /// Asks for the end of the log now and then, and sees whether the end asked for before is reached.
    fn watch_end(&mut self) {
        if !self.assigned || self.partitions.is_empty() {
            return;
        }
        if self.target.is_none() && self.batch.is_empty() && Instant::now() >= self.next_ask {
            self.next_ask = Instant::now() + ASK_END;
            let of: Vec<i32> = self.partitions.keys().copied().collect();
            let asked_ms = now_ms();
            match self.log.ends(&of) {
                Ok(ends) => self.target = Some(Target { asked_ms, ends }),
                Err(error) => tracing::debug!(%error, "the end of the enriched topic is not known"),
            }
        }
        // What is in the batch is not written yet.
        let Some(target) = self.target.as_ref().filter(|_| self.batch.is_empty()) else {
            return;
        };
        let positions = self.log.positions();
        let mut reached_all = true;
        for (of, followed) in &mut self.partitions {
            let at = positions.get(of).copied().unwrap_or(0).max(followed.next);
            if target.ends.get(of).is_some_and(|end| at >= *end) {
                followed.ready = true;
                followed.known.at_end_ms = followed.known.at_end_ms.max(target.asked_ms);
            } else {
                reached_all = false;
            }
        }
        if reached_all {
            self.as_of_ms = self.as_of_ms.max(Some(target.asked_ms));
            self.target = None;
        }
        self.publish_status();
    }

    /// Drops what is older than the retention, a bounded number of rows for each partition that has any, owned or not.
    fn sweep(&mut self) -> Result<(), RecentError> {
        let keep_from_ms = keep_from(self.retention);
        let mut more = false;
        for (of, _) in self.store.positions(Table::Recent)? {
            let swept = sweep::sweep(&self.store.snapshot(), of, keep_from_ms, &mut self.writes)?;
            more |= swept.rows >= sweep::MOST_ROWS;
            self.store.apply_unlogged(&mut self.writes)?;
            if let Some(followed) = self.partitions.get_mut(&of) {
                followed.known.dropped = followed.known.dropped.max(swept.dropped);
            }
        }
        let pause = if more {
            LINGER
        } else {
            SWEEP_EVERY.min(self.retention / 4)
        };
        self.next_sweep = Instant::now() + pause;
        self.publish_status();
        Ok(())
    }

    fn publish_status(&self) {
        let lag = self.target.as_ref().map_or(0, |target| {
            let behind = |(of, followed): (&i32, &Followed)| {
                let end = target.ends.get(of).copied().unwrap_or(0);
                end.saturating_sub(followed.next).max(0).unsigned_abs()
            };
            self.partitions.iter().map(behind).sum()
        });
        let wanted = self.shared.wanted.lock();
        // A newer wish has already been entered into the status.
        if wanted.version != self.version {
            return;
        }
        let ready: Vec<i32> = self
            .partitions
            .iter()
            .filter_map(|(of, followed)| followed.ready.then_some(*of))
            .collect();
        let mut status = self.shared.status.lock();
        status.owned = self.partitions.keys().copied().collect();
        status.caught_up = ready.len() == self.partitions.len();
        status.ready = ready;
        status.as_of_ms = self.as_of_ms;
        status.lag = lag;
        status.dropped_up_to = self
            .partitions
            .values()
            .filter_map(|f| f.known.dropped)
            .max();
        status.unreadable = self.batch.unreadable();
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

fn keep_from(retention: Duration) -> i64 {
    now_ms().saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))
}
