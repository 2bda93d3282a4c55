//! An engagement event as PostgreSQL holds it.

use super::{ContentId, EventId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What the user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// Playback began or went on.
    Play,
    /// Playback paused.
    Pause,
    /// Playback reached the end.
    Finish,
    /// A link or a card was clicked.
    Click,
}

impl EventType {
    /// Every event type, in the order of the table's CHECK constraint.
    pub const ALL: [Self; 4] = [Self::Play, Self::Pause, Self::Finish, Self::Click];

    /// The name in PostgreSQL and in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Pause => "pause",
            Self::Finish => "finish",
            Self::Click => "click",
        }
    }

    /// The event type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A validated row of `engagement_events`. Text borrows from the record where it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Primary key.
    pub id: EventId,
    /// The content engaged with; `None` leaves the content fields null at once.
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
    #[serde(borrow)]
    pub device: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The same event, owning its text.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            device: self.device.map(|device| Cow::Owned(device.into_owned())),
            id: self.id,
            content_id: self.content_id,
            user_id: self.user_id,
            event_type: self.event_type,
            event_ts: self.event_ts,
            duration_ms: self.duration_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_have_the_names_of_the_tables_constraint() {
        assert_eq!(
            EventType::ALL.map(EventType::name),
            ["play", "pause", "finish", "click"]
        );
        for kind in EventType::ALL {
            assert_eq!(EventType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(EventType::from_name("play "), None);
    }
}
