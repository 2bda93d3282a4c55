//! Reading a changelog: assigned partitions, committed records only, from a position to an end or without end.

use super::edge::LogReader;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a changelog cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChangelogError {
    /// The consumer failed for good.
    #[error("cannot read `{topic}`: {reason}")]
    Read {
        /// Topic.
        topic: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The position is gone from the log.
    #[error("`{0}` no longer holds the position to read from")]
    OutOfRange(String),
}

/// A read_committed reader of some partitions of one topic. It belongs to no group.
pub struct ChangelogReader {
    consumer: BaseConsumer,
    topic: String,
    starts: BTreeMap<i32, i64>,
}

impl ChangelogReader {
    /// Reads `topic` from the given offset of each partition.
    pub fn open(
        client: &ClientConfig,
        topic: &str,
        starts: BTreeMap<i32, i64>,
    ) -> Result<Self, ChangelogError> {
        let mut config = client.clone();
        config
            // librdkafka wants a group's name for its consumer queue; nothing is ever committed under it.
            .set("group.id", format!("{topic}-reader"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20");
        super::fetch_defaults(&mut config);
        let failed = |error: KafkaError| ChangelogError::Read {
            topic: topic.to_owned(),
            reason: error.to_string(),
        };
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in &starts {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            starts,
        })
    }
}

impl LogReader for ChangelogReader {
    type Record<'r> = BorrowedMessage<'r>;

    fn next(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, ChangelogError> {
        match self.consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Err(ChangelogError::OutOfRange(self.topic.clone()))
                }
                _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    Err(ChangelogError::Read {
                        topic: self.topic.clone(),
                        reason: error.to_string(),
                    })
                }
                _ => {
                    tracing::debug!(topic = %self.topic, %error, "reader notice");
                    Ok(None)
                }
            },
        }
    }

    fn positions(&self) -> BTreeMap<i32, i64> {
        let mut positions = self.starts.clone();
        if let Ok(list) = self.consumer.position() {
            for element in list.elements() {
                if let (Offset::Offset(offset), Some(position)) =
                    (element.offset(), positions.get_mut(&element.partition()))
                {
                    *position = offset.max(*position);
                }
            }
        }
        positions
    }
}
