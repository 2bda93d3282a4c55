//! Folding a log into the store up to its true end.

use super::{Barrier, BarrierError, LOOK_AGAIN, component};
use crate::kafka::{ChangelogError, Edge, LogReader, Offsets};
use crate::progress::Progress;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use thmanyah_state::{Table, Tables, WriteSet};

/// Records folded into one batch of the store.
const BATCH_RECORDS: usize = 65_536;
/// Bytes of writes folded into one batch.
const BATCH_BYTES: usize = 8 << 20;

/// A log, and the table that it is folded into.
#[derive(Clone, Copy)]
pub(super) struct Log<'l> {
    /// The topic.
    pub(super) topic: &'l str,
    /// The table.
    pub(super) table: Table,
}

/// How a log's records become rows.
pub(super) trait Fold {
    /// Adds what one record changes, or keeps it until the batch ends.
    fn record(&mut self, record: &impl Message, writes: &mut WriteSet);

    /// Adds what was kept. A batch ends here, but for its positions.
    fn seal(&mut self, _: &mut WriteSet) {}

    /// Sets the position of a partition, in the same batch as the rows before it.
    fn position(&mut self, partition: i32, offset: i64, writes: &mut WriteSet);
}

impl<E: Edge> Barrier<E> {
    /// Log start and true end of each partition.
    ///
    /// IMPORTANT: asked for with a read_uncommitted reader. Beside an open transaction a read_committed one is told the LSO,
    /// and what was committed behind it would be missed.
    pub(super) fn bounds(
        &self,
        request: u64,
        topic: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, (i64, i64)>, BarrierError> {
        self.asked(request, || {
            Ok(self.ends.bounds(topic, partitions.iter().copied())?)
        })
    }

    /// Folds each partition from its start to its end.
    ///
    /// IMPORTANT: the end is detected by the position, which moves over markers, never by the last record.
    pub(super) fn fold_log(
        &self,
        request: u64,
        log: Log<'_>,
        starts: BTreeMap<i32, i64>,
        bounds: &BTreeMap<i32, (i64, i64)>,
        fold: &mut impl Fold,
    ) -> Result<(), BarrierError> {
        let end = |partition: &i32| bounds.get(partition).map_or(0, |(_, end)| *end);
        let behind: BTreeMap<i32, i64> = starts
            .iter()
            .filter(|(partition, from)| **from < end(partition))
            .map(|(partition, from)| (*partition, *from))
            .collect();
        let mut told = self.begin_progress(log, &behind, bounds);
        let mut positions = starts;
        let mut writes = WriteSet::new();
        // A start at or past the end is done at once; its position would stay unknown.
        let reader = if behind.is_empty() {
            None
        } else {
            Some(self.edge.reader(log.topic, behind)?)
        };
        loop {
            if let Some(reader) = &reader {
                self.go_on(request)?;
                read_batch(reader, fold, &mut writes)?;
                positions.extend(reader.positions());
            }
            fold.seal(&mut writes);
            for (partition, offset) in &positions {
                fold.position(*partition, *offset, &mut writes);
            }
            self.store.apply(&mut writes)?;
            let now = self.edge.instant();
            if positions
                .iter()
                .all(|(partition, offset)| *offset >= end(partition))
            {
                told.progress.finish(now);
                return Ok(());
            }
            told.progress.advance(now, &self.health, |component| {
                let partition = told.partitions.get(component).unwrap_or(&-1);
                let position = positions.get(partition).copied().unwrap_or_default();
                (end(partition) - position).max(0) as u64
            });
        }
    }

    fn begin_progress(
        &self,
        log: Log<'_>,
        behind: &BTreeMap<i32, i64>,
        bounds: &BTreeMap<i32, (i64, i64)>,
    ) -> Told {
        let partitions: BTreeMap<String, i32> =
            behind.keys().map(|p| (component(*p), *p)).collect();
        let left = |partition: &i32| {
            let end = bounds.get(partition).map_or(0, |(_, end)| *end);
            let from = behind.get(partition).copied().unwrap_or_default();
            (end - from).max(0) as u64
        };
        let left = partitions.iter().map(|(name, p)| (name.clone(), left(p)));
        let (table, left) = (log.table.name(), left.collect());
        let now = self.edge.instant();
        Told {
            progress: Progress::begin(table, log.topic, left, &self.metrics, now),
            partitions,
        }
    }
}

/// Progress, and the partitions by the names that it is told under.
struct Told {
    progress: Progress,
    partitions: BTreeMap<String, i32>,
}

/// Reads until the batch is full or nothing more is there.
fn read_batch(
    reader: &impl LogReader,
    fold: &mut impl Fold,
    writes: &mut WriteSet,
) -> Result<(), ChangelogError> {
    let (mut wait, mut records) = (LOOK_AGAIN, 0);
    while records < BATCH_RECORDS
        && writes.byte_len() < BATCH_BYTES
        && let Some(record) = reader.next(wait)?
    {
        wait = Duration::ZERO;
        records += 1;
        fold.record(&record, writes);
    }
    Ok(())
}
