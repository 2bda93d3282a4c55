//! The head of an enriched record: what rows are keyed and filtered by, read without parsing the JSON.

use crate::domain::{EventId, Timestamp};

/// Length of a quoted UUID.
const QUOTED_UUID: usize = 38;
/// No id, event type or time is longer.
const LONGEST_TEXT: usize = 40;

/// The first five fields of an enriched event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The event.
    pub event_id: EventId,
    /// The content's id as it stands in the JSON, lower case.
    pub content_id: Option<&'a [u8]>,
    /// The event type's name.
    pub event_type: &'a [u8],
    /// When it was done.
    pub event_ts: Timestamp,
}

impl<'a> Head<'a> {
    /// Walks the fields in their fixed order. `None` when the bytes are no enriched event.
    pub fn read(json: &'a [u8]) -> Option<Self> {
        let rest = json.strip_suffix(b"}")?.strip_prefix(b"{\"event_id\":\"")?;
        let (event_id, rest) = text(rest)?;
        let (content_id, rest) = uuid(rest.strip_prefix(b",\"content_id\":")?)?;
        let (_, rest) = uuid(rest.strip_prefix(b",\"user_id\":")?)?;
        let (event_type, rest) = text(rest.strip_prefix(b",\"event_type\":\"")?)?;
        let (event_ts, _) = text(rest.strip_prefix(b",\"event_ts\":\"")?)?;
        Some(Self {
            event_id: EventId(std::str::from_utf8(event_id).ok()?.parse().ok()?),
            content_id,
            event_type,
            event_ts: Timestamp::parse(std::str::from_utf8(event_ts).ok()?).ok()?,
        })
    }
}

/// A text without escapes up to its closing quote, and what follows that.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let within = bytes.get(..LONGEST_TEXT).unwrap_or(bytes);
    let end = within.iter().position(|byte| *byte == b'"')?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// A quoted UUID or null, and what follows.
fn uuid(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(b"null") {
        return Some((None, rest));
    }
    let (quoted, rest) = bytes.split_at_checked(QUOTED_UUID)?;
    let id = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some((Some(id), rest))
}
