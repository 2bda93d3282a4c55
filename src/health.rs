//! Whether workers progress and what is still being restored. Progress is told without a lock.

use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

/// A worker that has not told of progress for this long counts as stuck, unless another limit is set.
pub const STUCK_AFTER_MS: i64 = 60_000;

/// What the process knows of its own health.
#[derive(Debug)]
pub struct Health {
    workers: Mutex<BTreeMap<String, Arc<Progress>>>,
    components: Mutex<BTreeMap<String, Component>>,
    /// Sinks whose destination does not take what it gets, and why.
    unwell: Mutex<BTreeMap<String, String>>,
    stuck_after_ms: i64,
    /// Until this moment nobody counts as stuck: the brokers were away.
    excused_until_ms: AtomicI64,
}

impl Default for Health {
    fn default() -> Self {
        Self::with_limit(Duration::from_millis(STUCK_AFTER_MS.unsigned_abs()))
    }
}

/// What a worker is at, to be told when it gets stuck there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Its first transaction's preparation, or nothing that has a name of its own.
    Starting,
    /// Reading records.
    Reading,
    /// Handing records to the producer.
    Sending,
    /// Committing a transaction.
    Committing,
    /// Checkpointing published ids.
    Checkpointing,
    /// Following a rebalance.
    Rebalancing,
    /// Starting over after a failure.
    Recovering,
}

impl Doing {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Starting, "starting"),
        (Self::Reading, "reading records"),
        (Self::Sending, "handing records to the producer"),
        (Self::Committing, "committing a transaction"),
        (Self::Checkpointing, "checkpointing published ids"),
        (Self::Rebalancing, "following a rebalance"),
        (Self::Recovering, "starting over after a failure"),
    ];

    /// In words, to go behind "while".
    pub fn name(self) -> &'static str {
        Self::named(self as usize)
    }

    fn named(number: usize) -> &'static str {
        Self::ALL.get(number).map_or("", |(_, name)| name)
    }
}

/// A worker's last sign of life.
#[derive(Debug, Default)]
struct Progress {
    at_ms: AtomicI64,
    doing: AtomicUsize,
}

/// A worker that makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// For so many milliseconds.
    pub since_ms: i64,
    /// What it was at.
    pub doing: &'static str,
}

/// A worker's way to tell of progress.
#[derive(Clone, Debug)]
pub struct Beat(Arc<Progress>);

impl Beat {
    /// The worker makes progress at this moment, in milliseconds since the epoch.
    pub fn beat(&self, now_ms: i64) {
        self.0.at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// What it does from here on.
    pub fn doing(&self, what: Doing) {
        self.0.doing.store(what as usize, Ordering::Relaxed);
    }
}

/// Something that must be restored before the process is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Whether it is restored.
    pub ready: bool,
    /// Records left to restore.
    pub left: u64,
    /// Records restored in a second.
    pub rate: u64,
    /// The table that is being restored, where it is one of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<&'static str>,
}

impl Health {
    /// Nothing is known yet, so nothing is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same; a worker without progress for longer than `limit` counts as stuck.
    pub fn with_limit(limit: Duration) -> Self {
        Self {
            workers: Mutex::default(),
            components: Mutex::default(),
            unwell: Mutex::default(),
            stuck_after_ms: limit.as_millis() as i64,
            excused_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Registers a worker, which is taken to progress now; the returned value is kept by it.
    pub fn worker(&self, name: &str, now_ms: i64) -> Beat {
        let mut workers = self.workers.lock();
        let beat = workers.entry(name.to_owned()).or_default();
        beat.at_ms.store(now_ms, Ordering::Relaxed);
        Beat(Arc::clone(beat))
    }

    /// A registered worker makes progress; a name that is new is registered.
    pub fn beat(&self, worker: &str, now_ms: i64) {
        let known = self.workers.lock().get(worker).cloned();
        match known {
            Some(beat) => beat.at_ms.store(now_ms, Ordering::Relaxed),
            None => drop(self.worker(worker, now_ms)),
        }
    }

    /// A worker has ended as it should and is no longer waited for.
    pub fn retire(&self, worker: &str) {
        self.workers.lock().remove(worker);
    }

    /// A component is needed and not restored yet.
    pub fn set_restoring(&self, name: &str, left: u64, rate: u64) {
        let component = Component {
            ready: false,
            left,
            rate,
            table: None,
        };
        self.components.lock().insert(name.to_owned(), component);
    }

    /// How far a component is that is being restored. One that was forgotten meanwhile stays so: who restores it may hear of
    /// that late.
    pub fn advance(&self, name: &str, table: &'static str, left: u64, rate: u64) {
        if let Some(component) = self.components.lock().get_mut(name)
            && !component.ready
        {
            *component = Component {
                ready: false,
                left,
                rate,
                table: Some(table),
            };
        }
    }

    /// A component is restored.
    pub fn set_ready(&self, name: &str) {
        let component = Component {
            ready: true,
            ..Component::default()
        };
        self.components.lock().insert(name.to_owned(), component);
    }

    /// A component is not needed any more, as a partition that moved away.
    pub fn forget(&self, name: &str) {
        self.components.lock().remove(name);
    }

    /// A sink's destination does not take what it gets. That is no lack of readiness: everything else goes on.
    pub fn set_unwell(&self, sink: &str, reason: &str) {
        self.unwell
            .lock()
            .insert(sink.to_owned(), reason.to_owned());
    }

    /// A sink delivers again.
    pub fn set_well(&self, sink: &str) {
        self.unwell.lock().remove(sink);
    }

    /// Sinks whose destination does not take what it gets, and why.
    pub fn unwell(&self) -> BTreeMap<String, String> {
        self.unwell.lock().clone()
    }

    /// The component of that name.
    pub fn component(&self, name: &str) -> Option<Component> {
        self.components.lock().get(name).copied()
    }

    /// Nobody counts as stuck before this moment: who waits for brokers that are away is not stuck.
    pub fn excuse(&self, until_ms: i64) {
        self.excused_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// Workers that are stuck.
    pub fn stuck(&self, now_ms: i64) -> BTreeMap<String, Stuck> {
        if now_ms <= self.excused_until_ms.load(Ordering::Relaxed) {
            return BTreeMap::new();
        }
        self.without_progress(self.stuck_after_ms, now_ms)
    }

    /// Workers that have not told of progress for longer than so many milliseconds.
    pub fn without_progress(&self, longer_than_ms: i64, now_ms: i64) -> BTreeMap<String, Stuck> {
        let workers = self.workers.lock();
        let since = workers.iter().map(|(name, progress)| {
            let stuck = Stuck {
                since_ms: now_ms.saturating_sub(progress.at_ms.load(Ordering::Relaxed)),
                doing: Doing::named(progress.doing.load(Ordering::Relaxed)),
            };
            (name.clone(), stuck)
        });
        since
            .filter(|(_, stuck)| stuck.since_ms > longer_than_ms)
            .collect()
    }

    /// Components that are not restored. `None` when none is known yet, which is no readiness either.
    pub fn restoring(&self) -> Option<BTreeMap<String, Component>> {
        let components = self.components.lock();
        let restoring = components
            .iter()
            .filter(|(_, component)| !component.ready)
            .map(|(name, component)| (name.clone(), *component));
        (!components.is_empty()).then(|| restoring.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_only_after_its_minute() {
        let health = Health::new();
        let beat = health.worker("enricher-0", 1_000);
        beat.doing(Doing::Committing);
        assert!(health.stuck(61_000).is_empty());
        let stuck = Stuck {
            since_ms: 60_001,
            doing: "committing a transaction",
        };
        assert_eq!(health.stuck(61_001).get("enricher-0"), Some(&stuck));
        beat.beat(50_000);
        assert!(health.stuck(100_000).is_empty());
        health.beat("enricher-0", 100_000);
        assert!(health.stuck(160_000).is_empty());
        health.retire("enricher-0");
        assert!(health.stuck(i64::MAX).is_empty());
    }

    #[test]
    fn progress_is_told_of_what_is_being_restored_only() {
        let health = Health::new();
        health.advance("partition 1", "seen", 5, 2);
        assert_eq!(health.component("partition 1"), None);
        health.set_restoring("partition 1", 0, 0);
        health.advance("partition 1", "seen", 5, 2);
        let told = health.component("partition 1").unwrap_or_default();
        assert_eq!((told.left, told.rate, told.table), (5, 2, Some("seen")));
        health.set_ready("partition 1");
        health.advance("partition 1", "seen", 4, 2);
        assert_eq!(health.restoring(), Some(BTreeMap::new()));
    }

    #[test]
    fn nobody_is_stuck_while_the_brokers_are_away() {
        let health = Health::with_limit(Duration::from_secs(2));
        health.worker("enricher-0", 0);
        health.excuse(5_000);
        health.excuse(4_000);
        assert!(health.stuck(5_000).is_empty());
        assert_eq!(health.stuck(5_001).len(), 1);
    }

    #[test]
    fn every_occupation_has_its_name() {
        for (doing, name) in Doing::ALL {
            assert_eq!(doing.name(), name);
        }
    }

    #[test]
    fn nothing_is_ready_before_something_is_known() {
        let health = Health::new();
        assert_eq!(health.restoring(), None);
        health.set_restoring("content", 7, 3);
        health.set_ready("partition 0");
        let left = health.restoring().unwrap_or_default();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["content"]);
        health.set_ready("content");
        assert_eq!(health.restoring(), Some(BTreeMap::new()));
        health.set_restoring("partition 0", 1, 1);
        health.forget("partition 0");
        assert_eq!(health.restoring(), Some(BTreeMap::new()));
    }
}
