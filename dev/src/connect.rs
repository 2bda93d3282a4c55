//! Kafka Connect with the Debezium connector, exactly once from PostgreSQL's log into the two input topics.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

use crate::child::{LOOK_AGAIN, Service};
use crate::http::request;
use crate::scratch_dir::ScratchDir;
use crate::{Broker, Error, Postgres, Topic, cache, free_port};

/// The input topics: engagement events first, content second.
pub const INPUT_TOPICS: [&str; 2] = ["engagement-events.raw", "content.raw"];

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const CONNECTOR: &str = "thmanyah-source";
/// Leaves room for values of 4 MiB, the largest that the processor accepts.
const LARGEST_RECORD: &str = "8388608";

const WORKER: &str = include_str!("../connect.properties");
const CONNECTOR_JSON: &str = include_str!("../connector.json");

/// A running Connect worker. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Connect {
    service: Service,
    _dir: ScratchDir,
    url: String,
}

impl Connect {
    /// Creates the two input topics, starts a worker and the connector, and returns when the connector has read the
    /// tables' present rows and follows their changes.
    pub fn start(broker: &Broker, postgres: &Postgres, partitions: i32) -> Result<Self, Error> {
        let mut connect = Self::start_worker(broker, partitions)?;
        connect.register(postgres)?;
        Ok(connect)
    }

    /// The first half of [`Self::start`]: needs no database yet, so that both can start side by side.
    pub fn start_worker(broker: &Broker, partitions: i32) -> Result<Self, Error> {
        create_input_topics(broker, partitions)?;
        let port = free_port()?;
        let dir = ScratchDir::new("connect")?;
        let properties = WORKER
            .replace("${BOOTSTRAP}", broker.bootstrap())
            .replace("${PORT}", &port.to_string())
            .replace(
                "${PLUGINS}",
                &cache::cached("plugins")?.display().to_string(),
            );
        let file = dir.path().join("connect.properties");
        std::fs::write(&file, properties)
            .map_err(Error::io(format!("write {}", file.display())))?;
        let class_path = cache::class_path("jars/connect")?;
        let logger = cache::cached("jars/kafka/slf4j-simple-1.7.36.jar")?;
        let mut service = Service::start(
            "Kafka Connect",
            Path::new("java"),
            &dir.path().join("connect.out"),
            None,
            Signal::KILL,
            |command| {
                command
                    .args(cache::java_flags("jars/connect.jsa"))
                    .arg("-cp")
                    .arg(format!("{class_path}:{}", logger.display()))
                    .arg("org.apache.kafka.connect.cli.ConnectDistributed")
                    .arg(&file);
            },
        )?;
        let url = format!("http://127.0.0.1:{port}");
        let connectors = format!("{url}/connectors");
        service.await_ready("its REST interface", START_LIMIT, || {
            request(Method::GET, &connectors, None).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self {
            service,
            _dir: dir,
            url,
        })
    }

    /// The second half of [`Self::start`]: registers the connector and waits until it follows the tables.
    pub fn register(&mut self, postgres: &Postgres) -> Result<(), Error> {
        let body = CONNECTOR_JSON.replace("${DATABASE_PORT}", &postgres.port().to_string());
        let connectors = format!("{}/connectors", self.url);
        let wrong = |reason: String| Error::Http {
            url: connectors.clone(),
            reason,
        };
        let body: Value = serde_json::from_str(&body).map_err(|error| wrong(error.to_string()))?;
        // The worker answers 409 while its group still settles.
        let start = Instant::now();
        loop {
            let answer = request(Method::POST, &connectors, Some(&body))?;
            match answer.status {
                201 => break,
                409 | 503 if start.elapsed() < START_LIMIT => std::thread::sleep(LOOK_AGAIN),
                status => return Err(wrong(format!("{status}: {}", answer.body))),
            }
        }
        let status_url = format!("{connectors}/{CONNECTOR}/status");
        let mut failure = None;
        self.service
            .await_ready("the connector to follow the tables", START_LIMIT, || {
                let Ok(answer) = request(Method::GET, &status_url, None) else {
                    return false;
                };
                if answer.body.contains("\"FAILED\"") {
                    failure = Some(answer.body);
                    return true;
                }
                answer.body.matches("\"RUNNING\"").count() == 2 && follows(postgres)
            })?;
        match failure {
            None => Ok(()),
            Some(status) => Err(Error::Http {
                url: status_url,
                reason: format!("the connector failed: {status}"),
            }),
        }
    }

    /// Deletes the connector, what it remembers, and its replication slot, then registers it again: it takes a snapshot of
    /// everything once more.
    pub fn recreate(&mut self, postgres: &Postgres) -> Result<(), Error> {
        let connector = format!("{}/connectors/{CONNECTOR}", self.url);
        // Offsets can be deleted of a connector that is stopped, and only once its tasks are gone.
        for (method, path) in [
            (Method::PUT, "/stop"),
            (Method::DELETE, "/offsets"),
            (Method::DELETE, ""),
        ] {
            let url = format!("{connector}{path}");
            let start = Instant::now();
            loop {
                let answer = request(method.clone(), &url, None)?;
                match answer.status {
                    200..=299 => break,
                    400 | 409 | 500 | 503 if start.elapsed() < START_LIMIT => {
                        std::thread::sleep(LOOK_AGAIN);
                    }
                    status => {
                        let reason = format!("{status}: {}", answer.body);
                        return Err(Error::Http { url, reason });
                    }
                }
            }
        }
        drop_slot(postgres)?;
        self.register(postgres)
    }

    /// The address of the REST interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id of the worker.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// Where the worker's log is.
    pub fn log_file(&self) -> &Path {
        self.service.log()
    }

    /// Shuts the worker down in good order.
    pub fn stop(mut self) {
        self.service.stop(Signal::TERM, STOP_LIMIT);
    }
}

/// Drops the connector's slot, once the connector has let go of it.
fn drop_slot(postgres: &Postgres) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        let dropped =
            postgres.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
        match dropped {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > START_LIMIT => return Err(error),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Whether the snapshot is done: only then does the connector stream from its slot.
fn follows(postgres: &Postgres) -> bool {
    postgres
        .query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        .is_ok_and(|count| count != "0")
}

fn create_input_topics(broker: &Broker, partitions: i32) -> Result<(), Error> {
    let topics = INPUT_TOPICS.map(|name| {
        Topic::new(name, partitions)
            .with("cleanup.policy", "delete")
            .with("max.message.bytes", LARGEST_RECORD)
    });
    broker.create_topics(&topics)
}
