//! The transactional producer: begin, send, commit or abort, and the rule that keeps a delayed EndTxn from ending the next
//! transaction.

use super::edge::{CallError, Edge, RawProducer};
use super::reports::Track;
use rdkafka::message::OwnedHeaders;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `retry.backoff.ms`: a healthy commit stays well under it, and a hidden retry cannot come sooner than 0.8 of it.
pub(super) const RETRY_BACKOFF: Duration = Duration::from_millis(500);
/// A commit or abort that took this long may hide a retried request whose first copy is still on its way.
const SUSPICIOUS: Duration = Duration::from_millis(400);
/// Events served at most before a decision.
const DRAINED_EVENTS: usize = 1_000;
/// One wait inside [`TransactionalProducer::flush`] and on a full queue.
const FLUSH_STEP: Duration = Duration::from_millis(1);
/// One wait for the coordinator in `init_transactions`, between looks at the stop flag.
const INIT_STEP: Duration = Duration::from_secs(5);

/// How to make a transactional producer.
#[derive(Clone)]
pub struct ProducerSettings {
    /// Also the member's `group.instance.id`.
    pub transactional_id: String,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
    /// Largest record that must fit.
    pub max_record_bytes: u64,
    /// Set when the process shall stop: waiting for a coordinator ends.
    pub stop: Arc<AtomicBool>,
}

/// What a failed call asks for.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// Abort the transaction and start over from the committed offsets.
    #[error("the transaction must be aborted: {0}")]
    Abort(String),
    /// The same, and nothing more before the next rebalance: the group has moved on without this membership.
    #[error("the group takes no offsets before the next rebalance: {0}")]
    AbortAndWait(String),
    /// The producer is of no more use: a new one fences it, then the committed offsets are read again.
    #[error("the producer must be replaced: {0}")]
    Replace(String),
    /// Nobody knows whether the commit happened: as [`Self::Replace`], and nothing is applied.
    #[error("the outcome of the commit is unknown: {0}")]
    UnknownOutcome(String),
    /// A topic refused a record, or the batch it came in, for its size. As [`Self::Replace`]; and what the topics take is
    /// asked for anew, as the same records would be refused for ever.
    #[error("a record is too large for its topic: {0}")]
    TooLarge(String),
    /// A rebalance came in between and aborted the transaction: its consequences come first.
    #[error("a rebalance came in between")]
    Interrupted,
    /// The process is stopping.
    #[error("stopped while waiting for the transaction coordinator")]
    Stopped,
}

/// Proof that a transaction was committed. Only what a receipt covers may reach the store.
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    /// Highest delivered offset + 1, by track and partition.
    delivered: BTreeMap<(Track, i32), i64>,
    /// How long `send_offsets` and the commit took.
    took: Duration,
}

impl Receipt {
    /// Position after the highest offset that a partition got in this transaction.
    pub fn delivered(&self, track: Track, partition: i32) -> Option<i64> {
        self.delivered.get(&(track, partition)).copied()
    }

    /// Every partition that got records on a track, with the position after the highest.
    pub fn delivered_all(&self) -> impl Iterator<Item = (Track, i32, i64)> + '_ {
        self.delivered
            .iter()
            .map(|((track, partition), offset)| (*track, *partition, *offset))
    }

    /// How long `send_offsets` and the commit took.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// A record to produce.
pub struct Outgoing<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition; `None` leaves it to the partitioner (murmur2 of the key, as Java does).
    pub partition: Option<i32>,
    /// Key; `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: Option<OwnedHeaders>,
    /// Under which track the [`Receipt`] tells the offset it got.
    pub track: Option<Track>,
}

/// A producer with at most one open transaction.
pub struct TransactionalProducer<E: Edge> {
    edge: E,
    settings: ProducerSettings,
    producer: Option<E::Producer>,
    open: bool,
    /// Why the producer is replaced before the next begin.
    suspect: Option<String>,
}

impl<E: Edge> TransactionalProducer<E> {
    /// Connects, fences every earlier producer of the same id and ends its open transaction.
    pub fn start(edge: E, settings: ProducerSettings) -> Result<Self, ProducerError> {
        let mut this = Self {
            edge,
            settings,
            producer: None,
            open: false,
            suspect: None,
        };
        this.replace()?;
        Ok(this)
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the producer will be replaced before the next begin.
    pub fn is_suspect(&self) -> bool {
        self.suspect.is_some()
    }

    fn suspect(&mut self, why: impl Into<String>) {
        self.suspect.get_or_insert(why.into());
    }

    /// Opens a transaction, after replacing a producer that may have a request of the last one still on its way.
    ///
    /// IMPORTANT: the replacement comes before the begin. librdkafka retries EndTxn silently, and a first copy that is
    /// stuck on its way would end the *next* transaction of the same epoch; `init_transactions` bumps the epoch, so the
    /// broker refuses the stale copy.
    pub fn begin(&mut self) -> Result<(), ProducerError> {
        debug_assert!(!self.open, "one transaction at a time");
        if let Some(why) = self.suspect.take() {
            tracing::warn!(id = %self.settings.transactional_id, why, "replacing the producer before the next transaction");
            self.replace()?;
        }
        self.producer()?.begin().map_err(classify)?;
        self.open = true;
        Ok(())
    }

    /// Queues a record in the open transaction; waits while the queue is full.
    pub fn send(&self, record: Outgoing<'_>) -> Result<(), ProducerError> {
        let producer = self.producer()?;
        let topic = record.topic;
        let mut next = record;
        loop {
            let queued = producer
                .queue(next)
                .map_err(|reason| refused(producer, format!("topic `{topic}`: {reason}")))?;
            let Some(back) = queued else {
                return Ok(());
            };
            producer.push(FLUSH_STEP);
            producer.serve();
            Self::check_deliveries(producer)?;
            next = back;
        }
    }

    /// Serves delivery reports without waiting.
    pub fn poll(&self) {
        if let Some(producer) = &self.producer {
            producer.serve();
        }
    }

    /// Delivers everything, then commits it together with the positions of `topic`. On an error nothing may be applied; the
    /// error says what to do.
    pub fn commit(
        &mut self,
        topic: &str,
        positions: &[(i32, i64, String)],
        group: &E::Group,
    ) -> Result<Receipt, ProducerError> {
        // Without a valid offset send_offsets succeeds silently and fences nobody.
        debug_assert!(
            !positions.is_empty(),
            "a transaction carries at least one offset"
        );
        self.conclude(|producer| {
            retry(|| producer.send_offsets(topic, positions, group)).map_err(classify)
        })
    }

    /// As [`Self::commit`], of a transaction that holds records and read nothing.
    pub fn commit_records(&mut self) -> Result<Receipt, ProducerError> {
        self.conclude(|_| Ok(()))
    }

    fn conclude(
        &mut self,
        positions: impl FnOnce(&E::Producer) -> Result<(), ProducerError>,
    ) -> Result<Receipt, ProducerError> {
        self.flush()?;
        let producer = self.producer()?;
        let trouble_before = producer.trouble();
        let started = self.edge.instant();
        positions(producer)?;
        let outcome = retry(|| producer.commit());
        let took = self.edge.since(started);
        // The log and the statistics arrive only inside poll: drain them before deciding.
        drain(producer);
        let trouble = producer.trouble() > trouble_before;
        let delivered = producer.take_delivered();
        self.open = false;
        if let Err(error) = outcome {
            // Any error here may hide a commit that happened, whatever its abort flag says.
            self.suspect(format!("commit failed: {error}"));
            return Err(ProducerError::UnknownOutcome(error.to_string()));
        }
        if took >= SUSPICIOUS || trouble {
            self.suspect(format!(
                "the commit took {} ms{}",
                took.as_millis(),
                if trouble {
                    " with a time-out, retry or disconnect"
                } else {
                    ""
                }
            ));
        }
        Ok(Receipt { delivered, took })
    }

    /// Aborts the open transaction, if there is one. What cannot be aborted cleanly is left to the replacement.
    pub fn abort(&mut self) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Some(producer) = &self.producer else {
            return;
        };
        // Without the purge and the drain an abort hangs until its timeout.
        producer.purge();
        while producer.in_flight() > 0 {
            producer.push(FLUSH_STEP);
            producer.serve();
        }
        let trouble_before = producer.trouble();
        let started = self.edge.instant();
        let outcome = retry(|| producer.abort());
        drain(producer);
        let trouble = producer.trouble() > trouble_before;
        let took = self.edge.since(started);
        if let Err(error) = outcome {
            self.suspect(format!("abort failed: {error}"));
        } else if took >= SUSPICIOUS || trouble {
            self.suspect(format!("the abort took {} ms", took.as_millis()));
        }
    }

    /// Waits until every queued record was delivered.
    fn flush(&self) -> Result<(), ProducerError> {
        let producer = self.producer()?;
        loop {
            producer.serve();
            Self::check_deliveries(producer)?;
            if producer.in_flight() == 0 {
                return Ok(());
            }
            producer.push(FLUSH_STEP);
        }
    }

    fn check_deliveries(producer: &E::Producer) -> Result<(), ProducerError> {
        let Some(why) = producer.failed_delivery() else {
            return Ok(());
        };
        Err(match producer.fatal() {
            Some(fatal) => ProducerError::Replace(format!("{fatal} ({why})")),
            None => refused(producer, why),
        })
    }

    fn producer(&self) -> Result<&E::Producer, ProducerError> {
        self.producer
            .as_ref()
            .ok_or_else(|| ProducerError::Replace("there is no producer".to_owned()))
    }

    /// Destroys the producer, makes a new one and initialises its transactions, which bumps the epoch of the id.
    pub fn replace(&mut self) -> Result<(), ProducerError> {
        self.open = false;
        self.suspect = None;
        self.producer = None;
        let producer = self
            .edge
            .producer(&self.settings)
            .map_err(ProducerError::Replace)?;
        loop {
            match producer.init(INIT_STEP) {
                Ok(()) => break,
                Err(error) if error.retriable => {
                    producer.serve();
                    if self.settings.stop.load(Ordering::Relaxed) {
                        return Err(ProducerError::Stopped);
                    }
                }
                Err(error) => {
                    self.suspect(format!("init_transactions failed: {error}"));
                    return Err(ProducerError::Replace(error.to_string()));
                }
            }
        }
        self.producer = Some(producer);
        Ok(())
    }
}

/// What a record that was not delivered asks for.
fn refused(producer: &impl RawProducer, why: String) -> ProducerError {
    if producer.too_large() {
        ProducerError::TooLarge(why)
    } else {
        ProducerError::Abort(why)
    }
}

/// Serves every event that is queued; one poll serves one.
fn drain(producer: &impl RawProducer) {
    producer.serve();
    for _ in 0..DRAINED_EVENTS {
        if producer.in_flight() == 0 {
            break;
        }
        producer.serve();
    }
}

/// Calls again while the error is retriable: the call itself resumes, nothing is skipped.
fn retry(mut call: impl FnMut() -> Result<(), CallError>) -> Result<(), CallError> {
    loop {
        match call() {
            Err(error) if error.retriable => {
                tracing::debug!(%error, "transaction call is retried");
            }
            outcome => return outcome,
        }
    }
}

/// What an error of begin or `send_offsets` asks for. An error of the commit never comes here.
fn classify(error: CallError) -> ProducerError {
    if error.fatal {
        ProducerError::Replace(error.reason)
    } else if error.stale {
        ProducerError::AbortAndWait(error.reason)
    } else if error.requires_abort {
        ProducerError::Abort(error.reason)
    } else {
        ProducerError::Replace(error.reason)
    }
}
