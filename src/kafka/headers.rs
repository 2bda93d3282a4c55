//! Facts as Kafka headers: UTF-8 text, integers in decimal, each value its own header.

use crate::domain::{ContentVersion, DeadLetter, JoinStatus};
use crate::enricher::Loss;
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
pub fn dead_letter_headers(
    why: &DeadLetter,
    source: &DeadLetterSource<'_>,
    loss: Loss,
) -> OwnedHeaders {
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
    if let Some(length) = loss.value {
        headers = headers.number("dlq-truncated", length);
    }
    if let Some(length) = loss.key {
        headers = headers.number("dlq-truncated-key", length);
    }
    if loss.rebuilt {
        headers = headers.text("dlq-rebuilt", "true");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Kept, enriched_headers_bytes};
    use crate::domain::{Offset, Partition, Reason};
    use rdkafka::message::Headers as _;

    /// What the headers take in a record: two lengths each, a byte or more.
    fn bytes(headers: &OwnedHeaders) -> usize {
        let length = |bytes: usize| bytes + if bytes < 64 { 1 } else { 2 };
        headers
            .iter()
            .map(|header| length(header.key.len()) + length(header.value.map_or(0, <[u8]>::len)))
            .sum()
    }

    #[test]
    fn the_longest_headers_take_no_more_than_is_reckoned_with() {
        let backfill = b"x".repeat(100);
        let enriched = enriched_headers(&EnrichedSource {
            partition: i32::MAX,
            offset: i64::MAX,
            timestamp_ms: Some(i64::MIN),
            content_version: Some(ContentVersion {
                partition: Partition(i32::MAX),
                offset: Offset(i64::MAX),
            }),
            join_status: JoinStatus::Timeout,
            backfill: Some(&backfill),
        });
        assert!(bytes(&enriched) <= enriched_headers_bytes(Some(100)));

        let detail = "y".repeat(100);
        let why = DeadLetter::new(Reason::UnknownContentType, detail);
        let topic = "t".repeat(249);
        let source = DeadLetterSource {
            stage: "materializer",
            topic: &topic,
            partition: i32::MAX,
            offset: i64::MAX,
            timestamp_ms: Some(i64::MIN),
        };
        let loss = Loss {
            key: Some(usize::MAX),
            value: Some(usize::MAX),
            rebuilt: true,
        };
        let headers = bytes(&dead_letter_headers(&why, &source, loss));
        // What is kept beside headers of this length fits a record of the limit.
        let kept = Kept::within(10_000, 0, usize::MAX, why.detail.len());
        assert!(headers + kept.value < 10_000 - 61, "{headers}");
    }
}
