//! A cluster as an administrator sees it: which topics there are, how they are set, and how one is made.

use super::topics::TopicsError;
use crate::config::KafkaConfig;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long one request to a broker that was reached may take: short enough to notice a signal in time.
const REQUEST: Duration = Duration::from_secs(8);
/// How long one look at the metadata may take before the log is read for reasons.
const LOOK: Duration = Duration::from_millis(500);
/// How long a new topic may take until every partition has a leader.
const NEW_TOPIC: Duration = Duration::from_secs(30);
/// Between two looks at a new topic.
const PAUSE: Duration = Duration::from_millis(50);

/// Partitions of a topic, as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many.
    pub(super) partitions: i32,
    /// Whether each has a leader.
    pub(super) led: bool,
}

/// Settings of a topic by name.
pub(super) type Settings = HashMap<String, String>;

/// Keeps librdkafka's last complaint, so that one message can tell it; the log gets it at the level of details.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Option<String>>>);

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", "{facility} {text}");
        if (level as i32) <= RDKafkaLogLevel::Error as i32 {
            *self.0.lock() = Some(bare(text));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        // That all brokers are down is no reason but its consequence.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock() = Some(bare(reason));
        }
    }
}

impl ConsumerContext for Listener {}

/// `[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to … failed: … (after 0ms in state CONNECT)`, without
/// the thread, the broker and the state.
fn bare(text: &str) -> String {
    let text = match text.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ").map_or(rest, |(_, rest)| rest),
        None => text,
    };
    let text = text
        .split_once("/bootstrap: ")
        .map_or(text, |(_, rest)| rest);
    text.split(" (after ").next().unwrap_or(text).to_owned()
}

/// A cluster that was reached.
pub(super) struct Cluster {
    /// Asks for metadata: a consumer, as a producer's request would make topics on brokers that allow it.
    viewer: BaseConsumer<Listener>,
    admin: AdminClient<Listener>,
}

impl Cluster {
    /// Reaches a broker, within the time that the settings allow for that; none when that was stopped.
    pub(super) fn reach(
        kafka: &KafkaConfig,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, TopicsError> {
        let listener = Listener::default();
        let client = kafka.client();
        let refused = |error: KafkaError| TopicsError::Client {
            reason: match error {
                KafkaError::ClientCreation(reason) => reason,
                error => error.to_string(),
            },
        };
        let viewer: BaseConsumer<Listener> = client
            .create_with_context(listener.clone())
            .map_err(refused)?;
        let deadline = Instant::now() + kafka.startup_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if viewer.client().fetch_metadata(None, left.min(LOOK)).is_ok() {
                break;
            }
            if stop.is_cancelled() {
                return Ok(None);
            }
            // The reasons arrive inside poll.
            while viewer.poll(Duration::ZERO).is_some() {}
            if left.is_zero() {
                let reason = listener.0.lock().take();
                return Err(TopicsError::Unreachable {
                    brokers: kafka.bootstrap_servers.to_string(),
                    waited: kafka.startup_timeout,
                    reason: reason.unwrap_or_else(|| "no answer".to_owned()),
                });
            }
        }
        let admin = client.create_with_context(listener).map_err(refused)?;
        Ok(Some(Self { viewer, admin }))
    }

    /// Every topic that this user may see.
    pub(super) fn shapes(&self) -> Result<BTreeMap<String, Shape>, TopicsError> {
        let metadata = self
            .viewer
            .client()
            .fetch_metadata(None, REQUEST)
            .map_err(|error| request("metadata", &error))?;
        Ok(shapes_of(&metadata))
    }

    /// The settings of topics; a topic whose settings this user may not see is left out.
    pub(super) async fn settings(
        &self,
        topics: &[&str],
    ) -> Result<HashMap<String, Settings>, TopicsError> {
        // librdkafka refuses an empty question.
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let resources: Vec<_> = topics
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        let answers = self
            .admin
            .describe_configs(&resources, &options())
            .await
            .map_err(|error| request("the topics' settings", &error))?;
        let mut found = HashMap::new();
        // Answers come in the order of the question.
        for (topic, answer) in topics.iter().zip(answers) {
            match answer {
                Ok(resource) => {
                    let entries = resource.entries.into_iter();
                    let settings = entries.filter_map(|entry| Some((entry.name, entry.value?)));
                    found.insert((*topic).to_owned(), settings.collect());
                }
                Err(code) => tracing::warn!(topic, "cannot read the topic's settings: {code}"),
            }
        }
        Ok(found)
    }

    /// Makes a topic, with the broker's default replication; false when another made it meanwhile.
    pub(super) async fn create(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, String)],
    ) -> Result<bool, TopicsError> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let failed = |reason: String| TopicsError::Create {
            topic: topic.to_owned(),
            reason,
        };
        let answers = self
            .admin
            .create_topics([&new], &options())
            .await
            .map_err(|error| failed(error.to_string()))?;
        match answers.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(failed(code.to_string())),
            None => Err(failed("no answer".to_owned())),
        }
    }

    /// Waits until each of these new topics is visible and each of its partitions has a leader.
    pub(super) async fn await_leaders(
        &self,
        topics: &[&str],
    ) -> Result<BTreeMap<String, Shape>, TopicsError> {
        let deadline = Instant::now() + NEW_TOPIC;
        loop {
            let shapes = self.shapes()?;
            let ready = |topic: &&str| shapes.get(*topic).is_some_and(|shape| shape.led);
            let Some(topic) = topics.iter().find(|topic| !ready(topic)) else {
                return Ok(shapes);
            };
            if Instant::now() > deadline {
                return Err(TopicsError::NoLeader {
                    topic: (*topic).to_owned(),
                    waited: NEW_TOPIC,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST))
}

fn request(what: &'static str, error: &KafkaError) -> TopicsError {
    TopicsError::Request {
        what,
        reason: error.to_string(),
    }
}

fn shapes_of(metadata: &Metadata) -> BTreeMap<String, Shape> {
    let topics = metadata.topics().iter();
    let existing = topics.filter(|topic| !topic.partitions().is_empty());
    existing
        .map(|topic| {
            let partitions = topic.partitions();
            let shape = Shape {
                partitions: partitions.len() as i32,
                led: partitions.iter().all(|partition| partition.leader() >= 0),
            };
            (topic.name().to_owned(), shape)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn a_complaint_is_told_without_threads_and_states() {
        for (text, expected) in [
            (
                "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
            ),
            ("plain", "plain"),
            ("[thrd:", ""),
        ] {
            assert_eq!(bare(text), expected);
        }
    }
}
