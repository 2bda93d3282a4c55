//! Where logs begin and end, and what a group has committed.

use super::edge::Offsets;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one question to the brokers may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the look for leaders may take that follows a question without an answer.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a question about offsets got no answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} of `{subject}`: {reason}")]
pub struct OffsetsError {
    what: &'static str,
    subject: String,
    reason: String,
}

/// What a group committed for one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The position; `None` when nothing was committed.
    pub offset: Option<i64>,
    /// The metadata beside it, where the ledger rides.
    pub metadata: String,
}

/// Which end of a log is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The last stable offset: behind it every transaction is decided.
    Committed,
    /// The high watermark: open transactions and markers included.
    Uncommitted,
}

/// A client that only asks. It never subscribes, so it is no member of the group whose commits it reads.
pub struct OffsetReader {
    consumer: BaseConsumer,
}

impl OffsetsError {
    /// `what` of `subject` cannot be read.
    pub fn new(what: &'static str, subject: &str, reason: impl std::fmt::Display) -> Self {
        Self {
            what,
            subject: subject.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl OffsetReader {
    /// `group` is the group whose commits are read. Only a read_committed reader makes librdkafka ask for stable offsets,
    /// and only a read_uncommitted one sees the true end of a log beside an open transaction.
    pub fn new(
        client: &ClientConfig,
        group: &str,
        isolation: Isolation,
    ) -> Result<Self, OffsetsError> {
        let mut config = client.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set(
                "isolation.level",
                match isolation {
                    Isolation::Committed => "read_committed",
                    Isolation::Uncommitted => "read_uncommitted",
                },
            );
        let consumer = config
            .create()
            .map_err(|error| OffsetsError::new("offsets", group, error))?;
        Ok(Self { consumer })
    }

    /// One ListOffsets request for each leader, whatever the number of partitions. The protocol's special timestamps for
    /// the start and the end are the same numbers as librdkafka's logical offsets.
    fn at(
        &self,
        topic: &str,
        partitions: &[i32],
        place: Offset,
    ) -> Result<BTreeMap<i32, i64>, OffsetsError> {
        let what = "log start and end";
        let list = listed(topic, partitions.iter().copied(), place)
            .map_err(|error| OffsetsError::new(what, topic, error))?;
        if list.count() == 0 {
            // librdkafka refuses an empty question.
            return Ok(BTreeMap::new());
        }
        let mut asked = self.consumer.offsets_for_times(list.clone(), ASK_TIMEOUT);
        if asked.as_ref().is_ok_and(any_failed) || asked.as_ref().is_err_and(came_at_once) {
            look_for_leaders(&self.consumer, topic);
            asked = self.consumer.offsets_for_times(list, ASK_TIMEOUT);
        }
        let list = asked.map_err(|error| OffsetsError::new(what, topic, error))?;
        let elements = list.elements();
        elements
            .iter()
            .map(|element| place_of(topic, element))
            .collect()
    }

    /// The client behind this reader, for admin requests.
    pub(crate) fn client(
        &self,
    ) -> &rdkafka::client::Client<rdkafka::consumer::DefaultConsumerContext> {
        self.consumer.client()
    }
}

impl Offsets for OffsetReader {
    fn committed(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, Committed>, OffsetsError> {
        let what = "committed offsets";
        let list = listed(topic, partitions, Offset::Invalid)
            .map_err(|error| OffsetsError::new(what, topic, error))?;
        if list.count() == 0 {
            return Ok(BTreeMap::new());
        }
        let list = self
            .consumer
            .committed_offsets(list, ASK_TIMEOUT)
            .map_err(|error| OffsetsError::new(what, topic, error))?;
        list.elements()
            .iter()
            .map(|element| {
                element
                    .error()
                    .map_err(|error| OffsetsError::new(what, topic, error))?;
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                let metadata = element.metadata().to_owned();
                Ok((element.partition(), Committed { offset, metadata }))
            })
            .collect()
    }

    fn bounds(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, (i64, i64)>, OffsetsError> {
        let partitions: Vec<i32> = partitions.into_iter().collect();
        let starts = self.at(topic, &partitions, Offset::Beginning)?;
        let ends = self.at(topic, &partitions, Offset::End)?;
        Ok(starts
            .into_iter()
            .filter_map(|(partition, start)| Some((partition, (start, *ends.get(&partition)?))))
            .collect())
    }

    fn ends(&self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, OffsetsError> {
        self.at(topic, partitions, Offset::End)
    }
}

fn any_failed(list: &TopicPartitionList) -> bool {
    let elements = list.elements();
    elements.iter().any(|element| element.error().is_err())
}

/// Whether an error came before the time was up: then a second question has its time, too.
fn came_at_once(error: &KafkaError) -> bool {
    error.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut)
}

/// Has a client find out who leads a topic's partitions.
///
/// Without it a client that once saw a partition without a leader, or another one, answers every further question with that,
/// from memory, until its metadata is refreshed after minutes.
pub(crate) fn look_for_leaders(consumer: &BaseConsumer, topic: &str) {
    // That nobody answers is no news to the caller, who asks again.
    let _ = consumer.fetch_metadata(Some(topic), LEADERS_TIMEOUT);
}

fn place_of(topic: &str, element: &TopicPartitionListElem<'_>) -> Result<(i32, i64), OffsetsError> {
    let failed = |reason: String| OffsetsError::new("log start and end", topic, reason);
    element.error().map_err(|error| failed(error.to_string()))?;
    match element.offset() {
        Offset::Offset(offset) => Ok((element.partition(), offset)),
        other => Err(failed(format!("the brokers answered {other:?}"))),
    }
}

fn listed(
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    offset: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, offset)?;
    }
    Ok(list)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Isolation, OffsetReader};
    use crate::kafka::Offsets;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;

    #[test]
    fn a_partition_that_had_no_leader_is_asked_again_once_it_has_one() {
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("t", 1, 2).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        let reader = OffsetReader::new(&client, "g", Isolation::Uncommitted).unwrap();
        cluster.partition_leader("t", 0, None).unwrap();
        assert!(reader.bounds("t", [0]).is_err());
        cluster.partition_leader("t", 0, Some(2)).unwrap();
        assert_eq!(reader.bounds("t", [0]).unwrap().get(&0), Some(&(0, 0)));
    }
}
