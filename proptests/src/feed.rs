//! Records for the two input topics, written as Debezium writes them, and some that it would not write.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use thmanyah_dev::Broker;

use crate::oracle::{EventRow, utc};

/// Marks records that must become dead letters, so that a reader of the topic knows them.
pub const HOSTILE: &str = "test-hostile";

/// The value of no event and no content row, and the reason that a dead letter must give.
pub const POISON: [(&str, &str); 5] = [
    ("empty", ""),
    ("not-json", "{\"op\":\"c\""),
    ("unknown-shape", "[]"),
    ("op-unsupported", "{\"op\":\"t\",\"after\":null}"),
    ("field-missing", "{\"op\":\"c\",\"after\":{\"slug\":\"s\"}}"),
];

const FLUSH_LIMIT: Duration = Duration::from_secs(20);

/// A producer without transactions.
pub struct Feed {
    producer: BaseProducer,
}

impl Feed {
    /// A producer with the partitioner that Debezium's has.
    pub fn new(broker: &Broker) -> Result<Self> {
        let mut client = broker.client();
        client.set("linger.ms", "0");
        Self::with(client)
    }

    /// The same, with settings of its own.
    pub fn with(mut client: ClientConfig) -> Result<Self> {
        let producer = client
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "16777216")
            .create()?;
        Ok(Self { producer })
    }

    /// Queues a record; without a partition the key decides.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        record.partition = partition;
        record.key = key;
        record.payload = value;
        if !headers.is_empty() {
            let mut owned = OwnedHeaders::new();
            for (key, value) in headers {
                owned = owned.insert(Header {
                    key,
                    value: Some(*value),
                });
            }
            record.headers = Some(owned);
        }
        self.producer
            .send(record)
            .map_err(|(error, _)| anyhow!("{topic}: {error}"))?;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Serves delivery reports.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Records that are not in the log yet.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// Waits until everything is in the log.
    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(FLUSH_LIMIT)?)
    }
}

/// The key of an event's record.
pub fn event_key(id: i64) -> Vec<u8> {
    format!("{{\"id\":{id}}}").into_bytes()
}

/// The key of a content row's record.
pub fn content_key(id: &str) -> Vec<u8> {
    format!("{{\"id\":\"{id}\"}}").into_bytes()
}

/// An envelope with that operation around a row.
pub fn envelope(op: &str, before: &Value, after: &Value) -> Vec<u8> {
    let source = json!({"connector": "postgresql", "ts_ms": 1, "lsn": 1});
    json!({"before": before, "after": after, "source": source, "op": op, "ts_ms": 1})
        .to_string()
        .into_bytes()
}

/// The row as it stands in an envelope.
pub fn event_json(row: &EventRow) -> Value {
    json!({
        "id": row.id,
        "content_id": row.content_id,
        "user_id": row.user_id,
        "event_type": row.event_type,
        "event_ts": utc(row.event_ts_micros),
        "duration_ms": row.duration_ms,
        "device": row.device,
        "raw_payload": "{\"k\": 1}",
    })
}

/// The insert of an event.
pub fn event_value(row: &EventRow) -> Vec<u8> {
    envelope("c", &Value::Null, &event_json(row))
}

/// A content row as it stands in an envelope.
pub fn content_json(id: &str, content_type: &str, length_seconds: Option<i32>) -> Value {
    json!({
        "id": id,
        "slug": "a-slug",
        "title": "عنوان",
        "content_type": content_type,
        "length_seconds": length_seconds,
        "publish_ts": "2024-01-01T00:00:00Z",
    })
}

/// The insert of a content row.
pub fn content_value(id: &str, content_type: &str, length_seconds: Option<i32>) -> Vec<u8> {
    let row = content_json(id, content_type, length_seconds);
    envelope("c", &Value::Null, &row)
}

/// A plain event that plays a content.
pub fn play(id: i64, content_id: Option<&str>) -> EventRow {
    // Any id makes a legal event.
    let small = id.rem_euclid(1_000_000);
    EventRow {
        id,
        content_id: content_id.map(str::to_owned),
        user_id: Some(format!("00000000-0000-4000-9000-{:012}", small % 1000)),
        event_type: "play".to_owned(),
        event_ts_micros: 1_735_734_600_000_000 + small * 1_001_000,
        duration_ms: Some(i32::try_from(small * 997 % 3_000_000).unwrap_or_default()),
        device: (small % 3 != 0).then(|| "آيفون \"ios\"".to_owned()),
    }
}

/// A content id made of a number.
pub fn content_id(number: u32) -> String {
    format!("c0000000-0000-4000-8000-{number:012}")
}
