//! The largest records that the output topics take, as they are set now.

use super::cluster::{Cluster, Settings};
use super::topics::{TopicsError, runtime};
use crate::config::{KafkaConfig, TopicNames};
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

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
    stop: CancellationToken,
}

impl LimitReader {
    /// A reader that gives up when `stop` is cancelled.
    pub fn new(kafka: KafkaConfig, names: TopicNames, stop: CancellationToken) -> Self {
        Self { kafka, names, stop }
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
        Ok(Some(TopicLimits::of(names, &settings)))
    }
}
