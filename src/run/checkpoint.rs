//! Checkpoints of the published ids: the containers that changed, whole, and up to where they cover the enriched topic.

use super::barrier::CHECKPOINT_KEY;
use super::error::WorkerError;
use super::seen_rows;
use super::worker::Worker;
use crate::codec::{encode_checkpoint, encode_seen};
use crate::domain::{Checkpoint, Container, Partition};
use crate::kafka::{Edge, Outgoing, Track};
use thmanyah_state::{Moment, Table, Tables};

/// Containers in one transaction, each at most 8 KiB.
const CONTAINERS: usize = 512;
/// Rounds of the last checkpoint.
const LAST_ROUNDS: usize = 32;

impl<E: Edge> Worker<E> {
    /// Writes every owned partition's changed containers to the topic of checkpoints. Called between transactions: what is
    /// written is what was applied, never what an open transaction holds. One transaction for each partition, so that the
    /// worker keeps polling; says whether containers are left.
    pub(super) fn checkpoint(&mut self) -> Result<bool, WorkerError> {
        let partitions: Vec<i32> = self.tasks.keys().copied().collect();
        let mut more = false;
        for partition in partitions {
            more |= self.checkpoint_some(Partition(partition))?;
        }
        Ok(more)
    }

    /// The checkpoint of an orderly end: it spares the next start reading the enriched topic again. Bounded, as an end is.
    pub(super) fn last_checkpoint(&mut self) -> Result<(), WorkerError> {
        for _ in 0..LAST_ROUNDS {
            if !self.checkpoint()? {
                break;
            }
        }
        Ok(())
    }

    /// One transaction of a partition's checkpoint; says whether containers are left. The last one carries the position, so
    /// an earlier one that stands alone says too little, which does no harm.
    fn checkpoint_some(&mut self, partition: Partition) -> Result<bool, WorkerError> {
        let settings = self.parts.settings.clone();
        let Some(owned) = self.tasks.get(&partition.0) else {
            return Ok(false);
        };
        let (position, ledger) = (owned.task.position(), owned.task.ledger());
        let snapshot = self.parts.store.snapshot();
        let changed = seen_rows::marked(&snapshot, partition, CONTAINERS)?;
        let enriched = seen_rows::enriched(&snapshot, partition, settings.enriched_id)?;
        let (false, Some(enriched)) = (changed.is_empty(), enriched) else {
            return Ok(false);
        };
        let more = changed.len() == CONTAINERS;
        let mut value = Vec::new();
        for Container(number) in &changed {
            let key = seen_rows::container_key(partition, Container(*number));
            value.clear();
            let found =
                snapshot.get(Table::Seen, &key, |bitmap| encode_seen(bitmap, &mut value))?;
            if found.is_some() {
                let key = number.to_string();
                self.transactor.send([checkpoint_record(
                    &settings.seen_topic,
                    partition,
                    &key,
                    &value,
                )])?;
            }
        }
        drop(snapshot);
        if !more {
            let checkpoint = Checkpoint {
                enriched,
                topic_id: settings.enriched_id,
                ledger,
            };
            value.clear();
            encode_checkpoint(&checkpoint, &mut value);
            let record = checkpoint_record(&settings.seen_topic, partition, CHECKPOINT_KEY, &value);
            self.transactor.send([record])?;
        }
        let receipt = self
            .transactor
            .commit([(partition.0, position.0, ledger.to_string())])?;
        // IMPORTANT: the marks go only now. Cleared before the commit, a crash would leave containers that no checkpoint
        // holds and none will.
        for container in changed {
            seen_rows::unmark(partition, container, &mut self.writes);
        }
        if let Some(offset) = receipt.delivered(Track::Seen, partition.0) {
            self.move_position(Track::Seen, partition.0, offset);
        }
        self.parts.store.apply(&mut self.writes)?;
        Ok(more)
    }
}

fn checkpoint_record<'a>(
    topic: &'a str,
    partition: Partition,
    key: &'a str,
    value: &'a [u8],
) -> Outgoing<'a> {
    Outgoing {
        topic,
        partition: Some(partition.0),
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: None,
        track: Some(Track::Seen),
    }
}
