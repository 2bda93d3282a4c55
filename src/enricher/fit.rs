//! Whether an output topic takes an event, told before anything is staged: a record that the broker refuses would fail its
//! whole transaction, again and again.

use super::rules::Rules;
use super::staged::Staged;
use super::task::write_id;
use crate::codec::{enriched_headers_bytes, record_bytes, write_enriched};
use crate::domain::{DeadLetter, Enriched, Event, JoinStatus, Reason};

/// What content can add to an enriched event at most: its kind, its length and the share, and the header of its version.
const CONTENT_ADDS: usize = 128;
/// All of an enriched event but its device, and what a character of that can grow to in JSON.
const EVENT_BYTES: usize = 1024;
const ESCAPED: usize = 6;

/// Whether the enriched topic will take the event, whatever its content adds.
pub(super) fn fits_once_it_leaves(
    event: &Event<'_>,
    backfill: Option<usize>,
    rules: &Rules,
    staged: &mut Staged,
) -> Result<(), DeadLetter> {
    let limit = rules.limits.enriched;
    let device = event.device.as_deref().map_or(0, str::len);
    if EVENT_BYTES + ESCAPED * device + backfill.unwrap_or_default() <= limit {
        return Ok(());
    }
    let before = staged.staged_bytes();
    let enriched = Enriched::join(event, None, JoinStatus::Timeout);
    let key = staged.write(|out| write_id(event.id, out)).len();
    let value = staged.write(|out| write_enriched(&enriched, out)).len();
    staged.take_back(before);
    let size = record_bytes(key, value + CONTENT_ADDS, enriched_headers_bytes(backfill));
    if size > limit {
        return Err(too_large("enriched", size, limit));
    }
    Ok(())
}

pub(super) fn too_large(what: &str, size: usize, limit: usize) -> DeadLetter {
    DeadLetter::new(
        Reason::OutputTooLarge,
        format!(
            "the {what} event takes up to {size} bytes, its topic's max.message.bytes is {limit}"
        ),
    )
}
