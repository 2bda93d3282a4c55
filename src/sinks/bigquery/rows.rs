//! A row of the table: its columns, the protobuf it travels as, and how an enriched event becomes one.

use crate::codec::Published;
use crate::domain::{DeadLetter, Reason};
use crate::sinks::Record;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

/// A column, as a table must have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: &'static str,
    /// Its type in BigQuery's REST interface, where INT64 is called INTEGER.
    pub(super) kind: &'static str,
    /// Its number and type in the protobuf.
    field: (i32, Type),
    /// Whether every row has it.
    pub(super) always: bool,
}

/// IMPORTANT: every field is `optional`. A plain proto3 field that is zero is left out and read as NULL: partition 0 and offset 0
/// would vanish.
macro_rules! columns {
    ($($(#[doc = $doc:literal])+ $field:ident = $number:literal $tag:tt, $proto:ident $variant:ident $type:ty, $name:literal $kind:literal $($always:ident)?;)+) => {
        /// What is sent. A field that is none is NULL.
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct Row {
            $($(#[doc = $doc])+ #[prost($proto, optional, tag = $tag)] pub(super) $field: Option<$type>,)+
        }

        /// The columns, in their order.
        pub(super) const COLUMNS: &[Column] = &[
            $(Column {
                name: $name,
                kind: $kind,
                field: ($number, Type::$variant),
                always: columns!(@always $($always)?),
            },)+
        ];
    };
    (@always) => { false };
    (@always always) => { true };
}

columns! {
    /// The event's id.
    event_id = 1 "1", string String String, "event_id" "STRING" always;
    /// The content engaged with.
    content_id = 2 "2", string String String, "content_id" "STRING";
    /// Who engaged.
    user_id = 3 "3", string String String, "user_id" "STRING";
    /// What was done.
    event_type = 4 "4", string String String, "event_type" "STRING" always;
    /// When it was done, in microseconds since the epoch.
    event_ts = 5 "5", int64 Int64 i64, "event_ts" "TIMESTAMP" always;
    /// Engagement in milliseconds.
    duration_ms = 6 "6", int64 Int64 i64, "duration_ms" "INTEGER";
    /// Device name.
    device = 7 "7", string String String, "device" "STRING";
    /// Kind of the content.
    content_type = 8 "8", string String String, "content_type" "STRING";
    /// Length of the content in seconds.
    length_seconds = 9 "9", int64 Int64 i64, "length_seconds" "INTEGER";
    /// As the decimal text of the JSON, which BigQuery reads exactly.
    engagement_seconds = 10 "10", string String String, "engagement_seconds" "NUMERIC";
    /// As the decimal text of the JSON, which BigQuery reads exactly.
    engagement_pct = 11 "11", string String String, "engagement_pct" "NUMERIC";
    /// Partition of the record; a dead letter that is replayed has none.
    kafka_partition = 12 "12", int64 Int64 i64, "_kafka_partition" "INTEGER";
    /// Its offset.
    kafka_offset = 13 "13", int64 Int64 i64, "_kafka_offset" "INTEGER";
}

/// Digits of a NUMERIC before and behind the point.
const NUMERIC_DIGITS: (usize, usize) = (29, 9);

impl Row {
    /// The row of a record; what cannot be one is a dead letter.
    pub(super) fn of(partition: i32, record: &Record) -> Result<Self, DeadLetter> {
        let event = Published::read(&record.value)?;
        let text = |uuid: [u8; 36]| String::from_utf8_lossy(&uuid).into_owned();
        Ok(Self {
            event_id: Some(event.event_id.0.to_string()),
            content_id: event.content_id.map(|id| text(id.text())),
            user_id: event.user_id.map(|id| text(id.text())),
            event_type: Some(event.event_type.name().to_owned()),
            event_ts: Some(event.event_ts.micros()),
            duration_ms: event.duration_ms.map(i64::from),
            device: event.device.map(std::borrow::Cow::into_owned),
            content_type: event.content_type.map(|kind| kind.name().to_owned()),
            length_seconds: event.length_seconds.map(i64::from),
            engagement_seconds: numeric("engagement_seconds", event.engagement_seconds)?,
            engagement_pct: numeric("engagement_pct", event.engagement_pct)?,
            kafka_partition: Some(i64::from(partition)),
            kafka_offset: Some(record.offset),
        })
    }
}

/// A decimal number that NUMERIC holds exactly.
fn numeric(column: &str, number: Option<&str>) -> Result<Option<String>, DeadLetter> {
    let Some(number) = number else {
        return Ok(None);
    };
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fits = |digits: &str, most: usize| {
        digits.len() <= most && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    if whole.is_empty() || !fits(whole, NUMERIC_DIGITS.0) || !fits(fraction, NUMERIC_DIGITS.1) {
        let detail = format!("{column}: {number} is not a NUMERIC");
        return Err(DeadLetter::new(Reason::Rejected, detail));
    }
    Ok(Some(number.to_owned()))
}

/// What tells BigQuery how to read the rows.
pub(super) fn descriptor() -> DescriptorProto {
    let field = |column: &Column| FieldDescriptorProto {
        name: Some(column.name.to_owned()),
        number: Some(column.field.0),
        label: Some(Label::Optional as i32),
        r#type: Some(column.field.1 as i32),
        ..FieldDescriptorProto::default()
    };
    DescriptorProto {
        name: Some("EnrichedEvent".to_owned()),
        field: COLUMNS.iter().map(field).collect(),
        ..DescriptorProto::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        Record {
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: value.into(),
        }
    }

    const EVENT: &str = r#"{"event_id":"42","content_id":"00000000-0000-4000-8000-000000000001","user_id":null,
        "event_type":"play","event_ts":"2025-01-01T12:30:00.5Z","duration_ms":0,"device":"ios","content_type":"podcast",
        "length_seconds":1200,"engagement_seconds":0,"engagement_pct":0.01}"#;

    #[test]
    fn a_zero_is_sent_and_a_null_is_not() {
        let row = Row::of(0, &record(EVENT)).unwrap();
        assert_eq!(
            (row.kafka_partition, row.kafka_offset, row.duration_ms),
            (Some(0), Some(0), Some(0))
        );
        assert_eq!(row.user_id, None);
        assert_eq!(row.event_ts, Some(1_735_734_600_500_000));
        assert_eq!(row.engagement_pct.as_deref(), Some("0.01"));
        let read = Row::decode(row.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read, row, "zeros survive the way");
    }

    #[test]
    fn the_descriptor_tells_each_column_as_optional_under_its_own_number() {
        let fields = descriptor().field;
        assert_eq!(fields.len(), COLUMNS.len());
        for (number, field) in (1..).zip(&fields) {
            assert_eq!(field.number, Some(number));
            assert_eq!(field.label, Some(Label::Optional as i32));
        }
    }

    #[test]
    fn what_numeric_does_not_hold_exactly_is_rejected() {
        for good in [
            "0",
            "12.34",
            "-1",
            "99999999999999999999999999999.999999999",
        ] {
            assert_eq!(numeric("n", Some(good)).unwrap().as_deref(), Some(good));
        }
        for bad in [
            "1e3",
            "100000000000000000000000000000",
            "0.0000000001",
            "-",
            "",
        ] {
            assert_eq!(
                numeric("n", Some(bad)).unwrap_err().reason,
                Reason::Rejected,
                "{bad}"
            );
        }
    }
}
