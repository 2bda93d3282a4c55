//! The enriched JSON read again, by those who deliver it.

use crate::domain::{
    ContentId, ContentType, DeadLetter, EventId, EventType, Reason, Timestamp, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A published event. Text borrows from the record where it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// The event.
    pub event_id: EventId,
    /// The content engaged with.
    pub content_id: Option<ContentId>,
    /// Who engaged.
    pub user_id: Option<UserId>,
    /// What was done.
    pub event_type: EventType,
    /// When it was done.
    pub event_ts: Timestamp,
    /// Engagement in milliseconds, never negative.
    pub duration_ms: Option<i32>,
    /// Device name, any text.
    pub device: Option<Cow<'a, str>>,
    /// Kind of the content.
    pub content_type: Option<ContentType>,
    /// Length of the content in seconds.
    pub length_seconds: Option<i32>,
    /// The decimal number as it stands in the JSON.
    pub engagement_seconds: Option<&'a str>,
    /// The decimal number as it stands in the JSON.
    pub engagement_pct: Option<&'a str>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    content_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    event_ts: Cow<'a, str>,
    duration_ms: Option<i32>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    length_seconds: Option<i32>,
    #[serde(borrow)]
    engagement_seconds: Option<&'a RawValue>,
    #[serde(borrow)]
    engagement_pct: Option<&'a RawValue>,
}

impl<'a> Published<'a> {
    /// Reads a record of the enriched topic. One that this system has not written becomes a dead letter.
    pub fn read(value: &'a [u8]) -> Result<Self, DeadLetter> {
        if value.is_empty() {
            return Err(DeadLetter::new(Reason::Empty, "zero bytes"));
        }
        let text = std::str::from_utf8(value)
            .map_err(|error| DeadLetter::new(Reason::NotUtf8, error.to_string()))?;
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| {
            DeadLetter::new(Reason::NotJson, format!("no enriched event: {error}"))
        })?;
        let event_id = fields.event_id.parse().map_err(|_| {
            DeadLetter::new(Reason::IdRange, format!("event_id: {:?}", fields.event_id))
        })?;
        let uuid = |field: &str, text: &str| {
            DeadLetter::new(Reason::BadUuid, format!("{field}: {text:?}"))
        };
        let content_id = fields
            .content_id
            .map(|text| ContentId::parse(&text).ok_or_else(|| uuid("content_id", &text)))
            .transpose()?;
        let user_id = fields
            .user_id
            .map(|text| UserId::parse(&text).ok_or_else(|| uuid("user_id", &text)))
            .transpose()?;
        let event_type = EventType::from_name(&fields.event_type).ok_or_else(|| {
            DeadLetter::new(Reason::UnknownEventType, format!("{:?}", fields.event_type))
        })?;
        let event_ts = Timestamp::parse(&fields.event_ts).map_err(|error| {
            DeadLetter::new(
                Reason::BadTime,
                format!("event_ts: {:?}: {error}", fields.event_ts),
            )
        })?;
        let content_type = fields
            .content_type
            .map(|name| {
                ContentType::from_name(&name)
                    .ok_or_else(|| DeadLetter::new(Reason::UnknownContentType, format!("{name:?}")))
            })
            .transpose()?;
        Ok(Self {
            event_id: EventId(event_id),
            content_id,
            user_id,
            event_type,
            event_ts,
            duration_ms: fields.duration_ms,
            device: fields.device,
            content_type,
            length_seconds: fields.length_seconds,
            engagement_seconds: fields.engagement_seconds.map(RawValue::get),
            engagement_pct: fields.engagement_pct.map(RawValue::get),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use crate::codec::write_enriched;
    use crate::domain::{
        ContentVersion, Enriched, Event, JoinContent, JoinStatus, Offset, Partition,
    };

    #[test]
    fn what_is_written_is_read_again() {
        let event = Event {
            id: EventId(-7),
            content_id: Some(ContentId([3; 16])),
            user_id: Some(UserId([9; 16])),
            event_type: EventType::Finish,
            event_ts: Timestamp::MIN,
            duration_ms: Some(12_340),
            device: Some(Cow::Borrowed("جهاز \"x\"\n")),
        };
        let content = JoinContent {
            content_type: Some(ContentType::Video),
            length_seconds: Some(1200),
            version: ContentVersion {
                partition: Partition(3),
                offset: Offset(7),
            },
        };
        let mut json = Vec::new();
        write_enriched(
            &Enriched::join(&event, Some(content), JoinStatus::Joined),
            &mut json,
        );
        let read = Published::read(&json).unwrap();
        assert_eq!(read.event_id, event.id);
        assert_eq!(
            (read.content_id, read.user_id),
            (event.content_id, event.user_id)
        );
        assert_eq!(
            (read.event_type, read.event_ts),
            (event.event_type, event.event_ts)
        );
        assert_eq!(read.device, event.device);
        assert_eq!(
            (read.duration_ms, read.length_seconds),
            (Some(12_340), Some(1200))
        );
        assert_eq!(read.content_type, Some(ContentType::Video));
        assert_eq!(
            (read.engagement_seconds, read.engagement_pct),
            (Some("12.34"), Some("0.01"))
        );

        let event = Event {
            content_id: None,
            user_id: None,
            duration_ms: None,
            device: None,
            ..event
        };
        json.clear();
        write_enriched(&Enriched::join(&event, None, JoinStatus::None), &mut json);
        let read = Published::read(&json).unwrap();
        assert_eq!(
            (read.content_id, read.content_type, read.duration_ms),
            (None, None, None)
        );
        assert_eq!((read.engagement_seconds, read.engagement_pct), (None, None));
    }

    #[test]
    fn what_this_system_did_not_write_has_its_reason() {
        for (value, reason) in [
            (&b"\xff"[..], Reason::NotUtf8),
            (b"", Reason::Empty),
            (b"{}", Reason::NotJson),
            (
                br#"{"event_id":"x","event_type":"play","event_ts":"2026-01-01T00:00:00Z"}"#,
                Reason::IdRange,
            ),
            (
                br#"{"event_id":"1","event_type":"stop","event_ts":"2026-01-01T00:00:00Z"}"#,
                Reason::UnknownEventType,
            ),
            (
                br#"{"event_id":"1","event_type":"play","event_ts":"today"}"#,
                Reason::BadTime,
            ),
        ] {
            assert_eq!(Published::read(value).unwrap_err().reason, reason);
        }
    }
}
