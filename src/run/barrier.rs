//! The restore barrier: what must be true before an assigned partition is processed.
//!
//! In order: the content table has every row that the changelog had at assignment; the group's committed position and
//! ledger are known, stable; the pending table is a fold of its changelog up to its true end; and the number of parked
//! events is the ledger's.

use super::lease::{Lease, Leases};
use crate::codec::decode_parked;
use crate::content::{ContentWatermark, ReplicaPositions};
use crate::domain::{EventId, Ledger, LedgerError, Offset, Partition};
use crate::enricher::Task;
use crate::kafka::{
    ChangelogError, ChangelogReader, Committed, Isolation, OffsetReader, OffsetsError, Resume,
    TopicId, resume,
};
use crate::metrics::Metrics;
use rdkafka::ClientConfig;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thmanyah_state::{Direction, Position, Store, Table, WriteSet};

/// How long a partition's first boot waits for the content that is already there, so that a backlog does not park
/// everything.
const FIRST_BOOT_WAIT: Duration = Duration::from_secs(30);
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Records folded into one write of the store.
const BATCH_RECORDS: usize = 4096;

/// What every barrier of the process needs.
pub(super) struct BarrierSettings {
    /// Bootstrap servers and the user's own properties.
    pub(super) client: ClientConfig,
    /// The enricher's group.
    pub(super) group: String,
    /// The input topic.
    pub(super) raw_topic: String,
    /// The enriched topic.
    pub(super) enriched_topic: String,
    /// The changelog of parked events.
    pub(super) pending_topic: String,
    /// Its id.
    pub(super) pending_id: TopicId,
    /// The checkpoints of published ids.
    pub(super) seen_topic: String,
    /// The content changelog.
    pub(super) changelog_topic: String,
    /// Its number of partitions.
    pub(super) changelog_partitions: i32,
}

/// Why a partition cannot be processed.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// Offsets cannot be read.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A changelog cannot be read.
    #[error(transparent)]
    Changelog(#[from] ChangelogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] thmanyah_state::Error),
    /// A commit is missing where there must have been one.
    #[error(
        "group `{group}` has no committed offset for partition {partition} of `{topic}`, but the partition's outputs are \
         not empty: starting at the beginning would publish events twice. Offsets expire after 7 days without a member, \
         and a reset drops them. Set the group's offset, with the ledger as its metadata, from the last commit known; or \
         run under another --app with new output topics"
    )]
    CommitLost {
        /// Group.
        group: String,
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// A commit has no readable ledger.
    #[error(
        "the commit of group `{group}` for partition {partition} of `{topic}` carries no ledger (`{metadata}`: {reason}). \
         An offset that was reset by hand loses it. Set the offset again with the last ledger as its metadata"
    )]
    LedgerUnreadable {
        /// Group.
        group: String,
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// What was committed.
        metadata: String,
        /// Why it is no ledger.
        reason: LedgerError,
    },
    /// Records were deleted before they were processed.
    #[error(
        "partition {partition} of `{topic}` holds offsets {start} to {end}, but it was processed up to {committed}: \
         records are gone. Restore the topic, or accept the loss by setting the group's offset to {start} with its \
         metadata unchanged"
    )]
    InputTruncated {
        /// Input topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Log start.
        start: i64,
        /// Log end.
        end: i64,
        /// Committed position.
        committed: i64,
    },
    /// The pending table does not agree with the ledger, even when built anew.
    #[error(
        "partition {partition}: {found} events are parked, the ledger says {expected}, also after `{topic}` was read anew: \
         the changelog lost records. Nothing was written"
    )]
    PendingMismatch {
        /// The pending topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Events found.
        found: u64,
        /// Events according to the ledger.
        expected: u64,
    },
    /// A stored row is not what was written.
    #[error("partition {partition}: a parked event in the store is unreadable: {reason}")]
    ParkedUnreadable {
        /// Partition.
        partition: i32,
        /// What the codec said.
        reason: String,
    },
    /// The barrier was called off: the assignment changed, or the process stops.
    #[error("called off")]
    CalledOff,
}

/// A partition that passed.
pub(super) struct Passed {
    /// Its task, standing at the committed position.
    pub(super) task: Task,
    /// The right to write its rows.
    pub(super) lease: Lease,
}

/// Takes partitions through the barrier. Runs on a thread beside the worker, which keeps polling.
pub(super) struct Barrier {
    settings: Arc<BarrierSettings>,
    committed: OffsetReader,
    ends: OffsetReader,
    store: Store,
    leases: Leases,
    replica: ReplicaPositions,
    watermark: ContentWatermark,
    metrics: Metrics,
    stop: Arc<AtomicBool>,
    /// The number of the latest request; an older one is called off.
    latest: Arc<AtomicU64>,
    now_ms: fn() -> i64,
}

/// What a barrier works with.
pub(super) struct Surroundings {
    /// The store.
    pub(super) store: Store,
    /// The process's leases.
    pub(super) leases: Leases,
    /// Where the content table stands.
    pub(super) replica: ReplicaPositions,
    /// What it vouches for.
    pub(super) watermark: ContentWatermark,
    /// Counters.
    pub(super) metrics: Metrics,
    /// Set when the process stops.
    pub(super) stop: Arc<AtomicBool>,
    /// The wall clock.
    pub(super) now_ms: fn() -> i64,
}

impl Barrier {
    /// A barrier whose requests are numbered by `latest`.
    pub(super) fn new(
        settings: Arc<BarrierSettings>,
        around: Surroundings,
        latest: Arc<AtomicU64>,
    ) -> Result<Self, BarrierError> {
        let committed = OffsetReader::new(&settings.client, &settings.group, Isolation::Committed)?;
        let ends = OffsetReader::new(&settings.client, &settings.group, Isolation::Uncommitted)?;
        Ok(Self {
            settings,
            committed,
            ends,
            store: around.store,
            leases: around.leases,
            replica: around.replica,
            watermark: around.watermark,
            metrics: around.metrics,
            stop: around.stop,
            latest,
            now_ms: around.now_ms,
        })
    }

    /// Takes partitions through, with the leases that are held already. Questions that the brokers do not answer are
    /// asked again until the request is called off.
    pub(super) fn pass(
        &self,
        request: u64,
        mut leases: BTreeMap<i32, Lease>,
        partitions: &[i32],
    ) -> Result<Vec<Passed>, BarrierError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let assigned_ms = (self.now_ms)();
        for partition in partitions {
            while !leases.contains_key(partition) {
                self.go_on(request)?;
                if let Some(lease) = self.leases.acquire(*partition, LOOK_AGAIN) {
                    leases.insert(*partition, lease);
                }
            }
        }
        self.await_content(request)?;
        let starts = self.asked(request, || self.starts(partitions))?;
        if starts.values().any(|start| start.first_boot) {
            self.await_watermark(request, assigned_ms)?;
        }
        self.fold_pending(request, partitions)?;
        let mut tasks = self.tasks(&starts)?;
        let wrong: Vec<i32> = tasks.iter().filter(|t| disagrees(t)).map(number).collect();
        if !wrong.is_empty() {
            tracing::warn!(partitions = ?wrong, "the pending table disagrees with the ledger: building it anew, once");
            for partition in &wrong {
                self.drop_pending(*partition)?;
            }
            self.fold_pending(request, &wrong)?;
            tasks = self.tasks(&starts)?;
        }
        if let Some(task) = tasks.iter().find(|task| disagrees(task)) {
            return Err(BarrierError::PendingMismatch {
                topic: self.settings.pending_topic.clone(),
                partition: number(task),
                found: task.parked() as u64,
                expected: task.ledger().pending,
            });
        }
        Ok(tasks
            .into_iter()
            .filter_map(|mut task| {
                task.wake_all();
                let lease = leases.remove(&number(&task))?;
                Some(Passed { task, lease })
            })
            .collect())
    }

    /// How far behind the last stable offset the given positions of the input are.
    pub(super) fn lags(&self, positions: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let partitions: Vec<i32> = positions.keys().copied().collect();
        let ends = self.committed.ends(&self.settings.raw_topic, &partitions);
        ends.unwrap_or_default()
            .into_iter()
            .filter_map(|(partition, end)| {
                let position = positions.get(&partition)?;
                Some((partition, (end - position).max(0)))
            })
            .collect()
    }

    /// Waits until the content table has what its changelog has now: a join never goes back a version when a partition
    /// moves.
    fn await_content(&self, request: u64) -> Result<(), BarrierError> {
        let partitions: Vec<i32> = (0..self.settings.changelog_partitions).collect();
        let topic = &self.settings.changelog_topic;
        let ends = self.asked(request, || Ok(self.ends.ends(topic, &partitions)?))?;
        while !self.replica.reached(&ends) {
            self.go_on(request)?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn await_watermark(&self, request: u64, assigned_ms: i64) -> Result<(), BarrierError> {
        let began = Instant::now();
        while self.watermark.get().is_none_or(|w| w < assigned_ms) {
            self.go_on(request)?;
            if began.elapsed() > FIRST_BOOT_WAIT {
                tracing::warn!(
                    "the content that is already there was not applied within {FIRST_BOOT_WAIT:?}: events will wait for it"
                );
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Where each partition goes on, by what the group committed.
    fn starts(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Start>, BarrierError> {
        let topic = &self.settings.raw_topic;
        let committed = self
            .committed
            .committed(topic, partitions.iter().copied())?;
        let bounds = self.committed.bounds(topic, partitions.iter().copied())?;
        let mut starts = BTreeMap::new();
        for (partition, committed) in committed {
            let (start, end) = bounds.get(&partition).copied().unwrap_or_default();
            let found = self.start(partition, committed, (start, end))?;
            starts.insert(partition, found);
        }
        Ok(starts)
    }

    fn start(
        &self,
        partition: i32,
        committed: Committed,
        (start, end): (i64, i64),
    ) -> Result<Start, BarrierError> {
        let group = self.settings.group.clone();
        let topic = self.settings.raw_topic.clone();
        let Some(offset) = committed.offset else {
            if !self.outputs_are_empty(partition)? {
                return Err(BarrierError::CommitLost {
                    group,
                    topic,
                    partition,
                });
            }
            return Ok(Start {
                position: start,
                ledger: Ledger::default(),
                first_boot: true,
            });
        };
        let ledger = Ledger::parse(&committed.metadata).map_err(|reason| {
            BarrierError::LedgerUnreadable {
                group,
                topic: topic.clone(),
                partition,
                metadata: committed.metadata,
                reason,
            }
        })?;
        if offset < start || offset > end {
            return Err(BarrierError::InputTruncated {
                topic,
                partition,
                start,
                end,
                committed: offset,
            });
        }
        Ok(Start {
            position: offset,
            ledger,
            first_boot: false,
        })
    }

    /// Whether nothing was ever published for the partition. An aborted first transaction leaves markers, no records.
    fn outputs_are_empty(&self, partition: i32) -> Result<bool, BarrierError> {
        let settings = &self.settings;
        for topic in [
            &settings.enriched_topic,
            &settings.pending_topic,
            &settings.seen_topic,
        ] {
            let bounds = self.ends.bounds(topic, [partition])?;
            let (start, end) = bounds.get(&partition).copied().unwrap_or_default();
            if start > 0 {
                return Ok(false);
            }
            if end == 0 {
                continue;
            }
            let reader =
                ChangelogReader::open(&settings.client, topic, BTreeMap::from([(partition, 0)]))?;
            while reader.positions().values().any(|position| *position < end) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(BarrierError::CalledOff);
                }
                if reader.poll(LOOK_AGAIN)?.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Brings the pending table up to the changelog's end.
    ///
    /// IMPORTANT: the end is asked for with a read_uncommitted reader. Beside an open transaction a read_committed one is
    /// told the LSO, and what was committed behind it would be missed. And the end is detected by the position, which
    /// moves over markers, never by the last record.
    fn fold_pending(&self, request: u64, partitions: &[i32]) -> Result<(), BarrierError> {
        let topic = &self.settings.pending_topic;
        let bounds = self.asked(request, || {
            Ok(self.ends.bounds(topic, partitions.iter().copied())?)
        })?;
        let mut starts = BTreeMap::new();
        for (partition, bounds) in &bounds {
            let stored = self.store.position(Table::Pending, *partition)?;
            let now_ms = (self.now_ms)();
            let from = match resume(stored, self.settings.pending_id, *bounds, true, now_ms) {
                Resume::From(offset) => offset,
                Resume::Rebuild(why) => {
                    tracing::info!(%topic, partition, %why, "folding the partition from its start");
                    self.drop_pending(*partition)?;
                    bounds.0
                }
            };
            starts.insert(*partition, from);
        }
        let behind: BTreeMap<i32, i64> = starts
            .iter()
            .filter(|(partition, from)| bounds.get(partition).is_some_and(|(_, end)| from < &end))
            .map(|(partition, from)| (*partition, *from))
            .collect();
        let mut positions = starts;
        let mut writes = WriteSet::new();
        if !behind.is_empty() {
            let reader = ChangelogReader::open(&self.settings.client, topic, behind)?;
            loop {
                self.go_on(request)?;
                let mut wait = LOOK_AGAIN;
                while writes.len() < BATCH_RECORDS
                    && let Some(record) = reader.poll(wait)?
                {
                    wait = Duration::ZERO;
                    self.fold(&record, &mut writes);
                }
                positions.extend(reader.positions());
                self.set_positions(&positions, &mut writes);
                self.store.apply(&mut writes)?;
                let done = |(partition, (_, end)): (&i32, &(i64, i64))| {
                    positions
                        .get(partition)
                        .is_some_and(|position| position >= end)
                };
                if bounds.iter().all(done) {
                    return Ok(());
                }
            }
        }
        self.set_positions(&positions, &mut writes);
        Ok(self.store.apply(&mut writes)?)
    }

    fn fold(&self, record: &impl Message, writes: &mut WriteSet) {
        self.metrics.restored.pending.inc();
        let id = record
            .key()
            .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        let Some(id) = id.map(EventId) else {
            tracing::warn!(
                topic = record.topic(),
                offset = record.offset(),
                "skipping a record whose key is no event id"
            );
            return;
        };
        let key = parked_key(Partition(record.partition()), id);
        match record.payload() {
            Some(value) => writes.put(Table::Pending, &key, value),
            None => writes.delete(Table::Pending, &key),
        }
    }

    fn set_positions(&self, positions: &BTreeMap<i32, i64>, writes: &mut WriteSet) {
        for (partition, offset) in positions {
            let position = Position {
                offset: *offset,
                topic_id: self.settings.pending_id,
                fresh_at_ms: (self.now_ms)(),
            };
            writes.set_position(Table::Pending, *partition, position);
        }
    }

    fn drop_pending(&self, partition: i32) -> Result<(), BarrierError> {
        let prefix = partition.to_be_bytes();
        Ok(self
            .store
            .drop_partition(Table::Pending, &prefix, partition)?)
    }

    /// Builds each partition's task from the committed state and the pending table.
    fn tasks(&self, starts: &BTreeMap<i32, Start>) -> Result<Vec<Task>, BarrierError> {
        let snapshot = self.store.snapshot();
        starts
            .iter()
            .map(|(partition, start)| {
                let partition = Partition(*partition);
                let mut task = Task::new(partition, Offset(start.position), start.ledger);
                let from = parked_key(partition, EventId(i64::MIN));
                let to = Partition(partition.0 + 1).0.to_be_bytes();
                let mut rows = snapshot.scan(Table::Pending, &from, &to, Direction::Forward)?;
                while let Some((_, value)) = rows.next()? {
                    let parked =
                        decode_parked(value).map_err(|error| BarrierError::ParkedUnreadable {
                            partition: partition.0,
                            reason: error.to_string(),
                        })?;
                    task.restore(&parked);
                }
                Ok(task)
            })
            .collect()
    }

    /// Asks until there is an answer, or until the request is called off.
    fn asked<T>(
        &self,
        request: u64,
        ask: impl Fn() -> Result<T, BarrierError>,
    ) -> Result<T, BarrierError> {
        loop {
            match ask() {
                Err(BarrierError::Offsets(error)) => {
                    tracing::warn!(%error, "the restore barrier asks again");
                    self.go_on(request)?;
                    std::thread::sleep(LOOK_AGAIN);
                }
                answer => return answer,
            }
        }
    }

    fn go_on(&self, request: u64) -> Result<(), BarrierError> {
        let stale = self.latest.load(Ordering::Acquire) != request;
        if stale || self.stop.load(Ordering::Relaxed) {
            return Err(BarrierError::CalledOff);
        }
        Ok(())
    }
}

/// Where a partition goes on.
struct Start {
    position: i64,
    ledger: Ledger,
    first_boot: bool,
}

fn disagrees(task: &Task) -> bool {
    task.parked() as u64 != task.ledger().pending
}

fn number(task: &Task) -> i32 {
    task.partition().0
}

/// Key of a parked event in the store: partition, then the id so that it sorts as a number.
pub(super) fn parked_key(partition: Partition, id: EventId) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&partition.0.to_be_bytes());
    tail.copy_from_slice(&((id.0 as u64) ^ (1 << 63)).to_be_bytes());
    key
}
