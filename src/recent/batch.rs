//! Records in, one sorted write set out. Pure: no Kafka, no store, no clock.

use super::keys::{self, Chunk};
use super::record::Head;
use super::sweep::put_dropped;
use crate::domain::{EventId, Timestamp};
use thmanyah_state::{Position, Table, WriteSet};

/// A batch is written when it holds this many records,
pub(super) const MOST_RECORDS: usize = 4_096;
/// or this many bytes. Small enough for the processor's caches, as each byte passes three buffers on its way, and well
/// under the size from which the allocator gives memory back at once, only to have every page of it cleared anew.
pub(super) const MOST_BYTES: usize = 2 << 20;

/// A record of the enriched topic.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp: when it was published.
    pub published_ms: i64,
    /// The enriched JSON.
    pub json: &'a [u8],
}

/// Records collected until they are written.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    json: Vec<u8>,
    /// For each partition with records: the position after the last, its timestamp, and what was too old to keep.
    partitions: Vec<Reached>,
    chunk: Vec<u8>,
    unreadable: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    partition: i32,
    event_ts: Timestamp,
    event_id: EventId,
    offset: i64,
    published_ms: i64,
    start: usize,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    partition: i32,
    next_offset: i64,
    published_ms: i64,
    too_old: Option<Timestamp>,
}

/// What is known of a partition when its records are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// When the follower last stood at the end.
    pub at_end_ms: i64,
    /// The highest `event_ts` that was dropped before.
    pub dropped: Option<Timestamp>,
}

impl Batch {
    /// Takes a record in. One that was published before `keep_from_ms` moves the position and raises what was dropped, but
    /// leaves no row.
    pub fn add(&mut self, record: Record<'_>, keep_from_ms: i64) {
        let head = Head::read(record.json);
        let keep = record.published_ms >= keep_from_ms;
        self.reach(&record, head.filter(|_| !keep).map(|head| head.event_ts));
        let Some(head) = head else {
            self.unreadable += 1;
            return;
        };
        if !keep {
            return;
        }
        self.rows.push(Row {
            partition: record.partition,
            event_ts: head.event_ts,
            event_id: head.event_id,
            offset: record.offset,
            published_ms: record.published_ms,
            start: self.json.len(),
            len: record.json.len(),
        });
        self.json.extend_from_slice(record.json);
    }

    /// Notes that the log of a record's partition has lost what came before it: events whose time is unknown, but hardly later
    /// than this record's publication.
    pub fn note_lost_before(&mut self, record: &Record<'_>) {
        self.reach(record, Timestamp::from_millis(record.published_ms));
    }

    /// Whether nothing was taken in.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether it should be written now.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= MOST_RECORDS || self.json.len() >= MOST_BYTES
    }

    /// Records so far, of all batches, that were no enriched events and left no row.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Stages everything, sorted, with the positions, and leaves the batch empty. Calls `dropped` for each partition of
    /// which the highest dropped `event_ts` has risen.
    pub fn stage(
        &mut self,
        known: impl Fn(i32) -> Known,
        mut dropped: impl FnMut(i32, Timestamp),
        writes: &mut WriteSet,
    ) {
        self.partitions
            .sort_unstable_by_key(|reached| reached.partition);
        // Within a key the later offset comes last, and the last write wins.
        self.rows
            .sort_unstable_by_key(|row| (row.partition, row.event_ts, row.event_id, row.offset));
        let mut rows = self.rows.as_mut_slice();
        for reached in &self.partitions {
            let of = reached.partition;
            let count = rows.partition_point(|row| row.partition <= of);
            let (here, rest) = rows.split_at_mut(count);
            rows = rest;
            stage_rows(of, here, &self.json, &mut self.chunk, writes);
            let known = known(of);
            if let Some(event_ts) = reached.too_old.filter(|ts| Some(*ts) > known.dropped) {
                put_dropped(of, event_ts, writes);
                dropped(of, event_ts);
            }
            let position = Position {
                offset: reached.next_offset,
                topic_id: known.topic_id,
                fresh_at_ms: reached.published_ms.max(known.at_end_ms),
            };
            writes.set_position(Table::Recent, of, position);
        }
        self.rows.clear();
        self.json.clear();
        self.partitions.clear();
    }

    fn reach(&mut self, record: &Record<'_>, too_old: Option<Timestamp>) {
        let next_offset = record.offset + 1;
        // The last entry first: records come in runs of one partition.
        let found = self
            .partitions
            .iter_mut()
            .rev()
            .find(|reached| reached.partition == record.partition);
        if let Some(reached) = found {
            reached.next_offset = next_offset;
            reached.published_ms = reached.published_ms.max(record.published_ms);
            reached.too_old = reached.too_old.max(too_old);
        } else {
            self.partitions.push(Reached {
                partition: record.partition,
                next_offset,
                published_ms: record.published_ms,
                too_old,
            });
        }
    }
}

/// Stages the rows of one partition: events as they are sorted, then ids in their order, then the chunk.
fn stage_rows(of: i32, rows: &mut [Row], json: &[u8], chunk: &mut Vec<u8>, writes: &mut WriteSet) {
    for row in rows.iter() {
        let json = json.get(row.start..row.start + row.len).unwrap_or_default();
        writes.put_parts(
            Table::Recent,
            &keys::event(of, row.event_ts.micros(), row.event_id.0),
            &[&keys::event_header(row.published_ms, row.offset), json],
        );
    }
    let bounds = rows.iter().fold(None, |bounds, row| {
        let (first, last, newest) = bounds.unwrap_or((row.offset, row.offset, row.published_ms));
        Some((
            row.offset.min(first),
            row.offset.max(last),
            row.published_ms.max(newest),
        ))
    });
    let Some((first, last, newest)) = bounds else {
        return;
    };
    chunk.clear();
    Chunk::begin(newest, last, chunk);
    for row in rows.iter() {
        Chunk::push(row.event_ts, row.event_id, chunk);
    }
    rows.sort_unstable_by_key(|row| (row.event_id, row.offset));
    for row in rows.iter() {
        writes.put(
            Table::Recent,
            &keys::by_id(of, row.event_id),
            &keys::time(row.event_ts),
        );
    }
    writes.put(Table::Recent, &keys::chunk(of, first), chunk);
}
