//! Topics to create before anything runs.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use std::time::Duration;

use crate::Error;

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
            let mut new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(1));
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
    Ok(())
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
