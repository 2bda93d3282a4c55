//! The running parts: started side by side where they do not need each other, stopped in the reverse order.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use thmanyah_dev::{
    Broker, BrokerOptions, Connect, Postgres, Processor, ProcessorOptions, ScratchDir, sum_of,
    target_dir,
};

use crate::accounts::{Ledger, count};
use crate::destinations::Destinations;
use crate::screen::{Screen, grouped};

/// Partitions of the input topics.
const PARTITIONS: i32 = 4;
const EVENTS: u64 = 20_000;
const CONTENTS: u64 = 1_000;
/// Events per second. A rate that the machine holds easily, so that the latencies told are not those of a queue.
const RATE: u64 = 2_000;
/// How long an event waits for its content. Short, as the demo waits for the last of those whose content never comes.
const DEADLINE: &str = "5s";
/// When to give up on the last event.
const END_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const SINKS: [&str; 3] = ["bigquery", "redis", "http"];
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Everything that runs. The order of the fields is the order of the end, should an error cut the demo short.
pub(crate) struct Pipeline {
    pub(crate) processor: Processor,
    pub(crate) destinations: Destinations,
    pub(crate) connect: Connect,
    pub(crate) broker: Broker,
    pub(crate) postgres: Postgres,
    state: ScratchDir,
}

impl Pipeline {
    pub(crate) fn start(screen: &Screen) -> Result<Self> {
        let start = Instant::now();
        let (broker, postgres, destinations) = std::thread::scope(|scope| {
            let broker = scope.spawn(|| Broker::start(BrokerOptions::default()));
            let destinations = scope.spawn(|| Destinations::start(PARTITIONS));
            let postgres = Postgres::start()?;
            let result = format!("127.0.0.1:{}", postgres.port());
            screen.step("PostgreSQL", &result, start);
            let broker = broker
                .join()
                .map_err(|_| anyhow!("the starting thread panicked"))??;
            screen.step("Kafka", broker.bootstrap(), start);
            let destinations = destinations
                .join()
                .map_err(|_| anyhow!("the starting thread panicked"))??;
            screen.step(
                "the destinations",
                "Redis, a BigQuery emulator, an external system",
                start,
            );
            anyhow::Ok((broker, postgres, destinations))
        })?;
        let start = Instant::now();
        let mut connect = Connect::start_worker(&broker, PARTITIONS)?;
        let state = ScratchDir::new("state")?;
        let dir = state.path().join("demo");
        let mut options =
            ProcessorOptions::new(broker.bootstrap(), "demo", &dir).args(["--deadline", DEADLINE]);
        options.env = destinations.settings();
        let run_start = Instant::now();
        let mut processor = Processor::spawn(options)?;
        connect.register(&postgres)?;
        screen.step(
            "Debezium on Connect",
            "exactly-once source, 2 tables → 2 topics",
            start,
        );
        processor.await_ready(END_LIMIT)?;
        screen.step("thmanyah run", processor.url(), run_start);
        Ok(Self {
            processor,
            destinations,
            connect,
            broker,
            postgres,
            state,
        })
    }

    /// Lets the generator write its rows.
    pub(crate) fn generate(&self, screen: &Screen) -> Result<()> {
        let start = Instant::now();
        let generator = target_dir()?.join("data-generator");
        let status = Command::new(&generator)
            .args(["--database-url", &self.postgres.url()])
            .args(["--events", &EVENTS.to_string()])
            .args(["--contents", &CONTENTS.to_string()])
            .args(["--rate", &RATE.to_string()])
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot start {}: run `make build`", generator.display()))?;
        if !status.success() {
            bail!("the data generator failed with {status}");
        }
        let result = format!(
            "{} events, {} contents, {}/s",
            grouped(EVENTS),
            grouped(CONTENTS),
            grouped(RATE)
        );
        screen.step("rows written", &result, start);
        Ok(())
    }

    /// Rows of `engagement_events` in PostgreSQL.
    pub(crate) fn rows(&self) -> Result<u64> {
        count(
            &self
                .postgres
                .query("SELECT count(*) FROM engagement_events")?,
        )
    }

    /// Waits until every row has been consumed and nothing is pending.
    pub(crate) fn await_the_end(&mut self, screen: &Screen) -> Result<()> {
        let start = Instant::now();
        let rows = self.rows()?;
        loop {
            let page = self.processor.get("/metrics")?.body;
            let ledger = Ledger::read(&page);
            let through = |ledger: &Ledger| ledger.consumed >= rows && ledger.pending == 0;
            if let Some(ledger) = ledger.filter(through)
                && SINKS
                    .iter()
                    .all(|sink| delivered(&page, sink) >= ledger.enriched)
            {
                screen.step(
                    "everything is through",
                    "consumed = rows, nothing pending, all delivered",
                    start,
                );
                return Ok(());
            }
            if let Some(status) = self.processor.ended() {
                bail!(
                    "thmanyah run ended with {status}:\n{}",
                    self.processor.log()
                );
            }
            if start.elapsed() > END_LIMIT {
                bail!(
                    "not everything is through after {} s: {rows} rows, {ledger:?}; the log of thmanyah run:\n{}",
                    END_LIMIT.as_secs(),
                    self.processor.log()
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Stops everything: the processor in good order, then what it depends on.
    pub(crate) fn stop(mut self, screen: &Screen) -> Result<()> {
        let start = Instant::now();
        let status = self.processor.terminate(STOP_LIMIT)?;
        if !status.success() {
            bail!(
                "thmanyah run ended with {status}:\n{}",
                self.processor.log()
            );
        }
        drop(self.processor);
        drop(self.destinations);
        self.connect.stop();
        self.broker.stop();
        drop(self.postgres);
        drop(self.state);
        screen.step("stopped", "nothing is left behind", start);
        Ok(())
    }
}

/// Events that a sink has delivered.
fn delivered(page: &str, sink: &str) -> u64 {
    sum_of(page, "thmanyah_sink_events_total", &[("sink", sink)]).unwrap_or_default() as u64
}
