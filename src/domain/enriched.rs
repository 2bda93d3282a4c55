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
