//! The sweep: rows whose publication is longer ago than the retention leave, oldest publications first.

use super::keys::{self, Chunk};
use crate::domain::Timestamp;
use thmanyah_state::{Direction, Error, Snapshot, Table, WriteSet};

/// A sweep of one partition ends after the chunk that reaches this many rows; the rest is left to the next one.
pub(super) const MOST_ROWS: usize = 20_000;

/// What a sweep has staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows looked at.
    pub rows: usize,
    /// The highest `event_ts` dropped from the partition, when it has risen.
    pub dropped: Option<Timestamp>,
}

/// Stages the deletion of what was published before `keep_from_ms` in a partition, and with it the new highest `event_ts`
/// dropped.
pub fn sweep(
    snapshot: &Snapshot<'_>,
    of: i32,
    keep_from_ms: i64,
    writes: &mut WriteSet,
) -> Result<Swept, Error> {
    let start = keys::family(of, keys::CHUNKS);
    let end = keys::family(of, keys::CHUNKS + 1);
    let mut scan = snapshot.scan(Table::Recent, &start, &end, Direction::Forward)?;
    let mut highest: Option<Timestamp> = None;
    let mut rows = 0;
    while rows < MOST_ROWS
        && let Some((key, value)) = scan.next()?
    {
        // A chunk that cannot be read goes as well: its rows stay, which is harmless.
        if let Some(chunk) = Chunk::read(value) {
            if chunk.newest_published_ms >= keep_from_ms {
                break;
            }
            rows += chunk.len();
            highest = highest.max(drop_events(snapshot, of, &chunk, writes)?);
        }
        writes.delete(Table::Recent, key);
    }
    let before = dropped(snapshot, of)?;
    let risen = highest.filter(|highest| Some(*highest) > before);
    if let Some(event_ts) = risen {
        put_dropped(of, event_ts, writes);
    }
    Ok(Swept {
        rows,
        dropped: risen,
    })
}

/// Stages the highest `event_ts` that was dropped from a partition.
pub(super) fn put_dropped(of: i32, event_ts: Timestamp, writes: &mut WriteSet) {
    writes.put(
        Table::Recent,
        &keys::family(of, keys::DROPPED),
        &keys::time(event_ts),
    );
}

/// The highest `event_ts` that was dropped from a partition.
pub(super) fn dropped(snapshot: &Snapshot<'_>, of: i32) -> Result<Option<Timestamp>, Error> {
    let key = keys::family(of, keys::DROPPED);
    let found = snapshot.get(Table::Recent, &key, keys::time_of)?;
    Ok(found.flatten())
}

/// Stages the deletion of a chunk's events, and returns the highest `event_ts` among them.
fn drop_events(
    snapshot: &Snapshot<'_>,
    of: i32,
    chunk: &Chunk<'_>,
    writes: &mut WriteSet,
) -> Result<Option<Timestamp>, Error> {
    let mut highest = None;
    for (event_ts, event_id) in chunk.events() {
        let key = keys::event(of, event_ts.micros(), event_id.0);
        let offset = snapshot.get(Table::Recent, &key, |value| {
            keys::event_value(value).map(|(offset, _)| offset)
        })?;
        // Published again since: a later chunk has it.
        if offset
            .flatten()
            .is_some_and(|offset| offset > chunk.last_offset)
        {
            continue;
        }
        highest = highest.max(Some(event_ts));
        writes.delete(Table::Recent, &key);
        writes.delete(Table::Recent, &keys::by_id(of, event_id));
    }
    Ok(highest)
}
