//! Sinks: independent readers of the enriched topic, so that a slow destination never holds up another.
//!
//! Reading order: `destination` says what a destination must be able to do; `delivery` is the loop around it, for one
//! partition; `reader` is the thread that feeds the deliveries, `group` its consumer, `position` what that commits, `held`
//! what the two know of each other; `breaker`, `switch` and `condition` say when a destination is left alone, by whom, and
//! how it fares; `letters` where goes what it refuses; `lag` how far it is behind.
//!
//! Then the destinations: `bigquery`, `redis`, `http`.

mod bigquery;
mod breaker;
mod condition;
mod delivery;
mod destination;
mod group;
mod held;
mod http;
mod lag;
mod letters;
mod position;
mod reader;
mod redis;
mod switch;

pub use self::redis::{RedisLane, RedisSink};
pub use bigquery::{BigQueryLane, BigQuerySink, StateTopic};
pub use breaker::{Breaker, FailedAttempt, pause_before};
pub use condition::Condition;
pub use delivery::BatchLimits;
pub use destination::{Batch, Destination, Frame, Lane, Record, SinkError, Taken};
pub use group::GroupError;
pub use http::{ExternalLane, ExternalSink};
pub use letters::{LetterSettings, Letters};
pub use switch::{Switch, Switches};

use crate::health::Health;
use crate::kafka::{Isolation, MemberSettings, OffsetReader, OffsetsError, TopicId};
use crate::metrics::Metrics;
use delivery::Shared;
use group::Group;
use held::Partitions;
use lag::LagWatch;
use rdkafka::config::ClientConfig;
use reader::Reader;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// Why a sink ended before it was told to. A destination that fails is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum SinkEnd {
    /// Its consumer.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// What its settings say cannot be.
    #[error(transparent)]
    Settings(#[from] SinkError),
    /// The client that asks for offsets.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The producer of dead letters.
    #[error("cannot make a producer of dead letters: {0}")]
    Letters(String),
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a sink needs of Kafka.
pub struct SinkSettings {
    /// What every consumer begins with.
    pub client: ClientConfig,
    /// The group, and the enriched topic.
    pub member: MemberSettings,
    /// The enriched topic's id.
    pub topic_id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// When a batch is whole.
    pub limits: BatchLimits,
    /// Where dead letters go.
    pub letters: LetterSettings,
}

/// What a sink shares with the rest of the process.
pub struct SinkSurroundings {
    /// All metrics.
    pub metrics: Metrics,
    /// Who is well.
    pub health: Arc<Health>,
    /// Whether an operator has paused it.
    pub switch: Switch,
    /// Where its deliveries run.
    pub runtime: Handle,
    /// The wall clock, in milliseconds since the epoch.
    pub now_ms: fn() -> i64,
}

/// Delivers to a destination until `stop` is set, and then what is under way.
pub fn run<D: Destination>(
    destination: D,
    settings: SinkSettings,
    around: SinkSurroundings,
    stop: &AtomicBool,
) -> Result<(), SinkEnd> {
    let metrics = around.metrics.sink(D::NAME);
    let breaker = Arc::new(Breaker::new());
    let health = Arc::clone(&around.health);
    let condition = Condition::new(D::NAME, health, metrics.clone(), Arc::clone(&breaker));
    let letters = Letters::new(settings.letters, metrics.clone())
        .map_err(|error| SinkEnd::Letters(error.to_string()))?;
    let group = settings.member.group.clone();
    let (sender, seeks) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared {
        destination,
        prepared: AtomicBool::new(false),
        preparing: Mutex::default(),
        topic: settings.member.topic.clone(),
        topic_id: settings.topic_id,
        partitions: settings.partitions,
        offsets: OffsetReader::new(&settings.client, &group, Isolation::Committed)?,
        limits: settings.limits,
        seeks: sender,
    });
    let partitions = Arc::new(Partitions::default());
    let _lag = LagWatch::start(
        Arc::clone(&shared),
        Arc::clone(&partitions),
        metrics.clone(),
        &settings.client,
    )?;
    let name = format!("sink {}", D::NAME);
    let reader = Reader {
        group: Group::join(&settings.client, settings.member, Arc::clone(&partitions))?,
        partitions,
        shared,
        seeks,
        frame: Frame {
            metrics,
            breaker,
            switch: around.switch,
            condition,
            letters,
        },
        runtime: around.runtime,
        beat: around.health.worker(&name, (around.now_ms)()),
        now_ms: around.now_ms,
    };
    Ok(reader.run(stop)?)
}
