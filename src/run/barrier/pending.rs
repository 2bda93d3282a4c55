//! The pending table: brought up to the true end of its changelog, and read into the tasks.

use super::start::Start;
use super::{Barrier, BarrierError, LOOK_AGAIN};
use crate::codec::decode_parked;
use crate::domain::{EventId, Offset, Partition};
use crate::enricher::Task;
use crate::kafka::{ChangelogReader, Resume, resume};
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use thmanyah_state::{Direction, Position, Table, WriteSet};

/// Records folded into one write of the store.
const BATCH_RECORDS: usize = 4096;

impl Barrier {
    /// Brings the pending table up to the changelog's end.
    ///
    /// IMPORTANT: the end is asked for with a read_uncommitted reader. Beside an open transaction a read_committed one is
    /// told the LSO, and what was committed behind it would be missed. And the end is detected by the position, which
    /// moves over markers, never by the last record.
    pub(super) fn fold_pending(
        &self,
        request: u64,
        partitions: &[i32],
    ) -> Result<(), BarrierError> {
        let topic = &self.settings.pending_topic;
        let bounds = self.asked(request, || {
            Ok(self.ends.bounds(topic, partitions.iter().copied())?)
        })?;
        let mut starts = BTreeMap::new();
        for (partition, bounds) in &bounds {
            let stored = self.store.position(Table::Pending, *partition)?;
            let now_ms = (self.now_ms)();
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
        let behind: BTreeMap<i32, i64> = starts
            .iter()
            .filter(|(partition, from)| bounds.get(partition).is_some_and(|(_, end)| from < &end))
            .map(|(partition, from)| (*partition, *from))
            .collect();
        let mut positions = starts;
        let mut writes = WriteSet::new();
        if !behind.is_empty() {
            let reader = ChangelogReader::open(&self.settings.client, topic, behind)?;
            loop {
                self.go_on(request)?;
                let mut wait = LOOK_AGAIN;
                while writes.len() < BATCH_RECORDS
                    && let Some(record) = reader.poll(wait)?
                {
                    wait = Duration::ZERO;
                    self.fold(&record, &mut writes);
                }
                positions.extend(reader.positions());
                self.set_positions(&positions, &mut writes);
                self.store.apply(&mut writes)?;
                let done = |(partition, (_, end)): (&i32, &(i64, i64))| {
                    positions
                        .get(partition)
                        .is_some_and(|position| position >= end)
                };
                if bounds.iter().all(done) {
                    return Ok(());
                }
            }
        }
        self.set_positions(&positions, &mut writes);
        Ok(self.store.apply(&mut writes)?)
    }

    fn fold(&self, record: &impl Message, writes: &mut WriteSet) {
        self.metrics.restored.pending.inc();
        let id = record
            .key()
            .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        let Some(id) = id.map(EventId) else {
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

    fn set_positions(&self, positions: &BTreeMap<i32, i64>, writes: &mut WriteSet) {
        for (partition, offset) in positions {
            let position = Position {
                offset: *offset,
                topic_id: self.settings.pending_id,
                fresh_at_ms: (self.now_ms)(),
            };
            writes.set_position(Table::Pending, *partition, position);
        }
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
                let mut rows = snapshot.scan(Table::Pending, &from, &to, Direction::Forward)?;
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

/// Key of a parked event in the store: partition, then the id so that it sorts as a number.
pub(in crate::run) fn parked_key(partition: Partition, id: EventId) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&partition.0.to_be_bytes());
    tail.copy_from_slice(&((id.0 as u64) ^ (1 << 63)).to_be_bytes());
    key
}
