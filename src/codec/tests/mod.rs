//! The contract's rules, each a named test, over records built by hand.

#![allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]

mod content;
mod events;
mod hostile;
mod output;
mod shapes;
mod values;

use super::{ContentChange, EventRecord, EventRules, TimeMode, decode_content, decode_event};
use crate::domain::{ContentId, DeadLetter, Event, Reason};

/// A content id, as text.
const CONTENT: &str = "25f6ae98-4cbb-41cc-8fc9-8111e899a363";
/// A user id, as text.
const USER: &str = "3090bda9-2832-4541-a33e-e92cc80a7c92";

/// The columns of a good event, without braces.
const EVENT_ROW: &str = r#""id":42,"content_id":"25f6ae98-4cbb-41cc-8fc9-8111e899a363","user_id":"3090bda9-2832-4541-a33e-e92cc80a7c92","event_type":"play","event_ts":"2025-01-01T12:30:00Z","duration_ms":12340,"device":"ios","raw_payload":"{\"k\": 1}""#;

/// The columns of a good content row, without braces.
const CONTENT_ROW: &str = r#""id":"25f6ae98-4cbb-41cc-8fc9-8111e899a363","slug":"a","title":"A","content_type":"podcast","length_seconds":1200,"publish_ts":"2024-01-01T00:00:00Z""#;

/// A row in an envelope with that operation.
fn envelope(row: &str, op: &str) -> String {
    format!(
        r#"{{"before":null,"after":{{{row}}},"source":{{"lsn":1}},"transaction":null,"op":"{op}","ts_ms":1}}"#
    )
}

/// A row flattened, with that operation.
fn flattened(row: &str, op: &str) -> String {
    format!(r#"{{{row},"__deleted":"false","__op":"{op}"}}"#)
}

/// A record inside `schema` and `payload`.
fn wrapped(record: &str) -> String {
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{{"field":"id"}}],"name":"v"}},"payload":{record}}}"#
    )
}

/// The row with one column's raw JSON replaced.
fn with(row: &str, column: &str, json: &str) -> String {
    let key = format!("\"{column}\":");
    let start = row.find(&key).expect("the column is there") + key.len();
    let rest = &row[start..];
    let mut in_string = false;
    let mut escaped = false;
    let end = rest
        .char_indices()
        .find(|(_, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = !in_string,
                ',' if !in_string => return true,
                _ => {}
            }
            false
        })
        .map_or(rest.len(), |(at, _)| at);
    format!("{}{json}{}", &row[..start], &rest[end..])
}

/// The row without one column.
fn without(row: &str, column: &str) -> String {
    with(row, column, "null").replace(&format!("\"{column}\":null"), "\"unknown\":0")
}

fn decode(value: &str) -> Result<EventRecord<'_>, DeadLetter> {
    decode_event(Some(value.as_bytes()), &EventRules::default())
}

/// The event of a record that must be one.
fn event(value: &str) -> Event<'_> {
    match decode(value) {
        Ok(EventRecord::Event(event)) => event,
        other => panic!("no event: {other:?}\n{value}"),
    }
}

/// Why a record became a dead letter, which it must.
fn event_dead(value: &str) -> Reason {
    match decode(value) {
        Err(dead) => {
            assert!(dead.detail.chars().count() <= 200, "{dead}");
            dead.reason
        }
        Ok(other) => panic!("no dead letter: {other:?}\n{value}"),
    }
}

fn change(value: &str) -> Result<ContentChange, DeadLetter> {
    decode_content(None, Some(value.as_bytes()), TimeMode::Iso)
}

fn content_dead(value: &str) -> Reason {
    match change(value) {
        Err(dead) => {
            assert!(dead.detail.chars().count() <= 200, "{dead}");
            dead.reason
        }
        Ok(other) => panic!("no dead letter: {other:?}\n{value}"),
    }
}

fn content_id() -> ContentId {
    ContentId::parse(CONTENT).expect("a content id")
}
