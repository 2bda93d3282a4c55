//! The largest records that the output topics take, as they are set now.

use super::cluster::{Cluster, Settings};
use super::topics::{TopicsError, runtime};
use crate::codec::VALUE_LIMIT;
use crate::config::{KafkaConfig, TopicNames};
use crate::enricher::SizeLimits;
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// A broker refuses larger requests (`socket.request.max.bytes`, 100 MiB by default) by closing the connection.
const LARGEST_REQUEST: u64 = 95 << 20;
/// What a producer counts against its own limit beside the record.
const PRODUCER_FRAME: u64 = 1 << 10;

/// `max.message.bytes` of the output topics; a topic whose settings may not be read takes everything, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// The enriched topic.
    pub enriched: u64,
    /// The changelog of parked events.
    pub pending: u64,
    /// The checkpoints of published ids.
    pub seen: u64,
    /// The dead letters.
    pub dead_letters: u64,
    /// The content changelog.
    pub content: u64,
}

impl Default for TopicLimits {
    /// Topics that take everything.
    fn default() -> Self {
        Self {
            enriched: u64::MAX,
            pending: u64::MAX,
            seen: u64::MAX,
            dead_letters: u64::MAX,
            content: u64::MAX,
        }
    }
}

impl TopicLimits {
    pub(super) fn of(names: &TopicNames, settings: &HashMap<String, Settings>) -> Self {
        let limit = |topic: &str| {
            settings
                .get(topic)
                .and_then(|settings| settings.get("max.message.bytes"))
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(u64::MAX)
        };
        Self {
            enriched: limit(&names.enriched),
            pending: limit(&names.pending),
            seen: limit(&names.seen),
            dead_letters: limit(&names.dlq),
            content: limit(&names.content_changelog),
        }
    }

    /// The same, as far as a producer goes that makes records of up to `largest` bytes.
    #[must_use]
    pub fn within(self, largest: u64) -> Self {
        let largest = largest.saturating_sub(PRODUCER_FRAME).min(LARGEST_REQUEST);
        Self {
            enriched: self.enriched.min(largest),
            pending: self.pending.min(largest),
            seen: self.seen.min(largest),
            dead_letters: self.dead_letters.min(largest),
            content: self.content.min(largest),
        }
    }

    /// What the step is told.
    pub fn sizes(&self) -> SizeLimits {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        SizeLimits {
            enriched: size(self.enriched),
            // What is parked must be readable again.
            pending: size(self.pending).min(VALUE_LIMIT),
            dead_letters: size(self.dead_letters),
        }
    }

    /// What every batch of records must stay below: a topic refuses a batch as a whole.
    pub fn smallest(&self) -> u64 {
        [
            self.enriched,
            self.pending,
            self.seen,
            self.dead_letters,
            self.content,
        ]
        .into_iter()
        .fold(u64::MAX, u64::min)
    }
}

/// Reads the limits again, after a topic refused a record.
#[derive(Clone)]
pub struct LimitReader {
    kafka: KafkaConfig,
    names: TopicNames,
    largest: u64,
    stop: CancellationToken,
}

impl LimitReader {
    /// A reader for producers of records of up to `largest` bytes. It gives up when `stop` is cancelled.
    pub fn new(
        kafka: KafkaConfig,
        names: TopicNames,
        largest: u64,
        stop: CancellationToken,
    ) -> Self {
        Self {
            kafka,
            names,
            largest,
            stop,
        }
    }

    /// The limits now; none when stopped. Blocks for some round trips.
    pub fn read(&self) -> Result<Option<TopicLimits>, TopicsError> {
        let Some(cluster) = Cluster::reach(&self.kafka, &self.stop)? else {
            return Ok(None);
        };
        let names = &self.names;
        let topics = [
            names.enriched.as_str(),
            names.pending.as_str(),
            names.seen.as_str(),
            names.dlq.as_str(),
            names.content_changelog.as_str(),
        ];
        let settings = runtime()?.block_on(cluster.settings(&topics))?;
        Ok(Some(TopicLimits::of(names, &settings).within(self.largest)))
    }
}
