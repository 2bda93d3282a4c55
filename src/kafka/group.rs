//! A group seen from outside, and the transactions that its lost members left open.

use super::ffi::{self, DescribeError, RawMember};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, Producer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Characters of a UUID.
const UUID: usize = 36;
/// How long the brokers may take to describe a group.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long ending transactions may take; what is left is tried again.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// One wait for one of several transactional ids, each of which makes progress meanwhile.
const END_STEP: Duration = Duration::from_millis(20);
/// The topic in which the brokers keep transactions; its partitions' leaders are the coordinators.
const TRANSACTIONS: &str = "__transaction_state";

/// A group as its coordinator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    /// Whether no rebalance is under way and there are members.
    pub stable: bool,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// One member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMember {
    /// Its `group.instance.id`. A member without one has its `client.id` here.
    pub instance: String,
    /// The id that the coordinator gave to this membership.
    pub id: String,
    /// The host it connects from.
    pub host: String,
    /// What is assigned to it.
    pub partitions: Vec<(String, i32)>,
}

impl GroupMember {
    fn of(raw: RawMember) -> Self {
        // The coordinator makes the id: the instance's, a dash, and a UUID.
        let instance = raw
            .id
            .len()
            .checked_sub(UUID + 1)
            .and_then(|end| raw.id.get(..end));
        Self {
            instance: instance.unwrap_or_default().to_owned(),
            partitions: partitions(&raw.assignment).unwrap_or_default(),
            id: raw.id,
            host: raw.host,
        }
    }
}

/// What an assignment of the consumer protocol holds: a version, then topics, each with its partitions.
fn partitions(mut bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let bytes = &mut bytes;
    i16_of(bytes)?;
    let mut found = Vec::new();
    for _ in 0..i32_of(bytes)? {
        let length = usize::try_from(i16_of(bytes)?).ok()?;
        let topic = bytes.split_off(..length)?;
        let topic = String::from_utf8_lossy(topic).into_owned();
        for _ in 0..i32_of(bytes)? {
            found.push((topic.clone(), i32_of(bytes)?));
        }
    }
    Some(found)
}

fn i16_of(bytes: &mut &[u8]) -> Option<i16> {
    let head = bytes.split_off(..2)?;
    Some(i16::from_be_bytes(head.try_into().ok()?))
}

fn i32_of(bytes: &mut &[u8]) -> Option<i32> {
    let head = bytes.split_off(..4)?;
    Some(i32::from_be_bytes(head.try_into().ok()?))
}

/// What the brokers know of a group.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<GroupDescription, DescribeError> {
    let Some((state, members)) = ffi::group(client, group, timeout)? else {
        return Err(DescribeError::Group {
            group: group.to_owned(),
            reason: "no broker that answers knows it".to_owned(),
        });
    };
    Ok(GroupDescription {
        stable: state == "Stable",
        members: members.into_iter().map(GroupMember::of).collect(),
    })
}

/// A client that only looks at one group. It is no member of it.
pub struct GroupViewer {
    consumer: BaseConsumer,
    client: ClientConfig,
    group: String,
}

impl GroupViewer {
    /// Makes the client; it connects when it is first asked.
    pub fn new(client: &ClientConfig, group: &str) -> Result<Self, DescribeError> {
        let mut config = client.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false");
        let consumer = config
            .create()
            .map_err(|error| DescribeError::Request(error.to_string()))?;
        Ok(Self {
            consumer,
            client: client.clone(),
            group: group.to_owned(),
        })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What the brokers know of the group.
    pub fn describe(&self) -> Result<GroupDescription, DescribeError> {
        describe(self.consumer.client(), &self.group, ASK_TIMEOUT)
    }

    /// Whether the group's coordinator answers and the coordinators of transactions are there.
    pub fn coordinators_are_up(&self) -> bool {
        let transactions = self
            .consumer
            .fetch_metadata(Some(TRANSACTIONS), ASK_TIMEOUT);
        let Ok(transactions) = transactions else {
            return false;
        };
        // A user who may not see the topic is told of no partition.
        let leaderless = transactions
            .topics()
            .iter()
            .flat_map(MetadataTopic::partitions)
            .any(|partition| partition.leader() < 0);
        !leaderless && self.describe().is_ok()
    }

    /// Ends the transactions that lost members left open under these ids, and tells which ids that was done for. Members
    /// that the group lists again meanwhile are left alone.
    ///
    /// A transaction of a host that is gone holds back the offsets of its partitions, and readers of what it wrote, until
    /// it times out. To initialise transactions under its id ends it at once.
    pub fn end_transactions(&self, ids: &[String]) -> Vec<String> {
        let mut pending: BTreeMap<&String, BaseProducer> = BTreeMap::new();
        for id in ids {
            match self.client.clone().set("transactional.id", id).create() {
                Ok(producer) => drop(pending.insert(id, producer)),
                Err(error) => tracing::warn!(%id, %error, "cannot end its transaction"),
            }
        }
        // IMPORTANT: looked at again right before the fence. A member that came back has ended its transaction itself, and
        // to fence it would only make it start over.
        let Ok(now) = self.describe() else {
            return Vec::new();
        };
        pending.retain(|id, _| !now.members.iter().any(|member| member.instance == **id));
        let deadline = Instant::now() + END_TIMEOUT;
        let mut ended = Vec::new();
        while !pending.is_empty() && Instant::now() < deadline {
            pending.retain(|id, producer| match producer.init_transactions(END_STEP) {
                Ok(()) => {
                    ended.push((*id).clone());
                    false
                }
                Err(KafkaError::Transaction(error)) if error.is_retriable() => true,
                Err(error) => {
                    tracing::warn!(%id, %error, "cannot end its transaction");
                    false
                }
            });
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment() -> Vec<u8> {
        let mut bytes = vec![0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 0, 0, 2];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        bytes.extend([0, 1, b'b', 0, 0, 0, 0]);
        bytes.extend([255, 255, 255, 255]);
        bytes
    }

    #[test]
    fn a_members_name_and_partitions_are_read_from_what_the_coordinator_tells() {
        let member = GroupMember::of(RawMember {
            id: "app-a-0-8a9ff6a4-3a86-4a5e-9c0c-6a2b0e9d1f00".to_owned(),
            host: "/10.0.0.7".to_owned(),
            assignment: assignment(),
        });
        assert_eq!(member.instance, "app-a-0");
        assert_eq!(
            member.partitions,
            [("a".to_owned(), 0), ("a".to_owned(), 7)]
        );
    }

    #[test]
    fn what_cannot_be_read_is_no_partition_and_no_name() {
        for end in 0..25 {
            let cut: Vec<u8> = assignment().into_iter().take(end).collect();
            assert_eq!(partitions(&cut), None, "{end}");
        }
        let member = GroupMember::of(RawMember {
            id: "short".to_owned(),
            host: String::new(),
            assignment: Vec::new(),
        });
        assert_eq!((member.instance.as_str(), member.partitions.len()), ("", 0));
    }
}
