//! The replica: tails all partitions of `content.changelog` into the store, then refreshes the cache, then wakes the
//! workers.

use super::batch::{BATCH_RECORDS, Batch};
use super::positions::ReplicaPositions;
use super::restore::Restore;
use super::rows::split;
use super::table::{ContentTable, ContentTableError};
use super::wakeups::{Waker, Wakeups, wakeups};
use crate::domain::Partition;
use crate::health::Health;
use crate::kafka::{
    ChangelogError, Edge, Isolation, LogReader, Offsets, OffsetsError, Resume, TopicId, resume,
};
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thmanyah_state::{BulkLoad, Moment, Position, Rows, Table, Tables, WriteSet};

/// A batch of fewer records goes through the write-ahead log.
const LOAD_FROM: usize = 10_000;
/// Between two attempts to ask brokers that do not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often an idle tail notes that it stands at the end.
const FRESHNESS_INTERVAL_MS: i64 = 60_000;

/// What the replica needs.
pub struct ReplicaSettings {
    /// `content.changelog`.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// Its number of partitions.
    pub partitions: i32,
    /// Wake-ups queued for each worker.
    pub wakeups: usize,
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

/// Where following begins.
struct Begun<E: Edge> {
    ends: E::Offsets,
    starts: BTreeMap<i32, i64>,
    reader: E::Reader,
    restore: Restore,
}

/// The replica, before it follows.
pub struct Replica<E: Edge> {
    edge: E,
    settings: ReplicaSettings,
    store: E::Store,
    table: ContentTable<E::Store>,
    positions: ReplicaPositions,
    wakers: Vec<Waker>,
}

impl<E: Edge> Replica<E> {
    /// A replica that will fold into `store` and keep `table` coherent.
    pub fn new(
        edge: E,
        settings: ReplicaSettings,
        store: E::Store,
        table: ContentTable<E::Store>,
    ) -> Self {
        Self {
            edge,
            positions: ReplicaPositions::new(settings.partitions),
            settings,
            store,
            table,
            wakers: Vec::new(),
        }
    }

    /// A queue that is told of every row written from now on.
    pub fn wakeups(&mut self) -> Wakeups {
        let (waker, wakeups) = wakeups(self.settings.wakeups);
        self.wakers.push(waker);
        wakeups
    }

    /// Where the table stands.
    pub fn positions(&self) -> ReplicaPositions {
        self.positions.clone()
    }

    /// Follows the changelog until `stop` is set.
    pub fn run(
        self,
        stop: &AtomicBool,
        metrics: &Metrics,
        health: &Health,
    ) -> Result<(), ReplicaError> {
        let begun = loop {
            match self.begin() {
                // Brokers that do not answer now will answer later.
                Err(ReplicaError::Offsets(error)) => {
                    tracing::warn!(%error, "the content table asks again where its changelog begins and ends");
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    self.edge.sleep(ASK_AGAIN);
                }
                outcome => break outcome?,
            }
        };
        let mut following = self.following(begun);
        while !stop.load(Ordering::Relaxed) {
            following.turn(metrics, health)?;
        }
        Ok(())
    }

    /// Begins where the stored rows end.
    pub fn follow(self) -> Result<Following<E>, ReplicaError> {
        let begun = self.begin()?;
        Ok(self.following(begun))
    }

    /// Asks where the changelog begins and ends, and opens it where the stored rows end.
    fn begin(&self) -> Result<Begun<E>, ReplicaError> {
        let topic = &self.settings.topic;
        let ends = self
            .edge
            .offsets(&format!("{topic}-reader"), Isolation::Committed)?;
        let starts = self.prepare(&ends, self.edge.now_ms())?;
        for (partition, start) in &starts {
            self.positions.publish(*partition, *start);
        }
        self.table.warm()?;
        let reader = self.edge.reader(topic, starts.clone())?;
        let partitions: Vec<i32> = starts.keys().copied().collect();
        let restore = Restore::begin(
            ends.ends(topic, &partitions)?,
            &self.positions,
            self.edge.instant(),
        );
        Ok(Begun {
            ends,
            starts,
            reader,
            restore,
        })
    }

    fn following(self, begun: Begun<E>) -> Following<E> {
        Following {
            restore: Some(begun.restore),
            load: None,
            ready: Batch::default(),
            ends: begun.ends,
            reader: begun.reader,
            batch: Batch::default(),
            stored: begun.starts,
            noted_ms: self.edge.now_ms(),
            replica: self,
        }
    }

    /// Where to begin each partition; drops the rows of those that have to be rebuilt.
    fn prepare(&self, ends: &E::Offsets, now_ms: i64) -> Result<BTreeMap<i32, i64>, ReplicaError> {
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
        let mut rows = snapshot.rows(Table::Content, &[], &[0xff; 17])?;
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

    /// Adds the positions that a batch reaches.
    fn stage(
        &self,
        batch: &mut Batch,
        reader: &E::Reader,
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
        Ok(())
    }

    /// A batch was written with its positions: refreshes the cache, then wakes the workers.
    ///
    /// IMPORTANT: this order, after the store. A worker that is woken, or that finds nothing in the cache, must find the row in
    /// the store.
    fn announce(&self, batch: &mut Batch) {
        for (id, row) in &batch.changes {
            self.table.refresh(*id, *row);
        }
        for (partition, position) in &batch.moved {
            self.positions.publish(*partition, *position);
        }
        for (id, row) in batch.changes.drain(..) {
            if row.is_some() {
                for waker in &self.wakers {
                    waker.wake(id);
                }
            }
        }
        batch.clear();
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
        ends: &E::Offsets,
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

/// A replica that follows its changelog.
pub struct Following<E: Edge> {
    replica: Replica<E>,
    ends: E::Offsets,
    reader: E::Reader,
    batch: Batch,
    stored: BTreeMap<i32, i64>,
    /// The first fold, while it lasts.
    restore: Option<Restore>,
    /// The bulk load that it is written by,
    load: Option<BulkLoad>,
    /// and the batch that is taken in while the next one is read. Empty in between.
    ready: Batch,
    noted_ms: i64,
}

impl<E: Edge> Following<E> {
    /// Folds what has come since the last turn; waits a little when nothing has.
    pub fn turn(&mut self, metrics: &Metrics, health: &Health) -> Result<(), ReplicaError> {
        self.read()?;
        metrics
            .restored
            .content
            .inc_by(self.batch.changes.len() as u64);
        self.replica.announce(&mut self.ready);
        self.fold()?;
        if let Some(restore) = self.restore.take() {
            self.restore = {
                let now = self.replica.edge.instant();
                let topic = &self.replica.settings.topic;
                restore.advance(&self.replica.positions, topic, now, metrics, health)
            };
            if self.restore.is_none() {
                // From here on its files are merged in the background.
                self.load = None;
            }
        }
        let now = self.replica.edge.now_ms();
        // IMPORTANT: never beside a batch that is ready: its positions are noted as stored, its rows are not there yet.
        if now - self.noted_ms >= FRESHNESS_INTERVAL_MS && self.ready.moved.is_empty() {
            self.noted_ms = now;
            self.load = None;
            self.replica.note_freshness(&self.ends, &self.stored, now)?;
        }
        Ok(())
    }

    /// Reads a batch. Meanwhile one that is ready is taken in.
    fn read(&mut self) -> Result<(), ReplicaError> {
        let (ready, batch, reader) = (&mut self.ready, &mut self.batch, &self.reader);
        let restoring = self.restore.is_some();
        let Some(load) = self.load.as_mut().filter(|_| !ready.moved.is_empty()) else {
            return Ok(batch.read(reader, restoring)?);
        };
        let taken_in = std::thread::scope(|scope| {
            let writes = &mut ready.writes;
            let name = "content load".to_owned();
            let taking = std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, || load.ingest(writes));
            batch.read(reader, restoring)?;
            let taken_in = taking.ok().map(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            Ok::<_, ReplicaError>(taken_in)
        })?;
        match taken_in {
            Some(outcome) => outcome?,
            // The system refuses a thread: one after the other, then.
            None => load.ingest(&mut ready.writes)?,
        }
        Ok(())
    }

    /// Writes what was read, or leaves a large batch to be taken in while the next one is read.
    fn fold(&mut self) -> Result<(), ReplicaError> {
        let (replica, batch) = (&self.replica, &mut self.batch);
        replica.stage(batch, &self.reader, &mut self.stored)?;
        if batch.moved.is_empty() {
            return Ok(());
        }
        if batch.changes.len() >= LOAD_FROM {
            if self.load.is_none() {
                self.load = replica.store.begin_load(Table::Content)?;
            }
            if self.load.is_some() {
                std::mem::swap(&mut self.ready, batch);
                return Ok(());
            }
        }
        self.load = None;
        replica.store.apply(&mut batch.writes)?;
        replica.announce(batch);
        Ok(())
    }
}
