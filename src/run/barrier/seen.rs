//! The published ids: containers from their checkpoints, then the ids of the enriched topic behind the last one.

use super::fold::{Fold, Log};
use super::{Barrier, BarrierError};
use crate::codec::{ValueError, decode_checkpoint, decode_seen};
use crate::domain::{Checkpoint, Container, EventId, Offset, Partition};
use crate::kafka::{Edge, Resume, TopicId, resume};
use crate::run::seen_rows;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use thmanyah_state::{Position, Table, Tables, WriteSet};

/// Key of the record that says what the containers of a partition cover.
pub(crate) const CHECKPOINT_KEY: &str = "position";

impl<E: Edge> Barrier<E> {
    /// Brings the published ids up to the enriched topic's end.
    pub(super) fn fold_seen(&self, request: u64, partitions: &[i32]) -> Result<(), BarrierError> {
        let settings = &self.settings;
        let topic = &settings.seen_topic;
        let bounds = self.bounds(request, topic, partitions)?;
        let mut starts = BTreeMap::new();
        for (partition, bounds) in &bounds {
            let stored = self.store.position(Table::Seen, *partition)?;
            let now_ms = self.edge.now_ms();
            // There are no tombstones in this log, so a fold of it does not age.
            let from = match resume(stored, settings.seen_id, *bounds, false, now_ms) {
                Resume::From(offset) => offset,
                Resume::Rebuild(why) => {
                    tracing::info!(%topic, partition, %why, "folding the partition from its start");
                    self.drop_seen(*partition)?;
                    bounds.0
                }
            };
            starts.insert(*partition, from);
        }
        let mut checkpoints = Checkpoints {
            barrier: self,
            found: BTreeMap::new(),
        };
        let table = Table::Seen;
        let log = Log { topic, table };
        self.fold_log(request, log, starts, &bounds, &mut checkpoints)?;
        let checkpoints = checkpoints.found;

        let topic = &settings.enriched_topic;
        let bounds = self.bounds(request, topic, partitions)?;
        let mut starts = BTreeMap::new();
        let snapshot = self.store.snapshot();
        for (partition, (start, _)) in &bounds {
            let id = settings.enriched_id;
            let stored = seen_rows::enriched(&snapshot, Partition(*partition), id)?;
            let checkpoint = checkpoints
                .get(partition)
                .filter(|checkpoint| checkpoint.topic_id == id)
                .map(|checkpoint| checkpoint.enriched);
            // Each covers all before it, so their union covers all before the later. What retention has deleted beyond
            // that is missing, which the count against the ledger will tell.
            let from = stored
                .max(checkpoint)
                .map_or(*start, |offset| offset.0.max(*start));
            starts.insert(*partition, from);
        }
        drop(snapshot);
        let mut tail = EnrichedTail {
            barrier: self,
            topic: settings.enriched_id,
            ids: Vec::new(),
            scratch: Vec::new(),
        };
        let log = Log { topic, table };
        self.fold_log(request, log, starts, &bounds, &mut tail)
    }

    /// How many ids the partition has published, according to the store.
    pub(super) fn count_seen(&self, partition: i32) -> Result<Option<u64>, BarrierError> {
        let snapshot = self.store.snapshot();
        Ok(seen_rows::count(&snapshot, Partition(partition))?)
    }

    pub(super) fn drop_seen(&self, partition: i32) -> Result<(), BarrierError> {
        let prefix = partition.to_be_bytes();
        Ok(self.store.drop_partition(Table::Seen, &prefix, partition)?)
    }
}

/// The checkpoints' log: containers into the store, and the last position of each partition.
struct Checkpoints<'b, E: Edge> {
    barrier: &'b Barrier<E>,
    found: BTreeMap<i32, Checkpoint>,
}

impl<E: Edge> Checkpoints<'_, E> {
    fn take(
        &mut self,
        partition: i32,
        key: &str,
        value: &[u8],
        writes: &mut WriteSet,
    ) -> Result<(), ValueError> {
        if key == CHECKPOINT_KEY {
            self.found.insert(partition, decode_checkpoint(value)?);
        } else if let Ok(number) = key.parse() {
            let key = seen_rows::container_key(Partition(partition), Container(number));
            // United with what is there: the store may be ahead of the checkpoint.
            writes.unite(Table::Seen, &key, decode_seen(value)?);
        }
        Ok(())
    }
}

impl<E: Edge> Fold for Checkpoints<'_, E> {
    fn record(&mut self, record: &impl Message, writes: &mut WriteSet) {
        self.barrier.metrics.restored.seen.inc();
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let (Some(key), Some(value)) = (key, record.payload()) else {
            return;
        };
        if let Err(error) = self.take(record.partition(), key, value, writes) {
            // The count against the ledger decides whether something is missing.
            tracing::warn!(topic = record.topic(), offset = record.offset(), %error, "skipping an unreadable checkpoint");
        }
    }

    fn position(&mut self, partition: i32, offset: i64, writes: &mut WriteSet) {
        let position = Position {
            offset,
            topic_id: self.barrier.settings.seen_id,
            fresh_at_ms: self.barrier.edge.now_ms(),
        };
        writes.set_position(Table::Seen, partition, position);
    }
}

/// The enriched topic behind the last checkpoint: its keys are the ids.
struct EnrichedTail<'b, E: Edge> {
    barrier: &'b Barrier<E>,
    topic: TopicId,
    /// Those of the batch: united container by container they cost a fraction of one write each.
    ids: Vec<(Partition, EventId)>,
    scratch: Vec<u8>,
}

impl<E: Edge> Fold for EnrichedTail<'_, E> {
    fn record(&mut self, record: &impl Message, _: &mut WriteSet) {
        self.barrier.metrics.restored.seen.inc();
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(|key| key.parse().ok()).map(EventId) else {
            tracing::warn!(
                topic = record.topic(),
                offset = record.offset(),
                "skipping a record whose key is no event id"
            );
            return;
        };
        self.ids.push((Partition(record.partition()), id));
    }

    fn seal(&mut self, writes: &mut WriteSet) {
        self.ids.sort_unstable();
        seen_rows::add(&self.ids, writes, &mut self.scratch);
        self.ids.clear();
    }

    fn position(&mut self, partition: i32, offset: i64, writes: &mut WriteSet) {
        seen_rows::set_enriched(Partition(partition), Offset(offset), self.topic, writes);
    }
}
