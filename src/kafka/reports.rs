//! What librdkafka tells a producer: delivery reports, and signs of trouble in the log and the statistics.

use parking_lot::Mutex;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A topic whose delivered offsets a receipt tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// The enriched topic.
    Enriched,
    /// The changelog of parked events.
    Pending,
    /// The checkpoints of published ids.
    Seen,
}

impl Track {
    const ALL: [Self; 3] = [Self::Enriched, Self::Pending, Self::Seen];

    /// The opaque of a record on this track; 0 is no track.
    pub(super) fn opaque(track: Option<Self>) -> usize {
        track.map_or(0, |track| track as usize + 1)
    }
}

/// What librdkafka tells about records and connections; filled inside `poll`.
#[derive(Default)]
pub(super) struct Reports {
    pub(super) failed: AtomicBool,
    /// Whether a record was refused for its size.
    pub(super) too_large: AtomicBool,
    pub(super) first_failure: Mutex<Option<String>>,
    pub(super) delivered: Mutex<BTreeMap<(Track, i32), i64>>,
    /// Time-outs, retries and disconnects that could leave a copy of a request on its way.
    pub(super) trouble: AtomicU64,
    /// The counters of the last statistics, to see them grow.
    counters: Mutex<Option<i64>>,
}

impl Reports {
    fn fail(&self, why: String) {
        self.first_failure.lock().get_or_insert(why);
        self.failed.store(true, Ordering::Release);
    }

    /// Notes an error that says that a record, or the batch it came in, was too large.
    pub(super) fn note_size(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            self.too_large.store(true, Ordering::Release);
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if matches!(facility, "REQTMOUT" | "FAIL") {
            self.trouble.fetch_add(1, Ordering::Relaxed);
        }
        super::log_line(level, facility, text);
    }

    fn stats(&self, statistics: Statistics) {
        let sum = statistics
            .brokers
            .values()
            .map(|broker| {
                broker.txretries as i64
                    + broker.req_timeouts as i64
                    + broker.disconnects.unwrap_or_default()
            })
            .sum();
        if self
            .counters
            .lock()
            .replace(sum)
            .is_some_and(|before| sum > before)
        {
            self.trouble.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // A notice, not a failure: the calls themselves tell when something has to be done.
        tracing::debug!(%error, reason, "producer notice");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    /// `tracked` is 0, or the number of the [`Track`] of a record whose offset is wanted.
    fn delivery(&self, result: &DeliveryResult<'_>, tracked: usize) {
        match result {
            Ok(record) => {
                let track = tracked.checked_sub(1).and_then(|at| Track::ALL.get(at));
                // A duplicate sequence is delivered without an offset: the position then stays, which is safe.
                if let Some(track) = track.filter(|_| record.offset() >= 0) {
                    let next = record.offset() + 1;
                    let mut delivered = self.delivered.lock();
                    let position = delivered
                        .entry((*track, record.partition()))
                        .or_insert(next);
                    *position = next.max(*position);
                }
            }
            Err((error, record)) => {
                self.note_size(error);
                self.fail(format!("topic `{}`: {error}", record.topic()));
            }
        }
    }
}
