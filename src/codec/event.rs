//! `engagement-events.raw`: from a record's value to a validated event.

use super::document::{Document, Found, Row, Shape, Table};
use super::scalar::{Field, Raw, TimeMode};
use super::text::excerpt;
use crate::domain::{ContentId, DeadLetter, Event, EventId, EventType, Reason, UserId};
use serde::Deserialize;
use std::borrow::Cow;

/// What an event record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventRecord<'a> {
    /// An event to process.
    Event(Event<'a>),
    /// Nothing to process, and nothing wrong.
    Ignored(IgnoredWhy),
}

/// Why a record is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredWhy {
    /// A null value, as Debezium sends after a delete.
    Tombstone,
    /// An update or a delete, which this topic is configured to ignore.
    Operation,
}

/// What becomes of an operation that an engagement event, being a fact, should not meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationRule {
    /// It becomes a dead letter.
    #[default]
    DeadLetter,
    /// It is ignored and counted.
    Ignore,
}

/// How the records of an event topic are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRules {
    /// What becomes of updates.
    pub updates: OperationRule,
    /// What becomes of deletes.
    pub deletes: OperationRule,
    /// How `event_ts` is written.
    pub time: TimeMode,
}

struct Events;

impl Table for Events {
    const NAMES: &'static [&'static str] = &[
        "id",
        "content_id",
        "user_id",
        "event_type",
        "event_ts",
        "duration_ms",
        "device",
    ];

    #[inline]
    fn column(name: &str) -> Option<usize> {
        Some(match name {
            "id" => 0,
            "content_id" => 1,
            "user_id" => 2,
            "event_type" => 3,
            "event_ts" => 4,
            "duration_ms" => 5,
            "device" => 6,
            _ => return None,
        })
    }
}

/// Decodes the value of an event record; `None` is Kafka's null.
pub fn decode_event<'a>(
    value: Option<&'a [u8]>,
    rules: &EventRules,
) -> Result<EventRecord<'a>, DeadLetter> {
    let Some(bytes) = value else {
        return Ok(EventRecord::Ignored(IgnoredWhy::Tombstone));
    };
    let document = Document::parse::<Events>(bytes)?;
    let (operation, row) = match document.shape()? {
        Shape::Flattened(row) => {
            let operation = if deleted(row)? {
                Operation::Delete
            } else {
                match row.op {
                    Some(op) => operation(Some(op))?,
                    None => Operation::Insert,
                }
            };
            (operation, row)
        }
        Shape::Envelope { op, found, after } => {
            let operation = operation(op)?;
            if matches!(operation, Operation::Insert) {
                row_is_there(found)?;
            }
            (operation, after)
        }
    };
    let (rule, reason) = match operation {
        Operation::Insert => return event(row, rules.time).map(EventRecord::Event),
        Operation::Update => (rules.updates, Reason::OpUpdate),
        Operation::Delete => (rules.deletes, Reason::OpDelete),
    };
    match rule {
        OperationRule::Ignore => Ok(EventRecord::Ignored(IgnoredWhy::Operation)),
        OperationRule::DeadLetter => Err(DeadLetter::new(
            reason,
            "an engagement event is a fact: it is neither changed nor deleted",
        )),
    }
}

/// An operation of Debezium that has a meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// `c`, or `r` of a snapshot.
    Insert,
    /// `u`.
    Update,
    /// `d`.
    Delete,
}

/// Reads `op` or `__op`. Missing, null, of another type, truncating and unknown ones are all unsupported.
pub(super) fn operation(op: Option<Raw<'_>>) -> Result<Operation, DeadLetter> {
    let Some(Raw(raw)) = op else {
        return Err(DeadLetter::new(Reason::OpUnsupported, "no operation"));
    };
    match raw {
        r#""c""# | r#""r""# => Ok(Operation::Insert),
        r#""u""# => Ok(Operation::Update),
        r#""d""# => Ok(Operation::Delete),
        _ => match Field::new("op", op).text() {
            // The same letters, written as escapes.
            Ok(Some(text)) if matches!(&*text, "c" | "r") => Ok(Operation::Insert),
            Ok(Some(text)) if text == "u" => Ok(Operation::Update),
            Ok(Some(text)) if text == "d" => Ok(Operation::Delete),
            _ => Err(DeadLetter::new(
                Reason::OpUnsupported,
                format!("operation {}", excerpt(raw)),
            )),
        },
    }
}

/// Whether a flattened row says that it was deleted.
pub(super) fn deleted(row: &Row<'_>) -> Result<bool, DeadLetter> {
    let text = Field::new("__deleted", row.deleted).text()?;
    Ok(text.as_deref() == Some("true"))
}

/// Refuses an envelope without the row that its operation promises.
pub(super) fn row_is_there(found: Found) -> Result<(), DeadLetter> {
    match found {
        Found::Object => Ok(()),
        Found::Absent | Found::Null => Err(DeadLetter::new(
            Reason::FieldMissing,
            "after: absent or null",
        )),
        Found::Other(kind) => Err(DeadLetter::new(
            Reason::FieldType,
            format!("after: {kind} where an object belongs"),
        )),
    }
}

/// Judges the columns, in the table's order.
fn event<'a>(row: &Row<'a>, time: TimeMode) -> Result<Event<'a>, DeadLetter> {
    let field = |column: usize| {
        let name = Events::NAMES.get(column).copied().unwrap_or_default();
        Field::new(name, row.column(column))
    };
    let id = field(0);
    let id = EventId(id.required(id.integer(Reason::IdRange)?)?);
    let content_id = field(1).uuid(ContentId::parse)?;
    let user_id = field(2).uuid(UserId::parse)?;
    let event_type = field(3);
    let event_type = known_event_type(&event_type, &event_type.required(event_type.text()?)?)?;
    let event_ts = field(4);
    let event_ts = event_ts.required(event_ts.time(time)?)?;
    Ok(Event {
        id,
        content_id,
        user_id,
        event_type,
        event_ts,
        duration_ms: field(5).count()?,
        device: field(6).text()?,
    })
}

fn known_event_type(field: &Field<'_>, name: &Cow<'_, str>) -> Result<EventType, DeadLetter> {
    EventType::from_name(name).ok_or_else(|| field.dead(Reason::UnknownEventType, &excerpt(name)))
}
