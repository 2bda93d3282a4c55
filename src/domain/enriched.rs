//! The enriched event: the unified fact that is published once.

use super::{ContentType, ContentVersion, Engagement, Event, JoinContent};

/// How an event met its content; travels in the header `join-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStatus {
    /// The content was known when the event was read.
    Joined,
    /// The event was parked, and its content arrived in time.
    Late,
    /// The event was parked, and its content never arrived.
    Timeout,
    /// The event names no content.
    None,
}

impl JoinStatus {
    /// The header's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Late => "late",
            Self::Timeout => "timeout",
            Self::None => "none",
        }
    }
}

/// An event with what its content adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enriched<'e, 'a> {
    /// The event as it came.
    pub event: &'e Event<'a>,
    /// Kind of its content.
    pub content_type: Option<ContentType>,
    /// Length of its content in seconds.
    pub length_seconds: Option<i32>,
    /// The computed fields.
    pub engagement: Engagement,
    /// Which write of the content row was joined, if one was.
    pub content_version: Option<ContentVersion>,
    /// How the two met.
    pub join_status: JoinStatus,
}

impl<'e, 'a> Enriched<'e, 'a> {
    /// Joins an event with its content, or with nothing.
    pub fn join(
        event: &'e Event<'a>,
        content: Option<JoinContent>,
        join_status: JoinStatus,
    ) -> Self {
        let length_seconds = content.and_then(|content| content.length_seconds);
        Self {
            event,
            content_type: content.and_then(|content| content.content_type),
            length_seconds,
            engagement: Engagement::of(event.duration_ms, length_seconds),
            content_version: content.map(|content| content.version),
            join_status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventId, EventType, Hundredths, Offset, Partition, Timestamp};

    fn event() -> Event<'static> {
        Event {
            id: EventId(1),
            content_id: None,
            user_id: None,
            event_type: EventType::Play,
            event_ts: Timestamp::MIN,
            duration_ms: Some(12_340),
            device: None,
        }
    }

    #[test]
    fn a_join_takes_kind_length_and_version_from_the_content() {
        let event = event();
        let content = JoinContent {
            content_type: Some(ContentType::Video),
            length_seconds: Some(1200),
            version: ContentVersion {
                partition: Partition(3),
                offset: Offset(7),
            },
        };
        let enriched = Enriched::join(&event, Some(content), JoinStatus::Late);
        assert_eq!(enriched.content_type, Some(ContentType::Video));
        assert_eq!(enriched.length_seconds, Some(1200));
        assert_eq!(enriched.engagement.pct, Some(Hundredths(1)));
        assert_eq!(enriched.content_version, Some(content.version));
        assert_eq!(enriched.join_status.name(), "late");
    }

    #[test]
    fn without_content_only_the_seconds_are_known() {
        let event = event();
        let enriched = Enriched::join(&event, None, JoinStatus::Timeout);
        assert_eq!(enriched.content_type, None);
        assert_eq!(enriched.length_seconds, None);
        assert_eq!(enriched.engagement.millis, Some(12_340));
        assert_eq!(enriched.engagement.pct, None);
        assert_eq!(enriched.content_version, None);
    }

    #[test]
    fn the_join_statuses_are_the_contracts() {
        let all = [
            JoinStatus::Joined,
            JoinStatus::Late,
            JoinStatus::Timeout,
            JoinStatus::None,
        ];
        assert_eq!(
            all.map(JoinStatus::name),
            ["joined", "late", "timeout", "none"]
        );
    }
}
