//! A member of a consumer group: static membership, cooperative rebalancing, and callbacks that do the least that is
//! correct.

use super::edge::{Edge, GroupConsumer, PollFailure};
use super::producer::TransactionalProducer;
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So long after it stood still a member is sure to know whether it still is one.
const AWAKE_AGAIN: Duration = Duration::from_secs(10);

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
    /// Set from outside when the group has to rebalance; the next poll sees to it.
    pub unsettle: Arc<AtomicBool>,
}

/// Why a member cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Another process joined under the same instance id.
    #[error("fenced: another process now runs as `{0}`")]
    Fenced(String),
    /// The log no longer holds the position.
    #[error("topic `{0}` does not hold the position to read from")]
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
    failure: Mutex<Option<PollFailure>>,
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
    ///
    /// IMPORTANT: to a process whose name a successor has, this stays unanswered. Once it is answered, librdkafka joins
    /// again under the name, and throws the successor out.
    pub fn revoked(&self, consumer: &E::Consumer, partitions: &[i32]) {
        if consumer.lost_to_successor() {
            self.failure.lock().get_or_insert(PollFailure::Fenced);
            return;
        }
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
            let mut failure = self.failure.lock();
            failure.get_or_insert(PollFailure::Fatal(reason));
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
    /// How often the subscription was changed so that the group rebalances.
    unsettled: AtomicU64,
    /// When the last poll returned.
    polled: Cell<Instant>,
    /// When it was last noticed that this process had stood still for about a session.
    stood_still: Cell<Option<Instant>>,
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
        let polled = edge.instant();
        Ok(Self {
            edge,
            consumer: Some(consumer),
            callbacks,
            settings,
            unsettled: AtomicU64::new(0),
            polled: Cell::new(polled),
            stood_still: Cell::new(None),
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
        if self.settings.unsettle.load(Ordering::Relaxed) {
            self.unsettle()?;
        }
        let polled = self.consumer().next(timeout);
        self.take_note_of_time();
        if let Some(failure) = self.callbacks.failure.lock().take() {
            return Err(self.failed(failure));
        }
        polled.map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: PollFailure) -> MemberError {
        match failure {
            PollFailure::Fenced => MemberError::Fenced(self.settings.instance.clone()),
            PollFailure::OutOfRange => MemberError::OutOfRange(self.settings.topic.clone()),
            PollFailure::Fatal(reason) => self.fatal(reason),
        }
    }

    fn unsettle(&self) -> Result<(), MemberError> {
        self.settings.unsettle.store(false, Ordering::Relaxed);
        let number = self.unsettled.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(instance = %self.settings.instance, "changing the subscription, so that the group rebalances");
        self.consumer()
            .subscribe_anew(number)
            .map_err(|reason| self.fatal(reason))
    }

    fn take_note_of_time(&self) {
        let now = self.edge.instant();
        let since = now.saturating_duration_since(self.polled.replace(now));
        if since > self.settings.session_timeout / 2 {
            self.stood_still.set(Some(now));
        }
    }

    /// Fails when another process is known to be a member under this one's name. Asked only if this one stood still for about
    /// a session not long ago; else nobody can have its name without its being told.
    pub fn check_for_successor(&self) -> Result<(), MemberError> {
        self.take_note_of_time();
        let stood_still = self.stood_still.get();
        let recently = stood_still.is_some_and(|at| self.edge.since(at) < AWAKE_AGAIN);
        if recently && self.consumer().has_successor() {
            return Err(self.failed(PollFailure::Fenced));
        }
        Ok(())
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
