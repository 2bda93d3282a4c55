//! One deployment of the processor on a broker that several tests share: topics and groups of its own.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use thmanyah::domain::Ledger;
use thmanyah_dev::{Broker, Error, Processor, ProcessorOptions, ScratchDir, Topic};

use crate::feed::{self, Feed};
use crate::oracle::EventRow;
use crate::topics::{self, Record};

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// How much of a log a failed test shows.
const SHOWN_LINES: usize = 60;

/// Waits until `look` finds something; `what` tells what was waited for in vain.
pub fn await_until<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("still waiting for {what} after {limit:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Topics, groups and state of one deployment.
pub struct Deployment<'b> {
    /// The broker.
    pub broker: &'b Broker,
    app: String,
    prefix: String,
    partitions: i32,
    state: ScratchDir,
    feed: Feed,
    args: Vec<String>,
}

impl<'b> Deployment<'b> {
    /// A deployment whose app is `app` and whose topics begin with it; makes the input topics.
    pub fn new(broker: &'b Broker, app: &str, partitions: i32) -> Result<Self> {
        let this = Self::with_prefix(broker, app, &format!("{app}."), partitions)?;
        let inputs = ["engagement-events.raw", "content.raw"].map(|name| {
            Topic::new(&this.topic(name), partitions).with("max.message.bytes", "8388608")
        });
        broker.create_topics(&inputs)?;
        Ok(this)
    }

    /// A deployment of any prefix; the input topics are made by someone else.
    pub fn with_prefix(
        broker: &'b Broker,
        app: &str,
        prefix: &str,
        partitions: i32,
    ) -> Result<Self> {
        Ok(Self {
            broker,
            app: app.to_owned(),
            prefix: prefix.to_owned(),
            partitions,
            state: ScratchDir::new("state")?,
            feed: Feed::new(broker)?,
            args: Vec::new(),
        })
    }

    /// The same, its processes run with further arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// The full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The consumer group of the enricher.
    pub fn group(&self) -> String {
        format!("{}-enricher", self.app)
    }

    /// Partitions of the engagement events' topic.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Where an instance keeps its state.
    pub fn state_dir(&self, instance: &str) -> PathBuf {
        self.state.path().join(instance)
    }

    /// How an instance is run.
    pub fn options(&self, instance: &str) -> ProcessorOptions {
        let mut options =
            ProcessorOptions::new(self.broker.bootstrap(), instance, &self.state_dir(instance))
                .args(["--app", &self.app])
                .args(self.args.iter().cloned());
        options.env = vec![("THMANYAH_TOPICS__PREFIX".into(), self.prefix.clone())];
        options
    }

    /// Starts an instance and waits until it is ready.
    pub fn start(&self, instance: &str) -> Result<Logged> {
        self.start_with(self.options(instance))
    }

    /// Starts an instance in a way of its own, and waits until it is ready.
    pub fn start_with(&self, options: ProcessorOptions) -> Result<Logged> {
        let mut processor = Logged::spawn(options)?;
        processor.await_ready(Duration::from_mins(1))?;
        Ok(processor)
    }

    /// The producer of input records.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Sends inserts of events and waits until they are in the log.
    pub fn send_events<'e>(&self, rows: impl IntoIterator<Item = &'e EventRow>) -> Result<()> {
        let topic = self.topic("engagement-events.raw");
        for row in rows {
            let (key, value) = (feed::event_key(row.id), feed::event_value(row));
            self.feed
                .send(&topic, None, Some(&key), Some(&value), &[])?;
        }
        self.feed.flush()
    }

    /// Sends the insert of a content row and waits until it is in the log.
    pub fn send_content(&self, id: &str, kind: &str, length: Option<i32>) -> Result<()> {
        let (key, value) = (feed::content_key(id), feed::content_value(id, kind, length));
        let topic = self.topic("content.raw");
        self.feed
            .send(&topic, None, Some(&key), Some(&value), &[])?;
        self.feed.flush()
    }

    /// Every committed record of a topic.
    pub fn read(&self, name: &str) -> Result<Vec<Record>> {
        topics::read_back(self.broker.bootstrap(), &self.topic(name))
    }

    /// The committed positions and ledgers.
    pub fn ledgers(&self) -> Result<BTreeMap<i32, (i64, Ledger)>> {
        let topic = self.topic("engagement-events.raw");
        let bootstrap = self.broker.bootstrap();
        topics::ledgers(bootstrap, &self.group(), &topic, self.partitions)
    }

    /// The committed ledgers' sum.
    pub fn total(&self) -> Result<Ledger> {
        Ok(topics::total(
            self.ledgers()?.values().map(|(_, ledger)| ledger),
        ))
    }

    /// Waits until the committed ledgers' sum is as wanted.
    pub fn await_total(&self, what: &str, wanted: impl Fn(&Ledger) -> bool) -> Result<Ledger> {
        let mut last = Ledger::default();
        let found = await_until(Duration::from_mins(1), what, || {
            last = self.total()?;
            Ok(wanted(&last).then_some(last))
        });
        found.map_err(|error| error.context(format!("the ledger is {last:?}")))
    }
}

/// A processor whose log a failed test shows: it is printed at the end, and libtest shows that of a failure only.
pub struct Logged(Processor);

impl Logged {
    /// Starts it and waits for nothing.
    pub fn spawn(options: ProcessorOptions) -> Result<Self, Error> {
        Processor::spawn(options).map(Self)
    }
}

impl Deref for Logged {
    type Target = Processor;

    fn deref(&self) -> &Processor {
        &self.0
    }
}

impl DerefMut for Logged {
    fn deref_mut(&mut self) -> &mut Processor {
        &mut self.0
    }
}

impl Drop for Logged {
    #[allow(clippy::print_stderr, reason = "libtest captures it")]
    fn drop(&mut self) {
        let log = self.0.log();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(SHOWN_LINES);
        eprintln!("--- the log of instance {}", self.0.options().instance);
        for line in lines.into_iter().skip(first) {
            eprintln!("{line}");
        }
    }
}
