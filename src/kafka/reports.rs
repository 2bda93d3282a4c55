//! What librdkafka tells a producer: delivery reports, and signs of trouble in the log and the statistics.

use parking_lot::Mutex;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What librdkafka tells about records and connections; filled inside `poll`.
#[derive(Default)]
pub(super) struct Reports {
    pub(super) failed: AtomicBool,
    pub(super) first_failure: Mutex<Option<String>>,
    pub(super) delivered: Mutex<BTreeMap<i32, i64>>,
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

    /// `tracked` is 0, or the partition + 1 of a record whose offset is wanted.
    fn delivery(&self, result: &DeliveryResult<'_>, tracked: usize) {
        match result {
            Ok(record) if tracked > 0 => {
                // A duplicate sequence is delivered without an offset: the position then stays, which is safe.
                if record.offset() >= 0 {
                    let next = record.offset() + 1;
                    let mut delivered = self.delivered.lock();
                    let position = delivered.entry(tracked as i32 - 1).or_insert(next);
                    *position = next.max(*position);
                }
            }
            Ok(_) => {}
            Err((error, record)) => self.fail(format!("topic `{}`: {error}", record.topic())),
        }
    }
}
