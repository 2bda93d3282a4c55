//! What a rebalance or a failure changes: partitions come and go, and whatever is owned is built again from what was
//! committed.

use super::barrier::{BarrierError, Passed, component};
use super::error::WorkerError;
use super::worker::{IDLE_POLL, Owned, Worker, worker_name};
use crate::domain::Partition;
use crate::health::Doing;
use crate::kafka::{Edge, ProducerError, TransactorError};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the next rebalance is waited for after the group refused offsets; then the worker tries again.
const MOVED_ON_WAIT: Duration = Duration::from_secs(10);

impl<E: Edge> Worker<E> {
    /// After a rebalance everything that is owned goes through the barrier: what was kept as well, if a transaction was
    /// aborted or the group's commits may have moved without this worker.
    pub(super) fn follow_rebalances(&mut self) -> Result<(), WorkerError> {
        if self.transactor.member().has_changes() {
            self.transactor.settle()?;
        }
        let Some(changes) = self.transactor.changes() else {
            return Ok(());
        };
        tracing::info!(worker = self.parts.number, assigned = ?changes.assigned, revoked = ?changes.revoked, "rebalanced");
        self.drop_open();
        self.waiting = None;
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

    /// Whether the next rebalance is waited for. What was fetched meanwhile is read again after it.
    pub(super) fn waits(&mut self) -> Result<bool, WorkerError> {
        let Some(since) = self.waiting else {
            return Ok(false);
        };
        if self.since(since) < MOVED_ON_WAIT {
            self.transactor.poll(IDLE_POLL)?;
            return Ok(true);
        }
        tracing::warn!(
            worker = self.parts.number,
            "no rebalance came within {MOVED_ON_WAIT:?}: trying again"
        );
        self.waiting = None;
        self.restore(Vec::new())?;
        Ok(false)
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
    pub(super) fn take_restored(&mut self) -> Result<(), WorkerError> {
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

    /// The one way back after a failed transaction: nothing was applied, no transaction is open, and everything owned is
    /// built again from what was committed.
    pub(super) fn recover(&mut self, outcome: Result<(), WorkerError>) -> Result<(), WorkerError> {
        let failure = match outcome {
            // The next round begins with what the rebalance changed.
            Err(WorkerError::Transactor(TransactorError::Producer(ProducerError::Interrupted))) => {
                return Ok(());
            }
            Err(WorkerError::Transactor(TransactorError::Producer(failure))) => failure,
            outcome => return outcome,
        };
        tracing::warn!(worker = self.parts.number, %failure, "starting over from what was committed");
        self.doing(Doing::Recovering);
        self.drop_open();
        if let ProducerError::TooLarge(why) = &failure {
            self.follow_limits(why)?;
        }
        match self.transactor.recover(&failure) {
            Err(TransactorError::Producer(ProducerError::Stopped)) => return Ok(()),
            outcome => outcome?,
        }
        if matches!(failure, ProducerError::AbortAndWait(_)) {
            // What is owned goes through the barrier after the rebalance; to do so now, and again and again until then,
            // would be work for nothing.
            for partition in self.tasks.keys() {
                self.transactor.member().pause(*partition)?;
            }
            self.waiting = Some(self.parts.edge.instant());
            return Ok(());
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

    fn publish_ownership(&self) {
        let restoring = self.parts.restorer.wanted();
        let partitions = self.tasks.keys().copied().chain(restoring).collect();
        self.parts.owned.set(self.parts.number, partitions);
    }
}
