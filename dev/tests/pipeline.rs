//! Rows of the two tables reach the two input topics through the real Debezium.

use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use thmanyah_dev::{Broker, BrokerOptions, Connect, INPUT_TOPICS, Postgres};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CONTENT: &str = "11111111-1111-4111-8111-111111111111";

#[test]
fn rows_present_before_and_after_the_connector_started_reach_the_topics() -> Outcome {
    let broker = Broker::start(BrokerOptions::default())?;
    let postgres = Postgres::start()?;
    postgres.query(&format!(
        "INSERT INTO content VALUES ('{CONTENT}', 'fnjan', 'فنجان', 'podcast', 1200, now())"
    ))?;
    let connect = Connect::start(&broker, &postgres, 4)?;
    // Had the snapshot not been over, this event could have been part of it (op `r`).
    postgres.query(&format!(
        "INSERT INTO engagement_events (content_id, event_type, event_ts, duration_ms) \
         VALUES ('{CONTENT}', 'play', '2025-01-01T12:30:00Z', 12340)"
    ))?;

    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", "probe")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    consumer.subscribe(&INPUT_TOPICS)?;
    let (mut content, mut event) = (None, None);
    let start = Instant::now();
    while content.is_none() || event.is_none() {
        assert!(start.elapsed() < Duration::from_secs(30), "no record");
        // A poll may end early and without a record, as when partitions are assigned.
        let Some(record) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let record = record?;
        let value: serde_json::Value = serde_json::from_slice(record.payload().unwrap_or(b"null"))?;
        match record.topic() {
            "content.raw" => content = Some(value),
            _ => event = Some(value),
        }
    }
    let (content, event) = (content.unwrap_or_default(), event.unwrap_or_default());
    assert_eq!(content.pointer("/op"), Some(&"r".into()));
    assert_eq!(content.pointer("/after/title"), Some(&"فنجان".into()));
    assert_eq!(event.pointer("/op"), Some(&"c".into()));
    assert_eq!(event.pointer("/after/duration_ms"), Some(&12_340.into()));
    connect.stop();
    Ok(())
}
