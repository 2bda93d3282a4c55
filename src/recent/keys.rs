//! Rows of [`Table::Recent`](thmanyah_state::Table): partition, then a family byte, then what the family is ordered by.
//!
//! | family | rest of the key | value |
//! |---|---|---|
//! | 1 events | `event_ts`, `event_id` | `published_ms`, offset, the enriched JSON |
//! | 2 by id | `event_id` | `event_ts` |
//! | 3 chunks | first offset | [`Chunk`]: which events one batch published, oldest offsets first |
//! | 4 dropped | | highest `event_ts` that was dropped |
//!
//! Integers are big-endian; signed ones have their sign bit flipped, so that bytes order as numbers do. Family bytes are
//! persistent and never reused.

use crate::domain::{EventId, Timestamp};

/// The events themselves.
pub(super) const EVENTS: u8 = 1;
/// Where an id is found.
pub(super) const BY_ID: u8 = 2;
/// What is swept together.
pub(super) const CHUNKS: u8 = 3;
/// What the sweep has dropped.
pub(super) const DROPPED: u8 = 4;

/// Bytes in front of the JSON in a row of events.
pub(super) const EVENT_HEADER: usize = 16;

/// A signed number whose bytes order as numbers do.
fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn from_ordered(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed()
}

/// The prefix of all rows of a partition.
pub(super) fn partition(partition: i32) -> [u8; 4] {
    partition.to_be_bytes()
}

/// The prefix of a family's rows.
pub(super) fn family(of: i32, family: u8) -> [u8; 5] {
    let [a, b, c, d] = partition(of);
    [a, b, c, d, family]
}

/// Key of an event's row; `event_ts` may also be any number, to bound a scan.
pub(super) fn event(of: i32, event_ts: i64, event_id: i64) -> [u8; 21] {
    let mut key = [0; 21];
    let (head, rest) = key.split_at_mut(5);
    let (ts, id) = rest.split_at_mut(8);
    head.copy_from_slice(&family(of, EVENTS));
    ts.copy_from_slice(&ordered(event_ts));
    id.copy_from_slice(&ordered(event_id));
    key
}

/// Time and id of an event's key.
pub(super) fn event_of(key: &[u8]) -> Option<(i64, i64)> {
    let (ts, id) = key.get(5..)?.split_first_chunk::<8>()?;
    Some((from_ordered(*ts), from_ordered(id.try_into().ok()?)))
}

fn thirteen(of: i32, kind: u8, number: [u8; 8]) -> [u8; 13] {
    let mut key = [0; 13];
    let (head, rest) = key.split_at_mut(5);
    head.copy_from_slice(&family(of, kind));
    rest.copy_from_slice(&number);
    key
}

/// Key of an id's row.
pub(super) fn by_id(of: i32, id: EventId) -> [u8; 13] {
    thirteen(of, BY_ID, ordered(id.0))
}

/// Value of an id's row, and of the row that tells what was dropped.
pub(super) fn time(event_ts: Timestamp) -> [u8; 8] {
    ordered(event_ts.micros())
}

/// Reads [`time`] back.
pub(super) fn time_of(value: &[u8]) -> Option<Timestamp> {
    Timestamp::from_micros(from_ordered(value.try_into().ok()?))
}

/// Key of a chunk.
pub(super) fn chunk(of: i32, first_offset: i64) -> [u8; 13] {
    thirteen(of, CHUNKS, ordered(first_offset))
}

/// What stands before an event's JSON.
pub(super) fn event_header(published_ms: i64, offset: i64) -> [u8; EVENT_HEADER] {
    let mut header = [0; EVENT_HEADER];
    let (published, rest) = header.split_at_mut(8);
    published.copy_from_slice(&published_ms.to_be_bytes());
    rest.copy_from_slice(&offset.to_be_bytes());
    header
}

/// Offset and JSON of an event's row.
pub(super) fn event_value(value: &[u8]) -> Option<(i64, &[u8])> {
    let (header, json) = value.split_first_chunk::<EVENT_HEADER>()?;
    let offset = header.last_chunk::<8>()?;
    Some((i64::from_be_bytes(*offset), json))
}

/// The events of one batch in one partition, which are old enough to leave when the newest of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// When the newest was published.
    pub(super) newest_published_ms: i64,
    /// The last offset; a row with a later one was published again and stays.
    pub(super) last_offset: i64,
    entries: &'a [u8],
}

/// Bytes of a chunk's entry: `event_ts` and `event_id`.
const CHUNK_ENTRY: usize = 16;

impl<'a> Chunk<'a> {
    /// Begins a chunk's value; [`Chunk::push`] appends to it.
    pub(super) fn begin(newest_published_ms: i64, last_offset: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&newest_published_ms.to_be_bytes());
        out.extend_from_slice(&last_offset.to_be_bytes());
    }

    /// Appends an event.
    pub(super) fn push(event_ts: Timestamp, event_id: EventId, out: &mut Vec<u8>) {
        out.extend_from_slice(&ordered(event_ts.micros()));
        out.extend_from_slice(&ordered(event_id.0));
    }

    /// Reads a chunk's value.
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let (newest, rest) = value.split_first_chunk::<8>()?;
        let (last, entries) = rest.split_first_chunk::<8>()?;
        entries.len().is_multiple_of(CHUNK_ENTRY).then_some(Self {
            newest_published_ms: i64::from_be_bytes(*newest),
            last_offset: i64::from_be_bytes(*last),
            entries,
        })
    }

    /// Number of events.
    pub(super) fn len(&self) -> usize {
        self.entries.len() / CHUNK_ENTRY
    }

    /// The events.
    pub(super) fn events(&self) -> impl Iterator<Item = (Timestamp, EventId)> + 'a {
        self.entries.chunks_exact(CHUNK_ENTRY).filter_map(|entry| {
            let (ts, id) = entry.split_first_chunk::<8>()?;
            let id = from_ordered(id.try_into().ok()?);
            Some((Timestamp::from_micros(from_ordered(*ts))?, EventId(id)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_partition_time_and_id_do() {
        let mut expected = Vec::new();
        for partition in [0, 1, 256] {
            for ts in [i64::MIN, -1, 0, 1, i64::MAX] {
                for id in [i64::MIN, -1, 0, 9, 10, i64::MAX] {
                    let key = event(partition, ts, id);
                    assert_eq!(event_of(&key), Some((ts, id)));
                    expected.push(key);
                }
            }
        }
        assert!(expected.is_sorted());
    }

    #[test]
    fn the_layout_is_golden() {
        assert_eq!(
            event(1, 2, -3),
            *b"\0\0\0\x01\x01\x80\0\0\0\0\0\0\x02\x7f\xff\xff\xff\xff\xff\xff\xfd"
        );
        assert_eq!(by_id(1, EventId(5)), *b"\0\0\0\x01\x02\x80\0\0\0\0\0\0\x05");
        assert_eq!(chunk(1, 5), *b"\0\0\0\x01\x03\x80\0\0\0\0\0\0\x05");
        assert_eq!(family(1, DROPPED), *b"\0\0\0\x01\x04");
        assert_eq!(event_header(1, 2), *b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02");
    }
}
