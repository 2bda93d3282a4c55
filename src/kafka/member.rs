//! A member of a consumer group: static membership, cooperative rebalancing, and callbacks that do the least that is
//! correct.

use super::producer::TransactionalProducer;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

/// How long a seek may take.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the request that wakes librdkafka's fetching thread is waited for.
const WAKE_TIMEOUT: Duration = Duration::from_millis(500);

/// How to join a group.
#[derive(Clone)]
pub struct MemberSettings {
    /// Bootstrap servers and the user's own properties.
    pub client: ClientConfig,
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

/// The callbacks' side of a member.
struct Callbacks {
    producer: Arc<Mutex<TransactionalProducer>>,
    changes: Mutex<Option<Changes>>,
    group: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    failure: Mutex<Option<String>>,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        super::log_line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "consumer notice");
    }
}

impl ConsumerContext for Callbacks {
    /// IMPORTANT: the order. First the open transaction is aborted: its offsets belong to the old generation. Then the
    /// group's metadata is taken, once, for every transaction until the next callback: librdkafka can slip from an expired
    /// membership into a new one without a revoke, and metadata fetched later would vouch for partitions that another
    /// member owns. Then the partitions are added, paused: none is read before its restore barrier.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let mut producer = self.producer.lock();
        let aborted = producer.is_open();
        producer.abort();
        drop(producer);
        let numbers: Vec<i32> = partitions
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let mut pending = self.changes.lock();
        let changes = pending.get_or_insert_default();
        changes.aborted |= aborted;
        let outcome = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            *self.group.lock() = consumer.group_metadata().map(Arc::new);
            changes.assigned.extend(&numbers);
            // The end is a place from which nothing is fetched before the pause below takes hold.
            partitions
                .set_all_offsets(Offset::End)
                .and_then(|()| consumer.incremental_assign(partitions))
                .and_then(|()| consumer.pause(partitions))
        } else {
            changes
                .assigned
                .retain(|partition| !numbers.contains(partition));
            changes.revoked.extend(&numbers);
            consumer.incremental_unassign(partitions)
        };
        drop(pending);
        if let Err(error) = outcome {
            self.failure.lock().get_or_insert(error.to_string());
        }
    }
}

/// One member of a group that reads one topic.
pub struct Member {
    consumer: BaseConsumer<Callbacks>,
    settings: MemberSettings,
}

impl Member {
    /// Subscribes. The producer's open transaction is aborted by each rebalance.
    pub fn join(
        settings: MemberSettings,
        producer: Arc<Mutex<TransactionalProducer>>,
    ) -> Result<Self, MemberError> {
        let fatal = |error: KafkaError| MemberError::Fatal {
            topic: settings.topic.clone(),
            reason: error.to_string(),
        };
        let mut config = settings.client.clone();
        config
            .set("group.id", &settings.group)
            .set("group.instance.id", &settings.instance)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set(
                "session.timeout.ms",
                settings.session_timeout.as_millis().to_string(),
            )
            .set(
                "heartbeat.interval.ms",
                settings.heartbeat.as_millis().to_string(),
            )
            .set(
                "max.poll.interval.ms",
                settings.max_poll_interval.as_millis().to_string(),
            )
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false");
        super::fetch_defaults(&mut config);
        let callbacks = Callbacks {
            producer,
            changes: Mutex::new(None),
            group: Mutex::new(None),
            failure: Mutex::new(None),
        };
        let consumer: BaseConsumer<Callbacks> =
            config.create_with_context(callbacks).map_err(fatal)?;
        consumer.subscribe(&[&settings.topic]).map_err(fatal)?;
        Ok(Self { consumer, settings })
    }

    /// The next record, or nothing within `timeout`. Rebalances happen inside; [`changes`](Self::changes) tells of them.
    pub fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, MemberError> {
        let polled = self.consumer.poll(timeout);
        if let Some(reason) = self.consumer.context().failure.lock().take() {
            return Err(self.fatal(reason));
        }
        match polled {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(error)) => self.judge(&error).map(|()| None),
        }
    }

    /// What rebalances changed since the last call.
    pub fn changes(&self) -> Option<Changes> {
        self.consumer.context().changes.lock().take()
    }

    /// Whether a rebalance happened that [`changes`](Self::changes) has not told of yet.
    pub fn has_changes(&self) -> bool {
        self.consumer.context().changes.lock().is_some()
    }

    /// The group's metadata as the last assignment left it.
    pub fn group(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer.context().group.lock().clone()
    }

    /// Reads on from these offsets, after a barrier.
    pub fn resume_at(&self, positions: &[(i32, i64)]) -> Result<(), MemberError> {
        if positions.is_empty() {
            return Ok(());
        }
        let topic = &self.settings.topic;
        let mut resumed = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            self.consumer
                .seek(topic, *partition, Offset::Offset(*offset), SEEK_TIMEOUT)
                .and_then(|()| self.consumer.resume(&self.one(*partition)))
                .and_then(|()| resumed.add_partition_offset(topic, *partition, Offset::End))
                .map_err(|error| self.fatal(format!("partition {partition}: {error}")))?;
        }
        // Resuming wakes nobody: librdkafka's thread of the leader sleeps for up to a second before it looks for partitions
        // to fetch. Any request to the leader wakes it; that the question is answered does not matter.
        let _ = self.consumer.offsets_for_times(resumed, WAKE_TIMEOUT);
        Ok(())
    }

    /// Stops reading until the next [`resume_at`](Self::resume_at).
    pub fn pause(&self, partition: i32) -> Result<(), MemberError> {
        self.consumer
            .pause(&self.one(partition))
            .map_err(|error| self.fatal(error.to_string()))
    }

    /// The position of a partition: it moves over transaction markers too. `None` before the first record.
    pub fn position(&self, partition: i32) -> Option<i64> {
        let positions = self.consumer.position().ok()?;
        let element = positions.find_partition(&self.settings.topic, partition)?;
        match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    fn one(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.settings.topic, partition);
        list
    }

    fn fatal(&self, reason: impl Into<String>) -> MemberError {
        MemberError::Fatal {
            topic: self.settings.topic.clone(),
            reason: reason.into(),
        }
    }

    /// Tells a notice from an end. "All brokers down" and the like are notices: the consumer reconnects by itself.
    fn judge(&self, error: &KafkaError) -> Result<(), MemberError> {
        let code = error.rdkafka_error_code();
        match (error, code) {
            (_, Some(RDKafkaErrorCode::FencedInstanceId)) => {
                Err(MemberError::Fenced(self.settings.instance.clone()))
            }
            (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                Err(MemberError::OutOfRange(self.settings.topic.clone()))
            }
            (KafkaError::MessageConsumptionFatal(_), _) => Err(self.fatal(error.to_string())),
            _ => {
                tracing::debug!(topic = %self.settings.topic, %error, "consumer notice");
                Ok(())
            }
        }
    }
}
