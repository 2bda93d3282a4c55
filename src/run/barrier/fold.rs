//! Folding a log into the store up to its true end.

use super::{Barrier, BarrierError, LOOK_AGAIN};
use crate::kafka::{Edge, LogReader, Offsets};
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use thmanyah_state::{Tables, WriteSet};

/// Writes folded into one batch of the store.
const BATCH_WRITES: usize = 4096;

/// How a log's records become rows.
pub(super) trait Fold {
    /// Adds what one record changes.
    fn record(&mut self, record: &impl Message, writes: &mut WriteSet);

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
        topic: &str,
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
        let mut positions = starts;
        let mut writes = WriteSet::new();
        // A start at or past the end is done at once; its position would stay unknown.
        let reader = if behind.is_empty() {
            None
        } else {
            Some(self.edge.reader(topic, behind)?)
        };
        loop {
            if let Some(reader) = &reader {
                self.go_on(request)?;
                let mut wait = LOOK_AGAIN;
                while writes.len() < BATCH_WRITES
                    && let Some(record) = reader.next(wait)?
                {
                    wait = Duration::ZERO;
                    fold.record(&record, &mut writes);
                }
                positions.extend(reader.positions());
            }
            for (partition, offset) in &positions {
                fold.position(*partition, *offset, &mut writes);
            }
            self.store.apply(&mut writes)?;
            if positions
                .iter()
                .all(|(partition, offset)| *offset >= end(partition))
            {
                return Ok(());
            }
        }
    }
}
