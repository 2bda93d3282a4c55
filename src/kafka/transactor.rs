//! A consumer-producer: a group member and the transactional producer that commits what the member read.

use super::member::{Changes, Member, MemberError, MemberSettings};
use super::producer::{Outgoing, ProducerError, ProducerSettings, Receipt, TransactionalProducer};
use crate::metrics::Metrics;
use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

/// How long closing a consumer is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

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
pub struct Transactor {
    /// Taken by the drop alone.
    member: Option<Member>,
    producer: Arc<Mutex<TransactionalProducer>>,
    topic: String,
    metrics: Metrics,
}

impl Transactor {
    /// Fences predecessors, then joins the group.
    pub fn start(
        producer: ProducerSettings,
        member: MemberSettings,
        metrics: Metrics,
    ) -> Result<Self, TransactorError> {
        let topic = member.topic.clone();
        let producer = Arc::new(Mutex::new(TransactionalProducer::start(producer)?));
        let member = Some(Member::join(member, Arc::clone(&producer))?);
        Ok(Self {
            member,
            producer,
            topic,
            metrics,
        })
    }

    /// The group member.
    pub fn member(&self) -> &Member {
        match &self.member {
            Some(member) => member,
            None => unreachable!("the member is taken by the drop alone"),
        }
    }

    /// The next record of the member; serves delivery reports on the way.
    pub fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, MemberError> {
        self.member().poll(timeout)
    }

    /// What rebalances changed since the last call.
    pub fn changes(&self) -> Option<Changes> {
        self.member().changes()
    }

    /// Queues records in the open transaction, opening one if there is none.
    pub fn send<'a>(
        &self,
        records: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> Result<(), ProducerError> {
        self.uninterrupted()?;
        let mut producer = self.producer.lock();
        if !producer.is_open() {
            producer.begin()?;
        }
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
    ) -> Result<Receipt, ProducerError> {
        self.uninterrupted()?;
        let mut offsets = TopicPartitionList::new();
        for (partition, position, metadata) in positions {
            let mut element = offsets.add_partition(&self.topic, partition);
            element
                .set_offset(Offset::Offset(position))
                .map_err(|error| ProducerError::Abort(error.to_string()))?;
            element.set_metadata(metadata);
        }
        if offsets.count() == 0 {
            // Without an offset send_offsets would succeed silently and fence nobody.
            return Err(ProducerError::Abort("nothing to commit".to_owned()));
        }
        let group = self
            .member()
            .group()
            .ok_or_else(|| ProducerError::Abort("not in the group yet".to_owned()))?;
        let mut producer = self.producer.lock();
        if !producer.is_open() {
            producer.begin()?;
        }
        let receipt = producer.commit(&offsets, &group)?;
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

    /// After a rebalance: replaces a producer whose abort may not have gone through. Its transaction would hold back the
    /// committed offsets that the barrier reads.
    pub fn settle(&self) -> Result<(), ProducerError> {
        let mut producer = self.producer.lock();
        if producer.is_suspect() {
            self.metrics.producers_replaced.hidden_retry.inc();
            producer.replace()?;
        }
        Ok(())
    }

    /// Does what a failed call asked for. After it no transaction is open, and what was committed has to be read again.
    pub fn recover(&self, failure: &ProducerError) -> Result<(), ProducerError> {
        let mut producer = self.producer.lock();
        producer.abort();
        match failure {
            ProducerError::Stopped => return Err(ProducerError::Stopped),
            ProducerError::Interrupted => return Ok(()),
            ProducerError::Abort(_) => {
                self.metrics.transactions.aborted.inc();
                // An abort that did not go through leaves its transaction to the fence of the replacement.
                if !producer.is_suspect() {
                    return Ok(());
                }
                self.metrics.producers_replaced.hidden_retry.inc();
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
        producer.replace()
    }
}

impl Drop for Transactor {
    /// Closes the consumer, which lets a join that is under way end, but waits for that only so long: closing can hang for
    /// ever while an assignment is under way, when its revoke is answered to a group that has terminated already. The
    /// thread that hangs then ends with the process.
    fn drop(&mut self) {
        let Some(member) = self.member.take() else {
            return;
        };
        let (closing, closed) = crossbeam_channel::bounded::<()>(0);
        let close = move || {
            drop(member);
            drop(closing);
        };
        let name = "close".to_owned();
        if std::thread::Builder::new().name(name).spawn(close).is_ok()
            && closed.recv_timeout(CLOSE_LIMIT) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!(topic = %self.topic, "the consumer did not close within {CLOSE_LIMIT:?}; it is left behind");
        }
    }
}
