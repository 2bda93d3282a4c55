//! The pending table: brought up to the true end of its changelog, and read into the tasks.

use super::fold::{Fold, Log};
use super::start::Start;
use super::{Barrier, BarrierError};
use crate::codec::decode_parked;
use crate::domain::{EventId, Offset, Partition};
use crate::enricher::Task;
use crate::kafka::{Edge, Resume, resume};
use rdkafka::message::Message;
use std::collections::BTreeMap;
use thmanyah_state::{Moment, Position, Rows, Table, Tables, WriteSet};

impl<E: Edge> Barrier<E> {
    /// Brings the pending table up to the changelog's end.
    pub(super) fn fold_pending(
        &self,
        request: u64,
        partitions: &[i32],
    ) -> Result<(), BarrierError> {
        let topic = &self.settings.pending_topic;
        let bounds = self.bounds(request, topic, partitions)?;
        let mut starts = BTreeMap::new();
        for (partition, bounds) in &bounds {
            let stored = self.store.position(Table::Pending, *partition)?;
            let now_ms = self.edge.now_ms();
            let from = match resume(stored, self.settings.pending_id, *bounds, true, now_ms) {
                Resume::From(offset) => offset,
                Resume::Rebuild(why) => {
                    tracing::info!(%topic, partition, %why, "folding the partition from its start");
                    self.drop_pending(*partition)?;
                    bounds.0
                }
            };
            starts.insert(*partition, from);
        }
        let log = Log {
            topic,
            table: Table::Pending,
        };
        self.fold_log(request, log, starts, &bounds, &mut PendingFold(self))
    }

    pub(super) fn drop_pending(&self, partition: i32) -> Result<(), BarrierError> {
        let prefix = partition.to_be_bytes();
        Ok(self
            .store
            .drop_partition(Table::Pending, &prefix, partition)?)
    }

    /// Builds each partition's task from the committed state and the pending table.
    pub(super) fn tasks(&self, starts: &BTreeMap<i32, Start>) -> Result<Vec<Task>, BarrierError> {
        let snapshot = self.store.snapshot();
        starts
            .iter()
            .map(|(partition, start)| {
                let partition = Partition(*partition);
                let mut task = Task::new(partition, Offset(start.position), start.ledger);
                let from = parked_key(partition, EventId(i64::MIN));
                let to = Partition(partition.0 + 1).0.to_be_bytes();
                let mut rows = snapshot.rows(Table::Pending, &from, &to)?;
                while let Some((_, value)) = rows.next()? {
                    let parked =
                        decode_parked(value).map_err(|error| BarrierError::ParkedUnreadable {
                            partition: partition.0,
                            reason: error.to_string(),
                        })?;
                    task.restore(&parked);
                }
                Ok(task)
            })
            .collect()
    }
}

/// The changelog of parked events.
struct PendingFold<'b, E: Edge>(&'b Barrier<E>);

impl<E: Edge> Fold for PendingFold<'_, E> {
    fn record(&mut self, record: &impl Message, writes: &mut WriteSet) {
        self.0.metrics.restored.pending.inc();
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(|key| key.parse().ok()).map(EventId) else {
            tracing::warn!(
                topic = record.topic(),
                offset = record.offset(),
                "skipping a record whose key is no event id"
            );
            return;
        };
        let key = parked_key(Partition(record.partition()), id);
        match record.payload() {
            Some(value) => writes.put(Table::Pending, &key, value),
            None => writes.delete(Table::Pending, &key),
        }
    }

    fn position(&mut self, partition: i32, offset: i64, writes: &mut WriteSet) {
        let position = Position {
            offset,
            topic_id: self.0.settings.pending_id,
            fresh_at_ms: self.0.edge.now_ms(),
        };
        writes.set_position(Table::Pending, partition, position);
    }
}

/// Key of a parked event in the store: partition, then the id so that it sorts as a number.
pub(crate) fn parked_key(partition: Partition, id: EventId) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&partition.0.to_be_bytes());
    tail.copy_from_slice(&((id.0 as u64) ^ (1 << 63)).to_be_bytes());
    key
}
