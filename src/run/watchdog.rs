//! Ends the process when a part of it is stuck. A thread that is stuck in a call of the client library cannot be ended alone,
//! and what it holds nobody else can take over; a new process can.

use crate::health::{Health, Stuck};
use crate::kafka::GroupViewer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// Waits between two looks, each followed by a look at the stop flag.
const STEPS: u32 = 10;
/// The longest time that asking the coordinators takes.
const QUESTION_MS: i64 = 10_000;
/// A look that comes so late tells that time was lost.
const LOST_TIME_MS: i64 = 3_000;

/// Watches over the workers that tell [`Health`] of their progress.
pub(super) struct Watchdog {
    pub(super) health: Arc<Health>,
    /// A client of its own: those of the stuck workers may be what is stuck.
    pub(super) viewer: GroupViewer,
    /// After so long without progress a worker is stuck.
    pub(super) limit: Duration,
    pub(super) now_ms: fn() -> i64,
}

impl Watchdog {
    /// Looks until `stop` is set. Tells what is stuck through `end`, which does not come back.
    pub(super) fn run(&self, stop: &AtomicBool, end: impl Fn(&str)) {
        let mut told = false;
        while !stop.load(Ordering::Relaxed) {
            let before = (self.now_ms)();
            for _ in 0..STEPS {
                std::thread::sleep(LOOK / STEPS);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
            let now = (self.now_ms)();
            if now - before > LOST_TIME_MS {
                // The whole process stood still, or the clock jumped: the workers get their time to show a sign.
                self.health.excuse(now + self.half_ms());
            }
            let stuck = self.look(|| self.viewer.coordinators_are_up(), &mut told);
            if !stuck.is_empty() {
                end(&verdict(&stuck));
            }
        }
    }

    fn half_ms(&self) -> i64 {
        self.limit.as_millis() as i64 / 2
    }

    /// What is stuck. Whoever waits for brokers that are away is not: they are asked before the time is up, and each time
    /// they do not answer, half of it begins anew.
    fn look(&self, up: impl FnOnce() -> bool, told: &mut bool) -> BTreeMap<String, Stuck> {
        let half_ms = self.half_ms();
        let waiting = self.health.without_progress(half_ms, (self.now_ms)());
        if waiting.is_empty() {
            *told = false;
        } else if !up() {
            // Also while the next question waits for its answer.
            self.health.excuse((self.now_ms)() + half_ms + QUESTION_MS);
            if !std::mem::replace(told, true) {
                tracing::warn!(
                    ?waiting,
                    "no progress, as the brokers' coordinators do not answer: waiting for them"
                );
            }
        }
        self.health.stuck((self.now_ms)())
    }
}

/// One message that names who is stuck, and where.
fn verdict(stuck: &BTreeMap<String, Stuck>) -> String {
    let each: Vec<String> = stuck
        .iter()
        .map(|(name, stuck)| {
            let seconds = stuck.since_ms / 1_000;
            format!(
                "{name} has made no progress for {seconds} s while {}",
                stuck.doing
            )
        })
        .collect();
    format!(
        "{}; the brokers answer. Ending the process, so that a new one takes over: nothing but committed transactions counts",
        each.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Doing;
    use rdkafka::ClientConfig;
    use std::sync::atomic::AtomicI64;

    static NOW: AtomicI64 = AtomicI64::new(0);

    #[test]
    fn the_time_without_progress_counts_only_while_the_coordinators_answer()
    -> Result<(), crate::kafka::DescribeError> {
        let health = Arc::new(Health::with_limit(Duration::from_mins(1)));
        let dog = Watchdog {
            health: Arc::clone(&health),
            viewer: GroupViewer::new(&ClientConfig::new(), "group")?,
            limit: Duration::from_mins(1),
            now_ms: || NOW.load(Ordering::Relaxed),
        };
        let beat = health.worker("worker 0", 0);
        beat.doing(Doing::Committing);
        let at = |second: i64, up: bool| {
            NOW.store(second * 1_000, Ordering::Relaxed);
            dog.look(|| up, &mut false)
        };
        assert!((0..=60).all(|second| at(second, true).is_empty()));
        let stuck = at(61, true);
        assert_eq!(
            verdict(&stuck).split(';').next(),
            Some("worker 0 has made no progress for 61 s while committing a transaction")
        );
        assert!((62..200).all(|second| at(second, false).is_empty()));
        assert!((200..=239).all(|second| at(second, true).is_empty()));
        assert_eq!(at(240, true).len(), 1);
        beat.beat(240_000);
        assert!(at(241, true).is_empty());
        Ok(())
    }
}
