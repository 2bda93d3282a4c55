//! The consumer of a sink's group, and what a rebalance does: it takes partitions in, paused, and lets go of them only when
//! nothing is under way for them any more.

use super::held::Partitions;
use super::position::Position;
use crate::kafka::MemberSettings;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the request that wakes librdkafka's fetching thread is waited for.
const WAKE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a sink can no longer read.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Another process joined under the same instance id.
    #[error("fenced: another process now runs as `{instance}` in the group `{group}`")]
    Fenced {
        /// The group.
        group: String,
        /// `group.instance.id`.
        instance: String,
    },
    /// Any other fatal error of the consumer.
    #[error("the consumer of the group `{group}` failed: {reason}")]
    Failed {
        /// The group.
        group: String,
        /// librdkafka's words.
        reason: String,
    },
}

/// What one poll brought.
pub(super) enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    Nothing,
    /// The log no longer holds the position of some partition.
    OutOfRange,
}

/// Answers rebalances.
pub(super) struct Rebalancing {
    topic: String,
    partitions: Arc<Partitions>,
}

impl ClientContext for Rebalancing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        crate::kafka::log_line(level, facility, text);
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
        changed: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = changed
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect();
        let answered = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // A number, never a logical offset: a late answer to what that is would move the position after a seek. It does
            // not matter which: what is fetched from it before the pause is dropped, or is out of range.
            changed
                .set_all_offsets(Offset::Offset(0))
                .and_then(|()| consumer.incremental_assign(changed))
                .and_then(|()| consumer.pause(changed))
                .map(|()| self.partitions.assigned(&numbers))
        } else {
            let lost = consumer.assignment_lost();
            let delivered = self.partitions.revoke(&numbers, !lost);
            if !lost {
                commit(consumer, &self.topic, &delivered, CommitMode::Sync);
            }
            consumer.incremental_unassign(changed)
        };
        if let Err(error) = answered {
            tracing::warn!(%error, topic = self.topic, "a rebalance could not be answered");
        }
    }
}

/// Commits positions. A failure costs nothing but events that are delivered again, or asked for in vain.
fn commit(
    consumer: &BaseConsumer<Rebalancing>,
    topic: &str,
    positions: &BTreeMap<i32, Position>,
    mode: CommitMode,
) {
    if positions.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        let mut element = list.add_partition(topic, *partition);
        // Only an offset that is no number is refused.
        let _ = element.set_offset(Offset::Offset(position.next));
        element.set_metadata(position.metadata());
    }
    if let Err(error) = consumer.commit(&list, mode) {
        tracing::debug!(%error, topic, "positions were not committed");
    }
}

/// The member of a sink's group.
pub(super) struct Group {
    consumer: Option<BaseConsumer<Rebalancing>>,
    settings: MemberSettings,
}

impl Group {
    /// Subscribes. `partitions` is told of each rebalance from inside [`poll`](Self::poll).
    pub(super) fn join(
        client: &ClientConfig,
        settings: MemberSettings,
        partitions: Arc<Partitions>,
    ) -> Result<Self, GroupError> {
        let config = crate::kafka::member_config(client, &settings);
        let topic = settings.topic.clone();
        let context = Rebalancing { topic, partitions };
        let failed = |error: KafkaError| GroupError::Failed {
            group: settings.group.clone(),
            reason: error.to_string(),
        };
        let consumer: BaseConsumer<Rebalancing> =
            config.create_with_context(context).map_err(failed)?;
        consumer.subscribe(&[&settings.topic]).map_err(failed)?;
        Ok(Self {
            consumer: Some(consumer),
            settings,
        })
    }

    #[allow(clippy::expect_used, reason = "taken by the drop alone")]
    fn consumer(&self) -> &BaseConsumer<Rebalancing> {
        self.consumer.as_ref().expect("there until it is dropped")
    }

    /// The next record, or nothing within `timeout`.
    pub(super) fn poll(&self, timeout: Duration) -> Result<Polled<'_>, GroupError> {
        let error = match self.consumer().poll(timeout) {
            None => return Ok(Polled::Nothing),
            Some(Ok(record)) => return Ok(Polled::Record(record)),
            Some(Err(error)) => error,
        };
        let group = self.settings.group.clone();
        match (&error, error.rdkafka_error_code()) {
            (_, Some(RDKafkaErrorCode::FencedInstanceId)) => Err(GroupError::Fenced {
                group,
                instance: self.settings.instance.clone(),
            }),
            (_, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                Ok(Polled::OutOfRange)
            }
            (KafkaError::MessageConsumptionFatal(_), _) => Err(GroupError::Failed {
                group,
                reason: error.to_string(),
            }),
            // "All brokers down" and the like: the consumer reconnects by itself.
            _ => {
                tracing::debug!(group, %error, "consumer notice");
                Ok(Polled::Nothing)
            }
        }
    }

    fn one(&self, partition: i32, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        // Only an offset that is no number is refused.
        let _ = list.add_partition_offset(&self.settings.topic, partition, offset);
        list
    }

    /// Reads a partition on from an offset.
    pub(super) fn read_from(&self, partition: i32, offset: i64) -> Result<(), KafkaError> {
        let topic = &self.settings.topic;
        crate::kafka::read_partition_from(self.consumer(), topic, partition, offset)?;
        self.wake(partition);
        Ok(())
    }

    /// Stops reading a partition for now.
    pub(super) fn pause(&self, partition: i32) -> Result<(), KafkaError> {
        self.consumer().pause(&self.one(partition, Offset::Invalid))
    }

    /// Reads a partition on from where it was stopped.
    pub(super) fn resume(&self, partition: i32) -> Result<(), KafkaError> {
        self.consumer()
            .resume(&self.one(partition, Offset::Invalid))?;
        self.wake(partition);
        Ok(())
    }

    /// Resuming wakes nobody: librdkafka's thread of the leader sleeps for up to a second before it looks for partitions to
    /// fetch. Any request to the leader wakes it; that the question is answered does not matter.
    fn wake(&self, partition: i32) {
        let end = self.one(partition, Offset::End);
        let _ = self.consumer().offsets_for_times(end, WAKE_TIMEOUT);
    }

    /// The position of each partition: it moves over transaction markers, too.
    pub(super) fn positions(&self) -> BTreeMap<i32, i64> {
        let Ok(list) = self.consumer().position() else {
            return BTreeMap::new();
        };
        let known = list.elements();
        let known = known.iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        });
        known.collect()
    }

    /// Commits positions, without waiting for the answer.
    pub(super) fn commit(&self, positions: &BTreeMap<i32, Position>) {
        commit(
            self.consumer(),
            &self.settings.topic,
            positions,
            CommitMode::Async,
        );
    }

    /// Commits positions for the last time, and closes; brokers that do not answer are waited for only so long.
    pub(super) fn finish(mut self, positions: BTreeMap<i32, Position>) {
        if let Some(consumer) = self.consumer.take() {
            let topic = self.settings.topic.clone();
            crate::kafka::close_within_limit(move || {
                commit(&consumer, &topic, &positions, CommitMode::Sync);
            });
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            crate::kafka::close_within_limit(move || drop(consumer));
        }
    }
}
