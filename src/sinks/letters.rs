//! Dead letters of a sink: what its destination refuses goes to the topic where all dead letters are, durably, before the
//! sink's position moves past it.

use super::destination::Record;
use crate::codec::Kept;
use crate::domain::DeadLetter;
use crate::enricher::Loss;
use crate::kafka::{DeadLetterSource, dead_letter_headers};
use crate::metrics::SinkMetrics;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Tells a letter's sender what became of it.
type Report = oneshot::Sender<Result<(), KafkaError>>;

struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        crate::kafka::log_line(level, facility, text);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Mutex<Option<Report>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let outcome = result
            .as_ref()
            .map(drop)
            .map_err(|(error, _)| error.clone());
        if let Some(report) = report.lock().take() {
            // Who asked may be gone.
            let _ = report.send(outcome);
        }
    }
}

/// Where a sink's dead letters go.
pub struct LetterSettings {
    /// Bootstrap servers and the user's own properties.
    pub client: ClientConfig,
    /// The topic of all dead letters.
    pub topic: String,
    /// The largest record that it takes, in bytes.
    pub limit: u64,
    /// `sink-` and the sink's name, for the header `dlq-stage`.
    pub stage: String,
    /// The topic that the records come from.
    pub source: String,
}

impl LetterSettings {
    fn producer(&self) -> Result<ThreadedProducer<Reports>, KafkaError> {
        let mut config = self.client.clone();
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set(
                "message.max.bytes",
                self.limit.clamp(1_000, 1_000_000_000).to_string(),
            )
            .set("linger.ms", "0");
        config.create_with_context(Reports)
    }
}

/// Buries records. A clone uses the same producer.
#[derive(Clone)]
pub struct Letters {
    producer: Arc<Mutex<Arc<ThreadedProducer<Reports>>>>,
    settings: Arc<LetterSettings>,
    metrics: SinkMetrics,
}

impl Letters {
    /// Connects when the first letter is sent.
    pub fn new(settings: LetterSettings, metrics: SinkMetrics) -> Result<Self, KafkaError> {
        Ok(Self {
            producer: Arc::new(Mutex::new(Arc::new(settings.producer()?))),
            settings: Arc::new(settings),
            metrics,
        })
    }

    /// Comes back once the letter is durable. One that is too large for its topic keeps its first bytes.
    pub async fn bury(
        &self,
        partition: i32,
        record: &Record,
        why: &DeadLetter,
    ) -> Result<(), KafkaError> {
        let settings = &self.settings;
        let source = DeadLetterSource {
            stage: &settings.stage,
            topic: &settings.source,
            partition,
            offset: record.offset,
            timestamp_ms: Some(record.timestamp_ms),
        };
        let key = record.key.as_deref();
        let (key_length, value_length) = (key.map_or(0, <[u8]>::len), record.value.len());
        let limit = usize::try_from(settings.limit).unwrap_or(usize::MAX);
        let kept = Kept::within(limit, key_length, value_length, why.detail.len());
        let loss = Loss {
            key: (kept.key < key_length).then_some(key_length),
            value: (kept.value < value_length).then_some(value_length),
            rebuilt: false,
        };
        let (report, outcome) = oneshot::channel();
        let report = Box::new(Mutex::new(Some(report)));
        let mut letter = BaseRecord::with_opaque_to(&settings.topic, report)
            .payload(record.value.get(..kept.value).unwrap_or_default())
            .headers(dead_letter_headers(why, &source, loss));
        if let Some(key) = key {
            letter = letter.key(key.get(..kept.key).unwrap_or_default());
        }
        self.usable()?.send(letter).map_err(|(error, _)| error)?;
        outcome.await.unwrap_or(Err(KafkaError::Canceled))?;
        self.metrics.rejected.inc();
        tracing::warn!(
            stage = settings.stage,
            partition,
            offset = record.offset,
            %why,
            "an event became a dead letter"
        );
        Ok(())
    }

    /// The producer, made anew where it failed for good: an idempotent one does when its brokers forget it.
    fn usable(&self) -> Result<Arc<ThreadedProducer<Reports>>, KafkaError> {
        let mut producer = self.producer.lock();
        if let Some((_, reason)) = producer.client().fatal_error() {
            tracing::warn!(
                stage = self.settings.stage,
                "making the producer of dead letters anew: {reason}"
            );
            let failed = std::mem::replace(&mut *producer, Arc::new(self.settings.producer()?));
            // Its drop waits for a thread to end.
            tokio::task::spawn_blocking(move || drop(failed));
        }
        Ok(Arc::clone(&producer))
    }
}
