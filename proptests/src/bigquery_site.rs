//! A place where the BigQuery sink runs by itself: topics under a prefix, an enriched topic filled without the processor, a
//! dataset of its own.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use thmanyah_dev::{
    BigQuery, Broker, BrokerOptions, Processor, ProcessorOptions, ScratchDir, Topic,
};

use crate::published::{Filling, Written, fill};

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One broker and one emulator serve all tests of a program, one after another, and end with it.
pub struct Stage {
    /// Kafka.
    pub broker: Broker,
    /// BigQuery.
    pub bigquery: BigQuery,
}

/// The stage, for one test alone.
///
/// # Panics
/// When a service cannot be started.
pub fn stage() -> MutexGuard<'static, Stage> {
    static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
    let start = || {
        Mutex::new(Stage {
            broker: Broker::start(BrokerOptions::default()).expect("a broker"),
            bigquery: BigQuery::start().expect("an emulator of BigQuery"),
        })
    };
    let stage = STAGE.get_or_init(start).lock();
    stage.unwrap_or_else(PoisonError::into_inner)
}

/// One app and its dataset.
pub struct Site {
    /// Also the dataset.
    name: &'static str,
    state: ScratchDir,
    partitions: i32,
}

impl Site {
    /// Makes the input topics, which stay empty.
    pub fn new(stage: &Stage, name: &'static str, partitions: i32) -> Result<Self> {
        let site = Self {
            name,
            state: ScratchDir::new("sink")?,
            partitions,
        };
        stage.broker.create_topics(&[
            Topic::new(&site.topic("engagement-events.raw"), partitions),
            Topic::new(&site.topic("content.raw"), 1),
        ])?;
        Ok(site)
    }

    /// The full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// The table in a query.
    pub fn table(&self) -> String {
        format!("{}.engagement_events", self.name)
    }

    /// Publishes events, from this id on.
    pub fn fill(&self, stage: &Stage, first_id: i64, events: usize) -> Result<Vec<Vec<Written>>> {
        let filling = Filling {
            first_id,
            ..Filling::new(self.partitions, events, 50, first_id.unsigned_abs())
        };
        fill(
            &stage.broker,
            &self.topic("engagement-events.enriched"),
            &filling,
        )
    }

    /// The sink as a process, with further settings of `sinks.bigquery`.
    pub fn options(&self, stage: &Stage, settings: &[(&str, &str)]) -> ProcessorOptions {
        let path: &Path = self.state.path();
        let mut options = ProcessorOptions::new(stage.broker.bootstrap(), "0", path).args([
            "--roles",
            "sink-bigquery",
            "--app",
            self.name,
        ]);
        let (rest, grpc) = (stage.bigquery.rest_url(), stage.bigquery.grpc_url());
        let fixed = [
            ("PROJECT", stage.bigquery.project()),
            ("DATASET", self.name),
            ("REST_URL", &rest),
            ("GRPC_URL", &grpc),
            ("LINGER", "1ms"),
        ];
        for (name, value) in fixed.iter().chain(settings) {
            options
                .env
                .push((format!("THMANYAH_SINKS__BIGQUERY__{name}"), (*value).into()));
        }
        let prefix = format!("{}.", self.name);
        options.env.push(("THMANYAH_TOPICS__PREFIX".into(), prefix));
        options
    }
}

/// Waits until a process has logged this so often.
pub fn await_line(
    process: &mut Processor,
    line: &str,
    times: usize,
    limit: Duration,
) -> Result<()> {
    let start = Instant::now();
    while process.log().matches(line).count() < times {
        ensure!(
            start.elapsed() < limit && process.ended().is_none(),
            "`{line}` was not logged {times} times: {}",
            process.log()
        );
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
