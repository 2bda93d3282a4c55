//! Rows of partitions that this instance has not owned for a long time are deleted. Should such a partition come back, they are
//! rebuilt from Kafka.

use super::lease::Leases;
use crate::domain::Partition;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thmanyah_state::{Store, Table};

/// The tables that hold rows of one partition. The content table is everybody's, and `recent` sees to its own rows.
const TABLES: [Table; 2] = [Table::Pending, Table::Seen];
/// The longest time between two looks.
const LOOK: Duration = Duration::from_mins(10);
/// One wait, between looks at the stop flag.
const STEP: Duration = Duration::from_millis(100);

/// Deletes what is orphaned.
pub(super) struct Orphans {
    pub(super) store: Store,
    pub(super) leases: Leases,
    pub(super) retention: Duration,
    pub(super) now_ms: fn() -> i64,
    /// When partitions were last seen in use here.
    pub(super) used_ms: BTreeMap<i32, i64>,
}

impl Orphans {
    /// Looks until `stop` is set. The first look comes late enough for an instance to get back what it owned before it was
    /// started.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<(), thmanyah_state::Error> {
        let period_ms = (self.retention / 4).min(LOOK).as_millis() as i64;
        let mut looked_ms = (self.now_ms)();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(STEP);
            if (self.now_ms)() - looked_ms >= period_ms {
                looked_ms = (self.now_ms)();
                self.look(looked_ms)?;
            }
        }
        Ok(())
    }

    fn look(&mut self, now_ms: i64) -> Result<(), thmanyah_state::Error> {
        for table in TABLES {
            for (partition, position) in self.store.positions(table)? {
                // Held while the rows go, so that no barrier counts them meanwhile.
                let Some(_lease) = self.leases.acquire(partition) else {
                    self.used_ms.insert(partition, now_ms);
                    continue;
                };
                let used_ms = self.used_ms.get(&partition).copied();
                let since_ms = position.fresh_at_ms.max(used_ms.unwrap_or(i64::MIN));
                if now_ms - since_ms > self.retention.as_millis() as i64 {
                    let (table_name, partition) = (table.name(), Partition(partition));
                    tracing::info!(table = table_name, %partition, "deleting the rows of a partition that moved away");
                    let prefix = partition.0.to_be_bytes();
                    self.store.drop_partition(table, &prefix, partition.0)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thmanyah_state::{Options, Position, WriteSet};

    const HOUR_MS: i64 = 3_600_000;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn fill(store: &Store, partition: i32, fresh_at_ms: i64) -> Outcome {
        let mut writes = WriteSet::new();
        for table in TABLES {
            let mut key = partition.to_be_bytes().to_vec();
            key.extend([0; 8]);
            writes.put(table, &key, b"row");
            let position = Position {
                offset: 1,
                topic_id: [0; 16],
                fresh_at_ms,
            };
            writes.set_position(table, partition, position);
        }
        Ok(store.apply(&mut writes)?)
    }

    fn left(store: &Store) -> Result<Vec<i32>, thmanyah_state::Error> {
        let mut left: Vec<i32> = store
            .positions(Table::Pending)?
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        let seen = store.positions(Table::Seen)?;
        left.retain(|partition| seen.iter().any(|(other, _)| other == partition));
        Ok(left)
    }

    #[test]
    fn rows_go_when_their_partition_has_been_away_for_the_whole_time() -> Outcome {
        let dir = tempfile::tempdir()?;
        let store = Store::open(dir.path(), &Options::default())?;
        for (partition, fresh_at_ms) in [(0, 0), (1, 20 * HOUR_MS), (2, 0)] {
            fill(&store, partition, fresh_at_ms)?;
        }
        let leases = Leases::default();
        let mut orphans = Orphans {
            store: store.clone(),
            leases: leases.clone(),
            retention: Duration::from_hours(24),
            now_ms: || 0,
            used_ms: BTreeMap::new(),
        };
        let owned = leases.acquire(2);
        orphans.look(24 * HOUR_MS)?;
        assert_eq!(left(&store)?, [0, 1, 2]);
        orphans.look(25 * HOUR_MS)?;
        assert_eq!(left(&store)?, [1, 2]);
        drop(owned);
        // Nothing was written for it, but it was in use an hour ago.
        orphans.look(26 * HOUR_MS)?;
        assert_eq!(left(&store)?, [1, 2]);
        orphans.look(50 * HOUR_MS)?;
        assert!(left(&store)?.is_empty());
        assert_eq!(store.get(Table::Pending, &[0; 12], |_| ())?, None);
        Ok(())
    }
}
