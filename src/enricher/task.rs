//! One partition's processing: decode, look the content up, decide, stage.

use super::bury::{bury, bury_parked};
use super::error::TaskError;
use super::fit::{fits_once_it_leaves, too_large};
use super::pending::Pending;
use super::rules::Rules;
use super::seen::Seen;
use super::staged::{Headers, Output, Span, Staged, Stream};
use super::view::View;
use crate::codec::{
    EventRecord, decode_event, decode_parked, encode_parked, enriched_headers_bytes, record_bytes,
    write_enriched,
};
use crate::domain::{
    ContentId, DeadLetter, Enriched, Event, EventId, JoinContent, JoinStatus, Ledger, Offset,
    ParkedEvent, Partition,
};
use roaring::RoaringBitmap;
use std::borrow::Cow;

/// A record of the input topic.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp in milliseconds, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its `backfill` header.
    pub backfill: Option<&'a [u8]>,
}

/// The state of one partition beside the store: where it stands, its ledger, and the order of its parked events.
///
/// A task runs ahead of the log while a transaction is open. After an abort it is dropped and built again from what was
/// committed.
#[derive(Debug)]
pub struct Task {
    partition: Partition,
    position: Offset,
    ledger: Ledger,
    pending: Pending,
    seen: Seen,
}

impl Task {
    /// A task that goes on where the group's commit says.
    pub fn new(partition: Partition, position: Offset, ledger: Ledger) -> Self {
        Self {
            partition,
            position,
            ledger,
            pending: Pending::default(),
            seen: Seen::default(),
        }
    }

    /// Takes a parked event from the store into the index.
    pub fn restore(&mut self, parked: &ParkedEvent<'_>) {
        if let Some(content) = parked.event.content_id {
            self.pending.park(content, parked);
        }
    }

    /// The partition.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The next offset to read, which the next commit carries.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// What became of the partition's records so far, which the next commit carries.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// How many events are parked.
    pub fn parked(&self) -> usize {
        self.pending.len()
    }

    /// A content row was written. Looked up by the next [`drive`](Self::drive).
    pub fn content_arrived(&mut self, content: ContentId) {
        self.pending.wake(content);
    }

    /// Any content row may have been written: every content that is waited for is looked up again.
    pub fn wake_all(&mut self) {
        self.pending.wake_all();
    }

    /// Processes one record.
    pub fn record<V: View>(
        &mut self,
        record: &RawRecord<'_>,
        rules: &Rules,
        now_ms: i64,
        view: &V,
        staged: &mut Staged,
    ) -> Result<(), TaskError<V::Error>> {
        match decode_event(record.value, &rules.events) {
            Ok(EventRecord::Event(event)) => {
                self.event(record, event, rules, now_ms, view, staged)?;
            }
            Ok(EventRecord::Ignored(_)) => {
                self.ledger.ignored += 1;
                staged.count(|counts| counts.ignored += 1);
            }
            Err(why) => self.bury(record, why, rules, staged),
        }
        self.ledger.consumed += 1;
        self.position = record.offset.next();
        staged.consumed();
        Ok(())
    }

    fn event<V: View>(
        &mut self,
        record: &RawRecord<'_>,
        event: Event<'_>,
        rules: &Rules,
        now_ms: i64,
        view: &V,
        staged: &mut Staged,
    ) -> Result<(), TaskError<V::Error>> {
        if let Some(why) = rules.keys.misplaced(record.key, event.id, self.partition) {
            if rules.keys.strict {
                return Err(TaskError::Misplaced(
                    self.partition,
                    record.offset,
                    event.id,
                    why,
                ));
            }
            staged.note_misplaced(self.partition, record.offset, event.id, why);
        }
        if self.pending.contains(event.id) || self.is_published(event.id, rules, view)? {
            self.ledger.duplicate += 1;
            staged.count(|counts| counts.duplicate += 1);
            return Ok(());
        }
        let (content, join_status) = match event.content_id {
            None => (None, JoinStatus::None),
            Some(id) => {
                let Some(content) = view.content(id).map_err(TaskError::View)? else {
                    self.park(record, id, event, rules, now_ms, staged);
                    return Ok(());
                };
                // Events of one content never overtake each other: those that wait leave first, and if they are too
                // many for this transaction the new one queues behind them.
                self.release(id, content, rules, view, staged)?;
                if self.pending.waits_for(id) {
                    self.pending.wake(id);
                    self.park(record, id, event, rules, now_ms, staged);
                    return Ok(());
                }
                (Some(content), JoinStatus::Joined)
            }
        };
        let origin = Origin {
            raw_offset: record.offset,
            raw_timestamp_ms: record.timestamp_ms,
            backfill: record.backfill,
        };
        let enriched = Enriched::join(&event, content, join_status);
        match self.publish(&enriched, &origin, rules, view, staged)? {
            Ok(_) => staged.count(|counts| counts.enriched += 1),
            Err(why) => self.bury(record, why, rules, staged),
        }
        Ok(())
    }

    /// Releases what was woken, then times out what the content watermark has passed, oldest first, until the transaction
    /// is full. Says whether there is more to do.
    pub fn drive<V: View>(
        &mut self,
        watermark_ms: Option<i64>,
        rules: &Rules,
        view: &V,
        staged: &mut Staged,
    ) -> Result<bool, TaskError<V::Error>> {
        while let Some(id) = self.pending.woken() {
            if staged.is_full(rules) {
                return Ok(true);
            }
            if let Some(content) = view.content(id).map_err(TaskError::View)? {
                self.release(id, content, rules, view, staged)?;
                if self.pending.waits_for(id) {
                    return Ok(true);
                }
            }
            self.pending.settle();
        }
        let Some(watermark_ms) = watermark_ms else {
            return Ok(false);
        };
        let mut absent = None;
        while let Some((parked_at_ms, id)) = self.pending.first_deadline() {
            if parked_at_ms.saturating_add(rules.deadline_ms) > watermark_ms {
                break;
            }
            if staged.is_full(rules) {
                return Ok(true);
            }
            // IMPORTANT: a fresh read of the table, made after the watermark was read. The watermark says that what was
            // written before it has been applied; only a read made after that can prove the row absent.
            if absent != Some(id) {
                if let Some(content) = view.content_fresh(id).map_err(TaskError::View)? {
                    self.release(id, content, rules, view, staged)?;
                    continue;
                }
                absent = Some(id);
            }
            if self.unpark(id, None, JoinStatus::Timeout, rules, view, staged)? {
                staged.count(|counts| counts.timed_out += 1);
            }
        }
        Ok(false)
    }

    /// Publishes the parked events of a content in input order, until none is left or the transaction is full.
    fn release<V: View>(
        &mut self,
        id: ContentId,
        content: JoinContent,
        rules: &Rules,
        view: &V,
        staged: &mut Staged,
    ) -> Result<(), TaskError<V::Error>> {
        while self.pending.waits_for(id) && !staged.is_full(rules) {
            if self.unpark(id, Some(content), JoinStatus::Late, rules, view, staged)? {
                staged.count(|counts| counts.released += 1);
            }
        }
        Ok(())
    }

    /// Takes the next parked event of a content off the pending table and publishes it. False when it became a dead letter
    /// instead: its topic takes smaller records than when the event was parked.
    fn unpark<V: View>(
        &mut self,
        content_id: ContentId,
        content: Option<JoinContent>,
        join_status: JoinStatus,
        rules: &Rules,
        view: &V,
        staged: &mut Staged,
    ) -> Result<bool, TaskError<V::Error>> {
        let partition = self.partition;
        let Some(id) = self.pending.front(content_id) else {
            return Ok(true);
        };
        let stored = match staged.parked(partition, id) {
            Some(value) => value,
            None => view
                .parked(partition, id, <[u8]>::to_vec)
                .map_err(TaskError::View)?
                .ok_or(TaskError::ParkedMissing(partition, id))?,
        };
        let parked = decode_parked(&stored)
            .map_err(|error| TaskError::ParkedUnreadable(partition, id, error))?;
        let origin = Origin {
            raw_offset: parked.raw_offset,
            raw_timestamp_ms: parked.raw_timestamp_ms,
            backfill: parked.backfill.as_deref(),
        };
        let enriched = Enriched::join(&parked.event, content, join_status);
        let published = self.publish(&enriched, &origin, rules, view, staged)?;
        self.pending.leave(content_id);
        self.ledger.pending -= 1;
        let fitted = published.is_ok();
        let key = match published {
            Ok(key) => key,
            Err(why) => {
                self.ledger.dead += 1;
                bury_parked(partition, &parked, why, rules, staged);
                staged.write(|out| write_id(id, out))
            }
        };
        staged.output(Output {
            stream: Stream::Pending,
            partition,
            key: Some(key),
            value: None,
            headers: Headers::None,
        });
        staged.delete_parked(partition, id);
        Ok(fitted)
    }

    /// Parks an event: it leaves when its content arrives or its deadline passes. One that is too large for the changelog,
    /// or would be for the enriched topic once it leaves, is a dead letter now, while its record is at hand.
    fn park(
        &mut self,
        record: &RawRecord<'_>,
        content_id: ContentId,
        event: Event<'_>,
        rules: &Rules,
        now_ms: i64,
        staged: &mut Staged,
    ) {
        let backfill = record.backfill.map(<[u8]>::len);
        if let Err(why) = fits_once_it_leaves(&event, backfill, rules, staged) {
            self.bury(record, why, rules, staged);
            return;
        }
        let parked = ParkedEvent {
            event,
            raw_offset: record.offset,
            raw_timestamp_ms: record.timestamp_ms,
            parked_at_ms: self.pending.parking_time(now_ms),
            backfill: record.backfill.map(Cow::Borrowed),
        };
        let id = parked.event.id;
        let before = staged.staged_bytes();
        let key = staged.write(|out| write_id(id, out));
        let value = staged.write(|out| encode_parked(&parked, out));
        let size = record_bytes(key.len(), value.len(), 0);
        if size > rules.limits.pending {
            staged.take_back(before);
            let why = too_large("parked", size, rules.limits.pending);
            self.bury(record, why, rules, staged);
            return;
        }
        staged.put_parked(self.partition, id, &value);
        staged.output(Output {
            stream: Stream::Pending,
            partition: self.partition,
            key: Some(key),
            value: Some(value),
            headers: Headers::None,
        });
        self.pending.park(content_id, &parked);
        self.ledger.pending += 1;
        staged.count(|counts| counts.parked += 1);
    }

    /// Whether the event was published, in a committed transaction or in the open one.
    fn is_published<V: View>(
        &mut self,
        id: EventId,
        rules: &Rules,
        view: &V,
    ) -> Result<bool, TaskError<V::Error>> {
        let partition = self.partition;
        self.seen.contains(id, rules.seen_containers, |container| {
            let stored = view
                .seen(partition, container, |bytes| {
                    RoaringBitmap::deserialize_from(bytes)
                })
                .map_err(TaskError::View)?;
            match stored {
                Some(Ok(bitmap)) => Ok(bitmap),
                Some(Err(_)) => Err(TaskError::SeenUnreadable(partition, container)),
                None => Ok(RoaringBitmap::new()),
            }
        })
    }

    /// The transaction was committed and its writes are in the store.
    pub fn committed(&mut self) {
        self.seen.committed();
    }

    /// Stages the enriched event and counts it in the ledger. Returns its key, or why it is too large, and then nothing is
    /// staged. The id must not have been published: that is what exactly once means, so a second time stops the process
    /// instead.
    fn publish<V: View>(
        &mut self,
        enriched: &Enriched<'_, '_>,
        origin: &Origin<'_>,
        rules: &Rules,
        view: &V,
        staged: &mut Staged,
    ) -> Result<Result<Span, DeadLetter>, TaskError<V::Error>> {
        let id = enriched.event.id;
        if self.is_published(id, rules, view)? {
            return Err(TaskError::PublishedTwice(self.partition, id));
        }
        let before = staged.staged_bytes();
        let key = staged.write(|out| write_id(id, out));
        let value = staged.write(|out| write_enriched(enriched, out));
        let headers = enriched_headers_bytes(origin.backfill.map(<[u8]>::len));
        let size = record_bytes(key.len(), value.len(), headers);
        if size > rules.limits.enriched {
            staged.take_back(before);
            return Ok(Err(too_large("enriched", size, rules.limits.enriched)));
        }
        let backfill = origin.backfill.map(|bytes| staged.copy(bytes));
        self.seen.insert(id);
        staged.publish(self.partition, id);
        if enriched.length_seconds == Some(0) {
            staged.note_zero_length();
        }
        staged.output(Output {
            stream: Stream::Enriched,
            partition: self.partition,
            key: Some(key.clone()),
            value: Some(value),
            headers: Headers::Enriched {
                raw_offset: origin.raw_offset,
                raw_timestamp_ms: origin.raw_timestamp_ms,
                content_version: enriched.content_version,
                join_status: enriched.join_status,
                backfill,
            },
        });
        self.ledger.enriched += 1;
        Ok(Ok(key))
    }

    fn bury(
        &mut self,
        record: &RawRecord<'_>,
        why: DeadLetter,
        rules: &Rules,
        staged: &mut Staged,
    ) {
        bury(self.partition, record, why, rules, staged);
        self.ledger.dead += 1;
    }
}

/// What an enriched event tells about the record it came from.
struct Origin<'a> {
    raw_offset: Offset,
    raw_timestamp_ms: Option<i64>,
    backfill: Option<&'a [u8]>,
}

/// Writes an id as keys have it.
pub(super) fn write_id(id: EventId, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(id.0).as_bytes());
}
