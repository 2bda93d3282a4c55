//! Every setting there is.

use super::choices::{LogFormat, Roles};
use super::definition::Fallback::{Computed, Required, Text, Unset};
use super::definition::{Setting, section, within};
use super::error::ConfigError;
use super::layers::Layers;
use super::names::{BrokerList, InstanceName, PeerUrl, TopicName};
use super::properties::Properties;
use super::quantities::{Bytes, show_duration};
use super::sinks::SinksConfig;
use super::values::Credential;
use crate::codec::{OperationRule, TimeMode};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// More threads than this are a mistake: each is a group member with a producer.
const MOST_WORKERS: usize = 256;
const MILLISECOND: Duration = Duration::from_millis(1);
/// Seconds.
const CENTURY: u64 = 36_500 * 86_400;

section! {
    /// The settings at the top level of the file.
    struct TopLevel in "" {
        /// Prefix of consumer groups and transactional ids. Two deployments on one cluster need two, and neither may be the
        /// other with a hyphen and more behind it.
        app: InstanceName = Text("thmanyah"), flag "--app";
        /// Name of this instance, stable over restarts and unique in the deployment (a pod's ordinal is fine).
        instance: InstanceName = Required, flag "--instance";
        /// Directory of the local state; made if missing. It can be lost: all of it is rebuilt from Kafka, but which sinks are
        /// paused.
        state_dir: PathBuf = Required, flag "--state-dir";
        /// Where the HTTP API, health and metrics listen.
        listen: SocketAddr = Text("127.0.0.1:8080"), flag "--listen";
        /// Base URLs of the other instances. Not used yet: each answers for its own partitions.
        peers: Vec<PeerUrl> = Text(""), flag "--peers";
        /// What this instance runs.
        roles: Roles = Text("materializer,enricher,api,sink-bigquery,sink-redis,sink-http"), flag "--roles";
        /// Whether an event whose partition is not a function of its id stops the process; else it is counted and told.
        strict_keys: bool = Text("false");
    }
}

section! {
    /// How Kafka is reached.
    pub struct KafkaConfig in "kafka" {
        /// Brokers to start from, `HOST:PORT`, separated by commas.
        bootstrap_servers: BrokerList = Required, flag "--bootstrap-servers";
        /// A transaction that is open for longer is aborted by the broker.
        transaction_timeout: Duration = Text("15s"), check |t| from_to(*t, 1, 900);
        /// A member that is silent for longer loses its partitions.
        session_timeout: Duration = Text("6s"), check |t| from_to(*t, 1, 1800);
        /// How often a member shows that it lives.
        heartbeat: Duration = Text("2s"), check |t| between(*t, MILLISECOND, Duration::from_mins(15));
        /// A member that does not poll for longer loses its partitions.
        max_poll_interval: Duration = Text("60s"), check |t| from_to(*t, 1, 86_400);
        /// A part that makes no progress for longer, while the brokers answer, is stuck: exit 1.
        stuck_after: Duration = Text("60s"), check |t| from_to(*t, 1, 86_400);
        /// A broker that was not reached within this time since the start: exit 1.
        startup_timeout: Duration = Text("8s"), check |t| from_to(*t, 1, 600);
        /// Any other librdkafka property, such as TLS and SASL.
        properties: Properties = Unset("none");
    }
}

section! {
    /// The topics' full names. A name that is set here is taken as it stands; the others get the prefix.
    pub struct TopicNames in "topics" {
        /// Goes before every topic name that is not set, with no separator of its own: `staging.` for example.
        prefix: String = Text("");
        /// In: change records of `engagement_events`. Belongs to upstream.
        engagement_events_raw: TopicName = Text("engagement-events.raw");
        /// In: change records of `content`. Belongs to upstream.
        content_raw: TopicName = Text("content.raw");
        /// The content table, validated and normalised.
        content_changelog: TopicName = Text("content.changelog");
        /// Out: the enriched events.
        enriched: TopicName = Text("engagement-events.enriched");
        /// Changelog of the events that wait for their content.
        pending: TopicName = Text("engagement-events.pending");
        /// Checkpoints of the set of published event ids.
        seen: TopicName = Text("engagement-events.seen");
        /// What the BigQuery sink must remember; made where that sink is set up.
        sinks_state: TopicName = Text("sinks.state");
        /// Dead letters of both inputs and of the sinks.
        dlq: TopicName = Text("engagement-events.dlq");
    }
}

section! {
    /// The join.
    pub struct EnricherConfig in "enricher" {
        /// Threads, each a member of the consumer group.
        workers: usize = Computed(cores), check |n| within(n, &1, &MOST_WORKERS);
        /// How long an event waits for its content before it is published with null content fields.
        deadline: Duration = Text("60s"), flag "--deadline", check |t| from_to(*t, 0, CENTURY);
        /// A transaction is committed after this time,
        commit_interval: Duration = Text("100ms"), check |t| between(*t, MILLISECOND, Duration::from_secs(10));
        /// or after this many records, whichever comes first.
        commit_records: usize = Text("10000"), check |n| within(n, &1, &1_000_000);
        /// What an update of an engagement event becomes: `dead-letter` or `ignore`.
        updates: OperationRule = Text("dead-letter");
        /// What a delete of an engagement event becomes: `dead-letter` or `ignore`.
        deletes: OperationRule = Text("dead-letter");
        /// How `event_ts` is written: `iso`, `epoch-millis` or `epoch-micros`.
        time: TimeMode = Text("iso");
    }
}

section! {
    /// The set of published event ids.
    pub struct SeenConfig in "seen" {
        /// How often it is checkpointed to its topic; what was published since is read again when a disk is lost.
        interval: Duration = Text("10s"), check |t| from_to(*t, 1, 3_600);
    }
}

section! {
    /// The content table.
    pub struct ContentConfig in "content" {
        /// Content rows kept decoded in memory; fewer where a sixteenth of the memory limit holds fewer.
        cache_rows: usize = Text("1000000"), check |n| within(n, &1, &1_000_000_000);
        /// How often the materializer commits.
        commit_interval: Duration = Text("100ms"), check |t| between(*t, MILLISECOND, Duration::from_secs(10));
        /// Partitions of the content changelog where it is created here.
        partitions: i32 = Text("4"), check |n| within(n, &1, &10_000);
        /// How `publish_ts` is written: `iso`, `epoch-millis` or `epoch-micros`.
        time: TimeMode = Text("iso");
    }
}

section! {
    /// Published events kept for queries.
    pub struct RecentConfig in "recent" {
        /// Whether they are kept.
        enabled: bool = Text("true");
        /// For how long after publication.
        retention: Duration = Text("24h"), check |t| from_to(*t, 1, CENTURY);
    }
}

section! {
    /// The local store.
    pub struct StoreConfig in "store" {
        /// Rows of a partition that this instance has not owned for so long are deleted; should it come back, they are
        /// rebuilt from Kafka.
        orphan_retention: Duration = Text("24h"), check |t| from_to(*t, 1, CENTURY);
        /// Memory for block cache and write buffers.
        memory: Option<Bytes> = Unset("a quarter of the memory limit, up to 4 GiB");
        /// Bound of the write-ahead log.
        wal_bytes: Bytes = Text("64 MiB"), check |b| within(b, &Bytes(1 << 20), &Bytes(1 << 40));
        /// Bound of all memtables together.
        memtable_bytes: Option<Bytes> = Unset("a sixteenth of the memory limit, up to 64 MiB"), check |b| at_least(b.as_ref(), 1 << 20);
    }
}

section! {
    /// What this process may take.
    pub struct MemoryConfig in "memory" {
        /// What caches, buffers and queues are measured by.
        limit: Option<Bytes> = Unset("that of the control group, else what the machine has"), check |b| at_least(b.as_ref(), 64 << 20);
    }
}

section! {
    /// The HTTP API.
    pub struct HttpConfig in "http" {
        /// Signs cursors; the same on every instance.
        cursor_key: Option<SecretString> = Unset("derived from the cluster's id and app");
        /// Queries that run at the same time; more are answered 503 with `Retry-After`.
        max_queries: usize = Text("64"), check |n| within(n, &1, &100_000);
        /// Who sends it as `Authorization: Bearer` may pause and resume sinks,
        operate_token: Option<Credential> = Unset("nobody may");
        /// or the file that holds it.
        operate_token_file: Option<PathBuf> = Unset("nobody may");
    }
}

section! {
    /// What is logged, to standard error.
    pub struct LogConfig in "log" {
        /// `text` or `json`.
        format: LogFormat = Text("text");
        /// Levels by module, in the syntax of tracing's `EnvFilter`.
        filter: String = Text("info,librdkafka=warn"), check |f| check_filter(f);
    }
}

/// Every setting of a running instance.
#[derive(Clone, Debug)]
pub struct Config {
    /// Prefix of consumer groups and transactional ids.
    pub app: InstanceName,
    /// Name of this instance.
    pub instance: InstanceName,
    /// Directory of the local state.
    pub state_dir: PathBuf,
    /// Where HTTP listens.
    pub listen: SocketAddr,
    /// Base URLs of the other instances.
    pub peers: Vec<PeerUrl>,
    /// What this instance runs.
    pub roles: Roles,
    /// Whether an event whose partition is not a function of its id stops the process.
    pub strict_keys: bool,
    /// How Kafka is reached.
    pub kafka: KafkaConfig,
    /// The topics' full names.
    pub topics: TopicNames,
    /// The join.
    pub enricher: EnricherConfig,
    /// The set of published event ids.
    pub seen: SeenConfig,
    /// The content table.
    pub content: ContentConfig,
    /// Published events kept for queries.
    pub recent: RecentConfig,
    /// The local store.
    pub store: StoreConfig,
    /// What this process may take.
    pub memory: MemoryConfig,
    /// The HTTP API.
    pub http: HttpConfig,
    /// Where enriched events are delivered to.
    pub sinks: SinksConfig,
    /// What is logged.
    pub log: LogConfig,
}

impl Config {
    /// Reads and checks everything.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let top = TopLevel::read(layers)?;
        let config = Self {
            app: top.app,
            instance: top.instance,
            state_dir: top.state_dir,
            listen: top.listen,
            peers: top.peers,
            roles: top.roles,
            strict_keys: top.strict_keys,
            kafka: KafkaConfig::load(layers)?,
            topics: TopicNames::load(layers)?,
            enricher: EnricherConfig::read(layers)?,
            seen: SeenConfig::read(layers)?,
            content: ContentConfig::read(layers)?,
            recent: RecentConfig::read(layers)?,
            store: StoreConfig::read(layers)?,
            memory: MemoryConfig::read(layers)?,
            http: HttpConfig::read(layers)?,
            sinks: SinksConfig::load(layers)?,
            log: LogConfig::read(layers)?,
        };
        if takes_anothers_ids(&config.instance) {
            let problem = "must not be or begin with `materializer`: its transactional ids would be those of another \
                 instance's materializer; choose another name";
            return Err(conflict(layers, "instance", problem));
        }
        for (key, interval) in [
            ("enricher.commit_interval", config.enricher.commit_interval),
            ("content.commit_interval", config.content.commit_interval),
        ] {
            if interval * 2 > config.kafka.transaction_timeout {
                let problem = "must be at most half of `kafka.transaction_timeout`, or the broker aborts transactions";
                return Err(conflict(layers, key, problem));
            }
        }
        Ok(config)
    }
}

impl Config {
    /// Checks all that was said, whether or not what is required was.
    pub fn check(layers: &Layers) -> Result<(), ConfigError> {
        let mut complete = layers.clone();
        complete.fill("kafka.bootstrap_servers", "localhost:9092");
        complete.fill("instance", "0");
        complete.fill("state_dir", ".");
        Self::load(&complete).map(|_| ())
    }
}

impl Config {
    /// The state directory alone, for commands that need no instance.
    pub fn state_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
        let mut complete = layers.clone();
        complete.fill("instance", "0");
        Ok(TopLevel::read(&complete)?.state_dir)
    }
}

impl KafkaConfig {
    /// Reads and checks this section alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let kafka = Self::read(layers)?;
        if kafka.heartbeat * 2 > kafka.session_timeout {
            let problem = "must be at most half of `kafka.session_timeout`";
            return Err(conflict(layers, "kafka.heartbeat", problem));
        }
        if kafka.session_timeout > kafka.max_poll_interval {
            let problem = "must be at most `kafka.max_poll_interval`";
            return Err(conflict(layers, "kafka.session_timeout", problem));
        }
        Ok(kafka)
    }
}

impl TopicNames {
    /// Reads and checks this section alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let names = Self::read(layers)?;
        let all = names.all();
        for (i, (key, name)) in all.iter().enumerate() {
            if let Some((other, _)) = all.iter().take(i).find(|(_, other)| other == name) {
                let problem = format!("the topic {name} is `topics.{other}` already");
                return Err(conflict(layers, &format!("topics.{key}"), &problem));
            }
        }
        Ok(names)
    }

    fn all(&self) -> [(&'static str, &TopicName); 8] {
        [
            ("engagement_events_raw", &self.engagement_events_raw),
            ("content_raw", &self.content_raw),
            ("content_changelog", &self.content_changelog),
            ("enriched", &self.enriched),
            ("pending", &self.pending),
            ("seen", &self.seen),
            ("sinks_state", &self.sinks_state),
            ("dlq", &self.dlq),
        ]
    }
}

impl ContentConfig {
    /// Reads and checks this section alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        Self::read(layers)
    }
}

impl RecentConfig {
    /// Reads and checks this section alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        Self::read(layers)
    }
}

impl LogConfig {
    /// Reads and checks this section alone.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        Self::read(layers)
    }
}

/// Every setting, in the order of the file.
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    [
        TopLevel::SETTINGS,
        KafkaConfig::SETTINGS,
        TopicNames::SETTINGS,
        EnricherConfig::SETTINGS,
        SeenConfig::SETTINGS,
        ContentConfig::SETTINGS,
        RecentConfig::SETTINGS,
        StoreConfig::SETTINGS,
        MemoryConfig::SETTINGS,
        HttpConfig::SETTINGS,
    ]
    .into_iter()
    .chain(SinksConfig::settings())
    .chain([LogConfig::SETTINGS])
    .flatten()
}

/// A worker's transactional id is `{app}-{instance}-{number}`, the materializer's is `{app}-materializer-{instance}`: worker 0
/// of an instance `materializer` would have the id of the materializer of an instance `0`, and each would fence the other.
fn takes_anothers_ids(instance: &str) -> bool {
    instance
        .strip_prefix("materializer")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

pub(super) fn conflict(layers: &Layers, key: &str, problem: &str) -> ConfigError {
    ConfigError::Invalid {
        key: key.to_owned(),
        origin: layers.origin(key),
        value: None,
        problem: problem.to_owned(),
    }
}

fn check_filter(filter: &str) -> Result<(), String> {
    match EnvFilter::builder().parse(filter) {
        Ok(_) => Ok(()),
        Err(problem) => Err(format!("{problem}; an example is info,librdkafka=warn")),
    }
}

fn cores() -> String {
    std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(MOST_WORKERS)
        .to_string()
}

/// Bounds in seconds.
fn from_to(time: Duration, min: u64, max: u64) -> Result<(), String> {
    between(time, Duration::from_secs(min), Duration::from_secs(max))
}

fn at_least(bytes: Option<&Bytes>, min: u64) -> Result<(), String> {
    bytes.map_or(Ok(()), |bytes| within(bytes, &Bytes(min), &Bytes(1 << 40)))
}

pub(super) fn between(time: Duration, min: Duration, max: Duration) -> Result<(), String> {
    if time < min || time > max {
        let (min, max) = (show_duration(min), show_duration(max));
        return Err(format!("must be from {min} to {max}"));
    }
    Ok(())
}
