//! Whether every partition moves, as the group's committed positions tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::field::PARTITIONS;

/// Between two looks; recoveries are measured to this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ASK_LIMIT: Duration = Duration::from_secs(3);

type Positions = BTreeMap<i32, i64>;

/// One look.
#[derive(Clone, Debug)]
struct Look {
    asked: Instant,
    answered: Instant,
    positions: Positions,
}

/// Looks at the committed positions all the time.
#[derive(Default)]
pub(super) struct Watch {
    last: Mutex<Option<Look>>,
    looked: Condvar,
}

impl Watch {
    /// Looks until `stop` is set.
    pub(super) fn run(
        &self,
        mut client: ClientConfig,
        group: &str,
        topic: &str,
        stop: &AtomicBool,
    ) -> Result<()> {
        // What is committed counts, whether or not another transaction is under way: nothing is waited for.
        let consumer: BaseConsumer = client
            .set("group.id", group)
            .set("isolation.level", "read_uncommitted")
            .set("reconnect.backoff.max.ms", "500")
            .create()?;
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            if let Some(positions) = committed(&consumer, topic) {
                let answered = Instant::now();
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look {
                    asked,
                    answered,
                    positions,
                });
                self.looked.notify_all();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Waits until every partition's position has moved since now, and tells how long that took; or which have not.
    pub(super) fn await_moved(&self, limit: Duration) -> Result<Duration, Vec<i32>> {
        let since = Instant::now();
        let mut before: Option<Positions> = None;
        let mut stuck: Vec<i32> = (0..PARTITIONS).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(look) = last.as_ref().filter(|look| look.asked >= since) {
                let before = before.get_or_insert_with(|| look.positions.clone());
                stuck.retain(|partition| {
                    look.positions
                        .get(partition)
                        .is_none_or(|now| before.get(partition).is_some_and(|before| before >= now))
                });
                if stuck.is_empty() {
                    return Ok(look.answered - since);
                }
            }
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(stuck);
            }
            last = self
                .looked
                .wait_timeout(last, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// What a group committed, without waiting for transactions that are under way.
pub(super) fn committed(consumer: &BaseConsumer, topic: &str) -> Option<Positions> {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition(topic, partition);
    }
    let list = consumer.committed_offsets(list, ASK_LIMIT).ok()?;
    let mut positions = Positions::new();
    for element in list.elements() {
        element.error().ok()?;
        if let Offset::Offset(position) = element.offset() {
            positions.insert(element.partition(), position);
        }
    }
    Some(positions)
}
