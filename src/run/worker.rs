//! THE loop: poll → process → commit → apply, on one thread that owns one group member and one transactional producer.

use super::barrier::{BarrierError, Passed, component};
use super::error::WorkerError;
use super::lease::Lease;
use super::parts::WorkerParts;
use super::records::{outgoing, raw_record};
use crate::domain::{Ledger, Offset, Partition};
use crate::enricher::{Rules, Staged, Task};
use crate::kafka::{Edge, ProducerError, TopicLimits, Transactor, TransactorError};
use crate::logging::Seldom;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thmanyah_state::WriteSet;

/// Outputs handed to the producer at a time.
const SEND_OUTPUTS: usize = 256;
/// Bytes staged before they are handed to the producer.
const SEND_BYTES: usize = 1 << 20;
/// One wait for a record when nothing is open.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How often lag and pending gauges are refreshed.
const GAUGES: Duration = Duration::from_secs(1);

/// A partition past its barrier.
pub(super) struct Owned {
    pub(super) task: Task,
    lease: Lease,
    /// What this worker committed last.
    committed: (Offset, Ledger),
}

/// One worker.
pub struct Worker<E: Edge> {
    pub(super) parts: WorkerParts<E>,
    pub(super) transactor: Transactor<E>,
    pub(super) tasks: BTreeMap<i32, Owned>,
    pub(super) staged: Staged,
    /// The step's rules; the limits in them follow the topics'.
    rules: Rules,
    /// What the topics said when a record was refused last.
    limits: Option<TopicLimits>,
    /// Misplaced records are told of now and then.
    pub(super) misplaced: Seldom,
    opened: Option<Instant>,
    /// Whether releases or time-outs are left over from the last transaction.
    more: bool,
    pub(super) writes: WriteSet,
    pub(super) scratch: Vec<u8>,
    gauged: Instant,
    checkpointed: Instant,
}

impl<E: Edge> Worker<E> {
    /// A worker in the group, with nothing owned yet.
    pub fn new(parts: WorkerParts<E>, transactor: Transactor<E>) -> Self {
        let now = parts.edge.instant();
        Self {
            rules: parts.settings.rules.clone(),
            parts,
            transactor,
            tasks: BTreeMap::new(),
            staged: Staged::default(),
            limits: None,
            misplaced: Seldom::default(),
            opened: None,
            more: false,
            writes: WriteSet::new(),
            scratch: Vec::new(),
            gauged: now,
            checkpointed: now,
        }
    }

    /// Runs until `stop` is set; then commits what is open and gives everything back.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), WorkerError> {
        while !stop.load(Ordering::Relaxed) {
            self.parts.beat.beat(self.parts.edge.now_ms());
            self.turn()?;
        }
        self.finish()
    }

    /// One round of the loop, and the way back after a failure.
    pub fn turn(&mut self) -> Result<(), WorkerError> {
        let outcome = self.round();
        self.recover(outcome)
    }

    /// Commits what is open and gives everything back.
    pub fn finish(mut self) -> Result<(), WorkerError> {
        let outcome = self.commit().and_then(|()| self.last_checkpoint());
        let outcome = self.recover(outcome);
        self.parts.owned.set(self.parts.number, Vec::new());
        outcome
    }

    /// The time that passed since then.
    fn since(&self, then: Instant) -> Duration {
        self.parts.edge.since(then)
    }

    /// One round of the loop.
    fn round(&mut self) -> Result<(), WorkerError> {
        self.follow_rebalances()?;
        self.take_restored()?;
        self.take_arrivals();
        self.read()?;
        self.drive()?;
        let due = self
            .opened
            .is_some_and(|at| self.since(at) >= self.parts.settings.commit_interval);
        let full = self.staged.is_full(&self.rules);
        if due || full {
            self.commit()?;
        }
        if self.since(self.checkpointed) >= self.parts.settings.checkpoint_interval
            && self.staged.is_empty()
            && !self.checkpoint()?
        {
            self.checkpointed = self.parts.edge.instant();
        }
        if self.since(self.gauged) >= GAUGES {
            self.gauged = self.parts.edge.instant();
            self.gauge();
        }
        Ok(())
    }

    /// Reads records until the transaction is due or full, or none comes.
    fn read(&mut self) -> Result<(), WorkerError> {
        let settings = Arc::clone(&self.parts.settings);
        let now_ms = self.parts.edge.now_ms();
        let began = self.parts.edge.instant();
        let mut wait = self.patience();
        while !self.staged.is_full(&self.rules) {
            let Some(record) = self.transactor.poll(wait)? else {
                break;
            };
            wait = Duration::ZERO;
            let Some(owned) = self.tasks.get_mut(&record.partition()) else {
                continue;
            };
            let raw = raw_record(&record);
            let view = &self.parts.view;
            owned
                .task
                .record(&raw, &self.rules, now_ms, view, &mut self.staged)?;
            drop(record);
            let crowded = self.staged.outputs().len() >= SEND_OUTPUTS
                || self.staged.staged_bytes() >= SEND_BYTES;
            if crowded {
                self.send()?;
                if self.since(began) >= settings.commit_interval {
                    break;
                }
            }
        }
        if !self.staged.is_empty() {
            self.opened.get_or_insert(began);
        }
        self.send()
    }

    /// How long the first poll of a round may wait.
    fn patience(&self) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        match self.opened {
            Some(at) => self
                .parts
                .settings
                .commit_interval
                .saturating_sub(self.since(at))
                .min(IDLE_POLL),
            None => IDLE_POLL,
        }
    }

    /// Releases and times out parked events.
    fn drive(&mut self) -> Result<(), WorkerError> {
        // IMPORTANT: the watermark is read before the look-ups that a time-out rests on.
        let watermark = self.parts.watermark.get();
        // One from the future was made before the clock stepped back, and says nothing of what is parked since.
        let now_ms = self.parts.edge.now_ms();
        let watermark = watermark.filter(|w| *w <= now_ms);
        let rules = &self.rules;
        self.more = false;
        for owned in self.tasks.values_mut() {
            self.more |= owned
                .task
                .drive(watermark, rules, &self.parts.view, &mut self.staged)?;
        }
        if !self.staged.is_empty() {
            self.opened.get_or_insert_with(|| self.parts.edge.instant());
        }
        self.send()
    }

    /// Hands staged outputs to the producer.
    fn send(&mut self) -> Result<(), WorkerError> {
        if self.staged.outputs().is_empty() {
            return Ok(());
        }
        let (settings, staged) = (&self.parts.settings, &self.staged);
        let records = staged
            .outputs()
            .iter()
            .map(|output| outgoing(settings, staged, output));
        self.transactor.send(records)?;
        self.staged.sent();
        Ok(())
    }

    /// Commits what is staged, then applies it.
    ///
    /// IMPORTANT: nothing reaches the store before the receipt. A crash in between leaves the store one transaction
    /// behind, which the barrier heals; the other order would leave it ahead of the log, which nothing heals.
    fn commit(&mut self) -> Result<(), WorkerError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let moved: Vec<(i32, Offset, Ledger)> = self
            .tasks
            .iter()
            .filter_map(|(partition, owned)| {
                let now = (owned.task.position(), owned.task.ledger());
                (now != owned.committed).then_some((*partition, now.0, now.1))
            })
            .collect();
        let receipt =
            self.transactor
                .commit(moved.iter().map(|(partition, position, ledger)| {
                    (*partition, position.0, ledger.to_string())
                }))?;
        self.apply(&receipt)?;
        for (partition, position, ledger) in moved {
            if let Some(owned) = self.tasks.get_mut(&partition) {
                owned.committed = (position, ledger);
                self.parts.metrics.set_ledger(Partition(partition), &ledger);
            }
        }
        self.count();
        self.staged.clear();
        self.opened = None;
        Ok(())
    }

    /// After a rebalance everything that is owned goes through the barrier: what was kept as well, if a transaction was
    /// aborted or the group's commits may have moved without this worker.
    fn follow_rebalances(&mut self) -> Result<(), WorkerError> {
        if self.transactor.member().has_changes() {
            self.transactor.settle()?;
        }
        let Some(changes) = self.transactor.changes() else {
            return Ok(());
        };
        tracing::info!(worker = self.parts.number, assigned = ?changes.assigned, revoked = ?changes.revoked, "rebalanced");
        self.drop_open();
        for partition in &changes.revoked {
            self.tasks.remove(partition);
            self.parts.restorer.forget(*partition);
            self.parts
                .metrics
                .forget_partition(&self.parts.settings.raw_topic, Partition(*partition));
            self.parts.health.forget(&component(*partition));
        }
        self.restore(changes.assigned)?;
        // In the group, perhaps without a partition; those that were assigned speak for themselves from here.
        self.parts.health.set_ready(&worker_name(self.parts.number));
        Ok(())
    }

    /// Sends partitions, with everything owned, through the barrier.
    fn restore(&mut self, mut partitions: Vec<i32>) -> Result<(), WorkerError> {
        let mut leases = BTreeMap::new();
        for (partition, owned) in std::mem::take(&mut self.tasks) {
            self.transactor.member().pause(partition)?;
            leases.insert(partition, owned.lease);
            partitions.push(partition);
        }
        for partition in &partitions {
            self.parts
                .health
                .set_restoring(&component(*partition), 0, 0);
        }
        self.parts.restorer.request(leases, &partitions);
        self.publish_ownership();
        Ok(())
    }

    /// Takes over what passed the barrier.
    fn take_restored(&mut self) -> Result<(), WorkerError> {
        while let Some(outcome) = self.parts.restorer.take() {
            let passed = match outcome {
                Err(BarrierError::CalledOff) => continue,
                outcome => outcome?,
            };
            let mut resumed = Vec::with_capacity(passed.len());
            for Passed { task, lease } in passed {
                let partition = task.partition();
                let committed = (task.position(), task.ledger());
                tracing::info!(worker = self.parts.number, %partition, position = %committed.0, parked = task.parked(), "restored");
                resumed.push((partition.0, committed.0.0));
                self.parts.metrics.set_ledger(partition, &committed.1);
                self.parts.health.set_ready(&component(partition.0));
                let owned = Owned {
                    task,
                    lease,
                    committed,
                };
                self.tasks.insert(partition.0, owned);
            }
            if let Err(error) = self.transactor.member().resume_at(&resumed) {
                // Brokers that do not answer now will answer later.
                tracing::warn!(%error, "reading does not start: through the barrier again");
                return self.restore(Vec::new());
            }
            self.publish_ownership();
        }
        Ok(())
    }

    /// Takes note of content rows that were written.
    fn take_arrivals(&mut self) {
        if self.parts.wakeups.take_overflow() {
            for owned in self.tasks.values_mut() {
                owned.task.wake_all();
            }
        }
        while let Some(id) = self.parts.wakeups.next() {
            for owned in self.tasks.values_mut() {
                owned.task.content_arrived(id);
            }
        }
    }

    /// The one way back after a failed transaction: nothing was applied, no transaction is open, and everything owned is
    /// built again from what was committed.
    fn recover(&mut self, outcome: Result<(), WorkerError>) -> Result<(), WorkerError> {
        let failure = match outcome {
            // The next round begins with what the rebalance changed.
            Err(WorkerError::Transactor(TransactorError::Producer(ProducerError::Interrupted))) => {
                return Ok(());
            }
            Err(WorkerError::Transactor(TransactorError::Producer(failure))) => failure,
            outcome => return outcome,
        };
        tracing::warn!(worker = self.parts.number, %failure, "starting over from what was committed");
        self.drop_open();
        if let ProducerError::TooLarge(why) = &failure {
            self.follow_limits(why)?;
        }
        match self.transactor.recover(&failure) {
            Err(ProducerError::Stopped) => return Ok(()),
            outcome => outcome?,
        }
        self.restore(Vec::new())
    }

    /// A topic takes less than was known: from here on what is too large for it is a dead letter. A refusal that what the
    /// topics say does not explain would come again for ever.
    fn follow_limits(&mut self, refusal: &str) -> Result<(), WorkerError> {
        let Some(limits) = self.parts.edge.limits() else {
            // Brokers that do not answer now will answer when the record is refused again.
            return Ok(());
        };
        if self.limits.replace(limits) == Some(limits) {
            return Err(WorkerError::Refused(refusal.to_owned()));
        }
        tracing::warn!(
            ?limits,
            "the topics take records of these sizes from now on"
        );
        self.rules.limits = limits.sizes();
        Ok(())
    }

    fn drop_open(&mut self) {
        self.staged.clear();
        self.opened = None;
        self.more = false;
    }

    fn publish_ownership(&self) {
        let restoring = self.parts.restorer.wanted();
        let partitions = self.tasks.keys().copied().chain(restoring).collect();
        self.parts.owned.set(self.parts.number, partitions);
    }

    fn gauge(&self) {
        let positions = self
            .tasks
            .iter()
            .map(|(partition, owned)| {
                // Markers behind the last record are no lag.
                let read = self.transactor.member().position(*partition);
                let position = owned.task.position().0;
                (*partition, read.unwrap_or(position).max(position))
            })
            .collect();
        self.parts.restorer.measure_lag(positions);
    }
}

/// A worker's name in the health of the process.
pub(super) fn worker_name(number: usize) -> String {
    format!("worker {number}")
}
