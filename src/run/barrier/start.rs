//! Where a partition goes on: the group's committed position and ledger, or its first boot.

use super::{Barrier, BarrierError, LOOK_AGAIN};
use crate::domain::Ledger;
use crate::kafka::{Committed, Edge, LogReader, Offsets};
use std::collections::BTreeMap;

/// Where a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The next offset to read.
    pub(super) position: i64,
    /// What became of the records before it.
    pub(super) ledger: Ledger,
    /// Whether nothing was ever committed or published.
    pub(super) first_boot: bool,
}

impl<E: Edge> Barrier<E> {
    /// Where each partition goes on, by what the group committed. What looks like a loss is looked at a second time: another
    /// process may have committed, or records may have expired that it had processed, between two questions of the first.
    pub(super) fn starts(
        &self,
        request: u64,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Start>, BarrierError> {
        let look = || self.asked(request, || self.look_for_starts(request, partitions));
        match look() {
            Err(BarrierError::CommitLost { .. } | BarrierError::InputTruncated { .. }) => look(),
            starts => starts,
        }
    }

    fn look_for_starts(
        &self,
        request: u64,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Start>, BarrierError> {
        let topic = &self.settings.raw_topic;
        let committed = self
            .committed
            .committed(topic, partitions.iter().copied())?;
        let bounds = self.committed.bounds(topic, partitions.iter().copied())?;
        let mut starts = BTreeMap::new();
        for (partition, committed) in committed {
            let (start, end) = bounds.get(&partition).copied().unwrap_or_default();
            let found = self.start(request, partition, committed, (start, end))?;
            starts.insert(partition, found);
        }
        Ok(starts)
    }

    fn start(
        &self,
        request: u64,
        partition: i32,
        committed: Committed,
        (start, end): (i64, i64),
    ) -> Result<Start, BarrierError> {
        let group = self.settings.group.clone();
        let topic = self.settings.raw_topic.clone();
        let Some(offset) = committed.offset else {
            if !self.outputs_are_empty(request, partition)? {
                return Err(BarrierError::CommitLost {
                    group,
                    topic,
                    partition,
                });
            }
            return Ok(Start {
                position: start,
                ledger: Ledger::default(),
                first_boot: true,
            });
        };
        let ledger = Ledger::parse(&committed.metadata).map_err(|reason| {
            BarrierError::LedgerUnreadable {
                group,
                topic: topic.clone(),
                partition,
                metadata: committed.metadata,
                reason,
            }
        })?;
        if offset < start || offset > end {
            return Err(BarrierError::InputTruncated {
                topic,
                partition,
                start,
                end,
                committed: offset,
            });
        }
        Ok(Start {
            position: offset,
            ledger,
            first_boot: false,
        })
    }

    /// Whether nothing was ever published for the partition. An aborted first transaction leaves markers, no records.
    fn outputs_are_empty(&self, request: u64, partition: i32) -> Result<bool, BarrierError> {
        let settings = &self.settings;
        for topic in [
            &settings.enriched_topic,
            &settings.pending_topic,
            &settings.seen_topic,
        ] {
            let bounds = self.ends.bounds(topic, [partition])?;
            let (start, end) = bounds.get(&partition).copied().unwrap_or_default();
            if start > 0 {
                return Ok(false);
            }
            if end == 0 {
                continue;
            }
            let reader = self.edge.reader(topic, BTreeMap::from([(partition, 0)]))?;
            while reader.positions().values().any(|position| *position < end) {
                self.go_on(request)?;
                if reader.next(LOOK_AGAIN)?.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
