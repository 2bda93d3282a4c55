//! A restore as people watch it: lines in the log, gauges, and `/readyz`.

use crate::health::Health;
use crate::metrics::{Metrics, RestoreShare};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a long restore tells the log how far it is.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// How often gauges and health are told, at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The fold of one log into a table, up to an end that is known.
pub struct Progress {
    table: &'static str,
    topic: String,
    share: RestoreShare,
    /// Records to restore at the beginning, by the component of health that waits for them.
    total: BTreeMap<String, u64>,
    began: Instant,
    told: Option<Instant>,
    logged: Instant,
}

impl Progress {
    /// A restore begins. `left` says how many records each component of health waits for; offsets of markers count as
    /// records here.
    pub fn begin(
        table: &'static str,
        topic: &str,
        left: BTreeMap<String, u64>,
        metrics: &Metrics,
        now: Instant,
    ) -> Self {
        Self {
            table,
            topic: topic.to_owned(),
            share: metrics.restore_share(table),
            total: left,
            began: now,
            told: None,
            logged: now,
        }
    }

    /// Tells how far it is, if it is time to. `left` says how many records are left for a component.
    pub fn advance(&mut self, now: Instant, health: &Health, left: impl Fn(&str) -> u64) {
        if self.told.is_some_and(|at| now - at < TELL_EVERY) {
            return;
        }
        self.told = Some(now);
        let (mut all_left, mut all_rate) = (0, 0);
        for (component, total) in &self.total {
            let left = left(component);
            let rate = self.rate(total.saturating_sub(left), now);
            health.advance(component, self.table, left, rate);
            all_left += left;
            all_rate += rate;
        }
        self.share.set(all_left, all_rate);
        if now - self.logged >= LOG_EVERY {
            self.logged = now;
            let (table, topic) = (self.table, &self.topic);
            tracing::info!(table, %topic, left = all_left, records_per_second = all_rate, "restoring");
        }
    }

    /// The end is reached.
    pub fn finish(self, now: Instant) {
        let records: u64 = self.total.values().sum();
        if records > 0 {
            let (table, topic) = (self.table, &self.topic);
            let seconds = (now - self.began).as_secs_f64();
            let rate = self.rate(records, now);
            tracing::info!(table, %topic, records, seconds, records_per_second = rate, "restored a table");
        }
    }

    fn rate(&self, records: u64, now: Instant) -> u64 {
        let millis = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        records.saturating_mul(1000) / millis.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_seen_in_health_and_gauges_until_it_ends() {
        let (health, metrics, began) = (Health::new(), Metrics::new(), Instant::now());
        health.set_restoring("partition 1", 0, 0);
        let left = BTreeMap::from([("partition 1".to_owned(), 700)]);
        let mut progress = Progress::begin("pending", "topic", left, &metrics, began);
        progress.advance(began + Duration::from_secs(2), &health, |_| 500);
        let told = health.component("partition 1").unwrap_or_default();
        let told = (told.ready, told.left, told.rate, told.table);
        assert_eq!(told, (false, 500, 100, Some("pending")));
        let gauge = |name: &str, value: u64| {
            let line = format!("thmanyah_{name}{{table=\"pending\"}} {value}");
            assert!(metrics.encode().lines().any(|l| l == line), "{line}");
        };
        gauge("restore_records_left", 500);
        gauge("restore_records_per_second", 100);
        progress.finish(began + Duration::from_secs(3));
        gauge("restore_records_left", 0);
    }
}
