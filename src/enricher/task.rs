//! One partition's processing: decode, look the content up, decide, stage.

use super::error::TaskError;
use super::pending::Pending;
use super::seen::Seen;
use super::staged::{Headers, Output, Span, Staged, Stream};
use super::view::View;
use crate::codec::{
    EventRecord, EventRules, decode_event, decode_parked, encode_parked, write_enriched,
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

/// What the configuration decides.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How records are read.
    pub events: EventRules,
    /// How long an event waits for its content, in milliseconds.
    pub deadline_ms: i64,
    /// Releases and time-outs stop at this size of a transaction.
    pub transaction_steps: usize,
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
            Err(why) => self.bury(record, why, staged),
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
        if self.pending.contains(event.id) || self.is_published(event.id, view)? {
            self.ledger.duplicate += 1;
            staged.count(|counts| counts.duplicate += 1);
            return Ok(());
        }
        let (content, join_status) = match event.content_id {
            None => (None, JoinStatus::None),
            Some(id) => {
                let Some(content) = view.content(id).map_err(TaskError::View)? else {
                    self.park(record, id, event, now_ms, staged);
                    return Ok(());
                };
                // Events of one content never overtake each other: those that wait leave first, and if they are too
                // many for this transaction the new one queues behind them.
                self.release(id, content, rules, view, staged)?;
                if self.pending.waits_for(id) {
                    self.pending.wake(id);
                    self.park(record, id, event, now_ms, staged);
                    return Ok(());
                }
                (Some(content), JoinStatus::Joined)
            }
        };
        let backfill = record.backfill.map(|bytes| staged.copy(bytes));
        let origin = Origin {
            raw_offset: record.offset,
            raw_timestamp_ms: record.timestamp_ms,
            backfill,
        };
        self.publish(&event, content, join_status, origin, view, staged)?;
        staged.count(|counts| counts.enriched += 1);
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
            if staged.steps() >= rules.transaction_steps {
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
            if staged.steps() >= rules.transaction_steps {
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
            self.unpark(id, None, JoinStatus::Timeout, view, staged)?;
            staged.count(|counts| counts.timed_out += 1);
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
        while self.pending.waits_for(id) && staged.steps() < rules.transaction_steps {
            self.unpark(id, Some(content), JoinStatus::Late, view, staged)?;
            staged.count(|counts| counts.released += 1);
        }
        Ok(())
    }

    /// Publishes the next parked event of a content and takes it off the pending table.
    fn unpark<V: View>(
        &mut self,
        content_id: ContentId,
        content: Option<JoinContent>,
        join_status: JoinStatus,
        view: &V,
        staged: &mut Staged,
    ) -> Result<(), TaskError<V::Error>> {
        let partition = self.partition;
        let Some(id) = self.pending.front(content_id) else {
            return Ok(());
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
        self.pending.leave(content_id);
        let origin = Origin {
            raw_offset: parked.raw_offset,
            raw_timestamp_ms: parked.raw_timestamp_ms,
            backfill: parked.backfill.as_deref().map(|bytes| staged.copy(bytes)),
        };
        let key = self.publish(&parked.event, content, join_status, origin, view, staged)?;
        staged.output(Output {
            stream: Stream::Pending,
            partition,
            key: Some(key),
            value: None,
            headers: Headers::None,
        });
        staged.delete_parked(partition, id);
        self.ledger.pending -= 1;
        Ok(())
    }

    /// Parks an event: it leaves when its content arrives or its deadline passes.
    fn park(
        &mut self,
        record: &RawRecord<'_>,
        content_id: ContentId,
        event: Event<'_>,
        now_ms: i64,
        staged: &mut Staged,
    ) {
        let parked = ParkedEvent {
            event,
            raw_offset: record.offset,
            raw_timestamp_ms: record.timestamp_ms,
            parked_at_ms: self.pending.parking_time(now_ms),
            backfill: record.backfill.map(Cow::Borrowed),
        };
        let id = parked.event.id;
        let key = staged.write(|out| write_id(id, out));
        let value = staged.write(|out| encode_parked(&parked, out));
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
        view: &V,
    ) -> Result<bool, TaskError<V::Error>> {
        let partition = self.partition;
        self.seen.contains(id, |container| {
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

    /// Stages the enriched event and counts it in the ledger. Returns its key. The id must not have been published: that is
    /// what exactly once means, so a second time stops the process instead.
    fn publish<V: View>(
        &mut self,
        event: &Event<'_>,
        content: Option<JoinContent>,
        join_status: JoinStatus,
        origin: Origin,
        view: &V,
        staged: &mut Staged,
    ) -> Result<Span, TaskError<V::Error>> {
        if self.is_published(event.id, view)? {
            return Err(TaskError::PublishedTwice(self.partition, event.id));
        }
        self.seen.insert(event.id);
        staged.publish(self.partition, event.id);
        let enriched = Enriched::join(event, content, join_status);
        if enriched.length_seconds == Some(0) {
            staged.note_zero_length();
        }
        let key = staged.write(|out| write_id(event.id, out));
        let value = staged.write(|out| write_enriched(&enriched, out));
        staged.output(Output {
            stream: Stream::Enriched,
            partition: self.partition,
            key: Some(key.clone()),
            value: Some(value),
            headers: Headers::Enriched {
                raw_offset: origin.raw_offset,
                raw_timestamp_ms: origin.raw_timestamp_ms,
                content_version: enriched.content_version,
                join_status,
                backfill: origin.backfill,
            },
        });
        self.ledger.enriched += 1;
        Ok(key)
    }

    /// Stages a dead letter with the record's own key and value.
    fn bury(&mut self, record: &RawRecord<'_>, why: DeadLetter, staged: &mut Staged) {
        let key = record.key.map(|key| staged.copy(key));
        let value = record.value.map(|value| staged.copy(value));
        staged.output(Output {
            stream: Stream::DeadLetters,
            partition: self.partition,
            key,
            value,
            headers: Headers::DeadLetter {
                why,
                raw_offset: record.offset,
                raw_timestamp_ms: record.timestamp_ms,
            },
        });
        self.ledger.dead += 1;
        staged.count(|counts| counts.dead_letter += 1);
    }
}

/// What an enriched event tells about the record it came from.
struct Origin {
    raw_offset: Offset,
    raw_timestamp_ms: Option<i64>,
    backfill: Option<Span>,
}

fn write_id(id: EventId, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(id.0).as_bytes());
}
