//! THE loop: poll → process → commit → apply, on one thread that owns one group member and one transactional producer.

use super::error::WorkerError;
use super::lease::Lease;
use super::parts::WorkerParts;
use super::records::{outgoing, raw_record};
use crate::domain::{Ledger, Offset, Partition};
use crate::enricher::{Rules, Staged, Task};
use crate::health::Doing;
use crate::kafka::{Edge, TopicLimits, Transactor};
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
pub(super) const IDLE_POLL: Duration = Duration::from_millis(20);
/// How often lag and pending gauges are refreshed.
const GAUGES: Duration = Duration::from_secs(1);

/// A partition past its barrier.
pub(super) struct Owned {
    pub(super) task: Task,
    pub(super) lease: Lease,
    /// What this worker committed last.
    pub(super) committed: (Offset, Ledger),
}

/// One worker.
pub struct Worker<E: Edge> {
    pub(super) parts: WorkerParts<E>,
    pub(super) transactor: Transactor<E>,
    pub(super) tasks: BTreeMap<i32, Owned>,
    pub(super) staged: Staged,
    /// The step's rules; the limits in them follow the topics'.
    pub(super) rules: Rules,
    /// What the topics said when a record was refused last.
    pub(super) limits: Option<TopicLimits>,
    /// Misplaced records are told of now and then.
    pub(super) misplaced: Seldom,
    opened: Option<Instant>,
    /// Whether releases or time-outs are left over from the last transaction.
    more: bool,
    pub(super) writes: WriteSet,
    pub(super) scratch: Vec<u8>,
    gauged: Instant,
    checkpointed: Instant,
    /// Since when the next rebalance is waited for, as the group takes no offsets before it.
    pub(super) waiting: Option<Instant>,
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
            waiting: None,
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
    pub(super) fn since(&self, then: Instant) -> Duration {
        self.parts.edge.since(then)
    }

    /// One round of the loop.
    fn round(&mut self) -> Result<(), WorkerError> {
        self.doing(Doing::Rebalancing);
        self.follow_rebalances()?;
        if self.waits()? {
            return Ok(());
        }
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
        self.doing(Doing::Reading);
        let settings = Arc::clone(&self.parts.settings);
        let now_ms = self.parts.watermark.now_ms(&self.parts.edge);
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
        let watermark = self.parts.watermark.get(&self.parts.edge);
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
        self.doing(Doing::Sending);
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
        self.doing(Doing::Committing);
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

    /// Tells what the worker is at, should it get stuck there.
    pub(super) fn doing(&self, what: Doing) {
        self.parts.beat.doing(what);
    }

    pub(super) fn drop_open(&mut self) {
        self.staged.clear();
        self.opened = None;
        self.more = false;
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
