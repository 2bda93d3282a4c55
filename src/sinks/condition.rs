//! How a sink fares: for `/readyz`, the metrics, and one line of the log for each change.

use super::breaker::Breaker;
use crate::health::Health;
use crate::logging::Seldom;
use crate::metrics::SinkMetrics;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// So many reasons are logged at once, however they follow each other.
const FEW: usize = 8;
/// So many are remembered.
const MANY: usize = 1_000;

/// What the partitions of one sink share.
struct Shared {
    /// `sink-` and its name.
    name: String,
    health: Arc<Health>,
    metrics: SinkMetrics,
    breaker: Arc<Breaker>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// Why partitions do not get on.
    unwell: BTreeMap<i32, String>,
    /// The reasons that were logged since all was well.
    logged: BTreeSet<String>,
    seldom: Seldom,
}

/// The condition of one partition of a sink.
#[derive(Clone)]
pub struct Condition {
    partition: i32,
    shared: Arc<Shared>,
}

impl Condition {
    /// A sink of which nothing bad is known yet; [`of`](Self::of) makes the conditions of its partitions.
    pub fn new(
        name: &str,
        health: Arc<Health>,
        metrics: SinkMetrics,
        breaker: Arc<Breaker>,
    ) -> Self {
        metrics.up.set(1);
        let shared = Shared {
            name: format!("sink-{name}"),
            health,
            metrics,
            breaker,
            told: Mutex::default(),
        };
        Self {
            partition: 0,
            shared: Arc::new(shared),
        }
    }

    /// That of a partition.
    #[must_use]
    pub fn of(&self, partition: i32) -> Self {
        Self {
            partition,
            shared: Arc::clone(&self.shared),
        }
    }

    /// The destination does not take what it gets. `misconfigured` says that only an operator can put it right.
    #[allow(clippy::disallowed_methods, reason = "only the log is held back by it")]
    pub fn unwell(&self, reason: &str, misconfigured: bool) {
        let shared = &self.shared;
        let mut told = shared.told.lock();
        told.unwell.insert(self.partition, reason.to_owned());
        shared.health.set_unwell(&shared.name, reason);
        shared.metrics.up.set(0);
        self.breaker();
        // Each is told once. Some differ each time: beyond a few, one now and then.
        let is_news = !told.logged.contains(reason);
        if is_news && (told.logged.len() < FEW || told.seldom.told(Instant::now(), 1).is_some()) {
            if told.logged.len() < MANY {
                told.logged.insert(reason.to_owned());
            }
            if misconfigured {
                tracing::error!(
                    sink = shared.name,
                    "{reason}; trying again, in case that it is put right"
                );
            } else {
                tracing::warn!(sink = shared.name, "{reason}; trying again");
            }
        }
    }

    /// The destination took what it got.
    pub fn well(&self) {
        if self.was_the_last() {
            tracing::info!(sink = self.shared.name, "delivering again");
        }
        self.breaker();
    }

    /// The partition belongs to another now.
    pub fn forget(&self) {
        self.was_the_last();
    }

    /// Takes the partition from those that are unwell; whether no other is left.
    fn was_the_last(&self) -> bool {
        let shared = &self.shared;
        let mut told = shared.told.lock();
        if told.unwell.remove(&self.partition).is_none() {
            return false;
        }
        if let Some(other) = told.unwell.values().next() {
            shared.health.set_unwell(&shared.name, other);
            return false;
        }
        shared.health.set_well(&shared.name);
        shared.metrics.up.set(1);
        told.seldom = Seldom::default();
        told.logged.clear();
        true
    }

    fn breaker(&self) {
        let open = i64::from(self.shared.breaker.is_open());
        self.shared.metrics.breaker_open.set(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_sink_is_well_when_all_its_partitions_are() {
        let (health, metrics) = (Arc::new(Health::new()), Metrics::new().sink("redis"));
        let all = Condition::new(
            "redis",
            Arc::clone(&health),
            metrics.clone(),
            Arc::default(),
        );
        let (one, two) = (all.of(1), all.of(2));
        one.well();
        assert_eq!((health.unwell().len(), metrics.up.get()), (0, 1));
        one.unwell("no route", false);
        two.unwell("no rights", true);
        assert_eq!(metrics.up.get(), 0);
        two.well();
        let unwell = health.unwell();
        assert_eq!(
            unwell.get("sink-redis").map(String::as_str),
            Some("no route")
        );
        assert_eq!(metrics.up.get(), 0);
        one.forget();
        assert!(health.unwell().is_empty());
        assert_eq!(metrics.up.get(), 1, "what is left is well");
    }
}
