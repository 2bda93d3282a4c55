//! Facts as Kafka headers: UTF-8 text, integers in decimal, each value its own header.

use crate::domain::{ContentVersion, DeadLetter, JoinStatus};
use rdkafka::message::{Header, OwnedHeaders};

/// Where a dead letter comes from.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterSource<'a> {
    /// Which part refused it: `enricher`, `materializer`, `sink-…`.
    pub stage: &'a str,
    /// Topic of the record.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds, if it has one.
    pub timestamp_ms: Option<i64>,
}

/// The headers of a dead letter.
pub fn dead_letter_headers(why: &DeadLetter, source: &DeadLetterSource<'_>) -> OwnedHeaders {
    let mut headers = Headers::with_capacity(7)
        .text("dlq-reason", why.reason.code())
        .text("dlq-detail", &why.detail)
        .text("dlq-stage", source.stage)
        .text("dlq-source-topic", source.topic)
        .number("dlq-source-partition", source.partition)
        .number("dlq-source-offset", source.offset);
    if let Some(ms) = source.timestamp_ms {
        headers = headers.number("dlq-source-timestamp", ms);
    }
    headers.0
}

/// What an enriched record tells beside its value.
#[derive(Clone, Copy, Debug)]
pub struct EnrichedSource<'a> {
    /// Partition of the raw record.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Which write of the content row was joined.
    pub content_version: Option<ContentVersion>,
    /// How the two met.
    pub join_status: JoinStatus,
    /// The raw record's `backfill` header.
    pub backfill: Option<&'a [u8]>,
}

/// The headers of an enriched record.
pub fn enriched_headers(source: &EnrichedSource<'_>) -> OwnedHeaders {
    let mut headers = Headers::with_capacity(6)
        .number("raw-partition", source.partition)
        .number("raw-offset", source.offset);
    if let Some(ms) = source.timestamp_ms {
        headers = headers.number("raw-timestamp", ms);
    }
    if let Some(version) = source.content_version {
        headers = headers.pair("content-version", version.partition.0, version.offset.0);
    }
    headers = headers.text("join-status", source.join_status.name());
    if let Some(backfill) = source.backfill {
        headers = headers.bytes("backfill", backfill);
    }
    headers.0
}

/// Adds headers without a `String` for each number.
struct Headers(OwnedHeaders);

impl Headers {
    fn with_capacity(count: usize) -> Self {
        Self(OwnedHeaders::new_with_capacity(count))
    }

    fn bytes(self, key: &str, value: &[u8]) -> Self {
        Self(self.0.insert(Header {
            key,
            value: Some(value),
        }))
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.bytes(key, value.as_bytes())
    }

    fn number(self, key: &str, value: impl itoa::Integer) -> Self {
        self.text(key, itoa::Buffer::new().format(value))
    }

    /// `first:second`.
    fn pair(self, key: &str, first: impl itoa::Integer, second: impl itoa::Integer) -> Self {
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (first, second) = (a.format(first).as_bytes(), b.format(second).as_bytes());
        let mut text = [0u8; 41];
        let len = first.len() + 1 + second.len();
        let parts = first.iter().chain(b":").chain(second);
        for (to, from) in text.iter_mut().zip(parts) {
            *to = *from;
        }
        self.bytes(key, text.get(..len).unwrap_or_default())
    }
}
