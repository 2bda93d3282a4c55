//! The edge to Kafka: consumers, the transactional producer, offsets, changelogs, topics.

mod changelog;
mod cluster;
mod consumer;
mod edge;
mod ffi;
mod group;
mod headers;
mod limits;
mod member;
mod offsets;
mod producer;
mod real;
mod real_producer;
mod reports;
mod resume;
mod topic_spec;
pub mod topics;
mod transactor;

pub use changelog::{ChangelogError, ChangelogReader};
pub use edge::{CallError, Edge, GroupConsumer, LogReader, Offsets, PollFailure, RawProducer};
pub use ffi::{DescribeError, TopicId};
pub use group::{GroupDescription, GroupMember, GroupViewer};
pub use headers::{DeadLetterSource, EnrichedSource, dead_letter_headers, enriched_headers};
pub use limits::{LimitReader, TopicLimits};
pub use member::{Callbacks, Changes, Member, MemberError, MemberSettings};
pub use offsets::{Committed, Isolation, OffsetReader, OffsetsError};
pub use producer::{Outgoing, ProducerError, ProducerSettings, Receipt, TransactionalProducer};
pub use real::Kafka;
pub use reports::Track;
pub use resume::{Rebuild, Resume, TOMBSTONE_RETENTION_MS, resume};
pub use transactor::{Transactor, TransactorError};

pub(crate) use consumer::{member_config, read_partition_from};
pub(crate) use ffi::topic_ids;
pub(crate) use offsets::look_for_leaders;
pub(crate) use real::close_within_limit;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// What a broker answers at most, in bytes: a batch of the largest records that an input topic can hold comes whole.
const LARGEST_ANSWER: u64 = 200 << 20;

/// What every consumer begins with: one that fetches so many bytes ahead, unless the user has it otherwise.
fn consumer_config(client: &ClientConfig, fetched: u64) -> ClientConfig {
    let mut config = client.clone();
    for (key, value) in [
        ("queued.max.messages.kbytes", (fetched / 1024).max(1)),
        ("fetch.message.max.bytes", fetched.clamp(1024, 1 << 20)),
        ("fetch.max.bytes", fetched.clamp(1_000_000, 50 << 20)),
        ("receive.message.max.bytes", LARGEST_ANSWER),
    ] {
        if config.get(key).is_none() {
            config.set(key, value.to_string());
        }
    }
    config
}

/// Fetch settings that every consumer of this process shares, unless the user set his own.
pub(crate) fn fetch_defaults(config: &mut ClientConfig) {
    for (key, value) in [
        ("fetch.wait.max.ms", "50"),
        ("queued.min.messages", "20000"),
        // A full queue pauses fetching for so long; the default of a second is longer than the queue lasts.
        ("fetch.queue.backoff.ms", "20"),
        ("fetch.error.backoff.ms", "100"),
    ] {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
}

/// Hands a line of librdkafka's log to ours.
pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", "{facility}: {text}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", "{facility}: {text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", "{facility}: {text}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility}: {text}"),
    }
}
