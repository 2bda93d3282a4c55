//! The values of our own changelogs: a version byte, then bincode. The only file that knows bincode.
//!
//! The structs here are the wire format. They are apart from the domain, so that a change there cannot change what is
//! already written; a new layout is a new version beside the old one, and a version number is never used again.

use crate::domain::{
    Checkpoint, ContentId, ContentRow, ContentType, Event, EventId, EventType, Ledger, Offset,
    ParkedEvent, Timestamp, UserId,
};
use bincode::{BorrowDecode, Encode, config};
use std::borrow::Cow;

/// The most that decoding takes in, in bytes. A record is at most 4 MiB, and all its text comes from one record.
pub const VALUE_LIMIT: usize = 16 * 1024 * 1024;

const CONTENT_V1: u8 = 1;
const PARKED_V1: u8 = 1;
const SEEN_V1: u8 = 1;
const CHECKPOINT_V1: u8 = 1;

/// Why a changelog's value cannot be read. Such a value was written by a newer version, or is no value of this topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A value of zero bytes.
    #[error("the value has zero bytes")]
    Empty,
    /// A version that this build does not know.
    #[error("the value has version {0}, which this build does not know")]
    Version(u8),
    /// The bytes do not follow the layout of their version.
    #[error("the value does not follow its layout: {0}")]
    Layout(String),
    /// Bytes follow after the layout's end.
    #[error("{0} bytes follow after the value's end")]
    Trailing(usize),
    /// A field is beyond what the domain allows.
    #[error("{field} is out of range: {found}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        found: i64,
    },
}

#[derive(Encode, BorrowDecode)]
struct ContentV1<'a> {
    id: [u8; 16],
    slug: Option<&'a str>,
    title: Option<&'a str>,
    content_type: Option<u8>,
    length_seconds: Option<i32>,
    publish_ts_micros: Option<i64>,
}

#[derive(Encode, BorrowDecode)]
struct ParkedV1<'a> {
    id: i64,
    content_id: Option<[u8; 16]>,
    user_id: Option<[u8; 16]>,
    event_type: u8,
    event_ts_micros: i64,
    duration_ms: Option<i32>,
    device: Option<&'a str>,
    raw_offset: i64,
    raw_timestamp_ms: Option<i64>,
    parked_at_ms: i64,
    backfill: Option<&'a [u8]>,
}

#[derive(Encode, BorrowDecode)]
struct SeenV1<'a> {
    /// A serialised roaring bitmap.
    bitmap: &'a [u8],
}

#[derive(Encode, BorrowDecode)]
struct CheckpointV1 {
    enriched: i64,
    topic_id: [u8; 16],
    ledger: [u64; 6],
}

/// Appends a content row.
pub fn encode_content(row: &ContentRow, out: &mut Vec<u8>) {
    encode(
        CONTENT_V1,
        ContentV1 {
            id: row.id.0,
            slug: row.slug.as_deref(),
            title: row.title.as_deref(),
            content_type: row.content_type.map(content_type_code),
            length_seconds: row.length_seconds,
            publish_ts_micros: row.publish_ts.map(Timestamp::micros),
        },
        out,
    );
}

/// Reads a content row.
pub fn decode_content_row(value: &[u8]) -> Result<ContentRow, ValueError> {
    let wire: ContentV1<'_> = decode(CONTENT_V1, value)?;
    Ok(ContentRow {
        id: ContentId(wire.id),
        slug: wire.slug.map(str::to_owned),
        title: wire.title.map(str::to_owned),
        content_type: wire.content_type.map(content_type).transpose()?,
        length_seconds: count("length_seconds", wire.length_seconds)?,
        publish_ts: wire
            .publish_ts_micros
            .map(|micros| timestamp("publish_ts", micros))
            .transpose()?,
    })
}

/// Appends a parked event.
pub fn encode_parked(parked: &ParkedEvent<'_>, out: &mut Vec<u8>) {
    let event = &parked.event;
    encode(
        PARKED_V1,
        ParkedV1 {
            id: event.id.0,
            content_id: event.content_id.map(|id| id.0),
            user_id: event.user_id.map(|id| id.0),
            event_type: event_type_code(event.event_type),
            event_ts_micros: event.event_ts.micros(),
            duration_ms: event.duration_ms,
            device: event.device.as_deref(),
            raw_offset: parked.raw_offset.0,
            raw_timestamp_ms: parked.raw_timestamp_ms,
            parked_at_ms: parked.parked_at_ms,
            backfill: parked.backfill.as_deref(),
        },
        out,
    );
}

/// Reads a parked event; its text borrows from the value.
pub fn decode_parked(value: &[u8]) -> Result<ParkedEvent<'_>, ValueError> {
    let wire: ParkedV1<'_> = decode(PARKED_V1, value)?;
    Ok(ParkedEvent {
        event: Event {
            id: EventId(wire.id),
            content_id: wire.content_id.map(ContentId),
            user_id: wire.user_id.map(UserId),
            event_type: event_type(wire.event_type)?,
            event_ts: timestamp("event_ts", wire.event_ts_micros)?,
            duration_ms: count("duration_ms", wire.duration_ms)?,
            device: wire.device.map(Cow::Borrowed),
        },
        raw_offset: Offset(wire.raw_offset),
        raw_timestamp_ms: wire.raw_timestamp_ms,
        parked_at_ms: wire.parked_at_ms,
        backfill: wire.backfill.map(Cow::Borrowed),
    })
}

/// Appends a container of published ids: a serialised roaring bitmap.
pub fn encode_seen(bitmap: &[u8], out: &mut Vec<u8>) {
    encode(SEEN_V1, SeenV1 { bitmap }, out);
}

/// Reads a container of published ids: a serialised roaring bitmap.
pub fn decode_seen(value: &[u8]) -> Result<&[u8], ValueError> {
    let wire: SeenV1<'_> = decode(SEEN_V1, value)?;
    Ok(wire.bitmap)
}

/// Appends a checkpoint of the published ids.
pub fn encode_checkpoint(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    let ledger = &checkpoint.ledger;
    let wire = CheckpointV1 {
        enriched: checkpoint.enriched.0,
        topic_id: checkpoint.topic_id,
        ledger: [
            ledger.consumed,
            ledger.enriched,
            ledger.dead,
            ledger.duplicate,
            ledger.ignored,
            ledger.pending,
        ],
    };
    encode(CHECKPOINT_V1, wire, out);
}

/// Reads a checkpoint of the published ids.
pub fn decode_checkpoint(value: &[u8]) -> Result<Checkpoint, ValueError> {
    let wire: CheckpointV1 = decode(CHECKPOINT_V1, value)?;
    let [consumed, enriched, dead, duplicate, ignored, pending] = wire.ledger;
    Ok(Checkpoint {
        enriched: Offset(wire.enriched),
        topic_id: wire.topic_id,
        ledger: Ledger {
            consumed,
            enriched,
            dead,
            duplicate,
            ignored,
            pending,
        },
    })
}

fn layout() -> impl config::Config {
    config::standard().with_limit::<VALUE_LIMIT>()
}

fn encode(version: u8, wire: impl Encode, out: &mut Vec<u8>) {
    out.push(version);
    bincode::encode_into_std_write(wire, out, layout())
        .expect("plain fields always encode, and memory always takes them");
}

fn decode<'a, T: BorrowDecode<'a, ()>>(version: u8, value: &'a [u8]) -> Result<T, ValueError> {
    let (found, rest) = value.split_first().ok_or(ValueError::Empty)?;
    if *found != version {
        return Err(ValueError::Version(*found));
    }
    let (wire, read) = bincode::borrow_decode_from_slice(rest, layout())
        .map_err(|error| ValueError::Layout(error.to_string()))?;
    match rest.len() - read {
        0 => Ok(wire),
        trailing => Err(ValueError::Trailing(trailing)),
    }
}

fn content_type_code(kind: ContentType) -> u8 {
    match kind {
        ContentType::Podcast => 1,
        ContentType::Newsletter => 2,
        ContentType::Video => 3,
    }
}

fn content_type(code: u8) -> Result<ContentType, ValueError> {
    match code {
        1 => Ok(ContentType::Podcast),
        2 => Ok(ContentType::Newsletter),
        3 => Ok(ContentType::Video),
        _ => Err(range("content_type", code)),
    }
}

fn event_type_code(kind: EventType) -> u8 {
    match kind {
        EventType::Play => 1,
        EventType::Pause => 2,
        EventType::Finish => 3,
        EventType::Click => 4,
    }
}

fn event_type(code: u8) -> Result<EventType, ValueError> {
    match code {
        1 => Ok(EventType::Play),
        2 => Ok(EventType::Pause),
        3 => Ok(EventType::Finish),
        4 => Ok(EventType::Click),
        _ => Err(range("event_type", code)),
    }
}

fn count(field: &'static str, count: Option<i32>) -> Result<Option<i32>, ValueError> {
    match count {
        Some(count) if count < 0 => Err(range(field, count)),
        _ => Ok(count),
    }
}

fn timestamp(field: &'static str, micros: i64) -> Result<Timestamp, ValueError> {
    Timestamp::from_micros(micros).ok_or_else(|| range(field, micros))
}

fn range(field: &'static str, found: impl Into<i64>) -> ValueError {
    let found = found.into();
    ValueError::Range { field, found }
}
