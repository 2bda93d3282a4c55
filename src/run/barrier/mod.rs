//! The restore barrier: what must be true before an assigned partition is processed.
//!
//! The group's committed position and ledger are known, stable; the published ids and the pending table are folds of their
//! logs up to their true ends, and as many as the ledger says; and the content table, which is restored meanwhile, has every
//! row that its changelog had at assignment.

mod error;
mod fold;
mod pending;
mod seen;
mod start;

pub use error::BarrierError;
pub(crate) use pending::parked_key;
pub(crate) use seen::CHECKPOINT_KEY;

use super::lease::{Lease, Leases};
use crate::content::{ContentWatermark, ReplicaPositions};
use crate::enricher::Task;
use crate::health::Health;
use crate::kafka::{Edge, Isolation, Offsets, TopicId};
use crate::metrics::Metrics;
use start::Start;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a partition's first boot waits for the content that is already there, so that a backlog does not park
/// everything.
const FIRST_BOOT_WAIT: Duration = Duration::from_secs(30);
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Between two attempts to ask brokers that do not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What every barrier of the process needs.
pub struct BarrierSettings {
    /// The enricher's group.
    pub group: String,
    /// The input topic.
    pub raw_topic: String,
    /// The enriched topic.
    pub enriched_topic: String,
    /// The changelog of parked events.
    pub pending_topic: String,
    /// Its id.
    pub pending_id: TopicId,
    /// The enriched topic's id.
    pub enriched_id: TopicId,
    /// The checkpoints of published ids.
    pub seen_topic: String,
    /// Its id.
    pub seen_id: TopicId,
    /// The content changelog.
    pub changelog_topic: String,
    /// Its number of partitions.
    pub changelog_partitions: i32,
}

/// A partition that passed.
pub(super) struct Passed {
    /// Its task, standing at the committed position.
    pub(super) task: Task,
    /// The right to write its rows.
    pub(super) lease: Lease,
}

/// Takes partitions through the barrier. Runs on a thread beside the worker, which keeps polling.
pub(super) struct Barrier<E: Edge> {
    edge: E,
    settings: Arc<BarrierSettings>,
    committed: E::Offsets,
    ends: E::Offsets,
    store: E::Store,
    leases: Leases,
    replica: ReplicaPositions,
    watermark: ContentWatermark,
    metrics: Metrics,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
    /// The number of the latest request; an older one is called off.
    latest: Arc<AtomicU64>,
}

/// What a barrier works with.
pub struct Surroundings<E: Edge> {
    /// Brokers and clocks.
    pub edge: E,
    /// The store.
    pub store: E::Store,
    /// The process's leases.
    pub leases: Leases,
    /// Where the content table stands.
    pub replica: ReplicaPositions,
    /// What it vouches for.
    pub watermark: ContentWatermark,
    /// Counters.
    pub metrics: Metrics,
    /// Where progress is told.
    pub health: Arc<Health>,
    /// Set when the process stops.
    pub stop: Arc<AtomicBool>,
}

impl<E: Edge> Barrier<E> {
    /// A barrier whose requests are numbered by `latest`.
    pub(super) fn new(
        settings: Arc<BarrierSettings>,
        around: Surroundings<E>,
        latest: Arc<AtomicU64>,
    ) -> Result<Self, BarrierError> {
        let committed = around.edge.offsets(&settings.group, Isolation::Committed)?;
        let ends = around
            .edge
            .offsets(&settings.group, Isolation::Uncommitted)?;
        Ok(Self {
            edge: around.edge,
            settings,
            committed,
            ends,
            store: around.store,
            leases: around.leases,
            replica: around.replica,
            watermark: around.watermark,
            metrics: around.metrics,
            health: around.health,
            stop: around.stop,
            latest,
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
        let assigned_ms = self.edge.now_ms();
        for partition in partitions {
            while !leases.contains_key(partition) {
                self.go_on(request)?;
                match self.leases.acquire(*partition) {
                    Some(lease) => {
                        leases.insert(*partition, lease);
                    }
                    None => self.edge.sleep(LOOK_AGAIN),
                }
            }
        }
        let content = self.content_ends(request)?;
        let tasks = loop {
            let starts = self.starts(request, partitions)?;
            match self.pass_from(request, partitions, &starts, (&content, assigned_ms)) {
                Err(BarrierError::Overtaken) => {
                    tracing::info!(
                        ?partitions,
                        "another process committed meanwhile: once more"
                    );
                }
                tasks => break tasks?,
            }
        };
        Ok(tasks
            .into_iter()
            .filter_map(|mut task| {
                task.wake_all();
                let lease = leases.remove(&number(&task))?;
                Some(Passed { task, lease })
            })
            .collect())
    }

    /// Takes partitions through that go on where the group's commits say. `assigned` is where the content's changelog ended
    /// at the assignment, and when that was.
    fn pass_from(
        &self,
        request: u64,
        partitions: &[i32],
        starts: &BTreeMap<i32, Start>,
        assigned: (&BTreeMap<i32, i64>, i64),
    ) -> Result<Vec<Task>, BarrierError> {
        self.pass_seen(request, partitions, starts)?;
        self.asked(request, || self.fold_pending(request, partitions))?;
        // Last, because the content table is restored by a thread of its own meanwhile.
        let (content, assigned_ms) = assigned;
        self.await_content(request, content)?;
        if starts.values().any(|start| start.first_boot) {
            self.await_watermark(request, assigned_ms)?;
        }
        let mut tasks = self.tasks(starts)?;
        let wrong: Vec<i32> = tasks.iter().filter(|t| disagrees(t)).map(number).collect();
        if !wrong.is_empty() {
            self.not_overtaken(request, starts)?;
            tracing::warn!(partitions = ?wrong, "the pending table disagrees with the ledger: building it anew, once");
            for partition in &wrong {
                self.drop_pending(*partition)?;
            }
            self.asked(request, || self.fold_pending(request, &wrong))?;
            tasks = self.tasks(starts)?;
        }
        if let Some(task) = tasks.iter().find(|task| disagrees(task)) {
            self.not_overtaken(request, starts)?;
            return Err(BarrierError::PendingMismatch {
                topic: self.settings.pending_topic.clone(),
                partition: number(task),
                found: task.parked() as u64,
                expected: task.ledger().pending,
            });
        }
        Ok(tasks)
    }

    /// A process that was stopped for a while, and does not know yet that its partitions have another owner, sees logs that
    /// grow while it counts them. So whatever looks wrong is judged, or dropped, only if nobody has committed meanwhile.
    fn not_overtaken(
        &self,
        request: u64,
        starts: &BTreeMap<i32, Start>,
    ) -> Result<(), BarrierError> {
        self.go_on(request)?;
        let partitions: Vec<i32> = starts.keys().copied().collect();
        if self.starts(request, &partitions)? == *starts {
            Ok(())
        } else {
            Err(BarrierError::Overtaken)
        }
    }

    /// Brings the published ids up to the log and counts them: each enriched event of the ledger is one.
    fn pass_seen(
        &self,
        request: u64,
        partitions: &[i32],
        starts: &BTreeMap<i32, Start>,
    ) -> Result<(), BarrierError> {
        let mut partitions = partitions.to_vec();
        for again in [true, false] {
            self.asked(request, || self.fold_seen(request, &partitions))?;
            let mut wrong = Vec::new();
            for partition in &partitions {
                let expected = starts
                    .get(partition)
                    .map_or(0, |start| start.ledger.enriched);
                let found = self.count_seen(*partition)?;
                if found == Some(expected) {
                    continue;
                }
                self.not_overtaken(request, starts)?;
                if !again {
                    return Err(BarrierError::SeenMismatch {
                        topic: self.settings.seen_topic.clone(),
                        enriched: self.settings.enriched_topic.clone(),
                        partition: *partition,
                        found,
                        expected,
                    });
                }
                wrong.push(*partition);
                self.drop_seen(*partition)?;
            }
            if wrong.is_empty() {
                break;
            }
            tracing::warn!(partitions = ?wrong, "the published ids disagree with the ledger: building them anew, once");
            partitions = wrong;
        }
        Ok(())
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

    /// Where the content changelog ends now.
    fn content_ends(&self, request: u64) -> Result<BTreeMap<i32, i64>, BarrierError> {
        let partitions: Vec<i32> = (0..self.settings.changelog_partitions).collect();
        let topic = &self.settings.changelog_topic;
        self.asked(request, || Ok(self.ends.ends(topic, &partitions)?))
    }

    /// Waits until the content table has what its changelog had at assignment: a join never goes back a version when a
    /// partition moves.
    fn await_content(&self, request: u64, ends: &BTreeMap<i32, i64>) -> Result<(), BarrierError> {
        while !self.replica.reached(ends) {
            self.go_on(request)?;
            self.edge.sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn await_watermark(&self, request: u64, assigned_ms: i64) -> Result<(), BarrierError> {
        let began = self.edge.instant();
        let vouched = || self.watermark.get(&self.edge);
        while vouched().is_none_or(|w| w < assigned_ms) {
            self.go_on(request)?;
            if self.edge.since(began) > FIRST_BOOT_WAIT {
                tracing::warn!(
                    "the content that is already there was not applied within {FIRST_BOOT_WAIT:?}: events will wait for it"
                );
                break;
            }
            self.edge.sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Asks until there is an answer, or until the request is called off.
    fn asked<T>(
        &self,
        request: u64,
        ask: impl Fn() -> Result<T, BarrierError>,
    ) -> Result<T, BarrierError> {
        loop {
            match ask() {
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "the restore barrier asks again");
                    self.go_on(request)?;
                    self.edge.sleep(ASK_AGAIN);
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

fn disagrees(task: &Task) -> bool {
    task.parked() as u64 != task.ledger().pending
}

/// The name of a partition in the health of the process.
pub(super) fn component(partition: i32) -> String {
    format!("partition {partition}")
}

fn number(task: &Task) -> i32 {
    task.partition().0
}
