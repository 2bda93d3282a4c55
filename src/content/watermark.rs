//! The content watermark W: everything that was in `content.raw` at wall time W is applied to this instance's table.

use super::positions::ReplicaPositions;
use crate::kafka::{Isolation, OffsetReader, OffsetsError};
use crate::metrics::Metrics;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How often W is advanced.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// No watermark yet.
const NONE: i64 = i64::MIN;

/// What the watermark needs.
pub struct WatermarkSettings {
    /// Bootstrap servers and the user's own properties.
    pub client: ClientConfig,
    /// The materializer's consumer group.
    pub group: String,
    /// `content.raw`.
    pub raw_topic: String,
    /// Its number of partitions.
    pub raw_partitions: i32,
    /// `content.changelog`.
    pub changelog_topic: String,
    /// Its number of partitions.
    pub changelog_partitions: i32,
}

/// The watermark as workers read it. Cheap to clone.
#[derive(Clone)]
pub struct ContentWatermark(Arc<AtomicI64>);

impl Default for ContentWatermark {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(NONE)))
    }
}

impl ContentWatermark {
    /// W in milliseconds since the epoch; `None` until the first round.
    pub fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Acquire)).filter(|ms| *ms != NONE)
    }

    /// Advances W until `stop` is set. `now_ms` is the wall clock.
    pub fn run(
        &self,
        settings: &WatermarkSettings,
        replica: &ReplicaPositions,
        stop: &AtomicBool,
        now_ms: impl Fn() -> i64,
        metrics: &Metrics,
    ) -> Result<(), OffsetsError> {
        let committed = OffsetReader::new(&settings.client, &settings.group, Isolation::Committed)?;
        let ends = OffsetReader::new(&settings.client, &settings.group, Isolation::Uncommitted)?;
        let round = Round {
            settings,
            committed,
            ends,
            replica,
            stop,
        };
        let mut last: Option<(i64, Instant)> = None;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match round.vouch(&now_ms) {
                Ok(Some(t)) => {
                    // A jump of the wall clock must not pass deadlines: W moves by the time that really passed at most, and
                    // follows the clock back, as times of parking do.
                    let w = match last {
                        Some((w, at)) => {
                            let passed = began.duration_since(at).as_millis() as i64;
                            t.min(w.saturating_add(passed))
                        }
                        None => t,
                    };
                    last = Some((w, began));
                    self.0.store(w, Ordering::Release);
                    metrics.set_content_watermark(w);
                }
                Ok(None) => break,
                // Brokers that do not answer now will answer later; until then W stands still, which is safe.
                Err(error) => tracing::debug!(%error, "the content watermark stands still"),
            }
            wait(INTERVAL.saturating_sub(began.elapsed()), stop);
        }
        Ok(())
    }
}

/// One advance of the watermark.
struct Round<'a> {
    settings: &'a WatermarkSettings,
    /// Asks for stable offsets and for LSOs.
    committed: OffsetReader,
    /// Asks for true ends.
    ends: OffsetReader,
    replica: &'a ReplicaPositions,
    stop: &'a AtomicBool,
}

impl Round<'_> {
    /// The time up to which everything is applied; `None` when stopped.
    ///
    /// IMPORTANT: the time is read before the ends. What is appended after the time but before the ends only makes the
    /// round wait for more than it vouches for.
    fn vouch(&self, now_ms: &impl Fn() -> i64) -> Result<Option<i64>, OffsetsError> {
        let settings = self.settings;
        let t = now_ms();
        let raw: Vec<i32> = (0..settings.raw_partitions).collect();
        let bounds = self.committed.bounds(&settings.raw_topic, raw.clone())?;
        while !self.materialized(&bounds)? {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            wait(LOOK_AGAIN, self.stop);
        }
        let changelog: Vec<i32> = (0..settings.changelog_partitions).collect();
        let ends = self.ends.ends(&settings.changelog_topic, &changelog)?;
        while !self.replica.reached(&ends) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            wait(LOOK_AGAIN, self.stop);
        }
        Ok(Some(t))
    }

    /// Whether the materializer's group has committed up to the ends. Nothing committed counts as the log's start.
    fn materialized(&self, bounds: &BTreeMap<i32, (i64, i64)>) -> Result<bool, OffsetsError> {
        let committed = self
            .committed
            .committed(&self.settings.raw_topic, bounds.keys().copied())?;
        Ok(bounds.iter().all(|(partition, (start, end))| {
            let offset = committed.get(partition).and_then(|c| c.offset);
            offset.unwrap_or(*start) >= *end
        }))
    }
}

/// Waits, but not past a stop.
fn wait(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK_AGAIN));
    }
}
