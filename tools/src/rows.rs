//! Rows as the generator makes them, before the database gives ids and times.

use uuid::Uuid;

/// A row of `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRow {
    /// Primary key.
    pub id: Uuid,
    /// A readable key for addresses.
    pub slug: String,
    /// Arabic or English; a few are so long that PostgreSQL stores them out of line.
    pub title: String,
    /// `podcast`, `newsletter` or `video`.
    pub content_type: &'static str,
    /// Unknown for some.
    pub length_seconds: Option<i32>,
    /// How long before the run it was published; not yet for some.
    pub published_before_seconds: Option<u32>,
}

/// A row of `engagement_events`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// A content that is there, one that comes a little later, one that never comes, or none.
    pub content_id: Option<Uuid>,
    /// Unknown for some.
    pub user_id: Option<Uuid>,
    /// `play`, `pause`, `finish` or `click`.
    pub event_type: &'static str,
    /// How long before its insertion it happened; a few are weeks old.
    pub age_micros: u64,
    /// Unknown for some.
    pub duration_ms: Option<i32>,
    /// Unknown for some.
    pub device: Option<&'static str>,
    /// Whatever the application sent along.
    pub raw_payload: Option<serde_json::Value>,
}

/// An update of a content's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthChange {
    /// Which content.
    pub id: Uuid,
    /// Its length from now on.
    pub length_seconds: Option<i32>,
}
