//! Records between Kafka and the step: a polled one as the step wants it, a staged output as the producer wants it.

use super::parts::WorkerSettings;
use crate::domain::Offset;
use crate::enricher::{Headers, Output, RawRecord, Staged, Stream};
use crate::kafka::{
    DeadLetterSource, EnrichedSource, Outgoing, Track, dead_letter_headers, enriched_headers,
};
use rdkafka::message::{Headers as _, Message};

/// A record as the step wants it.
pub(super) fn raw_record(record: &impl Message) -> RawRecord<'_> {
    let backfill = record.headers().and_then(|headers| {
        headers
            .iter()
            .find(|header| header.key == "backfill")
            .and_then(|header| header.value)
    });
    RawRecord {
        offset: Offset(record.offset()),
        timestamp_ms: record.timestamp().to_millis(),
        key: record.key(),
        value: record.payload(),
        backfill,
    }
}

/// A staged output as the producer wants it.
pub(super) fn outgoing<'a>(
    settings: &'a WorkerSettings,
    staged: &'a Staged,
    output: &'a Output,
) -> Outgoing<'a> {
    let (topic, partition, track) = match output.stream {
        Stream::Enriched => (
            &settings.enriched_topic,
            Some(output.partition.0),
            Some(Track::Enriched),
        ),
        Stream::Pending => (
            &settings.pending_topic,
            Some(output.partition.0),
            Some(Track::Pending),
        ),
        Stream::DeadLetters => (&settings.dlq_topic, None, None),
    };
    let headers = match &output.headers {
        Headers::None => None,
        Headers::Enriched {
            raw_offset,
            raw_timestamp_ms,
            content_version,
            join_status,
            backfill,
        } => Some(enriched_headers(&EnrichedSource {
            partition: output.partition.0,
            offset: raw_offset.0,
            timestamp_ms: *raw_timestamp_ms,
            content_version: *content_version,
            join_status: *join_status,
            backfill: backfill.as_ref().map(|span| staged.bytes(span)),
        })),
        Headers::DeadLetter {
            why,
            raw_offset,
            raw_timestamp_ms,
            loss,
        } => Some(dead_letter_headers(
            why,
            &DeadLetterSource {
                stage: "enricher",
                topic: &settings.raw_topic,
                partition: output.partition.0,
                offset: raw_offset.0,
                timestamp_ms: *raw_timestamp_ms,
            },
            *loss,
        )),
    };
    Outgoing {
        topic,
        partition,
        key: output.key.as_ref().map(|span| staged.bytes(span)),
        value: output.value.as_ref().map(|span| staged.bytes(span)),
        headers,
        track,
    }
}
