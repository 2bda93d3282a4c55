//! What one transaction will hold: records to produce, changes of the pending table, and what to count once it committed.

use super::rules::{Misplaced, Rules};
use crate::domain::{ContentVersion, DeadLetter, EventId, JoinStatus, Offset, Partition};
use foldhash::HashMap;
use std::ops::Range;

/// Bytes inside [`Staged`].
pub type Span = Range<usize>;

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The enriched topic, same partition as the input.
    Enriched,
    /// The changelog of parked events, same partition as the input.
    Pending,
    /// The dead-letter topic, any partition.
    DeadLetters,
}

/// The headers of an output, as facts; the edge writes them as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headers {
    /// None.
    None,
    /// Of an enriched event.
    Enriched {
        /// Offset of its record in the input partition.
        raw_offset: Offset,
        /// Timestamp of that record, in milliseconds.
        raw_timestamp_ms: Option<i64>,
        /// Which write of the content row was joined.
        content_version: Option<ContentVersion>,
        /// How the two met.
        join_status: JoinStatus,
        /// The record's `backfill` header.
        backfill: Option<Span>,
    },
    /// Of a dead letter.
    DeadLetter {
        /// The reason.
        why: DeadLetter,
        /// Offset of its record in the input partition.
        raw_offset: Offset,
        /// Timestamp of that record, in milliseconds.
        raw_timestamp_ms: Option<i64>,
        /// How much of the record is missing.
        loss: Loss,
    },
}

/// What a dead letter does not carry of its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// The key's length, when only its first bytes fitted.
    pub key: Option<usize>,
    /// The value's length, when only its first bytes fitted.
    pub value: Option<usize>,
    /// Whether the record was no longer at hand, so that key and value were made anew.
    pub rebuilt: bool,
}

/// A record to produce. Its bytes are read with [`Staged::bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub stream: Stream,
    /// The input partition that caused it.
    pub partition: Partition,
    /// Key; `None` is a null key.
    pub key: Option<Span>,
    /// Value; `None` is a null value.
    pub value: Option<Span>,
    /// Headers.
    pub headers: Headers,
}

/// What happened in a transaction, for the metrics; counted only once it committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read.
    pub consumed: u64,
    /// Events published at once.
    pub enriched: u64,
    /// Dead letters.
    pub dead_letter: u64,
    /// Duplicates.
    pub duplicate: u64,
    /// Tombstones and ignored operations.
    pub ignored: u64,
    /// Events parked.
    pub parked: u64,
    /// Parked events published with their content.
    pub released: u64,
    /// Parked events published without.
    pub timed_out: u64,
    /// Events joined with a content of zero length.
    pub zero_length: u64,
    /// Records that do not lie where their id belongs.
    pub misplaced: u64,
    /// Dead letters that lost a part of their record.
    pub truncated: u64,
}

/// The open transaction. Outputs can be sent and dropped in between; the changes of the pending table stay until the
/// commit.
#[derive(Debug, Default)]
#[must_use = "what is staged must be sent and committed, or dropped on purpose"]
pub struct Staged {
    outputs: Vec<Output>,
    bytes: Vec<u8>,
    parked: HashMap<(Partition, EventId), Option<Span>>,
    parked_bytes: Vec<u8>,
    published: Vec<(Partition, EventId)>,
    counts: Counts,
    steps: usize,
    misplaced: Option<(Partition, Offset, EventId, Misplaced)>,
}

impl Staged {
    /// Records to produce that were not taken yet.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Bytes of an output's key, value or header.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        self.bytes.get(span.clone()).unwrap_or_default()
    }

    /// How many bytes the outputs hold.
    pub fn staged_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the outputs, which were sent.
    pub fn sent(&mut self) {
        self.outputs.clear();
        self.bytes.clear();
    }

    /// Changes of the pending table: a value is put, `None` is deleted.
    pub fn parked_changes(&self) -> impl Iterator<Item = (Partition, EventId, Option<&[u8]>)> + '_ {
        self.parked.iter().map(|((partition, id), span)| {
            let value = span
                .as_ref()
                .map(|span| self.parked_bytes.get(span.clone()).unwrap_or_default());
            (*partition, *id, value)
        })
    }

    /// The ids published, sorted by partition and id.
    pub fn published(&mut self) -> &[(Partition, EventId)] {
        self.published.sort_unstable();
        &self.published
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Outcomes so far, of records and of parked events: the size of the transaction.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether the transaction is as large as it may become, in outcomes or in the memory that it holds until its end.
    pub fn is_full(&self, rules: &Rules) -> bool {
        self.steps >= rules.transaction_steps || self.parked_bytes.len() >= rules.transaction_bytes
    }

    /// The first record that does not lie where its id belongs.
    pub fn misplaced(&self) -> Option<(Partition, Offset, EventId, Misplaced)> {
        self.misplaced
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Makes room for the next transaction, keeping the buffers.
    pub fn clear(&mut self) {
        self.sent();
        self.parked.clear();
        self.parked_bytes.clear();
        self.published.clear();
        self.counts = Counts::default();
        self.steps = 0;
        self.misplaced = None;
    }

    /// Counts one outcome, which is one step.
    pub(super) fn count(&mut self, bump: impl FnOnce(&mut Counts)) {
        bump(&mut self.counts);
        self.steps += 1;
    }

    pub(super) fn publish(&mut self, partition: Partition, id: EventId) {
        self.published.push((partition, id));
    }

    pub(super) fn consumed(&mut self) {
        self.counts.consumed += 1;
    }

    pub(super) fn note_zero_length(&mut self) {
        self.counts.zero_length += 1;
    }

    pub(super) fn note_misplaced(
        &mut self,
        partition: Partition,
        offset: Offset,
        id: EventId,
        why: Misplaced,
    ) {
        self.counts.misplaced += 1;
        self.misplaced.get_or_insert((partition, offset, id, why));
    }

    /// Takes back the bytes written since `length` were staged; no output may hold them.
    pub(super) fn take_back(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Appends bytes by `write` and says where they are.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        start..self.bytes.len()
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) -> Span {
        self.write(|out| out.extend_from_slice(bytes))
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Remembers a parked event's value until the commit.
    pub(super) fn put_parked(&mut self, partition: Partition, id: EventId, value: &Span) {
        let start = self.parked_bytes.len();
        self.parked_bytes
            .extend_from_slice(self.bytes.get(value.clone()).unwrap_or_default());
        self.parked
            .insert((partition, id), Some(start..self.parked_bytes.len()));
    }

    /// Remembers that a parked event left.
    pub(super) fn delete_parked(&mut self, partition: Partition, id: EventId) {
        self.parked.insert((partition, id), None);
    }

    /// The value of an event that was parked in this transaction.
    pub(super) fn parked(&self, partition: Partition, id: EventId) -> Option<Vec<u8>> {
        let span = self.parked.get(&(partition, id))?.clone()?;
        self.parked_bytes.get(span).map(<[u8]>::to_vec)
    }
}
