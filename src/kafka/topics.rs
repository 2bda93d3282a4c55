//! The topics: what each must be, which are made here, and what is refused.

use super::cluster::{Cluster, Settings, Shape};
use super::limits::TopicLimits;
use super::topic_spec::{Kind, Measures, Wanted, largest_input};
use crate::config::{
    ContentConfig, KafkaConfig, RecentConfig, SinksConfig, TopicNames, show_duration,
};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Largest record that every topic of ours takes: a value of 4 MiB, its key, and headers.
pub const RECORD_BYTES: u64 = 8 << 20;
/// What a dead letter is larger than its record by, at most: its headers.
pub const DEAD_LETTER_HEADERS: u64 = 64 << 10;
/// Tombstones stay for this long, so that an instance that was away for less sees every one.
pub const TOMBSTONES: Duration = Duration::from_hours(7 * 24);

/// Between two attempts at a cluster that went away.
const PAUSE: Duration = Duration::from_secs(1);
/// How often an input that is not there is looked for: one that was just made is not known to every broker at once.
const LOOKS: u32 = 10;
/// Between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Partition counts of the topics, all of which exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// N: of the engagement events, and of enriched, pending and seen.
    pub raw_partitions: i32,
    /// Of the content records.
    pub content_raw_partitions: i32,
    /// Of the content changelog.
    pub content_changelog_partitions: i32,
    /// Of the dead letters.
    pub dlq_partitions: i32,
    /// Of what the BigQuery sink remembers; 0 where that sink is not set up.
    pub sinks_state_partitions: i32,
    /// The largest record that an input topic accepts: a producer of dead letters must take as much.
    pub largest_input: u64,
    /// The largest records that the output topics accept.
    pub limits: TopicLimits,
}

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was there.
    Exists,
    /// It was made just now.
    Created,
    /// It is not there.
    Missing,
}

impl Status {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Created => "created",
            Self::Missing => "missing",
        }
    }
}

/// A topic as found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// Full name.
    pub name: String,
    /// The setting that names it.
    pub setting: &'static str,
    /// Partitions, when it is there.
    pub partitions: Option<i32>,
    /// `cleanup.policy`, when it is there and may be read.
    pub cleanup: Option<String>,
    /// What became of it.
    pub status: Status,
}

/// The topics cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicsError {
    /// No client can be made of these settings.
    #[error("the Kafka settings do not make a client: {reason}; see [kafka.properties]")]
    Client {
        /// What librdkafka says.
        reason: String,
    },
    /// No broker answered since the start.
    #[error(
        "cannot reach Kafka at {brokers} within {}: {reason}; is the broker up, and `kafka.bootstrap_servers` right?",
        show_duration(*waited)
    )]
    Unreachable {
        /// What was tried.
        brokers: String,
        /// For how long.
        waited: Duration,
        /// librdkafka's last complaint.
        reason: String,
    },
    /// Input topics are not there.
    #[error("{}", missing(topics))]
    MissingInput {
        /// Their names, and the settings that name them.
        topics: Vec<(String, &'static str)>,
    },
    /// Topics are there that cannot serve.
    #[error("{}", problems.join("; "))]
    Unfit {
        /// One sentence for each, with the way out.
        problems: Vec<String>,
    },
    /// A topic could not be made.
    #[error("cannot create the topic {topic}: {reason}")]
    Create {
        /// Its name.
        topic: String,
        /// What the broker says.
        reason: String,
    },
    /// A topic has partitions without a leader.
    #[error("the topic {topic} has no leader for every partition after {}", show_duration(*waited))]
    NoLeader {
        /// Its name.
        topic: String,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// A request failed.
    #[error("cannot ask Kafka for {what}: {reason}")]
    Request {
        /// What was asked for.
        what: &'static str,
        /// What librdkafka says.
        reason: String,
    },
    /// No thread to wait on answers.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

impl TopicsError {
    /// Whether what is wrong is a matter of settings, rather than of a cluster that fails now.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Client { .. } | Self::MissingInput { .. } | Self::Unfit { .. }
        )
    }
}

fn missing(topics: &[(String, &str)]) -> String {
    let names: Vec<_> = topics
        .iter()
        .map(|(name, setting)| format!("{name} (`{setting}`)"))
        .collect();
    let (noun, verb) = if topics.len() == 1 {
        ("topic", "does")
    } else {
        ("topics", "do")
    };
    format!(
        "the input {noun} {} {verb} not exist: start the upstream connector, which creates what it writes to, or correct the name",
        names.join(" and ")
    )
}

/// The settings that topics depend on.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// How Kafka is reached.
    pub kafka: &'a KafkaConfig,
    /// The topics' names.
    pub names: &'a TopicNames,
    /// Partitions of the content changelog.
    pub content: &'a ContentConfig,
    /// How long enriched events must be kept at least.
    pub recent: &'a RecentConfig,
    /// The sinks, one of which needs a topic of its own.
    pub sinks: &'a SinksConfig,
}

impl Plan<'_> {
    /// Reaches Kafka, checks the topics and makes those that are missing. A cluster that was reached and then went away is
    /// waited for. None when that was stopped. Blocks: not to be called on an async runtime.
    pub fn ensure(&self, stop: &CancellationToken) -> Result<Option<Topics>, TopicsError> {
        let Some(cluster) = Cluster::reach(self.kafka, stop)? else {
            return Ok(None);
        };
        runtime()?.block_on(async {
            loop {
                match self.check_and_create(&cluster, &mut Vec::new()).await {
                    Err(error @ TopicsError::Request { .. }) => {
                        tracing::warn!("{error}; trying again");
                    }
                    outcome => return outcome.map(Some),
                }
                if stop.is_cancelled() {
                    return Ok(None);
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        })
    }

    /// As [`Self::ensure`] without waiting for a cluster that went away; the report tells how far it came, also beside an
    /// error.
    pub fn ensure_and_report(
        &self,
        report: &mut Vec<TopicReport>,
        stop: &CancellationToken,
    ) -> Result<Option<Topics>, TopicsError> {
        let Some(cluster) = Cluster::reach(self.kafka, stop)? else {
            return Ok(None);
        };
        let checked = runtime()?.block_on(self.check_and_create(&cluster, report));
        checked.map(Some)
    }

    async fn check_and_create(
        &self,
        cluster: &Cluster,
        report: &mut Vec<TopicReport>,
    ) -> Result<Topics, TopicsError> {
        let wanted = self.wanted();
        let mut shapes = cluster.shapes()?;
        for _ in 0..LOOKS {
            if missing_inputs(&wanted, &shapes).is_empty() {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            shapes = cluster.shapes()?;
        }
        let existing: Vec<&str> = wanted
            .iter()
            .map(|topic| topic.name)
            .filter(|name| shapes.contains_key(*name))
            .collect();
        let settings = cluster.settings(&existing).await?;
        report.extend(wanted.iter().map(|topic| topic.report(&shapes, &settings)));

        let topics = missing_inputs(&wanted, &shapes);
        if !topics.is_empty() {
            return Err(TopicsError::MissingInput { topics });
        }
        let measures = Measures {
            n: count(&shapes, &self.names.engagement_events_raw),
            content_partitions: self.content.partitions,
            recent_retention: self.recent.retention,
            largest_input: largest_input(&wanted, &settings),
        };
        refuse_unfit(&wanted, &shapes, &settings, measures.n)?;
        warn(&wanted, &settings, &measures);
        for (topic, line) in wanted.iter().zip(report.iter_mut()) {
            if !shapes.contains_key(topic.name) {
                line.status = create(cluster, topic, &measures).await?;
            }
        }

        let names: Vec<&str> = wanted.iter().map(|topic| topic.name).collect();
        let made: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !shapes.contains_key(*name))
            .collect();
        let shapes = cluster.await_leaders(&made).await?;
        let settings = cluster.settings(&names).await?;
        *report = wanted
            .iter()
            .zip(report.iter())
            .map(|(topic, before)| TopicReport {
                status: before.status,
                ..topic.report(&shapes, &settings)
            })
            .collect();
        // Another instance may have made one meanwhile, by other settings.
        refuse_unfit(&wanted, &shapes, &settings, measures.n)?;
        Ok(Topics {
            raw_partitions: measures.n,
            content_raw_partitions: count(&shapes, &self.names.content_raw),
            content_changelog_partitions: count(&shapes, &self.names.content_changelog),
            dlq_partitions: count(&shapes, &self.names.dlq),
            sinks_state_partitions: match self.sinks.bigquery.project {
                Some(_) => count(&shapes, &self.names.sinks_state),
                None => 0,
            },
            largest_input: measures.largest_input,
            limits: TopicLimits::of(self.names, &settings),
        })
    }

    /// Every topic, inputs first.
    fn wanted(&self) -> Vec<Wanted<'_>> {
        let names = self.names;
        let mut wanted = vec![
            Wanted::new(Kind::EventsIn, &names.engagement_events_raw),
            Wanted::new(Kind::ContentIn, &names.content_raw),
            Wanted::new(Kind::ContentChangelog, &names.content_changelog),
            Wanted::new(Kind::Enriched, &names.enriched),
            Wanted::new(Kind::Pending, &names.pending),
            Wanted::new(Kind::Seen, &names.seen),
            Wanted::new(Kind::Dlq, &names.dlq),
        ];
        if self.sinks.bigquery.project.is_some() {
            wanted.push(Wanted::new(Kind::SinksState, &names.sinks_state));
        }
        wanted
    }
}

pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}

fn count(shapes: &BTreeMap<String, Shape>, name: &str) -> i32 {
    shapes.get(name).map_or(0, |shape| shape.partitions)
}

/// The inputs that are not there, with their settings' names.
fn missing_inputs(
    wanted: &[Wanted<'_>],
    shapes: &BTreeMap<String, Shape>,
) -> Vec<(String, &'static str)> {
    wanted
        .iter()
        .filter(|topic| topic.is_input() && !shapes.contains_key(topic.name))
        .map(|topic| (topic.name.to_owned(), topic.setting()))
        .collect()
}

fn refuse_unfit(
    wanted: &[Wanted<'_>],
    shapes: &BTreeMap<String, Shape>,
    settings: &HashMap<String, Settings>,
    n: i32,
) -> Result<(), TopicsError> {
    let problems: Vec<String> = wanted
        .iter()
        .filter_map(|topic| Some((topic, *shapes.get(topic.name)?)))
        .flat_map(|(topic, shape)| topic.unfit(shape, settings.get(topic.name), n))
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(TopicsError::Unfit { problems })
}

fn warn(wanted: &[Wanted<'_>], settings: &HashMap<String, Settings>, measures: &Measures) {
    for topic in wanted {
        let Some(settings) = settings.get(topic.name) else {
            continue;
        };
        for warning in topic.warnings(settings, measures) {
            tracing::warn!(topic = topic.name, "{warning}");
        }
    }
}

async fn create(
    cluster: &Cluster,
    topic: &Wanted<'_>,
    measures: &Measures,
) -> Result<Status, TopicsError> {
    let partitions = topic.partitions_when_made(measures);
    let settings = topic.settings_when_made(measures);
    if cluster.create(topic.name, partitions, &settings).await? {
        tracing::info!(topic = topic.name, partitions, "created the topic");
        Ok(Status::Created)
    } else {
        Ok(Status::Exists)
    }
}
