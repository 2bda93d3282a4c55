//! The Redis sink driven by hand, without Kafka: logs in memory, and lanes that deliver them to a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;

use rand::Rng;
use thmanyah::config::{Config, Flags, Layers, RedisConfig};
use thmanyah::health::Health;
use thmanyah::metrics::Metrics;
use thmanyah::sinks::{
    Batch, Breaker, Condition, Destination, Frame, Lane, LetterSettings, Letters, Record,
    RedisLane, RedisSink, SinkError, Switch, Taken,
};
use thmanyah_dev::Redis;

use crate::board::Engaged;
use crate::flow::now_ms;
use crate::oracle::{EventRow, expected_enriched};
use crate::redis_view::hostile_events;

const TOPIC: [u8; 16] = [7; 16];
/// A sink holds one connection at a time, so the second must do.
const ATTEMPTS: usize = 2;
/// Hash tag of the keys.
pub const PREFIX: &str = "thm";

/// The sink's settings, given as variables of the environment.
pub fn config(url: &str, settings: &[(&str, &str)]) -> RedisConfig {
    let fixed = [
        ("THMANYAH_KAFKA__BOOTSTRAP_SERVERS", "localhost:1"),
        ("THMANYAH_INSTANCE", "0"),
        ("THMANYAH_STATE_DIR", "."),
        ("THMANYAH_SINKS__REDIS__URL", url),
    ];
    let environment = fixed
        .iter()
        .chain(settings)
        .map(|(name, value)| (name.into(), value.into()));
    let layers = Layers::from_parts(&Flags::default(), environment).unwrap();
    Config::load(&layers).unwrap().sinks.redis
}

/// A sink as a process would have it.
pub fn sink(redis: &Redis) -> RedisSink {
    RedisSink::new(&config(&redis.url(), &[]))
}

/// What the frame gives a lane. No record here is a dead letter, so the producer of those is never used.
pub fn frame() -> Frame {
    let metrics = Metrics::new().sink("redis");
    let breaker = Arc::new(Breaker::new());
    let settings = LetterSettings {
        client: rdkafka::ClientConfig::new(),
        topic: "dlq".into(),
        limit: 1_000_000,
        stage: "sink-redis".into(),
        source: "enriched".into(),
    };
    Frame {
        condition: Condition::new(
            "redis",
            Arc::new(Health::new()),
            metrics.clone(),
            Arc::clone(&breaker),
        ),
        letters: Letters::new(settings, metrics.clone()).unwrap(),
        metrics,
        breaker,
        switch: Switch::default(),
    }
}

/// One partition's log. Its offsets have gaps, and its end is behind a mark that is no record.
pub struct Log {
    /// Its number.
    pub partition: i32,
    /// How many there are.
    pub partitions: i32,
    /// In the order of their offsets.
    pub records: Vec<Record>,
}

impl Log {
    /// As a destination is told of it.
    pub fn taken(&self) -> Taken {
        Taken {
            partition: self.partition,
            partitions: self.partitions,
            topic_id: TOPIC,
            log_start: 0,
            log_end: self.records.last().map_or(0, |record| record.offset + 2),
            committed: None,
        }
    }

    /// Some records from a position on.
    pub fn batch(&self, position: i64, most: usize) -> Batch {
        let from = self
            .records
            .partition_point(|record| record.offset < position);
        let records = self.records.iter().skip(from).take(most).cloned().collect();
        Batch { records }
    }

    /// What the oracle is asked with.
    pub fn events<'l>(logs: impl IntoIterator<Item = &'l Self>) -> Vec<Engaged> {
        let records = logs.into_iter().flat_map(|log| &log.records);
        records
            .map(|record| Engaged::parse(&record.value, record.timestamp_ms).unwrap())
            .collect()
    }
}

/// Logs of so many events each.
pub fn logs(rng: &mut impl Rng, partitions: i32, events: i64) -> Vec<Log> {
    let now = now_ms();
    let log = |partition| {
        let first = i64::from(partition) * events;
        let rows = hostile_events(rng, first..first + events, now);
        let record = |(place, row): (usize, &EventRow)| {
            let place = i64::try_from(place).unwrap();
            Record {
                offset: place + place / 50,
                timestamp_ms: now - 60_000 + place,
                key: None,
                value: expected_enriched(row, None),
            }
        };
        Log {
            partition,
            partitions,
            records: rows.iter().enumerate().map(record).collect(),
        }
    };
    (0..partitions).map(log).collect()
}

/// Prepares, and takes the partition over; again when the connection turns out to be one to a server that is gone.
pub async fn open(sink: &RedisSink, log: &Log) -> (RedisLane, i64) {
    for _ in 0..ATTEMPTS {
        if sink.prepare().await.is_ok() {
            break;
        }
    }
    sink.prepare().await.unwrap();
    match sink.open(log.taken(), frame()).await {
        // Beyond the log's end it is looked twice.
        Err(SinkError::Unavailable(_)) => sink.open(log.taken(), frame()).await.unwrap(),
        opened => opened.unwrap(),
    }
}

/// Delivers what is left of a log.
pub async fn deliver_rest(sink: &RedisSink, log: &Log) {
    let (mut lane, start) = open(sink, log).await;
    let batch = log.batch(start, usize::MAX);
    if !batch.records.is_empty() {
        lane.deliver(&batch).await.unwrap();
    }
    lane.caught_up().await.unwrap();
}

/// Delivers what is left of logs.
pub async fn deliver_all(sink: &RedisSink, logs: &[Log]) {
    for log in logs {
        deliver_rest(sink, log).await;
    }
}
