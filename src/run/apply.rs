//! After the receipt: what was committed reaches the store, then the metrics.

use super::barrier::parked_key;
use super::error::WorkerError;
use super::seen_rows;
use super::worker::Worker;
use crate::domain::{Offset, Partition};
use crate::kafka::{Edge, Receipt, Track};
use thmanyah_state::{Position, Table, Tables};

impl<E: Edge> Worker<E> {
    /// Writes what the receipt covers: rows and the position behind them, in one batch.
    pub(super) fn apply(&mut self, receipt: &Receipt) -> Result<(), WorkerError> {
        for (partition, id, value) in self.staged.parked_changes() {
            let key = parked_key(partition, id);
            match value {
                Some(value) => self.writes.put(Table::Pending, &key, value),
                None => self.writes.delete(Table::Pending, &key),
            }
        }
        seen_rows::add(self.staged.published(), &mut self.writes, &mut self.scratch);
        for (track, partition, offset) in receipt.delivered_all() {
            self.move_position(track, partition, offset);
        }
        if !self.writes.is_empty() {
            self.parts.store.apply(&mut self.writes)?;
        }
        for owned in self.tasks.values_mut() {
            owned.task.committed();
        }
        Ok(())
    }

    /// The rows written with this cover the log up to here.
    pub(super) fn move_position(&mut self, track: Track, partition: i32, offset: i64) {
        let settings = &self.parts.settings;
        let fresh_at_ms = self.parts.edge.now_ms();
        let (table, topic_id) = match track {
            Track::Pending => (Table::Pending, settings.pending_id),
            Track::Seen => (Table::Seen, settings.seen_id),
            Track::Enriched => {
                let (partition, id) = (Partition(partition), settings.enriched_id);
                seen_rows::set_enriched(partition, Offset(offset), id, &mut self.writes);
                return;
            }
        };
        let position = Position {
            offset,
            topic_id,
            fresh_at_ms,
        };
        self.writes.set_position(table, partition, position);
    }

    pub(super) fn count(&mut self) {
        let metrics = &self.parts.metrics;
        let counts = self.staged.counts();
        metrics.records_consumed.inc_by(counts.consumed);
        metrics.events.enriched.inc_by(counts.enriched);
        metrics.events.dead_letter.inc_by(counts.dead_letter);
        metrics.events.duplicate.inc_by(counts.duplicate);
        metrics.events.ignored.inc_by(counts.ignored);
        metrics.events.parked.inc_by(counts.parked);
        metrics.events.released.inc_by(counts.released);
        metrics.events.timed_out.inc_by(counts.timed_out);
        metrics.zero_length.inc_by(counts.zero_length);
        metrics.truncated.inc_by(counts.truncated);
        metrics.misplaced_records.inc_by(counts.misplaced);
        let Some((partition, offset, id, why)) = self.staged.misplaced() else {
            return;
        };
        let now = self.parts.edge.instant();
        if let Some(count) = self.misplaced.told(now, counts.misplaced) {
            tracing::warn!(
                count, %partition, %offset, %id,
                "records do not lie where their ids belong: {why}; an id that comes in two partitions is published twice"
            );
        }
    }
}
