//! A member of a consumer group: static membership, cooperative rebalancing, and callbacks that do the least that is
//! correct.

use super::edge::{Edge, GroupConsumer, PollFailure};
use super::producer::TransactionalProducer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How to join a group.
#[derive(Clone)]
pub struct MemberSettings {
    /// `group.id`.
    pub group: String,
    /// `group.instance.id`: the same as the producer's transactional id, so that a successor fences both.
    pub instance: String,
    /// The one topic of the group.
    pub topic: String,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
}

/// Why a member cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Another process joined under the same instance id.
    #[error("fenced: another process now runs as `{0}`")]
    Fenced(String),
    /// The log no longer holds the position.
    #[error(
        "topic `{0}` does not hold the position to read from: records were deleted before they were processed"
    )]
    OutOfRange(String),
    /// Any other fatal error of the consumer.
    #[error("the consumer of `{topic}` failed: {reason}")]
    Fatal {
        /// Topic.
        topic: String,
        /// librdkafka's words.
        reason: String,
    },
}

/// What rebalances changed since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Partitions that were added, paused.
    pub assigned: Vec<i32>,
    /// Partitions that were taken away.
    pub revoked: Vec<i32>,
    /// Whether an open transaction was aborted by a callback.
    pub aborted: bool,
}

/// The callbacks' side of a member. They are called from inside a poll.
pub struct Callbacks<E: Edge> {
    producer: Arc<Mutex<TransactionalProducer<E>>>,
    changes: Mutex<Option<Changes>>,
    group: Mutex<Option<Arc<E::Group>>>,
    failure: Mutex<Option<String>>,
}

impl<E: Edge> Callbacks<E> {
    /// Partitions, perhaps none, are to be added.
    ///
    /// IMPORTANT: the order. First the open transaction is aborted: its offsets belong to the old generation. Then the
    /// group's metadata is taken, once, for every transaction until the next callback: librdkafka can slip from an expired
    /// membership into a new one without a revoke, and metadata fetched later would vouch for partitions that another
    /// member owns. Then the partitions are added, paused: none is read before its restore barrier.
    pub fn assigned(&self, consumer: &E::Consumer, partitions: &[i32]) {
        let aborted = self.abort();
        let mut pending = self.changes.lock();
        let changes = pending.get_or_insert_default();
        changes.aborted |= aborted;
        *self.group.lock() = consumer.group().map(Arc::new);
        changes.assigned.extend(partitions);
        let outcome = consumer.add(partitions);
        drop(pending);
        self.note(outcome);
    }

    /// Partitions are to be taken away.
    pub fn revoked(&self, consumer: &E::Consumer, partitions: &[i32]) {
        let aborted = self.abort();
        let mut pending = self.changes.lock();
        let changes = pending.get_or_insert_default();
        changes.aborted |= aborted;
        changes
            .assigned
            .retain(|partition| !partitions.contains(partition));
        changes.revoked.extend(partitions);
        let outcome = consumer.remove(partitions);
        drop(pending);
        self.note(outcome);
    }

    /// Aborts the open transaction; says whether there was one.
    fn abort(&self) -> bool {
        let mut producer = self.producer.lock();
        let aborted = producer.is_open();
        producer.abort();
        aborted
    }

    fn note(&self, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.failure.lock().get_or_insert(reason);
        }
    }
}

/// One member of a group that reads one topic.
pub struct Member<E: Edge> {
    edge: E,
    /// Taken by the drop alone.
    consumer: Option<E::Consumer>,
    callbacks: Arc<Callbacks<E>>,
    settings: MemberSettings,
}

impl<E: Edge> Member<E> {
    /// Subscribes. The producer's open transaction is aborted by each rebalance.
    pub fn join(
        edge: E,
        settings: MemberSettings,
        producer: Arc<Mutex<TransactionalProducer<E>>>,
    ) -> Result<Self, MemberError> {
        let callbacks = Arc::new(Callbacks {
            producer,
            changes: Mutex::new(None),
            group: Mutex::new(None),
            failure: Mutex::new(None),
        });
        let consumer = edge
            .join(&settings, Arc::clone(&callbacks))
            .map_err(|reason| MemberError::Fatal {
                topic: settings.topic.clone(),
                reason,
            })?;
        Ok(Self {
            edge,
            consumer: Some(consumer),
            callbacks,
            settings,
        })
    }

    fn consumer(&self) -> &E::Consumer {
        match &self.consumer {
            Some(consumer) => consumer,
            None => unreachable!("the consumer is taken by the drop alone"),
        }
    }

    /// The next record, or nothing within `timeout`. Rebalances happen inside; [`changes`](Self::changes) tells of them.
    pub fn poll(
        &self,
        timeout: Duration,
    ) -> Result<Option<<E::Consumer as GroupConsumer>::Record<'_>>, MemberError> {
        let polled = self.consumer().next(timeout);
        if let Some(reason) = self.callbacks.failure.lock().take() {
            return Err(self.fatal(reason));
        }
        polled.map_err(|failure| match failure {
            PollFailure::Fenced => MemberError::Fenced(self.settings.instance.clone()),
            PollFailure::OutOfRange => MemberError::OutOfRange(self.settings.topic.clone()),
            PollFailure::Fatal(reason) => self.fatal(reason),
        })
    }

    /// What rebalances changed since the last call.
    pub fn changes(&self) -> Option<Changes> {
        self.callbacks.changes.lock().take()
    }

    /// Whether a rebalance happened that [`changes`](Self::changes) has not told of yet.
    pub fn has_changes(&self) -> bool {
        self.callbacks.changes.lock().is_some()
    }

    /// The group's metadata as the last assignment left it.
    pub fn group(&self) -> Option<Arc<E::Group>> {
        self.callbacks.group.lock().clone()
    }

    /// Reads on from these offsets, after a barrier.
    pub fn resume_at(&self, positions: &[(i32, i64)]) -> Result<(), MemberError> {
        if positions.is_empty() {
            return Ok(());
        }
        self.consumer()
            .read_from(positions)
            .map_err(|reason| self.fatal(reason))
    }

    /// Stops reading until the next [`resume_at`](Self::resume_at).
    pub fn pause(&self, partition: i32) -> Result<(), MemberError> {
        self.consumer()
            .stop_reading(partition)
            .map_err(|reason| self.fatal(reason))
    }

    /// The position of a partition: it moves over transaction markers too. `None` before the first record.
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.consumer().position_of(partition)
    }

    fn fatal(&self, reason: String) -> MemberError {
        MemberError::Fatal {
            topic: self.settings.topic.clone(),
            reason,
        }
    }
}

impl<E: Edge> Drop for Member<E> {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.edge.close(consumer);
        }
    }
}
