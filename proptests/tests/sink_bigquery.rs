//! Each event once in BigQuery, whatever becomes of who writes it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thmanyah::config::{BigQueryConfig, Config, Flags, Layers};
use thmanyah::health::Health;
use thmanyah::kafka::{Kafka, LimitReader, TopicLimits};
use thmanyah::metrics::Metrics;
use thmanyah::sinks::{
    Batch, BigQuerySink, Breaker, Condition, Destination, Frame, Lane, LetterSettings, Letters,
    Record, StateTopic, Switch, Taken,
};
use thmanyah_dev::{Processor, Topic};
use thmanyah_proptests::bigquery_site::{Site, Stage, await_line, stage};
use thmanyah_proptests::deployment::await_until;
use thmanyah_proptests::published::Written;
use thmanyah_proptests::table::{await_count, count, must_equal};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_mins(1);
/// A killed client leaves a connection behind in the emulator, which has 256.
const KILLS_PER_EMULATOR: usize = 50;

/// `SINK_KILLS` for another number.
fn kills() -> usize {
    let set = std::env::var("SINK_KILLS").ok();
    set.and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

#[test]
fn a_sink_that_is_killed_again_and_again_writes_each_event_once() -> Result<()> {
    let mut stage = stage();
    let (kills, seed) = (kills(), rand::random::<u64>());
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let site = Site::new(&stage, "killed", 4)?;
    let events = 1_000 * kills.max(20);
    let written = site.fill(&stage, 1, events)?;
    let mut sink = Processor::spawn(site.options(&stage, &[("BATCH_RECORDS", "100")]))?;
    let mut progress = Vec::new();
    for kill in 1..=kills {
        if rng.random_ratio(1, 4) {
            // At any moment, also while it starts and takes partitions over.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        } else {
            let opened = sink.log().matches("opened a stream").count();
            await_line(&mut sink, "opened a stream", opened + 1, LIMIT)?;
            std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        }
        sink.kill9();
        progress.push(count(&stage.bigquery, &site.table()).unwrap_or_default());
        if kill % KILLS_PER_EMULATOR == 0 {
            stage.bigquery.restart()?;
        }
        sink.respawn()?;
    }
    await_count(&stage.bigquery, &site.table(), events, LIMIT)?;
    println!("rows after each kill: {progress:?}");
    must_equal(&stage.bigquery, &site.table(), &written)
}

/// One of those who fight for a partition inside one process: it can be ended at each await.
struct Contender {
    sink: BigQuerySink,
    frame: Frame,
    log: Arc<Vec<Record>>,
    topic_id: [u8; 16],
    opened: Arc<AtomicU32>,
    done: Arc<AtomicBool>,
}

impl Contender {
    /// Takes the partition over, writes, and lets go of it in the middle of what it does, until the last record is there.
    async fn fight(self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.sink.prepare().await.unwrap();
        while !self.done.load(Ordering::Relaxed) {
            let time = Duration::from_millis(rng.random_range(50..1_500));
            // Dropped at whatever await it is, as a kill would end it.
            let _ = tokio::time::timeout(time, self.attempt(&mut rng)).await;
        }
    }

    async fn attempt(&self, rng: &mut ChaCha8Rng) -> Option<()> {
        let end = self.log.last()?.offset + 1;
        let taken = Taken {
            partition: 0,
            partitions: 1,
            topic_id: self.topic_id,
            log_start: 0,
            log_end: end,
            committed: None,
        };
        let opened = self.sink.open(taken, self.frame.clone()).await;
        let (mut lane, mut position) = opened.ok()?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        while position < end {
            let from = self.log.partition_point(|record| record.offset < position);
            let most = rng.random_range(1..30);
            let records = self.log.iter().skip(from).take(most).cloned().collect();
            let batch = Batch { records };
            position = batch.next_offset();
            lane.deliver(&batch).await.ok()?;
        }
        self.done.store(true, Ordering::Relaxed);
        Some(())
    }
}

fn configuration(stage: &Stage, dataset: &str) -> Result<Config> {
    let text = |text: &str| text.to_owned();
    let environment = [
        ("KAFKA__BOOTSTRAP_SERVERS", text(stage.broker.bootstrap())),
        ("INSTANCE", text("0")),
        ("STATE_DIR", text(".")),
        ("SINKS__BIGQUERY__PROJECT", text(stage.bigquery.project())),
        ("SINKS__BIGQUERY__DATASET", text(dataset)),
        ("SINKS__BIGQUERY__REST_URL", stage.bigquery.rest_url()),
        ("SINKS__BIGQUERY__GRPC_URL", stage.bigquery.grpc_url()),
    ];
    let environment =
        environment.map(|(name, value)| (format!("THMANYAH_{name}").into(), value.into()));
    let layers = Layers::from_parts(&Flags::default(), environment)?;
    Ok(Config::load(&layers)?)
}

fn states(config: &Config, topic: &str) -> StateTopic {
    let stop = CancellationToken::new();
    let limits = LimitReader::new(config.kafka.clone(), config.topics.clone(), 1 << 20, stop);
    let shares = (1 << 20, 1 << 20);
    StateTopic {
        kafka: Kafka::new(
            config.kafka.client(),
            shares,
            limits,
            &TopicLimits::default(),
        ),
        topic: topic.to_owned(),
        partitions: 1,
        app: "fight".to_owned(),
    }
}

fn frame(config: &Config) -> Result<Frame> {
    let metrics = Metrics::new().sink("bigquery");
    let breaker = Arc::new(Breaker::new());
    let letters = LetterSettings {
        client: config.kafka.client(),
        topic: "fight.dlq".into(),
        limit: 1_000_000,
        stage: "sink-bigquery".into(),
        source: "enriched".into(),
    };
    let health = Arc::new(Health::new());
    Ok(Frame {
        condition: Condition::new("bigquery", health, metrics.clone(), Arc::clone(&breaker)),
        letters: Letters::new(letters, metrics.clone())?,
        metrics,
        breaker,
        switch: Switch::default(),
    })
}

fn record(written: &Written) -> Record {
    Record {
        offset: written.offset,
        timestamp_ms: written.timestamp_ms,
        key: None,
        value: written.value.clone(),
    }
}

#[test]
fn two_tasks_that_fight_for_a_partition_write_each_event_once() -> Result<()> {
    let parts = stage();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let site = Site::new(&parts, "fight", 1)?;
    let written = site.fill(&parts, 1, 3_000)?;
    let state = site.topic("sinks.state");
    let compacted = Topic::new(&state, 1).with("cleanup.policy", "compact");
    parts.broker.create_topics(&[compacted])?;
    let config = configuration(&parts, "fight")?;
    let bigquery: &BigQueryConfig = &config.sinks.bigquery;
    let log = Arc::new(written.iter().flatten().map(record).collect());
    let (opened, done) = (Arc::default(), Arc::default());
    let runtime = tokio::runtime::Runtime::new()?;
    let fights = (0..2).map(|number| {
        let contender = Contender {
            sink: BigQuerySink::new(bigquery, states(&config, &state))?,
            frame: frame(&config)?,
            log: Arc::clone(&log),
            topic_id: [7; 16],
            opened: Arc::clone(&opened),
            done: Arc::clone(&done),
        };
        Ok(runtime.spawn(contender.fight(seed ^ number)))
    });
    let fights: Vec<_> = fights.collect::<Result<_>>()?;
    for fight in fights {
        runtime.block_on(fight)?;
    }
    println!("{} streams were opened", opened.load(Ordering::Relaxed));
    assert!(opened.load(Ordering::Relaxed) > 2, "nobody fought");
    must_equal(&parts.bigquery, &site.table(), &written)
}

/// Two processes, a partition that both want, and what was published so far.
struct Fight<'s> {
    stage: &'s Stage,
    site: &'s Site,
    rng: ChaCha8Rng,
    written: Vec<Vec<Written>>,
    events: usize,
}

impl Fight<'_> {
    fn publish(&mut self) -> Result<()> {
        let first = i64::try_from(self.events)? + 1;
        let more = self.site.fill(self.stage, first, ROUND)?;
        self.written.resize_with(more.len(), Vec::new);
        for (all, more) in self.written.iter_mut().zip(more) {
            all.extend(more);
        }
        self.events += ROUND;
        Ok(())
    }

    fn process(&self, instance: &str, dir: &str) -> Result<Processor> {
        let mut options = self.site.options(self.stage, &[("BATCH_RECORDS", "5")]);
        instance.clone_into(&mut options.instance);
        options.state_dir = options.state_dir.join(dir);
        Ok(Processor::spawn(options)?)
    }

    fn any_moment(&mut self) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..300)));
    }
}

const ROUND: usize = 1_000;
const OPENED: &str = "opened a stream";

fn opened(process: &Processor) -> usize {
    process.log().matches(OPENED).count()
}

#[test]
fn two_processes_that_fight_for_a_partition_write_each_event_once() -> Result<()> {
    let parts = stage();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let site = Site::new(&parts, "processes", 1)?;
    let mut fight = Fight {
        stage: &parts,
        site: &site,
        rng: ChaCha8Rng::seed_from_u64(seed),
        written: Vec::new(),
        events: 0,
    };
    fight.publish()?;
    let mut holder = fight.process("a", "first")?;
    await_line(&mut holder, OPENED, 1, LIMIT)?;

    // Under one name: the newcomer takes the partition while the other still writes, and does not know yet.
    for round in 0..8 {
        fight.publish()?;
        fight.any_moment();
        let mut newcomer = fight.process("a", &format!("next-{round}"))?;
        await_line(&mut newcomer, OPENED, 1, LIMIT)?;
        let end = holder.wait(LIMIT)?;
        ensure!(end.code() == Some(3), "{end}: {}", holder.log());
        holder = newcomer;
    }

    // Under two names: who holds it stands still for longer than its session, and goes on where it was.
    let mut other = fight.process("b", "other")?;
    other.await_ready(LIMIT)?;
    for _ in 0..3 {
        fight.publish()?;
        fight.any_moment();
        let before = opened(&other);
        holder.pause();
        await_line(&mut other, OPENED, before + 1, LIMIT)?;
        fight.publish()?;
        fight.any_moment();
        holder.resume();
        std::mem::swap(&mut holder, &mut other);
        fight.any_moment();
        if other.ended().is_some() {
            other.respawn()?;
        }
        other.await_ready(LIMIT)?;
    }
    await_count(&parts.bigquery, &site.table(), fight.events, LIMIT)?;
    must_equal(&parts.bigquery, &site.table(), &fight.written)
}

#[test]
fn another_app_at_the_same_table_is_told_so_and_writes_nothing() -> Result<()> {
    let parts = stage();
    let site = Site::new(&parts, "apps", 1)?;
    let written = site.fill(&parts, 1, 1_000)?;
    let processes = ["one", "two"].map(|app| {
        let mut options = site.options(&parts, &[]);
        if let Some(name) = options.args.iter_mut().find(|arg| *arg == "apps") {
            app.clone_into(name);
        }
        options.state_dir = options.state_dir.join(app);
        Processor::spawn(options)
    });
    let mut processes = processes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let told = "each needs a table of its own";
    await_until(LIMIT, "one of them to be told", || {
        for process in &mut processes {
            ensure!(process.ended().is_none(), "{}", process.log());
        }
        let mut logs = processes.iter().map(Processor::log);
        Ok(logs.any(|log| log.contains(told)).then_some(()))
    })?;
    await_count(&parts.bigquery, &site.table(), 1_000, LIMIT)?;
    for process in &mut processes {
        ensure!(process.ended().is_none(), "{}", process.log());
        process.await_ready(LIMIT)?;
    }
    let told = |process: &&Processor| process.log().contains(told);
    ensure!(processes.iter().filter(told).count() == 1, "both were told");
    must_equal(&parts.bigquery, &site.table(), &written)
}
