//! The sink to an external system driven by hand, without Kafka: one partition, and nothing that becomes a dead letter.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use thmanyah::config::ExternalConfig;
use thmanyah::domain::{ContentId, Event, EventId, EventType, Timestamp};
use thmanyah::health::Health;
use thmanyah::metrics::Metrics;
use thmanyah::sinks::{
    Batch, Breaker, Condition, Destination, ExternalSink, Frame, Lane, LetterSettings, Letters,
    Record, SinkError, Switch, Taken,
};

use crate::published::{content_id, json};

/// How long something is waited for.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The settings for a system at this address, with nothing that proves a request.
pub fn settings(url: &str) -> ExternalConfig {
    ExternalConfig {
        url: Some(url.to_owned()),
        lanes: 4,
        timeout: Duration::from_secs(5),
        bearer_token: None,
        bearer_token_file: None,
        username: None,
        password: None,
        password_file: None,
        hmac_key: None,
        hmac_key_file: None,
        ca_file: None,
        batch_records: 100,
        linger: Duration::ZERO,
    }
}

/// A frame, and who is told of the condition.
pub fn frame() -> (Frame, Arc<Health>) {
    // A test may be the second one here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (metrics, health) = (Metrics::new().sink("http"), Arc::new(Health::default()));
    let breaker = Arc::new(Breaker::new());
    let letters = LetterSettings {
        client: ClientConfig::new(),
        topic: "dlq".to_owned(),
        limit: 1 << 20,
        stage: "sink-http".to_owned(),
        source: "enriched".to_owned(),
    };
    let condition = Condition::new(
        "http",
        Arc::clone(&health),
        metrics.clone(),
        Arc::clone(&breaker),
    );
    let frame = Frame {
        letters: Letters::new(letters, metrics.clone()).unwrap(),
        condition: condition.of(3),
        metrics,
        breaker,
        switch: Switch::default(),
    };
    (frame, health)
}

/// A lane of partition 3, opened as the frame opens it.
pub async fn open(config: &ExternalConfig, frame: &Frame) -> Result<impl Lane + use<>, SinkError> {
    let sink = ExternalSink::new(config)?;
    sink.prepare().await?;
    let taken = Taken {
        partition: 3,
        partitions: 4,
        topic_id: [7; 16],
        log_start: 5,
        log_end: 100,
        committed: None,
    };
    let (lane, start) = sink.open(taken.clone(), frame.clone()).await?;
    assert_eq!(start, 5, "nothing is committed: the log's start");
    let committed = Some(42);
    let (_, start) = sink
        .open(Taken { committed, ..taken }, frame.clone())
        .await?;
    assert_eq!(start, 42);
    Ok(lane)
}

/// An event as it was published.
fn record(id: i64, content: Option<ContentId>) -> Record {
    let event = Event {
        id: EventId(id),
        content_id: content,
        user_id: None,
        event_type: EventType::Play,
        event_ts: Timestamp::MIN,
        duration_ms: Some(1),
        device: Some("آيفون".into()),
    };
    Record {
        offset: id,
        timestamp_ms: 0,
        key: Some(id.to_string().into_bytes()),
        value: json(&event, None),
    }
}

/// So many events about three contents.
pub fn batch(events: i64) -> Batch {
    let of = |id| record(id, Some(content_id(u32::try_from(id % 3).unwrap())));
    Batch {
        records: (1..=events).map(of).collect(),
    }
}

/// Waits until the sink has a reason for being unwell.
pub async fn reason(health: &Health) -> String {
    let begun = Instant::now();
    loop {
        if let Some(reason) = health.unwell().get("sink-http") {
            return reason.clone();
        }
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
