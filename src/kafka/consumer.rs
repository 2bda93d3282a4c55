//! The group member's calls, made to librdkafka.

use super::edge::{GroupConsumer, PollFailure};
use super::ffi;
use super::group::describe;
use super::member::{Callbacks, MemberSettings};
use super::real::Kafka;
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

/// How long the coordinator may take to say who the members are; a rebalance waits for it.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The member's client.
pub(super) type RealConsumer = BaseConsumer<Rebalancing>;

/// Hands librdkafka's callbacks on.
pub struct Rebalancing {
    callbacks: Arc<Callbacks<Kafka>>,
    group: String,
    instance: String,
    topic: String,
    /// The member id of the last assignment.
    member: Mutex<String>,
}

impl ClientContext for Rebalancing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        super::log_line(level, facility, text);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "consumer notice");
    }
}

impl ConsumerContext for Rebalancing {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = partitions
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.callbacks.assigned(consumer, &numbers);
        } else {
            self.callbacks.revoked(consumer, &numbers);
        }
    }
}

impl Rebalancing {
    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

/// How every member of a group here is set up: static, cooperative, reading what is committed, and committing by itself
/// nothing. A position that is gone is told, never skipped.
pub(crate) fn member_config(client: &ClientConfig, settings: &MemberSettings) -> ClientConfig {
    let mut config = client.clone();
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
    config
}

/// Subscribes.
pub(super) fn join(
    client: &ClientConfig,
    settings: &MemberSettings,
    callbacks: Arc<Callbacks<Kafka>>,
) -> Result<RealConsumer, KafkaError> {
    let config = member_config(client, settings);
    let rebalancing = Rebalancing {
        callbacks,
        group: settings.group.clone(),
        instance: settings.instance.clone(),
        topic: settings.topic.clone(),
        member: Mutex::default(),
    };
    let consumer: RealConsumer = config.create_with_context(rebalancing)?;
    consumer.subscribe(&[&settings.topic])?;
    Ok(consumer)
}

/// Tells a notice from an end. "All brokers down" and the like are notices: the consumer reconnects by itself.
fn judge(topic: &str, error: &KafkaError) -> Result<(), PollFailure> {
    match (error, error.rdkafka_error_code()) {
        (_, Some(RDKafkaErrorCode::FencedInstanceId)) => Err(PollFailure::Fenced),
        (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
            Err(PollFailure::OutOfRange)
        }
        (KafkaError::MessageConsumptionFatal(_), _) => Err(PollFailure::Fatal(error.to_string())),
        _ => {
            tracing::debug!(%topic, %error, "consumer notice");
            Ok(())
        }
    }
}

/// Reads one partition on from an offset.
pub(crate) fn read_partition_from<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    let sought = consumer.seek(topic, partition, Offset::Offset(offset), SEEK_TIMEOUT);
    if sought.is_ok() {
        return consumer.resume(&list);
    }
    // A partition whose position was out of range is stopped for good, and cannot seek: taken in anew it can be read. Where
    // the seek failed because it was revoked meanwhile, this fails as well.
    consumer.incremental_unassign(&list)?;
    consumer.incremental_assign(&list)?;
    // A pause outlives that.
    consumer.resume(&list)
}

impl GroupConsumer for RealConsumer {
    type Group = ConsumerGroupMetadata;
    type Record<'r> = BorrowedMessage<'r>;

    fn next(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, PollFailure> {
        match self.poll(timeout) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(error)) => judge(&self.context().topic, &error).map(|()| None),
        }
    }

    fn group(&self) -> Option<ConsumerGroupMetadata> {
        self.group_metadata()
    }

    fn add(&self, partitions: &[i32]) -> Result<(), String> {
        let mut list = self.context().list(partitions);
        *self.context().member.lock() = ffi::member_id(self.client());
        // IMPORTANT: a number, never a logical offset such as the end. librdkafka asks the broker what that is, and when the
        // answer comes after the pause or a later seek it asks again half a second later and goes there, whatever was
        // sought meanwhile: the records in between would never be read. The number itself does not matter: an answer to a fetch
        // from before the pause is dropped, and where the log begins later than the number, the position is out of range, which
        // the barrier heals.
        list.set_all_offsets(Offset::Offset(0))
            .and_then(|()| self.incremental_assign(&list))
            .and_then(|()| self.pause(&list))
            .map_err(|error| error.to_string())
    }

    fn remove(&self, partitions: &[i32]) -> Result<(), String> {
        self.incremental_unassign(&self.context().list(partitions))
            .map_err(|error| error.to_string())
    }

    fn stop_reading(&self, partition: i32) -> Result<(), String> {
        self.pause(&self.context().list(&[partition]))
            .map_err(|error| error.to_string())
    }

    fn read_from(&self, positions: &[(i32, i64)]) -> Result<(), String> {
        let context = self.context();
        let topic = &context.topic;
        let mut resumed = TopicPartitionList::with_capacity(positions.len());
        for (partition, offset) in positions {
            read_partition_from(self, topic, *partition, *offset)
                .and_then(|()| resumed.add_partition_offset(topic, *partition, Offset::End))
                .map_err(|error| format!("partition {partition}: {error}"))?;
        }
        // Resuming wakes nobody: librdkafka's thread of the leader sleeps for up to a second before it looks for partitions
        // to fetch. Any request to the leader wakes it; that the question is answered does not matter.
        let _ = self.offsets_for_times(resumed, WAKE_TIMEOUT);
        Ok(())
    }

    /// A member whose session ran out while it stood still forgets its id and joins again by its name, which would throw a
    /// successor out. It does so only once the loss of its partitions is answered, or at once if it has none. So what the
    /// group lists can be judged while the id is still that of the last assignment, or the loss is not answered yet;
    /// otherwise the stranger may be this process itself.
    fn has_successor(&self) -> bool {
        let member = self.context().member.lock().clone();
        let is_sure = self.assignment_lost() || member == ffi::member_id(self.client());
        if member.is_empty() || !is_sure {
            return false;
        }
        match describe(self.client(), &self.context().group, DESCRIBE_TIMEOUT) {
            Ok(group) => group
                .members
                .iter()
                .any(|other| other.instance == self.context().instance && other.id != member),
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether there is a successor: going on without one");
                false
            }
        }
    }

    fn lost_to_successor(&self) -> bool {
        self.assignment_lost() && self.has_successor()
    }

    fn subscribe_anew(&self, number: u64) -> Result<(), String> {
        let topic = &self.context().topic;
        // No such topic exists, nor is one made: a consumer's metadata requests do not create topics here.
        let nothing = format!("{topic}.nobody-owns-{number}");
        self.subscribe(&[topic, &nothing])
            .map_err(|error| error.to_string())
    }

    fn position_of(&self, partition: i32) -> Option<i64> {
        let positions = self.position().ok()?;
        let element = positions.find_partition(&self.context().topic, partition)?;
        match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}
