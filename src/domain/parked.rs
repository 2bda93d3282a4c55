//! An event that waits for its content.

use super::{Event, Offset};
use std::borrow::Cow;

/// What is kept of an event whose content is unknown, until it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent<'a> {
    /// The event.
    pub event: Event<'a>,
    /// Where its record stands in the input partition.
    pub raw_offset: Offset,
    /// The record's timestamp, if it had one.
    pub raw_timestamp_ms: Option<i64>,
    /// When it was parked, in milliseconds since the epoch. Its deadline is counted from here.
    pub parked_at_ms: i64,
    /// The record's `backfill` header, which the published event carries on.
    pub backfill: Option<Cow<'a, [u8]>>,
}

impl ParkedEvent<'_> {
    /// The same, owning its text.
    pub fn into_owned(self) -> ParkedEvent<'static> {
        ParkedEvent {
            event: self.event.into_owned(),
            raw_offset: self.raw_offset,
            raw_timestamp_ms: self.raw_timestamp_ms,
            parked_at_ms: self.parked_at_ms,
            backfill: self.backfill.map(|bytes| Cow::Owned(bytes.into_owned())),
        }
    }
}
