//! What the follower tells about itself.

use crate::domain::Timestamp;
use std::sync::Arc;

/// How far recent events have been followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentStatus {
    /// The partitions that are followed.
    pub owned: Vec<i32>,
    /// Those of them that stood at the end of the log since they are owned: their rows are whole.
    pub ready: Vec<i32>,
    /// Whether all of them are ready.
    pub caught_up: bool,
    /// The last moment, in milliseconds since the epoch, at which all of them stood at the end.
    pub as_of_ms: Option<i64>,
    /// Offsets between what is written and the end that was seen last.
    pub lag: u64,
    /// The highest `event_ts` that was dropped from one of them.
    pub dropped_up_to: Option<Timestamp>,
    /// Records of the topic that are no enriched events.
    pub unreadable: u64,
    /// Why following has ended, if it has.
    pub failed: Option<String>,
}

/// Where queries read the follower's status from.
pub type RecentView = Arc<dyn Fn() -> RecentStatus + Send + Sync>;
