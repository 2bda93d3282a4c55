//! What a worker is made of, and what all of them are told.

use super::ownership::Ownership;
use super::restorer::Restorer;
use super::view::StoreView;
use crate::content::{ContentWatermark, Wakeups};
use crate::enricher::Rules;
use crate::health::{Beat, Health};
use crate::kafka::{Edge, TopicId};
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// What all workers share.
pub struct WorkerSettings {
    /// The input topic.
    pub raw_topic: String,
    /// The enriched topic.
    pub enriched_topic: String,
    /// The changelog of parked events.
    pub pending_topic: String,
    /// Its id.
    pub pending_id: TopicId,
    /// The enriched topic's id.
    pub enriched_id: TopicId,
    /// The checkpoints of published ids.
    pub seen_topic: String,
    /// Its id.
    pub seen_id: TopicId,
    /// How often published ids are checkpointed.
    pub checkpoint_interval: Duration,
    /// The dead letters.
    pub dlq_topic: String,
    /// How long a transaction stays open.
    pub commit_interval: Duration,
    /// The step's rules.
    pub rules: Rules,
}

/// What a worker is made of.
pub struct WorkerParts<E: Edge> {
    /// Brokers and clocks.
    pub edge: E,
    /// Number of the worker in its instance.
    pub number: usize,
    /// Settings shared with the others.
    pub settings: Arc<WorkerSettings>,
    /// Takes partitions through the barrier.
    pub restorer: Restorer,
    /// Look-ups.
    pub view: StoreView<E::Store>,
    /// The store.
    pub store: E::Store,
    /// Content rows that were written.
    pub wakeups: Wakeups,
    /// What the content table vouches for.
    pub watermark: ContentWatermark,
    /// Counters.
    pub metrics: Metrics,
    /// Liveness of this worker.
    pub beat: Beat,
    /// Readiness of its partitions.
    pub health: Arc<Health>,
    /// Told whenever the owned partitions change.
    pub owned: Ownership,
}
