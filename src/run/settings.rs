//! What each part of the process is told, from the configuration and the topics as they are.

use super::Process;
use super::barrier::BarrierSettings;
use super::parts::WorkerSettings;
use crate::codec::EventRules;
use crate::config::Config;
use crate::enricher::{KeyRules, Rules};
use crate::kafka::topics::{DEAD_LETTER_HEADERS, RECORD_BYTES, Topics};
use crate::kafka::{MemberSettings, ProducerSettings};
use std::sync::Arc;

/// librdkafka makes no larger ones.
const LARGEST_RECORD: u64 = 1_000_000_000;

impl Process {
    pub(super) fn worker_settings(&self) -> WorkerSettings {
        let (topics, enricher) = (&self.config.topics, &self.config.enricher);
        WorkerSettings {
            raw_topic: topics.engagement_events_raw.to_string(),
            enriched_topic: topics.enriched.to_string(),
            pending_topic: topics.pending.to_string(),
            pending_id: self.id(&topics.pending),
            enriched_id: self.id(&topics.enriched),
            seen_topic: topics.seen.to_string(),
            seen_id: self.id(&topics.seen),
            checkpoint_interval: self.config.seen.interval,
            dlq_topic: topics.dlq.to_string(),
            commit_interval: enricher.commit_interval,
            rules: Rules {
                events: EventRules {
                    updates: enricher.updates,
                    deletes: enricher.deletes,
                    time: enricher.time,
                },
                deadline_ms: enricher.deadline.as_millis() as i64,
                transaction_steps: enricher.commit_records,
                transaction_bytes: self.budget.transaction as usize,
                limits: self.topics.limits.within(self.largest_record()).sizes(),
                keys: KeyRules {
                    partitions: self.topics.raw_partitions,
                    strict: self.config.strict_keys,
                    ..KeyRules::default()
                },
                seen_containers: self.budget.seen_containers,
            },
        }
    }

    pub(super) fn barrier_settings(&self) -> BarrierSettings {
        let topics = &self.config.topics;
        BarrierSettings {
            group: enricher_group(&self.config),
            raw_topic: topics.engagement_events_raw.to_string(),
            enriched_topic: topics.enriched.to_string(),
            pending_topic: topics.pending.to_string(),
            pending_id: self.id(&topics.pending),
            enriched_id: self.id(&topics.enriched),
            seen_topic: topics.seen.to_string(),
            seen_id: self.id(&topics.seen),
            changelog_topic: topics.content_changelog.to_string(),
            changelog_partitions: self.topics.content_changelog_partitions,
        }
    }

    pub(super) fn producer_settings(&self, transactional_id: &str) -> ProducerSettings {
        ProducerSettings {
            transactional_id: transactional_id.to_owned(),
            transaction_timeout: self.config.kafka.transaction_timeout,
            max_record_bytes: self.largest_record(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// The largest record that a producer makes: a dead letter that is whole.
    pub(super) fn largest_record(&self) -> u64 {
        largest_record(&self.topics)
    }

    pub(super) fn member_settings(
        &self,
        group: String,
        instance: String,
        topic: &str,
    ) -> MemberSettings {
        let kafka = &self.config.kafka;
        MemberSettings {
            group,
            instance,
            topic: topic.to_owned(),
            session_timeout: kafka.session_timeout,
            heartbeat: kafka.heartbeat,
            max_poll_interval: kafka.max_poll_interval,
            unsettle: Arc::default(),
        }
    }
}

/// The largest record that a producer makes: a dead letter that is whole.
pub(super) fn largest_record(topics: &Topics) -> u64 {
    (topics.largest_input + DEAD_LETTER_HEADERS).clamp(RECORD_BYTES, LARGEST_RECORD)
}

/// The enricher's consumer group.
pub(super) fn enricher_group(config: &Config) -> String {
    format!("{}-enricher", config.app)
}

/// The materializer's consumer group.
pub(super) fn materializer_group(config: &Config) -> String {
    format!("{}-materializer", config.app)
}
