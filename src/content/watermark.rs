//! The content watermark W: everything that was in `content.raw` at wall time W is applied to this instance's table.

use super::pace::Pace;
use super::positions::ReplicaPositions;
use crate::kafka::{Edge, Isolation, Offsets, OffsetsError};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often W is advanced.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the watermark needs.
pub struct WatermarkSettings {
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
///
/// IMPORTANT: a wall clock may step, back and forth, between W's round and the moment at which W is read. What is parked after
/// a step back bears times of long ago, which W has passed without knowing what was there since. So every look at the clock
/// that a time of parking rests on goes through here, and W is read as what the slowest clock of the last deadline would have
/// shown when W's round began, or the slowest since that.
#[derive(Clone)]
pub struct ContentWatermark {
    inner: Arc<Mutex<Inner>>,
    start: Instant,
}

struct Inner {
    /// Keeps a jump of the wall clock from passing deadlines.
    pace: Pace,
    vouched: Option<Vouched>,
    /// The smallest difference between the wall clock and the other since the round under way began.
    slowest: i64,
}

/// A round that was completed.
struct Vouched {
    w: i64,
    began: Instant,
    /// The smallest difference between the wall clock and the other since it began.
    slowest: i64,
}

impl ContentWatermark {
    /// For events that wait for `deadline`; `now` is the clock that never jumps.
    pub fn new(deadline: Duration, now: Instant) -> Self {
        let inner = Inner {
            pace: Pace::new(deadline.as_millis() as i64),
            vouched: None,
            slowest: i64::MAX,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            start: now,
        }
    }

    /// The wall clock, in milliseconds since the epoch, for times of parking.
    pub fn now_ms(&self, edge: &impl Edge) -> i64 {
        self.look(edge, &mut self.inner.lock()).0
    }

    /// W in milliseconds since the epoch; `None` until the first round.
    pub fn get(&self, edge: &impl Edge) -> Option<i64> {
        let mut inner = self.inner.lock();
        let (_, difference) = self.look(edge, &mut inner);
        let vouched = inner.vouched.as_ref()?;
        let slowest = difference.min(vouched.slowest);
        let by_clock = self.since_start(vouched.began).saturating_add(slowest);
        Some(vouched.w.min(by_clock))
    }

    /// Looks at the wall clock: what it shows, and the smallest difference to the other clock within the last deadline.
    fn look(&self, edge: &impl Edge, inner: &mut Inner) -> (i64, i64) {
        // The wall clock first: a pause in between makes W early, which is safe.
        let now_ms = edge.now_ms();
        let passed = self.since_start(edge.instant());
        let slowest = inner.pace.look(now_ms, passed).saturating_sub(passed);
        inner.slowest = inner.slowest.min(slowest);
        if let Some(vouched) = &mut inner.vouched {
            vouched.slowest = vouched.slowest.min(slowest);
        }
        (now_ms, slowest)
    }

    fn since_start(&self, then: Instant) -> i64 {
        then.saturating_duration_since(self.start).as_millis() as i64
    }

    /// Advances W until `stop` is set.
    pub fn run<E: Edge>(
        &self,
        edge: E,
        settings: WatermarkSettings,
        replica: ReplicaPositions,
        stop: &AtomicBool,
        metrics: &Metrics,
    ) -> Result<(), OffsetsError> {
        let mut vouching = Vouching::new(edge, settings, replica, self.clone())?;
        while !stop.load(Ordering::Relaxed) {
            if let Some(w) = vouching.turn() {
                metrics.set_content_watermark(w);
            }
            vouching.edge.sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

/// How far a round of the watermark is. Both waits go up to ends that were asked for after the round's time.
enum Stage {
    /// The next round begins at this moment.
    Idle(Instant),
    /// The materializer's group has yet to commit up to the ends, `(log start, end)`.
    Materializing(BTreeMap<i32, (i64, i64)>),
    /// The replica has yet to reach the ends.
    Replicating(BTreeMap<i32, i64>),
}

/// Advances the watermark, a look at a time.
pub struct Vouching<E: Edge> {
    edge: E,
    settings: WatermarkSettings,
    /// Asks for stable offsets and for LSOs.
    committed: E::Offsets,
    /// Asks for true ends.
    ends: E::Offsets,
    replica: ReplicaPositions,
    watermark: ContentWatermark,
    stage: Stage,
    /// When the round began.
    began: Instant,
    /// What W will be when the round is completed.
    next: i64,
}

impl<E: Edge> Vouching<E> {
    /// Will advance `watermark`.
    pub fn new(
        edge: E,
        settings: WatermarkSettings,
        replica: ReplicaPositions,
        watermark: ContentWatermark,
    ) -> Result<Self, OffsetsError> {
        let committed = edge.offsets(&settings.group, Isolation::Committed)?;
        let ends = edge.offsets(&settings.group, Isolation::Uncommitted)?;
        let now = edge.instant();
        Ok(Self {
            began: now,
            next: 0,
            edge,
            settings,
            committed,
            ends,
            replica,
            watermark,
            stage: Stage::Idle(now),
        })
    }

    /// Goes on as far as can be without waiting; says the new W when a round was completed.
    pub fn turn(&mut self) -> Option<i64> {
        match self.look() {
            Ok(w) => w,
            Err(error) => {
                // Brokers that do not answer now will answer later; until then W stands still, which is safe.
                tracing::debug!(%error, "the content watermark stands still");
                self.stage = Stage::Idle(self.began + INTERVAL);
                None
            }
        }
    }

    /// IMPORTANT: the time is read before the ends. What is appended after the time but before the ends only makes the
    /// round wait for more than it vouches for.
    fn look(&mut self) -> Result<Option<i64>, OffsetsError> {
        if let Stage::Idle(from) = self.stage {
            if self.edge.instant() < from {
                return Ok(None);
            }
            self.began = self.edge.instant();
            let mut inner = self.watermark.inner.lock();
            let (_, difference) = self.watermark.look(&self.edge, &mut inner);
            inner.slowest = difference;
            drop(inner);
            let began = self.watermark.since_start(self.began);
            self.next = began.saturating_add(difference);
            let raw = 0..self.settings.raw_partitions;
            let bounds = self.committed.bounds(&self.settings.raw_topic, raw)?;
            self.stage = Stage::Materializing(bounds);
        }
        if let Stage::Materializing(bounds) = &self.stage {
            if !self.materialized(bounds)? {
                return Ok(None);
            }
            let changelog: Vec<i32> = (0..self.settings.changelog_partitions).collect();
            let ends = self.ends.ends(&self.settings.changelog_topic, &changelog)?;
            self.stage = Stage::Replicating(ends);
        }
        if let Stage::Replicating(ends) = &self.stage
            && self.replica.reached(ends)
        {
            self.stage = Stage::Idle(self.began + INTERVAL);
            let mut inner = self.watermark.inner.lock();
            inner.vouched = Some(Vouched {
                w: self.next,
                began: self.began,
                slowest: inner.slowest,
            });
            drop(inner);
            return Ok(Some(self.next));
        }
        Ok(None)
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
