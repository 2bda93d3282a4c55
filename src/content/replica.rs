//! The replica: tails all partitions of `content.changelog` into the store, then refreshes the cache, then wakes the
//! workers.

use super::rows::{split, version_bytes};
use super::table::{ContentTable, ContentTableError};
use crate::codec::decode_content_row;
use crate::domain::{ContentId, ContentVersion, JoinContent, Offset, Partition};
use crate::kafka::{
    ChangelogError, ChangelogReader, Isolation, OffsetReader, OffsetsError, Resume, TopicId, resume,
};
use crate::metrics::Metrics;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use rdkafka::ClientConfig;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use thmanyah_state::{Direction, Position, Store, Table, WriteSet};

/// Records folded into one write of the store.
const BATCH_RECORDS: usize = 4096;
/// Bytes folded into one write of the store.
const BATCH_BYTES: usize = 4 << 20;
/// How long an idle tail waits for a record.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// Wake-ups queued for one worker; beyond it the worker looks everything up again.
const WAKEUPS: usize = 16_384;
/// How often an idle tail notes that it stands at the end.
const FRESHNESS_INTERVAL_MS: i64 = 60_000;

/// What the replica needs.
pub struct ReplicaSettings {
    /// Bootstrap servers and the user's own properties.
    pub client: ClientConfig,
    /// `content.changelog`.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// Its number of partitions.
    pub partitions: i32,
}

/// Why the replica cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Reading the changelog.
    #[error(transparent)]
    Changelog(#[from] ChangelogError),
    /// Asking for its bounds.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The table.
    #[error(transparent)]
    Table(#[from] ContentTableError),
    /// The store.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
}

/// The next changelog offset of each partition that is *not* in the table yet. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaPositions(Arc<[AtomicI64]>);

impl ReplicaPositions {
    fn new(partitions: i32) -> Self {
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
                end.saturating_sub(position.max(0)).max(0) as u64 + u64::from(position < 0 && *end > 0)
            })
            .sum()
    }

    fn publish(&self, partition: i32, position: i64) {
        if let Some(slot) = self.0.get(partition as usize) {
            slot.store(position, Ordering::Release);
        }
    }
}

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
struct Waker {
    ids: Sender<ContentId>,
    overflowed: Arc<AtomicBool>,
}

/// The replica, before its thread runs.
pub struct Replica {
    settings: ReplicaSettings,
    store: Store,
    table: ContentTable,
    positions: ReplicaPositions,
    wakers: Vec<Waker>,
}

impl Replica {
    /// A replica that will fold into `store` and keep `table` coherent.
    pub fn new(settings: ReplicaSettings, store: Store, table: ContentTable) -> Self {
        Self {
            positions: ReplicaPositions::new(settings.partitions),
            settings,
            store,
            table,
            wakers: Vec::new(),
        }
    }

    /// A queue that is told of every row written from now on.
    pub fn wakeups(&mut self) -> Wakeups {
        let (sender, ids) = crossbeam_channel::bounded(WAKEUPS);
        let overflowed = Arc::new(AtomicBool::new(false));
        self.wakers.push(Waker {
            ids: sender,
            overflowed: Arc::clone(&overflowed),
        });
        Wakeups { ids, overflowed }
    }

    /// Where the table stands.
    pub fn positions(&self) -> ReplicaPositions {
        self.positions.clone()
    }

    /// Follows the changelog until `stop` is set. `now_ms` is the wall clock.
    pub fn run(
        self,
        stop: &AtomicBool,
        now_ms: impl Fn() -> i64,
        metrics: &Metrics,
    ) -> Result<(), ReplicaError> {
        let ends = OffsetReader::new(
            &self.settings.client,
            &format!("{}-reader", self.settings.topic),
            Isolation::Committed,
        )?;
        let starts = self.prepare(&ends, now_ms())?;
        for (partition, start) in &starts {
            self.positions.publish(*partition, *start);
        }
        self.table.warm()?;
        let reader =
            ChangelogReader::open(&self.settings.client, &self.settings.topic, starts.clone())?;
        let mut batch = Batch::default();
        let mut stored = starts;
        let mut noted_ms = now_ms();
        while !stop.load(Ordering::Relaxed) {
            let mut wait = IDLE_WAIT;
            while batch.changes.len() < BATCH_RECORDS && batch.bytes < BATCH_BYTES {
                let Some(record) = reader.poll(wait)? else {
                    break;
                };
                wait = Duration::ZERO;
                batch.add(&record);
            }
            metrics.restored.content.inc_by(batch.changes.len() as u64);
            self.fold(&mut batch, &reader, &mut stored)?;
            let now = now_ms();
            if now - noted_ms >= FRESHNESS_INTERVAL_MS {
                noted_ms = now;
                self.note_freshness(&ends, &stored, now)?;
            }
        }
        Ok(())
    }

    /// Where to begin each partition; drops the rows of those that have to be rebuilt.
    fn prepare(&self, ends: &OffsetReader, now_ms: i64) -> Result<BTreeMap<i32, i64>, ReplicaError> {
        let settings = &self.settings;
        let bounds = ends.bounds(&settings.topic, 0..settings.partitions)?;
        let mut starts = BTreeMap::new();
        for (partition, (start, end)) in bounds {
            let stored = self.store.position(Table::Content, partition)?;
            let from = match resume(stored, settings.topic_id, (start, end), true, now_ms) {
                Resume::From(offset) => offset,
                Resume::Rebuild(why) => {
                    tracing::info!(topic = %settings.topic, partition, %why, "folding the partition from its start");
                    self.drop_rows(Partition(partition))?;
                    start
                }
            };
            starts.insert(partition, from);
        }
        Ok(starts)
    }

    /// Deletes the rows that came from one changelog partition, and its position.
    fn drop_rows(&self, partition: Partition) -> Result<(), ReplicaError> {
        let mut writes = WriteSet::new();
        let snapshot = self.store.snapshot();
        let mut rows = snapshot.scan(Table::Content, &[], &[0xff; 17], Direction::Forward)?;
        while let Some((key, value)) = rows.next()? {
            let (version, _) = split(value).map_err(ContentTableError::from)?;
            if version.partition == partition {
                writes.delete(Table::Content, key);
            }
            if writes.len() >= BATCH_RECORDS {
                self.store.apply(&mut writes)?;
            }
        }
        self.store.apply(&mut writes)?;
        self.table.forget_all();
        Ok(())
    }

    /// Writes a batch with its positions, then refreshes the cache, then wakes the workers.
    ///
    /// IMPORTANT: this order. A worker that is woken, or that finds nothing in the cache, must find the row in the store.
    fn fold(
        &self,
        batch: &mut Batch,
        reader: &ChangelogReader,
        stored: &mut BTreeMap<i32, i64>,
    ) -> Result<(), ReplicaError> {
        for (partition, position) in reader.positions() {
            if stored.get(&partition) != Some(&position) {
                let fresh_at_ms = batch.latest_ms.get(&partition).copied().unwrap_or_default();
                let fresh_at_ms = match self.store.position(Table::Content, partition)? {
                    Some(before) => before.fresh_at_ms.max(fresh_at_ms),
                    None => fresh_at_ms,
                };
                self.set_position(&mut batch.writes, partition, position, fresh_at_ms);
                stored.insert(partition, position);
                batch.moved.push((partition, position));
            }
        }
        if batch.moved.is_empty() {
            return Ok(());
        }
        self.store.apply(&mut batch.writes)?;
        for (id, row) in &batch.changes {
            self.table.refresh(*id, *row);
        }
        for (partition, position) in &batch.moved {
            self.positions.publish(*partition, *position);
        }
        for (id, row) in batch.changes.drain(..) {
            if row.is_some() {
                self.wake(id);
            }
        }
        batch.clear();
        Ok(())
    }

    fn wake(&self, id: ContentId) {
        for waker in &self.wakers {
            if let Err(TrySendError::Full(_)) = waker.ids.try_send(id) {
                waker.overflowed.store(true, Ordering::Release);
            }
        }
    }

    fn set_position(&self, writes: &mut WriteSet, partition: i32, offset: i64, fresh_at_ms: i64) {
        let position = Position {
            offset,
            topic_id: self.settings.topic_id,
            fresh_at_ms,
        };
        writes.set_position(Table::Content, partition, position);
    }

    /// Notes for each partition that stands at the end that it does, so that an idle table does not age.
    fn note_freshness(
        &self,
        ends: &OffsetReader,
        stored: &BTreeMap<i32, i64>,
        now_ms: i64,
    ) -> Result<(), ReplicaError> {
        let partitions: Vec<i32> = stored.keys().copied().collect();
        let Ok(ends) = ends.ends(&self.settings.topic, &partitions) else {
            // Brokers that do not answer now will answer later.
            return Ok(());
        };
        let mut writes = WriteSet::new();
        for (partition, position) in stored {
            if ends.get(partition).is_some_and(|end| position >= end) {
                self.set_position(&mut writes, *partition, *position, now_ms);
            }
        }
        Ok(self.store.apply(&mut writes)?)
    }
}

/// Changes read but not folded yet.
#[derive(Default)]
struct Batch {
    writes: WriteSet,
    changes: Vec<(ContentId, Option<JoinContent>)>,
    latest_ms: BTreeMap<i32, i64>,
    moved: Vec<(i32, i64)>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, record: &impl Message) {
        let partition = record.partition();
        if let Some(ms) = record.timestamp().to_millis() {
            let latest = self.latest_ms.entry(partition).or_insert(ms);
            *latest = ms.max(*latest);
        }
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(ContentId::parse) else {
            tracing::warn!(topic = record.topic(), partition, offset = record.offset(), "skipping a record whose key is no content id");
            return;
        };
        let Some(value) = record.payload() else {
            self.writes.delete(Table::Content, &id.0);
            self.changes.push((id, None));
            self.bytes += 16;
            return;
        };
        let row = match decode_content_row(value) {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(topic = record.topic(), partition, offset = record.offset(), %error, "skipping a record that is no content row");
                return;
            }
        };
        let version = ContentVersion {
            partition: Partition(partition),
            offset: Offset(record.offset()),
        };
        self.writes
            .put_parts(Table::Content, &id.0, &[&version_bytes(version), value]);
        let join = JoinContent {
            content_type: row.content_type,
            length_seconds: row.length_seconds,
            version,
        };
        self.changes.push((id, Some(join)));
        self.bytes += value.len();
    }

    fn clear(&mut self) {
        self.writes.clear();
        self.changes.clear();
        self.latest_ms.clear();
        self.moved.clear();
        self.bytes = 0;
    }
}
