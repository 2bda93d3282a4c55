//! What a destination must be able to do, and what the frame gives it.

use super::breaker::Breaker;
use super::condition::Condition;
use super::letters::Letters;
use super::switch::Switch;
use crate::kafka::TopicId;
use crate::metrics::SinkMetrics;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// An enriched record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in its partition.
    pub offset: i64,
    /// When it was published, in milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Its key, as it stands.
    pub key: Option<Vec<u8>>,
    /// Its value, as it stands.
    pub value: Vec<u8>,
}

/// Records of one partition that follow each other, never none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of their offsets, which have gaps.
    pub records: Vec<Record>,
}

impl SinkError {
    /// Whether only an operator can put it right.
    pub fn is_misconfigured(&self) -> bool {
        matches!(self, Self::Misconfigured(_) | Self::Stopped(_))
    }
}

impl Batch {
    /// The position after the batch.
    pub fn next_offset(&self) -> i64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }
}

/// A partition that was just assigned.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub partition: i32,
    /// How many the topic has.
    pub partitions: i32,
    /// The topic's id: a topic that was deleted and made anew has another one.
    pub topic_id: TopicId,
    /// The log's first offset, or one before it where only marks of transactions stood between.
    pub log_start: i64,
    /// The last stable offset, as of now.
    pub log_end: i64,
    /// What the group has committed, where it has. A hint, unless the destination keeps nothing better.
    pub committed: Option<i64>,
}

/// What the frame gives each destination.
#[derive(Clone)]
pub struct Frame {
    /// Counters and gauges of this sink.
    pub metrics: SinkMetrics,
    /// The circuit breaker of this sink. A lane that retries within a batch tells it of each attempt.
    pub breaker: Arc<Breaker>,
    /// Whether an operator has paused this sink.
    pub switch: Switch,
    /// How this partition fares. The frame tells it of each batch; a lane that retries within a batch tells it, too.
    pub condition: Condition,
    /// The dead letters of this sink.
    pub letters: Letters,
}

impl Frame {
    /// Comes back once an attempt may be made: no operator has paused the sink, and the circuit breaker lets it through. The
    /// frame asks before [`Destination::open`]; a lane that retries within a batch asks before each attempt.
    pub async fn admit(&self) {
        loop {
            if self.switch.is_paused() {
                self.switch.clone().on().await;
            }
            match self.breaker.admit() {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// Why a delivery failed. Nothing is lost by it: the partition is opened anew, and its records are read again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The destination does not answer, or not now: tried again by itself.
    #[error("{0}")]
    Unavailable(String),
    /// Something is set up wrongly, here or there. Tried again by itself, in case that it was put right.
    #[error("{0}")]
    Misconfigured(String),
    /// What is there is not what was recorded of one partition, and only an operator can say what is right. Looked at again
    /// now and then.
    #[error("{0}")]
    Stopped(String),
    /// Another process has taken the partition over.
    #[error("{0}")]
    Fenced(String),
}

/// A place that enriched events are delivered to.
pub trait Destination: Send + Sync + 'static {
    /// The way there for one partition.
    type Lane: Lane;

    /// Name in metrics, logs and dead letters: `sink-` goes before it.
    const NAME: &'static str;

    /// How often positions are committed. Where nothing keeps a better one, a crash repeats what was delivered since.
    const COMMIT_EVERY: Duration = Duration::from_secs(1);

    /// Whether [`open`](Self::open) asks the destination, so that the circuit breaker is asked before, and told after.
    const OPENING_ASKS: bool = true;

    /// Makes ready and checks what all partitions share, such as a table. Called before anything is opened, and again after
    /// each failure.
    fn prepare(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Takes a partition over from whoever had it; says from which offset to read.
    fn open(
        &self,
        taken: Taken,
        frame: Frame,
    ) -> impl Future<Output = Result<(Self::Lane, i64), SinkError>> + Send;
}

/// The way to a destination for one partition, between its assignment and its loss or a failure.
pub trait Lane: Send + 'static {
    /// Delivers a batch whole: each of its records has arrived, or is a dead letter that is durable. May be dropped at any
    /// await, when the partition is lost.
    fn deliver(&mut self, batch: &Batch) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// All was delivered up to where the log ended when the partition was taken, where no record need stand: transactions
    /// leave marks. Told once.
    fn caught_up(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Nothing came for a while: time to look whether a destination that can lose what was delivered has lost it. Without new
    /// events nobody else would find out.
    fn idle(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send {
        std::future::ready(Ok(()))
    }
}
