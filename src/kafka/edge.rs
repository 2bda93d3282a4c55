//! What the loop needs from outside, at the level of single client calls: brokers, a store, clocks.
//!
//! [`Kafka`](super::Kafka) is the real one. A simulator is the other: everything that decides stands above these calls, so that
//! all of it runs under simulated faults as it runs in production.

use super::changelog::ChangelogError;
use super::limits::TopicLimits;
use super::member::{Callbacks, MemberSettings};
use super::offsets::{Committed, Isolation, OffsetsError};
use super::producer::{Outgoing, ProducerSettings};
use super::reports::Track;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thmanyah_state::Tables;

/// Everything outside: clients of one cluster, the local store, the clocks.
pub trait Edge: Clone + 'static {
    /// A transactional producer.
    type Producer: RawProducer<Group = Self::Group>;
    /// A member of a consumer group.
    type Consumer: GroupConsumer<Group = Self::Group>;
    /// The group's metadata, which fences a transaction's offsets.
    type Group;
    /// Asks for offsets.
    type Offsets: Offsets;
    /// Reads a log outside any group.
    type Reader: LogReader;
    /// The local store.
    type Store: Tables;

    /// A producer that was not initialised yet.
    fn producer(&self, settings: &ProducerSettings) -> Result<Self::Producer, String>;

    /// Subscribes. `callbacks` is told of each rebalance from inside [`GroupConsumer::next`].
    fn join(
        &self,
        settings: &MemberSettings,
        callbacks: Arc<Callbacks<Self>>,
    ) -> Result<Self::Consumer, String>;

    /// Leaves the group's work to others. Comes back within seconds.
    fn close(&self, consumer: Self::Consumer);

    /// `group` is the group whose commits are read. Only a read_committed reader is told stable offsets, and only a
    /// read_uncommitted one the true end of a log beside an open transaction.
    fn offsets(&self, group: &str, isolation: Isolation) -> Result<Self::Offsets, OffsetsError>;

    /// Reads `topic`, committed records only, from the given offset of each partition.
    fn reader(
        &self,
        topic: &str,
        starts: BTreeMap<i32, i64>,
    ) -> Result<Self::Reader, ChangelogError>;

    /// The largest records that the output topics take now; `None` when the brokers do not say. Producers made from now on
    /// heed them.
    fn limits(&self) -> Option<TopicLimits> {
        None
    }

    /// The wall clock, in milliseconds since the epoch.
    fn now_ms(&self) -> i64;

    /// The clock that never jumps.
    fn instant(&self) -> Instant;

    /// The time that passed since then.
    fn since(&self, then: Instant) -> Duration {
        self.instant().saturating_duration_since(then)
    }

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// Why a transaction's call failed.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
#[allow(clippy::struct_excessive_bools, reason = "the client library's flags")]
pub struct CallError {
    /// The same call may be made again.
    pub retriable: bool,
    /// The transaction has to be aborted.
    pub requires_abort: bool,
    /// The producer is of no more use.
    pub fatal: bool,
    /// The group has moved on: it takes no offsets of this membership before the next rebalance.
    pub stale: bool,
    /// The client's words.
    pub reason: String,
}

/// The calls of a transactional producer.
pub trait RawProducer {
    /// The group's metadata.
    type Group;

    /// Fences every earlier producer of the same id and ends its open transaction.
    fn init(&self, timeout: Duration) -> Result<(), CallError>;

    /// Opens a transaction; what was told of earlier deliveries is forgotten.
    fn begin(&self) -> Result<(), CallError>;

    /// Queues a record; gives it back when the queue is full.
    fn queue<'a>(&self, record: Outgoing<'a>) -> Result<Option<Outgoing<'a>>, String>;

    /// Serves what has been reported, without waiting.
    fn serve(&self);

    /// Has queued records sent at once, and waits up to `timeout` for them to be delivered.
    fn push(&self, timeout: Duration);

    /// Records that are queued or on their way.
    fn in_flight(&self) -> usize;

    /// Gives up queued records and those on their way.
    fn purge(&self);

    /// Adds positions of an input topic, `(partition, position, metadata)`, to the transaction.
    fn send_offsets(
        &self,
        topic: &str,
        positions: &[(i32, i64, String)],
        group: &Self::Group,
    ) -> Result<(), CallError>;

    /// Commits.
    fn commit(&self) -> Result<(), CallError>;

    /// Aborts.
    fn abort(&self) -> Result<(), CallError>;

    /// Why a record of this transaction was not delivered, if one was not.
    fn failed_delivery(&self) -> Option<String>;

    /// Whether a record of this transaction was refused for its size.
    fn too_large(&self) -> bool {
        false
    }

    /// Why the producer is of no more use, if it is not.
    fn fatal(&self) -> Option<String>;

    /// How many time-outs, retries and disconnects there were that could leave a copy of a request on its way.
    fn trouble(&self) -> u64;

    /// The highest offset + 1 that each tracked partition got in this transaction.
    fn take_delivered(&self) -> BTreeMap<(Track, i32), i64>;
}

/// Why a member gets no record, ever.
#[derive(Debug)]
pub enum PollFailure {
    /// Another process joined under the same instance id.
    Fenced,
    /// The log no longer holds the position.
    OutOfRange,
    /// Any other fatal error.
    Fatal(String),
}

/// The calls of a group member that reads one topic.
pub trait GroupConsumer {
    /// The group's metadata.
    type Group;
    /// A record, lent by the client.
    type Record<'r>: Message
    where
        Self: 'r;

    /// The next record, or nothing within `timeout`. Rebalances are told inside.
    fn next(&self, timeout: Duration) -> Result<Option<Self::Record<'_>>, PollFailure>;

    /// The group's metadata as of now.
    fn group(&self) -> Option<Self::Group>;

    /// Answers an assignment: adds partitions, paused.
    fn add(&self, partitions: &[i32]) -> Result<(), String>;

    /// Answers a revocation: takes partitions away.
    fn remove(&self, partitions: &[i32]) -> Result<(), String>;

    /// Stops reading a partition.
    fn stop_reading(&self, partition: i32) -> Result<(), String>;

    /// Reads on from these offsets.
    fn read_from(&self, positions: &[(i32, i64)]) -> Result<(), String>;

    /// The position of a partition: it moves over transaction markers too. `None` before the first record.
    fn position_of(&self, partition: i32) -> Option<i64>;

    /// Whether another process is a member under this one's name, as far as that can be said for sure.
    fn has_successor(&self) -> bool {
        false
    }

    /// The same, asked inside a revocation: partitions that were lost without a word may be a successor's.
    fn lost_to_successor(&self) -> bool {
        false
    }

    /// Changes the subscription so that the group rebalances; `number` is another one each time.
    fn subscribe_anew(&self, number: u64) -> Result<(), String> {
        let _ = number;
        Ok(())
    }
}

/// Questions about offsets, asked by no member of any group.
pub trait Offsets {
    /// What the group committed for each partition, stable offsets only.
    fn committed(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, Committed>, OffsetsError>;

    /// Log start and end of each partition; the end according to the reader's isolation.
    fn bounds(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, (i64, i64)>, OffsetsError>;

    /// Log end of each partition, according to the reader's isolation.
    fn ends(&self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, OffsetsError>;
}

/// A read_committed reader of some partitions of one topic. It belongs to no group.
pub trait LogReader {
    /// A record, lent by the client.
    type Record<'r>: Message
    where
        Self: 'r;

    /// The next committed record, or nothing within `timeout`.
    fn next(&self, timeout: Duration) -> Result<Option<Self::Record<'_>>, ChangelogError>;

    /// The next offset of each partition. It moves over transaction markers, so it reaches the end of a log whose last
    /// records are markers; where nothing was read yet it is the start.
    fn positions(&self) -> BTreeMap<i32, i64>;
}
