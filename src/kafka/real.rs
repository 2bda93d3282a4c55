//! The real edge: librdkafka, RocksDB and the system's clocks.

use super::changelog::{ChangelogError, ChangelogReader};
use super::consumer::RealConsumer;
use super::edge::Edge;
use super::limits::{LimitReader, TopicLimits};
use super::member::{Callbacks, MemberSettings};
use super::offsets::{Isolation, OffsetReader, OffsetsError};
use super::producer::ProducerSettings;
use super::real_producer::{Buffers, RealProducer};
use crossbeam_channel::RecvTimeoutError;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thmanyah_state::Store;

/// How long closing a consumer is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The brokers, as clients reach them.
#[derive(Clone)]
pub struct Kafka {
    /// Bootstrap servers and the user's own properties.
    client: ClientConfig,
    /// The same, with how much a consumer fetches ahead.
    consumer: ClientConfig,
    /// What one producer may hold, in bytes.
    sent: u64,
    limits: LimitReader,
    /// What one batch may hold, in bytes.
    batch: Arc<AtomicU64>,
}

impl Kafka {
    /// Clients will be made with these properties. One consumer fetches `fetched` bytes ahead, one producer holds `sent`
    /// bytes; batches stay below what `limits` say.
    pub fn new(
        client: ClientConfig,
        (fetched, sent): (u64, u64),
        limits: LimitReader,
        now: &TopicLimits,
    ) -> Self {
        Self {
            consumer: super::consumer_config(&client, fetched),
            client,
            sent,
            limits,
            batch: Arc::new(AtomicU64::new(now.smallest())),
        }
    }

    /// What every consumer begins with.
    pub fn consumer(&self) -> ClientConfig {
        self.consumer.clone()
    }
}

/// Lets a join that is under way end, but waits for that only so long: closing can hang for ever while an assignment is
/// under way, when its revoke is answered to a group that has terminated already. The thread that hangs then ends with the
/// process.
pub(crate) fn close_within_limit(close: impl FnOnce() + Send + 'static) {
    let (closing, closed) = crossbeam_channel::bounded::<()>(0);
    let close = move || {
        close();
        drop(closing);
    };
    let name = "close".to_owned();
    if std::thread::Builder::new().name(name).spawn(close).is_ok()
        && closed.recv_timeout(CLOSE_LIMIT) == Err(RecvTimeoutError::Timeout)
    {
        tracing::warn!("a consumer did not close within {CLOSE_LIMIT:?}; it is left behind");
    }
}

impl Edge for Kafka {
    type Producer = RealProducer;
    type Consumer = RealConsumer;
    type Group = ConsumerGroupMetadata;
    type Offsets = OffsetReader;
    type Reader = ChangelogReader;
    type Store = Store;

    fn producer(&self, settings: &ProducerSettings) -> Result<RealProducer, String> {
        let buffers = Buffers {
            queue: self.sent,
            batch: self.batch.load(Ordering::Relaxed),
        };
        RealProducer::new(&self.client, settings, buffers).map_err(|error| error.to_string())
    }

    fn join(
        &self,
        settings: &MemberSettings,
        callbacks: Arc<Callbacks<Self>>,
    ) -> Result<RealConsumer, String> {
        super::consumer::join(&self.consumer, settings, callbacks)
            .map_err(|error| error.to_string())
    }

    fn close(&self, consumer: RealConsumer) {
        close_within_limit(move || drop(consumer));
    }

    fn offsets(&self, group: &str, isolation: Isolation) -> Result<OffsetReader, OffsetsError> {
        OffsetReader::new(&self.consumer, group, isolation)
    }

    fn reader(
        &self,
        topic: &str,
        starts: BTreeMap<i32, i64>,
    ) -> Result<ChangelogReader, ChangelogError> {
        ChangelogReader::open(&self.consumer, topic, starts)
    }

    fn limits(&self) -> Option<TopicLimits> {
        match self.limits.read() {
            Ok(limits) => limits.inspect(|now| self.batch.store(now.smallest(), Ordering::Relaxed)),
            Err(error) => {
                tracing::warn!("cannot find out what records the topics take: {error}");
                None
            }
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn now_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }

    #[allow(clippy::disallowed_methods)]
    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
