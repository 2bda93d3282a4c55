//! A consumer-producer: a group member and the transactional producer that commits what the member read.

use super::edge::{Edge, GroupConsumer};
use super::member::{Changes, Member, MemberError, MemberSettings};
use super::producer::{Outgoing, ProducerError, ProducerSettings, Receipt, TransactionalProducer};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Why a consumer-producer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TransactorError {
    /// The consumer.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The producer.
    #[error(transparent)]
    Producer(#[from] ProducerError),
}

/// One thread's transactions. The lock is never held across a poll of the consumer, whose callbacks take it.
pub struct Transactor<E: Edge> {
    member: Member<E>,
    producer: Arc<Mutex<TransactionalProducer<E>>>,
    topic: String,
    metrics: Metrics,
}

impl<E: Edge> Transactor<E> {
    /// Fences predecessors, then joins the group.
    pub fn start(
        edge: E,
        producer: ProducerSettings,
        member: MemberSettings,
        metrics: Metrics,
    ) -> Result<Self, TransactorError> {
        let topic = member.topic.clone();
        let producer = TransactionalProducer::start(edge.clone(), producer)?;
        let producer = Arc::new(Mutex::new(producer));
        let member = Member::join(edge, member, Arc::clone(&producer))?;
        Ok(Self {
            member,
            producer,
            topic,
            metrics,
        })
    }

    /// The group member.
    pub fn member(&self) -> &Member<E> {
        &self.member
    }

    /// The next record of the member; serves delivery reports on the way.
    ///
    /// That the log no longer holds a position is no verdict yet: to a process that stood still others may have processed what
    /// it was about to read, and retention followed them. What was committed decides, and is read after the abort.
    pub fn poll(
        &self,
        timeout: Duration,
    ) -> Result<Option<<E::Consumer as GroupConsumer>::Record<'_>>, TransactorError> {
        match self.member().poll(timeout) {
            Err(error @ MemberError::OutOfRange(_)) => {
                Err(ProducerError::Abort(error.to_string()).into())
            }
            polled => Ok(polled?),
        }
    }

    /// What rebalances changed since the last call.
    pub fn changes(&self) -> Option<Changes> {
        self.member().changes()
    }

    /// Queues records in the open transaction, opening one if there is none.
    pub fn send<'a>(
        &self,
        records: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> Result<(), TransactorError> {
        self.uninterrupted()?;
        let mut producer = self.producer.lock();
        self.begin(&mut producer)?;
        for record in records {
            producer.send(record)?;
        }
        producer.poll();
        Ok(())
    }

    /// Commits the open transaction, or an empty one, with `(partition, position, metadata)` of what was read.
    pub fn commit(
        &self,
        positions: impl IntoIterator<Item = (i32, i64, String)>,
    ) -> Result<Receipt, TransactorError> {
        self.uninterrupted()?;
        let positions: Vec<_> = positions.into_iter().collect();
        if positions.is_empty() {
            // Without an offset send_offsets would succeed silently and fence nobody.
            return Err(ProducerError::Abort("nothing to commit".to_owned()).into());
        }
        let group = self
            .member()
            .group()
            .ok_or_else(|| ProducerError::Abort("not in the group yet".to_owned()))?;
        let mut producer = self.producer.lock();
        self.begin(&mut producer)?;
        let receipt = producer.commit(&self.topic, &positions, &group)?;
        if producer.is_suspect() {
            self.metrics.producers_replaced.hidden_retry.inc();
        }
        self.metrics.transactions.committed.inc();
        self.metrics
            .commit_seconds
            .observe(receipt.took().as_secs_f64());
        Ok(receipt)
    }

    /// IMPORTANT: between a rebalance, whose callback aborted the open transaction, and the caller's look at
    /// [`changes`](Self::changes) nothing may be sent or committed: the caller still holds what the aborted transaction
    /// had sent, and a new transaction would commit the offsets without the records.
    fn uninterrupted(&self) -> Result<(), ProducerError> {
        if self.member().has_changes() {
            return Err(ProducerError::Interrupted);
        }
        Ok(())
    }

    /// Opens a transaction, if none is open.
    fn begin(&self, producer: &mut TransactionalProducer<E>) -> Result<(), TransactorError> {
        if producer.is_open() {
            return Ok(());
        }
        if producer.is_suspect() {
            self.member().check_for_successor()?;
        }
        Ok(producer.begin()?)
    }

    /// Replaces the producer, unless a successor has its name: that one would be fenced, and start over for nothing.
    fn replace(&self, producer: &mut TransactionalProducer<E>) -> Result<(), TransactorError> {
        self.member().check_for_successor()?;
        Ok(producer.replace()?)
    }

    /// After a rebalance: replaces a producer whose abort may not have gone through. Its transaction would hold back the
    /// committed offsets that the barrier reads.
    pub fn settle(&self) -> Result<(), TransactorError> {
        let mut producer = self.producer.lock();
        if producer.is_suspect() {
            self.metrics.producers_replaced.hidden_retry.inc();
            self.replace(&mut producer)?;
        }
        Ok(())
    }

    /// Does what a failed call asked for. After it no transaction is open, and what was committed has to be read again.
    pub fn recover(&self, failure: &ProducerError) -> Result<(), TransactorError> {
        let mut producer = self.producer.lock();
        producer.abort();
        match failure {
            ProducerError::Stopped => return Err(ProducerError::Stopped.into()),
            ProducerError::Interrupted => return Ok(()),
            ProducerError::Abort(_) | ProducerError::AbortAndWait(_) => {
                self.metrics.transactions.aborted.inc();
                // An abort that did not go through leaves its transaction to the fence of the replacement.
                if !producer.is_suspect() {
                    return Ok(());
                }
                self.metrics.producers_replaced.hidden_retry.inc();
            }
            ProducerError::TooLarge(_) => {
                self.metrics.transactions.aborted.inc();
            }
            ProducerError::Replace(_) => {
                self.metrics.transactions.aborted.inc();
                self.metrics.producers_replaced.fatal.inc();
            }
            ProducerError::UnknownOutcome(_) => {
                self.metrics.transactions.unknown.inc();
                self.metrics.producers_replaced.unknown_outcome.inc();
            }
        }
        self.replace(&mut producer)
    }
}
