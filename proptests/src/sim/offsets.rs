//! Questions about offsets and readers of logs, answered by the simulated brokers.

use super::edge::{SimEdge, topic_number};
use super::schedule::{Fault, Point};
use super::world::{TOPICS, World};
use rdkafka::Timestamp;
use rdkafka::message::OwnedMessage;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use thmanyah::kafka::{ChangelogError, Committed, Isolation, LogReader, Offsets, OffsetsError};

/// How long unstable offsets are waited for, in microseconds.
const UNSTABLE_US: u64 = 500_000;
/// Between two looks at them.
const LOOK_US: u64 = 20_000;

/// Asks.
pub(super) struct SimOffsets {
    pub(super) edge: SimEdge,
    pub(super) group: usize,
    pub(super) isolation: Isolation,
}

impl SimOffsets {
    /// A question goes out; other things happen before it is answered, if it is.
    fn ask(&self, what: &'static str, topic: &str) -> Result<(), OffsetsError> {
        self.edge.reach(Point::Ask);
        self.edge.let_others(false);
        let mut world = self.edge.world();
        let process = self.edge.process;
        let left = world.take_fault(process, |fault| match fault {
            Fault::Silence { questions } => Some(*questions),
            _ => None,
        });
        let Some(left) = left else {
            return Ok(());
        };
        if left > 1 {
            let node = world.processes[process].node;
            let fault = Fault::Silence {
                questions: left - 1,
            };
            world.faults.push(super::world::Armed { node, fault });
        }
        world.advance(100_000);
        Err(OffsetsError::new(what, topic, "no answer"))
    }

    fn end(&self, world: &mut World, topic: usize, partition: i32) -> i64 {
        let log = world.log(topic, partition);
        match self.isolation {
            Isolation::Committed => log.stable_end(),
            Isolation::Uncommitted => log.end(),
        }
    }
}

impl Offsets for SimOffsets {
    fn committed(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, Committed>, OffsetsError> {
        let what = "committed offsets";
        self.ask(what, topic)?;
        let partitions: Vec<i32> = partitions.into_iter().collect();
        let stable = self.isolation == Isolation::Committed;
        let mut waited = 0;
        loop {
            let mut world = self.edge.world();
            let group = &world.groups[self.group];
            if !stable || !partitions.iter().any(|p| group.is_unstable(*p)) {
                let committed = partitions.iter().map(|partition| {
                    let found = group.offsets.get(partition).cloned();
                    let committed =
                        found.map_or_else(Committed::default, |(offset, metadata)| Committed {
                            offset: Some(offset),
                            metadata,
                        });
                    (*partition, committed)
                });
                return Ok(committed.collect());
            }
            if waited == 0 {
                world.counts.reach("unstable offsets were waited for");
            }
            if waited >= UNSTABLE_US {
                return Err(OffsetsError::new(what, topic, "unstable"));
            }
            waited += LOOK_US;
            world.advance(LOOK_US);
            drop(world);
            self.edge.let_others(false);
        }
    }

    fn bounds(
        &self,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<BTreeMap<i32, (i64, i64)>, OffsetsError> {
        self.ask("log start and end", topic)?;
        let number = topic_number(topic);
        let mut world = self.edge.world();
        let bounds = partitions.into_iter().map(|partition| {
            let start = world.log(number, partition).start;
            (partition, (start, self.end(&mut world, number, partition)))
        });
        Ok(bounds.collect())
    }

    fn ends(&self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, OffsetsError> {
        self.ask("log end", topic)?;
        let number = topic_number(topic);
        let mut world = self.edge.world();
        let ends = partitions
            .iter()
            .map(|partition| (*partition, self.end(&mut world, number, *partition)));
        Ok(ends.collect())
    }
}

/// Reads a log.
pub(super) struct SimReader {
    pub(super) edge: SimEdge,
    pub(super) topic: usize,
    pub(super) positions: RefCell<BTreeMap<i32, i64>>,
}

/// A record as a client lends it.
pub(super) fn record(world: &World, topic: usize, partition: i32, offset: i64) -> OwnedMessage {
    let entry = &world.logs[topic][partition as usize].entries[offset as usize];
    OwnedMessage::new(
        entry.value.as_deref().map(<[u8]>::to_vec),
        entry.key.as_deref().map(<[u8]>::to_vec),
        TOPICS[topic].to_owned(),
        Timestamp::CreateTime(entry.at_ms),
        partition,
        offset,
        None,
    )
}

impl LogReader for SimReader {
    type Record<'r> = OwnedMessage;

    fn next(&self, timeout: Duration) -> Result<Option<OwnedMessage>, ChangelogError> {
        self.edge.reach(Point::Read);
        self.edge.let_others(false);
        let mut world = self.edge.world();
        for (partition, position) in self.positions.borrow_mut().iter_mut() {
            let log = world.log(self.topic, *partition);
            if *position < log.start {
                return Err(ChangelogError::OutOfRange(TOPICS[self.topic].to_owned()));
            }
            let (found, behind) = log.next_committed(*position);
            *position = behind;
            if let Some(offset) = found {
                return Ok(Some(record(&world, self.topic, *partition, offset)));
            }
        }
        world.advance(timeout.as_micros() as u64);
        Ok(None)
    }

    fn positions(&self) -> BTreeMap<i32, i64> {
        self.positions.borrow().clone()
    }
}
