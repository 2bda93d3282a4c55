//! The enriched topic as the follower reads it: assigned partitions, committed records only, no group.

use crate::kafka::look_for_leaders;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one question to the brokers may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Unless the user set his own: a short queue, as what waits there only takes memory, and no second of silence when it is full.
const FETCH: [(&str, &str); 2] = [
    ("queued.min.messages", "5000"),
    ("fetch.queue.backoff.ms", "20"),
];

/// Why the topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The position is gone from the log.
    #[error("the enriched topic no longer holds the position to read from")]
    OutOfRange,
    /// A call failed.
    #[error("cannot {what} of the enriched topic: {reason}")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// What librdkafka said.
        reason: String,
    },
}

impl LogError {
    fn of(what: &'static str) -> impl Fn(KafkaError) -> Self {
        move |error| Self::Call {
            what,
            reason: error.to_string(),
        }
    }
}

pub(super) struct Log {
    consumer: BaseConsumer,
    topic: String,
}

impl Log {
    pub(super) fn open(client: &ClientConfig, topic: &str) -> Result<Self, LogError> {
        let mut config = client.clone();
        config
            // librdkafka wants a group's name for its consumer queue; nothing is ever committed under it.
            .set("group.id", format!("{topic}-recent"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        for (key, value) in FETCH {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        Ok(Self {
            consumer: config.create().map_err(LogError::of("make a consumer"))?,
            topic: topic.to_owned(),
        })
    }

    /// Reads exactly these partitions, each from its offset.
    pub(super) fn assign(&self, starts: &BTreeMap<i32, i64>) -> Result<(), LogError> {
        let what = "begin to read partitions";
        let mut list = TopicPartitionList::new();
        for (partition, offset) in starts {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))
                .map_err(LogError::of(what))?;
        }
        self.consumer.assign(&list).map_err(LogError::of(what))
    }

    /// The next committed record, or nothing within `timeout`.
    pub(super) fn poll(&self, timeout: Duration) -> Result<Option<BorrowedMessage<'_>>, LogError> {
        match self.consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Err(LogError::OutOfRange)
                }
                _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    Err(LogError::of("read on")(error))
                }
                // Everything else is a notice: librdkafka reconnects and goes on by itself.
                _ => {
                    tracing::debug!(topic = %self.topic, %error, "notice while following");
                    Ok(None)
                }
            },
        }
    }

    /// The next offset of each partition that was read from; it moves over transaction markers.
    pub(super) fn positions(&self) -> BTreeMap<i32, i64> {
        let Ok(list) = self.consumer.position() else {
            return BTreeMap::new();
        };
        list.elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect()
    }

    /// The last stable offset of each partition.
    pub(super) fn ends(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, LogError> {
        self.at(partitions, Offset::End)
    }

    /// Log start and last stable offset of each partition.
    pub(super) fn bounds(&self, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>, LogError> {
        let ends = self.at(partitions, Offset::End)?;
        let starts = self.at(partitions, Offset::Beginning)?;
        Ok(starts
            .into_iter()
            .filter_map(|(partition, start)| Some((partition, (start, *ends.get(&partition)?))))
            .collect())
    }

    /// One request to each leader, whatever the number of partitions: the protocol's special timestamps for start and end
    /// are the numbers of librdkafka's logical offsets.
    fn at(&self, partitions: &[i32], place: Offset) -> Result<BTreeMap<i32, i64>, LogError> {
        let what = "ask for start and end";
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, place)
                .map_err(LogError::of(what))?;
        }
        let answered = self
            .consumer
            .offsets_for_times(list, ASK_TIMEOUT)
            .map_err(LogError::of(what))
            .and_then(|list| {
                let elements = list.elements();
                let places = elements.iter().map(|element| {
                    element.error().map_err(LogError::of(what))?;
                    match element.offset() {
                        Offset::Offset(offset) => Ok((element.partition(), offset)),
                        other => Err(LogError::Call {
                            what,
                            reason: format!("the brokers answered {other:?}"),
                        }),
                    }
                });
                places.collect()
            });
        if answered.is_err() {
            look_for_leaders(&self.consumer, &self.topic);
        }
        answered
    }
}
