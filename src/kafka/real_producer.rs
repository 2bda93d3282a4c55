//! The transactional producer's calls, made to librdkafka.

use super::edge::{CallError, RawProducer};
use super::ffi;
use super::producer::{Outgoing, ProducerSettings, RETRY_BACKOFF};
use super::reports::{Reports, Track};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How much a producer may hold.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    /// All records that are queued or on their way, in bytes.
    pub(super) queue: u64,
    /// Records in one batch, in bytes: a topic refuses a batch as a whole.
    pub(super) batch: u64,
}

/// Connections that nothing passed for so long are closed.
const IDLE: Duration = Duration::from_secs(10);
/// librdkafka's own default.
const BATCH_BYTES: u64 = 1_000_000;

/// The producer's client.
pub struct RealProducer {
    producer: BaseProducer<Reports>,
}

impl RealProducer {
    pub(super) fn new(
        client: &ClientConfig,
        settings: &ProducerSettings,
        buffers: Buffers,
    ) -> Result<Self, KafkaError> {
        let config = client_config(client, settings, buffers);
        let producer = config.create_with_context(Reports::default())?;
        Ok(Self { producer })
    }
}

impl RawProducer for RealProducer {
    type Group = ConsumerGroupMetadata;

    fn init(&self, timeout: Duration) -> Result<(), CallError> {
        self.producer.init_transactions(timeout).map_err(failed)
    }

    fn begin(&self) -> Result<(), CallError> {
        let reports = self.producer.context();
        reports.failed.store(false, Ordering::Release);
        reports.too_large.store(false, Ordering::Release);
        *reports.first_failure.lock() = None;
        reports.delivered.lock().clear();
        self.producer.begin_transaction().map_err(failed)
    }

    fn queue<'a>(&self, record: Outgoing<'a>) -> Result<Option<Outgoing<'a>>, String> {
        let mut next = BaseRecord::with_opaque_to(record.topic, Track::opaque(record.track));
        next.partition = record.partition;
        next.key = record.key;
        next.payload = record.value;
        next.headers = record.headers;
        let Err((error, refused)) = self.producer.send::<[u8], [u8]>(next) else {
            return Ok(None);
        };
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            self.producer.context().note_size(&error);
            return Err(error.to_string());
        }
        Ok(Some(Outgoing {
            headers: refused.headers,
            ..record
        }))
    }

    fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }

    fn push(&self, timeout: Duration) {
        ffi::flush(self.producer.client(), timeout);
    }

    fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    fn send_offsets(
        &self,
        topic: &str,
        positions: &[(i32, i64, String)],
        group: &ConsumerGroupMetadata,
    ) -> Result<(), CallError> {
        let mut offsets = TopicPartitionList::with_capacity(positions.len());
        for (partition, position, metadata) in positions {
            let mut element = offsets.add_partition(topic, *partition);
            element
                .set_offset(Offset::Offset(*position))
                .map_err(failed)?;
            element.set_metadata(metadata);
        }
        self.producer
            .send_offsets_to_transaction(&offsets, group, Timeout::Never)
            .map_err(failed)
    }

    fn commit(&self) -> Result<(), CallError> {
        self.producer
            .commit_transaction(Timeout::Never)
            .map_err(failed)
    }

    fn abort(&self) -> Result<(), CallError> {
        self.producer
            .abort_transaction(Timeout::Never)
            .map_err(failed)
    }

    fn failed_delivery(&self) -> Option<String> {
        let reports = self.producer.context();
        reports
            .failed
            .load(Ordering::Acquire)
            .then(|| reports.first_failure.lock().clone().unwrap_or_default())
    }

    fn too_large(&self) -> bool {
        self.producer.context().too_large.load(Ordering::Acquire)
    }

    fn fatal(&self) -> Option<String> {
        let (code, text) = self.producer.client().fatal_error()?;
        Some(format!("{code}: {text}"))
    }

    fn trouble(&self) -> u64 {
        self.producer.context().trouble.load(Ordering::Relaxed)
    }

    fn take_delivered(&self) -> BTreeMap<(Track, i32), i64> {
        std::mem::take(&mut *self.producer.context().delivered.lock())
    }
}

fn failed(error: KafkaError) -> CallError {
    let reason = error.to_string();
    match error {
        KafkaError::Transaction(inner) => CallError {
            retriable: inner.is_retriable(),
            requires_abort: inner.txn_requires_abort(),
            fatal: inner.is_fatal(),
            stale: matches!(
                inner.code(),
                RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::FencedInstanceId
            ),
            reason,
        },
        _ => CallError {
            retriable: false,
            requires_abort: false,
            fatal: false,
            stale: false,
            reason,
        },
    }
}

fn client_config(
    client: &ClientConfig,
    settings: &ProducerSettings,
    buffers: Buffers,
) -> ClientConfig {
    let wished = client.get("batch.size").and_then(|size| size.parse().ok());
    let batch = wished.unwrap_or(BATCH_BYTES).min(buffers.batch).max(1);
    // The largest record must fit an empty queue.
    let queue = buffers.queue.max(settings.max_record_bytes) / 1024 + 1;
    let mut config = client.clone();
    config
        .set("transactional.id", &settings.transactional_id)
        .set(
            "transaction.timeout.ms",
            settings.transaction_timeout.as_millis().to_string(),
        )
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("retry.backoff.ms", RETRY_BACKOFF.as_millis().to_string())
        .set("retry.backoff.max.ms", "1000")
        .set("message.max.bytes", settings.max_record_bytes.to_string())
        .set("batch.size", batch.to_string())
        .set("partitioner", "murmur2_random")
        .set("statistics.interval.ms", "1000")
        // IMPORTANT: a request to a group's coordinator that is down, and that the cluster has taken off its list meanwhile,
        // is not looked at again before the state of any connection changes (librdkafka #5511): sending offsets hung for as
        // long as nothing else happened. Connections that idle are closed, which is such a change.
        .set("connections.max.idle.ms", IDLE.as_millis().to_string())
        .set_log_level(RDKafkaLogLevel::Info);
    for (key, value) in [
        ("linger.ms", "20"),
        ("queue.buffering.max.messages", "500000"),
        ("queue.buffering.max.kbytes", &queue.to_string()),
    ] {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    config
}
