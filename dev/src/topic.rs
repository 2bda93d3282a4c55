//! Topics: to create before anything runs, and to read back when all is done.

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::Error;
use crate::child::LOOK_AGAIN;

/// How long a broker may say nothing while it is read from.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// A topic to create: its name, its partitions, its configuration.
#[derive(Clone, Debug)]
pub struct Topic {
    name: String,
    partitions: i32,
    config: Vec<(String, String)>,
}

impl Topic {
    /// A topic with the broker's defaults.
    pub fn new(name: &str, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions,
            config: Vec::new(),
        }
    }

    /// The same with a configuration entry, such as `cleanup.policy` = `compact`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }
}

/// Creates the topics, once; those that exist already are left as they are.
pub(crate) fn create(bootstrap: &str, topics: &[Topic]) -> Result<(), Error> {
    let failed = |reason: String| Error::Kafka {
        doing: "create topics".into(),
        reason,
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .map_err(|error| failed(error.to_string()))?;
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            // As many replicas as the brokers make by default.
            let mut new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
            for (key, value) in &topic.config {
                new = new.set(key, value);
            }
            new
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(20)))
        .operation_timeout(Some(Duration::from_secs(20)));
    let results = off_runtime(admin.create_topics(&wanted, &options))?
        .map_err(|error| failed(error.to_string()))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(failed(format!("{name}: {code}"))),
        }
    }
    await_visible(bootstrap, topics)
}

/// A topic that was created is told of a little later, more than a little on a loaded machine.
fn await_visible(bootstrap: &str, topics: &[Topic]) -> Result<(), Error> {
    let failed = |reason: String| Error::Kafka {
        doing: "look for new topics".into(),
        reason,
    };
    let viewer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .map_err(|error| failed(error.to_string()))?;
    let start = Instant::now();
    loop {
        let metadata = viewer
            .fetch_metadata(None, READ_LIMIT)
            .map_err(|error| failed(error.to_string()))?;
        let visible = |topic: &Topic| {
            metadata.topics().iter().any(|found| {
                let partitions = found.partitions();
                found.name() == topic.name
                    && !partitions.is_empty()
                    && partitions.iter().all(|partition| partition.leader() >= 0)
            })
        };
        if topics.iter().all(visible) {
            return Ok(());
        }
        if start.elapsed() > READ_LIMIT {
            return Err(failed("they do not appear".into()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Leaves a topic with this one setting of its own; all others are the broker's.
pub(crate) fn alter(bootstrap: &str, topic: &str, key: &str, value: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Kafka {
        doing: format!("alter {topic}"),
        reason,
    };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .map_err(|error| failed(error.to_string()))?;
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let results = off_runtime(admin.alter_configs([&change], &options))?
        .map_err(|error| failed(error.to_string()))?;
    for result in results {
        result.map_err(|(_, code)| failed(code.to_string()))?;
    }
    Ok(())
}

/// Gives `visit` every committed record of a topic, from the start of each partition to its present end.
pub fn read(
    bootstrap: &str,
    topic: &str,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), Error> {
    let failed = |error: KafkaError| Error::Kafka {
        doing: format!("read {topic}"),
        reason: error.to_string(),
    };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "thmanyah-dev-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(failed)?;
    let metadata = consumer
        .fetch_metadata(Some(topic), READ_LIMIT)
        .map_err(failed)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let mut start = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        start
            .add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(failed)?;
    }
    consumer.assign(&start).map_err(failed)?;
    let mut open: HashSet<i32> = start
        .elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect();
    let mut heard = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(record)) => visit(&record),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) if !is_notice(&error) => return Err(failed(error)),
            quiet if heard.elapsed() > READ_LIMIT => {
                let timed_out = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                return Err(failed(quiet.and_then(Result::err).unwrap_or(timed_out)));
            }
            _ => continue,
        }
        heard = Instant::now();
    }
    Ok(())
}

/// A connection that broke is told of where records are read, and made again by the client.
fn is_notice(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
    )
}

/// Drives a future to its end on a thread of its own, so that callers may be async or not.
pub(crate) fn off_runtime<F>(future: F) -> Result<F::Output, Error>
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map(|runtime| runtime.block_on(future))
            })
            .join()
    })
    .unwrap_or_else(|_| Err(std::io::Error::other("the future panicked")))
    .map_err(Error::io("run an asynchronous request"))
}
