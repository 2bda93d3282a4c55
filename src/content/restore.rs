//! The first fold of the content changelog, up to the end that it had at the start, as the process tells of it.

use super::positions::ReplicaPositions;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::time::Instant;
use thmanyah_state::Table;

/// Its name in the health of the process.
const COMPONENT: &str = "content";

/// The first fold, while it lasts.
pub(super) struct Restore {
    ends: BTreeMap<i32, i64>,
    began: Instant,
    total: u64,
    /// Once it has been told of.
    progress: Option<Progress>,
}

impl Restore {
    /// A fold up to these ends begins at those positions.
    pub(super) fn begin(
        ends: BTreeMap<i32, i64>,
        positions: &ReplicaPositions,
        now: Instant,
    ) -> Self {
        Self {
            began: now,
            total: positions.left(&ends),
            progress: None,
            ends,
        }
    }

    /// Tells how far it is; gone once it is done.
    pub(super) fn advance(
        mut self,
        positions: &ReplicaPositions,
        topic: &str,
        now: Instant,
        metrics: &Metrics,
        health: &Health,
    ) -> Option<Self> {
        let left = positions.left(&self.ends);
        let mut progress = self.progress.take().unwrap_or_else(|| {
            let waiting = BTreeMap::from([(COMPONENT.to_owned(), self.total)]);
            Progress::begin(Table::Content.name(), topic, waiting, metrics, self.began)
        });
        if left == 0 {
            progress.finish(now);
            health.set_ready(COMPONENT);
            return None;
        }
        progress.advance(now, health, |_| left);
        self.progress = Some(progress);
        Some(self)
    }
}
